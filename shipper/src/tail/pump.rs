//! Reads one source and sends its records, until its share is used or something holds it back.

use std::io;
use std::sync::Arc;

use millrace_common::record::{CoveredBytes, RecordId};
use tracing::{info, warn};

use super::send::Record;
use super::source::HoleSearch;
use super::{Now, Tailer};
use crate::checkpoint::row::{Guard, Print};
use crate::checkpoint::store::Store;
use crate::encode::Flags;
use crate::frame::assemble::{Open, Resume};
use crate::frame::lines::LineEnd;
use crate::frame::plain::{self, LongEnd, LongSearch};
use crate::produce::Broker;
use crate::read::FileSystem;

/// Why a pump stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The share is used up; there is more.
    More,
    /// The end of the file, for now.
    AtEnd,
    /// Something else wakes the source: a save, a retry, a rewind.
    Held,
    /// The producer takes no more for now.
    Full,
    /// The topic of the source takes no more for now.
    Blocked,
}

/// What was read of a source: first what another file has of its first events, then its own bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    /// Bytes of the other file.
    pub carried: usize,
    /// Where its own bytes begin in the file.
    pub start: u64,
    pub length: usize,
    /// There may be more.
    pub is_full: bool,
}

impl<F: FileSystem, B: Broker, S: Store> Tailer<F, B, S> {
    /// Windows that one turn reads, over all sources: acknowledgements and hints are looked at in between.
    const WINDOWS_PER_TURN: usize = 4;

    /// Returns false if the producer took no more.
    pub(super) fn pump_ready(&mut self, now: Now) -> bool {
        for _ in 0..Self::WINDOWS_PER_TURN.max(self.ready.len().min(64)) {
            if self.topics.is_full() {
                return false;
            }
            let Some(slot) = self.ready.pop_front() else { return true };
            let mut buffer = std::mem::take(&mut self.buffer);
            let may_go_on = self.is_own(slot, now) && self.may_produce(slot, now) && self.open_again(slot, now);
            let stop = if may_go_on { self.pump(slot, &mut buffer, now) } else { Stop::Held };
            self.buffer = buffer;
            let Some(source) = self.sources[slot].as_mut() else { continue };
            source.is_queued = matches!(stop, Stop::More | Stop::Full | Stop::Blocked);
            match stop {
                Stop::More => self.ready.push_back(slot),
                Stop::Full => {
                    self.ready.push_front(slot);
                    return false;
                }
                Stop::Blocked => self.topics.hold(self.settings.inputs[source.input].topic, slot, source.partition),
                Stop::AtEnd | Stop::Held => {}
            }
        }
        true
    }

    fn pump(&mut self, slot: usize, buffer: &mut [u8], now: Now) -> Stop {
        let view = match self.look(slot, buffer, now) {
            Ok(view) => view,
            Err(stop) => return stop,
        };
        let Some(source) = self.sources[slot].as_mut() else { return Stop::Held };
        let num_partitions = self.broker.num_partitions(self.settings.inputs[source.input].topic);
        // A source moves to another partition only when nothing of it is under way: order within a partition.
        if let Some(wanted) = num_partitions.map(|n| source.id.partition(n))
            && source.partition != Some(wanted)
            && source.ledger.num_outstanding() == 0
        {
            source.partition = Some(wanted);
        }
        let Some(partition) = source.partition else { return Stop::Blocked };
        if self.topics.is_lane_full(self.settings.inputs[source.input].topic, partition) {
            return Stop::Blocked;
        }
        if source.hole.is_some() {
            return self.pump_hole(slot, buffer, now);
        }
        if source.long.is_some() {
            return self.pump_long(slot, partition, buffer, now);
        }
        if self.settings.inputs[source.input].framing.is_plain() {
            return self.pump_window(slot, partition, &buffer[..view.length], view.is_full, now);
        }
        self.pump_assembled(slot, partition, view, &buffer[..view.carried + view.length], now)
    }

