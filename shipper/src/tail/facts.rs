//! What the ledger is told of every source: once before its first record, then as it changes, and when it ends.

use std::time::Duration;

use millrace_common::ledger::VERSION;
use millrace_common::ledger::sources::{Gap, Opaque, SourceRow, SourceState};
use tracing::warn;

use super::source::Source;
use super::{Now, Tailer};
use crate::checkpoint::row::Row;
use crate::checkpoint::store::Store;
use crate::ledger::outbox::Progress;
use crate::produce::Broker;
use crate::read::FileSystem;

/// What was told last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    at: Duration,
    acknowledged: u64,
    progress: Progress,
    noted: Progress,
}

impl<F: FileSystem, B: Broker, S: Store> Tailer<F, B, S> {
    /// Whether records of the source may be produced. If not yet, it is announced, and goes on once that is acknowledged.
    pub(super) fn may_produce(&mut self, slot: usize, now: Now) -> bool {
        let Some(source) = self.sources[slot].as_ref() else { return false };
        if source.is_announced {
            return true;
        }
        if source.told.is_none() {
            self.tell(slot, now);
        }
        let Some(source) = self.sources[slot].as_mut() else { return false };
        source.is_announced = self.ledger.is_announced(source.id);
        source.may_be_copy &= !source.is_announced;
        if !source.is_announced && !std::mem::replace(&mut source.awaits_announcement, true) {
            self.announcing.insert((source.id, slot));
        }
        source.is_announced
    }

    /// Sources that were announced go on.
    pub(super) fn take_announced(&mut self, now: Now) {
        let read_time_ms = self.broker.read_time_ms(now.wall_ms);
        for id in self.ledger.take_announced() {
            while let Some(&(id, slot)) = self.announcing.range((id, 0)..=(id, usize::MAX)).next() {
                self.announcing.remove(&(id, slot));
                let Some(source) = self.sources[slot].as_mut() else { continue };
                source.is_announced = true;
                source.awaits_announcement = false;
                match source.prepare(read_time_ms) {
                    true => self.wait_for_save(slot),
                    false => Self::enqueue(&mut self.ready, slot, source),
                }
            }
        }
    }

    /// Tells what has changed. Positions alone are told every [`super::Settings::ledger_interval`], everything else at once.
    pub(super) fn tell_changes(&mut self, now: Now) {
        for slot in 0..self.sources.len() {
            let Some(source) = self.sources[slot].as_ref() else { continue };
            // A copy goes on as the source of its original: it is none of its own.
            if source.may_be_copy || source.is_given_up() {
                continue;
            }
            let is_held = self.is_held(source);
            let facts = Facts::of(source, is_held);
            let Some(source) = self.sources[slot].as_mut() else { continue };
            let Some(told) = source.told.as_mut() else {
                self.tell(slot, now);
                continue;
            };
            if facts.are_news(told) && now.mono >= told.at + self.settings.ledger_interval {
                self.tell(slot, now);
            } else if told.noted != facts.progress {
                told.noted = facts.progress;
                self.ledger.note(source.id, facts.progress);
            }
        }
        self.tell_absent(now);
    }

    /// Tells where the sources stand that others know of, for the end.
    pub fn tell_last(&mut self, now: Now) {
        for slot in 0..self.sources.len() {
            let Some(source) = self.sources[slot].as_ref() else { continue };
            let is_news = source.told.is_none_or(|told| Facts::of(source, false).are_news(&told));
            if is_news && source.is_announced && !source.is_given_up() {
                self.tell(slot, now);
            }
        }
    }

    fn tell(&mut self, slot: usize, now: Now) {
        let Some(source) = self.sources[slot].as_ref() else { return };
        let is_held = self.is_held(source);
        let facts = Facts::of(source, is_held);
        let row = source.snapshot(&self.settings.inputs[source.input].id);
        let mut row = self.of_row(&row, SourceState::Active);
        row.read = facts.progress.read;
        row.acknowledged = facts.acknowledged;
        // What is not reached yet may still become a record.
        row.gaps.retain(|gap| gap.end <= facts.acknowledged || gap.is_loss());
        row.gaps.extend(facts.tail);
        self.ledger.tell(source.id, &row, is_held);
        if let Some(source) = self.sources[slot].as_mut() {
            let Facts { acknowledged, progress, .. } = facts;
            source.told = Some(Told { at: now.mono, acknowledged, progress, noted: progress });
        }
    }

