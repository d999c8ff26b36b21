use serde_json::json;

use super::*;

fn file(name: &str, body: Value) -> TemplateFile {
    TemplateFile { name: name.to_owned(), text: body.to_string() }
}

fn faults(name: &str, body: Value) -> Vec<String> {
    match TemplateSet::parse(&[file(name, body)]) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn highest_priority_wins_and_components_merge_in_order() {
    let set = TemplateSet::parse(&[
        file("low.json", json!({"index_patterns": ["app*"], "template": {"settings": {"number_of_shards": 9}}})),
        file(
            "high.json",
            json!({
                "index_patterns": ["x-*", "applogs-*"],
                "priority": 500,
                "composed_of": ["one", "two"],
                "template": {
                    "settings": {"index.codec": "default", "index": {"mapping": {"total_fields.limit": 7}}},
                    "mappings": {"dynamic": "strict", "properties": {"b": {"properties": {"z": {"type": "ip"}}}}}
                }
            }),
        ),
        file(
            "component/one.json",
            json!({"template": {
                "settings": {"codec": "best_compression", "number_of_shards": 2},
                "mappings": {
                    "dynamic": false,
                    "dynamic_templates": [{"s": {"match": "s*", "mapping": {"type": "keyword"}}}],
                    "properties": {
                        "a": {"type": "keyword", "ignore_above": 5},
                        "b": {"dynamic": true, "properties": {"y": {"type": "long"}}}
                    }
                }
            }}),
        ),
        file(
            "component/two.json",
            json!({"template": {
                "settings": {"number_of_shards": 3},
                "mappings": {
                    "dynamic_templates": [{"t": {"match": "t*", "mapping": {"type": "text"}}}, {"s": {"unmatch": "sx", "mapping": {"store": true}}}],
                    "properties": {"a": {"type": "text"}}
                }
            }}),
        ),
    ])
    .expect("no fault");
    let composed = set.compose("applogs-shop-2026.11.23").expect("matches");
    assert_eq!((composed.name.as_str(), composed.priority), ("high", 500));
    assert_eq!(
        composed.settings,
        json!({"index": {"codec": "default", "number_of_shards": 3, "mapping": {"total_fields": {"limit": 7}}}})
    );
    assert_eq!(
        composed.mappings,
        json!({
            "dynamic": "strict",
            "dynamic_templates": [
                {"s": {"match": "s*", "unmatch": "sx", "mapping": {"type": "keyword", "store": true}}},
                {"t": {"match": "t*", "mapping": {"type": "text"}}}
            ],
            "properties": {
                "a": {"type": "text"},
                "b": {"properties": {"y": {"type": "long"}, "z": {"type": "ip"}}}
            }
        })
    );
    assert_eq!(set.compose("apple").expect("matches").name, "low");
    assert_eq!(set.compose("other"), None);
    let order: Vec<_> = set.bodies().map(|(kind, name, _)| (kind, name)).collect();
    assert_eq!(order[0], (TemplateKind::Component, "one"));
    assert_eq!(order[3], (TemplateKind::Index, "low"));
}

#[test]
fn legacy_templates_all_apply_by_order_unless_an_index_template_matches() {
    let legacy = |order, field: Value, shards| {
        json!({"index_patterns": "a*", "order": order, "settings": {"number_of_shards": shards},
               "mappings": {"_doc": {"properties": {"f": field}}}})
    };
    let set = TemplateSet::parse(&[
        file("legacy/second.json", legacy(2, json!({"type": "keyword"}), 2)),
        file("legacy/first.json", legacy(1, json!({"type": "text", "store": true}), 1)),
    ])
    .expect("no fault");
    let composed = set.compose("ab").expect("matches");
    assert_eq!(composed.name, "first,second");
    assert_eq!(composed.settings, json!({"index": {"number_of_shards": 2}}));
    assert_eq!(composed.mappings, json!({"properties": {"f": {"type": "keyword", "store": true}}}));
}

#[test]
fn who_manages_a_legacy_template_stands_in_its_mappings() {
    let body = json!({"index_patterns": "a*", "version": 3, "mappings": {"_meta": {"managed_by": "millrace"}}});
    assert_eq!(TemplateKind::Legacy.origin(&body), (Some("millrace"), Some(3)));
    // Elasticsearch refuses it beside them.
    let found = faults("legacy/logs.json", json!({"index_patterns": "a*", "_meta": {"managed_by": "millrace"}}));
    assert!(found.iter().any(|fault| fault.contains("`_meta` is not known")), "{found:?}");
}

#[test]
fn a_typo_is_named_by_file_and_path_with_a_suggestion() {
    let template = |mappings: Value| json!({"index_patterns": ["a"], "template": {"mappings": mappings}});
    let check = |body: Value, expected: &str| {
        let found = faults("logs.json", body);
        assert!(found.iter().any(|fault| fault.contains(expected)), "{found:?} lacks {expected}");
    };
    check(json!({"index_pattern": ["a"]}), "logs.json: `index_pattern` is not known: did you mean `index_patterns`?");
    check(
        template(json!({"properties": {"s": {"type": "keywrod"}}})),
        "`template.mappings.properties.s.type` `keywrod` is not a type: did you mean `keyword`?",
    );
    check(
        template(json!({"properties": {"s": {"type": "keyword", "ignore_abov": 3}}})),
        "`template.mappings.properties.s.ignore_abov` is not known: did you mean `ignore_above`?",
    );
    check(
        template(json!({"properties": {"s": {"type": "text", "index": "not_analyzed"}}})),
        "`template.mappings.properties.s.index` must be true or false",
    );
    check(template(json!({"dynamic": "stric"})), "`template.mappings.dynamic` is `stric`");
    check(template(json!({"propertys": {}})), "did you mean `properties`?");
    check(
        json!({"index_patterns": ["a"], "template": {"settings": {"index": {"refresh_intervall": "1s"}}}}),
        "`template.settings.index.refresh_intervall` is not an index setting: did you mean `refresh_interval`?",
    );
    check(
        json!({"index_patterns": ["a"], "composed_of": ["bas"]}),
        "`composed_of[0]` names the unknown component template `bas`: add `component/bas.json`",
    );
    check(json!([]), "logs.json: must be an object");
    assert!(faults("deep/er.json", json!({}))[0].contains("means nothing here"));
    let broken = TemplateFile { name: "x.json".into(), text: "{".into() };
    assert!(TemplateSet::parse(&[broken]).expect_err("broken")[0].to_string().starts_with("x.json: is not JSON"));
}

#[test]
fn equal_priority_with_overlapping_patterns_is_refused() {
    let body = |pattern| json!({"index_patterns": [pattern], "priority": 5});
    let files = [file("a.json", body("logs-*")), file("b.json", body("logs-app"))];
    assert!(TemplateSet::parse(&files).expect_err("overlap")[0].what.contains("`b.json`"));
}

#[test]
fn a_component_that_may_be_missing_is_left_out() {
    let body =
        json!({"index_patterns": ["a"], "composed_of": ["gone"], "ignore_missing_component_templates": ["gone"]});
    assert!(faults("a.json", body).is_empty());
}

#[test]
fn an_index_is_made_of_the_winner_its_components_and_its_policy() {
    let policy = json!({"settings": {"index.lifecycle.name": "keep"}});
    let set = TemplateSet::parse(&[
        file("low.json", json!({"index_patterns": ["app*"]})),
        file(
            "high.json",
            json!({"index_patterns": ["app-*"], "priority": 5, "composed_of": ["one"], "template": policy}),
        ),
        file("other.json", json!({"index_patterns": ["other-*"], "priority": 5})),
        file("component/one.json", json!({"template": {}})),
        file("component/two.json", json!({"template": {}})),
        file("legacy/old.json", json!({"index_patterns": ["old-*"]})),
        file("policy/keep.json", json!({"policy": {"phases": {}}})),
    ]);
    let set = set.expect("no fault");
    let parts = |index: &str| set.parts(index).into_iter().map(|(kind, name)| kind.file(&name)).collect::<Vec<_>>();
    assert_eq!(parts("app-a"), ["component/one.json", "high.json", "policy/keep.json"]);
    assert_eq!(parts("apps"), ["low.json"]);
    assert_eq!(parts("old-a"), ["legacy/old.json"]);
    assert!(parts("none").is_empty());
}
