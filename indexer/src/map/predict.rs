//! What Elasticsearch would answer, apart from what we decide.

use millrace_common::json::{self, Kind};

use super::action::RejectReason;
use super::decide::{reason, why};
use super::plan::Plan;
use super::plan::model::{Child, Field};
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

impl Plan {
    /// Predicts Elasticsearch's answer to an unchanged document.
    pub fn predict(&self, document: json::Value<'_, '_>) -> Prediction {
        let rejected = |reason, field: &str, detail| Prediction {
            outcome: Outcome::Rejected { reason, field: field.to_owned(), detail },
            creates: Vec::new(),
        };
        if document.kind() != Kind::Object {
            return rejected(RejectReason::NotAnObject, "", "the document is not a JSON object".to_owned());
        }
        let mut walk = Walk::new(&self.model, None, false);
        walk.document(document);
        let mut creates: Vec<NewField> = Vec::new();
        let mut cost = 0;
        let mut unsure = None;
        // New fields are merged at the end of a document, so that a disagreement is found last.
        let is_late = |finding: &&Finding<'_, '_>| matches!(finding.what, What::Disagreement { .. } | What::Orphan);
        let (late, first): (Vec<_>, Vec<_>) = walk.findings.iter().partition(is_late);
        for finding in first.into_iter().chain(late) {
            let reason = match &finding.what {
                What::Unmapped | What::Implausible { .. } => continue,
                What::Unsure => {
                    unsure.get_or_insert_with(|| finding.path.clone());
                    continue;
                }
                What::New(new) => {
                    if let Some(known) = creates.iter_mut().find(|known| known.path == finding.path) {
                        known.type_name.clone_from(&new.type_name);
                        continue;
                    }
                    let is_copied_to = |field: &Field| field.copy_to.contains(&finding.path);
                    if matches!(new.child, Child::Object(_)) && self.model.fields.iter().any(is_copied_to) {
                        // Refused by the mapping that the document asks for: fields are not copied to objects.
                        unsure.get_or_insert_with(|| finding.path.clone());
                    }
                    let is_within = self.model.num_fields + cost + new.charge <= self.model.limits.total_fields;
                    if is_within {
                        cost += new.charge;
                        creates.push(NewField {
                            path: finding.path.clone(),
                            type_name: new.type_name.clone(),
                            is_runtime: new.is_runtime,
                        });
                        continue;
                    }
                    if self.model.limits.ignore_dynamic_beyond {
                        continue;
                    }
                    RejectReason::FieldBudget
                }
                What::Strict => RejectReason::UnmappedField,
                What::Misfit { misfit, .. } => reason(*misfit),
                What::Disagreement { .. } | What::Orphan => RejectReason::TypeConflict,
                What::BadName | What::Duplicate => RejectReason::FieldName,
                What::TooDeep => RejectReason::Depth,
                What::TooManyNested => RejectReason::Limit,
            };
            if unsure.is_none() {
                return rejected(reason, &finding.path, why(finding));
            }
        }
        let outcome = unsure.map_or(Outcome::Accepted, |field| Outcome::Unsure { field });
        Prediction { outcome, creates }
    }
}
