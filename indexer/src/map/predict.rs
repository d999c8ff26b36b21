//! What Elasticsearch would answer, apart from what we decide.

use std::collections::BTreeSet;

use millrace_common::json::{self, Kind};

use super::action::RejectReason;
use super::check::Misfit;
use super::decide::{reason, why};
use super::plan::Plan;
use super::plan::created::Created;
use super::plan::model::{Child, Field, Model};
use super::server::{Behaviour, Counting};
use super::walk::{Finding, Walk, What};

/// What Elasticsearch would make of a document, given the mapping as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prediction {
    pub outcome: Outcome,
    /// Fields and objects that an accepted document creates, in the order of the document.
    pub creates: Vec<NewField>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Accepted,
    Rejected {
        reason: RejectReason,
        field: String,
        detail: String,
    },
    /// Something about this field is not known here: a type of a module, a format in part.
    Unsure {
        field: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewField {
    pub path: String,
    /// The mapping's name of the type.
    pub type_name: String,
    pub is_runtime: bool,
}

/// When a server notices something.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    /// While it reads the document.
    Reading,
    /// When it adds the new fields to the mapping.
    Merging,
    /// When it checks the mapping that came of it.
    Checking,
    /// When it parses the document again with the new mapping.
    Again,
    /// When it writes the terms.
    Writing,
}

impl Plan {
    /// Predicts Elasticsearch's answer to an unchanged document.
    pub fn predict(&self, document: json::Value<'_, '_>) -> Prediction {
        if document.kind() != Kind::Object {
            let detail = "the document is not a JSON object".to_owned();
            let outcome = Outcome::Rejected { reason: RejectReason::NotAnObject, field: String::new(), detail };
            return Prediction { outcome, creates: Vec::new() };
        }
        let mut walk = Walk::new(&self.model, None, false);
        walk.document(document);
        let mut reading = Reading { model: &self.model, charged: 0, cost: 0, creates: Vec::new(), unsure: None };
        let refused = reading
            .refusal(&walk.findings, When::Reading)
            .or_else(|| reading.refusal(&walk.findings, When::Merging))
            .or_else(|| reading.past_the_limit())
            .or_else(|| reading.refusal(&walk.findings, When::Checking))
            .or_else(|| reading.refusal(&walk.findings, When::Again))
            .or_else(|| reading.refusal(&walk.findings, When::Writing));
        let Reading { creates, unsure, .. } = reading;
        match (refused, unsure) {
            (Some(outcome), _) => Prediction { outcome, creates: Vec::new() },
            (None, Some(field)) => Prediction { outcome: Outcome::Unsure { field }, creates },
            (None, None) => Prediction { outcome: Outcome::Accepted, creates },
        }
    }
}

/// What came of the findings so far.
struct Reading<'m> {
    model: &'m Model,
    /// Against the limit of fields: while the document is read,
    charged: u64,
    /// and at its end.
    cost: u64,
    creates: Vec<NewField>,
    unsure: Option<String>,
}

