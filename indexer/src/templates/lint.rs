//! What in templates hurts in production. Pure.

use serde_json::{Map, Value};

use crate::map::{Composed, TemplateKind, TemplateSet};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Costs documents, or the cluster.
    Error,
    /// Costs money or time.
    Warning,
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One thing that hurts, where it stands, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hurt {
    pub severity: Severity,
    pub file: String,
    /// JSON path in the file.
    pub path: String,
    pub what: String,
    pub remedy: &'static str,
}

/// A term has at most 32,766 bytes, and a character up to four.
const SAFE_IGNORE_ABOVE: u64 = 32_766 / 4;

/// Looks at all templates. `num_hot_nodes`: of the cluster, if it was asked.
pub fn lint(set: &TemplateSet, num_hot_nodes: Option<u64>) -> Vec<Hurt> {
    let mut found = Vec::new();
    for (kind, name, body) in set.bodies() {
        let file = kind.file(name);
        let at = match kind {
            TemplateKind::Policy => continue,
            TemplateKind::Legacy => "",
            TemplateKind::Index | TemplateKind::Component => "template.",
        };
        let content = if at.is_empty() { Some(body) } else { body.get("template") };
        let mut look = Look { file: &file, found: &mut found };
        if let Some(mappings) = content.and_then(|content| content.get("mappings")) {
            look.mappings(&format!("{at}mappings"), mappings);
        }
        if let Some(composed) = set.composed(kind, name) {
            look.settings(&format!("{at}settings"), &composed, num_hot_nodes);
            look.growth(&format!("{at}mappings"), &composed);
        }
    }
    found.extend(set.overlaps().map(|(lower, higher, pattern)| Hurt {
        severity: Severity::Warning,
        file: TemplateKind::Index.file(lower),
        path: "index_patterns".to_owned(),
        what: format!("`{pattern}` overlaps with `{}`, which wins by its priority", TemplateKind::Index.file(higher)),
        remedy: "narrow one of the patterns, so that each index has one template",
    }));
    found.sort_by(|a, b| (a.severity, &a.file, &a.path).cmp(&(b.severity, &b.file, &b.path)));
    found
}

struct Look<'a> {
    file: &'a str,
    found: &'a mut Vec<Hurt>,
}

