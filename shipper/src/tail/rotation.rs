//! Events that begin in one file and go on in the next, when a file is rotated in their middle.
//!
//! Such an event belongs to the file where it ends. The decision is durable before the event's record is produced, and the
//! file before is finished with the record's acknowledgement, both in one checkpoint.

use std::sync::Arc;

use millrace_common::record::SourceId;
use tracing::{info, warn};

use super::assembled::Shifted;
use super::pump::Stop;
use super::source::{Arrived, Fate, Source};
use super::{Now, Tailer};
use crate::checkpoint::row::{Carried, Carry, Guard};
use crate::checkpoint::store::Store;
use crate::frame::assemble::{Assembler, Open, Resume, Step, Window};
use crate::produce::Broker;
use crate::read::FileSystem;

impl<F: FileSystem, B: Broker, S: Store> Tailer<F, B, S> {
    pub(super) fn slot_of(&self, id: SourceId) -> Option<usize> {
        self.sources.iter().position(|source| source.as_ref().is_some_and(|source| source.id == id))
    }

    /// Sources that a scan has just found, or found elsewhere: whose last events may go on in them?
    pub(super) fn find_predecessor(&mut self, slot: usize) {
        let Some(source) = self.sources[slot].as_ref() else { return };
        let is_fresh = source.covered == 0 && source.horizon == 0 && source.rotation.carry.is_none();
        if !is_fresh || self.settings.inputs[source.input].framing.is_plain() {
            return;
        }
        let has_left = |other: &&Source<F::File>| {
            other.id != source.id
                && other.input == source.input
                && other.path == source.path
                && (other.current_path != source.path || matches!(other.fate, Fate::Unlisted | Fate::Deleted))
                && other.file.is_some()
                && (other.is_queued || other.unread() > 0)
        };
        let before = self.sources.iter().flatten().filter(has_left);
        let before = before.max_by_key(|other| (other.identity.birth_time_ns, other.grown_at)).map(|other| other.id);
        if let Some(source) = self.sources[slot].as_mut() {
            source.rotation.follows = before;
        }
        if let Some(old) = before.and_then(|id| self.slot_of(id)).and_then(|at| self.sources[at].as_mut()) {
            old.rotation.followed_by = Some(slot);
        }
    }

    /// The end of the source was reached: another one may have waited for that.
    pub(super) fn wake_follower(&mut self, slot: usize) {
        let Some(source) = self.sources[slot].as_ref() else { return };
        let (id, follower) = (source.id, source.rotation.followed_by);
        if let Some(follower) = follower
            && let Some(source) = self.sources[follower].as_mut()
            && source.rotation.follows == Some(id)
        {
            Self::enqueue(&mut self.ready, follower, source);
        }
    }

    /// Decides where the last events of the file before belong, as soon as that can be told. `shifted` is the source's
    /// beginning.
    pub(super) fn settle_rotation(&mut self, slot: usize, shifted: Shifted<'_>) -> Result<(), Stop> {
        let Some(follows) = self.sources[slot].as_ref().and_then(|source| source.rotation.follows) else {
            return Ok(());
        };
        let before = self.slot_of(follows).and_then(|at| Some((at, self.sources[at].as_ref()?)));
        let Some((at, old)) = before else { return self.release(slot) };
        if old.is_queued || !(old.waits_for.is_none() && old.retry_at.is_none()) || old.ledger.has_failed() {
            return Err(Stop::Held);
        }
        let Some((end, _)) = old.waiting.filter(|_| old.unfinished.is_none()) else { return self.release(slot) };
        let (Some(start), Some(file)) = (old.events_start(), &old.file) else { return self.release(slot) };
        let framing = Arc::clone(&self.settings.inputs[old.input].framing);
        if framing.line_end.find(shifted.bytes).is_none() {
            if let Some(source) = self.sources[slot].as_mut() {
                source.read_end = shifted.end();
            }
            return Err(Stop::AtEnd);
        }
        let length = (end - start) as usize;
        let mut joined = vec![0; length];
        match self.files.read_at(file, &mut joined, start) {
            Ok(num_read) if num_read == length => {}
            _ => return self.release(slot),
        }
        let guard = Guard::new(end, &joined);
        joined.extend_from_slice(shifted.bytes);
        let mut assembler = Assembler::default();
        assembler.resume(Resume { covered: old.covered - start, open: old.open });
        let tail = Window { start: 0, bytes: &joined[..length], boundaries: &[] };
        // Whole events there are excluded ones.
        while let Step::Event(_) = assembler.next(&framing, tail) {}
        let open = assembler.open();
        let ends_before = match assembler.next(&framing, Window { start: 0, bytes: &joined, boundaries: &[] }) {
            Step::Event(event) => event.end <= length as u64,
            Step::Long(_) => true,
            Step::More(_) => false,
        };
        if ends_before {
            self.end_at(at, end);
            return self.release(slot);
        }
        let start = end - open.iter().copied().max().map_or(0, u64::from);
        self.carry_over(slot, at, Carry { from: follows, start, end }, open, guard);
        Err(Stop::Held)
    }

    fn release(&mut self, slot: usize) -> Result<(), Stop> {
        if let Some(source) = self.sources[slot].as_mut() {
            source.rotation.follows = None;
        }
        Ok(())
    }

    /// Notes that everything open ends at `boundary`.
    pub(super) fn end_at(&mut self, slot: usize, boundary: u64) {
        let Some(source) = self.sources[slot].as_mut() else { return };
        source.unfinished = None;
        source.waiting = None;
        source.boundaries.push(boundary);
        source.boundaries.sort_unstable();
        source.boundaries.dedup();
        self.wait_for_save(slot);
    }

