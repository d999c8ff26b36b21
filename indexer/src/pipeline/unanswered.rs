//! Batches whose request was not answered in time.

use std::time::Instant;

use super::flow::Flow;
use super::settle::UNKNOWN_WAIT;
use crate::bulk::batch::Batch;
use crate::bulk::response::ItemError;
use crate::bulk::schedule::Passed;
use crate::bulk::service::BulkError;
use crate::bulk::unanswered::{Evidence, Verdict, inherited, judge};
use crate::reject::Reason;

impl Flow {
    pub(super) fn settle_unanswered(
        &mut self,
        mut batch: Batch,
        passed: Passed,
        error: &BulkError,
        may_be_running: bool,
        now: Instant,
    ) {
        let indices = batch.items.iter().map(|item| item.target);
        let evidence = self.intake.targets.evidence(passed.number, indices);
        let due = match evidence {
            Evidence::None => self.hold(passed, error, None, may_be_running, now),
            Evidence::OtherIndex | Evidence::SameIndex => {
                self.schedule.refused(passed, now);
                for item in &mut batch.items {
                    item.settles.attempts = item.attempts.saturating_add(1);
                }
                let documents = batch.items.len();
                tracing::warn!(documents, detail = %error, "a bulk request is not answered, while others are");
                if may_be_running { now + UNKNOWN_WAIT } else { now + self.schedule.item_delay(1, None) }
            }
        };
        match judge(passed.unanswered, batch.items.len(), evidence) {
            Verdict::SendAgain(weight) => self.schedule.push_unanswered(batch, weight, due),
            Verdict::Split => {
                for part in batch.split_count().into_iter().flatten() {
                    let weight = inherited(part.items.len());
                    self.schedule.push_unanswered(part, weight, due);
                }
            }
            Verdict::Bury => self.bury_unanswered(&batch, error, now),
        }
    }

    fn bury_unanswered(&mut self, batch: &Batch, error: &BulkError, now: Instant) {
        let Some(&item) = batch.items.first() else { return };
        let reason = format!(
            "Elasticsearch did not answer {} requests with this document, the last of them with it alone, and answered others \
             meanwhile: {error}. Each may still hold one of its threads (`GET _nodes/hot_threads`, its log); once the cause is \
             found, rename the field or upgrade the server, and replay this",
            item.attempts
        );
        self.bury(batch, &item, Reason::NoAnswer, ItemError { reason, ..ItemError::default() }, now);
    }
}
