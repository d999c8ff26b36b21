//! Index name patterns: `applogs-{service.name}-{@timestamp:%Y.%m.%d}`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::name;
use super::time::EpochMillis;

/// Names are remembered by the hour, so a format must not tell times within one hour apart.
const LAST_OF_HOUR: EpochMillis = 3_600_000 - 1;

/// A compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    pub(super) parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Text(String),
    /// Dotted path.
    Field(String),
    /// Dotted path of a time, and its `strftime` format.
    Time(String, String),
}

/// Why a pattern is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("`{{` at byte {at} is not closed by `}}`")]
    Unclosed { at: usize },
    #[error("`}}` at byte {at} closes nothing")]
    Unopened { at: usize },
    #[error("the field name at byte {at} is empty")]
    EmptyField { at: usize },
    #[error("`{format}` is not a time format: {cause}")]
    Format { format: String, cause: String },
    #[error("`{c}` at byte {at} is not allowed in index names")]
    Illegal { c: char, at: usize },
    #[error("an index name cannot be empty")]
    Empty,
    #[error(
        "the fixed parts are {bytes} bytes long, which leaves nothing of the {limit} bytes of a name for the fields"
    )]
    TooLong { bytes: usize, limit: usize },
}

impl Pattern {
    /// All names that it can give, with `*` as Elasticsearch reads it.
    pub fn wildcard(&self) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Field(_) | Part::Time(..) => "*".to_owned(),
        };
        self.parts.iter().map(part).collect()
    }

    /// Compiles a pattern. Fields stand in braces; a field with `:` and a `strftime` format is a time.
    pub fn compile(text: &str) -> Result<Self, PatternError> {
        let mut parts = Vec::new();
        let mut at = 0;
        while at < text.len() {
            let rest = &text[at..];
            match rest.as_bytes()[0] {
                b'{' => {
                    let close = rest.find('}').ok_or(PatternError::Unclosed { at })?;
                    parts.push(field(&rest[1..close], at + 1)?);
                    at += close + 1;
                }
                b'}' => return Err(PatternError::Unopened { at }),
                _ => {
                    let length = rest.find(['{', '}']).unwrap_or(rest.len());
                    check_text(&rest[..length], at)?;
                    parts.push(Part::Text(rest[..length].to_owned()));
                    at += length;
                }
            }
        }
        let pattern = Self { parts };
        let fixed = pattern.fixed_bytes();
        match pattern.parts.len() {
            0 => Err(PatternError::Empty),
            _ if fixed + pattern.fields().count() > name::MAX_NAME_BYTES => {
                Err(PatternError::TooLong { bytes: fixed, limit: name::MAX_NAME_BYTES })
            }
            _ => Ok(pattern),
        }
    }

    /// The dotted paths of all fields that name the index, times included.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Field(path) | Part::Time(path, _) => Some(path.as_str()),
        })
    }

    /// A name that this pattern may give, for checks without documents.
    pub fn sample(&self, defaults: &BTreeMap<String, String>) -> Option<String> {
        let fields: Vec<&str> = self.fields().map(|path| defaults.get(path).map_or("x", String::as_str)).collect();
        self.write(&fields, &vec![0; self.parts.len()])
    }

    fn fields(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| if let Part::Field(path) = part { Some(path.as_str()) } else { None })
    }

    fn fixed_bytes(&self) -> usize {
        let length = |part: &Part| match part {
            Part::Text(text) => text.len(),
            Part::Field(_) => 0,
            Part::Time(_, format) => strtime(0, format).map_or(0, |text| text.len()),
        };
        self.parts.iter().map(length).sum()
    }

    /// Writes a name. `fields` and `times` are the values in the order of the pattern. Field values are made legal and
    /// cut so that the fixed parts and the times stay whole.
    pub(super) fn write(&self, fields: &[&str], times: &[EpochMillis]) -> Option<String> {
        let (mut times, mut texts) = (times.iter(), Vec::with_capacity(self.parts.len()));
        for part in &self.parts {
            texts.push(match part {
                Part::Text(text) => Some(text.clone()),
                Part::Field(_) => None,
                Part::Time(_, format) => Some(strtime(*times.next()?, format).ok()?),
            });
        }
        let fixed: usize = texts.iter().flatten().map(String::len).sum();
        let mut room = name::MAX_NAME_BYTES.checked_sub(fixed)?;
        let (mut fields, mut left) = (fields.iter(), self.fields().count());
        let mut out = String::with_capacity(64);
        for text in texts {
            match text {
                // A time format may give characters that names may not have.
                Some(text) => name::append_legal(&mut out, &text, text.len()),
                None => {
                    let start = out.len();
                    name::append_legal(&mut out, fields.next()?, room / left);
                    room -= out.len() - start;
                    left -= 1;
                }
            }
        }
        Some(out)
    }
}

