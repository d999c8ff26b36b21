//! From the name of an index back to its time.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{ToSpan as _, Unit};
use regex::Regex;

use super::pattern::{Part, Pattern};
use super::time::EpochMillis;

/// Recognises the dated names that a pattern gives.
#[derive(Debug)]
pub struct DatedNames {
    regex: Regex,
    /// The time's directives in the order of the name.
    directives: Vec<char>,
}

/// Why a pattern's names tell nothing about their age.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undated {
    #[error("has no time")]
    NoTime,
    #[error("begins with a field: names of others would match")]
    NoStart,
    #[error("has a time that cannot be read back; use %Y, %m, %d, %H and %j")]
    Directive,
}

impl DatedNames {
    /// # Errors
    /// The pattern gives names without a readable time, or such as others may have too.
    pub fn of(pattern: &Pattern) -> Result<Self, Undated> {
        if !matches!(pattern.parts.first(), Some(Part::Text(_))) {
            return Err(Undated::NoStart);
        }
        let (mut regex, mut directives) = (String::from("^"), Vec::new());
        for part in &pattern.parts {
            match part {
                Part::Text(text) => regex.push_str(&regex::escape(text)),
                Part::Field(_) => regex.push_str(".+"),
                Part::Time(_, format) => time(format, &mut regex, &mut directives)?,
            }
        }
        regex.push('$');
        if !directives.contains(&'Y') {
            return Err(Undated::NoTime);
        }
        let regex = Regex::new(&regex).map_err(|_| Undated::Directive)?;
        Ok(Self { regex, directives })
    }

    /// The end of the time that an index of that name is for; `None` if the pattern gives no such name.
    pub fn end(&self, name: &str) -> Option<EpochMillis> {
        let found = self.regex.captures(name)?;
        let number = |directive: char| {
            let at = self.directives.iter().position(|known| *known == directive)?;
            found.get(at + 1)?.as_str().parse::<i16>().ok()
        };
        let year = number('Y')?;
        let (start, unit) = match (number('m'), number('d'), number('j')) {
            (_, _, Some(day)) => (Date::new(year, 1, 1).ok()?.checked_add(i64::from(day - 1).days()).ok()?, Unit::Day),
            (Some(month), Some(day), _) => (Date::new(year, month as i8, day as i8).ok()?, Unit::Day),
            (Some(month), None, _) => (Date::new(year, month as i8, 1).ok()?, Unit::Month),
            (None, ..) => (Date::new(year, 1, 1).ok()?, Unit::Year),
        };
        let (start, unit) = match number('H') {
            Some(hour) => (start.at(i8::try_from(hour).ok()?, 0, 0, 0), Unit::Hour),
            None => (start.at(0, 0, 0, 0), unit),
        };
        let end: DateTime = match unit {
            Unit::Hour => start.checked_add(1.hours()),
            Unit::Day => start.checked_add(1.days()),
            Unit::Month => start.checked_add(1.months()),
            _ => start.checked_add(1.years()),
        }
        .ok()?;
        Some(end.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond())
    }
}

fn time(format: &str, regex: &mut String, directives: &mut Vec<char>) -> Result<(), Undated> {
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            regex.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
            continue;
        }
        let directive = chars.next().ok_or(Undated::Directive)?;
        regex.push_str(match directive {
            'Y' => "(\\d{4})",
            'm' | 'd' | 'H' => "(\\d{2})",
            'j' => "(\\d{3})",
            _ => return Err(Undated::Directive),
        });
        directives.push(directive);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(pattern: &str, name: &str) -> Option<String> {
        let names = DatedNames::of(&Pattern::compile(pattern).unwrap()).unwrap();
        names.end(name).map(|ms| jiff::Timestamp::from_millisecond(ms).unwrap().to_string())
    }

    #[test]
    fn an_index_ends_with_its_day_month_year_or_hour() {
        let check = |pattern, name, expected: &str| assert_eq!(end(pattern, name).as_deref(), Some(expected));
        let daily = "applogs-{service.name}-{@timestamp:%Y.%m.%d}";
        check(daily, "applogs-a-2026.02.28", "2026-03-01T00:00:00Z");
        check(daily, "applogs-a-b-2024.02.28", "2024-02-29T00:00:00Z");
        check("a-{@timestamp:%Y.%m}", "a-2026.12", "2027-01-01T00:00:00Z");
        check("a-{@timestamp:%Y}", "a-2026", "2027-01-01T00:00:00Z");
        check("a-{@timestamp:%Y.%j}", "a-2026.059", "2026-03-01T00:00:00Z");
        check("a-{@timestamp:%Y.%m.%d.%H}", "a-2026.11.23.23", "2026-11-24T00:00:00Z");
    }

    #[test]
    fn other_names_have_no_end() {
        let daily = "applogs-{service.name}-{@timestamp:%Y.%m.%d}";
        for name in [
            "applogs-2026.11.23",
            "applogs--2026.11.23",
            "xapplogs-a-2026.11.23",
            "applogs-a-2026.11.23-1",
            "applogs-a-2026.13.01",
            "applogs-a-2026.02.30",
            "metrics-a-2026.11.23",
            "applogs-a-2026-11-23",
        ] {
            assert_eq!(end(daily, name), None, "{name}");
        }
    }

    #[test]
    fn patterns_that_say_too_little_are_refused() {
        let refused = |pattern| DatedNames::of(&Pattern::compile(pattern).unwrap()).unwrap_err();
        assert_eq!(refused("logs-{a}"), Undated::NoTime);
        assert_eq!(refused("{a}-{@timestamp:%Y.%m.%d}"), Undated::NoStart);
        assert_eq!(refused("a-{@timestamp:%m.%d}"), Undated::NoTime);
        assert_eq!(refused("a-{@timestamp:%y%m%d}"), Undated::Directive);
    }
}
