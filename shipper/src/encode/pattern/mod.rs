//! Lines that a regular expression reads. Pure.

pub mod grok;

use std::collections::BTreeMap;

use millrace_common::json::write_string;
use regex::{CaptureLocations, Regex, RegexBuilder};

use self::grok::{Definitions, GrokError};
use super::event_time::EventTime;
use super::timestamp;
use super::typing::FieldType;

/// A compiled pattern, with its buffers.
#[derive(Clone, Debug)]
pub struct Pattern {
    regex: Regex,
    fields: Vec<(String, Node)>,
    time: EventTime,
    locations: CaptureLocations,
}

#[derive(Clone, Debug)]
enum Node {
    Leaf(Leaf),
    Object(Vec<(String, Node)>),
}

/// A field: the first of its groups that took part in the match has its value.
#[derive(Clone, Debug)]
struct Leaf {
    groups: Vec<usize>,
    field_type: FieldType,
    /// The whole line stands here if no group took part.
    is_message: bool,
}

/// A field that a pattern captures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// Name of its group.
    pub group: String,
    /// Dotted path of the field.
    pub field: String,
    pub field_type: FieldType,
}

#[derive(Debug, thiserror::Error)]
pub enum PatternError {
    #[error(transparent)]
    Grok(#[from] GrokError),
    #[error("not a regular expression that can be used here")]
    Regex(#[source] Box<regex::Error>),
    #[error("captures no field")]
    NoField,
    #[error("`{0}` has an empty part")]
    Empty(String),
    #[error("`{0}` is an object in one place and a value in another")]
    Conflict(String),
    #[error("`{0}` is no field that the pattern captures")]
    Unknown(String),
}

/// Where the time of an event is looked for unless told otherwise: the name that grok's own patterns give it.
pub const TIME_FIELD: &str = "timestamp";

impl Pattern {
    /// Memory of a compiled expression, in bytes; and as much again for what matching it builds.
    const MAX_SIZE: usize = 4 << 20;

    /// From a regular expression. Its named groups are fields: `a.b` or `a[b]` is `b` inside `a`.
    ///
    /// # Errors
    /// As [`PatternError`] says.
    pub fn of_regex(
        expression: &str,
        types: &BTreeMap<String, FieldType>,
        time: EventTime,
    ) -> Result<Self, PatternError> {
        let regex = compile(expression)?;
        let named = regex.capture_names().flatten();
        let captures = named
            .map(|name| Capture { group: name.to_owned(), field: field_path(name), field_type: FieldType::String })
            .collect();
        Self::new(regex, captures, types, time)
    }

    /// From `%{NAME:field:type}` and what stands between.
    ///
    /// # Errors
    /// As [`PatternError`] says.
    pub fn of_grok(
        pattern: &str,
        definitions: &Definitions,
        types: &BTreeMap<String, FieldType>,
        time: EventTime,
    ) -> Result<Self, PatternError> {
        let (expression, mut captures) = grok::expand(pattern, definitions)?;
        let regex = compile(&expression)?;
        // Groups that the operator named in plain regular expressions between.
        for name in regex.capture_names().flatten() {
            if captures.iter().all(|capture| capture.group != name) {
                let field_type = FieldType::String;
                captures.push(Capture { group: name.to_owned(), field: field_path(name), field_type });
            }
        }
        Self::new(regex, captures, types, time)
    }

    fn new(
        regex: Regex,
        captures: Vec<Capture>,
        types: &BTreeMap<String, FieldType>,
        time: EventTime,
    ) -> Result<Self, PatternError> {
        if captures.is_empty() {
            return Err(PatternError::NoField);
        }
        if let Some(unknown) = types.keys().find(|name| captures.iter().all(|capture| capture.field != **name)) {
            return Err(PatternError::Unknown(unknown.clone()));
        }
        let whole_line = Leaf { groups: Vec::new(), field_type: FieldType::String, is_message: true };
        let mut fields = vec![("message".to_owned(), Node::Leaf(whole_line))];
        for (group, name) in regex.capture_names().enumerate() {
            let Some(capture) = captures.iter().find(|capture| Some(capture.group.as_str()) == name) else { continue };
            let field_type = types.get(&capture.field).copied().unwrap_or(capture.field_type);
            insert(&mut fields, &capture.field, &capture.field, group, field_type)?;
        }
        let locations = regex.capture_locations();
        Ok(Self { regex, fields, time, locations })
    }

    /// Appends what the line says as a JSON object. Returns whether the pattern matches.
    pub fn write_object(&mut self, line: &str, read_time_ms: i64, out: &mut Vec<u8>) -> bool {
        if self.regex.captures_read(&mut self.locations, line).is_none() {
            return false;
        }
        let captured = Captured { line, locations: &self.locations };
        let found = self.time.fields().iter().find_map(|path| {
            let leaf = find(&self.fields, path)?;
            Some((leaf, self.time.read(captured.text(leaf)?, read_time_ms)?))
        });
        out.push(b'{');
        if let Some((_, instant)) = found {
            out.extend_from_slice(b"\"@timestamp\":\"");
            timestamp::write_instant(out, instant);
            out.extend_from_slice(b"\",");
        }
        captured.write_members(&self.fields, found.map(|(leaf, _)| leaf), out);
        out.push(b'}');
        true
    }

    pub fn has_field(&self, path: &str) -> bool {
        find(&self.fields, path).is_some()
    }
}

/// One match.
struct Captured<'a> {
    line: &'a str,
    locations: &'a CaptureLocations,
}

impl<'a> Captured<'a> {
    fn text(&self, leaf: &Leaf) -> Option<&'a str> {
        let range = leaf.groups.iter().find_map(|group| self.locations.get(*group));
        range.map(|(start, end)| &self.line[start..end]).or(leaf.is_message.then_some(self.line))
    }

