//! What becomes of a batch once its request came back.

use std::time::{Duration, Instant};

use super::flow::{Flow, wall_clock};
use crate::bulk::batch::{Batch, Item};
use crate::bulk::client::SendError;
use crate::bulk::response::{Class, Failure, ItemError, Refusal, Reply};
use crate::bulk::schedule::Passed;
use crate::bulk::service::{BulkError, BulkOutcome};
use crate::commit::ledger::Ending;
use crate::dead_letter::Letter;
use crate::reject::Reason;

/// Where Elasticsearch does not say whether it still works on a request without a reply, it is sent again after this, so that
/// both are hardly on their way at the same time.
pub(super) const UNKNOWN_WAIT: Duration = Duration::from_secs(2);
/// Batches are not cut smaller than this after a 413.
const MIN_BYTES: usize = 64 << 10;

/// What becomes of an item that was not indexed.
enum Fate {
    SendAgain,
    /// It is held against the mapping as it is now.
    PlanAnew,
    Bury(Reason),
}

impl Flow {
    pub(super) fn settle(&mut self, outcome: BulkOutcome, now: Instant) {
        self.meters.bulk_seconds.record(outcome.took.as_secs_f64());
        let BulkOutcome { batch, passed, took, status, retry_after, result, may_be_running } = outcome;
        let code = match (&result, status) {
            (Err(BulkError::Malformed(_)), _) => "malformed".to_owned(),
            (_, Some(status)) => status.to_string(),
            (_, None) => "error".to_owned(),
        };
        self.meters.count_request(&code);
        let error = match result {
            Ok(reply) => {
                let was_full = self.schedule.num_in_flight() >= self.concurrency.limit();
                let is_pushed_back = reply.failures.iter().any(|failure| failure.class == Class::Retry);
                self.schedule.succeeded(passed, now);
                if self.request_trouble.take().is_some() {
                    tracing::info!("Elasticsearch takes requests again");
                }
                match is_pushed_back {
                    true => self.concurrency.pushed_back(now),
                    false => self.concurrency.succeeded(took, batch.body.len(), was_full),
                }
                return self.settle_items(batch, reply, passed, retry_after, now);
            }
            Err(error) => error,
        };
        match &error {
            BulkError::Refused { refusal: Refusal::TooLarge | Refusal::BadRequest, .. } => {
                self.schedule.refused(passed, now);
                self.split(batch, &error, status, now);
            }
            // Others are on their way, so it is told that these are too many, not that none is taken.
            BulkError::Refused { .. }
                if status == Some(429) && retry_after.is_none() && self.schedule.num_in_flight() > 1 =>
            {
                self.schedule.refused(passed, now);
                self.concurrency.pushed_back(now);
                let due = now + self.schedule.item_delay(1, None);
                self.schedule.push_again(batch, due);
            }
            BulkError::Send(SendError::Unknown { is_timeout: true, .. }) => {
                self.settle_unanswered(batch, passed, &error, may_be_running, now);
            }
            _ => {
                let due = self.hold(passed, &error, retry_after, may_be_running, now);
                self.schedule.push_again(batch, due);
            }
        }
    }

    /// A request failed as a whole, and not for what it contains. Returns when it may be sent again.
    pub(super) fn hold(
        &mut self,
        passed: Passed,
        error: &BulkError,
        retry_after: Option<Duration>,
        may_be_running: bool,
        now: Instant,
    ) -> Instant {
        let due = self.schedule.failed(passed, now, retry_after);
        self.concurrency.pushed_back(now);
        self.note_trouble(error);
        if may_be_running { due.max(now + UNKNOWN_WAIT) } else { due }
    }

    fn note_trouble(&mut self, error: &BulkError) {
        let label = match error {
            BulkError::Send(SendError::NotSent { .. }) => "elasticsearch_unreachable",
            BulkError::Send(SendError::Unknown { .. }) => "no_reply",
            BulkError::Malformed(_) => "malformed_reply",
            BulkError::Refused { refusal: Refusal::Forbidden, .. } => "forbidden",
            BulkError::Refused { refusal: Refusal::Busy, .. } => "overloaded",
            BulkError::Refused { .. } => "refused",
        };
        let words = error.to_string();
        if self.request_trouble.as_ref().is_none_or(|(before, _)| *before != label) {
            tracing::warn!(reason = label, detail = words, "bulk requests fail: everything is held and tried again");
        }
        self.request_trouble = Some((label, words));
    }

    /// A request refused for what it contains: its halves are tried apart, a single document is the culprit.
    fn split(&mut self, batch: Batch, error: &BulkError, status: Option<u16>, now: Instant) {
        let is_too_large = status == Some(413);
        if is_too_large && batch.items.len() > 1 {
            let limit = (batch.body.len() / 2).max(MIN_BYTES);
            if limit < self.intake.builder.max_bytes() {
                tracing::warn!(
                    bytes = batch.body.len(),
                    limit,
                    "Elasticsearch refuses requests of this size: sending smaller ones"
                );
                self.intake.builder.limit_bytes(limit);
                self.schedule.limit_bytes(limit);
            }
        }
        let parts = if is_too_large { batch.split_bytes() } else { batch.split_count() };
        if let Some(parts) = parts {
            return self.schedule.push_parts(parts);
        }
        let Some(&item) = batch.items.first() else { return };
        let reason = if is_too_large { Reason::TooLarge } else { Reason::Refused };
        let words = ItemError { status: status.unwrap_or_default(), reason: error.to_string(), ..ItemError::default() };
        self.bury(&batch, &item, reason, words, now);
    }

