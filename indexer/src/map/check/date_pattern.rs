//! Date patterns of `java.time.format.DateTimeFormatter`: the letters that logs use.

use super::date::{Moment, ParsedDate, days_from_epoch, offset};

/// A compiled pattern. Letters not known here make it unknown as a whole.
#[derive(Clone, Debug)]
pub(in crate::map) struct Pattern {
    parts: Vec<Part>,
    /// Its years are of an era (`y`, not `u`): Java leaves such dates unresolved and never asks whether they have the day.
    is_of_era: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Literal(char),
    Number {
        field: Field,
        least: usize,
        most: usize,
    },
    /// A fraction of a second with exactly so many digits.
    Fraction(usize),
    Names {
        field: Field,
        names: &'static [&'static str],
    },
    Offset {
        has_z: bool,
        form: OffsetForm,
    },
    ZoneId,
    Optional(Vec<Part>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Field {
    Year,
    YearOfCentury,
    Month,
    Day,
    Hour,
    HourOfHalf,
    Half,
    Minute,
    Second,
    Weekday,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum OffsetForm {
    OptionalMinutes,
    Minutes,
    ColonMinutes,
}

const MONTHS: &[&str] = &["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const LONG_MONTHS: &[&str] = &[
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: &[&str] = &["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const LONG_DAYS: &[&str] = &["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

impl Pattern {
    pub(in crate::map) fn parse(text: &str) -> Option<Self> {
        let chars: Vec<char> = text.chars().collect();
        let mut at = 0;
        let parts = Self::parts(&chars, &mut at, false)?;
        let is_of_era = text.split('\'').step_by(2).any(|unquoted| unquoted.contains('y'));
        (at == chars.len()).then_some(Self { parts, is_of_era })
    }

    fn parts(chars: &[char], at: &mut usize, is_inner: bool) -> Option<Vec<Part>> {
        let mut parts = Vec::new();
        while let Some(&c) = chars.get(*at) {
            match c {
                '[' => {
                    *at += 1;
                    parts.push(Part::Optional(Self::parts(chars, at, true)?));
                }
                ']' if is_inner => {
                    *at += 1;
                    return Some(parts);
                }
                ']' | '{' | '}' | '#' => return None,
                '\'' => Self::quoted(chars, at, &mut parts)?,
                'a'..='z' | 'A'..='Z' => {
                    let count = chars[*at..].iter().take_while(|&&other| other == c).count();
                    *at += count;
                    parts.push(Self::letter(c, count)?);
                }
                _ => {
                    *at += 1;
                    parts.push(Part::Literal(c));
                }
            }
        }
        (!is_inner).then_some(parts)
    }

    fn quoted(chars: &[char], at: &mut usize, parts: &mut Vec<Part>) -> Option<()> {
        if chars.get(*at + 1) == Some(&'\'') {
            parts.push(Part::Literal('\''));
            *at += 2;
            return Some(());
        }
        *at += 1;
        loop {
            match (chars.get(*at)?, chars.get(*at + 1)) {
                ('\'', Some('\'')) => {
                    parts.push(Part::Literal('\''));
                    *at += 2;
                }
                ('\'', _) => {
                    *at += 1;
                    return Some(());
                }
                (&c, _) => {
                    parts.push(Part::Literal(c));
                    *at += 1;
                }
            }
        }
    }

    fn letter(letter: char, count: usize) -> Option<Part> {
        let two = |field| match count {
            1 => Some(Part::Number { field, least: 1, most: 19 }),
            2 => Some(Part::Number { field, least: 2, most: 2 }),
            _ => None,
        };
        match (letter, count) {
            ('u' | 'y', 2) => Some(Part::Number { field: Field::YearOfCentury, least: 2, most: 2 }),
            // More digits than the pattern's need a sign, which no log writes.
            ('u' | 'y', 4) => Some(Part::Number { field: Field::Year, least: 4, most: 4 }),
            ('M' | 'L', 3) => Some(Part::Names { field: Field::Month, names: MONTHS }),
            ('M' | 'L', 4) => Some(Part::Names { field: Field::Month, names: LONG_MONTHS }),
            ('M' | 'L', _) => two(Field::Month),
            ('d', _) => two(Field::Day),
            ('H', _) => two(Field::Hour),
            ('h', _) => two(Field::HourOfHalf),
            ('m', _) => two(Field::Minute),
            ('s', _) => two(Field::Second),
            ('S', 1..=9) => Some(Part::Fraction(count)),
            ('a', 1) => Some(Part::Names { field: Field::Half, names: &["AM", "PM"] }),
            ('E', 1..=3) => Some(Part::Names { field: Field::Weekday, names: DAYS }),
            ('E', 4) => Some(Part::Names { field: Field::Weekday, names: LONG_DAYS }),
            ('X' | 'x', 1..=3) => {
                let form = match count {
                    1 => OffsetForm::OptionalMinutes,
                    2 => OffsetForm::Minutes,
                    _ => OffsetForm::ColonMinutes,
                };
                Some(Part::Offset { has_z: letter == 'X', form })
            }
            ('Z', 1..=3) => Some(Part::Offset { has_z: false, form: OffsetForm::Minutes }),
            ('V', 2) | ('z', 1..=3) => Some(Part::ZoneId),
            _ => None,
        }
    }

    pub(in crate::map) fn parse_text(&self, text: &str) -> ParsedDate {
        let mut read = Read::default();
        match read.parts(&self.parts, text) {
            Some("") => read.resolve(),
            _ if read.is_unsure => ParsedDate::Unsure,
            _ => ParsedDate::No,
        }
    }

    /// Whether the text has the form of a date to a server that does not resolve it for that.
    pub(in crate::map) fn has_form(&self, text: &str) -> bool {
        self.is_of_era && Read::default().parts(&self.parts, text) == Some("")
    }
}

#[derive(Clone, Default)]
struct Read {
    year: Option<i64>,
    month: Option<u32>,
    day: Option<u32>,
    hour: Option<u32>,
    hour_of_half: Option<u32>,
    half: Option<u32>,
    minute: Option<u32>,
    second: Option<u32>,
    weekday: Option<u32>,
    nanos: u32,
    offset: i64,
    is_unsure: bool,
}

impl Read {
    /// Returns what is left of `text`.
    fn parts<'t>(&mut self, parts: &[Part], mut text: &'t str) -> Option<&'t str> {
        for (i, part) in parts.iter().enumerate() {
            text = match part {
                Part::Literal(c) => text.strip_prefix(*c)?,
                Part::Number { field, least, most } => {
                    let most = if *most > 2 { most.saturating_sub(adjacent_digits(&parts[i + 1..])) } else { *most };
                    let run = text.bytes().take(most).take_while(u8::is_ascii_digit).count();
                    // A number directly followed by others leaves them their digits.
                    let followers = adjacent_digits(&parts[i + 1..]);
                    let available = text.bytes().take_while(u8::is_ascii_digit).count();
                    let length =
                        if *least != most && followers > 0 { available.saturating_sub(followers) } else { run };
                    if length < *least || length > 9 {
                        return None;
                    }
                    self.set(*field, text[..length].parse().ok()?)?;
                    &text[length..]
                }
                Part::Fraction(digits) => {
                    let fraction = text.get(..*digits).filter(|f| f.bytes().all(|b| b.is_ascii_digit()))?;
                    self.nanos = fraction.parse::<u32>().ok()? * 10_u32.pow(9 - *digits as u32);
                    &text[*digits..]
                }
                Part::Names { field, names } => {
                    let index = names.iter().position(|name| text.starts_with(name))?;
                    self.set(*field, index as u32 + u32::from(*field != Field::Half))?;
                    &text[names[index].len()..]
                }
                Part::Offset { has_z, form } => self.zone(text, *has_z, *form)?,
                Part::ZoneId => {
                    let length = text.find(|c: char| !(c.is_ascii_alphanumeric() || "+-:/_".contains(c)));
                    let (zone, rest) = text.split_at(length.unwrap_or(text.len()));
                    match offset(zone).ok()? {
                        Some(offset) => self.offset = offset,
                        None => self.is_unsure = true,
                    }
                    rest
                }
                Part::Optional(inner) => {
                    let mut attempt = self.clone();
                    match attempt.parts(inner, text) {
                        Some(rest) => {
                            *self = attempt;
                            rest
                        }
                        None => text,
                    }
                }
            };
        }
        Some(text)
    }

    fn zone<'t>(&mut self, text: &'t str, has_z: bool, form: OffsetForm) -> Option<&'t str> {
        if has_z && let Some(rest) = text.strip_prefix('Z') {
            self.offset = 0;
            return Some(rest);
        }
        let length =
            match form {
                OffsetForm::Minutes => 5,
                OffsetForm::ColonMinutes => 6,
                OffsetForm::OptionalMinutes => {
                    if text.len() >= 5 && text.as_bytes()[3..5].iter().all(u8::is_ascii_digit) { 5 } else { 3 }
                }
            };
        let zone = text.get(..length).filter(|z| z.starts_with(['+', '-']))?;
        if (zone.as_bytes().get(3) == Some(&b':')) != (form == OffsetForm::ColonMinutes) {
            return None;
        }
        self.offset = offset(zone).ok()??;
        Some(&text[length..])
    }

    fn set(&mut self, field: Field, n: u32) -> Option<()> {
        let (slot, range) = match field {
            Field::Year => {
                self.year = Some(i64::from(n));
                return Some(());
            }
            Field::YearOfCentury => {
                self.year = Some(2_000 + i64::from(n));
                return Some(());
            }
            Field::Month => (&mut self.month, 1..=12),
            Field::Day => (&mut self.day, 1..=31),
            Field::Hour => (&mut self.hour, 0..=23),
            Field::HourOfHalf => (&mut self.hour_of_half, 1..=12),
            Field::Half => (&mut self.half, 0..=1),
            Field::Minute => (&mut self.minute, 0..=59),
            Field::Second => (&mut self.second, 0..=59),
            Field::Weekday => (&mut self.weekday, 1..=7),
        };
        *slot = Some(n);
        range.contains(&n).then_some(())
    }

    fn resolve(&self) -> ParsedDate {
        if self.is_unsure {
            return ParsedDate::Unsure;
        }
        let hour = match (self.hour, self.hour_of_half, self.half) {
            (Some(hour), None, None) => hour,
            (None, None, None) => 0,
            (None, Some(hour), Some(half)) => hour % 12 + 12 * half,
            _ => return ParsedDate::Unsure,
        };
        // What is missing takes Elasticsearch's defaults; without a year they are not worth copying.
        let Some(year) = self.year else { return ParsedDate::Unsure };
        if self.month.is_none() && self.day.is_some() {
            return ParsedDate::Unsure;
        }
        let Some(days) = days_from_epoch(year, self.month.unwrap_or(1), self.day.unwrap_or(1)) else {
            return ParsedDate::No;
        };
        // 1970-01-01 was a Thursday.
        if self.weekday.is_some_and(|weekday| (days + 3).rem_euclid(7) + 1 != i64::from(weekday)) {
            return ParsedDate::No;
        }
        let time = hour * 3_600 + self.minute.unwrap_or(0) * 60 + self.second.unwrap_or(0);
        ParsedDate::At(Moment { seconds: days * 86_400 + i64::from(time) - self.offset, nanos: self.nanos })
    }
}

/// Digits that the parts directly following a number take for themselves.
fn adjacent_digits(parts: &[Part]) -> usize {
    let widths = parts.iter().map_while(|part| match part {
        Part::Number { least, most, .. } if least == most => Some(*most),
        Part::Fraction(digits) => Some(*digits),
        _ => None,
    });
    widths.sum()
}
