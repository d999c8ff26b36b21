//! A mapping compiled for one rule and server, and what it makes of documents.

mod compile;
pub(super) mod created;
mod dynamic;
pub(super) mod model;
mod settings;

use millrace_common::json::{self, Kind};
use serde_json::Value;

use self::created::Pending;
use self::model::{Child, FieldKind, Model};
use super::action::{ActionKind, Actions, Reject, RejectReason, Verdict};
use super::decide::{Decider, Decision, Edit};
use super::emit::emit;
use super::fold::{FoldLimits, FoldTree, Moved};
use super::judge::term_prefix;
use super::options::{RuleOptions, ServerVersion, Unmapped};
use super::server::Behaviour;
use super::walk::Walk;
use super::walk::orders::Orders;

pub(super) use self::dynamic::simple_match;

/// Why no plan can be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error("mapping: `{path}` {what}")]
    Mapping { path: String, what: String },
    #[error("`fold_into: {field}`: {what}")]
    FoldInto { field: String, what: String },
}

/// A mapping compiled for one rule and server. Immutable; share it between documents of one index.
#[derive(Debug)]
pub struct Plan {
    pub(super) model: Model,
    rule: RuleOptions,
    fold: Option<FoldLimits>,
    budget: u64,
}

/// What changes from document to document of one index: names that documents on their way will create, and the order
/// in which documents name their fields.
#[derive(Clone, Debug, Default)]
pub struct State {
    pending: Pending,
    orders: Orders,
}

impl State {
    /// The state for `plan` after the mapping was read again: names that it does not have yet stay pending for some
    /// readings.
    pub fn carried_to(self, plan: &Plan) -> Self {
        Self { pending: self.pending.carried_to(&plan.model), ..self }
    }
}

/// A document with what its rule knows beside it.
#[derive(Clone, Copy)]
pub struct Input<'p, 't, 'r> {
    pub document: json::Value<'p, 't>,
    /// JSON text that may stand in for `@timestamp` when its value cannot be indexed, e.g. the Kafka timestamp
    /// `"2026-11-23T06:30:17.123Z"`, quotes included. Without one such a document is rejected.
    pub timestamp: Option<&'r str>,
}

impl Plan {
    /// Compiles `mappings` (the object under `mappings`, of a template or of `GET index/_mapping`) and `settings` (nested
    /// or dotted, with or without `index.`).
    ///
    /// # Errors
    /// A mapping that Elasticsearch would refuse, or a `fold_into` that cannot hold what is folded.
    pub fn compile(
        mappings: &Value,
        settings: &Value,
        rule: &RuleOptions,
        server: ServerVersion,
    ) -> Result<Self, PlanError> {
        let model = compile::model(mappings, settings, Behaviour::of(server))?;
        let fold = match &rule.fold_into {
            Some(field) => Some(fold_limits(&model, field)?),
            None if rule.unmapped == Unmapped::Fold => {
                return Err(PlanError::FoldInto {
                    field: String::new(),
                    what: "`unmapped: fold` needs the name of a flattened field here".to_owned(),
                });
            }
            None => None,
        };
        let limit = model.limits.total_fields;
        let budget = rule.field_budget.map_or(limit, |budget| limit.min(budget.into()));
        Ok(Self { model, rule: rule.clone(), fold, budget })
    }

    /// Decides what to send. Appends to `out` only for [`Verdict::Rewritten`].
    pub fn apply(
        &self,
        input: Input<'_, '_, '_>,
        state: &mut State,
        out: &mut Vec<u8>,
        actions: &mut Actions,
    ) -> Verdict {
        let document = input.document;
        if document.kind() != Kind::Object {
            return Verdict::Reject(not_an_object());
        }
        let text = document.raw();
        let has_breaks = memchr::memchr2(b'\n', b'\r', text.as_bytes()).is_some();
        let orders = state.orders.of(&self.model);
        if !has_breaks && orders.shapes.is_fine(&self.model, document) {
            return Verdict::Unchanged;
        }
        let notes_unmapped = self.rule.unmapped != Unmapped::Keep;
        let mut walk = Walk::new(&self.model, Some(&state.pending), notes_unmapped).with_orders(orders);
        walk.document(document);
        let findings = walk.findings;
        if findings.is_empty() {
            orders.shapes.learn(&self.model, notes_unmapped, document);
            if !has_breaks {
                return Verdict::Unchanged;
            }
        }
        let mut decider = Decider {
            rule: &self.rule,
            room: self.budget.saturating_sub(self.model.num_fields + state.pending.cost()),
            ignores_beyond: self.model.limits.ignore_dynamic_beyond,
            timestamp: input.timestamp,
            actions,
        };
        let decision = match decider.decide(findings) {
            Ok(decision) => decision,
            Err(reject) => return Verdict::Reject(reject),
        };
        let Decision { mut edits, folded, rebuilds_fold, created } = decision;
        for (path, created) in created {
            state.pending.insert(path, created);
        }
        if has_breaks {
            actions.add(ActionKind::OneLine, Default::default);
        }
        let base = document.span().start;
        match (&self.fold, self.rule.fold_into.as_deref()) {
            (Some(limits), Some(field)) if rebuilds_fold || !folded.is_empty() => {
                let mut tree = FoldTree::default();
                gather(document, field, &mut edits, &mut tree);
                tree.append(folded);
                edits.sort_by_key(Edit::start);
                let mut tree = Some(tree);
                let mut write = |out: &mut Vec<u8>| {
                    if let Some(tree) = tree.take() {
                        tree.write(*limits, field, actions, out);
                    }
                };
                emit(text, base, &edits, Some((field, &mut write)), out);
            }
            _ if edits.is_empty() && !has_breaks => return Verdict::Unchanged,
            _ => emit(text, base, &edits, None, out),
        }
        Verdict::Rewritten
    }