    /// Reads what comes next, with the bytes before it, and makes sure that the file is still the one that was read so far.
    fn look(&mut self, slot: usize, buffer: &mut [u8], now: Now) -> Result<View, Stop> {
        let Some(source) = self.sources[slot].as_ref() else { return Err(Stop::Held) };
        if source.ledger.has_failed() || source.waits_for.is_some() || source.retry_at.is_some() {
            return Err(Stop::Held);
        }
        let guard = source.guard;
        let is_searching = source.long.is_some() || source.hole.is_some();
        let prefix = source.prefix;
        let events_start = source.events_start();
        let wants_reach = source.wants_reach;
        let carried = if events_start.is_none() { self.read_carry(slot, buffer, now)? } else { 0 };
        let buffer = &mut buffer[carried..];
        let start = if is_searching { guard.start() } else { guard.start().min(events_start.unwrap_or(0)) };
        let wanted = match is_searching {
            true if start == 0 => guard.length.max(prefix.length) as usize,
            true => guard.length as usize,
            false if wants_reach => buffer.len(),
            // What open events have already is read beside the window.
            false => (self.settings.window + (guard.start() - start) as usize).min(buffer.len()),
        };
        let Some(source) = self.sources[slot].as_ref() else { return Err(Stop::Held) };
        let Some(file) = &source.file else { return Err(Stop::Held) };
        let num_read = match self.files.read_at(file, &mut buffer[..wanted], start) {
            Ok(num_read) => num_read,
            Err(cause) => return Err(self.read_failed(slot, &cause, now)),
        };
        let bytes = &buffer[..num_read];
        let is_same = match source.ahead {
            Some(ahead) => {
                let mut bytes = [0; Guard::MAX_LENGTH];
                let bytes = &mut bytes[..ahead.length as usize];
                match self.files.read_at(file, bytes, ahead.start()) {
                    Ok(num_read) => ahead.matches(&bytes[..num_read]),
                    Err(cause) => return Err(self.read_failed(slot, &cause, now)),
                }
            }
            None => true,
        };
        let has_prefix = start > 0 || prefix.matches(bytes);
        let before = bytes.get((guard.start() - start) as usize..).unwrap_or_default();
        if !is_same || !has_prefix || !guard.matches(before) {
            self.note_truncation(slot, now);
            return Err(Stop::Held);
        }
        if !self.is_untorn(slot, start, bytes) {
            return Err(Stop::More);
        }
        let Some(source) = self.sources[slot].as_mut() else { return Err(Stop::Held) };
        source.note_own_until(start + num_read as u64);
        if source.prefix.length < Print::MAX_LENGTH as u32 && start == 0 && !is_searching {
            source.prefix = self.settings.prefix_of(bytes);
        }
        Ok(View { carried, start, length: num_read, is_full: num_read == wanted })
    }

    /// Sends the events of a window that begins with the guard's bytes.
    fn pump_window(&mut self, slot: usize, partition: i32, bytes: &[u8], is_full: bool, now: Now) -> Stop {
        let Some(source) = self.sources[slot].as_ref() else { return Stop::Held };
        let window = &bytes[source.guard.length as usize..];
        let (base, id) = (source.covered, source.id);
        let mut at = 0;
        let mut open_hole = None;
        let stop = loop {
            let Some(source) = self.sources[slot].as_ref() else { return Stop::Held };
            let position = base + at as u64;
            match plain::hole(&window[at..]) {
                Some(hole) if at + hole.end < window.len() => {
                    self.skip_hole(slot, position, position + hole.start as u64, position + hole.end as u64);
                    at += hole.end;
                    continue;
                }
                Some(hole) => {
                    open_hole = Some(position + hole.start as u64);
                    break None;
                }
                None => {}
            }
            let boundary = source.next_boundary(position).map(|b| (b - position) as usize);
            let Some(event) = plain::next_event(&window[at..], boundary) else { break None };
            let covered = &window[at..at + event.end];
            let record = Record {
                id: RecordId::of(id, position, covered),
                content: &covered[event.content.clone()],
                offset: position + event.content.start as u64,
                flags: if event.is_partial { Flags::PARTIAL } else { Flags::NONE },
                wrapper: None,
                open: Open::default(),
            };
            if let Err(stop) = self.send(slot, partition, record, now) {
                break Some(stop);
            }
            at += event.end;
        };
        self.advance(slot, base + at as u64, &bytes[..bytes.len() - window.len() + at]);
        if let Some(stop) = stop {
            return stop;
        }
        let Some(source) = self.sources[slot].as_mut() else { return Stop::Held };
        if is_full {
            let end = base + window.len() as u64;
            if at == 0
                && let Some(start) = open_hole
            {
                if source.hole_size == Some(source.size) {
                    source.read_end = source.size;
                    return Stop::AtEnd;
                }
                source.hole = Some(HoleSearch { start, searched: end });
            } else if at == 0 {
                source.long = Some(LongSearch::new(base, LineEnd::Lf));
            }
            return Stop::More;
        }
        let has_unfinished = open_hole.is_none() && plain::unfinished_line(&window[at..]).is_some();
        source.read_end = base + window.len() as u64;
        source.unfinished = has_unfinished.then_some(source.read_end);
        source.ahead = source.unfinished.map(|end| Guard::new(end, &window[at..])).or(source.ahead);
        Stop::AtEnd
    }

