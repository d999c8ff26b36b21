//! Files that nobody can open any more: held while their bytes are awaited, given up past a limit.

use std::time::Duration;

use super::source::{Fate, Loss, Source};
use super::{Now, Tailer};
use crate::checkpoint::store::Store;
use crate::ledger::outbox::Progress;
use crate::produce::Broker;
use crate::read::FileSystem;

/// How far files that were deleted, or renamed out of the patterns, are held before they are read to their end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HoldLimits {
    pub time: Duration,
    /// Bytes of deleted files that are not yet acknowledged.
    pub bytes: u64,
    /// Share of the disk that must be free, in hundredths: a deleted file that is held takes room.
    pub min_free_percent: f64,
}

impl<F: FileSystem, B: Broker, S: Store> Tailer<F, B, S> {
    pub(super) fn limit_held(&mut self, now: Now) {
        let is_gone = |s: &Source<F::File>| s.file.is_some() && matches!(s.fate, Fate::Deleted | Fate::Unlisted);
        let mut held = Vec::new();
        for slot in 0..self.sources.len() {
            let Some(source) = self.sources[slot].as_mut().filter(|source| is_gone(source)) else { continue };
            if source.is_done() {
                source.gone_at = Some(now.mono);
            } else {
                held.push((source.gone_at.unwrap_or(now.mono), slot));
            }
        }
        held.sort_unstable();
        let limits = self.settings.hold_deleted;
        let awaited = |s: &Source<F::File>| s.size.saturating_sub(s.ledger.acknowledged());
        let deleted = |s: &Source<F::File>| s.fate == Fate::Deleted;
        let mut num_bytes: u64 = {
            let sources = held.iter().filter_map(|&(_, slot)| self.sources[slot].as_ref());
            sources.filter(|s| deleted(s)).map(|s| awaited(s)).sum()
        };
        let mut may_free = true;
        for (since, slot) in held {
            let Some(source) = self.sources[slot].as_ref() else { continue };
            let (is_deleted, awaited) = (deleted(source), awaited(source));
            let is_over = now.mono >= since + limits.time || (is_deleted && num_bytes > limits.bytes);
            // One at a time: the room of a file may come back only after a while.
            let takes_room = !is_over && is_deleted && may_free && self.is_disk_full(source);
            may_free &= !takes_room;
            if is_over || takes_room {
                num_bytes -= if is_deleted { awaited } else { 0 };
                self.give_up(slot, Loss::HoldLimit);
            }
        }
    }

    fn is_disk_full(&self, source: &Source<F::File>) -> bool {
        let free = source.file.as_ref().map(|file| self.files.free_percent(file));
        matches!(free, Some(Ok(percent)) if percent < self.settings.hold_deleted.min_free_percent)
    }

    /// Reads no more of a source. What was sent of it is awaited, the rest is counted as lost then.
    pub(super) fn give_up(&mut self, slot: usize, loss: Loss) {
        let Some(source) = self.sources[slot].as_mut() else { return };
        let topic = self.settings.inputs[source.input].topic;
        source.fate = Fate::GivenUp(loss);
        source.file = None;
        source.is_closed = false;
        source.is_queued = false;
        source.unfinished = None;
        source.waiting = None;
        source.waits_for = None;
        source.awaits_announcement = false;
        let is_over = source.ledger.num_outstanding() == 0;
        // Nothing of it is awaited that could stand still.
        self.ledger.note(source.id, Progress { size: source.size, read: source.size, is_held: true });
        // Should the file come back under a name that matches, it is a new one.
        if self.by_identity.get(&source.identity) == Some(&slot) {
            self.by_identity.remove(&source.identity);
        }
        self.opened.retain(|&s| s != slot);
        self.ready.retain(|&s| s != slot);
        self.topics.forget(topic, slot);
        if is_over {
            self.end_given_up(slot);
        }
    }

    /// The last record of a source that was given up is settled: what it did not deliver is lost.
    pub(super) fn end_given_up(&mut self, slot: usize) {
        if let Some(mut source) = self.remove(slot)
            && let Fate::GivenUp(loss) = source.fate
        {
            let (start, end) = (source.ledger.acknowledged(), source.size);
            self.lost(loss.name(), &source.current_path, start, end);
            source.gaps.insert(start, end, loss.name());
            self.tell_end(&source);
            self.is_dirty = true;
        }
    }
}
