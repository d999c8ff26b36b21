//! The time that a line tells of itself. Pure.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::strtime::{self, BrokenDownTime};
use jiff::fmt::temporal::DateTimeParser;
use jiff::tz::TimeZone;

/// Which field tells the time of an event, and how it is read.
#[derive(Clone, Debug)]
pub struct EventTime {
    fields: Vec<String>,
    format: Option<String>,
    zone: TimeZone,
}

#[derive(Debug, thiserror::Error)]
pub enum TimeError {
    #[error("`{format}` is not a format of times")]
    Format {
        format: String,
        #[source]
        cause: jiff::Error,
    },
    #[error("`{format}` reads no day of a month")]
    NoDay { format: String },
    #[error("`{zone}` is not a time zone known here")]
    Zone {
        zone: String,
        #[source]
        cause: jiff::Error,
    },
}

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// What is tried without a format, besides ISO 8601 and epochs: times with an offset apart, access logs of HTTP servers,
/// syslog, error logs of Apache.
const KNOWN: [&str; 4] =
    ["%Y-%m-%d %H:%M:%S%.f %z", "%d/%b/%Y:%H:%M:%S %z", "%b %d %H:%M:%S%.f", "%a %b %d %H:%M:%S%.f %Y"];

impl Default for EventTime {
    fn default() -> Self {
        Self { fields: Vec::new(), format: None, zone: TimeZone::UTC }
    }
}

impl EventTime {
    /// The first of `fields` that can be read is the time.
    pub fn of_fields(fields: &[&str]) -> Self {
        Self { fields: fields.iter().map(|field| (*field).to_owned()).collect(), ..Self::default() }
    }

    /// `format` is that of `strptime`, `zone` an offset or a name of the IANA database for times that tell none.
    ///
    /// # Errors
    /// If the format cannot be read with, reads no day, or the zone is not known.
    pub fn new(fields: &[&str], format: Option<&str>, zone: Option<&str>) -> Result<Self, TimeError> {
        let mut time = Self::of_fields(fields);
        if let Some(format) = format {
            check_format(format)?;
            time.format = Some(format.to_owned());
        }
        if let Some(zone) = zone {
            let parsed = DateTimeParser::new().parse_time_zone(zone);
            time.zone = parsed.map_err(|cause| TimeError::Zone { zone: zone.to_owned(), cause })?;
        }
        Ok(time)
    }

    pub fn fields(&self) -> &[String] {
        &self.fields
    }

    /// The instant that `text` tells, of the years 1970 to 2261.
    pub fn read(&self, text: &str, read_time_ms: i64) -> Option<Timestamp> {
        let instant = match &self.format {
            Some(format) => self.by_format(format, text, read_time_ms),
            None => self.known(text, read_time_ms),
        };
        instant.filter(|instant| (0..9_214_646_400).contains(&instant.as_second()))
    }

    fn known(&self, text: &str, read_time_ms: i64) -> Option<Timestamp> {
        if let Some(instant) = epoch(text) {
            return Some(instant);
        }
        // Without hyphens, ISO 8601 reads numbers that are none of its dates.
        let iso = (text.as_bytes().get(4) == Some(&b'-')).then_some(text);
        // The zone is for what has no offset, so that comes second: it is read of a text with one as if it had none.
        iso.and_then(|text| text.parse().ok().or_else(|| self.in_zone(text.parse().ok()?)))
            .or_else(|| KNOWN.iter().find_map(|format| self.by_format(format, text, read_time_ms)))
    }

    fn by_format(&self, format: &str, text: &str, read_time_ms: i64) -> Option<Timestamp> {
        let mut parts = strtime::parse(format, text).ok()?;
        if parts.year().is_some() || parts.timestamp().is_some() || parts.iso_week_year().is_some() {
            return self.resolve(&parts);
        }
        // The newest year in which the time is not more than a day ahead, seen from the end of the hour of reading: that
        // hour is the same when a line is read again, so the year is too.
        let latest = Timestamp::from_millisecond((read_time_ms.div_euclid(HOUR_MS) + 1) * HOUR_MS + DAY_MS).ok()?;
        let newest = latest.to_zoned(self.zone.clone()).year();
        // A 29th of February may be eight years old: 1896, 1904.
        (0..=8).find_map(|years| {
            parts.set_year(Some(newest - years)).ok()?;
            self.resolve(&parts).filter(|instant| *instant <= latest)
        })
    }

