//! Documents that a real server once judged in another way than the plan.

use millrace_common::json::Parser;
use serde_json::{Value, json};

use crate::map::{Outcome, Plan, RuleOptions, ServerVersion};

const EIGHT: ServerVersion = ServerVersion::elasticsearch(8, 19);
const NINE: ServerVersion = ServerVersion::elasticsearch(9, 2);
const SEVEN: ServerVersion = ServerVersion::elasticsearch(7, 17);
const OPENSEARCH: ServerVersion = ServerVersion::opensearch(2, 19);

/// The field that is refused and why, or what else comes of the document.
fn predict(server: ServerVersion, mappings: &Value, settings: &Value, document: &str) -> String {
    let plan = Plan::compile(mappings, settings, &RuleOptions::default(), server).expect("a good mapping");
    let mut parser = Parser::default();
    match plan.predict(parser.parse(document.as_bytes()).expect("JSON")).outcome {
        Outcome::Accepted => "accepted".to_owned(),
        Outcome::Rejected { field, detail, .. } => format!("{field} {detail}"),
        Outcome::Unsure { field } => format!("unsure of {field}"),
    }
}

#[track_caller]
fn check(server: ServerVersion, mappings: &Value, cases: &[(&str, &str)]) {
    for (document, expected) in cases {
        assert_eq!(&predict(server, mappings, &json!({}), document), expected, "{document}");
    }
}