impl Look<'_> {
    fn add(&mut self, severity: Severity, path: String, what: impl Into<String>, remedy: &'static str) {
        self.found.push(Hurt { severity, file: self.file.to_owned(), path, what: what.into(), remedy });
    }

    fn settings(&mut self, path: &str, composed: &Composed, num_hot_nodes: Option<u64>) {
        let setting = |name: &str| {
            let value = composed.settings.pointer(&format!("/index/{}", name.replace('.', "/")))?;
            Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        };
        let place = |name: &str| format!("{path}.index.{name}");
        if setting("translog.durability").is_some_and(|word| word.eq_ignore_ascii_case("async")) {
            let what = "acknowledged documents of the last seconds are lost when a node dies";
            self.add(Severity::Error, place("translog.durability"), what, "set `request`");
        }
        let expands = setting("auto_expand_replicas").is_some_and(|word| word != "false");
        if setting("number_of_replicas").is_some_and(|n| n == "0") && !expands {
            let what = "with 0 replicas a lost disk is lost documents";
            self.add(Severity::Error, place("number_of_replicas"), what, "set 1 or more");
        }
        if setting("refresh_interval").is_none_or(|word| word == "1s") {
            let what = "a refresh every second makes small segments, which costs CPU";
            self.add(Severity::Warning, place("refresh_interval"), what, "set 30s or 60s");
        }
        if setting("codec").is_none() {
            let what = "no codec is named: logs take about a quarter more disk";
            self.add(Severity::Warning, place("codec"), what, "set `best_compression`");
        }
        let shards = setting("number_of_shards").map_or(Some(1), |n| n.parse::<u64>().ok());
        if let (Some(shards), Some(nodes @ 2..)) = (shards, num_hot_nodes)
            && shards % nodes != 0
        {
            let what = format!("{shards} shards do not spread evenly over {nodes} hot nodes");
            self.add(
                Severity::Warning,
                place("number_of_shards"),
                what,
                "give a multiple of the hot nodes to large indices",
            );
        }
    }

    /// New fields without a limit of one's own.
    fn growth(&mut self, path: &str, composed: &Composed) {
        let has_limit = composed.settings.pointer("/index/mapping/total_fields/limit").is_some();
        if !has_limit && let Some(grows) = growing(path, &composed.mappings, true) {
            let what = "documents add fields up to the default limit of 1000, past which they are refused";
            let remedy = "set `dynamic: false`, or `index.mapping.total_fields.limit` and fold what exceeds it";
            self.add(Severity::Error, grows, what, remedy);
        }
    }

    fn mappings(&mut self, path: &str, value: &Value) {
        let Some(object) = value.as_object() else { return };
        for (name, field) in object.get("properties").and_then(Value::as_object).into_iter().flatten() {
            self.field(&format!("{path}.properties.{name}"), field);
        }
        for (i, template) in object.get("dynamic_templates").and_then(Value::as_array).into_iter().flatten().enumerate()
        {
            for (name, body) in template.as_object().into_iter().flatten() {
                if let Some(mapping) = body.get("mapping") {
                    self.field(&format!("{path}.dynamic_templates[{i}].{name}.mapping"), mapping);
                }
            }
        }
    }

    fn field(&mut self, path: &str, value: &Value) {
        let Some(field) = value.as_object() else { return };
        if is(field, "fielddata", "true") {
            let what = "fielddata builds the whole field in the heap of the nodes";
            self.add(Severity::Error, format!("{path}.fielddata"), what, "sort and count by a keyword instead");
        }
        if is(field, "type", "keyword") && !(is(field, "index", "false") && is(field, "doc_values", "false")) {
            match field.get("ignore_above").map(|n| n.as_u64().or_else(|| n.as_str()?.parse().ok())) {
                None => {
                    let what = "a value of more than 32766 bytes costs its document";
                    self.add(Severity::Warning, path.to_owned(), what, "set `ignore_above`, e.g. 256");
                }
                Some(Some(n)) if n > SAFE_IGNORE_ABOVE => {
                    let what = format!("{n} characters can be more than the 32766 bytes of a term");
                    self.add(Severity::Warning, format!("{path}.ignore_above"), what, "set 8191 or less");
                }
                Some(_) => {}
            }
        }
        for (name, inner) in field.get("fields").and_then(Value::as_object).into_iter().flatten() {
            self.field(&format!("{path}.fields.{name}"), inner);
        }
        self.mappings(path, value);
    }
}

/// The place where the first object takes new fields.
fn growing(path: &str, object: &Value, inherits: bool) -> Option<String> {
    let (here, is_open) = match object.get("dynamic") {
        None => (path.to_owned(), inherits),
        Some(word) => (format!("{path}.dynamic"), word == true || word == "true"),
    };
    let is_enabled = !object.as_object().is_some_and(|object| is(object, "enabled", "false"));
    if is_open && is_enabled && (object.get("dynamic").is_some() || path.ends_with("mappings")) {
        return Some(here);
    }
    let mut properties = object.get("properties").and_then(Value::as_object).into_iter().flatten();
    properties.find_map(|(name, inner)| growing(&format!("{path}.properties.{name}"), inner, is_open))
}

