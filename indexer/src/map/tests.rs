//! Documents through plans: what is sent, what is refused, and that nothing is lost on the way.

use millrace_common::json::{Parser, Value as Json};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn rule() -> RuleOptions {
    RuleOptions {
        unmapped: Unmapped::Fold,
        fold_into: Some("attrs".to_owned()),
        on_conflict: OnConflict::Quarantine,
        field_budget: None,
        protected: vec!["@timestamp".to_owned(), "service.name".to_owned()],
    }
}

fn mappings() -> Value {
    json!({
        "dynamic": false,
        "properties": {
            "@timestamp": {"type": "date"},
            "message": {"type": "text"},
            "status": {"type": "short"},
            "code": {"type": "long", "ignore_malformed": true},
            "tag": {"type": "keyword", "ignore_above": 10},
            "term": {"type": "keyword", "fields": {"n": {"type": "ip", "ignore_malformed": true}}},
            "service": {"properties": {"name": {"type": "keyword"}, "port": {"type": "integer"}}},
            "client": {"properties": {"ip": {"type": "ip"}}},
            "items": {"type": "nested", "properties": {"n": {"type": "long"}}},
            "raw": {"type": "object", "enabled": false},
            "labels": {"type": "flattened", "depth_limit": 2},
            "attrs": {"type": "flattened"}
        }
    })
}

fn plan_with(mappings: &Value, settings: &Value, rule: &RuleOptions) -> Plan {
    Plan::compile(mappings, settings, rule, ServerVersion::default()).expect("a good mapping")
}

/// The text that would be sent, or the reject as `reason field`.
fn sent(plan: &Plan, document: &str, state: &mut State, actions: &mut Actions) -> String {
    sent_after(&mut Parser::default(), plan, document, state, actions)
}

/// As [`sent`], by a parser that knows earlier documents.
fn sent_after(parser: &mut Parser, plan: &Plan, document: &str, state: &mut State, actions: &mut Actions) -> String {
    let document = parser.parse(document.as_bytes()).expect("JSON");
    let mut out = b"kept:".to_vec();
    let input = Input { document, timestamp: Some("\"2026-11-23T00:00:00.000Z\"") };
    match plan.apply(input, state, &mut out, actions) {
        Verdict::Unchanged => {
            assert_eq!(out, b"kept:");
            document.raw().to_owned()
        }
        Verdict::Rewritten => String::from_utf8(out[5..].to_vec()).expect("UTF-8"),
        Verdict::Reject(reject) => {
            assert_eq!(out, b"kept:");
            assert!(reject.detail.contains(&reject.field), "{reject:?}");
            format!("{} {}", reject.reason.as_str(), reject.field)
        }
    }
}

#[track_caller]
fn check_with(mappings: &Value, rule: &RuleOptions, cases: &[(&str, &str)]) {
    let plan = plan_with(mappings, &json!({}), rule);
    for (document, expected) in cases {
        let got = sent(&plan, document, &mut State::default(), &mut Actions::default());
        assert_eq!(&got, expected, "{document}");
    }
}

#[track_caller]
fn check(cases: &[(&str, &str)]) {
    check_with(&mappings(), &rule(), cases);
}

#[track_caller]
fn check_unchanged(documents: &[&str]) {
    for document in documents {
        check(&[(document, document)]);
    }
}

#[test]
fn a_document_that_fits_is_sent_as_it_was_written() {
    check_unchanged(&[
        "{}",
        r#"{"status": 1.0, "code":9223372036854775807 ,"message":"\u0041"}"#,
        r#"{"@timestamp":"2026-11-23T06:30:17.123Z","service":{"name":"shop"},"service.port":"80"}"#,
        r#"{"status":[1,null,["2"]],"tag":"longer than ten","code":"x"}"#,
        r#"{"items":[{"n":1},{"n":2}],"raw":{"a":{"b":[1]}},"labels":{"a":{"b":1}},"attrs":{"x":[1,{"y":2}]}}"#,
        r#"{"client":null,"raw":7,"labels":null,"client.ip":"::1"}"#,
    ]);
}