#[test]
fn a_number_that_nothing_read_comes_out_for_the_next_double() {
    let mappings = json!({
        "dynamic_templates": [{"t": {"match_mapping_type": ["long", "double"], "mapping": {"type": "keyword"}}}],
        "properties": {
            "e": {"type": "half_float"}, "l": {"type": "long"}, "exact": {"type": "long", "coerce": false},
            "k": {"type": "keyword"}, "lax": {"type": "half_float", "ignore_malformed": true}
        }
    });
    let held = "gets a number of an earlier field, which Elasticsearch's parser holds";
    let refused = |field: &str, type_name: &str, value: &str| format!("{field} of type {type_name} {held}: {value}");
    let (half, exact) = (refused("e", "half_float", "100"), refused("exact", "long", "5"));
    let cases = [
        (r#"{"f":1e19,"e":100}"#, half.as_str()),
        (r#"{"f":18446744073709551616,"e":100}"#, half.as_str()),
        (r#"{"f":1.5,"exact":5}"#, exact.as_str()),
        // Integers are not held, nor is what a mapped field gets; what fits does no harm, and it comes out once.
        (r#"{"f":70000,"e":100}"#, "accepted"),
        (r#"{"k":1e19,"e":100}"#, "accepted"),
        (r#"{"f":1.5,"e":100}"#, "accepted"),
        (r#"{"f":1e19,"lax":100,"e":100}"#, "accepted"),
        (r#"{"f":1e19,"l":100,"e":100}"#, half.as_str()),
        (r#"{"f":1e19,"l":1.5,"e":100}"#, "accepted"),
    ];
    check(EIGHT, &mappings, &cases);
    check(OPENSEARCH, &mappings, &cases);
    // Decimals are read anew, but not by OpenSearch's parser.
    let document = r#"{"f":1e19,"e":1.5}"#;
    check(EIGHT, &mappings, &[(document, "accepted")]);
    check(OPENSEARCH, &mappings, &[(document, refused("e", "half_float", "1.5").as_str())]);
    check(SEVEN, &mappings, &[(r#"{"f":1e19,"e":100}"#, "accepted")]);
}

#[test]
fn a_runtime_field_leaves_its_number_in_the_parser() {
    let mappings = json!({"dynamic": "runtime", "properties": {"a": {"type": "float"}}});
    let refused = "a of type float gets a number of an earlier field, which Elasticsearch's parser holds: 0";
    check(EIGHT, &mappings, &[(r#"{"new1":3.5e38,"a":0}"#, refused), (r#"{"new1":3.4e38,"a":0}"#, "accepted")]);
    // A runtime field that is mapped already is passed over.
    let mappings = json!({
        "dynamic": "runtime", "runtime": {"new1": {"type": "double"}}, "properties": {"a": {"type": "float"}}
    });
    check(EIGHT, &mappings, &[(r#"{"new1":3.5e38,"a":0}"#, "accepted")]);
}

#[test]
fn a_template_cannot_make_nested_objects_where_subobjects_is_off() {
    let mappings = json!({
        "dynamic_templates": [{"t0": {"unmatch": "*2", "match_mapping_type": "object", "mapping": {"type": "nested"}}}],
        "properties": {
            "b": {"subobjects": false, "properties": {"a": {"type": "long"}}},
            "e": {"subobjects": false, "properties": {"d": {"type": "long"}, "g.c": {"type": "long"}}}
        }
    });
    let refused = |value: &str| {
        format!("e.g of type nested is an object that a template makes nested where `subobjects` is off: {value}")
    };
    let inner = r#"{"h":{"c":"2300-01-01","h":[],"f":"1e50"},"d":1.7976931348623157e308}"#;
    check(
        EIGHT,
        &mappings,
        &[
            (r#"{"e.g":{},"b":true,"h1.i":null}"#, &refused("{}")),
            (&format!(r#"{{"e.g.c":null,"e.g":{inner}}}"#), &refused(inner)),
            (r#"{"e.g2":{"x":1}}"#, "accepted"),
        ],
    );
}

#[test]
fn what_was_left_out_past_the_limit_meets_the_smaller_field_that_came_after_it() {
    let mappings = json!({"properties": {"a": {"type": "long"}}});
    let settings = json!({"index.mapping": {
        "coerce": false, "total_fields.limit": 2, "total_fields.ignore_dynamic_beyond_limit": true
    }});
    let cases = [
        (
            r#"{"i1":["2020-01-01T24:00:00Z",32768]}"#,
            r#"i1 of type long is a string and `coerce` is off: ["2020-01-01T24:00:00Z",32768]"#,
        ),
        (r#"{"i1":["2020-01-01T24:00:00Z"],"n":32768}"#, "accepted"),
        // What is refused at the first reading comes first.
        (r#"{"i1":["x",32768],"a":"y"}"#, r#"a of type long is a string and `coerce` is off: "y""#),
        (r#"{"i1":["x",{}]}"#, r#"i1 of type object is a value where the object mapping has an object: ["x",{}]"#),
    ];
    for (document, expected) in cases {
        assert_eq!(predict(EIGHT, &mappings, &settings, document), expected, "{document}");
    }
}

#[test]
fn a_copy_does_not_reach_into_a_disabled_object() {
    let mappings = json!({"dynamic": false, "properties": {
        "b": {"enabled": false, "properties": {"c": {"type": "ip"}}},
        "c": {"properties": {"g": {"properties": {"b": {"type": "keyword", "copy_to": ["b.c"]}}}}}
    }});
    let conflict = "c.g of type object is a value where the object mapping has an object: [\"k\"]";
    check(EIGHT, &mappings, &[(r#"{"c.g.b":"ü"}"#, "accepted"), (r#"{"c.g.b":2147483648,"c.g":["k"]}"#, conflict)]);
    // The old parser goes straight to the field.
    check(SEVEN, &mappings, &[(r#"{"c.g.b":"ü"}"#, r#"b.c of type ip is not an IP address: "ü""#)]);
}

#[test]
fn dots_into_a_date_that_ignores_objects_are_left_to_elasticsearch_9() {
    let mappings = json!({"properties": {
        "e": {"type": "date", "format": "date_time", "ignore_malformed": true}, "i1": {"type": "text"}
    }});
    let document = r#"{"e.i1.c":3.5e38,"e":"2020-01-01T10:00:00.123Z"}"#;
    check(NINE, &mappings, &[(document, "unsure of e")]);
    let refused = "e of type date is an object where the mapping has a value: 3.5e38";
    check(EIGHT, &mappings, &[(document, refused)]);
}

#[test]
fn the_old_parser_merges_new_fields_by_name() {
    let mappings = json!({"numeric_detection": true});
    let document = r#"{"i":[1e-400,"2020-01-01"],"b":{"\t":{},"h1":"1e3"}}"#;
    for server in [OPENSEARCH, SEVEN] {
        check(server, &mappings, &[(document, "b.\t has a name that Elasticsearch refuses")]);
    }
    let document = r#"{"i":[1e-400,"2020-01-01"],"j":{"\t":{}}}"#;
    check(OPENSEARCH, &mappings, &[(document, "i would be both float and date in one document")]);
}

#[test]
fn the_old_parser_merges_an_object_with_the_first_new_field_after_the_name_of_the_next() {
    let mappings = json!({"properties": {"b": {"properties": {"c": {"properties": {"q": {"type": "long"}}}}}}});
    let blank = "b.c.  has a name that Elasticsearch refuses";
    let conflict = |first: &str, second: &str| format!("b.a would be both {first} and {second} in one document");
    let float = conflict("float", "object");
    for server in [SEVEN, OPENSEARCH] {
        let cases = [
            (r#"{"b":{"a":[1.0,{"x":true}],"c":{" ":1}}}"#, blank),
            (r#"{"b":{"a":[1.0,{"x":true}],"b":1,"c":{" ":1}}}"#, &float),
            (r#"{"b":{"a":[1.0,{"x":true}],"d":{" ":1}}}"#, &float),
            (r#"{"b":{"a":[1.0,2.0,{"x":true}],"c":{" ":1}}}"#, &float),
            (r#"{"b":{"A":1,"a":[1.0,{"x":true}],"c":{" ":1}}}"#, &float),
            (r#"{"b":{"a":[{"x":true},1.0],"c":{" ":1}}}"#, &conflict("object", "float")),
            (r#"{"b":{"a":[1.0,"2020-01-01"],"c":{" ":1}}}"#, &conflict("float", "date")),
        ];
        check(server, &mappings, &cases);
    }
}

#[test]
fn the_old_parser_notices_an_immense_term_after_the_other_fields_of_the_value() {
    let mappings = json!({"properties": {"a": {"type": "keyword", "fields": {"x": {"type": "ip"}}}}});
    let document = format!(r#"{{"a":"{}"}}"#, "y".repeat(40_003));
    for (server, field) in [(SEVEN, "a.x of type ip"), (OPENSEARCH, "a.x of type ip"), (EIGHT, "a of type keyword")] {
        let got = predict(server, &mappings, &json!({}), &document);
        assert!(got.starts_with(field), "{got}");
    }
}

#[test]
fn a_date_of_elasticsearch_9_leaves_its_number_in_the_parser() {
    let mappings = json!({"properties": {
        "f": {"type": "date_nanos", "ignore_malformed": true}, "h": {"type": "long", "coerce": false}
    }});
    let document = r#"{"f":-9223372036854775809,"h":9223372036854775807}"#;
    let held =
        "h of type long gets a number of an earlier field, which Elasticsearch's parser holds: 9223372036854775807";
    check(NINE, &mappings, &[(document, held)]);
    check(EIGHT, &mappings, &[(document, "accepted")]);
}

#[test]
fn the_old_parser_makes_a_date_of_what_has_its_form_only() {
    let mappings = json!({"dynamic_date_formats": ["yyyy-MM-dd"]});
    let refused = "h of type date is not a date in any of the field's formats: \"2020-02-30\"";
    for server in [SEVEN, OPENSEARCH] {
        check(server, &mappings, &[(r#"{"h":"2020-02-30"}"#, refused), (r#"{"h":"2020-02-32"}"#, "accepted")]);
    }
    check(EIGHT, &mappings, &[(r#"{"h":"2020-02-30"}"#, "accepted")]);
    let of_no_era = json!({"dynamic_date_formats": ["uuuu-MM-dd"]});
    check(SEVEN, &of_no_era, &[(r#"{"h":"2020-02-30"}"#, "accepted")]);
}

#[test]
fn what_opensearch_never_answers_is_refused() {
    let mappings = json!({"dynamic": "false_allow_templates", "dynamic_templates": [
        {"strings": {"match_mapping_type": "string", "mapping": {"type": "keyword"}}},
        {"objects": {"match_mapping_type": "object", "match": "p", "mapping": {"type": "object"}}}
    ]});
    let refused = "o of type object is never answered: the server waits for a mapping that it does not make of dotted \
                   names like this: \"a\"";
    let cases = [
        (r#"{"o.x":"a"}"#, refused),
        (r#"{"o.y.x":"a"}"#, refused),
        (r#"{"o.x":["a"]}"#, "accepted"),
        (r#"{"o.x":1}"#, "accepted"),
        (r#"{"o":{"x":"a"}}"#, "accepted"),
        (r#"{"p.x":"a"}"#, "accepted"),
    ];
    check(ServerVersion::opensearch(3, 3), &mappings, &cases);
}

#[test]
fn opensearch_3_copies_the_brace_of_an_object_that_a_field_has_ignored() {
    let mappings = |target: Value| {
        json!({"dynamic": false, "properties": {
            "f": {"type": "long", "ignore_malformed": true, "copy_to": ["zz"]}, "zz": target
        }})
    };
    let three = ServerVersion::opensearch(3, 3);
    let refused = "zz of type keyword is an object in a field with `copy_to`, or gets the copy of one: {\"a\":1}";
    check(three, &mappings(json!({"type": "keyword"})), &[(r#"{"f":{"a":1}}"#, refused), (r#"{"f":"x"}"#, "accepted")]);
    let lenient = json!({"type": "long", "ignore_malformed": true});
    check(three, &mappings(lenient), &[(r#"{"f":{"a":1}}"#, "accepted")]);
}

#[test]
fn a_null_in_an_array_is_a_new_name_to_strict_allow_templates() {
    let mappings = json!({"dynamic": "strict_allow_templates", "dynamic_templates": [
        {"all": {"match_mapping_type": "*", "mapping": {"type": "keyword"}}}
    ]});
    let refused = "a is not mapped and the mapping is strict";
    check(
        OPENSEARCH,
        &mappings,
        &[(r#"{"a":[null,1]}"#, refused), (r#"{"a":[1,null]}"#, refused), (r#"{"a":[1]}"#, "accepted")],
    );
}

#[test]
fn an_object_that_a_template_makes_a_field_of_has_no_depth() {
    let mappings = json!({"dynamic_templates": [
        {"flat": {"match": "*1", "match_mapping_type": "object", "mapping": {"type": "flattened"}}}
    ]});
    let settings = json!({"index.mapping.depth.limit": 4});
    assert_eq!(predict(EIGHT, &mappings, &settings, r#"{"a":{"b.c.d1":{}}}"#), "accepted");
    let refused = "a.b.c.d is nested deeper than the index allows";
    assert_eq!(predict(EIGHT, &mappings, &settings, r#"{"a":{"b.c.d":{}}}"#), refused);
}

#[test]
fn what_elasticsearch_7_never_answers_is_refused() {
    let mappings = json!({"dynamic": "runtime"});
    let refused = "a of type long is never answered: the server waits for a mapping that it does not make of dotted names \
                   like this: -129";
    check(SEVEN, &mappings, &[(r#"{"a..":-129}"#, refused), (r#"{"a":-129}"#, "accepted")]);
    check(SEVEN, &json!({}), &[(r#"{"a..":-129}"#, "accepted")]);
}

#[test]
fn nested_objects_that_dots_create_count_as_the_others() {
    let template = json!({"match_mapping_type": "object", "mapping": {"type": "nested"}});
    let mappings = json!({"dynamic_templates": [{"t": template}], "properties": {"g": {"type": "object"}}});
    let settings = json!({"index.mapping.nested_objects.limit": 2});
    let refused = "has more nested objects than the index allows";
    for (document, expected) in [
        (r#"{"a.b.c":1,"d":2}"#, "accepted".to_owned()),
        (r#"{"b.i.d":{"f":1}}"#, format!("b.i.d {refused}")),
        (r#"{"g":{"i":{"h":1},"g.new.e":[".5"]}}"#, format!("g.g.new {refused}")),
    ] {
        assert_eq!(predict(EIGHT, &mappings, &settings, document), expected, "{document}");
    }
}

#[test]
fn what_a_copy_creates_comes_before_the_next_element() {
    let mappings = json!({"properties": {"g": {"type": "text", "copy_to": ["zz"]}}});
    let is_object = "g of type text is an object where the mapping has a value: [{\"x\":1},\"k\"]";
    // Whether there is room for the new field, Elasticsearch judges.
    check(EIGHT, &mappings, &[(r#"{"g":["k",{"x":1}]}"#, "unsure of g"), (r#"{"g":[{"x":1},"k"]}"#, is_object)]);
}

#[test]
fn a_copy_passes_a_runtime_field_on_its_way() {
    for has_subobjects in [true, false] {
        let mut mappings = json!({
            "runtime": {"b": {"type": "keyword"}}, "properties": {"g": {"type": "keyword", "copy_to": ["b.c"]}}
        });
        if !has_subobjects {
            mappings["subobjects"] = false.into();
        }
        check(EIGHT, &mappings, &[(r#"{"g":"x"}"#, "unsure of g"), (r#"{"g":[]}"#, "accepted")]);
        mappings["dynamic"] = "strict".into();
        check(EIGHT, &mappings, &[(r#"{"g":"x"}"#, "b is not mapped and the mapping is strict")]);
    }
}

#[test]
fn a_copy_passes_fields_on_its_way_where_there_are_no_subobjects() {
    let mut mappings = json!({"subobjects": false, "properties": {
        "b": {"type": "boolean"}, "g": {"type": "boolean", "copy_to": ["b.c.d"]}
    }});
    check(EIGHT, &mappings, &[(r#"{"g":true}"#, "unsure of g")]);
    mappings["dynamic"] = "strict".into();
    check(EIGHT, &mappings, &[(r#"{"g":true}"#, "b.c is not mapped and the mapping is strict")]);
    mappings["dynamic"] = false.into();
    check(EIGHT, &mappings, &[(r#"{"g":true}"#, "accepted")]);
}

#[test]
fn new_dates_of_one_name_have_one_format() {
    let slashes = "date in yyyy/MM/dd HH:mm:ss||yyyy/MM/dd||epoch_millis";
    let usual = "date in strict_date_optional_time||epoch_millis";
    let both = |first: &str, second: &str| format!("i1 would be both {first} and {second} in one document");
    check(
        EIGHT,
        &json!({}),
        &[
            (r#"{"i1":["2020/01/01","2020-01-01"]}"#, &both(slashes, usual)),
            (r#"{"i1":["2020-01-01","2020/01/01"]}"#, &both(usual, slashes)),
            (r#"{"i1":["2020/01/01","2020/01/02"]}"#, "accepted"),
        ],
    );
    let dates = |mapping: Value| json!({"dynamic_templates": [{"t": {"match": "*1", "mapping": mapping}}]});
    check(
        EIGHT,
        &dates(json!({"type": "date", "ignore_malformed": true})),
        &[
            (r#"{"i1":["2020/01/01","zz"]}"#, &both(slashes, usual)),
            (r#"{"i1":["zz","2020/01/01"]}"#, &both(usual, slashes)),
            (r#"{"i1":["2020-01-01","zz",1]}"#, "accepted"),
        ],
    );
    // The locales differ.
    let yyyy = dates(json!({"type": "date", "format": "yyyy", "ignore_malformed": true}));
    check(EIGHT, &yyyy, &[(r#"{"i1":["2020/01/01","x"]}"#, "unsure of i1"), (r#"{"i1":["y","x"]}"#, "accepted")]);
}

#[test]
fn a_zero_of_a_large_exponent_is_a_long_to_opensearch_only() {
    let mappings = json!({"properties": {"a": {"type": "long"}, "i": {"type": "integer"}}});
    let refused = "a of type long is out of range for its type: \"0e20\"";
    let accepted = [(r#"{"a":"0e19","i":"0e20"}"#, "accepted")];
    for server in [SEVEN, EIGHT] {
        check(server, &mappings, &[(r#"{"a":"0e20"}"#, refused)]);
        check(server, &mappings, &accepted);
    }
    check(OPENSEARCH, &mappings, &[(r#"{"a":"0e20"}"#, "accepted")]);
}

#[test]
fn a_new_field_above_the_target_of_a_copy_is_left_to_old_servers() {
    let mappings = json!({"properties": {"g": {"type": "keyword", "copy_to": ["b.c"]}}});
    check(OPENSEARCH, &mappings, &[(r#"{"b":1}"#, "unsure of b"), (r#"{"c":1}"#, "accepted")]);
    check(EIGHT, &mappings, &[(r#"{"b":1}"#, "accepted")]);
}
