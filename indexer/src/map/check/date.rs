//! Dates in the formats of Elasticsearch.

use millrace_common::json::{Kind, Value};

use super::date_pattern::Pattern;
use super::{Fit, Misfit, text_of};
use crate::map::server::Behaviour;

/// A moment, as seconds from 1970 and nanoseconds; the zone applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::map) struct Moment {
    pub seconds: i64,
    pub nanos: u32,
}

impl Moment {
    const EPOCH: Self = Self { seconds: 0, nanos: 0 };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::map) enum ParsedDate {
    At(Moment),
    No,
    /// Understood only in part: a named zone, a format not known here.
    Unsure,
}

/// The alternatives of a `format`, tried in order.
#[derive(Clone, Debug)]
pub(in crate::map) struct DateFormats(Vec<Format>);

#[derive(Clone, Debug)]
enum Format {
    Iso(Iso),
    /// `strict_date`: two digits each, of any value; the 30th of February is the first or second of March.
    LenientDate,
    EpochMillis {
        takes_sign: bool,
    },
    EpochSecond,
    Pattern(Pattern),
    Unknown,
}

/// A family of ISO 8601 formats.
#[derive(Clone, Copy, Debug)]
struct Iso {
    /// Fewest and most parts: 1 year … 6 second, 7 fraction.
    from: u8,
    to: u8,
    zone: Zone,
    /// A date alone, or the beginning of one, is complete even though `from` names more parts.
    date_alone: bool,
    /// A comma may stand before the fraction too.
    has_comma: bool,
    /// A year that Java does not have is refused at once, instead of being left to the next format.
    fails_far: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Zone {
    Optional,
    Mandatory,
    Forbidden,
}

impl DateFormats {
    pub(in crate::map) const DEFAULT: &'static str = "strict_date_optional_time||epoch_millis";
    pub(in crate::map) const DEFAULT_NANOS: &'static str = "strict_date_optional_time_nanos||epoch_millis";

    pub(in crate::map) fn parse(format: &str, server: Behaviour) -> Self {
        let format = format.strip_prefix('8').unwrap_or(format);
        Self(format.split("||").map(|name| Format::named(name, server)).collect())
    }

    /// The format of a field without one.
    pub(in crate::map) fn default_of(is_nanos: bool, server: Behaviour) -> &'static str {
        if is_nanos && server.has_nanos_format { Self::DEFAULT_NANOS } else { Self::DEFAULT }
    }

    pub(in crate::map) fn parse_text(&self, text: &str) -> ParsedDate {
        let mut answer = ParsedDate::No;
        for format in &self.0 {
            if matches!(format, Format::Iso(Iso { fails_far: true, .. })) && is_far_year(text) {
                return ParsedDate::No;
            }
            match format.parse(text) {
                ParsedDate::At(moment) => return ParsedDate::At(moment),
                ParsedDate::Unsure => answer = ParsedDate::Unsure,
                ParsedDate::No => {}
            }
        }
        answer
    }

    /// Whether a text of a new name makes it a date.
    pub(in crate::map) fn detect(&self, text: &str, server: Behaviour) -> ParsedDate {
        let has_form = |format: &Format| matches!(format, Format::Pattern(pattern) if pattern.has_form(text));
        match self.parse_text(text) {
            ParsedDate::No if server.has_old_parser && self.0.iter().any(has_form) => ParsedDate::At(Moment::EPOCH),
            answer => answer,
        }
    }

    /// Whether what [`is_plain`] knows fits by the first format.
    fn takes_plain(&self) -> bool {
        matches!(self.0.first(), Some(Format::Iso(Iso { to: 7, zone: Zone::Optional | Zone::Mandatory, .. })))
    }

    pub(in crate::map) fn check(&self, value: Value<'_, '_>, is_nanos: bool) -> Fit {
        if !matches!(value.kind(), Kind::String | Kind::Number) {
            return Fit::Refused(Misfit::NotADate);
        }
        if value.raw().len() == PLAIN.len() + 2 && self.takes_plain() && is_plain(&value.raw().as_bytes()[1..]) {
            return Fit::Fits;
        }
        match self.parse_text(&text_of(value)) {
            ParsedDate::At(moment) => judge(moment, is_nanos),
            ParsedDate::No => Fit::Refused(Misfit::NotADate),
            ParsedDate::Unsure => Fit::Unsure,
        }
    }
}

