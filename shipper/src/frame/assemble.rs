//! Puts lines together into events: several lines of one event, parts of a line, two streams that take turns.
//!
//! Records join without holes, although the lines of two streams are interleaved: an event's range ends where the event
//! does, less one byte for each event of another stream that is still open there, so that each of them can have a range of
//! its own later. What an event is made of may begin before its range; [`Resume`] says how far back reading must begin
//! for the events that are open at a position.
//!
//! An event ends
//! - with its line, where each line is an event and the runtime cut no part off,
//! - before the line of its stream that begins the next event,
//! - before a line that the runtime wrote `timeout` later,
//! - before the line with which it would span more than `max_bytes`,
//! - before a line that is longer than `max_bytes`,
//! - at a noted boundary.
//!
//! All but the last depend on bytes and settings only, and noted boundaries are durable.

use std::ops::Range;
use std::time::Duration;

use jiff::Timestamp;

use super::Framing;
use super::lines::LineEnd;
use super::multiline::Trace;
use super::plain::leading_nuls;
use super::wrapping::Stream;
use crate::encode::{Flags, Wrapper};

/// For each stream, how many bytes before a position its open event begins; 0 if none is open.
pub type Open = [u32; Stream::COUNT];

/// Where to go on: everything before `covered` is in records, but for the open events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resume {
    pub covered: u64,
    pub open: Open,
}

impl Resume {
    /// A position where no event is open.
    pub fn at(covered: u64) -> Self {
        Self { covered, open: Open::default() }
    }

    /// Up to where lines were looked at, in a file that begins at `origin`: the range of the last event left a byte for
    /// each open one.
    fn looked_at(&self, origin: u64) -> u64 {
        let num_open = self.open.iter().filter(|open| **open > 0).count() as u64;
        if self.covered == origin { origin } else { self.covered + num_open }
    }

    /// Where reading must begin.
    pub fn start(&self) -> u64 {
        self.covered - self.open.iter().copied().max().map_or(0, u64::from)
    }
}

/// Bytes of a file that begin at a line's start, or in a line that is in records already.
#[derive(Clone, Copy)]
pub struct Window<'a> {
    pub start: u64,
    pub bytes: &'a [u8],
    /// Noted boundaries, ascending.
    pub boundaries: &'a [u64],
}

impl Window<'_> {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

/// What comes next.
#[derive(Debug, PartialEq)]
pub enum Step<'a> {
    Event(Event<'a>),
    /// A line longer than `max_bytes` begins here, and no event is open.
    Long(u64),
    /// The window holds no further event. Its unfinished line begins here.
    More(u64),
}

#[derive(Debug, PartialEq)]
pub struct Event<'a> {
    /// Where its range ends. It begins where that of the event before ended.
    pub end: u64,
    /// The events that are open at `end`.
    pub open: Open,
    pub content: &'a [u8],
    /// Where its first line stands. May lie before its range.
    pub offset: u64,
    /// What it is made of, ascending. May begin before its range.
    pub pieces: &'a [Range<u64>],
    pub flags: Flags,
    pub wrapper: Option<Wrapper<'a>>,
}

/// An event that is open at the end of what was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its last line is a part that must go on.
    pub is_cut: bool,
}

/// The open event of one stream.
#[derive(Default)]
struct Group {
    is_open: bool,
    content: Vec<u8>,
    pieces: Vec<Range<u64>>,
    offset: u64,
    flags: Flags,
    /// Its last line is whole.
    is_whole: bool,
    trace: Trace,
    /// As the runtime wrote it, of the first line.
    time: String,
    last_time: Option<Timestamp>,
}

/// The line that is being looked at.
#[derive(Default)]
struct Line {
    range: Range<u64>,
    /// Where the content begins in the file.
    offset: u64,
    content: Vec<u8>,
    stream: Stream,
    time: String,
    is_whole: bool,
    /// A noted boundary ends it.
    is_partial: bool,
    has_bad_characters: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// At a line's start.
    Between,
    /// The line is taken apart; events before it are closed, it is not yet part of one.
    Before,
    /// All events are closed for a line that is too long.
    Long,
}

/// An event about to be closed.
struct Closing {
    stream: Stream,
    at: u64,
    flags: Flags,
}

/// Keeps its buffers from one file to the next.
pub struct Assembler {
    groups: [Group; Stream::COUNT],
    line: Line,
    at: u64,
    /// Lines of a stream before this position are in records.
    floors: [u64; Stream::COUNT],
    stage: Stage,
    /// The last one first.
    closings: Vec<Closing>,
}

impl Default for Assembler {
    fn default() -> Self {
        Self {
            groups: Default::default(),
            line: Line::default(),
            at: 0,
            floors: [0; Stream::COUNT],
            stage: Stage::Between,
            closings: Vec::new(),
        }
    }
}