    fn resolve(&self, parts: &BrokenDownTime) -> Option<Timestamp> {
        if parts.offset().is_some() || parts.timestamp().is_some() || parts.iana_time_zone().is_some() {
            return parts.to_timestamp().ok();
        }
        self.in_zone(parts.to_datetime().ok()?)
    }

    /// Of a time that a change of the clocks makes twice the first counts, one that it leaves out is as if before it.
    fn in_zone(&self, time: DateTime) -> Option<Timestamp> {
        self.zone.to_timestamp(time).ok()
    }
}

/// An epoch by its number of digits: seconds (with a fraction or without), milli-, micro- or nanoseconds.
fn epoch(text: &str) -> Option<Timestamp> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !is_digits(whole) || !is_digits(fraction) || (whole.len() != text.len() && whole.len() != 10) {
        return None;
    }
    let value: i64 = whole.parse().ok()?;
    match whole.len() {
        10 => Timestamp::new(value, format!("{fraction:0<9}").get(..9)?.parse().ok()?).ok(),
        13 => Timestamp::from_millisecond(value).ok(),
        16 => Timestamp::from_microsecond(value).ok(),
        19 => Timestamp::from_nanosecond(value.into()).ok(),
        _ => None,
    }
}

/// Writes a time in the format and reads it back, so that what can never be read is refused before the first line.
fn check_format(format: &str) -> Result<(), TimeError> {
    let fault = |cause| TimeError::Format { format: format.to_owned(), cause };
    let example = Timestamp::from_second(1_795_415_417).map_err(fault)?.to_zoned(TimeZone::UTC);
    let text = strtime::format(format, &example).map_err(fault)?;
    let mut parts = strtime::parse(format, &text).map_err(fault)?;
    if parts.timestamp().is_none() {
        parts.set_year(Some(example.year())).map_err(fault)?;
        let date = parts.to_date().map_err(|_| TimeError::NoDay { format: format.to_owned() })?;
        if date != example.date() {
            return Err(TimeError::NoDay { format: format.to_owned() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2025-11-23T06:30:17.123Z
    const NOW: i64 = 1_763_879_417_123;

    fn check(time: &EventTime, text: &str, expected: Option<&str>) {
        let found = time.read(text, NOW).map(|instant| instant.to_string());
        assert_eq!(found.as_deref(), expected, "{text}");
    }

    fn of(format: &str, zone: Option<&str>) -> EventTime {
        EventTime::new(&["time"], Some(format), zone).unwrap()
    }

    #[test]
    fn common_times_are_read_without_a_format() {
        let time = EventTime::of_fields(&["time"]);
        for (text, expected) in [
            ("2026-11-23T06:30:17.123456789Z", "2026-11-23T06:30:17.123456789Z"),
            ("2026-11-23T06:30:17+09:00", "2026-11-22T21:30:17Z"),
            ("2026-11-23 06:30:17,5", "2026-11-23T06:30:17.5Z"),
            ("2026-11-23T06:30:17.5+0900", "2026-11-22T21:30:17.5Z"),
            ("2026-11-23 06:30:17 +0900", "2026-11-22T21:30:17Z"),
            ("2026-11-23", "2026-11-23T00:00:00Z"),
            ("1764000000", "2025-11-24T16:00:00Z"),
            ("1764000000.000000001", "2025-11-24T16:00:00.000000001Z"),
            ("1764000000123", "2025-11-24T16:00:00.123Z"),
            ("1764000000123456", "2025-11-24T16:00:00.123456Z"),
            ("1764000000123456789", "2025-11-24T16:00:00.123456789Z"),
            ("10/Oct/2026:13:55:36 -0700", "2026-10-10T20:55:36Z"),
            ("Nov 23 06:30:17", "2025-11-23T06:30:17Z"),
            ("Nov  3 06:30:17.25", "2025-11-03T06:30:17.25Z"),
            ("Mon Nov 23 06:30:17.123456 2026", "2026-11-23T06:30:17.123456Z"),
        ] {
            check(&time, text, Some(expected));
        }
        for text in [
            "",
            "noon",
            "12",
            "17640000001",
            "1764000000.",
            "-1764000000",
            "1969-12-31T23:59:59Z",
            "2262-01-01",
            "2026-13-01",
            "06:30:17",
        ] {
            check(&time, text, None);
        }
    }

    #[test]
    fn a_format_and_a_zone_say_how_a_time_is_read() {
        check(&of("%Y/%m/%d %H:%M:%S,%f", Some("+09:00")), "2026/11/23 06:30:17,123", Some("2026-11-22T21:30:17.123Z"));
        check(&of("%Y/%m/%d %H:%M:%S %z", Some("+09:00")), "2026/11/23 06:30:17 +0000", Some("2026-11-23T06:30:17Z"));
        check(&of("%s", None), "1764000000", Some("2025-11-24T16:00:00Z"));
        check(&of("%d.%m.%Y %H:%M", None), "2026-11-23T06:30:17Z", None);
        check(
            &EventTime::new(&["t"], None, Some("+09:00")).unwrap(),
            "2026-11-23 06:30:17",
            Some("2026-11-22T21:30:17Z"),
        );
        check(
            &EventTime::new(&["t"], None, Some("+09:00")).unwrap(),
            "2026-11-23 06:30:17Z",
            Some("2026-11-23T06:30:17Z"),
        );
    }

    #[test]
    fn clocks_that_change_make_no_time_unreadable() {
        let time = of("%Y-%m-%d %H:%M:%S", Some("Europe/Berlin"));
        check(&time, "2026-10-25 02:30:00", Some("2026-10-25T00:30:00Z"));
        check(&time, "2026-03-29 02:30:00", Some("2026-03-29T01:30:00Z"));
        check(&time, "2026-07-01 00:00:00", Some("2026-06-30T22:00:00Z"));
    }

    #[test]
    fn a_time_without_a_year_is_of_the_last_twelve_months_or_tomorrow() {
        let time = of("%b %d %H:%M:%S", None);
        check(&time, "Nov 24 06:00:00", Some("2025-11-24T06:00:00Z"));
        check(&time, "Nov 24 07:00:01", Some("2024-11-24T07:00:01Z"));
        check(&time, "Dec 31 23:59:59", Some("2024-12-31T23:59:59Z"));
        check(&time, "Jan 01 00:00:00", Some("2025-01-01T00:00:00Z"));
        check(&time, "Feb 29 12:00:00", Some("2024-02-29T12:00:00Z"));
        let new_year = 1_767_225_599_000;
        let at = |text: &str, ms| time.read(text, ms).map(|instant| instant.to_string());
        assert_eq!(
            at("Jan 01 00:00:30", new_year).as_deref(),
            Some("2026-01-01T00:00:30Z"),
            "the clock of the host is late"
        );
        // All moments of an hour say the same.
        let hour = NOW - NOW % HOUR_MS;
        assert_eq!(at("Nov 24 06:45:00", hour), at("Nov 24 06:45:00", hour + HOUR_MS - 1));
    }

    #[test]
    fn formats_that_can_never_be_read_are_refused() {
        let fault = |format: &str| format!("{:?}", EventTime::new(&["t"], Some(format), None).unwrap_err());
        assert!(fault("%!").starts_with("Format"), "{}", fault("%!"));
        assert!(fault("%Y-%m-%d %Z").starts_with("Format"), "{}", fault("%Y-%m-%d %Z"));
        for format in ["%H:%M:%S", "%Y %H:%M", "", "today"] {
            assert!(fault(format).starts_with("NoDay"), "{format}: {}", fault(format));
        }
        let zone = EventTime::new(&["t"], None, Some("Mars/Olympus")).unwrap_err();
        assert!(matches!(zone, TimeError::Zone { .. }));
    }
}