#[test]
fn unmapped_fields_are_folded_with_their_bytes() {
    check(&[
        (r#"{"status":1,"x":1.0,"y":{"z":"\u0041"}}"#, r#"{"status":1,"attrs":{"x":1.0,"y":{"z":"\u0041"}}}"#),
        (r#"{"x":1}"#, r#"{"attrs":{"x":1}}"#),
        (r#"{"attrs":{"a":1},"x":2,"status":3}"#, r#"{"status":3,"attrs":{"a":1,"x":2}}"#),
        (r#"{"x":2,"attrs":{"x":1}}"#, r#"{"attrs":{"x":[1,2]}}"#),
        (r#"{"x":{"b":2},"attrs":{"x":{"a":1}}}"#, r#"{"attrs":{"x":{"a":1,"b":2}}}"#),
        (r#"{"x":{"b":2},"attrs":{"x":1}}"#, r#"{"attrs":{"x":{"_value":1,"b":2}}}"#),
        (r#"{"attrs.a":1,"x":2,"attrs":{"b":3}}"#, r#"{"attrs":{"a":1,"b":3,"x":2}}"#),
        (
            r#"{"client":{"ip":"1.2.3.4","geo":"x"},"client.as":5}"#,
            r#"{"client":{"ip":"1.2.3.4"},"attrs":{"client":{"geo":"x"},"client.as":5}}"#,
        ),
        (r#"{"items":[{"n":1,"q":1},{"q":[2,3]}]}"#, r#"{"items":[{"n":1},{}],"attrs":{"items":{"q":[1,2,3]}}}"#),
    ]);
}

#[test]
fn a_value_that_does_not_fit_is_quarantined_as_text() {
    check(&[
        (r#"{"status":"abc","tag":"t"}"#, r#"{"tag":"t","attrs":{"malformed":{"status":"abc"}}}"#),
        (r#"{"status":[1,70000]}"#, r#"{"attrs":{"malformed":{"status":"[1,70000]"}}}"#),
        (r#"{"client":"1.2.3.4"}"#, r#"{"attrs":{"malformed":{"client":"1.2.3.4"}}}"#),
        (
            r#"{"client":{"ip":{"v4":"1.2.3.4"}}}"#,
            r#"{"client":{},"attrs":{"malformed":{"client.ip":"{\"v4\":\"1.2.3.4\"}"}}}"#,
        ),
        (
            r#"{"items":[{"n":"a"},{"n":2},{"n":"c"}]}"#,
            r#"{"items":[{},{"n":2},{}],"attrs":{"malformed":{"items.n":["a","c"]}}}"#,
        ),
        (r#"{"client":[{"x":1},5]}"#, r#"{"attrs":{"malformed":{"client":"[{\"x\":1},5]"}}}"#),
    ]);
}

#[test]
fn a_bad_timestamp_is_replaced_and_other_protected_fields_reject() {
    check(&[
        (
            r#"{"@timestamp":"yesterday","status":1}"#,
            r#"{"@timestamp":"2026-11-23T00:00:00.000Z","status":1,"attrs":{"malformed":{"@timestamp":"yesterday"}}}"#,
        ),
        (r#"{"service":{"name":{"x":1}}}"#, "type_conflict service.name"),
        (r#"{"service":5}"#, "type_conflict service"),
    ]);
}

#[test]
fn implausible_dates_are_quarantined_though_elasticsearch_takes_them() {
    let mappings = json!({"properties": {"t": {"type": "date"}, "attrs": {"type": "flattened"}}});
    check_with(
        &mappings,
        &rule(),
        &[(r#"{"t":1604948142953141464}"#, r#"{"attrs":{"malformed":{"t":"1604948142953141464"}}}"#)],
    );
    let plan = plan_with(&mappings, &json!({}), &rule());
    let mut parser = Parser::default();
    let document = parser.parse(br#"{"t":1604948142953141464}"#).expect("JSON");
    assert_eq!(plan.predict(document).outcome, Outcome::Accepted);
}

#[test]
fn on_conflict_reject_and_send() {
    let reject = RuleOptions { on_conflict: OnConflict::Reject, ..rule() };
    check_with(&mappings(), &reject, &[(r#"{"status":"abc"}"#, "type_conflict status")]);
    let no_fold = RuleOptions { fold_into: None, unmapped: Unmapped::Keep, ..rule() };
    check_with(&mappings(), &no_fold, &[(r#"{"status":"abc"}"#, "type_conflict status")]);
    let send = RuleOptions { on_conflict: OnConflict::Send, ..rule() };
    check_with(&mappings(), &send, &[(r#"{"status":"abc"}"#, r#"{"status":"abc"}"#)]);
}

#[test]
fn keep_and_drop_under_dynamic_false() {
    let document = r#"{"x":{"y":1},"status":2,"service":{"name":"a","z":1}}"#;
    let keep = RuleOptions { unmapped: Unmapped::Keep, ..rule() };
    check_with(&mappings(), &keep, &[(document, document)]);
    let drop = RuleOptions { unmapped: Unmapped::Drop, ..rule() };
    check_with(&mappings(), &drop, &[(document, r#"{"status":2,"service":{"name":"a"}}"#)]);
}

#[test]
fn strict_rejects_by_name_or_folds() {
    let mut strict = mappings();
    strict["dynamic"] = json!("strict");
    strict["properties"]["client"]["dynamic"] = json!(false);
    let keep = RuleOptions { unmapped: Unmapped::Keep, ..rule() };
    check_with(
        &strict,
        &keep,
        &[
            (r#"{"service":{"x":1}}"#, "unmapped_field service.x"),
            (r#"{"x":null}"#, "unmapped_field x"),
            (r#"{"client":{"x":1}}"#, r#"{"client":{"x":1}}"#),
        ],
    );
    check_with(&strict, &rule(), &[(r#"{"service":{"x":1}}"#, r#"{"service":{},"attrs":{"service":{"x":1}}}"#)]);
}

#[test]
fn m10_of_equal_keys_the_last_wins_at_every_level() {
    check(&[
        (r#"{"status":1,"status":2}"#, r#"{"status":2}"#),
        (r#"{"status":"bad","status":2,"status":3}"#, r#"{"status":3}"#),
        (r#"{"raw":{"a":1,"a":2},"client":{"ip":"x","ip":"::1"}}"#, r#"{"raw":{"a":2},"client":{"ip":"::1"}}"#),
        (r#"{"x":{"a":1,"\u0061":2}}"#, r#"{"attrs":{"x":{"\u0061":2}}}"#.replace("\\u0061", "a").as_str()),
        (r#"{"attrs":{"a":1,"a":2}}"#, r#"{"attrs":{"a":2}}"#),
        (r#"{"attrs":{"a":1},"attrs":{"b":2}}"#, r#"{"attrs":{"a":1,"b":2}}"#),
    ]);
    let names: Vec<String> = (0..100).map(|n| format!("\"k{n}\":0")).collect();
    let many = format!("{{\"k3\":1,{}}}", names.join(","));
    let keep = RuleOptions { unmapped: Unmapped::Keep, ..rule() };
    check_with(&mappings(), &keep, &[(&many, &format!("{{{}}}", names.join(",")))]);
}

#[test]
fn m16_names_that_elasticsearch_refuses_are_folded() {
    check(&[
        (r#"{"":1,"status":1}"#, r#"{"status":1,"attrs":{"":1}}"#),
        (
            r#"{" ":1,".":2,"..":3,".a":4,"a..b":5,"a. .b":6}"#,
            r#"{"attrs":{" ":1,".":2,"..":3,".a":4,"a..b":5,"a. .b":6}}"#,
        ),
        // Dots at the end are dropped by Elasticsearch.
        (r#"{"status.":1}"#, r#"{"status.":1}"#),
    ]);
    let keep = RuleOptions { unmapped: Unmapped::Keep, fold_into: None, ..rule() };
    check_with(&mappings(), &keep, &[(r#"{"client":{"":1}}"#, "field_name client")]);
}

#[test]
fn m08_immense_terms_are_cut_only_as_far_as_needed() {
    let fits = format!(r#"{{"term":"{}"}}"#, "a".repeat(32_766));
    check_unchanged(&[&fits]);
    let long = format!(r#"{{"term":"{}"}}"#, "a".repeat(84_148));
    let plan = plan_with(&mappings(), &json!({}), &rule());
    let mut actions = Actions::detailed();
    let got = sent(&plan, &long, &mut State::default(), &mut actions);
    let got: Value = serde_json::from_str(&got).expect("JSON");
    let kept = got["attrs"]["malformed"]["term"].as_str().expect("text");
    // "malformed.term", a NUL and the value make one term.
    assert_eq!(kept.len(), 32_766 - 15);
    assert_eq!((actions.count(ActionKind::Quarantine), actions.count(ActionKind::Cut)), (1, 1));
    assert_eq!(actions.details()[0].field, "term");
    let reject = RuleOptions { on_conflict: OnConflict::Reject, ..rule() };
    check_with(&mappings(), &reject, &[(&long, "immense_term term")]);
}

#[test]
fn what_is_folded_is_made_to_fit_a_flattened_field() {
    let deep = format!("{{\"x\":{}1{}}}", "{\"d\":".repeat(30), "}".repeat(30));
    let plan = plan_with(&mappings(), &json!({}), &rule());
    let mut actions = Actions::default();
    let got = sent(&plan, &deep, &mut State::default(), &mut actions);
    assert_eq!(got.matches("{\\\"d\\\"").count(), 11, "{got}");
    assert_eq!(actions.count(ActionKind::Flatten), 1);
    check(&[
        (r#"{"x\u0000y":{"\u0000":1}}"#, r#"{"attrs":{"x␀y":{"␀":1}}}"#),
        (r#"{"labels":{"a":{"b":{"c":1}}}}"#, r#"{"attrs":{"malformed":{"labels":"{\"a\":{\"b\":{\"c\":1}}}"}}}"#),
        (r#"{"attrs":"text","status":1}"#, r#"{"status":1,"attrs":{"_value":"text"}}"#),
        (r#"{"attrs":[{"a":1},2,{"a":3}]}"#, r#"{"attrs":{"a":[1,3],"_value":2}}"#),
    ]);
}

#[test]
fn a_folded_document_is_left_alone_the_second_time() {
    let plan = plan_with(&mappings(), &json!({}), &rule());
    let deep = format!("{{\"x\":{}1{},\"\\u0000\":5,\"status\":\"q\"}}", "{\"d\":".repeat(30), "}".repeat(30));
    let once = sent(&plan, &deep, &mut State::default(), &mut Actions::default());
    assert_eq!(sent(&plan, &once, &mut State::default(), &mut Actions::default()), once);
}

#[test]
fn fold_into_must_take_anything() {
    let compile = |mappings: Value, field: &str| {
        let rule = RuleOptions { fold_into: Some(field.to_owned()), ..rule() };
        Plan::compile(&mappings, &json!({}), &rule, ServerVersion::default()).map(|_| ()).map_err(|e| e.to_string())
    };
    let flat = |name: &str, body: Value| json!({"properties": {name: body}});
    assert_eq!(compile(flat("a", json!({"type": "flattened"})), "a"), Ok(()));
    assert_eq!(compile(flat("a", json!({"type": "flat_object"})), "a"), Ok(()));
    assert_eq!(compile(flat("a", json!({"enabled": false})), "a"), Ok(()));
    assert!(compile(flat("a", json!({"type": "keyword"})), "a").expect_err("keyword").contains("type `keyword`"));
    assert!(compile(flat("a", json!({"properties": {}})), "a").expect_err("object").contains("is an object"));
    assert!(compile(flat("b", json!({"type": "flattened"})), "a").expect_err("missing").contains("not in the mapping"));
    let nested = flat("n", json!({"type": "nested", "properties": {"a": {"type": "flattened"}}}));
    assert!(compile(nested, "n.a").expect_err("nested").contains("nested"));
}

#[test]
fn a_fold_field_below_an_object_is_merged_wherever_it_stands() {
    let mappings = json!({"dynamic": false, "properties": {"my": {"properties": {"attrs": {"enabled": false}, "n": {"type": "long"}}}}});
    let rule = RuleOptions { fold_into: Some("my.attrs".to_owned()), ..rule() };
    check_with(
        &mappings,
        &rule,
        &[
            (r#"{"my":{"attrs":{"a":1},"n":2},"x":3}"#, r#"{"my":{"n":2},"my.attrs":{"a":1,"x":3}}"#),
            (r#"{"my.attrs":{"a":1},"my":{"z":3}}"#, r#"{"my":{},"my.attrs":{"a":1,"my":{"z":3}}}"#),
        ],
    );
}

#[test]
fn pretty_printed_documents_become_one_line() {
    check(&[
        ("{\n  \"status\": 1,\r\n  \"tag\": \"a\\nb\"\n}", "{  \"status\": 1,  \"tag\": \"a\\nb\"}"),
        ("{\n\t\"x\": {\n\"y\": [1,\n2]\n},\n\"status\": 1\n}\n", "{\t\"status\": 1,\"attrs\":{\"x\":{\"y\":[1,2]}}}"),
        (" {\"status\":1} \n", "{\"status\":1}"),
    ]);
}

#[test]
fn m01_past_the_field_budget_new_names_are_folded() {
    let mappings = json!({"properties": {"attrs": {"type": "flattened"}, "a": {"type": "long"}}});
    let settings = json!({"index": {"mapping": {"total_fields": {"limit": "6"}}}});
    let plan = plan_with(&mappings, &settings, &rule());
    let mut state = State::default();
    let mut actions = Actions::default();
    assert_eq!(plan.budget(&state), (2, 6));
    let mut send = |document: &str, state: &mut State| sent(&plan, document, state, &mut actions);
    // Text with its `keyword` counts two, an object one.
    assert_eq!(send(r#"{"t":"x","o":{}}"#, &mut state), r#"{"t":"x","o":{}}"#);
    assert_eq!(plan.budget(&state), (5, 6));
    assert_eq!(send(r#"{"t":"y","o":{"s":"z"}}"#, &mut state), r#"{"t":"y","o":{},"attrs":{"o":{"s":"z"}}}"#);
    assert_eq!(send(r#"{"n":1,"m":2}"#, &mut state), r#"{"n":1,"attrs":{"m":2}}"#);
    assert_eq!(plan.budget(&state), (6, 6));
    assert_eq!(actions.count(ActionKind::Budget), 2);
    // What the mapping has by now is no longer pending; what it never gets is forgotten.
    let newer = json!({"properties": {"attrs": {"type": "flattened"}, "a": {"type": "long"}, "n": {"type": "long"}}});
    let newer = plan_with(&newer, &settings, &rule());
    let mut state = state.carried_to(&newer);
    assert_eq!(newer.budget(&state), (6, 6));
    for _ in 0..4 {
        state = state.carried_to(&newer);
    }
    assert_eq!(newer.budget(&state), (3, 6));
}

#[test]
fn a_rejected_document_leaves_no_pending_names() {
    let mappings = json!({"properties": {"a": {"type": "long"}}});
    let rule = RuleOptions { fold_into: None, unmapped: Unmapped::Keep, ..rule() };
    let plan = plan_with(&mappings, &json!({}), &rule);
    let mut state = State::default();
    sent(&plan, r#"{"new":1,"a":"x"}"#, &mut state, &mut Actions::default());
    assert_eq!(plan.budget(&state).0, 1);
}

#[test]
fn a_pending_field_settles_the_type_for_the_documents_after_it() {
    let mappings = json!({"properties": {"attrs": {"type": "flattened"}}});
    let plan = plan_with(&mappings, &json!({}), &rule());
    let mut state = State::default();
    let mut send = |document: &str| sent(&plan, document, &mut state, &mut Actions::default());
    assert_eq!(send(r#"{"n":1}"#), r#"{"n":1}"#);
    assert_eq!(send(r#"{"n":"x"}"#), r#"{"attrs":{"malformed":{"n":"x"}}}"#);
    assert_eq!(send(r#"{"n":"7"}"#), r#"{"n":"7"}"#);
    assert_eq!(send(r#"{"n":{"o":1}}"#), r#"{"attrs":{"malformed":{"n":"{\"o\":1}"}}}"#);
    assert_eq!(send(r#"{"m":[1,"x"]}"#), r#"{"attrs":{"malformed":{"m":"[1,\"x\"]"}}}"#);
}

#[test]
fn a_pending_runtime_field_does_not_stand_in_the_way_of_objects() {
    let mappings = json!({
        "dynamic_templates": [
            {"t0": {"match": "n*", "match_mapping_type": "*", "runtime": {}}},
            {"t1": {"match": "*1", "match_mapping_type": "*", "mapping": {"type": "text"}}}
        ],
        "properties": {"attrs": {"type": "flattened"}}
    });
    let plan = plan_with(&mappings, &json!({}), &rule());
    let mut state = State::default();
    let mut send = |document: &str| sent(&plan, document, &mut state, &mut Actions::default());
    assert_eq!(send(r#"{"new1":1,"n":2}"#), r#"{"new1":1,"n":2}"#);
    // The object becomes a text field by its template, which cannot take it.
    assert_eq!(send(r#"{"new1":{}}"#), r#"{"attrs":{"malformed":{"new1":"{}"}}}"#);
    assert_eq!(send(r#"{"n":{}}"#), r#"{"n":{}}"#);
    assert_eq!(send(r#"{"n":"2300-01-01"}"#), r#"{"attrs":{"malformed":{"n":"2300-01-01"}}}"#);
}

#[test]
fn a_runtime_field_and_an_object_of_one_name_count_both() {
    let mappings = json!({
        "dynamic_templates": [{"all": {"match": "*", "runtime": {"type": "long"}}}],
        "properties": {"attrs": {"type": "flattened"}}
    });
    let plan = plan_with(&mappings, &json!({}), &rule());
    let mut state = State::default();
    sent(&plan, r#"{"e":1}"#, &mut state, &mut Actions::default());
    assert_eq!(plan.budget(&state).0, 2);
    sent(&plan, r#"{"e":{"n":1}}"#, &mut state, &mut Actions::default());
    assert_eq!(plan.budget(&state).0, 4);
}

#[test]
fn a_pending_object_stands_in_the_way_of_a_runtime_field_of_its_name() {
    let mappings = json!({"runtime": {"a": {"type": "keyword"}}, "properties": {"attrs": {"type": "flattened"}}});
    let plan = plan_with(&mappings, &json!({}), &rule());
    let mut state = State::default();
    let mut send = |document: &str| sent(&plan, document, &mut state, &mut Actions::default());
    assert_eq!(send(r#"{"a":false}"#), r#"{"a":false}"#);
    assert_eq!(send(r#"{"a":{"n":1}}"#), r#"{"a":{"n":1}}"#);
    assert_eq!(send(r#"{"a":false}"#), r#"{"attrs":{"malformed":{"a":"false"}}}"#);
}

#[test]
fn m17_objects_past_the_depth_limit_are_folded_as_text_where_needed() {
    let nest = |levels: usize| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
    let mappings = json!({"properties": {"attrs": {"type": "flattened"}}});
    let plan = plan_with(&mappings, &json!({}), &rule());
    let keep = RuleOptions { fold_into: None, unmapped: Unmapped::Keep, ..rule() };
    let refusing = plan_with(&mappings, &json!({}), &keep);
    for (levels, is_kept) in [(20, true), (21, false), (127, false), (900, false)] {
        let document = nest(levels);
        let got = sent(&plan, &document, &mut State::default(), &mut Actions::default());
        assert_eq!(got == document, is_kept, "{levels}: {got}");
        let refused = sent(&refusing, &document, &mut State::default(), &mut Actions::default());
        assert_eq!(refused.starts_with("depth"), !is_kept, "{levels}: {refused}");
    }
}

#[test]
fn dynamic_templates_shape_new_fields() {
    let mappings = json!({
        "dynamic_templates": [
            {"ids": {"match": "^id_\\d+$", "match_pattern": "regex", "mapping": {"type": "keyword", "ignore_above": 3}}},
            {"off": {"path_match": "big.*", "match_mapping_type": "object", "mapping": {"enabled": false, "type": "object"}}},
            {"text": {"match_mapping_type": "string", "unmatch": "*_t", "mapping": {"type": "keyword"}}}
        ],
        "properties": {"attrs": {"type": "flattened"}}
    });
    let plan = plan_with(&mappings, &json!({}), &rule());
    let mut parser = Parser::default();
    let document = br#"{"id_1":5,"s":"x","s_t":"y","big":{"o":{"":1}},"d":"2026-11-23","n":[],"f":1.5}"#;
    let prediction = plan.predict(parser.parse(document).expect("JSON"));
    let creates: Vec<(&str, &str)> =
        prediction.creates.iter().map(|c| (c.path.as_str(), c.type_name.as_str())).collect();
    assert_eq!(prediction.outcome, Outcome::Accepted);
    assert_eq!(
        creates,
        [
            ("id_1", "keyword"),
            ("s", "keyword"),
            ("s_t", "text"),
            ("big", "object"),
            ("big.o", "object"),
            ("d", "date"),
            ("f", "float")
        ]
    );
}

#[test]
fn prediction_names_the_first_fault_and_does_not_follow_the_rule() {
    let plan = plan_with(&mappings(), &json!({}), &rule());
    let mut parser = Parser::default();
    let mut predict = |document: &str| plan.predict(parser.parse(document.as_bytes()).expect("JSON")).outcome;
    assert_eq!(predict(r#"{"x":1}"#), Outcome::Accepted);
    let Outcome::Rejected { field, reason, .. } = predict(r#"{"status":"a","client":3}"#) else { panic!("accepted") };
    assert_eq!((field.as_str(), reason), ("status", RejectReason::TypeConflict));
    assert!(matches!(predict(r#"{"raw":{"a":1,"a":1}}"#), Outcome::Rejected { .. }));
    assert!(matches!(predict("[]"), Outcome::Rejected { reason: RejectReason::NotAnObject, .. }));
}

#[test]
fn dotted_names_meet_objects_in_both_orders() {
    // M02: a label as text and as an object.
    let mappings = json!({"properties": {"app": {"type": "keyword"}, "attrs": {"type": "flattened"}}});
    check_with(
        &mappings,
        &rule(),
        &[(r#"{"app.kubernetes.io/name":"x"}"#, r#"{"attrs":{"malformed":{"app.kubernetes.io/name":"x"}}}"#)],
    );
    let mappings =
        json!({"properties": {"app": {"properties": {"n": {"type": "keyword"}}}, "attrs": {"type": "flattened"}}});
    check_with(&mappings, &rule(), &[(r#"{"app":"x"}"#, r#"{"attrs":{"malformed":{"app":"x"}}}"#)]);
}

#[test]
fn the_shipped_template_composes_and_takes_our_own_records() {
    let text = include_str!("../../../templates/logs.json").to_owned();
    let set = TemplateSet::parse(&[TemplateFile { name: "logs.json".to_owned(), text }]).expect("no fault");
    let composed = set.compose("applogs-shop-2026.11.23").expect("matches");
    assert_eq!((composed.name.as_str(), composed.priority, composed.is_data_stream), ("logs", 501, false));
    let plan = plan_with(&composed.mappings, &composed.settings, &rule());
    let record = r#"{"@timestamp":"2026-11-23T06:30:17.123Z","message":"GET / 200","host":{"name":"web-1"},"log":{"file":{"path":"/var/log/app.log"},"offset":12345,"source":"AAAAAAAAAAA","flags":["multiline"]},"service":{"name":"checkout"},"labels":{"a":"b"},"http":{"request":{"id":"x","method":"GET"},"response":{"status_code":200}}}"#;
    assert_eq!(sent(&plan, record, &mut State::default(), &mut Actions::default()), record);
}

fn any_document() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        4 => prop::sample::select(vec!["status", "code", "tag", "term", "service", "name", "port", "client", "ip", "items", "n",
            "raw", "labels", "attrs", "x", "y", "malformed", "_value", "@timestamp"]).prop_map(str::to_owned),
        1 => prop::sample::select(vec!["service.name", "client.ip", "attrs.x", "a.b", "", ".", "a..b", "status.", "\\u0000", "client.x.y"])
            .prop_map(str::to_owned),
    ];
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("\"2026-11-23\"".to_owned()),
        Just("\"1.2.3.4\"".to_owned()),
        Just("\"\\n\\u0000\"".to_owned()),
        Just("1e400".to_owned()),
        Just("1.0".to_owned()),
        (0..100_000_u32).prop_map(|n| n.to_string()),
        "[a-z]{1,12}".prop_map(|s| format!("\"{s}\"")),
    ];
    let value = leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|list| format!("[{}]", list.join(", "))),
            prop::collection::vec((name.clone(), inner), 0..5).prop_map(|members| {
                let members: Vec<String> = members.iter().map(|(k, v)| format!("\"{k}\" :{v}")).collect();
                format!("{{{}}}", members.join(",\n"))
            }),
        ]
    });
    prop::collection::vec(value, 1..4).prop_map(|values| {
        let keys = ["status", "x", "client", "attrs"];
        let members: Vec<String> = values.iter().enumerate().map(|(i, v)| format!("\"{}\":{v}", keys[i])).collect();
        format!("{{{}}}", members.join(","))
    })
}

/// Documents that differ in their plain values alone.
fn any_documents_of_one_shape() -> impl Strategy<Value = Vec<String>> {
    let names =
        "status code tag term service client items raw labels attrs other time copied ratio service.name client.ip x";
    let name = prop::sample::select(names.split(' ').collect::<Vec<_>>());
    let values = r##"# # # # {"name":#,"port":#} {"ip":#} {"n":#,"x":{"y":#}} [#,#] [{"n":#}] {} []"##;
    let value = prop::sample::select(values.split(' ').collect::<Vec<_>>());
    let leaf = prop_oneof![
        3 => (0..70_000_u32).prop_map(|n| n.to_string()),
        3 => "[a-z]{1,12}".prop_map(|s| format!("\"{s}\"")),
        1 => prop::sample::select(vec!["null", "true", "1.5", "1e400", "\"7\"", "\"1.2.3.4\"", "\"\\n\\u0000\""]).prop_map(str::to_owned),
        1 => prop::sample::select(vec!["\"2026-11-23T06:30:17.123Z\"", "\"2026-13-23T06:30:17.123Z\""]).prop_map(str::to_owned),
    ];
    let members = prop::collection::vec((name, value), 1..7);
    let fillings = prop::collection::vec(prop::collection::vec(leaf, 24), 2..8);
    (members, fillings).prop_map(|(members, fillings)| {
        let members: Vec<_> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        let skeleton = format!("{{{}}}", members.join(","));
        let fill = |leaves: Vec<String>| {
            let mut leaves = leaves.into_iter().cycle();
            let parts: Vec<_> = skeleton.split('#').collect();
            parts[1..].iter().fold(parts[0].to_owned(), |text, part| text + &leaves.next().expect("endless") + part)
        };
        fillings.into_iter().map(fill).collect()
    })
}

/// Every scalar of a value, as text; strings that hold JSON again are looked into, as quarantined values are.
fn leaves(value: Json<'_, '_>, found: &mut Vec<String>) {
    let mut any = false;
    for (_, inner) in value.members() {
        leaves(inner, found);
        any = true;
    }
    for inner in value.elements() {
        leaves(inner, found);
        any = true;
    }
    if any || matches!(value.raw().as_bytes()[0], b'{' | b'[') || value.raw() == "null" {
        return;
    }
    let text = value.as_str().map_or_else(|| value.raw().to_owned(), |text| text.into_owned());
    let mut parser = Parser::default();
    match parser.parse(text.as_bytes()) {
        Ok(inner) if text.starts_with(['{', '[']) => leaves(inner, found),
        // A quarantined null is text.
        _ if text == "null" => {}
        _ => found.push(text),
    }
}

fn sorted_leaves(text: &str) -> Vec<String> {
    let mut parser = Parser::default();
    let mut found = Vec::new();
    leaves(parser.parse(text.as_bytes()).expect("JSON"), &mut found);
    found.sort();
    found
}

#[test]
fn earlier_documents_do_not_hide_names_that_come_twice_or_out_of_order() {
    let plan = plan_with(&mappings(), &json!({}), &rule());
    let mut state = State::default();
    let mut send = |document: &str| sent(&plan, document, &mut state, &mut Actions::default());
    for _ in 0..2 {
        for document in
            [r#"{"status":1,"tag":"a","term":"b"}"#, r#"{"term":"b","status":1}"#, r#"{"code":7,"tag":"a"}"#]
        {
            assert_eq!(send(document), document);
        }
        assert_eq!(send(r#"{"status":1,"tag":"a","status":2}"#), r#"{"tag":"a","status":2}"#);
        assert_eq!(send(r#"{"status":1,"tag":"a","\u0073tatus":2}"#), r#"{"tag":"a","\u0073tatus":2}"#);
        assert_eq!(send(r#"{"tag":"a","x":1,"tag":"b"}"#), r#"{"tag":"b","attrs":{"x":1}}"#);
        assert_eq!(send(r#"{"status":"x"}"#), r#"{"attrs":{"malformed":{"status":"x"}}}"#);
    }
    // Another plan has other fields under the same names.
    let other = plan_with(&json!({"properties": {"status": {"type": "ip"}}}), &json!({}), &RuleOptions::default());
    assert_eq!(sent(&other, r#"{"status":1}"#, &mut state, &mut Actions::default()), "type_conflict status");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(400), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_sent_is_one_line_without_equal_keys_and_fits(document in any_document()) {
        let plan = plan_with(&mappings(), &json!({}), &rule());
        let got = sent(&plan, &document, &mut State::default(), &mut Actions::default());
        if got.starts_with('{') {
            prop_assert!(!got.contains(['\n', '\r']));
            let mut parser = Parser::default();
            let value = parser.parse(got.as_bytes()).expect("JSON");
            prop_assert!(!value.has_duplicate_keys(), "{}", got);
            let prediction = plan.predict(value);
            prop_assert_eq!(prediction.outcome, Outcome::Accepted, "{}", got);
            prop_assert_eq!(sent(&plan, &got, &mut State::default(), &mut Actions::default()), got);
        }
    }

    #[test]
    fn documents_that_create_fields_are_kept_whole_too(document in any_document()) {
        let mut mappings = mappings();
        mappings["dynamic"] = json!(true);
        mappings["properties"]["service"]["dynamic"] = json!("runtime");
        mappings["properties"]["client"]["subobjects"] = json!(false);
        let settings = json!({"index.mapping.total_fields.limit": 24, "index.mapping.depth.limit": 3});
        let plan = plan_with(&mappings, &settings, &rule());
        let got = sent(&plan, &document, &mut State::default(), &mut Actions::default());
        let mut parser = Parser::default();
        let has_duplicates = parser.parse(document.as_bytes()).expect("JSON").has_duplicate_keys();
        if got.starts_with('{') {
            let value = parser.parse(got.as_bytes()).expect("JSON");
            prop_assert!(!value.has_duplicate_keys(), "{}", got);
            prop_assert_eq!(plan.predict(value).outcome, Outcome::Accepted, "{}", got);
            if !has_duplicates {
                prop_assert_eq!(sorted_leaves(&got), sorted_leaves(&document), "{}", got);
            }
        }
    }

    #[test]
    fn nothing_is_lost_but_earlier_values_of_equal_keys(document in any_document()) {
        let plan = plan_with(&mappings(), &json!({}), &rule());
        let mut actions = Actions::default();
        let got = sent(&plan, &document, &mut State::default(), &mut actions);
        let mut parser = Parser::default();
        let has_duplicates = parser.parse(document.as_bytes()).expect("JSON").has_duplicate_keys();
        if got.starts_with('{') && !has_duplicates {
            prop_assert_eq!(sorted_leaves(&got), sorted_leaves(&document), "{}", got);
        }
    }

    #[test]
    fn earlier_documents_do_not_change_what_becomes_of_the_next(documents in prop::collection::vec(any_document(), 1..12)) {
        let plan = plan_with(&mappings(), &json!({}), &rule());
        let mut state = State::default();
        for document in documents.iter().chain(&documents) {
            let alone = sent(&plan, document, &mut State::default(), &mut Actions::default());
            prop_assert_eq!(sent(&plan, document, &mut state, &mut Actions::default()), alone, "{}", document);
        }
    }

    #[test]
    fn documents_of_one_shape_are_judged_by_their_values(documents in any_documents_of_one_shape(), keeps: bool, variant in 0..4) {
        let mut mappings = mappings();
        let other = json!({"tag": {"type": "keyword", "copy_to": "copied"}, "copied": {"type": "short"}, "time": {"type": "date"},
            "ratio": {"type": "float"}, "other": {"type": "alias", "path": "tag"}});
        match variant {
            0 => {}
            1 => mappings["properties"]["client"]["subobjects"] = json!(false),
            2 => mappings["properties"]["service"]["dynamic"] = json!("strict"),
            _ => mappings["properties"].as_object_mut().expect("an object").extend(other.as_object().expect("too").clone()),
        }
        let unmapped = if keeps { Unmapped::Keep } else { Unmapped::Fold };
        let plan = plan_with(&mappings, &json!({}), &RuleOptions { unmapped, ..rule() });
        let (mut parser, mut state) = (Parser::default(), State::default());
        for document in documents.iter().chain(&documents) {
            let alone = sent(&plan, document, &mut State::default(), &mut Actions::default());
            prop_assert_eq!(sent_after(&mut parser, &plan, document, &mut state, &mut Actions::default()), alone, "{}", document);
        }
    }
}
