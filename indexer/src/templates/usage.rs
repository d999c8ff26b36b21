//! Fields that templates map against fields that records have. Pure.

use std::collections::{BTreeMap, BTreeSet};

use millrace_common::json::{Kind, Value};
use serde_json::Value as Json;

use crate::map::Composed;

/// Distinct unmapped fields that are told apart, for each template; more are counted together.
const MOST_UNMAPPED: usize = 10_000;

#[derive(Default)]
pub struct Usage {
    templates: BTreeMap<String, Counted>,
}

#[derive(Default)]
struct Counted {
    num_records: u64,
    /// `true`: whatever is below is taken too (`flattened`, `enabled: false`).
    mapped: BTreeMap<String, bool>,
    sent: BTreeSet<String>,
    unmapped: BTreeMap<String, u64>,
    num_others: u64,
}

/// What was found for one template.
#[derive(Debug, PartialEq, Eq)]
pub struct Report<'u> {
    pub template: &'u str,
    pub num_records: u64,
    pub num_mapped: usize,
    pub never_sent: Vec<&'u str>,
    /// With the number of records that have it, most first.
    pub unmapped: Vec<(&'u str, u64)>,
    /// Occurrences of unmapped fields past those that are told apart.
    pub num_others: u64,
}

impl Usage {
    /// Counts the fields of a record against the template of its index.
    pub fn count(&mut self, composed: &Composed, document: Value<'_, '_>) {
        let counted = self.templates.entry(composed.name.clone()).or_insert_with(|| {
            let mut mapped = BTreeMap::new();
            collect("", &composed.mappings, &mut mapped);
            Counted { mapped, ..Counted::default() }
        });
        counted.num_records += 1;
        let mut paths = BTreeSet::new();
        leaves("", document, &mut paths);
        for path in paths {
            counted.add(path);
        }
    }

    pub fn reports(&self) -> impl Iterator<Item = Report<'_>> {
        self.templates.iter().map(|(template, counted)| {
            let mapped = counted.mapped.keys().map(String::as_str);
            let mut unmapped: Vec<_> = counted.unmapped.iter().map(|(path, n)| (path.as_str(), *n)).collect();
            unmapped.sort_by_key(|(path, n)| (std::cmp::Reverse(*n), *path));
            Report {
                template,
                num_records: counted.num_records,
                num_mapped: counted.mapped.len(),
                never_sent: mapped.filter(|path| !counted.sent.contains(*path)).collect(),
                unmapped,
                num_others: counted.num_others,
            }
        })
    }
}

impl Counted {
    fn add(&mut self, path: String) {
        let ways = std::iter::successors(Some(path.as_str()), |path| Some(path.rsplit_once('.')?.0));
        let taker = ways.into_iter().find_map(|way| Some((way, *self.mapped.get(way)?)));
        match taker {
            Some((way, takes_all)) if takes_all || way == path => {
                if !self.sent.contains(way) {
                    self.sent.insert(way.to_owned());
                }
            }
            _ => {
                if self.unmapped.len() < MOST_UNMAPPED || self.unmapped.contains_key(&path) {
                    *self.unmapped.entry(path).or_default() += 1;
                } else {
                    self.num_others += 1;
                }
            }
        }
    }
}

/// The fields of a mapping, objects only where they are disabled.
fn collect(prefix: &str, object: &Json, mapped: &mut BTreeMap<String, bool>) {
    for (name, body) in object["properties"].as_object().into_iter().flatten() {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        let is_disabled = body["enabled"] == false || body["enabled"] == "false";
        match body["type"].as_str().unwrap_or("object") {
            "alias" => {}
            "object" | "nested" if !is_disabled => collect(&path, body, mapped),
            type_name => {
                let takes_all = is_disabled || ["flattened", "flat_object"].contains(&type_name);
                mapped.insert(path, takes_all);
            }
        }
    }
}

fn leaves(prefix: &str, value: Value<'_, '_>, paths: &mut BTreeSet<String>) {
    match value.kind() {
        Kind::Object => {
            for (key, inner) in value.members() {
                let name = key.name();
                let path = if prefix.is_empty() { name.into_owned() } else { format!("{prefix}.{name}") };
                leaves(&path, inner, paths);
            }
        }
        Kind::Array => value.elements().for_each(|element| leaves(prefix, element, paths)),
        Kind::Null => {}
        _ => {
            paths.insert(prefix.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use millrace_common::json::Parser;
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_counted_by_their_dotted_paths() {
        let mappings = json!({"properties": {
            "message": {"type": "text"},
            "http": {"properties": {"status": {"type": "short"}, "bytes": {"type": "long"}}},
            "attrs": {"type": "flattened"},
            "raw": {"type": "object", "enabled": false},
            "never": {"type": "keyword"},
            "also": {"type": "alias", "path": "message"}}});
        let composed = Composed {
            name: "logs".to_owned(),
            priority: 0,
            settings: Json::Null,
            mappings,
            aliases: Json::Null,
            is_data_stream: false,
        };
        let mut usage = Usage::default();
        for text in [
            r#"{"message":"m","http.status":200,"user":{"id":1,"name":null},"attrs":{"a":{"b":1}}}"#,
            r#"{"message":{"x":1},"user":{"id":2},"list":[{"n":1},{"n":2}],"raw":{"q":1}}"#,
        ] {
            usage.count(&composed, Parser::default().parse(text.as_bytes()).unwrap());
        }
        let expected = Report {
            template: "logs",
            num_records: 2,
            num_mapped: 6,
            never_sent: vec!["http.bytes", "never"],
            unmapped: vec![("user.id", 2), ("list.n", 1), ("message.x", 1)],
            num_others: 0,
        };
        assert_eq!(usage.reports().collect::<Vec<_>>(), [expected]);
    }
}