    fn settle_items(
        &mut self,
        mut batch: Batch,
        reply: Reply,
        passed: Passed,
        retry_after: Option<Duration>,
        now: Instant,
    ) {
        self.meters.created.increment(reply.num_created);
        self.meters.duplicate.increment(reply.duplicates.len() as u64);
        let mut duplicates = reply.duplicates.iter().peekable();
        let mut failed = reply.failures.iter().map(|failure| failure.item).peekable();
        let mut last_target = u32::MAX;
        let wall = wall_clock();
        for (at, item) in batch.items.iter().enumerate() {
            if failed.next_if_eq(&at).is_some() {
                continue;
            }
            if item.target != last_target {
                last_target = item.target;
                self.intake.targets.get_mut(item.target).took_document(passed.number);
            }
            self.parked_bytes -= item.parked_size();
            let is_duplicate = duplicates.next_if_eq(&&at).is_some();
            // A duplicate was indexed before.
            if !is_duplicate {
                self.delays.indexed.note(wall - item.kafka_time);
            }
            let ending = if is_duplicate { Ending::Duplicate } else { Ending::Indexed };
            self.partitions.finish(item.owner, item.sequence, item.size(), ending);
        }
        if reply.failures.is_empty() {
            return self.intake.builder.recycle(batch);
        }
        let (mut again, mut refused) = (Vec::new(), Vec::new());
        let mut attempts = 0;
        for failure in reply.failures {
            let mut item = batch.items[failure.item];
            item.settles.attempts = item.attempts.saturating_add(1);
            let fate = self.judge(&mut item, &failure, now);
            batch.items[failure.item] = item;
            match fate {
                Fate::Bury(reason) => self.bury(&batch, &item, reason, failure.error, now),
                Fate::PlanAnew => refused.push((failure.item, failure.error)),
                Fate::SendAgain => {
                    attempts = attempts.max(item.attempts);
                    again.push(failure.item);
                    self.meters.count_item_retry(failure.error.status);
                }
            }
        }
        self.keep_refused(&batch, refused, now);
        if !again.is_empty() {
            let due = now + self.schedule.item_delay(attempts, retry_after);
            self.schedule.push_delayed(batch.select(again), due);
        }
    }

    /// What becomes of a failed item.
    fn judge(&mut self, item: &mut Item, failure: &Failure, now: Instant) -> Fate {
        if failure.class != Class::Blocked {
            self.parked_bytes -= item.parked_size();
            item.settles.is_parked = false;
        }
        let target = self.intake.targets.get_mut(item.target);
        let words = || format!("{} {}: {}", failure.error.status, failure.error.kind, failure.error.reason);
        match failure.class {
            Class::Retry => {
                target.push_back(words, now);
                Fate::SendAgain
            }
            Class::Systemic => {
                target.hold(words());
                Fate::SendAgain
            }
            Class::Blocked => {
                let is_over = target.block(words(), now) >= self.bulk.index_wait;
                if is_over || !self.park(item) { Fate::Bury(Reason::IndexBlocked) } else { Fate::SendAgain }
            }
            // Of an index that is not there yet nobody knows whether the document or its creation is at fault. If it is
            // there after all, the plan that is asked for now says so before the next attempt.
            Class::Document if !target.exists => {
                target.hold(words());
                self.ask_plan(item.target, now);
                Fate::SendAgain
            }
            Class::Document if item.is_planned_anew => Fate::Bury(Reason::Refused),
            Class::Document => Fate::PlanAnew,
        }
    }

    /// Counts a document as parked. `false` if there is no room for more of them.
    fn park(&mut self, item: &mut Item) -> bool {
        if !item.is_parked && self.parked_bytes + item.size() <= self.bulk.parked_bytes {
            item.settles.is_parked = true;
            self.parked_bytes += item.size();
        }
        item.is_parked
    }

    /// Sends an item to the dead letters.
    pub(super) fn bury(&mut self, batch: &Batch, item: &Item, reason: Reason, error: ItemError, now: Instant) {
        self.parked_bytes -= item.parked_size();
        self.meters.rejected.increment(1);
        let place = self.partitions.of(item.owner).and_then(|partition| {
            let offset = partition.ledger.offset_of(item.sequence)?;
            Some((partition.topic.to_string(), partition.number, offset))
        });
        let Some((topic, partition, offset)) = place else {
            // Another member has the partition by now, reads the record again and decides.
            self.partitions.finish(item.owner, item.sequence, item.size(), Ending::DeadLettered);
            return;
        };
        let letter = Letter {
            owner: item.owner,
            sequence: item.sequence,
            size: item.size(),
            id: String::from_utf8_lossy(batch.id(item)).into_owned(),
            reason,
            error_type: error.kind,
            status: Some(error.status).filter(|status| *status > 0),
            message: error.reason,
            field: error.field.unwrap_or_default(),
            index: self.intake.targets.get(item.target).name.to_string(),
            topic,
            partition,
            offset,
            attempts: item.attempts,
            part: None,
            is_alone: false,
            record: batch.record(item),
        };
        self.letters.send(letter, now);
    }
}
