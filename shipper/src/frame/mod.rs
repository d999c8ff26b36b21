//! Cuts bytes into events. Pure: the boundaries depend only on the bytes, the settings and the noted boundaries, so that
//! reading again gives the same records.
//!
//! `plain` is the fast path, where each line is an event. Everything else goes through `assemble`, which puts lines
//! together: several lines of one event, parts that a container runtime cut, two streams that take turns.

pub mod lines;
pub mod plain;
pub mod wrapping;
pub mod multiline;
pub mod filter;
pub mod assemble;

use encoding_rs::Encoding;

use self::filter::Filter;
use self::lines::LineEnd;
use self::multiline::Multiline;
use self::wrapping::Wrapping;

/// How the bytes of an input become events.
#[derive(Clone, Debug)]
pub struct Framing {
    pub line_end: LineEnd,
    pub encoding: &'static Encoding,
    pub wrapping: Option<Wrapping>,
    pub multiline: Option<Multiline>,
    pub filter: Option<Filter>,
    /// An event made of several lines spans this many bytes of its file at most; what follows is an event of its own.
    pub max_bytes: u64,
}

impl Framing {
    /// Large enough for a long stack trace, small enough to be read again with each line that is added to it.
    pub const DEFAULT_MAX_BYTES: u64 = 512 << 10;

    /// Whether each line is an event as it stands.
    pub fn is_plain(&self) -> bool {
        self.line_end == LineEnd::Lf && self.wrapping.is_none() && self.multiline.is_none() && self.filter.is_none()
    }

    /// How many bytes must be seen to find the end of any event but a single long line.
    pub fn reach(&self) -> usize {
        2 * self.max_bytes as usize
    }
}
