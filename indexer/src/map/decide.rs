//! From findings to changes: what the rule says about each.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::action::{ActionKind, Actions, Reject, RejectReason};
use super::check::Misfit;
use super::fold::{FoldTree, Moved};
use super::options::{OnConflict, RuleOptions, Unmapped};
use super::plan::created::Created;
use super::walk::{Finding, What};

/// Where in the fold field values stand that their fields cannot take.
pub(super) const MALFORMED: &str = "malformed";

/// A change of the text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Edit<'r> {
    /// A member, key and value.
    Remove(Range<usize>),
    /// A value.
    Replace(Range<usize>, &'r str),
}

impl Edit<'_> {
    pub(super) fn start(&self) -> usize {
        match self {
            Self::Remove(span) | Self::Replace(span, _) => span.start,
        }
    }
}

pub(super) struct Decision<'p, 't, 'r> {
    /// In the order of the text, not overlapping.
    pub edits: Vec<Edit<'r>>,
    pub folded: FoldTree<'p, 't>,
    /// The fold field in the document does not fit as it is.
    pub rebuilds_fold: bool,
    pub created: HashMap<String, Arc<Created>>,
}

pub(super) struct Decider<'a, 'r> {
    pub rule: &'a RuleOptions,
    /// Fields left in the budget; shrinks with what is created.
    pub room: u64,
    /// Elasticsearch itself leaves new fields out past the limit.
    pub ignores_beyond: bool,
    pub timestamp: Option<&'r str>,
    pub actions: &'a mut Actions,
}

/// What happens to one member.
enum Step {
    Nothing,
    Remove(ActionKind),
    Fold(ActionKind),
    Quarantine,
    Replace,
}

impl<'r> Decider<'_, 'r> {
    pub(super) fn decide<'p, 't>(
        &mut self,
        mut findings: Vec<Finding<'p, 't>>,
    ) -> Result<Decision<'p, 't, 'r>, Reject> {
        // Outer members first; of the findings on one member the one that removes it for good.
        findings.sort_by_key(|finding| (finding.span.start, Reverse(finding.span.end), rank(&finding.what)));
        let mut decision =
            Decision { edits: Vec::new(), folded: FoldTree::default(), rebuilds_fold: false, created: HashMap::new() };
        let mut changed_to = 0;
        for finding in findings {
            if finding.span.start < changed_to {
                // Inside what was changed already.
                continue;
            }
            if self.is_in_fold_field(&finding) {
                decision.rebuilds_fold |= !matches!(finding.what, What::Unsure | What::Unmapped);
                continue;
            }
            let step = self.step(&finding, &mut decision.created)?;
            if !matches!(step, Step::Nothing) {
                changed_to = finding.span.end;
            }
            self.take(step, finding, &mut decision);
        }
        Ok(decision)
    }

    fn take<'p, 't>(&mut self, step: Step, finding: Finding<'p, 't>, decision: &mut Decision<'p, 't, 'r>) {
        let kind = match step {
            Step::Nothing => return,
            Step::Remove(kind) | Step::Fold(kind) => kind,
            Step::Quarantine => ActionKind::Quarantine,
            Step::Replace => ActionKind::Replace,
        };
        self.actions.add(kind, || (dotted(&finding.trail), why(&finding)));
        match step {
            Step::Fold(_) => decision.folded.add(finding.trail, Moved::Value(finding.value)),
            Step::Quarantine | Step::Replace => {
                let field = dotted(&finding.trail);
                decision.folded.add(vec![MALFORMED.into(), field.into()], Moved::AsText(finding.value));
            }
            _ => {}
        }
        match (step, self.timestamp) {
            (Step::Replace, Some(text)) => decision.edits.push(Edit::Replace(finding.value.span(), text)),
            _ => decision.edits.push(Edit::Remove(finding.span)),
        }
    }

    fn step(&mut self, finding: &Finding<'_, '_>, created: &mut HashMap<String, Arc<Created>>) -> Result<Step, Reject> {
        let has_fold = self.rule.fold_into.is_some();
        match &finding.what {
            What::Duplicate => Ok(Step::Remove(ActionKind::DuplicateKey)),
            What::Unsure => Ok(Step::Nothing),
            What::Unmapped if self.is_protected(finding) => Ok(Step::Nothing),
            What::Unmapped => Ok(match self.rule.unmapped {
                Unmapped::Keep => Step::Nothing,
                Unmapped::Drop => Step::Remove(ActionKind::Drop),
                Unmapped::Fold if has_fold => Step::Fold(ActionKind::Fold),
                Unmapped::Fold => Step::Nothing,
            }),
            What::Strict => match self.rule.unmapped {
                Unmapped::Drop if !self.is_protected(finding) => Ok(Step::Remove(ActionKind::Drop)),
                Unmapped::Fold if has_fold && !self.is_protected(finding) => Ok(Step::Fold(ActionKind::Fold)),
                _ => Err(reject(RejectReason::UnmappedField, finding)),
            },
            What::New(new) => self.new_field(finding, new, created),
            What::Misfit { misfit, .. } | What::MetAgain { misfit, .. } | What::Implausible { misfit, .. } => {
                self.conflict(finding, reason(*misfit))
            }
            What::Disagreement { .. } | What::Orphan => self.conflict(finding, RejectReason::TypeConflict),
            What::BadName | What::BadPlace => self.unnameable(finding, RejectReason::FieldName),
            What::TooDeep => self.unnameable(finding, RejectReason::Depth),
            What::TooManyNested if self.rule.on_conflict == OnConflict::Send => Ok(Step::Nothing),
            What::TooManyNested => Err(reject(RejectReason::Limit, finding)),
        }
    }

    fn new_field(
        &mut self,
        finding: &Finding<'_, '_>,
        new: &Arc<Created>,
        created: &mut HashMap<String, Arc<Created>>,
    ) -> Result<Step, Reject> {
        if created.contains_key(&finding.path) {
            return Ok(Step::Nothing);
        }
        if let Some(room) = self.room.checked_sub(new.charge.max(new.cost)) {
            self.room = room;
            created.insert(finding.path.clone(), Arc::clone(new));
            return Ok(Step::Nothing);
        }
        let is_protected = self.is_protected(finding);
        if self.rule.fold_into.is_some() && !is_protected {
            Ok(Step::Fold(ActionKind::Budget))
        } else if self.rule.unmapped == Unmapped::Drop && !is_protected {
            Ok(Step::Remove(ActionKind::Drop))
        } else if self.ignores_beyond || self.rule.on_conflict == OnConflict::Send {
            Ok(Step::Nothing)
        } else {
            Err(reject(RejectReason::FieldBudget, finding))
        }
    }

    fn conflict(&self, finding: &Finding<'_, '_>, reason: RejectReason) -> Result<Step, Reject> {
        match self.rule.on_conflict {
            OnConflict::Send => Ok(Step::Nothing),
            OnConflict::Quarantine if self.rule.fold_into.is_some() => {
                if !self.is_protected(finding) {
                    Ok(Step::Quarantine)
                } else if self.timestamp.is_some() && dotted(&finding.trail) == "@timestamp" {
                    Ok(Step::Replace)
                } else {
                    Err(reject(reason, finding))
                }
            }
            OnConflict::Quarantine | OnConflict::Reject => Err(reject(reason, finding)),
        }
    }

    /// A member that can be no field, whatever its value.
    fn unnameable(&self, finding: &Finding<'_, '_>, reason: RejectReason) -> Result<Step, Reject> {
        let may_move = !self.is_protected(finding);
        match (self.rule.unmapped, self.rule.on_conflict) {
            (Unmapped::Drop, _) if may_move => Ok(Step::Remove(ActionKind::Drop)),
            (Unmapped::Fold, _) | (_, OnConflict::Quarantine) if may_move && self.rule.fold_into.is_some() => {
                Ok(Step::Fold(ActionKind::Fold))
            }
            (_, OnConflict::Send) => Ok(Step::Nothing),
            _ => Err(reject(reason, finding)),
        }
    }

    fn is_in_fold_field(&self, finding: &Finding<'_, '_>) -> bool {
        let Some(fold) = self.rule.fold_into.as_deref() else { return false };
        is_same_or_below(&dotted(&finding.trail), fold)
    }

    /// Whether taking the member away would take a protected field away.
    fn is_protected(&self, finding: &Finding<'_, '_>) -> bool {
        let path = dotted(&finding.trail);
        self.rule.protected.iter().any(|field| is_same_or_below(field, &path))
    }
}

