//! Times as text. Pure.

use jiff::Timestamp;
use millrace_common::json::{Kind, Value};

/// A time and its text, which is the same for hundreds of lines.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Since the epoch.
    pub ms: i64,
    text: [u8; 24],
}

impl Moment {
    pub fn at(ms: i64) -> Self {
        Self { ms, text: text(ms) }
    }

    /// As `2026-11-23T06:30:17.123Z`.
    pub fn text(&self) -> &[u8] {
        &self.text
    }
}

/// As `2026-11-23T06:30:17.123Z`: always with seconds and three digits, because parsers of dates without them fail only on
/// the full minute.
fn text(epoch_ms: i64) -> [u8; 24] {
    let days = epoch_ms.div_euclid(86_400_000);
    let ms_of_day = epoch_ms.rem_euclid(86_400_000) as u32;
    let (year, month, day) = civil_from_days(days);
    let (seconds, ms) = (ms_of_day / 1000, ms_of_day % 1000);
    let mut text = *b"0000-00-00T00:00:00.000Z";
    let parts = [(0..4, year as u32), (5..7, month), (8..10, day)];
    let times = [(11..13, seconds / 3600), (14..16, seconds / 60 % 60), (17..19, seconds % 60), (20..23, ms)];
    for (place, value) in parts.into_iter().chain(times) {
        digits(&mut text[place], value);
    }
    text
}

/// Appends it as [`Moment::text`] does, with digits finer than milliseconds if there are any. For instants from 1970 on.
pub fn write_instant(out: &mut Vec<u8>, instant: Timestamp) {
    out.extend_from_slice(&text(instant.as_millisecond()));
    let finer = instant.subsec_nanosecond() as u32 % 1_000_000;
    if finer > 0 {
        out.pop();
        let mut text = [0; 6];
        digits(&mut text, finer);
        out.extend_from_slice(&text);
        while out.last() == Some(&b'0') {
            out.pop();
        }
        out.push(b'Z');
    }
}

fn digits(text: &mut [u8], mut value: u32) {
    for digit in text.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Proleptic Gregorian date of a day since the epoch (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * shifted_month + 2) / 5 + 1) as u32;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 } as u32;
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Whether an `@timestamp` of a line can stay: what Elasticsearch's default format
/// `strict_date_optional_time||epoch_millis` takes, with a date of the years 1970 to 2261.
pub fn is_readable(value: Value<'_, '_>) -> bool {
    match value.kind() {
        Kind::String => value.as_str().is_some_and(|text| is_iso(&text) || is_epoch_ms(&text)),
        Kind::Number => is_epoch_ms(value.raw()),
        _ => false,
    }
}

fn is_epoch_ms(text: &str) -> bool {
    // 13 digits reach the year 2286; the seconds before 2262 end at 9,214,646,399,999.
    (1..=13).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_digit())
        && text.parse::<u64>().is_ok_and(|ms| ms < 9_214_646_400_000)
}

/// Whether the text is a date of the years 1970 to 2261, with or without a time of day.
pub fn is_iso(text: &str) -> bool {
    let bytes = text.as_bytes();
    let number = |from: usize, to: usize| {
        let digits = bytes.get(from..to).filter(|d| d.iter().all(u8::is_ascii_digit))?;
        Some(digits.iter().fold(0u32, |n, d| n * 10 + u32::from(d - b'0')))
    };
    let is_date = bytes.get(4) == Some(&b'-')
        && bytes.get(7) == Some(&b'-')
        && number(0, 4).zip(number(5, 7)).zip(number(8, 10)).is_some_and(|((year, month), day)| {
            (1970..=2261).contains(&year) && (1..=12).contains(&month) && (1..=days_in(year, month)).contains(&day)
        });
    if !is_date {
        return false;
    }
    if bytes.len() == 10 {
        return true;
    }
    if bytes[10] != b'T' {
        return false;
    }
    let mut at = 11;
    for (separator, limit) in [(b'T', 24), (b':', 60), (b':', 60)] {
        if separator == b':' {
            if bytes.get(at) != Some(&b':') {
                break;
            }
            at += 1;
        }
        if number(at, at + 2).is_none_or(|n| n >= limit) {
            return false;
        }
        at += 2;
    }
    if at == 19 && matches!(bytes.get(at), Some(b'.' | b',')) {
        let length = bytes[at + 1..].iter().take_while(|b| b.is_ascii_digit()).count();
        if !(1..=9).contains(&length) {
            return false;
        }
        at += 1 + length;
    }
    match bytes.get(at) {
        None => true,
        Some(b'Z') => bytes.len() == at + 1,
        Some(b'+' | b'-') => {
            let colon = usize::from(bytes.get(at + 3) == Some(&b':'));
            let hours = number(at + 1, at + 3).is_some_and(|h| h <= 18);
            let has_minutes =
                bytes.len() == at + 5 + colon && number(at + 3 + colon, at + 5 + colon).is_some_and(|m| m < 60);
            hours && (has_minutes || bytes.len() == at + 3)
        }
        Some(_) => false,
    }
}

fn days_in(year: u32, month: u32) -> u32 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_common::json::Parser;
    use proptest::prelude::*;

    fn text(ms: i64) -> String {
        String::from_utf8(Moment::at(ms).text().to_vec()).unwrap()
    }

    proptest! {
        #[test]
        fn agrees_with_a_date_library(ms in 0..9_214_646_400_000i64) {
            let expected = jiff::Timestamp::from_millisecond(ms).unwrap();
            prop_assert_eq!(text(ms), format!("{expected:.3}"));
            prop_assert!(is_iso(&text(ms)));
        }
    }

    #[test]
    fn full_minutes_keep_their_seconds() {
        assert_eq!(text(1_685_714_220_000), "2023-06-02T13:57:00.000Z");
    }

    #[test]
    fn readable_times() {
        let mut parser = Parser::default();
        for good in [
            r#""2026-11-23T06:30:17.123Z""#,
            r#""2026-11-23T06:30:17.123456789+09:00""#,
            r#""2026-11-23""#,
            r#""2026-11-23T06:30Z""#,
            r#""2024-02-29T00:00:00""#,
            "1764000000000",
            "0",
            r#""1764000000000""#,
            r#""2026-11-23T06:30:17-0530""#,
        ] {
            assert!(is_readable(parser.parse(good.as_bytes()).unwrap()), "{good}");
        }
        for bad in [
            r#""2026-11-23 06:30:17""#,
            r#""2026-13-01""#,
            r#""2025-02-29""#,
            r#""2026-11-23T24:00:00Z""#,
            "1.5",
            "-1",
            "1604948142953141464",
            r#""1969-12-31T23:59:59Z""#,
            r#""2026-11-23T06:30:17.Z""#,
            r#""yesterday""#,
            "null",
            r#""2026-11-23T06:30:17Zx""#,
            r#""""#,
        ] {
            assert!(!is_readable(parser.parse(bad.as_bytes()).unwrap()), "{bad}");
        }
    }
}
