//! Wraps an event into its JSON record. Never fails on a bad line: it ships the bytes as text and flags them.

pub mod event_time;
pub mod logfmt;
pub mod merge;
pub mod own_fields;
pub mod path_fields;
pub mod pattern;
mod splice;
pub mod timestamp;
pub mod typing;

use std::borrow::Cow;

use encoding_rs::Encoding;
use millrace_common::json::{self, Parser};
use schemars::JsonSchema;
use serde::Deserialize;

use self::logfmt::Logfmt;
use self::own_fields::{Meeting, OwnFields};
use self::pattern::Pattern;
use self::splice::Plans;
use self::timestamp::Moment;

/// How an input's lines are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The line is the message.
    #[default]
    Text,
    /// The line is a JSON object whose fields stand at the top level; any other line is shipped as text.
    Json,
    /// The line is `key=value` pairs, which become fields; any other line is shipped as text.
    Logfmt,
    /// The line is what `pattern` says; any other line is shipped as text.
    Pattern,
}

/// A [`Format`] with all that reading it needs.
#[derive(Clone, Debug, Default)]
pub enum Content {
    #[default]
    Text,
    Json,
    Logfmt(Logfmt),
    Pattern(Box<Pattern>),
}

impl Content {
    pub fn is_text(&self) -> bool {
        matches!(self, Self::Text)
    }

    /// The JSON object that a line is, or is made into in `buffer`.
    fn object<'a>(
        &mut self,
        text: &'a str,
        read_time_ms: i64,
        buffer: &'a mut Vec<u8>,
        parser: &'a mut Parser,
    ) -> Option<json::Value<'a, 'a>> {
        buffer.clear();
        let is_written = match self {
            Self::Text | Self::Json => false,
            Self::Logfmt(logfmt) => logfmt.write_object(text, read_time_ms, buffer),
            Self::Pattern(pattern) => pattern.write_object(text, read_time_ms, buffer),
        };
        let parsed = match self {
            Self::Json => parser.parse_text(text),
            _ if is_written => parser.parse(buffer),
            _ => return None,
        };
        parsed.ok().filter(|value| value.kind() == json::Kind::Object)
    }

    /// What a line is flagged with that is shipped as text although it should not be.
    fn fallback(&self) -> Flags {
        match self {
            Self::Text => Flags::NONE,
            Self::Json => Flags::NOT_JSON,
            Self::Logfmt(_) | Self::Pattern(_) => Flags::UNPARSED,
        }
    }
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
    /// The line is not what `format: logfmt` or `pattern` says.
    pub const UNPARSED: Self = Self(128);

    const NAMES: [(Self, &'static str); 8] = [
        (Self::TRUNCATED, "truncated"),
        (Self::PARTIAL, "partial"),
        (Self::INVALID_UTF8, "invalid_utf8"),
        (Self::NOT_JSON, "not_json"),
        (Self::DUPLICATE_KEY, "duplicate_key"),
        (Self::MULTILINE, "multiline"),
        (Self::SPLIT, "split"),
        (Self::UNPARSED, "unparsed"),
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
    pub read_time: Moment,
    pub flags: Flags,
    /// Largest record in bytes.
    pub max_record: usize,
    /// What the container runtime wrote around the content.
    pub wrapper: Option<Wrapper<'a>>,
}

impl Line<'_> {
    /// Appends the time of a line that tells none itself.
    fn write_time(&self, out: &mut Vec<u8>) {
        match self.wrapper.filter(|wrapper| timestamp::is_iso(wrapper.time)) {
            Some(wrapper) => out.extend_from_slice(wrapper.time.as_bytes()),
            None => out.extend_from_slice(self.read_time.text()),
        }
    }

    /// Appends the member `stream` of a wrapped line, with a comma before.
    fn write_stream(&self, out: &mut Vec<u8>) {
        if let Some(wrapper) = self.wrapper {
            out.extend_from_slice(b",\"stream\":");
            json::write_string(out, wrapper.stream);
        }
    }
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
    plans: Plans,
    content: Content,
    /// The object that a line was made into.
    object: Vec<u8>,
    /// Of the lines; `None` for UTF-8.
    encoding: Option<&'static Encoding>,
}