/// The form of most times in logs.
const PLAIN: &[u8; 24] = b"2026-11-23T06:30:17.123Z";

/// Whether `text` begins as [`PLAIN`], with each part in its range: a moment of the years 1970 to 2199, on a day that each month has.
fn is_plain(text: &[u8]) -> bool {
    let Some(text) = text.first_chunk::<{ PLAIN.len() }>() else { return false };
    let is_shaped = text.iter().zip(PLAIN).fold(true, |is_shaped, (byte, plain)| {
        is_shaped & if plain.is_ascii_digit() { byte.is_ascii_digit() } else { byte == plain }
    });
    let two = |at: usize| text[at].wrapping_sub(b'0').wrapping_mul(10).wrapping_add(text[at + 1].wrapping_sub(b'0'));
    let is_year = matches!((two(0), two(2)), (19, 70..) | (20..=21, _));
    let is_time = (two(11) < 24) & (two(14) < 60) & (two(17) < 60);
    is_shaped && is_year && (1..=12).contains(&two(5)) && (1..=28).contains(&two(8)) && is_time
}

/// What `i64` nanoseconds from 1970 reach: 2262-04-11T23:47:16.854775807Z.
const LAST_NANOS: Moment = Moment { seconds: i64::MAX / 1_000_000_000, nanos: (i64::MAX % 1_000_000_000) as u32 };

fn judge(moment: Moment, is_nanos: bool) -> Fit {
    let is_plausible = moment.seconds >= 0 && moment <= LAST_NANOS;
    if is_plausible {
        Fit::Fits
    } else if is_nanos || moment.seconds.checked_mul(1_000).is_none() {
        Fit::Refused(Misfit::DateOutOfRange)
    } else {
        Fit::Implausible(Misfit::DateOutOfRange)
    }
}

impl Format {
    fn named(name: &str, server: Behaviour) -> Self {
        let iso =
            |from, to, zone| Self::Iso(Iso { from, to, zone, date_alone: false, has_comma: false, fails_far: false });
        match name {
            "strict_date_optional_time" => {
                let fails_far = server.has_old_parser;
                Self::Iso(Iso { from: 1, to: 7, zone: Zone::Optional, date_alone: false, has_comma: true, fails_far })
            }
            "strict_date_optional_time_nanos" => Self::Iso(Iso {
                from: 6,
                to: 7,
                zone: Zone::Optional,
                date_alone: true,
                has_comma: true,
                fails_far: false,
            }),
            // The fraction is optional here, whatever the documentation says.
            "strict_date_time" => iso(6, 7, Zone::Mandatory),
            "strict_date_time_no_millis" => iso(6, 6, Zone::Mandatory),
            "strict_date" => Self::LenientDate,
            "strict_year_month_day" => iso(1, 3, Zone::Forbidden),
            "strict_year" => iso(1, 1, Zone::Forbidden),
            "strict_year_month" => iso(2, 2, Zone::Forbidden),
            "strict_date_hour" => iso(4, 4, Zone::Forbidden),
            "strict_date_hour_minute" => iso(5, 5, Zone::Forbidden),
            "strict_date_hour_minute_second" => iso(6, 6, Zone::Forbidden),
            "epoch_millis" => Self::EpochMillis { takes_sign: server.has_signed_epochs },
            "epoch_second" => Self::EpochSecond,
            "basic_date" => Pattern::parse("uuuuMMdd").map_or(Self::Unknown, Self::Pattern),
            _ if is_name(name) => Self::Unknown,
            _ => Pattern::parse(name).map_or(Self::Unknown, Self::Pattern),
        }
    }