    /// Moves on to `position`; `before` are bytes that end there.
    pub(super) fn advance(&mut self, slot: usize, position: u64, before: &[u8]) {
        self.advance_with(slot, position, Guard::new(position, before));
    }

    pub(super) fn advance_with(&mut self, slot: usize, position: u64, guard: Guard) {
        if let Some(source) = self.sources[slot].as_mut()
            && position > source.covered
        {
            self.stats.read_bytes += position - source.covered;
            source.covered = position;
            source.open = Open::default();
            source.waiting = None;
            source.wants_reach = false;
            source.guard = guard;
            source.ahead = source.ahead.filter(|ahead| ahead.position > position);
            source.unfinished = None;
        }
    }

    /// Looks for the end of a run of NULs that does not fit into a window. One that reaches the end of the file is left
    /// alone: space set aside, to be written to.
    fn pump_hole(&mut self, slot: usize, buffer: &mut [u8], now: Now) -> Stop {
        /// Windows of one turn: they are quickly looked through.
        const MAX_WINDOWS: usize = 64;
        for _ in 0..MAX_WINDOWS {
            let Some(source) = self.sources[slot].as_mut() else { return Stop::Held };
            let line_end = self.settings.inputs[source.input].framing.line_end;
            let (Some(search), Some(file)) = (source.hole, &source.file) else { return Stop::More };
            let num_read = match self.files.read_at(file, buffer, search.searched) {
                Ok(num_read) => num_read,
                Err(cause) => return self.read_failed(slot, &cause, now),
            };
            let num_nuls = plain::leading_nuls(&buffer[..num_read]);
            let searched = search.searched + num_nuls as u64;
            source.note_own_until(searched);
            source.hole = Some(HoleSearch { searched, ..search });
            if num_nuls < num_read {
                source.hole = None;
                if searched - search.start < plain::MIN_HOLE {
                    source.long = Some(LongSearch::new(source.covered, line_end));
                } else {
                    let covered = source.covered;
                    self.skip_hole(slot, covered, search.start, searched);
                    self.advance(slot, searched, &[0; Guard::MAX_LENGTH]);
                }
                return Stop::More;
            }
            if num_read < buffer.len() {
                source.hole = None;
                source.hole_size = Some(source.size);
                source.read_end = searched;
                return Stop::AtEnd;
            }
        }
        Stop::More
    }

    /// `covered` is where the record before ended: empty lines between it and the hole are in no record either.
    pub(super) fn skip_hole(&mut self, slot: usize, covered: u64, start: u64, end: u64) {
        let Some(source) = self.sources[slot].as_mut() else { return };
        source.give_up_bytes(covered, end, "nul_bytes");
        info!(path = %source.current_path.display(), start, end, bytes = end - start, "NUL bytes between lines skipped");
        source.ledger.skipped(Resume::at(end));
        self.stats.nul_bytes_skipped += end - start;
        self.is_dirty = true;
    }

    /// Looks for the end of an event that does not fit into a window.
    fn pump_long(&mut self, slot: usize, partition: i32, buffer: &mut [u8], now: Now) -> Stop {
        let Some(source) = self.sources[slot].as_mut() else { return Stop::Held };
        let (Some(mut search), Some(file)) = (source.long, &source.file) else { return Stop::More };
        let num_read = match self.files.read_at(file, buffer, search.searched) {
            Ok(num_read) => num_read,
            Err(cause) => return self.read_failed(slot, &cause, now),
        };
        if num_read == 0 && self.files.stat(file).is_ok_and(|stat| stat.size < search.searched) {
            source.long = None;
            return Stop::More;
        }
        source.note_own_until(search.searched + num_read as u64);
        let before = search;
        let end = search.advance(&buffer[..num_read], source.next_boundary(search.line_start));
        source.long = Some(search);
        if search.searched > source.covered && end.is_none() && num_read > 0 {
            source.ahead = Some(Guard::new(search.searched, &buffer[..num_read]));
        }
        let Some(end) = end else {
            if num_read == buffer.len() {
                return Stop::More;
            }
            source.read_end = search.searched;
            source.unfinished = (search.searched > search.line_start).then_some(search.searched);
            return Stop::AtEnd;
        };
        match self.send_long(slot, partition, search.line_start, end, buffer, now) {
            Ok(()) => Stop::More,
            Err(stop) => {
                if let Some(source) = self.sources[slot].as_mut() {
                    source.long = Some(before);
                }
                stop
            }
        }
    }