    fn carry_over(&mut self, slot: usize, old_slot: usize, carry: Carry, open: Open, guard: Guard) {
        let Some(source) = self.sources[slot].as_mut() else { return };
        let id = source.id;
        source.rotation.follows = None;
        source.rotation.carry = Some(Arrived { carry, sequence: None });
        source.open = open;
        source.ledger.reopen(open);
        info!(path = %source.current_path.display(), from = %carry.from, start = carry.start, end = carry.end, "an event goes on in the next file");
        if let Some(old) = self.sources[old_slot].as_mut() {
            old.rotation.carried = Some(Carried { to: id, end: carry.end });
            old.guard = guard;
        }
        self.give(old_slot, slot, carry.end);
        self.wait_for_save(slot);
    }

    /// The old source waits for what the new one makes of its last bytes.
    fn give(&mut self, old_slot: usize, slot: usize, end: u64) {
        let Some(old) = self.sources[old_slot].as_mut() else { return };
        let sequence = old.ledger.sent(Resume::at(end), 0);
        old.covered = end;
        old.open = Open::default();
        old.waiting = None;
        if let Some(arrived) = self.sources[slot].as_mut().and_then(|source| source.rotation.carry.as_mut()) {
            arrived.sequence = Some(sequence);
        }
    }

    /// A source was read again to where its last events went on in another one.
    pub(super) fn hand_over(&mut self, slot: usize, shifted: Shifted<'_>) -> Stop {
        let Some(source) = self.sources[slot].as_mut() else { return Stop::Held };
        let Some(carried) = source.rotation.carried else { return Stop::More };
        let id = source.id;
        let is_wanted = |arrived: &Arrived| arrived.carry.from == id;
        let is_absent = self.absent.iter().any(|row| row.source == carried.to && row.carry.is_some());
        match self.slot_of(carried.to) {
            Some(to) if self.sources[to].as_ref().and_then(|s| s.rotation.carry.as_ref()).is_some_and(is_wanted) => {
                self.give(slot, to, carried.end);
            }
            None if is_absent && !self.is_scanned => return Stop::Held,
            None if is_absent => {
                if let Some(source) = self.sources[slot].as_mut() {
                    source.rotation.carried = None;
                }
                self.end_at(slot, carried.end);
                return Stop::Held;
            }
            // Its record has been acknowledged.
            _ => {
                if let Some(source) = self.sources[slot].as_mut() {
                    source.ledger.skipped(Resume::at(carried.end));
                }
                self.is_dirty = true;
            }
        }
        let before = shifted.slice(shifted.end().saturating_sub(Guard::MAX_LENGTH as u64)..shifted.end());
        if let Some(source) = self.sources[slot].as_mut() {
            source.covered = carried.end;
            source.open = Open::default();
            source.guard = Guard::new(carried.end, before);
        }
        Stop::More
    }

    /// Reads what the file before has of the first events to the front of `buffer`, and returns its length.
    pub(super) fn read_carry(&mut self, slot: usize, buffer: &mut [u8], now: Now) -> Result<usize, Stop> {
        let Some(arrived) = self.sources[slot].as_ref().and_then(|source| source.rotation.carry) else {
            return Ok(0);
        };
        let Carry { from, start, end } = arrived.carry;
        let length = (end - start) as usize;
        let Some(before) = self.slot_of(from) else {
            return if self.is_scanned { self.lose_carry(slot, arrived.carry) } else { Err(Stop::Held) };
        };
        let file = self.sources[before].as_ref().and_then(|source| source.file.as_ref());
        match file.map(|file| self.files.read_at(file, &mut buffer[..length], start)) {
            Some(Ok(num_read)) if num_read == length => Ok(length),
            Some(Err(cause)) => Err(self.read_failed(slot, &cause, now)),
            Some(Ok(_)) | None => self.lose_carry(slot, arrived.carry),
        }
    }

    fn lose_carry(&mut self, slot: usize, carry: Carry) -> Result<usize, Stop> {
        let Some(source) = self.sources[slot].as_mut() else { return Err(Stop::Held) };
        let path = source.path.clone();
        warn!(path = %path.display(), from = %carry.from, "the file with the beginning of an event is gone");
        source.rotation.carry = None;
        source.open = Open::default();
        source.ledger.reopen(Open::default());
        self.lost("deleted", &path, carry.start, carry.end);
        Ok(0)
    }

    /// Finishes the file before once the events that began there are acknowledged.
    pub(super) fn settle_carry(&mut self, slot: usize) {
        let Some(source) = self.sources[slot].as_mut() else { return };
        let resume = source.ledger.resume();
        let is_done = resume.covered > 0 && resume.open.iter().all(|open| u64::from(*open) <= resume.covered);
        let Some(arrived) = source.rotation.carry.take_if(|_| is_done) else { return };
        self.settle_given(arrived, true);
    }

    /// The events that began in the file before will not be sent from here: that file sends its part.
    pub(super) fn give_back(&mut self, arrived: Arrived) {
        self.settle_given(arrived, false);
        let Some(slot) = self.slot_of(arrived.carry.from) else { return };
        if let Some(source) = self.sources[slot].as_mut() {
            source.rotation.carried = None;
            if source.ledger.has_failed() {
                self.failed.insert(slot);
            }
        }
        self.end_at(slot, arrived.carry.end);
    }

    fn settle_given(&mut self, arrived: Arrived, is_acknowledged: bool) {
        let Some(slot) = self.slot_of(arrived.carry.from) else { return };
        if let (Some(source), Some(sequence)) = (self.sources[slot].as_mut(), arrived.sequence) {
            source.ledger.settle(sequence, is_acknowledged);
        }
        self.is_dirty = true;
    }
}
