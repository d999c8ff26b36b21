//! Index settings that bear on documents, nested or dotted, with or without `index.`.

use serde_json::Value;

use super::model::Limits;

/// Looks up a setting by its full name without `index.`.
fn setting<'a>(settings: &'a Value, name: &str) -> Option<&'a Value> {
    fn below<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
        let object = value.as_object()?;
        object.iter().find_map(|(key, inner)| {
            let rest = name.strip_prefix(key.as_str())?;
            if rest.is_empty() { Some(inner) } else { below(inner, rest.strip_prefix('.')?) }
        })
    }
    below(settings, name).or_else(|| below(settings, &format!("index.{name}")))
}

fn number(settings: &Value, name: &str) -> Option<u64> {
    let value = setting(settings, name)?;
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

fn boolean(settings: &Value, name: &str) -> Option<bool> {
    let value = setting(settings, name)?;
    value.as_bool().or_else(|| value.as_str()?.parse().ok())
}

impl Limits {
    pub(in crate::map) fn from_settings(settings: &Value) -> Self {
        Self {
            total_fields: number(settings, "mapping.total_fields.limit").unwrap_or(1_000),
            depth: number(settings, "mapping.depth.limit").unwrap_or(20),
            nested_objects: number(settings, "mapping.nested_objects.limit").unwrap_or(10_000),
            ignore_dynamic_beyond: boolean(settings, "mapping.total_fields.ignore_dynamic_beyond_limit")
                .unwrap_or(false),
            coerce: boolean(settings, "mapping.coerce").unwrap_or(true),
            ignore_malformed: boolean(settings, "mapping.ignore_malformed").unwrap_or(false),
        }
    }
}
