//! Documents that Elasticsearch refused, held against the mapping as it is now before they are given up.
//!
//! A mapping can change behind a plan: another indexer's documents take the last of the field budget, or are the first with a
//! new name. What was refused for that can be folded or quarantined by the plan of today.

use std::time::Instant;

use super::flow::Flow;
use super::intake::PlannedAnew;
use crate::bulk::batch::{Batch, Item};
use crate::bulk::response::ItemError;
use crate::map::State;
use crate::reject::{Reason, Reject};

/// Refused documents of one index. Their bytes stay in the budgets.
pub struct Refused {
    batch: Batch,
    /// One for each item.
    errors: Vec<ItemError>,
    target: u32,
    /// A plan read before this is the one they were written by, or no better.
    since: Instant,
}

impl Flow {
    /// Keeps refused items until the mapping of their index was read again.
    pub(super) fn keep_refused(&mut self, batch: &Batch, mut refused: Vec<(usize, ItemError)>, now: Instant) {
        refused.sort_by_key(|(at, _)| batch.items[*at].target);
        for of_target in refused.chunk_by(|(a, _), (b, _)| batch.items[*a].target == batch.items[*b].target) {
            let target = batch.items[of_target[0].0].target;
            self.ask_plan(target, now);
            self.refused.push(Refused {
                batch: batch.select(of_target.iter().map(|(at, _)| *at)),
                errors: of_target.iter().map(|(_, error)| error.clone()).collect(),
                target,
                since: now,
            });
        }
    }

    /// Plans refused documents anew where the mapping was read since, and asks for it where not.
    pub(super) fn retry_refused(&mut self, now: Instant) {
        for refused in std::mem::take(&mut self.refused) {
            if self.intake.targets.get(refused.target).is_planned_since(refused.since) {
                self.plan_anew(refused, now);
            } else {
                self.ask_plan(refused.target, now);
                self.refused.push(refused);
            }
        }
    }

    fn plan_anew(&mut self, refused: Refused, now: Instant) {
        let Refused { batch, errors, .. } = refused;
        let mut state = State::default();
        for (item, error) in batch.items.iter().zip(errors) {
            if self.intake.builder.would_overflow(item.size() as usize) {
                self.cut();
            }
            match self.intake.plan_anew(&batch, item, &mut state, now) {
                PlannedAnew::Batched { size } => {
                    self.meters.planned_anew.increment(1);
                    self.partitions.exchange_bytes(item.owner, item.size(), size);
                }
                PlannedAnew::Unchanged => self.bury(&batch, item, Reason::Refused, error, now),
                PlannedAnew::Rejected(reject) => self.bury_rejected(&batch, item, reject, error, now),
            }
        }
    }

    /// The rule has a word of its own for what Elasticsearch refused.
    fn bury_rejected(&mut self, batch: &Batch, item: &Item, reject: Reject, error: ItemError, now: Instant) {
        let field = Some(reject.field).filter(|field| !field.is_empty()).or(error.field);
        let reason = format!("{}; Elasticsearch: {}", reject.detail, error.reason);
        self.bury(batch, item, reject.reason, ItemError { reason, field, ..error }, now);
    }
}
