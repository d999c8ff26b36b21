//! Wraps an event into its JSON record. Never fails on a bad line: it ships the bytes as text and flags them.

pub mod merge;
pub mod own_fields;
pub mod timestamp;

use std::borrow::Cow;

use encoding_rs::Encoding;
use millrace_common::json::{self, Parser};
use schemars::JsonSchema;
use serde::Deserialize;

use self::own_fields::{Meeting, OwnFields};

/// How an input's lines are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The line is the message.
    #[default]
    Text,
    /// The line is a JSON object whose fields stand at the top level; any other line is shipped as text.
    Json,
}

/// What was done to a record, for `log.flags`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    pub const NONE: Self = Self(0);
    pub const TRUNCATED: Self = Self(1);
    pub const PARTIAL: Self = Self(2);
    pub const INVALID_UTF8: Self = Self(4);
    pub const NOT_JSON: Self = Self(8);
    pub const DUPLICATE_KEY: Self = Self(16);
    /// The event has several lines.
    pub const MULTILINE: Self = Self(32);
    /// The event is a part of what belongs together.
    pub const SPLIT: Self = Self(64);

    const NAMES: [(Self, &'static str); 7] = [
        (Self::TRUNCATED, "truncated"),
        (Self::PARTIAL, "partial"),
        (Self::INVALID_UTF8, "invalid_utf8"),
        (Self::NOT_JSON, "not_json"),
        (Self::DUPLICATE_KEY, "duplicate_key"),
        (Self::MULTILINE, "multiline"),
        (Self::SPLIT, "split"),
    ];

    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    fn write(self, out: &mut Vec<u8>) {
        let mut separator = b'[';
        for (_, name) in Self::NAMES.iter().filter(|(flag, _)| self.contains(*flag)) {
            out.push(separator);
            json::write_string(out, name);
            separator = b',';
        }
        out.push(b']');
    }
}

impl std::ops::BitOrAssign for Flags {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// One event and where it stands.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    pub content: &'a [u8],
    /// Position of the content's first byte in its source.
    pub offset: u64,
    /// Milliseconds since the epoch.
    pub read_time_ms: i64,
    pub flags: Flags,
    /// Largest record in bytes.
    pub max_record: usize,
    /// What the container runtime wrote around the content.
    pub wrapper: Option<Wrapper<'a>>,
}

/// What a container runtime says of a line: when it was written, RFC 3339, and to which stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrapper<'a> {
    pub time: &'a str,
    /// `stdout` or `stderr`.
    pub stream: &'a str,
}

/// Encodes records, keeping its buffers between them.
pub struct Encoder {
    parser: Parser,
    format: Format,
    /// Of the lines; `None` for UTF-8.
    encoding: Option<&'static Encoding>,
}

impl Encoder {
    /// Deeper objects are shipped as text: no index takes them, and every consumer must be able to read a record.
    const MAX_DEPTH: usize = 500;

    pub fn new(format: Format, encoding: &'static Encoding) -> Self {
        let encoding = (encoding != encoding_rs::UTF_8).then_some(encoding);
        Self { parser: Parser::with_max_depth(Self::MAX_DEPTH), format, encoding }
    }

    /// Replaces `out` with the record of `line` and returns all its flags. What would exceed `max_record` is cut.
    pub fn encode(&mut self, line: Line<'_>, own: &OwnFields, out: &mut Vec<u8>) -> Flags {
        let mut line = line;
        let (text, is_valid) = self.decode(line.content);
        if !is_valid {
            line.flags |= Flags::INVALID_UTF8;
        }
        out.clear();
        if self.format == Format::Json {
            let is_whole = !line.flags.contains(Flags::TRUNCATED) && !line.flags.contains(Flags::PARTIAL);
            if is_whole
                && let Ok(value) = self.parser.parse(text.as_bytes())
                && value.kind() == json::Kind::Object
            {
                let flags = encode_object(value, line, own, out);
                if out.len() <= line.max_record {
                    return flags;
                }
                line.flags |= Flags::TRUNCATED;
                out.clear();
            }
            line.flags |= Flags::NOT_JSON;
        }
        self.encode_text(&text, line, own, out)
    }

