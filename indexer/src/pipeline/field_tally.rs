//! Which fields the rules change most: counted on a sample of documents, in bounded memory. Pure.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::map::{Action, ActionKind};

/// One document in so many is looked at: the names of its changed fields cost an allocation each.
const SAMPLE: u32 = 64;
/// Names that are kept; rare ones make room.
const MAX_NAMES: usize = 500;
const NUM_SHOWN: usize = 20;

/// Documents by action and field.
#[derive(Debug, Default)]
pub struct FieldTally {
    num_until_next: u32,
    counts: HashMap<(ActionKind, String), u64>,
}

impl FieldTally {
    /// Whether the next document is to be looked at.
    pub fn is_due(&mut self) -> bool {
        if self.num_until_next > 0 {
            self.num_until_next -= 1;
            return false;
        }
        self.num_until_next = SAMPLE - 1;
        true
    }

    /// Takes what was done to one document.
    pub fn take(&mut self, actions: &[Action]) {
        let is_shown =
            |action: &&Action| matches!(action.kind, ActionKind::Fold | ActionKind::Budget | ActionKind::Quarantine);
        for action in actions.iter().filter(is_shown) {
            *self.counts.entry((action.kind, action.field.clone())).or_default() += 1;
        }
        while self.counts.len() > MAX_NAMES {
            self.counts.retain(|_, count| {
                *count /= 2;
                *count > 0
            });
        }
    }

    /// The most frequent ones: `[{"action": "fold", "field": "a.b", "sampled": 12}, …]`, each sampled document standing for
    /// [`SAMPLE`] ones.
    pub fn report(&self) -> Value {
        let mut counts: Vec<_> = self.counts.iter().collect();
        counts.sort_by(|a, b| b.1.cmp(a.1).then_with(|| a.0.1.cmp(&b.0.1)));
        let shown = counts.into_iter().take(NUM_SHOWN);
        shown
            .map(|((kind, field), count)| json!({ "action": kind.as_str(), "field": field, "sampled": count }))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(kind: ActionKind, field: &str) -> Action {
        Action { kind, field: field.to_owned(), detail: String::new() }
    }

    #[test]
    fn one_document_in_sixty_four_is_due() {
        let mut tally = FieldTally::default();
        assert_eq!((0..640).filter(|_| tally.is_due()).count(), 10);
    }

    #[test]
    fn frequent_fields_outlive_any_number_of_rare_ones() {
        let mut tally = FieldTally::default();
        for n in 0..10_000 {
            tally.take(&[action(ActionKind::Fold, "often"), action(ActionKind::Fold, &format!("rare-{n}"))]);
            tally.take(&[action(ActionKind::Cut, "no name")]);
        }
        assert!(tally.counts.len() <= MAX_NAMES);
        assert_eq!(tally.report()[0]["field"], "often");
    }
}
