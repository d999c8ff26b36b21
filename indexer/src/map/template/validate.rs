//! Faults of template files, each with its JSON path and a suggestion.

use serde_json::{Map, Value};

use super::known::{
    BOOLEAN_KEYS, DYNAMIC_TEMPLATE_KEYS, FIELD_KEYS, OBJECT_KEYS, ROOT_MAPPING_KEYS, SETTING_GROUPS, SETTINGS,
    TEMPLATE_KEYS, TYPES, top_keys,
};
use super::{TemplateFault, TemplateKind};

type Json = Map<String, Value>;

pub(super) struct Check {
    file: String,
    faults: Vec<TemplateFault>,
}

impl Check {
    pub(super) fn new(file: &str) -> Self {
        Self { file: file.to_owned(), faults: Vec::new() }
    }

    pub(super) fn into_faults(self) -> Vec<TemplateFault> {
        self.faults
    }

    fn fault(&mut self, path: &str, what: impl Into<String>) {
        self.faults.push(TemplateFault { file: self.file.clone(), path: path.to_owned(), what: what.into() });
    }

    pub(super) fn template(&mut self, kind: TemplateKind, body: &Value) {
        let Some(body) = self.object("", body) else { return };
        self.keys("", body, top_keys(kind), true);
        if kind == TemplateKind::Policy {
            return self.policy(body);
        }
        if kind != TemplateKind::Component {
            self.patterns(body);
        }
        for (key, value) in [("priority", body.get("priority")), ("version", body.get("version"))] {
            if value.is_some_and(|n| n.as_u64().is_none()) {
                self.fault(key, "must be a whole number, 0 or more");
            }
        }
        if kind == TemplateKind::Legacy {
            return self.content("", body);
        }
        match body.get("template") {
            Some(content) => {
                if let Some(content) = self.object("template", content) {
                    self.keys("template", content, TEMPLATE_KEYS, true);
                    self.content("template", content);
                }
            }
            None if kind == TemplateKind::Component => self.fault("", "lacks `template`"),
            None => {}
        }
    }

    fn policy(&mut self, body: &Json) {
        let Some(policy) = body.get("policy") else { return self.fault("policy", "is missing") };
        let Some(policy) = self.object("policy", policy) else { return };
        self.keys("policy", policy, &["phases", "_meta", "deprecated"], true);
        match policy.get("phases").and_then(Value::as_object) {
            None => self.fault("policy.phases", "is missing: give e.g. { \"delete\": { \"min_age\": \"90d\", … } }"),
            Some(phases) => self.keys("policy.phases", phases, &["hot", "warm", "cold", "frozen", "delete"], true),
        }
    }

    fn patterns(&mut self, body: &Json) {
        let patterns = super::strings(body.get("index_patterns"));
        if patterns.is_empty() {
            self.fault("index_patterns", "is missing: give the index names the template is for, e.g. [\"applogs-*\"]");
        }
        for (i, pattern) in patterns.iter().enumerate() {
            if pattern.is_empty() || pattern.chars().any(|c| c.is_uppercase() || c == ' ' || c == ',') {
                self.fault(
                    &format!("index_patterns[{i}]"),
                    format!("`{pattern}` matches no index: names are lower case, without spaces and commas"),
                );
            }
        }
    }

    fn content(&mut self, path: &str, content: &Json) {
        if let Some(settings) = content.get("settings") {
            let path = join(path, "settings");
            if self.object(&path, settings).is_some() {
                self.settings(&path, "", settings);
            }
        }
        if let Some(mappings) = content.get("mappings") {
            let path = join(path, "mappings");
            if let Some(root) = self.object(&path, mappings) {
                match root.get("_doc") {
                    Some(inner) if root.len() == 1 => {
                        let path = join(&path, "_doc");
                        if let Some(inner) = self.object(&path, inner) {
                            self.root(&path, inner);
                        }
                    }
                    _ => self.root(&path, root),
                }
            }
        }
    }

    fn settings(&mut self, path: &str, prefix: &str, value: &Value) {
        if let Value::Object(object) = value {
            for (key, inner) in object {
                let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                self.settings(&join(path, key), &name, inner);
            }
            return;
        }
        let name = prefix.strip_prefix("index.").unwrap_or(prefix);
        if SETTINGS.contains(&name) || SETTING_GROUPS.iter().any(|group| name.starts_with(group)) {
            return;
        }
        if let Some(near) = nearest(name, SETTINGS.iter().copied()) {
            self.fault(path, format!("is not an index setting: did you mean `{near}`?"));
        }
    }