    /// The text of a line, with U+FFFD for what its encoding does not know, and whether it knew all.
    fn decode<'a>(&self, content: &'a [u8]) -> (Cow<'a, str>, bool) {
        if let Some(encoding) = self.encoding {
            let (text, has_errors) = encoding.decode_without_bom_handling(content);
            return (text, !has_errors);
        }
        match std::str::from_utf8(content) {
            Ok(text) => (Cow::Borrowed(text), true),
            Err(_) => (String::from_utf8_lossy(content), false),
        }
    }

    fn encode_text(&self, text: &str, line: Line<'_>, own: &OwnFields, out: &mut Vec<u8>) -> Flags {
        const TIMESTAMP_AND_NUMBERS: usize = 160;
        let mut flags = line.flags;
        let room = line.max_record.saturating_sub(own.len() + TIMESTAMP_AND_NUMBERS);
        // An escape makes six bytes of one at most.
        let kept = if text.len() <= room / 6 { text } else { cut(text, room) };
        if kept.len() < text.len() {
            flags |= Flags::TRUNCATED;
        }
        out.extend_from_slice(b"{\"@timestamp\":\"");
        timestamp::write(out, line.read_time_ms);
        out.extend_from_slice(b"\",\"message\":");
        json::write_string(out, kept);
        own.write(out, line.offset, flags);
        out.push(b'}');
        flags
    }
}

/// The longest prefix whose escaped form has at most `room` bytes.
fn cut(text: &str, room: usize) -> &str {
    let mut escaped = 0;
    for (at, c) in text.char_indices() {
        escaped += match c {
            '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
            c if c < ' ' => 6,
            c => c.len_utf8(),
        };
        if escaped > room {
            return &text[..at];
        }
    }
    text
}

/// Where our members go into an object of the line.
#[derive(Clone, Copy, Default)]
struct Splice {
    root: usize,
    /// Of the closing brace, relative to the record.
    at: usize,
    is_empty: bool,
}

/// Objects of a line that ours can be spliced into; more than these take the slow path.
const MAX_SPLICES: usize = 8;

fn encode_object(value: json::Value<'_, '_>, line: Line<'_>, own: &OwnFields, out: &mut Vec<u8>) -> Flags {
    let mut splices = [Splice::default(); MAX_SPLICES];
    let Some((has_time, num_splices)) = plan(value, own, &mut splices) else {
        return merge::encode(value, line, own, out);
    };
    let splices = &splices[..num_splices];
    out.push(b'{');
    if !has_time {
        out.extend_from_slice(b"\"@timestamp\":\"");
        timestamp::write(out, line.read_time_ms);
        out.push(b'"');
    }
    let raw = value.raw().as_bytes();
    let inner = raw[1..raw.len() - 1].trim_ascii();
    if !inner.is_empty() {
        if !has_time {
            out.push(b',');
        }
        // Trimming took from the front what stood between the brace and the first key.
        let mut at = raw[1..].iter().take_while(|b| b.is_ascii_whitespace()).count() + 1;
        let end = at + inner.len();
        for splice in splices {
            out.extend_from_slice(&raw[at..splice.at]);
            if !splice.is_empty {
                out.push(b',');
            }
            own.write_inner(splice.root, out, line.offset, line.flags);
            at = splice.at;
        }
        out.extend_from_slice(&raw[at..end]);
    }
    if splices.is_empty() {
        own.write(out, line.offset, line.flags);
    } else {
        for root in (0..own.num_roots()).filter(|root| splices.iter().all(|splice| splice.root != *root)) {
            out.push(b',');
            own.write_root(root, out, line.offset, line.flags);
        }
    }
    out.push(b'}');
    line.flags
}

/// Whether the line can be copied as it stands, with ours beside it or spliced into its objects. Returns whether it has a
/// time of its own, and the number of splices; `None` if names collide or repeat.
fn plan(value: json::Value<'_, '_>, own: &OwnFields, splices: &mut [Splice]) -> Option<(bool, usize)> {
    if value.has_duplicate_keys() {
        return None;
    }
    let start = value.span().start;
    let mut has_time = false;
    let mut num_splices = 0;
    for (key, member) in value.members() {
        let name = key.raw();
        if name == "@timestamp" {
            has_time = true;
            if !timestamp::is_readable(member) {
                return None;
            }
        } else if name.contains('\\') {
            return None;
        }
        match own.meeting(name) {
            Meeting::No => {}
            Meeting::Object(root) if member.kind() == json::Kind::Object => {
                let mut is_empty = true;
                for (key, _) in member.members() {
                    is_empty = false;
                    if own.has_member(root, key.raw()) {
                        return None;
                    }
                }
                *splices.get_mut(num_splices)? = Splice { root, at: member.span().end - 1 - start, is_empty };
                num_splices += 1;
            }
            Meeting::Object(_) | Meeting::Other => return None,
        }
    }
    Some((has_time, num_splices))
}

#[cfg(test)]
mod tests;
