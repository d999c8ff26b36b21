//! Naming the index of each document.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use millrace_common::json::{Kind, Value};
use xxhash_rust::xxh3::Xxh3DefaultBuilder;

use super::fields::{FieldPath, find_field};
use super::pattern::{Part, Pattern};
use super::time::{self, EpochMillis};
use crate::reject::{Reason, Reject};

const HOUR_MS: i64 = 3_600_000;
/// What is remembered is forgotten this often, since what `accept_time` allows moves on.
const REMEMBER_MS: i64 = 60_000;
/// Takes the place of a field without a `default` once no more new indices are allowed.
const OVERFLOW: &str = "unknown";

/// Event times that may name an index, seen from now. Outside, the Kafka timestamp names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptTime {
    pub past: Duration,
    pub future: Duration,
}

#[derive(Clone, Debug)]
pub struct RouterOptions {
    pub pattern: Pattern,
    /// Dotted path -> what stands in for a missing field.
    pub defaults: BTreeMap<String, String>,
    pub accept_time: AcceptTime,
    /// New names per hour; past it, the defaults name the index.
    pub max_new_indices: u32,
}

impl RouterOptions {
    pub fn of(rule: &crate::config::Rule) -> Self {
        Self {
            pattern: rule.index.clone(),
            defaults: rule.defaults.clone(),
            accept_time: rule.accept_time,
            max_new_indices: rule.max_new_indices,
        }
    }
}

/// Where a document goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Counts the names of one router: 0, 1, 2 …
    pub name: u32,
    /// The event time was missing or not acceptable, so that the Kafka timestamp names the index.
    pub by_kafka_time: bool,
}

/// The names of one rule. Remembers them, so that a known combination of fields costs one look-up.
pub struct Router {
    options: RouterOptions,
    /// What the pattern's fields and times are read from, in order, and whether it is a time.
    sources: Vec<(FieldPath, bool)>,
    names: Vec<Arc<str>>,
    by_name: HashMap<Arc<str>, u32>,
    by_fields: HashMap<Box<[u8]>, u32, Xxh3DefaultBuilder>,
    hours: [Hour; 8],
    fields: Vec<u8>,
    /// `None`: nothing is remembered yet.
    remembered_since: Option<EpochMillis>,
    new_names_hour: i64,
    num_new_names: u32,
}

/// A text of the form `2026-11-23T06`, and the hour it stands for if acceptable.
#[derive(Clone, Copy, Default)]
struct Hour {
    text: [u8; 13],
    hour: Option<i64>,
}

impl Router {
    pub fn new(options: RouterOptions) -> Self {
        let source = |part: &Part| match part {
            Part::Text(_) => None,
            Part::Field(path) => Some((FieldPath::new(path), false)),
            Part::Time(path, _) => Some((FieldPath::new(path), true)),
        };
        Self {
            sources: options.pattern.parts.iter().filter_map(source).collect(),
            options,
            names: Vec::new(),
            by_name: HashMap::new(),
            by_fields: HashMap::default(),
            hours: Default::default(),
            fields: Vec::new(),
            remembered_since: None,
            new_names_hour: i64::MIN,
            num_new_names: 0,
        }
    }

    /// The name behind [`Destination::name`].
    pub fn name(&self, name: u32) -> &Arc<str> {
        &self.names[name as usize]
    }