    /// Sends the event `line_start..end`, read again piece by piece: its checksum covers all of it, its content is cut.
    fn send_long(
        &mut self,
        slot: usize,
        partition: i32,
        line_start: u64,
        end: LongEnd,
        buffer: &mut [u8],
        now: Now,
    ) -> Result<(), Stop> {
        let Some(source) = self.sources[slot].as_ref() else { return Err(Stop::Held) };
        let (covered, id, path) = (source.covered, source.id, source.path.clone());
        let framing = Arc::clone(&self.settings.inputs[source.input].framing);
        if end.end - covered > u64::from(u32::MAX) {
            let length = (Guard::MAX_LENGTH as u64).min(end.end) as usize;
            let num_read = self.read_some(slot, &mut buffer[..length], end.end - length as u64, now)?;
            self.lost("too_large", &path, covered, end.end);
            if let Some(source) = self.sources[slot].as_mut() {
                source.give_up_bytes(covered, end.end, "too_large");
                source.ledger.skipped(Resume::at(end.end));
            }
            self.is_dirty = true;
            self.end_long(slot, end.end, &buffer[..num_read]);
            return Ok(());
        }
        let mut bytes = CoveredBytes::new();
        let mut content = Vec::new();
        let mut first = Vec::new();
        let mut last = Vec::new();
        // The content is cut where nothing of it could be sent anyway.
        let max_content = self.settings.max_record as u64 + 2;
        let mut at = covered;
        while at < end.end {
            let wanted = buffer.len().min((end.end - at) as usize);
            let num_read = self.read_some(slot, &mut buffer[..wanted], at, now)?;
            let piece = &buffer[..num_read];
            bytes.update(piece);
            first.extend_from_slice(&piece[..num_read.min(Guard::MAX_LENGTH - first.len())]);
            let from = line_start.clamp(at, at + num_read as u64);
            let to = (line_start + max_content).clamp(at, at + num_read as u64);
            content.extend_from_slice(&piece[(from - at) as usize..(to - at) as usize]);
            last.extend_from_slice(&piece[num_read.saturating_sub(Guard::MAX_LENGTH)..]);
            last.drain(..last.len().saturating_sub(Guard::MAX_LENGTH));
            at += num_read as u64;
        }
        let mut flags = if end.is_partial { Flags::PARTIAL } else { Flags::NONE };
        if (content.len() as u64) < end.end - line_start {
            flags |= Flags::TRUNCATED;
        } else if !end.is_partial {
            let length = framing.line_end.strip(&content).len();
            content.truncate(length);
        }
        let content = framing.text_of_long(content, &mut flags);
        if !self.is_untorn(slot, covered, &first) {
            return Err(Stop::More);
        }
        let Some(id) = bytes.identify(id, covered) else { return Err(Stop::Held) };
        let open = Open::default();
        self.send(
            slot,
            partition,
            Record { id, content: &content, offset: line_start, flags, wrapper: None, open },
            now,
        )?;
        self.end_long(slot, end.end, &last);
        Ok(())
    }

    fn end_long(&mut self, slot: usize, end: u64, before: &[u8]) {
        if let Some(source) = self.sources[slot].as_mut() {
            source.long = None;
        }
        self.advance(slot, end, before);
    }

    /// Whether what was read from `start` on is of one piece. A read is several system calls, and a file that is truncated
    /// and written anew between them gives bytes of both; then its first bytes are no longer what they were.
    pub(super) fn is_untorn(&self, slot: usize, start: u64, read: &[u8]) -> bool {
        let Some(file) = self.sources[slot].as_ref().and_then(|source| source.file.as_ref()) else { return false };
        let mut again = [0; Guard::MAX_LENGTH];
        let length = read.len().min(Guard::MAX_LENGTH);
        // Fewer bytes: truncated, but nothing new was there to be read in between.
        self.files.read_at(file, &mut again[..length], start).is_ok_and(|num| again[..num] == read[..num])
    }

    /// Reads bytes that stood there a moment ago.
    fn read_some(&mut self, slot: usize, buffer: &mut [u8], at: u64, now: Now) -> Result<usize, Stop> {
        let Some(source) = self.sources[slot].as_mut() else { return Err(Stop::Held) };
        let Some(file) = &source.file else { return Err(Stop::Held) };
        match self.files.read_at(file, buffer, at) {
            Ok(0) => {
                source.long = None;
                Err(Stop::AtEnd)
            }
            Ok(num_read) => Ok(num_read),
            Err(cause) => Err(self.read_failed(slot, &cause, now)),
        }
    }

    pub(super) fn read_failed(&mut self, slot: usize, cause: &io::Error, now: Now) -> Stop {
        let Some(source) = self.sources[slot].as_mut() else { return Stop::Held };
        if source.delays.num_attempts() == 0 {
            warn!(path = %source.path.display(), position = source.covered, error = %cause, "cannot read the file, trying again");
        }
        source.retry_at = Some(now.mono + source.delays.next_delay());
        Stop::Held
    }
}