    fn root(&mut self, path: &str, root: &Json) {
        self.keys(path, root, ROOT_MAPPING_KEYS, true);
        self.object_body(path, root);
        let Some(list) = root.get("dynamic_templates") else { return };
        let path = join(path, "dynamic_templates");
        let Some(list) = list.as_array() else { return self.fault(&path, "must be an array") };
        for (i, entry) in list.iter().enumerate() {
            let path = format!("{path}[{i}]");
            let Some(entry) = self.object(&path, entry) else { continue };
            for (name, body) in entry {
                let path = join(&path, name);
                if let Some(body) = self.object(&path, body) {
                    self.keys(&path, body, DYNAMIC_TEMPLATE_KEYS, true);
                    if !body.contains_key("mapping") && !body.contains_key("runtime") {
                        self.fault(&path, "must have `mapping` or `runtime`");
                    }
                }
            }
        }
    }

    /// What the root and objects have in common.
    fn object_body(&mut self, path: &str, body: &Json) {
        if let Some(value) = body.get("dynamic") {
            let word = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            if !["true", "false", "strict", "runtime", "strict_allow_templates", "false_allow_templates"]
                .contains(&word.as_str())
            {
                self.fault(&join(path, "dynamic"), format!("is `{word}`; it must be true, false, strict or runtime"));
            }
        }
        self.booleans(path, body);
        if let Some(properties) = body.get("properties") {
            let path = join(path, "properties");
            if let Some(properties) = self.object(&path, properties) {
                for (name, field) in properties {
                    let path = join(&path, name);
                    if let Some(field) = self.object(&path, field) {
                        self.field(&path, field);
                    }
                }
            }
        }
    }

    fn field(&mut self, path: &str, field: &Json) {
        let type_name = match field.get("type") {
            None if field.contains_key("properties")
                || field.contains_key("dynamic")
                || field.contains_key("enabled") =>
            {
                "object"
            }
            None => return self.fault(path, "has no `type`"),
            Some(Value::String(name)) => name,
            Some(_) => return self.fault(&join(path, "type"), "must be a string"),
        };
        if !TYPES.contains(&type_name)
            && let Some(near) = nearest(type_name, TYPES.iter().copied())
        {
            self.fault(&join(path, "type"), format!("`{type_name}` is not a type: did you mean `{near}`?"));
        }
        if matches!(type_name, "object" | "nested") {
            self.keys(path, field, OBJECT_KEYS, true);
            return self.object_body(path, field);
        }
        self.keys(path, field, FIELD_KEYS, false);
        self.booleans(path, field);
        if let Some(fields) = field.get("fields") {
            let path = join(path, "fields");
            if let Some(fields) = self.object(&path, fields) {
                for (name, inner) in fields {
                    let path = join(&path, name);
                    if let Some(inner) = self.object(&path, inner) {
                        self.field(&path, inner);
                    }
                }
            }
        }
    }

    fn booleans(&mut self, path: &str, body: &Json) {
        for key in BOOLEAN_KEYS {
            let is_right = match body.get(*key) {
                None | Some(Value::Bool(_)) => true,
                Some(Value::String(word)) => word == "true" || word == "false",
                Some(_) => false,
            };
            if !is_right {
                self.fault(&join(path, key), "must be true or false");
            }
        }
    }

    /// Faults unknown keys; unless `is_closed` only those that look like typos.
    fn keys(&mut self, path: &str, object: &Json, known: &[&'static str], is_closed: bool) {
        for key in object.keys().filter(|key| !known.contains(&key.as_str())) {
            let full = join(path, key);
            match nearest(key, known.iter().copied()) {
                Some(near) => self.fault(&full, format!("is not known: did you mean `{near}`?")),
                None if is_closed => self.fault(&full, format!("is not known here; there are {}", known.join(", "))),
                None => {}
            }
        }
    }

    fn object<'a>(&mut self, path: &str, value: &'a Value) -> Option<&'a Json> {
        if !value.is_object() {
            self.fault(path, "must be an object");
        }
        value.as_object()
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The known name that `name` most probably stands for.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let most = (name.chars().count() / 4).clamp(1, 3);
    let near = known.map(|other| (distance(name, other), other)).filter(|(edits, _)| *edits <= most);
    near.min_by_key(|(edits, _)| *edits).map(|(_, other)| other)
}

/// Edits (insertions, deletions, replacements, swaps of neighbours) between two names.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let is_equal = a[i - 1] == b[j - 1];
            let mut least = (rows[i - 1][j - 1] + usize::from(!is_equal)).min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}
