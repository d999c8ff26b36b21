//! Lines of `key=value` pairs, as Heroku, Go's `slog` and Grafana write them. Pure.
//!
//! A key is a word without `=` and `"`. A value is a word without `"`, or stands in quotes with the escapes of JSON. A word
//! without `=` is a key whose value is `true`. Values are strings, as in Vector, Fluent Bit and Loki: were their type
//! guessed, one commit `1234567` among hashes would make a number of a field. `types` says which are numbers.

use std::collections::BTreeMap;
use std::ops::Range;

use millrace_common::json::{write_string, write_string_content};

use super::event_time::EventTime;
use super::timestamp;
use super::typing::FieldType;

/// Reads lines, keeping its buffer between them.
#[derive(Clone, Debug, Default)]
pub struct Logfmt {
    types: BTreeMap<String, FieldType>,
    time: EventTime,
    pairs: Vec<Pair>,
}

#[derive(Clone, Debug)]
struct Pair {
    key: Range<usize>,
    value: Value,
}

#[derive(Clone, Debug)]
enum Value {
    None,
    Bare(Range<usize>),
    /// What stands between the quotes.
    Quoted(Range<usize>),
}

impl Logfmt {
    /// Elasticsearch's default `index.mapping.total_fields.limit`; a line with more is hardly one of pairs.
    const MAX_PAIRS: usize = 1_000;
    /// Where the time of an event is looked for unless told otherwise.
    pub const TIME_FIELDS: [&str; 2] = ["ts", "time"];

    pub fn new(types: BTreeMap<String, FieldType>, time: EventTime) -> Self {
        Self { types, time, pairs: Vec::new() }
    }

    /// Appends the pairs as a JSON object. Returns whether the line is logfmt.
    pub fn write_object(&mut self, line: &str, read_time_ms: i64, out: &mut Vec<u8>) -> bool {
        // A line that begins with a plain word is a sentence; were its words taken for keys, each would become a field.
        if !self.parse(line) || self.pairs.first().is_none_or(|pair| matches!(pair.value, Value::None)) {
            return false;
        }
        let last = |name: &str| self.pairs.iter().rposition(|pair| &line[pair.key.clone()] == name);
        let message = last("msg").filter(|_| last("message").is_none());
        let mut time = None;
        if last("@timestamp").is_none() {
            let read = |at: usize| Some((at, self.time.read(self.pairs[at].value.plain(line)?, read_time_ms)?));
            time = self.time.fields().iter().find_map(|name| last(name).and_then(read));
        }
        out.push(b'{');
        for (at, pair) in self.pairs.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            if let Some((_, instant)) = time.filter(|(place, _)| *place == at) {
                out.extend_from_slice(b"\"@timestamp\":\"");
                timestamp::write_instant(out, instant);
                out.push(b'"');
                continue;
            }
            let key = if message == Some(at) { "message" } else { &line[pair.key.clone()] };
            write_string(out, key);
            out.push(b':');
            self.write_value(&pair.value, self.types.get(key).copied().unwrap_or_default(), line, out);
        }
        out.push(b'}');
        true
    }

    fn write_value(&self, value: &Value, field_type: FieldType, line: &str, out: &mut Vec<u8>) {
        match (value.plain(line), value) {
            (Some(text), _) => field_type.write(out, text),
            (None, Value::Quoted(inner)) => {
                out.push(b'"');
                write_escaped(out, &line[inner.clone()]);
                out.push(b'"');
            }
            (None, _) => out.extend_from_slice(b"true"),
        }
    }

    fn parse(&mut self, line: &str) -> bool {
        self.pairs.clear();
        let bytes = line.as_bytes();
        let mut at = 0;
        loop {
            at += bytes[at..].iter().take_while(|b| is_blank(**b)).count();
            if at == bytes.len() {
                return true;
            }
            let key = at..at + word_length(&bytes[at..], b"=\"");
            at = key.end;
            let mut value = Value::None;
            if bytes.get(at) == Some(&b'=') {
                at += 1;
                let Some(found) = read_value(bytes, at) else { return false };
                at = match &found {
                    Value::Quoted(inner) => inner.end + 1,
                    Value::Bare(word) => word.end,
                    Value::None => at,
                };
                value = found;
            }
            let is_over = bytes.get(at).is_none_or(|b| is_blank(*b));
            if key.is_empty() || !is_over || self.pairs.len() == Self::MAX_PAIRS {
                return false;
            }
            self.pairs.push(Pair { key, value });
        }
    }
}

impl Value {
    /// The text of a value that has no escapes.
    fn plain<'a>(&self, line: &'a str) -> Option<&'a str> {
        match self {
            Self::None => None,
            Self::Bare(word) => Some(&line[word.clone()]),
            Self::Quoted(inner) => Some(&line[inner.clone()]).filter(|text| !text.contains('\\')),
        }
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Length of the longest prefix without blanks, control characters and what `ends` it.
fn word_length(bytes: &[u8], ends: &[u8]) -> usize {
    bytes.iter().take_while(|b| **b > b' ' && !ends.contains(b)).count()
}

/// `None` if the closing quote is missing.
fn read_value(bytes: &[u8], at: usize) -> Option<Value> {
    if bytes.get(at) != Some(&b'"') {
        return Some(Value::Bare(at..at + word_length(&bytes[at..], b"\"")));
    }
    let start = at + 1;
    let mut end = start;
    loop {
        end += memchr::memchr2(b'"', b'\\', bytes.get(end..)?)?;
        if bytes[end] == b'"' {
            return Some(Value::Quoted(start..end));
        }
        end += 2;
    }
}

/// Appends the inside of quotes as that of a JSON string. A backslash that begins no escape stays one.
fn write_escaped(out: &mut Vec<u8>, inner: &str) {
    let mut rest = inner;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        write_string_content(out, &rest[..at]);
        rest = &rest[at..];
        let length = escape_length(rest);
        if length == 0 {
            let is_quote = rest[1..].starts_with('\'');
            out.extend_from_slice(if is_quote { b"'" } else { b"\\\\" });
            rest = &rest[1 + usize::from(is_quote)..];
            continue;
        }
        out.extend_from_slice(&rest.as_bytes()[..length]);
        rest = &rest[length..];
    }
    write_string_content(out, rest);
}

/// Bytes of the JSON escape that `text` begins with, 0 if it is none. Half a surrogate pair is none: not every reader of
/// JSON takes it.
fn escape_length(text: &str) -> usize {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        let is_hex = digits.bytes().all(|b| b.is_ascii_hexdigit());
        u16::from_str_radix(digits, 16).ok().filter(|_| is_hex)
    };
    match text.as_bytes().get(1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
        Some(b'u') => match (unit(0), unit(6)) {
            (Some(0xD800..0xDC00), Some(0xDC00..0xE000)) => 12,
            (Some(0xD800..0xE000) | None, _) => 0,
            (Some(_), _) => 6,
        },
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