fn is_same_or_below(path: &str, parent: &str) -> bool {
    path.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn rank(what: &What) -> u8 {
    match what {
        What::Duplicate => 0,
        What::Misfit { .. }
        | What::MetAgain { .. }
        | What::Implausible { .. }
        | What::Disagreement { .. }
        | What::Orphan => 1,
        What::BadName | What::BadPlace | What::TooDeep | What::TooManyNested | What::Strict | What::Unmapped => 2,
        What::New(_) => 3,
        What::Unsure => 4,
    }
}

pub(super) fn reason(misfit: Misfit) -> RejectReason {
    match misfit {
        Misfit::ImmenseTerm => RejectReason::ImmenseTerm,
        Misfit::TooDeep => RejectReason::Depth,
        Misfit::NulInKey => RejectReason::FieldName,
        _ => RejectReason::TypeConflict,
    }
}

pub(super) fn dotted(trail: &[Cow<'_, str>]) -> String {
    trail.join(".")
}

fn reject(reason: RejectReason, finding: &Finding<'_, '_>) -> Reject {
    Reject { reason, field: finding.path.clone(), detail: format!("field `{}` {}", finding.path, why(finding)) }
}

/// A half sentence about the field, e.g. `of type long is not a number: "abc"`.
pub(super) fn why(finding: &Finding<'_, '_>) -> String {
    match &finding.what {
        What::Unmapped => "is not mapped".to_owned(),
        What::Strict => "is not mapped and the mapping is strict".to_owned(),
        What::New(new) => format!("would be a new field of type {}, past the field budget", new.type_name),
        What::Misfit { misfit, type_name }
        | What::MetAgain { misfit, type_name }
        | What::Implausible { misfit, type_name } => {
            format!("of type {type_name} {}: {}", misfit.as_str(), shown(finding.value.raw()))
        }
        What::Disagreement { first, second } => format!("would be both {first} and {second} in one document"),
        What::Orphan => "would be created below an object that `dynamic: runtime` leaves out".to_owned(),
        What::BadName | What::BadPlace => "has a name that Elasticsearch refuses".to_owned(),
        What::TooDeep => "is nested deeper than the index allows".to_owned(),
        What::Duplicate => "is there again later in the same object; the last one counts".to_owned(),
        What::TooManyNested => "has more nested objects than the index allows".to_owned(),
        What::Unsure => "can only be judged by Elasticsearch".to_owned(),
    }
}

/// The beginning of a value, for messages.
fn shown(raw: &str) -> Cow<'_, str> {
    const MOST: usize = 120;
    match raw.char_indices().nth(MOST) {
        None => raw.into(),
        Some((end, _)) => format!("{}… ({} bytes)", &raw[..end], raw.len()).into(),
    }
}
