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

use std::time::Duration;

use encoding_rs::Encoding;

use self::filter::Filter;
use self::lines::LineEnd;
use self::multiline::Multiline;
use self::wrapping::Wrapping;
use crate::encode::Flags;

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

    /// Lines that end with LF, each an event.
    pub fn plain(encoding: &'static Encoding) -> Self {
        Self {
            line_end: LineEnd::Lf,
            encoding,
            wrapping: None,
            multiline: None,
            filter: None,
            max_bytes: Self::DEFAULT_MAX_BYTES,
        }
    }

    /// Whether each line is an event as it stands.
    pub fn is_plain(&self) -> bool {
        self.line_end == LineEnd::Lf && self.wrapping.is_none() && self.multiline.is_none() && self.filter.is_none()
    }

    /// The text of a line that is an event by itself, in the encoding that events are handed on in.
    pub fn text_of_long(&self, mut content: Vec<u8>, flags: &mut Flags) -> Vec<u8> {
        content.drain(..self.line_end.whole(plain::leading_nuls(&content)));
        if self.is_plain() {
            return content;
        }
        content.truncate(self.line_end.whole(content.len()));
        let (text, has_errors) = self.encoding.decode_without_bom_handling(&content);
        if has_errors {
            *flags |= Flags::INVALID_UTF8;
        }
        text.into_owned().into_bytes()
    }

    /// The last position up to `end` that is a character's start.
    pub fn boundary_at(&self, end: u64) -> u64 {
        end - end % self.line_end.unit() as u64
    }

    /// Age at which an event of whole lines is whole itself.
    pub fn timeout(&self) -> Duration {
        self.multiline.as_ref().map_or(Duration::ZERO, |multiline| multiline.timeout)
    }

    /// The encoding of the events that are handed on.
    pub fn record_encoding(&self) -> &'static Encoding {
        if self.is_plain() { self.encoding } else { encoding_rs::UTF_8 }
    }

    /// How many bytes must be seen to find the end of any event but a single long line: what another file has of it, what
    /// it spans itself, and the line that ends it.
    pub fn reach(&self) -> usize {
        3 * self.max_bytes as usize
    }
}
