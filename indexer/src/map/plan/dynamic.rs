//! What Elasticsearch makes of a name that the mapping does not have.

use regex::Regex;
use serde_json::{Map, Value};

use super::PlanError;

/// What a JSON value looks like to dynamic mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::map) enum Detected {
    Object,
    String,
    Long,
    Double,
    Boolean,
    Date,
}

impl Detected {
    const ALL: [Self; 6] = [Self::Object, Self::String, Self::Long, Self::Double, Self::Boolean, Self::Date];

    fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::String => "string",
            Self::Long => "long",
            Self::Double => "double",
            Self::Boolean => "boolean",
            Self::Date => "date",
        }
    }

    /// The type a new field gets when no template says otherwise.
    pub(in crate::map) fn default_type(self) -> &'static str {
        match self {
            Self::String => "text",
            Self::Double => "float",
            other => other.name(),
        }
    }

    pub(in crate::map) fn runtime_type(self) -> &'static str {
        match self {
            Self::String => "keyword",
            other => other.name(),
        }
    }
}

#[derive(Debug)]
enum Matcher {
    Simple(String),
    Regex(Regex),
    /// A regular expression in Java's dialect that cannot be read here: taken as matching nothing.
    Unknown,
}

impl Matcher {
    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Simple(pattern) => simple_match(pattern, text),
            Self::Regex(regex) => regex.is_match(text),
            Self::Unknown => false,
        }
    }
}

#[derive(Debug)]
pub(in crate::map) struct DynamicTemplate {
    matches: Vec<Matcher>,
    unmatches: Vec<Matcher>,
    path_matches: Vec<Matcher>,
    path_unmatches: Vec<Matcher>,
    types: Vec<Detected>,
    pub is_runtime: bool,
    mapping: Map<String, Value>,
}

impl DynamicTemplate {
    pub(super) fn parse(name: &str, body: &Value) -> Result<Self, PlanError> {
        let fault =
            |what: &str| PlanError::Mapping { path: format!("dynamic_templates.{name}"), what: what.to_owned() };
        let body = body.as_object().ok_or_else(|| fault("is not an object"))?;
        let is_regex = body.get("match_pattern").is_some_and(|p| p == "regex");
        let matchers = |key: &str| strings(body.get(key)).into_iter().map(|p| matcher(p, is_regex)).collect();
        let is_runtime = body.contains_key("runtime");
        let mapping = body.get("mapping").or_else(|| body.get("runtime")).and_then(Value::as_object);
        let mapping = mapping.ok_or_else(|| fault("has neither `mapping` nor `runtime`"))?;
        let wanted = strings(body.get("match_mapping_type"));
        let unwanted = strings(body.get("unmatch_mapping_type"));
        // Without a condition that implies all types, `match_mapping_type` missing means none.
        let has_condition = ["match", "path_match", "unmatch_mapping_type"].iter().any(|key| body.contains_key(*key));
        let is_any = wanted == ["*"] || (wanted.is_empty() && has_condition);
        let types = Detected::ALL.into_iter().filter(|detected| {
            let name = detected.name();
            (is_any || wanted.contains(&name))
                && !unwanted.contains(&name)
                && !(is_runtime && *detected == Detected::Object)
        });
        Ok(Self {
            matches: matchers("match"),
            unmatches: matchers("unmatch"),
            path_matches: matchers("path_match"),
            path_unmatches: matchers("path_unmatch"),
            types: types.collect(),
            is_runtime,
            mapping: mapping.clone(),
        })
    }

    pub(in crate::map) fn applies(&self, path: &str, name: &str, detected: Detected) -> bool {
        let any = |list: &[Matcher], text: &str| list.iter().any(|matcher| matcher.matches(text));
        self.types.contains(&detected)
            && (self.path_matches.is_empty() || any(&self.path_matches, path))
            && (self.matches.is_empty() || any(&self.matches, name))
            && !any(&self.path_unmatches, path)
            && !any(&self.unmatches, name)
    }

    /// The mapping for a field of that name, placeholders filled in and `type` always there.
    pub(in crate::map) fn mapping_for(&self, name: &str, detected: Detected) -> Value {
        let dynamic_type = if self.is_runtime { detected.runtime_type() } else { detected.default_type() };
        let fill = |text: &str| {
            text.replace("{name}", name).replace("{dynamic_type}", dynamic_type).replace("{dynamicType}", dynamic_type)
        };
        let Value::Object(mut mapping) = filled(&Value::Object(self.mapping.clone()), &fill) else {
            return Value::Null;
        };
        mapping.entry("type").or_insert_with(|| Value::String(dynamic_type.to_owned()));
        Value::Object(mapping)
    }
}

fn filled(value: &Value, fill: &dyn Fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => Value::String(fill(text)),
        Value::Array(list) => Value::Array(list.iter().map(|inner| filled(inner, fill)).collect()),
        Value::Object(map) => Value::Object(map.iter().map(|(k, v)| (fill(k), filled(v, fill))).collect()),
        other => other.clone(),
    }
}

fn strings(value: Option<&Value>) -> Vec<&str> {
    match value {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn matcher(pattern: &str, is_regex: bool) -> Matcher {
    if !is_regex {
        return Matcher::Simple(pattern.to_owned());
    }
    // Java's `matches` wants the whole text.
    Regex::new(&format!("^(?:{pattern})$")).map_or(Matcher::Unknown, Matcher::Regex)
}

/// Wildcard match where `*` stands for any run of characters.
pub(in crate::map) fn simple_match(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return text.ends_with(part);
        }
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    true
}