    fn parse(&self, text: &str) -> ParsedDate {
        match self {
            Self::Iso(iso) => iso.parse(text),
            Self::LenientDate => lenient_date(text),
            Self::EpochMillis { takes_sign: false } if text.starts_with('-') => ParsedDate::No,
            Self::EpochMillis { .. } => epoch(text, 1_000),
            Self::EpochSecond => epoch(text, 1),
            Self::Pattern(pattern) => pattern.parse_text(text),
            Self::Unknown => ParsedDate::Unsure,
        }
    }
}

/// Whether a format is a name such as `basic_week_date` and not a pattern.
fn is_name(format: &str) -> bool {
    const NAMES: &[&str] =
        &["iso8601", "date", "hour", "ordinal_date", "time", "t_time", "week_date", "weekyear", "year"];
    NAMES.contains(&format) || (format.contains('_') && format.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
}

/// A year before -999,999,999, of as many digits as years may have.
fn is_far_year(text: &str) -> bool {
    text.len() == 11 && text.starts_with('-') && text[1..].bytes().all(|b| b.is_ascii_digit()) && &text[1..2] != "0"
}

/// `[-]1 to 19 digits[.digits]`
fn epoch(text: &str, per_second: i64) -> ParsedDate {
    let (is_negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let most = if per_second == 1 { 9 } else { 6 };
    let are_digits = whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit());
    if !are_digits || whole.is_empty() || whole.len() > 19 || fraction.len() > most {
        return ParsedDate::No;
    }
    let Ok(n) = whole.parse::<i64>() else { return ParsedDate::No };
    if is_negative && per_second == 1 && !fraction.is_empty() && fraction.bytes().all(|b| b == b'0') {
        // Elasticsearch borrows a second for the fraction and ends with a billion nanoseconds.
        return ParsedDate::No;
    }
    let n = if is_negative { -n } else { n };
    // The fraction moves a moment by less than its unit, which is of no weight for the limits.
    let (seconds, rest) = (n.div_euclid(per_second), n.rem_euclid(per_second));
    // What java.time.Instant reaches.
    if seconds.unsigned_abs() > 31_556_889_864_403_199 {
        return ParsedDate::No;
    }
    ParsedDate::At(Moment { seconds, nanos: (rest * (1_000_000_000 / per_second)) as u32 })
}

impl Iso {
    fn parse(self, text: &str) -> ParsedDate {
        if let Some(rest) = text.strip_prefix('-') {
            // A year before Christ.
            return match self.parse_positive(rest) {
                ParsedDate::At(_) => ParsedDate::At(Moment { seconds: -62_167_219_200, nanos: 0 }),
                other => other,
            };
        }
        self.parse_positive(text)
    }

    fn parse_positive(self, text: &str) -> ParsedDate {
        let b = text.as_bytes();
        let mut parts = [0, 1, 1, 0, 0, 0];
        const STARTS: [usize; 6] = [0, 5, 8, 11, 14, 17];
        const ENDS: [usize; 6] = [4, 7, 10, 13, 16, 19];
        const LIMITS: [u32; 6] = [9_999, 12, 31, 23, 59, 59];
        const SEPARATORS: [u8; 6] = [0, b'-', b'-', b'T', b':', b':'];
        let mut count = 0_u8;
        let mut at = 0;
        let mut is_bare_t = false;
        for i in 0..6 {
            if i > 0 {
                if b.get(at) != Some(&SEPARATORS[i]) {
                    break;
                }
                if i == 3 && b.len() == 11 {
                    // `2026-11-23T` stands for the day.
                    is_bare_t = true;
                    at = 11;
                    break;
                }
            }
            let Some(n) = digits(b, STARTS[i], ENDS[i]).filter(|n| *n <= LIMITS[i]) else { return ParsedDate::No };
            parts[i] = n;
            at = ENDS[i];
            count += 1;
        }
        if count == 0 || (is_bare_t && self.from > 3) {
            return ParsedDate::No;
        }
        let mut nanos = 0;
        let separator = b.get(19).copied();
        let has_fraction = separator == Some(b'.') || (separator == Some(b',') && self.has_comma);
        if count == 6 && has_fraction && self.to >= 7 {
            let length = b[20..].iter().take(9).take_while(|d| d.is_ascii_digit()).count();
            if length == 0 {
                return ParsedDate::No;
            }
            nanos = digits(b, 20, 20 + length).unwrap_or(0) * 10_u32.pow(9 - length as u32);
            at = 20 + length;
            count = 7;
        }
        let zone = match (&text[at..], self.zone) {
            ("", Zone::Mandatory) => return ParsedDate::No,
            ("", _) => Some(0),
            (_, Zone::Forbidden) => return ParsedDate::No,
            // A zone follows a time, never a date alone.
            _ if count < 4 => return ParsedDate::No,
            (zone, _) => match offset(zone) {
                Ok(offset) => offset,
                Err(()) => return ParsedDate::No,
            },
        };
        let is_complete = (self.from..=self.to).contains(&count) || (self.date_alone && count <= 3 && !is_bare_t);
        if !is_complete {
            return ParsedDate::No;
        }
        let Some(days) = days_from_epoch(i64::from(parts[0]), parts[1], parts[2]) else { return ParsedDate::No };
        let Some(zone) = zone else { return ParsedDate::Unsure };
        let seconds = days * 86_400 + i64::from(parts[3] * 3_600 + parts[4] * 60 + parts[5]) - zone;
        ParsedDate::At(Moment { seconds, nanos })
    }
}

fn lenient_date(text: &str) -> ParsedDate {
    let b = text.as_bytes();
    let is_shaped = b.len() == 10 && b[4] == b'-' && b[7] == b'-';
    let (Some(year), Some(month), Some(day)) = (digits(b, 0, 4), digits(b, 5, 7), digits(b, 8, 10)) else {
        return ParsedDate::No;
    };
    // The months run over into years, the days into months.
    let months = i64::from(year) * 12 + i64::from(month) - 1;
    let first = days_from_epoch(months.div_euclid(12), months.rem_euclid(12) as u32 + 1, 1);
    match first {
        Some(first) if is_shaped => ParsedDate::At(Moment { seconds: (first + i64::from(day) - 1) * 86_400, nanos: 0 }),
        _ => ParsedDate::No,
    }
}

fn digits(b: &[u8], from: usize, to: usize) -> Option<u32> {
    b.get(from..to)?.iter().try_fold(0, |n, d| d.is_ascii_digit().then(|| n * 10 + u32::from(d - b'0')))
}

/// Seconds of `Z`, `+hh`, `+hhmm`, `+hh:mm` and their like with seconds; `Ok(None)` for what may be a named zone.
pub(in crate::map) fn offset(zone: &str) -> Result<Option<i64>, ()> {
    let sign = match zone.as_bytes() {
        [b'Z'] => return Ok(Some(0)),
        [b'+', ..] => 1,
        [b'-', ..] => -1,
        [first, ..] if first.is_ascii_alphabetic() => return Ok(None),
        _ => return Err(()),
    };
    let rest = &zone.as_bytes()[1..];
    let field = |at| digits(rest, at, at + 2).map(i64::from).ok_or(());
    let (hours, minutes, seconds) = match rest {
        [_, _] => (field(0)?, 0, 0),
        [_, _, _, _] => (field(0)?, field(2)?, 0),
        [_, _, b':', _, _] => (field(0)?, field(3)?, 0),
        [_, _, _, _, _, _] => (field(0)?, field(2)?, field(4)?),
        [_, _, b':', _, _, b':', _, _] => (field(0)?, field(3)?, field(6)?),
        _ => return Err(()),
    };
    let total = hours * 3_600 + minutes * 60 + seconds;
    if minutes > 59 || seconds > 59 || total > 18 * 3_600 { Err(()) } else { Ok(Some(sign * total)) }
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar; `None` if there is no such day.
pub(in crate::map) fn days_from_epoch(year: i64, month: u32, day: u32) -> Option<i64> {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap => 29,
        2 => 28,
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        _ => return None,
    };
    if !(1..=last).contains(&day) {
        return None;
    }
    // Years begin in March here, so that the leap day is the last of its year.
    let (shifted, months) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let day_of_year = i64::from((153 * months + 2) / 5 + day - 1);
    let era = shifted.div_euclid(400);
    let year_of_era = shifted.rem_euclid(400);
    Some(era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468)
}
