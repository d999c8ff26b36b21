//! Events that begin in one file and go on in the next, when a file is rotated in their middle.
//!
//! Such an event belongs to the file where it ends. The decision is durable before the event's record is produced, and the
//! file before is finished with the record's acknowledgement, both in one checkpoint.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use millrace_common::record::SourceId;
use tracing::{info, warn};

use super::assembled::Shifted;
use super::pump::Stop;
use super::source::{Arrived, Source};
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

    /// Finds for each source that a scan has just found the one that left its path before: events may go on in it.
    ///
    /// Only what scans saw counts. Of several new files in a folder nobody knows which came first, so that none goes on.
    /// `missed` are paths where a new file was seen that is no source yet.
    pub(super) fn find_predecessors(&mut self, found: &[usize], missed: &[PathBuf]) {
        // What is found there next may not be what came next.
        for source in self.sources.iter_mut().flatten() {
            source.rotation.left.take_if(|(path, _)| missed.contains(path));
        }
        let folder = |slot: usize| self.sources[slot].as_ref().and_then(|source| source.path.parent());
        let mut num_new: HashMap<_, usize> = HashMap::new();
        for folder in found.iter().map(|&slot| folder(slot)).chain(missed.iter().map(|path| path.parent())) {
            *num_new.entry(folder).or_default() += 1;
        }
        let alone: Vec<_> = found.iter().copied().filter(|&slot| num_new[&folder(slot)] == 1).collect();
        for slot in alone {
            self.find_predecessor(slot);
        }
    }

    fn find_predecessor(&mut self, slot: usize) {
        let Some(source) = self.sources[slot].as_ref() else { return };
        let is_fresh = source.covered == 0 && source.horizon.is_unset() && source.rotation.carry.is_none();
        if !is_fresh || self.settings.inputs[source.input].framing.is_plain() {
            return;
        }
        let left_at = |other: &Source<F::File>| {
            let (path, at) = other.rotation.left.as_ref()?;
            let is_read = !other.is_queued && !other.awaits_announcement && other.unread() == 0;
            let goes_on = (other.file.is_some() || other.is_closed) && !is_read;
            (other.input == source.input && *path == source.path).then_some((*at, other.id, goes_on))
        };
        // Only the last one that left: what another one before it has open was for that one.
        let last = self.rows().filter_map(left_at).max();
        let before = last.filter(|(.., goes_on)| *goes_on).map(|(_, id, _)| id);
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
    pub(super) fn settle_rotation(&mut self, slot: usize, shifted: Shifted<'_>, now: Now) -> Result<(), Stop> {
        let Some(follows) = self.sources[slot].as_ref().and_then(|source| source.rotation.follows) else {
            return Ok(());
        };
        let Some(at) = self.slot_of(follows) else { return self.release(slot) };
        if !self.open_again(at, now) && self.sources[at].as_ref().is_some_and(|old| old.is_closed) {
            return Err(Stop::Held);
        }
        let Some(old) = self.sources[at].as_ref() else { return self.release(slot) };
        if old.is_queued || !(old.waits_for.is_none() && old.retry_at.is_none()) || old.ledger.has_failed() {
            return Err(Stop::Held);
        }
        let Some((end, _)) = old.waiting.filter(|_| old.unfinished.is_none()) else { return self.release(slot) };
        let (Some(start), Some(file)) = (old.events_start(), &old.file) else { return self.release(slot) };
        if self.files.stat(file).map_or(true, |stat| stat.size > old.read_end) {
            // Something was written to it just before it was renamed.
            if let Some(old) = self.sources[at].as_mut() {
                Self::enqueue(&mut self.ready, at, old);
            }
            return Err(Stop::Held);
        }
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
        // The old file begins before what is read of it, or just there.
        let origin = if start == 0 { 0 } else { u64::MAX };
        assembler.resume(Resume { covered: old.covered - start, open: old.open }, origin);
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

    /// A file that is no copy has a copy's name. If nothing was read of its original so far, it may have been the original's
    /// content, and what stands there now need not be what comes next.
    pub(super) fn release_unread(&mut self, slot: usize) {
        if let Some(source) = self.sources[slot].as_mut().filter(|source| source.prefix.length == 0) {
            source.rotation.follows = None;
        }
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
            old.rotation.carried = Some(Carried { to: id, end: carry.end, is_settled: false });
            old.guard = guard;
        }
        self.give(old_slot, slot, carry.end);
        self.wait_for_save(slot);
    }

    /// The old source waits for what the new one makes of its last bytes.
    fn give(&mut self, old_slot: usize, slot: usize, end: u64) {
        let Some(old) = self.sources[old_slot].as_mut() else { return };
        let sequence = old.ledger.sent(Resume::at(end), 0);
        old.give_up_bytes(old.covered, end, "carried");
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
        let (id, covered) = (source.id, source.covered);
        let waits = |arrived: &Arrived| arrived.carry.from == id;
        let to = self.slot_of(carried.to);
        let is_awaited = to.and_then(|to| self.sources[to].as_ref()?.rotation.carry.as_ref()).is_some_and(waits);
        match to {
            _ if carried.is_settled => self.skip_excluded(slot, covered, Resume::at(carried.end), "carried"),
            Some(to) if is_awaited => self.give(slot, to, carried.end),
            None if self.is_awaited(carried.to) => return Stop::Held,
            // The other file is lost or has given it up.
            _ => {
                if let Some(source) = self.sources[slot].as_mut() {
                    source.rotation.carried = None;
                    source.take_back_carried(carried.end);
                }
                self.stats.rotation_splits += 1;
                self.end_at(slot, carried.end);
                return Stop::Held;
            }
        }
        if let Some(source) = self.sources[slot].as_mut() {
            source.covered = carried.end;
            source.open = Open::default();
            source.guard = shifted.guard(carried.end);
        }
        Stop::More
    }

    /// Reads what the file before has of the first events to the front of `buffer`, and returns its length.
    pub(super) fn read_carry(&mut self, slot: usize, buffer: &mut [u8], now: Now) -> Result<usize, Stop> {
        let Some(source) = self.sources[slot].as_mut() else { return Err(Stop::Held) };
        let Some(arrived) = source.rotation.carry else {
            source.forget_carried();
            return Ok(0);
        };
        let Carry { from, start, end } = arrived.carry;
        let length = (end - start) as usize;
        let Some(before) = self.slot_of(from) else {
            return if self.is_awaited(from) { Err(Stop::Held) } else { self.lose_carry(slot, arrived) };
        };
        if !self.open_again(before, now) && self.sources[before].as_ref().is_some_and(|old| old.is_closed) {
            return Err(Stop::Held);
        }
        let file = self.sources[before].as_ref().and_then(|source| source.file.as_ref());
        match file.map(|file| self.files.read_at(file, &mut buffer[..length], start)) {
            Some(Ok(num_read)) if num_read == length => Ok(length),
            Some(Err(cause)) => Err(self.read_failed(slot, &cause, now)),
            Some(Ok(_)) | None => self.lose_carry(slot, arrived),
        }
    }

    /// Whether a source that is not there may still be found.
    fn is_awaited(&self, id: SourceId) -> bool {
        !self.is_scanned || self.rewritten.iter().any(|(row, _)| row.source == id)
    }

    fn lose_carry(&mut self, slot: usize, arrived: Arrived) -> Result<usize, Stop> {
        let Some(source) = self.sources[slot].as_mut() else { return Err(Stop::Held) };
        let (path, carry) = (source.path.clone(), arrived.carry);
        warn!(path = %path.display(), from = %carry.from, "the file with the beginning of an event is gone");
        source.rotation.carry = None;
        source.forget_carried();
        // It may be at hand or found yet; then it sends its part itself.
        let is_gone = self.slot_of(carry.from).is_none();
        self.give_back(arrived);
        if is_gone && self.absent.values().flatten().all(|row| row.source != carry.from) {
            self.lost("deleted", &path, carry.start, carry.end);
        }
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
        self.stats.rotation_splits += 1;
        self.settle_given(arrived, false);
        let Some(slot) = self.slot_of(arrived.carry.from) else { return };
        if let Some(source) = self.sources[slot].as_mut() {
            source.rotation.carried = None;
            source.take_back_carried(arrived.carry.end);
            if source.ledger.has_failed() {
                self.failed.insert(slot);
            }
        }
        self.end_at(slot, arrived.carry.end);
    }

    fn settle_given(&mut self, arrived: Arrived, is_acknowledged: bool) {
        let from = arrived.carry.from;
        let settle = |carried: &mut Option<Carried>| {
            if let Some(carried) = carried {
                carried.is_settled = is_acknowledged;
            }
        };
        if let Some(slot) = self.slot_of(from)
            && let Some(source) = self.sources[slot].as_mut()
        {
            settle(&mut source.rotation.carried);
            if let Some(sequence) = arrived.sequence {
                let before = source.ledger.num_acknowledged();
                source.ledger.settle(sequence, is_acknowledged);
                // Events behind it may have been acknowledged long ago.
                let num_acknowledged = source.ledger.num_acknowledged() - before;
                source.tally.finish(num_acknowledged);
                self.stats.acked_events += num_acknowledged;
            }
            if source.is_given_up() && source.ledger.num_outstanding() == 0 {
                self.end_given_up(slot);
            }
        }
        if let Some(row) = self.absent.values_mut().flatten().find(|row| row.source == from) {
            settle(&mut row.carried);
        }
        self.is_dirty = true;
    }
}