    /// Names the index of a document. `kafka_time` and `now` are milliseconds since the epoch.
    ///
    /// # Errors
    /// A field that names the index is missing and has no default.
    pub fn resolve(
        &mut self,
        document: Value<'_, '_>,
        kafka_time: EpochMillis,
        now: EpochMillis,
    ) -> Result<Destination, Reject> {
        if self.remembered_since.is_none_or(|since| !(since..since + REMEMBER_MS).contains(&now)) {
            self.remembered_since = Some(now);
            self.by_fields.clear();
            self.hours = Default::default();
        }
        // The key under which a name is remembered: the fields as written, and the hours.
        let mut key = std::mem::take(&mut self.fields);
        key.clear();
        let mut by_kafka_time = false;
        for at in 0..self.sources.len() {
            let (path, is_time) = &mut self.sources[at];
            let found = path.find(document);
            if *is_time {
                let hour = found.and_then(|value| self.acceptable_hour(value, now));
                by_kafka_time |= hour.is_none();
                key.extend_from_slice(&hour.unwrap_or(kafka_time.div_euclid(HOUR_MS)).to_be_bytes());
            } else {
                key.extend_from_slice(found.map_or("", Value::raw).as_bytes());
                key.push(b'\n');
            }
        }
        let known = self.by_fields.get(key.as_slice()).copied();
        let name = match known {
            Some(name) => Ok(name),
            None => self.learn(document, &key, now),
        };
        self.fields = key;
        name.map(|name| Destination { name, by_kafka_time })
    }

    fn acceptable_hour(&mut self, value: Value<'_, '_>, now: EpochMillis) -> Option<i64> {
        let accept = self.options.accept_time;
        let read = |value| {
            let earliest = now - accept.past.as_millis() as i64;
            let latest = now + accept.future.as_millis() as i64;
            let hour = time::read(value)?.div_euclid(HOUR_MS);
            (earliest.div_euclid(HOUR_MS)..=latest.div_euclid(HOUR_MS)).contains(&hour).then_some(hour)
        };
        let Some(text) = time::utc_hour(value) else { return read(value) };
        let slot = &mut self.hours[usize::from(text[12] & 7)];
        if slot.text != text {
            slot.text.copy_from_slice(text);
            slot.hour = read(value);
        }
        slot.hour
    }

    fn learn(&mut self, document: Value<'_, '_>, key: &[u8], now: EpochMillis) -> Result<u32, Reject> {
        let mut values = Vec::new();
        let mut times = Vec::new();
        let mut rest = key;
        for part in &self.options.pattern.parts {
            match part {
                Part::Text(_) => {}
                Part::Field(path) => {
                    values.push(self.field(document, path)?);
                    let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
                    rest = &rest[end..];
                }
                Part::Time(..) => {
                    let (hour, after) = rest.split_first_chunk().expect("an hour was written for each time");
                    times.push(i64::from_be_bytes(*hour) * HOUR_MS);
                    rest = after;
                }
            }
        }
        let mut name = self.write(&values, &times)?;
        if !self.by_name.contains_key(name.as_str()) && !self.may_add(now) {
            name = self.write(&self.default_values(), &times)?;
        }
        let name = self.intern(name);
        self.by_fields.insert(key.into(), name);
        Ok(name)
    }

    fn write(&self, values: &[String], times: &[EpochMillis]) -> Result<String, Reject> {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        self.options.pattern.write(&values, times).ok_or_else(|| Reject {
            reason: Reason::MissingField,
            field: String::new(),
            detail: "no index name can be made of the document's time".to_owned(),
        })
    }

    fn field(&self, document: Value<'_, '_>, path: &str) -> Result<String, Reject> {
        let value = find_field(document, path);
        let text = value.and_then(|value| match value.kind() {
            Kind::String => value.as_str().map(|text| text.into_owned()),
            Kind::Number | Kind::Bool(_) => Some(value.raw().to_owned()),
            Kind::Null | Kind::Array | Kind::Object => None,
        });
        let text = text.filter(|text| !text.is_empty()).or_else(|| self.options.defaults.get(path).cloned());
        text.ok_or_else(|| Reject {
            reason: Reason::MissingField,
            field: path.to_owned(),
            detail: format!("`{path}` names the index, but the document has no such value and the rule no default"),
        })
    }

    fn default_values(&self) -> Vec<String> {
        let default = |path| self.options.defaults.get(path).cloned().unwrap_or_else(|| OVERFLOW.to_owned());
        let fields = self.options.pattern.parts.iter();
        fields.filter_map(|part| if let Part::Field(path) = part { Some(default(path)) } else { None }).collect()
    }