impl Assembler {
    /// Forgets what it had and goes on with the bytes from [`Resume::start`]. The file begins at `origin`; bytes before it
    /// are another file's.
    pub fn resume(&mut self, resume: Resume, origin: u64) {
        self.groups.iter_mut().for_each(|group| group.is_open = false);
        let looked_at = resume.looked_at(origin);
        self.floors = resume.open.map(|open| if open > 0 { resume.covered - u64::from(open) } else { looked_at });
        self.at = resume.start();
        self.stage = Stage::Between;
        self.closings.clear();
    }

    /// The next event of `window`, which must reach from the resumed position as far as it can.
    pub fn next(&mut self, framing: &Framing, window: Window<'_>) -> Step<'_> {
        loop {
            if let Some(closing) = self.closings.pop() {
                return Step::Event(self.close(closing));
            }
            match self.stage {
                Stage::Long => return Step::Long(self.at),
                Stage::Before => self.append(framing, window),
                Stage::Between => {
                    let rest = &window.bytes[(self.at - window.start) as usize..];
                    let boundary = window.boundaries.iter().copied().find(|&b| b > self.at && b <= window.end());
                    let reach = boundary.map_or(rest, |b| &rest[..(b - self.at) as usize]);
                    let found = framing.line_end.find(reach);
                    let length = found.or(boundary.map(|_| reach.len()));
                    if length.unwrap_or(rest.len()) as u64 > framing.max_bytes {
                        self.stage = Stage::Long;
                        self.close_all(self.at, Flags::NONE);
                        continue;
                    }
                    let Some(length) = length else { return Step::More(self.at) };
                    self.take_apart(framing, window, &rest[..length], found.is_none());
                }
            }
        }
    }

    /// The events that are open after [`Step::More`], at the position that it names.
    pub fn open(&self) -> Open {
        self.open_at(self.at)
    }

    /// What they wait for, if there are any.
    pub fn waiting(&self) -> Option<Waiting> {
        let mut open = self.groups.iter().filter(|group| group.is_open).peekable();
        open.peek()?;
        Some(Waiting { is_cut: open.any(|group| !group.is_whole) })
    }

    fn open_at(&self, position: u64) -> Open {
        let start = |group: &Group| group.pieces.first().filter(|_| group.is_open).map(|piece| piece.start);
        std::array::from_fn(|stream| start(&self.groups[stream]).map_or(0, |start| (position - start) as u32))
    }

    fn take_apart(&mut self, framing: &Framing, window: Window<'_>, bytes: &[u8], is_partial: bool) {
        let end = self.at + bytes.len() as u64;
        let stripped = if is_partial { bytes } else { framing.line_end.strip(bytes) };
        let line = &mut self.line;
        line.content.clear();
        line.time.clear();
        line.range = self.at..end;
        line.is_partial = is_partial;
        let unwrapped = framing.wrapping.and_then(|wrapping| wrapping.unwrap(stripped));
        match unwrapped {
            Some(unwrapped) => {
                line.content.extend_from_slice(&unwrapped.content);
                line.time.push_str(&unwrapped.time);
                line.stream = unwrapped.stream;
                line.is_whole = unwrapped.is_whole;
                line.has_bad_characters = false;
                line.offset = self.at;
            }
            None => {
                let skipped = bom_length(framing, stripped);
                let skipped = skipped + framing.line_end.whole(leading_nuls(&stripped[skipped..]));
                let content = &stripped[skipped..];
                line.offset = self.at + skipped as u64;
                let (text, has_errors) = framing.encoding.decode_without_bom_handling(content);
                line.content.extend_from_slice(text.as_bytes());
                line.stream = Stream::default();
                line.is_whole = true;
                line.has_bad_characters = has_errors;
            }
        }
        if self.at < self.floors[line.stream as usize] {
            // In a record already.
            self.end_line(window, None);
            return;
        }
        self.stage = Stage::Before;
        self.close_before_line(framing);
    }

    /// Moves behind the line. At a noted boundary everything ends that has not ended by itself.
    fn end_line(&mut self, window: Window<'_>, ended: Option<Stream>) {
        self.at = self.line.range.end;
        self.stage = Stage::Between;
        if window.boundaries.contains(&self.at) {
            let flags = if self.line.is_partial { Flags::PARTIAL } else { Flags::NONE };
            self.close_all(self.at, flags);
        }
        if let Some(stream) = ended {
            self.closings.retain(|closing| closing.stream != stream);
            self.closings.push(Closing { stream, at: self.at, flags: Flags::NONE });
        }
    }

    /// Closes what ends before the line.
    fn close_before_line(&mut self, framing: &Framing) {
        let line = &self.line;
        let time = framing.multiline.as_ref().and_then(|_| line.time.parse::<Timestamp>().ok());
        for stream in oldest_first(&self.groups) {
            let group = &mut self.groups[stream as usize];
            let is_own = stream == line.stream;
            let is_ended = match &framing.multiline {
                Some(multiline) if group.is_whole => {
                    let is_old =
                        time.zip(group.last_time).is_some_and(|(now, last)| is_later(now, last, multiline.timeout));
                    is_old || (is_own && !multiline.continues(&mut group.trace, &line.content))
                }
                _ => false,
            };
            let start = group.pieces.first().map_or(self.at, |piece| piece.start);
            let is_too_long = line.range.end - start > framing.max_bytes;
            if is_ended || is_too_long {
                let flags = if is_ended || (group.is_whole && !is_own) { Flags::NONE } else { Flags::SPLIT };
                self.closings.insert(0, Closing { stream, at: self.at, flags });
            }
        }
    }

    /// Makes the line part of its stream's event.
    fn append(&mut self, framing: &Framing, window: Window<'_>) {
        let line = &self.line;
        let group = &mut self.groups[line.stream as usize];
        if group.is_open || !line.content.is_empty() || !line.is_whole {
            group.add(framing, line);
        }
        let is_ended = line.is_whole && !line.is_partial && framing.multiline.is_none() && group.is_open;
        let ended = is_ended.then_some(line.stream);
        self.end_line(window, ended);
    }

    fn close_all(&mut self, at: u64, flags: Flags) {
        for stream in oldest_first(&self.groups) {
            let group = &self.groups[stream as usize];
            let mut flags = flags;
            if !group.is_whole {
                flags |= Flags::PARTIAL;
            }
            self.closings.insert(0, Closing { stream, at, flags });
        }
    }

    fn close(&mut self, closing: Closing) -> Event<'_> {
        self.groups[closing.stream as usize].is_open = false;
        let num_open = self.groups.iter().filter(|group| group.is_open).count() as u64;
        let end = closing.at - num_open;
        let open = self.open_at(end);
        let group = &mut self.groups[closing.stream as usize];
        // Blank lines at its end are covered, not content.
        let length = group.content.iter().rposition(|&b| b != b'\n').map_or(0, |at| at + 1);
        group.content.truncate(length);
        group.flags |= closing.flags;
        let wrapper = (!group.time.is_empty()).then_some(Wrapper { time: &group.time, stream: closing.stream.name() });
        Event {
            end,
            open,
            content: &group.content,
            offset: group.offset,
            pieces: &group.pieces,
            flags: group.flags,
            wrapper,
        }
    }
}

