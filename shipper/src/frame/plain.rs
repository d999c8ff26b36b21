//! The fast path: every line that ends with LF is an event. Also the search for the end of a line that is longer than a
//! window, and holes between lines.

use std::ops::Range;

use super::lines::LineEnd;

/// One event found in a window that starts where the record before it ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Event {
    /// The event without its line end, relative to the window.
    pub content: Range<usize>,
    /// Where the covered range ends (and the next begins), relative to the window. It starts at 0: skipped blank lines
    /// and the line end belong to it.
    pub end: usize,
    /// The event ends at a noted boundary, not at a line end.
    pub is_partial: bool,
}

/// Finds the first event of `window`. `boundary` is the next noted boundary after the window's start, relative to it.
///
/// `None`: the window holds no complete event (blank lines and an unfinished line at most).
pub fn next_event(window: &[u8], boundary: Option<usize>) -> Option<Event> {
    let mut line_start = 0;
    loop {
        let limit = boundary.filter(|&b| line_start < b && b <= window.len());
        let line = &window[line_start..limit.unwrap_or(window.len())];
        let (line_end, is_partial) = match memchr::memchr(b'\n', line) {
            Some(at) => (line_start + at + 1, false),
            None => (limit?, true),
        };
        let end = content_end(window, line_start, line_end, is_partial);
        let content = line_start + leading_nuls(&window[line_start..end])..end;
        if !content.is_empty() {
            return Some(Event { content, end: line_end, is_partial });
        }
        line_start = line_end;
    }
}

/// NUL bytes before a line: a writer that kept its place in a truncated file leaves them (POSIX `write` past the end).
pub fn leading_nuls(line: &[u8]) -> usize {
    // Nearly no line has any.
    if line.first() != Some(&0) { 0 } else { line.iter().position(|&b| b != 0).unwrap_or(line.len()) }
}

/// NUL bytes between lines that belong to no record: `start..end`, relative to the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    pub start: usize,
    pub end: usize,
}

/// A run of NULs at a line's start of at least this length is a hole; a shorter one belongs to the line's record.
pub const MIN_HOLE: u64 = 64 << 10;

/// Finds the hole that the window begins with, blank lines aside. A hole that reaches the window's end may go on.
pub fn hole(window: &[u8]) -> Option<Hole> {
    // Nearly no window has any.
    if !matches!(window.first(), Some(0 | b'\n' | b'\r')) {
        return None;
    }
    let mut start = 0;
    while let Some(rest) = window.get(start..) {
        start += match rest {
            [b'\n', ..] => 1,
            [b'\r', b'\n', ..] => 2,
            _ => break,
        };
    }
    let end = start + leading_nuls(&window[start..]);
    let is_hole = end > start && (end == window.len() || (end - start) as u64 >= MIN_HOLE);
    is_hole.then_some(Hole { start, end })
}

fn content_end(window: &[u8], start: usize, line_end: usize, is_partial: bool) -> usize {
    if is_partial {
        return line_end;
    }
    let end = line_end - 1;
    if end > start && window[end - 1] == b'\r' { end - 1 } else { end }
}

/// Where the unfinished, non-blank last line of a window without complete event begins.
///
/// `None` if there is none: the window ends with a line end, or is empty.
pub fn unfinished_line(window: &[u8]) -> Option<usize> {
    let start = memchr::memrchr(b'\n', window).map_or(0, |at| at + 1);
    (start < window.len()).then_some(start)
}

/// Looks for the end of an event that is longer than a window, one window after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongSearch {
    /// Where the event's line begins.
    pub line_start: u64,
    /// No line end of a non-blank line stands before this position.
    pub searched: u64,
    line_end: LineEnd,
    starts_with_return: bool,
}

impl LongSearch {
    pub fn new(position: u64, line_end: LineEnd) -> Self {
        Self { line_start: position, searched: position, line_end, starts_with_return: false }
    }

    /// Goes on with the bytes at `searched`. Returns the end of the event's line once found, its line end included.
    pub fn advance(&mut self, window: &[u8], boundary: Option<u64>) -> Option<LongEnd> {
        let mut rest = window;
        loop {
            let limit = boundary.filter(|&b| b > self.line_start && b >= self.searched);
            let in_reach = limit.map_or(rest.len(), |b| ((b - self.searched) as usize).min(rest.len()));
            // Half a character at the window's end is looked at with its other half.
            let in_reach = self.line_end.whole(in_reach);
            if self.searched == self.line_start {
                self.starts_with_return = self.line_end.starts_with_return(rest);
            }
            match self.line_end.find(&rest[..in_reach]) {
                Some(at) => {
                    let end = self.searched + at as u64;
                    // Only the line end itself, or with the carriage return before it, is blank.
                    let length = (end - self.line_start) as usize / self.line_end.unit();
                    let is_blank = length == 1 || (length == 2 && self.starts_with_return);
                    self.searched = end;
                    rest = &rest[at..];
                    if !is_blank {
                        return Some(LongEnd { end, is_partial: false });
                    }
                    self.line_start = end;
                }
                None => {
                    self.searched += in_reach as u64;
                    return limit.filter(|&b| b == self.searched).map(|end| LongEnd { end, is_partial: true });
                }
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongEnd {
    pub end: u64,
    pub is_partial: bool,
}

#[cfg(test)]
mod tests;