    fn may_add(&mut self, now: EpochMillis) -> bool {
        if now.div_euclid(HOUR_MS) != self.new_names_hour {
            self.new_names_hour = now.div_euclid(HOUR_MS);
            self.num_new_names = 0;
        }
        self.num_new_names += 1;
        self.num_new_names <= self.options.max_new_indices
    }

    fn intern(&mut self, name: String) -> u32 {
        if let Some(&known) = self.by_name.get(name.as_str()) {
            return known;
        }
        let name: Arc<str> = name.into();
        let number = self.names.len() as u32;
        self.names.push(Arc::clone(&name));
        self.by_name.insert(name, number);
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_common::json::Parser;

    const NOW: EpochMillis = 1_795_435_200_000; // 2026-11-23T12:00:00Z
    const DAY: Duration = Duration::from_secs(86_400);

    fn router(max_new_indices: u32) -> Router {
        Router::new(RouterOptions {
            pattern: Pattern::compile("logs-{service.name}-{@timestamp:%Y.%m.%d}").unwrap(),
            defaults: BTreeMap::from([("service.name".to_owned(), "none".to_owned())]),
            accept_time: AcceptTime { past: 30 * DAY, future: DAY },
            max_new_indices,
        })
    }

    fn name(router: &mut Router, text: &str) -> (String, bool) {
        let mut parser = Parser::default();
        let destination = router.resolve(parser.parse(text.as_bytes()).unwrap(), NOW, NOW).unwrap();
        (router.name(destination.name).to_string(), destination.by_kafka_time)
    }

    fn check(text: &str, expected: &str, by_kafka_time: bool) {
        let mut router = router(100);
        // The second time from memory.
        for _ in 0..2 {
            assert_eq!(name(&mut router, text), (expected.to_owned(), by_kafka_time), "{text}");
        }
    }

    #[test]
    fn the_fields_of_a_document_name_its_index() {
        check(r#"{"@timestamp":"2026-11-22T23:59:59.9Z","service":{"name":"a"}}"#, "logs-a-2026.11.22", false);
        check(r#"{"@timestamp":"2026-11-23T00:30:00+01:00","service.name":"a"}"#, "logs-a-2026.11.22", false);
        check(r#"{"@timestamp":1795435200000,"service":{"name":7}}"#, "logs-7-2026.11.23", false);
    }

    #[test]
    fn a_missing_field_takes_its_default() {
        for service in ["", r#","service":{"name":null}"#, r#","service":{"name":""}"#, r#","service":["a"]"#] {
            check(&format!(r#"{{"@timestamp":"2026-11-23T00:00:00Z"{service}}}"#), "logs-none-2026.11.23", false);
        }
    }

    #[test]
    fn a_missing_field_without_a_default_is_a_reject_that_names_it() {
        let mut router = router(100);
        router.options.defaults.clear();
        let mut parser = Parser::default();
        let reject = router.resolve(parser.parse(b"{}").unwrap(), NOW, NOW).unwrap_err();
        assert_eq!((reject.reason, reject.field.as_str()), (Reason::MissingField, "service.name"));
    }

    #[test]
    fn times_outside_what_is_accepted_do_not_name_the_index() {
        for time in [r#""2026-10-20T00:00:00Z""#, r#""2026-11-25T00:00:00Z""#, "-1", r#""soon""#, "null"] {
            check(&format!(r#"{{"@timestamp":{time},"service.name":"a"}}"#), "logs-a-2026.11.23", true);
        }
        check(r#"{"service.name":"a"}"#, "logs-a-2026.11.23", true);
    }

    #[test]
    fn untrusted_values_cannot_make_indices_without_limit() {
        let mut router = router(2);
        let mut one = |service: &str| name(&mut router, &format!(r#"{{"service.name":"{service}"}}"#)).0;
        assert_eq!(one("a"), "logs-a-2026.11.23");
        assert_eq!(one("b"), "logs-b-2026.11.23");
        assert_eq!(one("c"), "logs-none-2026.11.23");
        assert_eq!(one("a"), "logs-a-2026.11.23");
    }
}
