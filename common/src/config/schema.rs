//! The JSON Schema of a configuration type, and the questions the checker asks of it.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::secret;

/// Marks the key that names the file of the secret this keyword names.
pub(super) const FILE_OF: &str = "x-file-of";

/// The JSON Schema (draft 2020-12) of `T`, with the `_file` twin of every secret.
///
/// For editors and documents; it is also what configurations are checked against.
pub fn schema<T: JsonSchema>() -> Value {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>().to_value();
    add_file_twins(&mut schema);
    schema
}

fn add_file_twins(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(add_file_twins),
        Value::Object(object) => {
            let secrets = object.get("properties").and_then(Value::as_object).map(secret_names).unwrap_or_default();
            for name in &secrets {
                let twin = json!({
                    "type": ["string", "null"],
                    "description": format!("File that holds `{name}`; it is read when needed, and again when it changes."),
                    FILE_OF: name,
                });
                if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
                    properties.insert(format!("{name}_file"), twin);
                }
                make_either_required(object, name);
            }
            object.values_mut().for_each(add_file_twins);
        }
        _ => {}
    }
}

fn secret_names(properties: &Map<String, Value>) -> Vec<String> {
    properties.iter().filter(|(_, schema)| is_secret(schema)).map(|(name, _)| name.clone()).collect()
}

/// A required secret may stand in either key.
fn make_either_required(object: &mut Map<String, Value>, name: &str) {
    let Some(required) = object.get_mut("required").and_then(Value::as_array_mut) else {
        return;
    };
    let before = required.len();
    required.retain(|required| required != name);
    if required.len() < before {
        let either = json!({"anyOf": [{"required": [name]}, {"required": [format!("{name}_file")]}]});
        if let Some(all) = object.entry("allOf").or_insert_with(|| json!([])).as_array_mut() {
            all.push(either);
        }
    }
}

pub(super) fn is_secret(schema: &Value) -> bool {
    schema["format"] == secret::FORMAT
}

/// A root schema, to look up what its references name.
#[derive(Clone, Copy)]
pub(super) struct Schemas<'a> {
    pub root: &'a Value,
}

impl<'a> Schemas<'a> {
    /// The schema that `schema` refers to in the end.
    pub fn resolve<'s>(&self, schema: &'s Value) -> &'s Value
    where
        'a: 's,
    {
        let mut schema = schema;
        // More hops than any chain of definitions has; a circle of pure references cannot come out of a type.
        for _ in 0..16 {
            let Some(reference) = schema["$ref"].as_str() else {
                return schema;
            };
            match self.root.pointer(reference.trim_start_matches('#')) {
                Some(target) => schema = target,
                None => return schema,
            }
        }
        schema
    }

    pub fn is_nullable(&self, schema: &Value) -> bool {
        let schema = self.resolve(schema);
        let by_type = match &schema["type"] {
            Value::String(kind) => kind == "null",
            Value::Array(kinds) => kinds.iter().any(|kind| kind == "null"),
            _ => schema.get("anyOf").is_none() && schema.get("oneOf").is_none() && choices(self, schema).is_none(),
        };
        let by_branch =
            branches(schema).any(|branch| branch["type"] == "null" || branch.get("const") == Some(&Value::Null));
        by_type || by_branch
    }

    /// The branches of an `anyOf` or `oneOf`, without the one for null.
    pub fn alternatives<'s>(&self, schema: &'s Value) -> Option<Vec<&'s Value>>
    where
        'a: 's,
    {
        let found: Vec<&Value> = branches(schema).filter(|branch| branch["type"] != "null").collect();
        if found.is_empty() { None } else { Some(found) }
    }

    /// The named keys of a mapping with their schemas, those of flattened parts included.
    pub fn properties<'s>(&self, schema: &'s Value) -> Vec<(&'s str, &'s Value)>
    where
        'a: 's,
    {
        let mut found: Vec<(&str, &Value)> = schema["properties"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, schema)| (name.as_str(), schema))
            .collect();
        for part in parts(schema) {
            found.extend(self.properties(self.resolve(part)));
        }
        found
    }

    /// The schema of keys that are not named, or `None` if there must be none.
    pub fn additional<'s>(&self, schema: &'s Value) -> Option<&'s Value> {
        let rest = schema.get("additionalProperties").or_else(|| schema.get("unevaluatedProperties"));
        rest.map_or(Some(&Value::Null), |rest| if rest == &Value::Bool(false) { None } else { Some(rest) })
    }

    /// The keys that must be there; a secret counts as its own name.
    pub fn required<'s>(&self, schema: &'s Value) -> impl Iterator<Item = &'s str>
    where
        'a: 's,
    {
        let own = schema["required"].as_array().into_iter().flatten();
        let either = parts(schema).filter_map(|part| part["anyOf"][0]["required"].as_array()).flatten();
        own.chain(either).filter_map(Value::as_str)
    }

    pub fn has_file_twin(&self, schema: &Value, name: &str) -> bool {
        schema["properties"][format!("{name}_file")][FILE_OF] == name
    }

    /// The first sentence of a key's description.
    pub fn about<'s>(&self, schema: &'s Value, name: &str) -> Option<&'s str>
    where
        'a: 's,
    {
        let property = &schema["properties"][name];
        let text = property["description"].as_str().or_else(|| self.resolve(property)["description"].as_str())?;
        let end = text.find(". ").or_else(|| text.find('\n')).unwrap_or(text.len());
        Some(text[..end].trim_end_matches('.'))
    }
}

