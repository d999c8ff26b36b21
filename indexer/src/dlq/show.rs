//! Letters as lines. Nothing that came with a letter can move the cursor or forge a line.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use millrace_common::terminal::acts;
pub use millrace_common::terminal::escape;
use serde::Serialize;

use super::letter::ParkedLetter;

/// Bytes, with `\xff` for what is not UTF-8 and escapes for what acts on a terminal.
fn escape_bytes(bytes: &[u8]) -> String {
    let mut escaped = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        escaped.push_str(&escape(chunk.valid()));
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(escaped, "\\x{byte:02x}");
        }
    }
    escaped
}

/// `2026-11-23T06:30:17.123Z`.
pub fn time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| "-".to_owned(), |time| format!("{time:.3}"))
}

/// One line for people, without its end.
pub fn text(letter: &ParkedLetter, with_value: bool) -> String {
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { escape(text).into_owned() };
    let number = |number: Option<i64>| number.map_or_else(|| "?".to_owned(), |number| number.to_string());
    let (partition, offset) = (number(letter.partition.map(i64::from)), number(letter.offset));
    let mut line = format!(
        "{}  {:<14}  {:<20}  {:<28}  {}/{partition}/{offset}  {}",
        time(letter.parked_ms),
        or_dash(&letter.reason),
        or_dash(&letter.field),
        or_dash(&letter.index),
        escape(&letter.topic),
        escape(&letter.id),
    );
    if with_value {
        line.push_str("  ");
        line.push_str(&escape_bytes(&letter.value));
    }
    line
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    id: &'a str,
    reason: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    field: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    index: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "str::is_empty")]
    error_type: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    error_message: &'a str,
    topic: &'a str,
    partition: Option<i32>,
    offset: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
    value_bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

/// One JSON object, without the end of its line.
pub fn json(letter: &ParkedLetter, with_value: bool) -> String {
    let as_text = |bytes: Option<&'_ [u8]>| match bytes.map(|bytes| (std::str::from_utf8(bytes), bytes)) {
        None => (None, None),
        Some((Ok(text), _)) => (Some(text.to_owned()), None),
        Some((Err(_), bytes)) => (None, Some(STANDARD.encode(bytes))),
    };
    let (key, key_base64) = as_text(letter.key.as_deref());
    let (value, value_base64) = as_text(with_value.then_some(letter.value.as_slice()));
    to_json(&Line {
        time: time(letter.parked_ms),
        id: &letter.id,
        reason: &letter.reason,
        field: &letter.field,
        index: &letter.index,
        status: letter.status,
        error_type: &letter.error_type,
        error_message: &letter.message,
        topic: &letter.topic,
        partition: letter.partition,
        offset: letter.offset,
        attempts: letter.attempts,
        value_bytes: letter.value.len(),
        key,
        key_base64,
        value,
        value_base64,
    })
}

/// JSON in which the characters that act are escaped, which means the same.
pub fn to_json(value: &impl Serialize) -> String {
    let json = serde_json::to_string(value).expect("texts, numbers and options serialize");
    if !json.contains(acts) {
        return json;
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if acts(c) {
            // All of them are below U+10000. Writing to a string cannot fail.
            let _ = write!(escaped, "\\u{:04x}", c as u32);
        } else {
            escaped.push(c);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "a\u{1b}[2Jb\nc\u{9b}d\u{202e}e\u{7f}é";

    fn letter() -> ParkedLetter {
        ParkedLetter {
            id: "id\r".into(),
            reason: "refused".into(),
            field: HOSTILE.into(),
            topic: "logs".into(),
            partition: Some(3),
            offset: Some(42),
            key: Some(vec![0xff]),
            value: HOSTILE.into(),
            ..ParkedLetter::default()
        }
    }

    #[test]
    fn nothing_in_a_letter_acts_on_a_terminal() {
        for line in [text(&letter(), true), json(&letter(), true)] {
            assert!(!line.contains(acts), "{line:?}");
            assert!(line.contains('é'), "what can be read is left alone: {line}");
        }
    }

    #[test]
    fn a_line_says_where_the_record_was() {
        let line = text(&letter(), false);
        assert!(line.starts_with("1970-01-01T00:00:00.000Z  refused  "), "{line}");
        assert!(line.ends_with("  logs/3/42  id\\r"), "{line}");
    }

    #[test]
    fn json_gives_the_texts_back_exactly_and_other_bytes_as_base64() {
        let line: serde_json::Value = serde_json::from_str(&json(&letter(), true)).unwrap();
        assert_eq!(line["value"], HOSTILE);
        assert_eq!(line["key_base64"], "/w==");
        assert_eq!((line.get("key"), line.get("index")), (None, None));
        let other = ParkedLetter { value: b"\xff\x00".to_vec(), ..letter() };
        assert!(text(&other, true).ends_with("  \\xff\\u{0}"));
        assert!(json(&other, true).contains(r#""value_base64":"/wA=""#));
        assert!(!json(&other, false).contains("value_base64"));
    }
}
