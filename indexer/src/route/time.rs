//! Event times as milliseconds since the epoch.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use millrace_common::json::{Kind, Value};

/// Milliseconds since 1970-01-01 in UTC.
pub type EpochMillis = i64;

/// Reads what Elasticsearch's `strict_date_optional_time||epoch_millis` would read as a full date: RFC 3339 text with or
/// without time, or a number of milliseconds. Text without an offset is UTC.
pub fn read(value: Value<'_, '_>) -> Option<EpochMillis> {
    match value.kind() {
        Kind::Number => value.raw().parse().ok(),
        Kind::String => parse(&value.as_str()?),
        _ => None,
    }
}

fn parse(text: &str) -> Option<EpochMillis> {
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Some(timestamp.as_millisecond());
    }
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().ok();
    }
    let civil: DateTime = text.parse().ok()?;
    civil.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp().as_millisecond())
}

/// The bytes up to the hour of text like `2026-11-23T06:30:17.123Z`, the form in which most times arrive: equal bytes
/// mean the same hour, without reading the rest.
pub fn utc_hour<'t>(value: Value<'_, 't>) -> Option<&'t [u8]> {
    const SHAPE: &[u8] = b"dddd-dd-ddTdd:dd:dd";
    if value.kind() != Kind::String {
        return None;
    }
    let raw = value.raw().as_bytes();
    let text = &raw[1..raw.len() - 1];
    let fits = |(&byte, &shape): (&u8, &u8)| if shape == b'd' { byte.is_ascii_digit() } else { byte == shape };
    let rest = text.get(SHAPE.len()..)?.strip_suffix(b"Z")?;
    let rest_fits = rest.is_empty() || (rest[0] == b'.' && rest.len() > 1 && rest[1..].iter().all(u8::is_ascii_digit));
    (rest_fits && text.iter().zip(SHAPE).all(fits)).then(|| &text[..13])
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_common::json::Parser;

    fn with<T>(text: &str, read: impl FnOnce(Value<'_, '_>) -> T) -> T {
        let mut parser = Parser::default();
        read(parser.parse(text.as_bytes()).unwrap())
    }

    #[test]
    fn times_are_read_in_the_forms_elasticsearch_reads() {
        for (text, expected) in [
            (r#""1970-01-01T00:00:01.500Z""#, Some(1_500)),
            (r#""1970-01-01T01:00:01+01:00""#, Some(1_000)),
            (r#""1970-01-01T00:00:02""#, Some(2_000)),
            (r#""1970-01-02""#, Some(86_400_000)),
            ("1500", Some(1_500)),
            (r#""1500""#, Some(1_500)),
            (r#""yesterday""#, None),
            ("true", None),
            ("1.5e3", None),
        ] {
            assert_eq!(with(text, read), expected, "{text}");
        }
    }

    #[test]
    fn the_hour_is_only_taken_from_complete_utc_times() {
        for text in [r#""2026-11-23T06:30:17.123Z""#, r#""2026-11-23T06:59:59Z""#] {
            assert_eq!(with(text, |v| utc_hour(v).map(<[u8]>::to_vec)).unwrap(), b"2026-11-23T06");
        }
        for text in
            [r#""2026-11-23T06:30:17.123+01:00""#, r#""2026-11-23T06:30Z""#, r#""2026-11-23T06:30:17.Z""#, r#""""#, "1"]
        {
            assert_eq!(with(text, |v| utc_hour(v).map(<[u8]>::to_vec)), None, "{text}");
        }
    }
}
