//! Taking records from the partitions' queues, as far as the budgets allow.

use std::time::Instant;

use rdkafka::message::{BorrowedMessage, Message as _};

use super::flow::{Flow, wall_clock};
use super::intake::Taken;
use super::partitions::WaitingRecord;
use crate::bulk::batch::Record;
use crate::commit::ledger::{Ending, Sequence};
use crate::consume::{Message, PartitionQueue, header};
use crate::dead_letter::Letter;
use crate::decode::{ID_HEADER, Incoming};
use crate::reject::Reject;
use crate::route::EpochMillis;

/// A turn takes at most this many records of one partition before it looks at the next.
const RECORDS_PER_VISIT: usize = 512;
/// Batches that wait to be sent while no more records are taken. One is enough to keep every request slot busy, a second
/// hides the time it takes to fill the next.
const READY_BATCHES: usize = 2;

/// A record as it comes from Kafka.
#[derive(Clone, Copy)]
pub(super) struct Received<'a> {
    offset: i64,
    timestamp_ms: Option<i64>,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    id_header: Option<&'a [u8]>,
}

impl<'a> From<&'a Message> for Received<'a> {
    fn from(message: &'a Message) -> Self {
        Self {
            offset: message.offset(),
            timestamp_ms: message.timestamp_ms(),
            key: message.key(),
            value: message.value(),
            id_header: message.header(ID_HEADER),
        }
    }
}

impl<'a> From<&'a BorrowedMessage<'_>> for Received<'a> {
    fn from(message: &'a BorrowedMessage<'_>) -> Self {
        Self {
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis(),
            key: message.key(),
            value: message.payload(),
            id_header: header(message, ID_HEADER),
        }
    }
}

impl Flow {
    /// Visits each partition once, beginning where it had to stop the last time: a backlog of some does not keep the others
    /// from their turn. `true` if one has more.
    pub(super) fn take_records(&mut self, now: Instant) -> bool {
        let wall = wall_clock();
        let mut budget = self.partitions.budget(self.memory.unfinished);
        let mut is_busy = false;
        for _ in 0..self.partitions.num_places() {
            if self.has_enough() {
                return false;
            }
            let place = self.partitions.next_place();
            let before = self.partitions.at(place).map_or(0, |partition| partition.load());
            self.take_waiting(place, now, wall);
            let Some(partition) = self.partitions.at(place) else { continue };
            if partition.is_revoked {
                continue;
            }
            let load = partition.load();
            budget.exchange(before, load);
            let limit = budget.limit(load);
            // Hysteresis: a partition over its limit waits until half of it is free.
            let held_above = if partition.is_held { limit.div_ceil(2) } else { limit };
            partition.is_held = load >= held_above;
            if partition.is_held || partition.waiting.is_some() {
                continue;
            }
            let Some(mut queue) = partition.queue.take() else { continue };
            is_busy |= self.visit(place, &mut queue, limit, now, wall);
            if let Some(partition) = self.partitions.at(place)
                && !partition.is_revoked
            {
                partition.queue = Some(queue);
                budget.exchange(load, partition.load());
            }
        }
        self.meters.count_actions(&mut self.intake.actions);
        is_busy
    }

    fn visit(&mut self, place: usize, queue: &mut PartitionQueue, limit: u64, now: Instant, wall: EpochMillis) -> bool {
        for num_taken in 0..RECORDS_PER_VISIT {
            let message = match queue.poll() {
                Some(Ok(message)) => message,
                Some(Err(error)) => {
                    tracing::debug!(%error, "consumer reports");
                    continue;
                }
                None => {
                    self.meters.consumed.increment(num_taken as u64);
                    return false;
                }
            };
            let goes_on = self.take_message(place, Received::from(&message), now, wall);
            let is_over = self.partitions.at(place).is_none_or(|partition| partition.load() >= limit);
            self.is_batch_wanted |= is_over;
            if !goes_on || is_over || self.has_enough() {
                self.meters.consumed.increment(num_taken as u64 + 1);
                return !self.has_enough();
            }
        }
        self.meters.consumed.increment(RECORDS_PER_VISIT as u64);
        true
    }