    /// Appends the members that have a value, but not `taken`, which became the time.
    fn write_members(&self, members: &[(String, Node)], taken: Option<&Leaf>, out: &mut Vec<u8>) {
        let start = out.len();
        for (name, node) in members {
            let before = out.len();
            if before > start {
                out.push(b',');
            }
            write_string(out, name);
            out.push(b':');
            let is_written = match node {
                Node::Leaf(leaf) if taken.is_some_and(|taken| std::ptr::eq(taken, leaf)) => false,
                Node::Leaf(leaf) => self.text(leaf).map(|text| leaf.field_type.write(out, text)).is_some(),
                Node::Object(inner) => {
                    out.push(b'{');
                    let inner_start = out.len();
                    self.write_members(inner, taken, out);
                    let is_empty = out.len() == inner_start;
                    out.push(b'}');
                    !is_empty
                }
            };
            if !is_written {
                out.truncate(before);
            }
        }
    }
}

fn compile(expression: &str) -> Result<Regex, PatternError> {
    let mut builder = RegexBuilder::new(expression);
    builder.size_limit(Pattern::MAX_SIZE).dfa_size_limit(Pattern::MAX_SIZE);
    builder.build().map_err(|cause| PatternError::Regex(Box::new(cause)))
}

/// Grok's `[a][b]` and `a[b]` as `a.b`.
pub fn field_path(name: &str) -> String {
    if !name.contains('[') {
        return name.to_owned();
    }
    name.split(['[', ']']).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".")
}

fn find<'a>(members: &'a [(String, Node)], path: &str) -> Option<&'a Leaf> {
    let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
    match (members.iter().find(|(own, _)| own == name).map(|(_, node)| node)?, rest) {
        (Node::Leaf(leaf), None) => Some(leaf),
        (Node::Object(inner), Some(rest)) => find(inner, rest),
        _ => None,
    }
}

/// `rest` is the part of `path` that is left.
fn insert(
    members: &mut Vec<(String, Node)>,
    path: &str,
    rest: &str,
    group: usize,
    field_type: FieldType,
) -> Result<(), PatternError> {
    let (name, rest) = rest.split_once('.').map_or((rest, None), |(name, rest)| (name, Some(rest)));
    if name.is_empty() {
        return Err(PatternError::Empty(path.to_owned()));
    }
    let at = members.iter().position(|(own, _)| own == name).unwrap_or_else(|| {
        let leaf = Leaf { groups: Vec::new(), field_type, is_message: false };
        members.push((name.to_owned(), if rest.is_none() { Node::Leaf(leaf) } else { Node::Object(Vec::new()) }));
        members.len() - 1
    });
    match (&mut members[at].1, rest) {
        (Node::Leaf(leaf), None) => leaf.groups.push(group),
        (Node::Object(inner), Some(rest)) => return insert(inner, path, rest, group, field_type),
        _ => return Err(PatternError::Conflict(path.to_owned())),
    }
    Ok(())
}

#[cfg(test)]
mod tests;