impl Group {
    fn add(&mut self, framing: &Framing, line: &Line) {
        if !self.is_open {
            self.is_open = true;
            self.content.clear();
            self.pieces.clear();
            self.offset = line.offset;
            self.flags = Flags::NONE;
            self.time.clear();
            self.time.push_str(&line.time);
            self.is_whole = false;
            if let Some(multiline) = &framing.multiline
                && !multiline.begins(&mut self.trace, &line.content)
            {
                self.flags |= Flags::SPLIT;
            }
        } else if self.is_whole {
            self.content.push(b'\n');
            self.flags |= Flags::MULTILINE;
        }
        self.content.extend_from_slice(&line.content);
        self.is_whole = line.is_whole;
        if line.has_bad_characters {
            self.flags |= Flags::INVALID_UTF8;
        }
        if framing.multiline.is_some() {
            // None where the runtime wrote none: what an event becomes depends on its own lines only.
            self.last_time = line.time.parse().ok();
        }
        match self.pieces.last_mut() {
            Some(last) if last.end == line.range.start => last.end = line.range.end,
            _ => self.pieces.push(line.range.clone()),
        }
    }
}

/// The streams with an open event, the one that began first before the other.
fn oldest_first(groups: &[Group; Stream::COUNT]) -> impl Iterator<Item = Stream> + use<> {
    let mut streams = Stream::ALL;
    let start = |stream: &Stream| groups[*stream as usize].pieces.first().map(|piece| piece.start);
    streams.sort_by_key(start);
    let is_open = groups.each_ref().map(|group| group.is_open);
    streams.into_iter().filter(move |stream| is_open[*stream as usize])
}

fn is_later(now: Timestamp, last: Timestamp, timeout: Duration) -> bool {
    now.as_nanosecond() - last.as_nanosecond() >= timeout.as_nanos() as i128
}

/// A file in UTF-16 may say so in its first character.
fn bom_length(framing: &Framing, line: &[u8]) -> usize {
    let bom: &[u8] = match framing.line_end {
        LineEnd::Utf16Le => b"\xff\xfe",
        LineEnd::Utf16Be => b"\xfe\xff",
        LineEnd::Lf | LineEnd::Cr => return 0,
    };
    if line.starts_with(bom) { bom.len() } else { 0 }
}

#[cfg(test)]
mod tests;
