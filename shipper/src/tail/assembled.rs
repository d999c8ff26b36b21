//! Reads sources whose events are put together from lines.

use std::ops::Range;
use std::sync::Arc;

use millrace_common::record::{CoveredBytes, RecordId};

use super::pump::{Stop, View};
use super::send::Record;
use super::source::HoleSearch;
use super::{Now, Tailer};
use crate::checkpoint::row::Guard;
use crate::checkpoint::store::Store;
use crate::frame::Framing;
use crate::frame::assemble::{Assembler, Event, Open, Resume, Step, Window};
use crate::frame::filter::Filter;
use crate::frame::plain::{self, LongSearch};
use crate::produce::Broker;
use crate::read::FileSystem;

/// Bytes in the coordinates of the assembler: those of another file come first, so that `shift` is the file's start.
#[derive(Clone, Copy)]
pub(super) struct Shifted<'a> {
    pub bytes: &'a [u8],
    /// Where `bytes` begin.
    pub start: u64,
    pub shift: u64,
}

impl<'a> Shifted<'a> {
    pub fn new(view: View, bytes: &'a [u8]) -> Self {
        let shift = view.carried as u64;
        // With carried bytes, the file's own are read from its start.
        Self { bytes, start: if shift > 0 { 0 } else { view.start }, shift }
    }

    pub fn slice(&self, range: Range<u64>) -> &'a [u8] {
        let at = |position: u64| (position.saturating_sub(self.start) as usize).min(self.bytes.len());
        &self.bytes[at(range.start)..at(range.end)]
    }

    /// The guard of a position of the file: other files' bytes are no part of it.
    pub fn guard(&self, position: u64) -> Guard {
        let reached = position + self.shift;
        let from = reached.saturating_sub(Guard::MAX_LENGTH as u64).max(self.shift);
        Guard::new(position, self.slice(from..reached))
    }

    pub fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

/// How far a pump came.
struct Progress {
    /// In the file's coordinates.
    resume: Resume,
    stop: Option<Stop>,
    /// Where the line begins that was looked at last.
    at: u64,
    /// It is too long to be held.
    is_long: bool,
}

impl<F: FileSystem, B: Broker, S: Store> Tailer<F, B, S> {
    pub(super) fn pump_assembled(&mut self, slot: usize, partition: i32, view: View, bytes: &[u8], now: Now) -> Stop {
        let mut shifted = Shifted::new(view, bytes);
        let Some(source) = self.sources[slot].as_ref() else { return Stop::Held };
        let handed_over = source.rotation.carried.map(|carried| carried.end).filter(|end| *end > source.covered);
        if let Some(end) = handed_over {
            shifted.bytes = shifted.slice(shifted.start..end + shifted.shift);
        }
        if let Err(stop) = self.settle_rotation(slot, shifted, now) {
            return stop;
        }
        if let Some(stop) = self.skip_leading_hole(slot, shifted, view.is_full) {
            return stop;
        }
        let Some(source) = self.sources[slot].as_ref() else { return Stop::Held };
        let framing = Arc::clone(&self.settings.inputs[source.input].framing);
        let before = source.covered;
        let mut assembler = std::mem::take(&mut self.assembler);
        let progress = self.send_events(slot, partition, &framing, shifted, &mut assembler, now);
        let (covered, open) = (progress.resume.covered, progress.resume.open);
        self.advance_to(slot, covered, shifted);
        let waiting = assembler.waiting();
        self.assembler = assembler;
        let Some(source) = self.sources[slot].as_mut() else { return Stop::Held };
        source.open = open;
        if let Some(stop) = progress.stop {
            return stop;
        }
        let rest = shifted.slice(progress.at + shifted.shift..shifted.end());
        let hole = plain::hole(rest).filter(|hole| hole.start == 0);
        if progress.is_long {
            return self.begin_long(slot, progress.at, hole.is_some(), shifted);
        }
        if handed_over.is_some_and(|end| end + shifted.shift == shifted.end()) {
            return self.hand_over(slot, shifted);
        }
        if view.is_full {
            source.wants_reach = covered == before;
            return Stop::More;
        }
        let end = shifted.end() - shifted.shift;
        source.read_end = end;
        // Room set aside behind the last line is no line.
        let seen = if hole.is_some() { progress.at } else { end };
        source.unfinished = (progress.at < seen).then_some(framing.boundary_at(seen));
        source.waiting = waiting.map(|waiting| (progress.at, waiting));
        let is_open = source.unfinished.is_some() || source.waiting.is_some();
        source.ahead = is_open.then(|| shifted.guard(end)).or(source.ahead);
        self.wake_follower(slot);
        Stop::AtEnd
    }