    /// Fields that count against the budget, pending names included, and the budget.
    pub fn budget(&self, state: &State) -> (u64, u64) {
        (self.model.num_fields + state.pending.cost(), self.budget)
    }
}

fn not_an_object() -> Reject {
    Reject {
        reason: RejectReason::NotAnObject,
        field: String::new(),
        detail: "the document is not a JSON object".to_owned(),
    }
}

fn fold_limits(model: &Model, field: &str) -> Result<FoldLimits, PlanError> {
    /// Deep enough for any log, and far from what JSON parsers refuse.
    const DISABLED_DEPTH: usize = 100;
    let fault = |what: &str| PlanError::FoldInto { field: field.to_owned(), what: what.to_owned() };
    let mut parent = field;
    while let Some((above, _)) = parent.rsplit_once('.') {
        if let Some(Child::Object(id)) = model.find(above)
            && model.object(id).is_nested
        {
            return Err(fault("must not be inside a nested object"));
        }
        parent = above;
    }
    match model.find(field) {
        None => Err(fault("is not in the mapping; map it as `flattened`, or as `object` with `enabled: false`")),
        Some(Child::Object(id)) if !model.object(id).is_enabled => {
            Ok(FoldLimits { ignore_above: 0, depth: DISABLED_DEPTH, prefix: 0 })
        }
        Some(Child::Object(_)) => Err(fault("is an object; only `enabled: false` takes any content")),
        Some(Child::Field(id)) => match &model.field(id).kind {
            FieldKind::Flattened { has_terms: false, depth_limit, .. } => {
                Ok(FoldLimits { ignore_above: 0, depth: *depth_limit, prefix: 0 })
            }
            FieldKind::Flattened { ignore_above, depth_limit, .. } => {
                let prefix = term_prefix(model.field(id));
                Ok(FoldLimits { ignore_above: *ignore_above, depth: *depth_limit, prefix })
            }
            _ => Err(fault(&format!(
                "is of type `{}`; it must be `flattened` (OpenSearch: `flat_object`) or `object` with `enabled: false`",
                model.field(id).type_name
            ))),
        },
    }
}

/// Takes what the fold field holds in the document out of it, into `tree`.
fn gather<'p, 't>(object: json::Value<'p, 't>, field: &str, edits: &mut Vec<Edit<'_>>, tree: &mut FoldTree<'p, 't>) {
    let is_gone = |edits: &[Edit<'_>], at: usize| {
        edits.iter().any(|edit| matches!(edit, Edit::Remove(span) if span.contains(&at)))
    };
    for (key, value) in object.members() {
        let name = key.name();
        let name = name.trim_end_matches('.');
        let span = key.span().start..value.span().end;
        let may_match = name == field
            || field.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'))
            || name.strip_prefix(field).is_some_and(|rest| rest.starts_with('.'));
        if name.is_empty() || !may_match || is_gone(edits, span.start) {
            continue;
        }
        if name == field {
            edits.push(Edit::Remove(span));
            match value.kind() {
                Kind::Null => {}
                Kind::Array => value.elements().for_each(|element| tree.add(Vec::new(), Moved::Value(element))),
                _ => tree.add(Vec::new(), Moved::Value(value)),
            }
        } else if let Some(rest) = field.strip_prefix(name).and_then(|rest| rest.strip_prefix('.')) {
            gather(value, rest, edits, tree);
        } else if let Some(below) = name.strip_prefix(field).and_then(|rest| rest.strip_prefix('.')) {
            edits.push(Edit::Remove(span));
            tree.add(vec![below.to_owned().into()], Moved::Value(value));
        }
    }
}