impl Reading<'_> {
    /// The first refusal among what is noticed at that time, unless something before it is not known.
    fn refusal(&mut self, findings: &[Finding<'_, '_>], when: When) -> Option<Outcome> {
        let mut noticed_now: Vec<_> =
            findings.iter().filter(|finding| noticed(finding, self.model.server) == when).collect();
        if when == When::Merging && self.model.server.has_old_parser {
            let late = self.late_conflict(findings);
            noticed_now.sort_by_key(|finding| match &late {
                Some((conflict, after)) if finding.path == *conflict => (after.as_str(), true),
                _ => (finding.path.as_str(), false),
            });
        }
        for finding in noticed_now {
            let reason = match &finding.what {
                What::Unmapped | What::Implausible { .. } => continue,
                What::Unsure => {
                    self.unsure.get_or_insert_with(|| finding.path.clone());
                    continue;
                }
                What::New(new) if self.takes(finding, new) => continue,
                What::New(_) => RejectReason::FieldBudget,
                What::Strict => RejectReason::UnmappedField,
                What::Misfit { misfit, .. } | What::MetAgain { misfit, .. } => reason(*misfit),
                What::Disagreement { .. } | What::Orphan => RejectReason::TypeConflict,
                What::BadName | What::BadPlace | What::Duplicate => RejectReason::FieldName,
                What::TooDeep => RejectReason::Depth,
                What::TooManyNested => RejectReason::Limit,
            };
            if self.unsure.is_none() {
                return Some(Outcome::Rejected { reason, field: finding.path.clone(), detail: why(finding) });
            }
        }
        None
    }

    /// The old parser merges the first new field by name with an object of that name only when it has looked at the name of the
    /// next field that is not inside it. Returns both, if that next one is no name.
    fn late_conflict(&self, findings: &[Finding<'_, '_>]) -> Option<(String, String)> {
        let new: BTreeSet<&str> = self.creates.iter().map(|new| new.path.as_str()).collect();
        let first = *new.first()?;
        let is_inside = |path: &str| path.strip_prefix(first).is_some_and(|rest| rest.starts_with('.'));
        let next = *new.iter().skip(1).find(|path| !is_inside(path))?;
        let is_object = |what: &What| matches!(what, What::Disagreement { second, .. } if second == "object");
        let mut others = findings.iter().filter(|finding| finding.path == first && !is_object(&finding.what));
        let is_late =
            others.next().is_some_and(|finding| matches!(finding.what, What::New(_))) && others.next().is_none();
        let is_no_name = findings.iter().any(|finding| finding.path == next && matches!(finding.what, What::BadPlace));
        (is_late && is_no_name).then(|| (first.to_owned(), next.to_owned()))
    }

    /// Whether there is room for a new field.
    fn takes(&mut self, finding: &Finding<'_, '_>, new: &Created) -> bool {
        if let Some(known) = self.creates.iter_mut().find(|known| known.path == finding.path) {
            known.type_name.clone_from(&new.type_name);
            return true;
        }
        // Refused by the mapping that the document asks for: fields are not copied to objects, nor by old servers to what would
        // be a multi-field, mapped or not.
        let is_below = |target: &String| target.rsplit_once('.').is_some_and(|(above, _)| above == finding.path);
        let is_refused = |field: &Field| match new.child {
            Child::Object(_) => field.copy_to.contains(&finding.path),
            Child::Field(_) => {
                self.model.server.has_old_parser && !new.is_runtime && field.copy_to.iter().any(is_below)
            }
        };
        if self.model.fields.iter().any(is_refused) {
            self.unsure.get_or_insert_with(|| finding.path.clone());
        }
        let limits = &self.model.limits;
        if self.model.num_fields + self.charged + new.charge > limits.total_fields && new.charge > 0 {
            return limits.ignore_dynamic_beyond;
        }
        self.charged += new.charge;
        self.cost += new.cost;
        let (path, type_name, is_runtime) = (finding.path.clone(), new.type_name.clone(), new.is_runtime);
        self.creates.push(NewField { path, type_name, is_runtime });
        true
    }

    fn past_the_limit(&self) -> Option<Outcome> {
        let is_past = self.model.num_fields + self.cost > self.model.limits.total_fields;
        let first = self.creates.first().filter(|_| self.model.server.counting != Counting::AsMet && is_past)?;
        let detail = "with the fields after it, exceeds `total_fields.limit`".to_owned();
        let rejected = Outcome::Rejected { reason: RejectReason::FieldBudget, field: first.path.clone(), detail };
        self.unsure.is_none().then_some(rejected)
    }
}

fn noticed(finding: &Finding<'_, '_>, server: Behaviour) -> When {
    match &finding.what {
        What::Disagreement { .. } | What::Orphan | What::BadPlace => When::Merging,
        What::MetAgain { .. } => When::Again,
        What::TooDeep if server.has_old_parser => When::Checking,
        // Elasticsearch looks at the terms of flattened fields itself, at those of others Lucene does.
        What::Misfit { misfit: Misfit::ImmenseTerm, type_name }
            if server.has_old_parser && type_name != "flattened" =>
        {
            When::Writing
        }
        _ => When::Reading,
    }
}

#[cfg(test)]
mod tests;