    /// Sends events until the window or the producer's room ends.
    fn send_events(
        &mut self,
        slot: usize,
        partition: i32,
        framing: &Framing,
        shifted: Shifted<'_>,
        assembler: &mut Assembler,
        now: Now,
    ) -> Progress {
        let Shifted { bytes, start, shift } = shifted;
        let Some(source) = self.sources[slot].as_ref() else {
            return Progress { resume: Resume::default(), stop: Some(Stop::Held), at: 0, is_long: false };
        };
        let mut resume = Resume { covered: source.covered, open: source.open };
        let boundaries: Vec<u64> = source.boundaries.iter().map(|boundary| boundary + shift).collect();
        assembler.resume(Resume { covered: resume.covered + shift, open: resume.open }, shift);
        let window = Window { start, bytes, boundaries: &boundaries };
        loop {
            let event = match assembler.next(framing, window) {
                Step::Event(event) => event,
                Step::Long(at) => return Progress { resume, stop: None, at: at - shift, is_long: true },
                // A line of the other file is never unfinished.
                Step::More(at) => return Progress { resume, stop: None, at: at.saturating_sub(shift), is_long: false },
            };
            let after = Resume { covered: event.end - shift, open: event.open };
            let is_kept = !event.content.is_empty() && framing.filter.as_ref().is_none_or(|f| f.keeps(event.content));
            if is_kept {
                if let Err(stop) = self.send_event(slot, partition, resume.covered, &event, shifted, now) {
                    return Progress { resume, stop: Some(stop), at: resume.covered, is_long: false };
                }
                resume = after;
            } else if after.covered - resume.covered >= Filter::MAX_SKIP {
                self.skip_excluded(slot, resume.covered, after, "excluded");
                resume = after;
            }
        }
    }

    /// Goes on with a line that is too long to be held, or with a hole.
    fn begin_long(&mut self, slot: usize, start: u64, is_hole: bool, shifted: Shifted<'_>) -> Stop {
        let Some(source) = self.sources[slot].as_mut() else { return Stop::Held };
        let line_end = self.settings.inputs[source.input].framing.line_end;
        if start > source.covered {
            // Nothing but excluded events: the search begins at the line.
            source.ledger.skipped(Resume::at(start));
            self.advance_to(slot, start, shifted);
        }
        if let Some(source) = self.sources[slot].as_mut()
            && !is_hole
        {
            source.long = Some(LongSearch::new(start, line_end));
        }
        Stop::More
    }

    pub(super) fn advance_to(&mut self, slot: usize, position: u64, shifted: Shifted<'_>) {
        self.advance_with(slot, position, shifted.guard(position));
    }

    fn send_event(
        &mut self,
        slot: usize,
        partition: i32,
        covered: u64,
        event: &Event<'_>,
        shifted: Shifted<'_>,
        now: Now,
    ) -> Result<(), Stop> {
        let Some(source) = self.sources[slot].as_ref() else { return Err(Stop::Held) };
        let start = covered + shifted.shift;
        let range = shifted.slice(start..event.end);
        let begins_before = event.pieces.first().is_some_and(|piece| piece.start < start);
        let id = if begins_before {
            let mut covered_bytes = CoveredBytes::new();
            covered_bytes.update(range);
            for piece in event.pieces.iter().take_while(|piece| piece.start < start) {
                covered_bytes.update_beside(shifted.slice(piece.start..piece.end.min(start)));
            }
            covered_bytes.identify(source.id, covered).ok_or(Stop::Held)?
        } else {
            RecordId::of(source.id, covered, range)
        };
        let record = Record {
            id,
            content: event.content,
            // Inside the range, so that readers can tell the record is ours.
            offset: event.offset.max(start) - shifted.shift,
            flags: event.flags,
            wrapper: event.wrapper,
            open: event.open,
        };
        self.send(slot, partition, record, now)
    }

    /// Bytes of events that are not sent, once they are so many that the position must move without a record.
    pub(super) fn skip_excluded(&mut self, slot: usize, covered: u64, after: Resume, reason: &str) {
        if let Some(source) = self.sources[slot].as_mut() {
            source.give_up_bytes(covered, after.covered, reason);
            source.ledger.skipped(after);
            self.is_dirty = true;
        }
    }

    /// A hole at the position, if no event is open there.
    fn skip_leading_hole(&mut self, slot: usize, shifted: Shifted<'_>, is_full: bool) -> Option<Stop> {
        let source = self.sources[slot].as_mut()?;
        if source.open != Open::default() {
            return None;
        }
        let window = shifted.slice(source.covered + shifted.shift..shifted.end());
        let hole = plain::hole(window)?;
        let (start, end) = (source.covered + hole.start as u64, source.covered + hole.end as u64);
        if hole.end < window.len() {
            let covered = source.covered;
            self.skip_hole(slot, covered, start, end);
            self.advance(slot, end, &[0; Guard::MAX_LENGTH]);
            return Some(Stop::More);
        }
        if is_full && source.hole_size != Some(source.size) {
            source.hole = Some(HoleSearch { start, searched: end });
            return Some(Stop::More);
        }
        source.read_end = source.covered + window.len() as u64;
        Some(Stop::AtEnd)
    }
}
