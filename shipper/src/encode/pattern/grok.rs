//! Grok: `%{NAME}`, `%{NAME:field}` and `%{NAME:field:type}` stand for expressions of a library. Pure.
//!
//! The names, and the fields of whole lines, are those of Logstash (its ECS names). The expressions are our own: those of
//! Logstash look around and go back, which no engine that matches in linear time can do. They are a little looser.

use std::collections::BTreeMap;

use super::{Capture, field_path};
use crate::encode::typing::FieldType;

/// Expressions by name.
pub type Definitions = BTreeMap<String, String>;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrokError {
    #[error("`%{{` without `}}` in `{0}`")]
    Open(String),
    #[error("`{0}` is no name of a pattern")]
    Unknown(String),
    #[error("`{0}` is no type")]
    Type(String),
    #[error("`{0}` contains itself, or is too long")]
    Endless(String),
}

const LIBRARY: &str = include_str!("library.grok");
const MAX_DEPTH: usize = 16;
const MAX_LENGTH: usize = 64 << 10;

/// The regular expression that a pattern stands for, and what it captures.
///
/// # Errors
/// As [`GrokError`] says.
pub fn expand(pattern: &str, definitions: &Definitions) -> Result<(String, Vec<Capture>), GrokError> {
    let library = LIBRARY.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' '));
    let mut known: BTreeMap<&str, &str> = library.collect();
    known.extend(definitions.iter().map(|(name, expression)| (name.as_str(), expression.as_str())));
    let mut expansion = Expansion { known, expression: String::new(), captures: Vec::new() };
    expansion.add(pattern, 0)?;
    Ok((expansion.expression, expansion.captures))
}

struct Expansion<'a> {
    known: BTreeMap<&'a str, &'a str>,
    expression: String,
    captures: Vec<Capture>,
}

impl<'a> Expansion<'a> {
    fn add(&mut self, pattern: &'a str, depth: usize) -> Result<(), GrokError> {
        if depth > MAX_DEPTH || self.expression.len() > MAX_LENGTH {
            return Err(GrokError::Endless(pattern.to_owned()));
        }
        let mut rest = pattern;
        while let Some((before, after)) = rest.split_once("%{") {
            let (reference, after) = after.split_once('}').ok_or_else(|| GrokError::Open(pattern.to_owned()))?;
            self.expression.push_str(before);
            self.add_reference(reference, depth)?;
            rest = after;
        }
        self.expression.push_str(rest);
        Ok(())
    }

    fn add_reference(&mut self, reference: &'a str, depth: usize) -> Result<(), GrokError> {
        let mut parts = reference.splitn(3, ':');
        let name = parts.next().unwrap_or_default();
        let inner = *self.known.get(name).ok_or_else(|| GrokError::Unknown(name.to_owned()))?;
        match parts.next().filter(|field| !field.is_empty()) {
            None => self.expression.push_str("(?:"),
            Some(field) => {
                let field_type = parts.next().map_or(Ok(FieldType::String), type_of)?;
                // One field may be named several times, a group of an expression may not.
                let group = format!("grok_{}", self.captures.len());
                self.expression.push_str(&format!("(?P<{group}>"));
                self.captures.push(Capture { group, field: field_path(field), field_type });
            }
        }
        self.add(inner, depth + 1)?;
        self.expression.push(')');
        Ok(())
    }
}

fn type_of(name: &str) -> Result<FieldType, GrokError> {
    match name {
        "string" => Ok(FieldType::String),
        "int" | "integer" | "long" => Ok(FieldType::Integer),
        "float" | "double" => Ok(FieldType::Float),
        "bool" | "boolean" => Ok(FieldType::Boolean),
        other => Err(GrokError::Type(other.to_owned())),
    }
}
