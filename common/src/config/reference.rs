//! The settings as a table for people, from the JSON Schema of their type. Pure.

use std::fmt::Write as _;

use serde_json::Value;

use super::schema::{FILE_OF, Schemas, choices};

/// The schema as it is, or as a table.
pub fn describe(schema: &Value, as_table: bool) -> String {
    if as_table { reference(schema) } else { format!("{schema:#}\n") }
}

/// One row for each setting, by its path: `inputs[].paths`, `kafka.options.NAME`. Columns: setting, values, default, meaning.
fn reference(schema: &Value) -> String {
    let mut table = "| setting | value | default | meaning |\n|---|---|---|---|\n".to_owned();
    let schemas = Schemas { root: schema };
    walk(&schemas, schema, "", &mut table);
    table
}

fn walk(schemas: &Schemas<'_>, schema: &Value, above: &str, table: &mut String) {
    let required: Vec<_> = schemas.required(schema).collect();
    for (name, property) in schemas.properties(schema) {
        // The twin of a secret is told with the secret.
        if property.get(FILE_OF).is_some() {
            continue;
        }
        let path = if above.is_empty() { name.to_owned() } else { format!("{above}.{name}") };
        let resolved = schemas.resolve(property);
        let about = property["description"].as_str().or_else(|| resolved["description"].as_str()).unwrap_or_default();
        let has_twin = schemas.has_file_twin(schema, name);
        let default = match property.get("default") {
            Some(Value::Null) | None if required.contains(&name) => "required".to_owned(),
            Some(Value::Null | Value::Object(_)) | None => String::new(),
            Some(value) => code(&value.as_str().map_or_else(|| value.to_string(), str::to_owned)),
        };
        let twin = if has_twin { format!(" `{name}_file` names a file that holds it.") } else { String::new() };
        // Writing to a string cannot fail.
        let _ = writeln!(table, "| `{path}` | {} | {default} | {}{twin} |", values(schemas, property), one_line(about));
        inner(schemas, property, &path, table);
    }
}

/// The settings inside of a value: of a mapping, of each of a list, or of one of several forms.
fn inner(schemas: &Schemas<'_>, schema: &Value, path: &str, table: &mut String) {
    let schema = schemas.resolve(schema);
    if !schemas.properties(schema).is_empty() {
        walk(schemas, schema, path, table);
    } else if let Some(items) = schema.get("items") {
        inner(schemas, items, &format!("{path}[]"), table);
    } else {
        schemas.alternatives(schema).into_iter().flatten().for_each(|form| inner(schemas, form, path, table));
    }
}

fn values(schemas: &Schemas<'_>, schema: &Value) -> String {
    let schema = schemas.resolve(schema);
    if let Some(words) = choices(schemas, schema) {
        return words.into_iter().map(code).collect::<Vec<_>>().join(", ");
    }
    if let Some(forms) = schemas.alternatives(schema) {
        let mut kinds: Vec<_> = forms.into_iter().map(|form| values(schemas, form)).collect();
        kinds.dedup();
        return kinds.join(", or ");
    }
    if let Some(items) = schema.get("items") {
        return format!("list of {}", values(schemas, items));
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null").unwrap_or_default(),
        kind => kind.as_str().unwrap_or_default(),
    };
    match (schema["format"].as_str(), kind) {
        (Some(format), "string") => format.to_owned(),
        (_, "object") if schemas.properties(schema).is_empty() => "name: value".to_owned(),
        (_, "object") => "mapping".to_owned(),
        (_, "string") => "text".to_owned(),
        (_, "boolean") => "`true`, `false`".to_owned(),
        (_, "integer" | "number") => "number".to_owned(),
        _ => "any".to_owned(),
    }
}

fn code(text: &str) -> String {
    format!("`{}`", text.replace('|', "\\|"))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;

    use super::*;
    use crate::config::{ByteSize, Secret, schema};

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema is used")]
    struct Settings {
        /// Files
        /// to read.
        inputs: Vec<Input>,
        #[serde(default)]
        limits: Limits,
        /// What opens the door | or not.
        password: Option<Secret>,
    }

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema is used")]
    struct Input {
        /// Its kind.
        #[serde(default)]
        kind: Kind,
    }

    #[derive(Default, serde::Serialize, JsonSchema)]
    #[serde(rename_all = "lowercase")]
    #[expect(dead_code, reason = "only its schema is used")]
    enum Kind {
        #[default]
        Text,
        Json,
    }

    #[derive(Default, serde::Serialize, JsonSchema)]
    struct Limits {
        /// Memory.
        memory: Option<ByteSize>,
    }

    #[test]
    fn every_setting_has_its_row() {
        let table = reference(&schema::<Settings>());
        let rows: Vec<_> = table.lines().skip(2).collect();
        assert_eq!(rows[0], "| `inputs` | list of mapping | required | Files to read. |");
        assert_eq!(rows[1], "| `inputs[].kind` | `text`, `json` | `text` | Its kind. |");
        assert!(rows[2].starts_with("| `limits` | mapping |"), "{table}");
        assert!(rows[3].starts_with("| `limits.memory` | ") && rows[3].ends_with("| Memory. |"), "{table}");
        assert!(
            rows[4].ends_with("What opens the door \\| or not. `password_file` names a file that holds it. |"),
            "{table}"
        );
        assert_eq!(rows.len(), 5);
    }
}
