//! Hands one record to the producer, and goes back where it failed.

use millrace_common::record::{CoveredRange, RecordId};
use rdkafka::types::RDKafkaErrorCode;
use tracing::{error, warn};

use super::pump::Stop;
use super::source::Stamp;
use super::{Now, Tailer, token};
use crate::checkpoint::row::Guard;
use crate::checkpoint::store::Store;
use crate::encode::timestamp::Moment;
use crate::encode::{Flags, Line, Wrapper};
use crate::frame::assemble::{Open, Resume};
use crate::produce::{Broker, Outgoing, Refused};
use crate::read::FileSystem;

/// Records are not cut to less, whatever the topic refuses.
const MIN_RECORD: usize = 1024;

/// What librdkafka keeps of a message besides key and value, roughly.
const MESSAGE_OVERHEAD: u32 = 256;

/// One record about to be sent: the bytes it covers are identified, its content may be cut already.
pub(super) struct Record<'a> {
    pub id: RecordId,
    pub content: &'a [u8],
    pub offset: u64,
    pub flags: Flags,
    pub wrapper: Option<Wrapper<'a>>,
    /// The events that are open where it ends.
    pub open: Open,
}

impl<F: FileSystem, B: Broker, S: Store> Tailer<F, B, S> {
    pub(super) fn send(&mut self, slot: usize, partition: i32, record: Record<'_>, now: Now) -> Result<(), Stop> {
        let Some(source) = self.sources[slot].as_mut() else { return Err(Stop::Held) };
        let topic = self.settings.inputs[source.input].topic;
        if !self.topics.has_room(topic) {
            return Err(Stop::Blocked);
        }
        let CoveredRange { start, .. } = record.id.range;
        let end = record.id.range.end();
        let read_time_ms = match source.stamp(start, end, self.broker.read_time_ms(now.wall_ms)) {
            Stamp::Time(read_time_ms) => read_time_ms,
            Stamp::Noted => {
                self.wait_for_save(slot);
                return Err(Stop::Held);
            }
        };
        if self.read_time.ms != read_time_ms {
            self.read_time = Moment::at(read_time_ms);
        }
        let line = Line {
            content: record.content,
            offset: record.offset,
            read_time: self.read_time,
            flags: record.flags,
            max_record: source.max_record,
            wrapper: record.wrapper,
        };
        let own =
            source.own.get_or_insert_with(|| Box::new(self.settings.own_fields(source.input, &source.path, source.id)));
        let flags = self.encoders[source.input].encode(line, own, &mut self.value);
        if flags.contains(Flags::TRUNCATED) && self.settings.drops_oversize {
            self.drop_too_large(slot, record.id.range, record.open);
            return Ok(());
        }
        let key = record.id.encode();
        // The ledger entry is made after the producer took the record, and the token names the entry it will get.
        let outgoing = Outgoing {
            topic,
            partition,
            key: &key,
            value: Some(&self.value),
            timestamp_ms: read_time_ms,
            token: token(slot, source.ledger.next_sequence()),
        };
        let num_bytes = outgoing.num_bytes() as u32 + MESSAGE_OVERHEAD;
        match self.broker.send(outgoing) {
            Ok(()) => {}
            Err(Refused::Full) => return Err(Stop::Full),
            Err(Refused::Error(code)) => {
                self.note_failure(slot, code, num_bytes, now);
                return Err(Stop::Held);
            }
        }
        source.ledger.sent(Resume { covered: end, open: record.open }, num_bytes);
        source.stamped_until = source.stamped_until.max(end);
        self.topics.sent(topic, partition, num_bytes, now.mono);
        if source.tally.count(end) {
            self.stats.read_events += 1;
            self.stats.invalid_utf8_events += u64::from(flags.contains(Flags::INVALID_UTF8));
        }
        if flags.contains(Flags::TRUNCATED) && source.tally.is_newly_oversize(end, source.ledger.acknowledged()) {
            self.stats.truncated_events += 1;
            if source.tally.num_oversize() == 1 {
                let path = source.path.display();
                warn!(%path, start, end, bytes = end - start, "line cut to limits.max_record; more of this file are only counted");
            }
        }
        Ok(())
    }