fn is(object: &Map<String, Value>, key: &str, word: &str) -> bool {
    object.get(key).is_some_and(|value| value == word || (value.is_boolean() && (value == true) == (word == "true")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::map::TemplateFile;

    const GOOD: &str = r#"{"refresh_interval":"60s","codec":"best_compression","mapping.total_fields.limit":200}"#;

    fn found(settings: Value, mappings: Value) -> Vec<(Severity, String)> {
        let mut all: Value = serde_json::from_str(GOOD).unwrap();
        settings.as_object().unwrap().iter().for_each(|(key, value)| all[key] = value.clone());
        let body = json!({"index_patterns": ["a-*"], "template": {"settings": all, "mappings": mappings}});
        lint_all(&[("a.json", body)], Some(2))
    }

    fn lint_all(files: &[(&str, Value)], num_hot_nodes: Option<u64>) -> Vec<(Severity, String)> {
        let file = |(name, body): &(&str, Value)| TemplateFile { name: (*name).to_owned(), text: body.to_string() };
        let set = TemplateSet::parse(&files.iter().map(file).collect::<Vec<_>>()).unwrap();
        lint(&set, num_hot_nodes).into_iter().map(|hurt| (hurt.severity, hurt.path)).collect()
    }

    fn one(severity: Severity, path: &str) -> Vec<(Severity, String)> {
        vec![(severity, path.to_owned())]
    }

    #[test]
    fn each_setting_that_hurts_is_named_once() {
        let even = json!({"number_of_shards": 2});
        assert_eq!(found(even.clone(), json!({})), []);
        let check = |key: &str, value: Value, severity, path: &str| {
            let mut settings = even.clone();
            settings[key] = value;
            assert_eq!(found(settings, json!({})), one(severity, path), "{key}");
        };
        check("translog.durability", json!("async"), Severity::Error, "template.settings.index.translog.durability");
        check("number_of_replicas", json!(0), Severity::Error, "template.settings.index.number_of_replicas");
        check("refresh_interval", json!("1s"), Severity::Warning, "template.settings.index.refresh_interval");
        check("codec", Value::Null, Severity::Warning, "template.settings.index.codec");
        check("number_of_shards", json!(3), Severity::Warning, "template.settings.index.number_of_shards");
        assert_eq!(
            found(json!({"number_of_shards": 2, "number_of_replicas": 0, "auto_expand_replicas": "0-1"}), json!({})),
            []
        );
    }

    #[test]
    fn fields_that_hurt_are_named_by_their_key_path() {
        let check = |field: Value, severity, path: &str| {
            let mappings = json!({"properties": {"o": {"properties": {"f": field}}}});
            let path = format!("template.mappings.properties.o.properties.f{path}");
            assert_eq!(found(json!({"number_of_shards": 2}), mappings), one(severity, &path));
        };
        check(json!({"type": "text", "fielddata": true}), Severity::Error, ".fielddata");
        check(json!({"type": "keyword"}), Severity::Warning, "");
        check(json!({"type": "keyword", "ignore_above": 8192}), Severity::Warning, ".ignore_above");
        check(json!({"type": "text", "fields": {"raw": {"type": "keyword"}}}), Severity::Warning, ".fields.raw");
        let fine = json!({"properties": {
            "a": {"type": "keyword", "ignore_above": 8191},
            "b": {"type": "keyword", "index": false, "doc_values": false}}});
        assert_eq!(found(json!({"number_of_shards": 2}), fine), []);
        let dynamic = json!({"dynamic_templates": [{"t": {"match": "*", "mapping": {"type": "keyword"}}}]});
        let path = "template.mappings.dynamic_templates[0].t.mapping";
        assert_eq!(found(json!({"number_of_shards": 2}), dynamic), one(Severity::Warning, path));
    }

    #[test]
    fn growth_needs_a_limit() {
        let without =
            |mappings: Value| found(json!({"number_of_shards": 2, "mapping.total_fields.limit": null}), mappings);
        assert_eq!(without(json!({})), one(Severity::Error, "template.mappings"));
        assert_eq!(without(json!({"dynamic": true})), one(Severity::Error, "template.mappings.dynamic"));
        assert_eq!(without(json!({"dynamic": false})), []);
        assert_eq!(without(json!({"dynamic": "strict"})), []);
        let inner = json!({"dynamic": false, "properties": {"o": {"dynamic": "true", "properties": {}}}});
        assert_eq!(without(inner), one(Severity::Error, "template.mappings.properties.o.dynamic"));
    }

    #[test]
    fn components_give_settings_and_overlaps_are_told() {
        let base = json!({"template": {"settings": serde_json::from_str::<Value>(GOOD).unwrap()}});
        let template = |pattern: &str, priority: u64| json!({"index_patterns": [pattern], "priority": priority, "composed_of": ["base"]});
        let files = [("component/base.json", base), ("a.json", template("a-*", 1)), ("b.json", template("a-b-*", 2))];
        assert_eq!(lint_all(&files, None), one(Severity::Warning, "index_patterns"));
    }
}