    /// Tells that nothing will come of a source any more.
    pub(super) fn tell_end(&mut self, source: &Source<F::File>) {
        // Nobody has heard of it.
        if source.told.is_none() && source.ledger.acknowledged() == 0 && source.gaps.is_empty() {
            return;
        }
        self.tell_row_end(&source.snapshot(&self.settings.inputs[source.input].id));
    }

    /// Tells that the bytes of a source that was just announced are those of another one, which goes on with them.
    pub(super) fn tell_copy(&mut self, copy: &mut Source<F::File>) {
        if copy.told.is_some() {
            copy.gaps.insert(0, copy.size, "carried");
            self.tell_end(copy);
        }
    }

    /// As [`Self::tell_end`], of a source whose file was not found again.
    pub(super) fn tell_row_end(&mut self, row: &Row) {
        let mut told = self.of_row(row, SourceState::Finished);
        told.acknowledged = row.gaps.end_from(row.acknowledged);
        told.read = told.acknowledged;
        self.ledger.tell(row.source, &told, false);
    }

    /// Files that were read to their end and are gone since before the start are finished.
    fn tell_absent(&mut self, now: Now) {
        if self.are_absent_told || !self.is_scanned || now.mono < self.settings.rotate_wait {
            return;
        }
        self.are_absent_told = true;
        let rows: Vec<_> = self.absent.values().flatten().filter(|row| row.acknowledged >= row.size).cloned().collect();
        rows.iter().for_each(|row| self.tell_row_end(row));
    }

    fn of_row(&self, row: &Row, state: SourceState) -> SourceRow {
        let input = self.settings.inputs.iter().find(|input| input.id == row.input);
        let topic = input.map(|input| self.settings.topics[input.topic].clone());
        let checkpoint = Opaque::of(row).unwrap_or_else(|cause| {
            warn!(source = %row.source, error = %cause, "the ledger cannot hold the checkpoint of this source");
            Opaque::default()
        });
        SourceRow {
            version: VERSION,
            host_name: self.settings.host_name.clone(),
            input: row.input.clone(),
            topic: topic.unwrap_or_default(),
            path: row.current_path.clone(),
            inode: row.identity.inode,
            birth_time_ns: row.identity.birth_time_ns,
            generation: row.generation,
            size: row.size,
            read: row.acknowledged,
            acknowledged: row.acknowledged,
            gaps: row.gaps.iter().cloned().collect(),
            state,
            at_ms: self.wall_ms,
            checkpoint,
        }
    }

    /// Whether something else than its file holds the source up.
    fn is_held(&self, source: &Source<F::File>) -> bool {
        let topic = self.settings.inputs[source.input].topic;
        let is_lane_full = source.partition.is_some_and(|partition| self.topics.is_lane_full(topic, partition));
        let is_full = is_lane_full || self.topics.is_full();
        let is_topic_held = is_full || !self.topics.has_room(topic) || self.topics.is_failing(topic);
        let waits = source.waits_for.is_some() || source.awaits_announcement || source.waits_for_source();
        is_topic_held || waits || source.ledger.has_failed() || self.broker.num_partitions(topic).is_none()
    }
}

/// What others are told of the positions of a source.
struct Facts {
    acknowledged: u64,
    progress: Progress,
    /// Bytes behind the last record that make none, so far: excluded events, empty lines, room set aside.
    tail: Option<Gap>,
}

impl Facts {
    fn of<F>(source: &Source<F>, is_held: bool) -> Self {
        let tail = source.tail();
        let acknowledged = tail.as_ref().map_or(source.ledger.acknowledged(), |tail| tail.end);
        let progress = Progress { size: source.size, read: source.covered.max(source.read_end), is_held };
        Self { acknowledged, progress, tail }
    }

    fn are_news(&self, told: &Told) -> bool {
        (told.acknowledged, told.progress.size, told.progress.read)
            != (self.acknowledged, self.progress.size, self.progress.read)
    }
}