    /// No more records are taken: enough wait to be sent.
    fn has_enough(&self) -> bool {
        self.schedule.num_ready() >= READY_BATCHES
    }

    /// Takes one message. `false` if its partition must wait.
    pub(super) fn take_message(&mut self, place: usize, record: Received<'_>, now: Instant, wall: EpochMillis) -> bool {
        let Some(sequence) = self.begin(place, record.offset, record.timestamp_ms, now) else { return true };
        if let Some(read) = record.timestamp_ms {
            self.delays.consumed.note(wall - read);
        }
        self.take(place, sequence, record, now, wall)
    }

    /// Tries the record that waits for its plan again.
    fn take_waiting(&mut self, place: usize, now: Instant, wall: EpochMillis) {
        let Some(waiting) = self.partitions.at(place).and_then(|partition| partition.waiting.take()) else { return };
        let record = Received {
            offset: waiting.offset,
            timestamp_ms: waiting.timestamp_ms,
            key: waiting.key.as_deref(),
            value: waiting.value.as_deref(),
            id_header: waiting.id_header.as_deref(),
        };
        self.take(place, waiting.sequence, record, now, wall);
    }

    fn take(
        &mut self,
        place: usize,
        sequence: Sequence,
        record: Received<'_>,
        now: Instant,
        wall: EpochMillis,
    ) -> bool {
        let Received { offset, timestamp_ms, key, value, id_header } = record;
        if self.intake.builder.would_overflow(value.map_or(0, <[u8]>::len)) {
            self.cut();
        }
        let Some(partition) = self.partitions.at(place) else { return false };
        let (owner, rule) = (partition.owner, partition.rule);
        let topic = &*partition.topic;
        let incoming = Incoming { topic, partition: partition.number, offset, timestamp_ms, key, value, id_header };
        let taken = self.intake.take(&incoming, rule, owner, sequence, now, wall);
        if self.publishing.is_some() {
            self.partitions.cover(owner, sequence, self.intake.covered);
        }
        match taken {
            Taken::Batched { size } => {
                self.partitions.begin_bytes(owner, size);
                if self.intake.builder.is_full() {
                    self.cut();
                }
                true
            }
            Taken::Null => {
                self.meters.skipped.increment(1);
                self.meters.skipped_null.increment(1);
                self.partitions.finish(owner, sequence, 0, Ending::Skipped);
                true
            }
            Taken::Expired => {
                self.meters.skipped.increment(1);
                self.meters.skipped_expired.increment(1);
                self.partitions.finish(owner, sequence, 0, Ending::Skipped);
                true
            }
            Taken::Rejected { reject, id, target } => {
                self.reject(place, record, sequence, reject, id, target, now);
                true
            }
            Taken::WaitsFor { target } => {
                if let Some(partition) = self.partitions.at(place) {
                    let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
                    partition.waiting = Some(WaitingRecord {
                        sequence,
                        offset,
                        timestamp_ms,
                        key: owned(key),
                        value: owned(value),
                        id_header: owned(id_header),
                    });
                }
                self.ask_plan(target, now);
                false
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one letter")]
    fn reject(
        &mut self,
        place: usize,
        record: Received<'_>,
        sequence: Sequence,
        reject: Reject,
        id: String,
        target: Option<u32>,
        now: Instant,
    ) {
        let Some(partition) = self.partitions.at(place) else { return };
        let (owner, topic, partition) = (partition.owner, partition.topic.to_string(), partition.number);
        self.meters.rejected.increment(1);
        let index = target.map(|target| self.intake.targets.get(target).name.to_string()).unwrap_or_default();
        let value = record.value.unwrap_or_default().to_vec();
        let record_bytes = Record { key: record.key.map(<[u8]>::to_vec), value };
        let size = (record_bytes.value.len() + record.key.map_or(0, <[u8]>::len)) as u64;
        self.partitions.begin_bytes(owner, size);
        let letter = Letter {
            owner,
            sequence,
            size,
            id,
            reason: reject.reason,
            error_type: String::new(),
            status: None,
            message: reject.detail,
            field: reject.field,
            index,
            topic,
            partition,
            offset: record.offset,
            attempts: 0,
            part: None,
            is_alone: false,
            record: record_bytes,
        };
        self.letters.send(letter, now);
    }
}
