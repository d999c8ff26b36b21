//! Layers of templates merged into one, later layers winning.

use serde_json::{Map, Value};

type Json = Map<String, Value>;

/// Settings of all layers, nested below `index`. A `null` takes a setting back.
pub(super) fn settings(layers: &[&Value]) -> Value {
    let mut flat = Json::new();
    for layer in layers {
        if let Some(settings) = layer.get("settings") {
            flatten("", settings, &mut flat);
        }
    }
    let mut nested = Json::new();
    for (key, value) in flat {
        if !value.is_null() {
            nest(&mut nested, &key, value);
        }
    }
    Value::Object(nested)
}

fn flatten(prefix: &str, value: &Value, flat: &mut Json) {
    match value {
        Value::Object(object) => {
            for (key, inner) in object {
                let full = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(&full, inner, flat);
            }
        }
        other => {
            let key = if prefix.starts_with("index.") { prefix.to_owned() } else { format!("index.{prefix}") };
            flat.insert(key, other.clone());
        }
    }
}

fn nest(into: &mut Json, key: &str, value: Value) {
    if let Some((first, rest)) = key.split_once('.')
        && let Value::Object(inner) = into.entry(first).or_insert_with(|| Value::Object(Json::new()))
    {
        return nest(inner, rest, value);
    }
    into.insert(key.to_owned(), value);
}

pub(super) fn aliases(layers: &[&Value]) -> Value {
    let mut merged = Json::new();
    for (name, alias) in layers.iter().filter_map(|layer| layer.get("aliases")?.as_object()).flatten() {
        merged.insert(name.clone(), alias.clone());
    }
    Value::Object(merged)
}

/// Mappings of all layers as composable templates merge: a field of a later layer replaces that of an earlier one, only
/// objects merge.
pub(super) fn mappings(layers: &[&Value]) -> Value {
    let mut merged = Json::new();
    for mapping in layers.iter().filter_map(|layer| mapping_of(layer)) {
        merge(None, &mut merged, mapping, true);
    }
    Value::Object(merged)
}

/// Mappings as legacy templates merge: field definitions merge key by key.
pub(super) fn legacy_mappings(layers: &[&Value]) -> Value {
    let mut merged = Json::new();
    for mapping in layers.iter().filter_map(|layer| mapping_of(layer)) {
        merge(None, &mut merged, mapping, false);
    }
    Value::Object(merged)
}

fn mapping_of(layer: &Value) -> Option<&Json> {
    let mapping = layer.get("mappings")?.as_object()?;
    // Some bodies still carry the type that Elasticsearch dropped.
    match mapping.get("_doc").and_then(Value::as_object) {
        Some(inner) if mapping.len() == 1 => Some(inner),
        _ => Some(mapping),
    }
}

fn merge(parent: Option<&str>, into: &mut Json, from: &Json, replaces_fields: bool) {
    for (key, new) in from {
        let Some(old) = into.get_mut(key) else {
            into.insert(key.clone(), new.clone());
            continue;
        };
        match (old, new) {
            (Value::Object(old), Value::Object(new)) if parent == Some("properties") && replaces_fields => {
                *old = merged_field(old, new);
            }
            (Value::Object(old), Value::Object(new)) => merge(Some(key), old, new, replaces_fields),
            (Value::Array(old), Value::Array(new)) => merge_lists(key, old, new, replaces_fields),
            (old, new) => *old = new.clone(),
        }
    }
}

fn merged_field(old: &Json, new: &Json) -> Json {
    if !is_mergeable(old) || !is_mergeable(new) {
        return new.clone();
    }
    let kept = ["properties", "subobjects"];
    let mut merged: Json =
        old.iter().filter(|(key, _)| kept.contains(&key.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect();
    merge(None, &mut merged, new, true);
    merged
}

fn is_mergeable(field: &Json) -> bool {
    match field.get("type").and_then(Value::as_str) {
        Some(name) => name == "object" || name == "nested",
        None => field.contains_key("properties"),
    }
}

/// Lists of single-member objects, as `dynamic_templates`, merge by name; of others the new values come first.
fn merge_lists(key: &str, old: &mut Vec<Value>, new: &[Value], replaces_fields: bool) {
    fn name(value: &Value) -> Option<&String> {
        value.as_object().filter(|object| object.len() == 1)?.keys().next()
    }
    if old.iter().chain(new).all(|value| name(value).is_some()) {
        for value in new {
            let same = old.iter_mut().find(|other| name(other) == name(value));
            match (same, value) {
                (Some(Value::Object(old)), Value::Object(new)) => merge(Some(key), old, new, replaces_fields),
                _ => old.push(value.clone()),
            }
        }
        return;
    }
    let mut merged = new.to_vec();
    merged.extend(old.drain(..).filter(|value| !new.contains(value)));
    *old = merged;
}