    fn drop_too_large(&mut self, slot: usize, range: CoveredRange, open: Open) {
        let Some(source) = self.sources[slot].as_mut() else { return };
        source.give_up_bytes(range.start, range.end(), "too_large");
        source.ledger.skipped(Resume { covered: range.end(), open });
        self.stats.read_events += u64::from(source.tally.count(range.end()));
        if source.tally.is_newly_oversize(range.end(), source.ledger.acknowledged()) {
            source.tally.finish(1);
            let path = source.path.clone();
            *self.stats.dropped_events.entry("too_large").or_default() += 1;
            self.lost("too_large", &path, range.start, range.end());
        }
        self.is_dirty = true;
    }

    /// A record was refused or failed: the source stops and goes back to it after a pause.
    pub(super) fn note_failure(&mut self, slot: usize, code: RDKafkaErrorCode, num_bytes: u32, now: Now) {
        *self.stats.produce_errors.entry(format!("{code:?}")).or_default() += 1;
        let Some(source) = self.sources[slot].as_mut() else { return };
        let is_first = source.retry_at.is_none();
        if source.ledger.has_failed() {
            self.failed.insert(slot);
        }
        if !is_first {
            return;
        }
        let position = source.ledger.acknowledged();
        if code == RDKafkaErrorCode::MessageSizeTooLarge {
            let num_bytes = num_bytes.saturating_sub(MESSAGE_OVERHEAD) as usize;
            let is_record = self.broker.is_too_large_alone(num_bytes);
            if is_record && source.max_record > MIN_RECORD {
                source.max_record = (num_bytes / 2).max(MIN_RECORD);
                error!(
                    path = %source.path.display(), position, bytes = num_bytes, cut_to = source.max_record,
                    "the topic refuses a record of this size; cutting records of this file: lower limits.max_record or raise max.message.bytes"
                );
                source.retry_at = Some(now.mono);
                return;
            }
            if !is_record {
                // In smaller batches it may pass as it is.
                source.retry_at = Some(now.mono);
                return;
            }
        }
        let delay = source.delays.next_delay();
        source.retry_at = Some(now.mono + delay);
        let topic = self.settings.inputs[source.input].topic;
        if self.topics.failed(topic, slot) {
            warn!(
                topic = self.settings.topics[topic], path = %source.path.display(), position, error = %code, retry_in = ?delay,
                "records are not delivered, the files of this topic wait and will go on from the first of them"
            );
        }
    }

    /// Rewinds failed sources once nothing of them is under way and their pause is over.
    pub(super) fn rewind_failed(&mut self, now: Now) {
        let slots: Vec<_> = self.failed.iter().copied().collect();
        for slot in slots {
            let Some(source) = self.sources[slot].as_mut() else { continue };
            if source.ledger.num_outstanding() > 0 || source.retry_at.is_some_and(|at| now.mono < at) {
                continue;
            }
            if source.is_given_up() {
                self.end_given_up(slot);
                continue;
            }
            if source.truncated_at.is_some() || !self.open_again(slot, now) {
                continue;
            }
            let Some(source) = self.sources[slot].as_mut() else { continue };
            let Some(file) = &source.file else { continue };
            let position = source.ledger.acknowledged();
            let length = (Guard::MAX_LENGTH as u64).min(position) as usize;
            let mut before = vec![0; length];
            match self.files.read_at(file, &mut before, position - length as u64) {
                Ok(num_read) if num_read == length => {
                    source.ledger.rewind();
                    source.rewind_to(position, &before);
                }
                Ok(_) => {
                    self.note_truncation(slot, now);
                    continue;
                }
                Err(cause) => {
                    self.read_failed(slot, &cause, now);
                    continue;
                }
            }
            source.retry_at = None;
            self.stats.rewinds += 1;
            self.failed.remove(&slot);
            Self::enqueue(&mut self.ready, slot, source);
        }
    }
}