impl Encoder {
    /// Deeper objects are shipped as text: no index takes them, and every consumer must be able to read a record.
    const MAX_DEPTH: usize = 500;

    pub fn new(content: Content, encoding: &'static Encoding) -> Self {
        let encoding = (encoding != encoding_rs::UTF_8).then_some(encoding);
        let parser = Parser::with_max_depth(Self::MAX_DEPTH);
        Self { parser, plans: Plans::default(), content, object: Vec::new(), encoding }
    }

    /// Replaces `out` with the record of `line` and returns all its flags. What would exceed `max_record` is cut.
    pub fn encode(&mut self, line: Line<'_>, own: &OwnFields, out: &mut Vec<u8>) -> Flags {
        let mut line = line;
        let (text, is_valid) = self.decode(line.content);
        if !is_valid {
            line.flags |= Flags::INVALID_UTF8;
        }
        out.clear();
        let is_whole = !line.flags.contains(Flags::TRUNCATED) && !line.flags.contains(Flags::PARTIAL);
        if is_whole
            && let Some(value) = self.content.object(&text, line.read_time.ms, &mut self.object, &mut self.parser)
        {
            let flags = self.plans.encode(value, line, own, out);
            if out.len() <= line.max_record {
                return flags;
            }
            line.flags |= Flags::TRUNCATED;
            out.clear();
        }
        line.flags |= self.content.fallback();
        self.encode_text(&text, line, own, out)
    }

    /// The text of a line, with U+FFFD for what its encoding does not know, and whether it knew all.
    fn decode<'a>(&self, content: &'a [u8]) -> (Cow<'a, str>, bool) {
        if let Some(encoding) = self.encoding {
            let (text, has_errors) = encoding.decode_without_bom_handling(content);
            return (text, !has_errors);
        }
        match simdutf8::basic::from_utf8(content) {
            Ok(text) => (Cow::Borrowed(text), true),
            Err(_) => (String::from_utf8_lossy(content), false),
        }
    }

    fn encode_text(&mut self, text: &str, line: Line<'_>, own: &OwnFields, out: &mut Vec<u8>) -> Flags {
        // The longest time and stream, the offset and all flags that can come together.
        const MEMBERS_OF_THE_LINE: usize = 224;
        let mut line = line;
        let room = line.max_record.saturating_sub(own.len() + MEMBERS_OF_THE_LINE);
        // An escape makes six bytes of one at most.
        let kept = if text.len() <= room / 6 { text } else { cut(text, room) };
        if kept.len() < text.len() {
            line.flags |= Flags::TRUNCATED;
        }
        if line.wrapper.is_some() && own.meeting("stream") != Meeting::No {
            return self.merge_text(kept, line, own, out);
        }
        out.extend_from_slice(b"{\"@timestamp\":\"");
        line.write_time(out);
        out.extend_from_slice(b"\",\"message\":");
        json::write_string(out, kept);
        own.write(out, line.offset, line.flags);
        line.write_stream(out);
        out.push(b'}');
        line.flags
    }

    /// A wrapped text whose stream meets a field of ours.
    fn merge_text(&mut self, text: &str, line: Line<'_>, own: &OwnFields, out: &mut Vec<u8>) -> Flags {
        self.object.clear();
        self.object.extend_from_slice(b"{\"message\":");
        json::write_string(&mut self.object, text);
        self.object.push(b'}');
        let value = self.parser.parse(&self.object).expect("an object of one string is JSON");
        merge::encode(value, line, own, out)
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

#[cfg(test)]
mod format_tests;
#[cfg(test)]
mod tests;