fn parts(schema: &Value) -> impl Iterator<Item = &Value> {
    schema["allOf"].as_array().into_iter().flatten()
}

fn branches(schema: &Value) -> impl Iterator<Item = &Value> {
    let list = |key| schema[key].as_array().into_iter().flatten();
    list("anyOf").chain(list("oneOf"))
}

/// The words a value may be, if it may only be one of some words.
pub(super) fn choices<'s>(schemas: &Schemas<'s>, schema: &'s Value) -> Option<Vec<&'s str>> {
    if let Some(word) = schema["const"].as_str() {
        return Some(vec![word]);
    }
    if let Some(words) = schema["enum"].as_array() {
        return Some(words.iter().filter_map(Value::as_str).collect());
    }
    let mut found = Vec::new();
    for branch in branches(schema).filter(|branch| branch["type"] != "null") {
        found.extend(choices(schemas, schemas.resolve(branch))?);
    }
    if found.is_empty() { None } else { Some(found) }
}

/// A type of JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Map,
    List,
    Text,
    Integer,
    Number,
    Boolean,
}

/// The types a schema allows, null aside; none named means all.
pub(super) struct Kinds(Vec<Kind>);

pub(super) fn kinds(schema: &Value) -> Kinds {
    let named = match &schema["type"] {
        Value::String(kind) => vec![kind.as_str()],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ if schema.get("properties").is_some() || schema.get("allOf").is_some() => vec!["object"],
        _ => Vec::new(),
    };
    let kind = |name: &str| match name {
        "object" => Some(Kind::Map),
        "array" => Some(Kind::List),
        "string" => Some(Kind::Text),
        "integer" => Some(Kind::Integer),
        "number" => Some(Kind::Number),
        "boolean" => Some(Kind::Boolean),
        _ => None,
    };
    Kinds(named.into_iter().filter_map(kind).collect())
}

impl Kinds {
    pub fn allows(&self, kind: Kind) -> bool {
        self.0.is_empty() || self.0.contains(&kind)
    }

    pub fn only(&self, kind: Kind) -> bool {
        self.0 == [kind]
    }

    pub fn allows_scalar(&self) -> bool {
        [Kind::Text, Kind::Integer, Kind::Number, Kind::Boolean].into_iter().any(|kind| self.allows(kind))
    }

    /// What is wanted, for messages.
    pub fn wanted(&self) -> &'static str {
        match self.0.first() {
            Some(Kind::Map) => "a mapping",
            Some(Kind::List) => "a list",
            Some(Kind::Text) => "a text",
            Some(Kind::Integer) => "a whole number",
            Some(Kind::Number) => "a number",
            Some(Kind::Boolean) => "true or false",
            None => "a value",
        }
    }
}
