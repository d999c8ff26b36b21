//! What differs between a template file and the cluster, path by path. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::map::TemplateKind;

/// One place with different values; `None` where there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub path: String,
    pub ours: Option<String>,
    pub theirs: Option<String>,
}

/// Compares what both say, however it is written: `false` is `"false"`, `index.codec` is `index: { codec }`.
pub fn diff(kind: TemplateKind, ours: &Value, theirs: &Value) -> Vec<Difference> {
    let (mut ours, mut theirs) = (places(kind, ours), places(kind, theirs));
    let paths: std::collections::BTreeSet<String> = ours.keys().chain(theirs.keys()).cloned().collect();
    let pairs = paths.into_iter().map(|path| (ours.remove(&path), theirs.remove(&path), path));
    pairs
        .filter(|(ours, theirs, _)| ours != theirs)
        .map(|(ours, theirs, path)| Difference { path, ours, theirs })
        .collect()
}

type Places = BTreeMap<String, String>;

fn places(kind: TemplateKind, body: &Value) -> Places {
    let mut found = Places::new();
    collect("", body, &mut found);
    // Defaults, and what the server notes by itself.
    found.retain(|path, value| {
        let is_noted = ["created_date", "modified_date"].iter().any(|noted| path.starts_with(noted));
        !is_noted && !matches!((path.as_str(), value.as_str()), ("order" | "priority", "0"))
    });
    let at = if kind == TemplateKind::Legacy { "" } else { "template." };
    let (settings, mappings) = (format!("{at}settings."), format!("{at}mappings."));
    let named = found.into_iter().map(|(path, value)| {
        let path = if let Some(setting) = path.strip_prefix(&settings) {
            format!("{settings}index.{}", setting.strip_prefix("index.").unwrap_or(setting))
        } else if let Some(inner) = path.strip_prefix(&mappings) {
            format!("{mappings}{}", inner.strip_prefix("_doc.").unwrap_or(inner))
        } else {
            path
        };
        (path, value)
    });
    named.collect()
}

fn collect(path: &str, value: &Value, found: &mut Places) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Object(object) => object.iter().for_each(|(key, inner)| collect(&below(key), inner, found)),
        // One value and a list of one are the same.
        Value::Array(list) if list.len() == 1 => collect(path, &list[0], found),
        Value::Array(list) if list.iter().all(|inner| !inner.is_object() && !inner.is_array()) => {
            let texts: Vec<String> = list.iter().map(text).collect();
            if !texts.is_empty() {
                found.insert(path.to_owned(), texts.join(", "));
            }
        }
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(i, inner)| collect(&format!("{path}[{i}]"), inner, found));
        }
        Value::Null => {}
        scalar => {
            found.insert(path.to_owned(), text(scalar));
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_only_written_differently_is_the_same() {
        let ours = json!({"index_patterns": "a-*", "priority": 501, "template": {
            "settings": {"index.codec": "best_compression", "number_of_shards": 1},
            "mappings": {"_doc": {"dynamic": false}}}});
        let theirs = json!({"index_patterns": ["a-*"], "priority": 501, "composed_of": [], "template": {
            "settings": {"index": {"codec": "best_compression", "number_of_shards": "1"}},
            "mappings": {"dynamic": "false"}, "aliases": {}},
            "created_date_millis": 1, "modified_date_millis": 1});
        assert_eq!(diff(TemplateKind::Index, &ours, &theirs), []);
        let (ours, theirs) = (
            json!({"settings": {"refresh_interval": "5s"}}),
            json!({"order": 0, "settings": {"index": {"refresh_interval": "5s"}}}),
        );
        assert_eq!(diff(TemplateKind::Legacy, &ours, &theirs), []);
    }

    #[test]
    fn each_difference_has_its_path_and_both_values() {
        let ours = json!({"version": 2, "template": {"mappings": {"properties": {"a": {"type": "long"}}}}});
        let theirs =
            json!({"version": 1, "template": {"mappings": {"properties": {"a": {"type": "long", "index": false}}}}});
        let found = diff(TemplateKind::Index, &ours, &theirs);
        let expected =
            [("template.mappings.properties.a.index", None, Some("false")), ("version", Some("2"), Some("1"))];
        let expected = expected.map(|(path, ours, theirs)| Difference {
            path: path.to_owned(),
            ours: ours.map(str::to_owned),
            theirs: theirs.map(str::to_owned),
        });
        assert_eq!(found, expected);
    }
}
