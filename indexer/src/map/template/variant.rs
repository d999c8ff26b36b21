//! One set of files for every server: what a server lacks is taken out or replaced.
//!
//! | server | what changes |
//! |---|---|
//! | Elasticsearch with lifecycle management | nothing |
//! | Elasticsearch without | no policies, no `index.lifecycle` |
//! | OpenSearch | the same; `flattened` becomes `flat_object`, which has no parameters |

use serde_json::{Map, Value};

use super::{TemplateKind, TemplateSet};
use crate::map::options::{Flavor, ServerVersion};

/// What a server reports of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    pub version: ServerVersion,
    /// It has index lifecycle management.
    pub has_ilm: bool,
}

impl TemplateSet {
    /// These templates as `server` can take them.
    pub fn for_server(&self, server: Server) -> Self {
        let bodies = self.bodies.iter().filter(|((kind, _), _)| *kind != TemplateKind::Policy || server.has_ilm);
        let adapted = bodies.map(|((kind, name), body)| ((*kind, name.clone()), adapt(*kind, body.clone(), server)));
        Self { bodies: adapted.collect() }
    }
}

fn adapt(kind: TemplateKind, mut body: Value, server: Server) -> Value {
    let content = if kind == TemplateKind::Legacy { Some(&mut body) } else { body.get_mut("template") };
    let Some(content) = content.filter(|_| kind != TemplateKind::Policy) else { return body };
    if let Some(settings) = content.get_mut("settings").filter(|_| !server.has_ilm) {
        without_lifecycle(settings);
    }
    if let Some(mappings) = content.get_mut("mappings").filter(|_| server.version.flavor == Flavor::OpenSearch) {
        with_flat_objects(mappings);
    }
    body
}

fn without_lifecycle(settings: &mut Value) {
    let Some(settings) = settings.as_object_mut() else { return };
    settings.retain(|key, _| {
        let key = key.strip_prefix("index.").unwrap_or(key);
        key != "lifecycle" && !key.starts_with("lifecycle.")
    });
    if let Some(index) = settings.get_mut("index") {
        without_lifecycle(index);
    }
}

fn with_flat_objects(value: &mut Value) {
    match value {
        Value::Object(object) if object.get("type").is_some_and(|name| name == "flattened") => {
            *object = Map::from_iter([("type".to_owned(), "flat_object".into())]);
        }
        Value::Object(object) => object.values_mut().for_each(with_flat_objects),
        Value::Array(list) => list.iter_mut().for_each(with_flat_objects),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::map::TemplateFile;

    fn set() -> TemplateSet {
        let template = json!({"index_patterns": ["a-*"], "template": {
            "settings": {"index": {"lifecycle": {"name": "a"}, "codec": "default"}, "index.lifecycle.rollover_alias": "a"},
            "mappings": {"properties": {
                "attrs": {"type": "flattened", "ignore_above": 1024},
                "inner": {"properties": {"type": {"type": "keyword"}, "labels": {"type": "flattened"}}},
            }},
        }});
        let policy = json!({"policy": {"phases": {"delete": {"min_age": "90d", "actions": {"delete": {}}}}}});
        let file = |name: &str, body: &Value| TemplateFile { name: name.to_owned(), text: body.to_string() };
        TemplateSet::parse(&[file("a.json", &template), file("policy/a.json", &policy)]).unwrap()
    }

    fn bodies(version: ServerVersion, has_ilm: bool) -> Vec<Value> {
        set().for_server(Server { version, has_ilm }).bodies().map(|(_, _, body)| body.clone()).collect()
    }

    #[test]
    fn with_lifecycle_management_nothing_changes() {
        let all: Vec<Value> = set().bodies().map(|(_, _, body)| body.clone()).collect();
        assert_eq!(bodies(ServerVersion::elasticsearch(8, 19), true), all);
        assert_eq!(all.len(), 2);
    }

    #[test]
    fn without_it_policies_and_their_settings_are_left_out() {
        let bodies = bodies(ServerVersion::elasticsearch(8, 19), false);
        assert_eq!(bodies.len(), 1);
        assert_eq!(bodies[0]["template"]["settings"], json!({"index": {"codec": "default"}}));
        assert_eq!(bodies[0]["template"]["mappings"]["properties"]["attrs"]["ignore_above"], 1024);
    }

    #[test]
    fn opensearch_gets_its_own_flattened_type_and_a_field_named_type_is_no_type() {
        let bodies = bodies(ServerVersion::opensearch(2, 19), false);
        let properties = &bodies[0]["template"]["mappings"]["properties"];
        assert_eq!(properties["attrs"], json!({"type": "flat_object"}));
        assert_eq!(properties["inner"]["properties"]["labels"], json!({"type": "flat_object"}));
        assert_eq!(properties["inner"]["properties"]["type"], json!({"type": "keyword"}));
    }
}