fn field(inner: &str, at: usize) -> Result<Part, PatternError> {
    let (path, format) = match inner.split_once(':') {
        Some((path, format)) => (path, Some(format)),
        None => (inner, None),
    };
    if path.is_empty() || path.starts_with('.') || path.ends_with('.') || path.contains("..") {
        return Err(PatternError::EmptyField { at });
    }
    let Some(format) = format else { return Ok(Part::Field(path.to_owned())) };
    let refused = |cause: String| PatternError::Format { format: format.to_owned(), cause };
    let text = strtime(0, format).map_err(refused)?;
    match strtime(LAST_OF_HOUR, format).map_err(refused)? {
        _ if text.is_empty() => Err(refused("it gives nothing".to_owned())),
        last if last != text => Err(refused("an index for less than an hour is not supported".to_owned())),
        _ => Ok(Part::Time(path.to_owned(), format.to_owned())),
    }
}

fn check_text(text: &str, at: usize) -> Result<(), PatternError> {
    let mut chars = text.char_indices();
    match chars.clone().find(|&(i, c)| if at + i == 0 { !name::may_begin(c) } else { !name::is_legal(c) }) {
        Some((i, c)) => Err(PatternError::Illegal { c, at: at + i }),
        None => {
            debug_assert!(chars.next().is_some());
            Ok(())
        }
    }
}

fn strtime(time: EpochMillis, format: &str) -> Result<String, String> {
    let zoned = Timestamp::from_millisecond(time).map_err(|e| e.to_string())?.to_zoned(TimeZone::UTC);
    jiff::fmt::strtime::format(format, &zoned).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: EpochMillis = 1_795_435_200_000; // 2026-11-23T12:00:00Z

    fn check(pattern: &str, fields: &[&str], expected: &str) {
        let pattern = Pattern::compile(pattern).unwrap();
        assert_eq!(pattern.write(fields, &[NOON, NOON]).unwrap(), expected);
    }

    #[test]
    fn a_pattern_gives_names() {
        check("applogs-{service.name}-{@timestamp:%Y.%m.%d}", &["Checkout"], "applogs-checkout-2026.11.23");
        check("{a}-{b}", &["x", "y"], "x-y");
        check("logs", &[], "logs");
    }

    #[test]
    fn long_values_are_cut_so_that_the_date_stays() {
        let long = "x".repeat(400);
        let pattern = Pattern::compile("a-{s}-{t}-{@timestamp:%Y.%m.%d}").unwrap();
        let name = pattern.write(&[&long, &long], &[NOON]).unwrap();
        assert_eq!(name.len(), 255);
        assert!(name.ends_with("x-2026.11.23"));
        assert_eq!(pattern.write(&["s", &long], &[NOON]).unwrap().len(), 255);
    }

    #[test]
    fn a_field_that_begins_a_name_cannot_make_it_illegal() {
        check("{s}-x", &["_internal"], "xinternal-x");
    }

    #[test]
    fn faulty_patterns_are_refused() {
        let fault = |text| Pattern::compile(text).unwrap_err();
        assert_eq!(fault("a-{b"), PatternError::Unclosed { at: 2 });
        assert_eq!(fault("a-b}"), PatternError::Unopened { at: 3 });
        assert_eq!(fault("a-{}"), PatternError::EmptyField { at: 3 });
        assert_eq!(fault("App-{x}"), PatternError::Illegal { c: 'A', at: 0 });
        assert_eq!(fault("_a"), PatternError::Illegal { c: '_', at: 0 });
        assert_eq!(fault("a b"), PatternError::Illegal { c: ' ', at: 1 });
        assert_eq!(fault(""), PatternError::Empty);
        assert!(matches!(fault("a-{t:%!}"), PatternError::Format { .. }));
        assert!(matches!(fault("a-{t:%H:%M}"), PatternError::Format { .. }));
        assert!(matches!(fault(&"a".repeat(256)), PatternError::TooLong { .. }));
    }
}
