use super::own_fields::{Field, FieldError, Origin};
use super::*;
use millrace_common::record::SourceId;
use proptest::prelude::*;
use serde_json::{Value, json};

const NOW: i64 = 1_763_879_417_123;

fn own(fields: &[(&str, Value, bool)]) -> OwnFields {
    let fields: Vec<_> = fields
        .iter()
        .map(|(path, value, overwrite)| Field { path: path.to_string(), value: value.clone(), overwrite: *overwrite })
        .collect();
    let origin = Origin { host_name: "web-1", path: "/var/log/app.log", source: SourceId::from_u64(0xabc) };
    OwnFields::new(origin, &fields).unwrap()
}

fn line(content: &[u8]) -> Line<'_> {
    Line { content, offset: 77, read_time: Moment::at(NOW), flags: Flags::NONE, max_record: 900 * 1024, wrapper: None }
}

fn encode(format: Content, content: &[u8], own: &OwnFields) -> (String, Flags) {
    let mut out = Vec::new();
    let flags = Encoder::new(format, encoding_rs::UTF_8).encode(line(content), own, &mut out);
    (String::from_utf8(out).unwrap(), flags)
}

fn check(line: &str, fields: &[(&str, Value, bool)], expected: &str) {
    let (record, _) = encode(Content::Json, line.as_bytes(), &own(fields));
    assert_eq!(record, expected, "{line}");
    assert!(!Parser::default().parse(record.as_bytes()).unwrap().has_duplicate_keys());
}

const TIME: &str = r#""@timestamp":"2025-11-23T06:30:17.123Z""#;
const OWN: &str =
    r#""host":{"name":"web-1"},"log":{"file":{"path":"/var/log/app.log"},"offset":77,"source":"0000000000000abc"}"#;

fn encode_from(encoding: &'static Encoding, format: Content, content: &[u8]) -> (Value, Flags) {
    let mut out = Vec::new();
    let flags = Encoder::new(format, encoding).encode(line(content), &own(&[]), &mut out);
    (serde_json::from_slice(&out).unwrap(), flags)
}

#[test]
fn other_encodings_become_utf_8() {
    // The bytes of CP949 for these syllables, the last of which EUC-KR proper does not have.
    let (record, flags) = encode_from(encoding_rs::EUC_KR, Content::Text, b"\xb0\xa1\xb3\xaa \x8c\x63");
    assert_eq!((record["message"].as_str(), flags), (Some("가나 똠"), Flags::NONE));
    let (record, flags) = encode_from(encoding_rs::EUC_KR, Content::Json, b"{\"user\":\"\xb0\xa1\"}");
    assert_eq!((record["user"].as_str(), flags), (Some("가"), Flags::NONE));
    let (record, flags) = encode_from(encoding_rs::EUC_KR, Content::Text, b"a\xff b");
    assert_eq!((record["message"].as_str(), flags), (Some("a\u{fffd} b"), Flags::INVALID_UTF8));
}

#[test]
fn text_becomes_the_message() {
    let (record, flags) = encode(Content::Text, b"say \"hi\"\t\x01", &own(&[("service.name", json!("shop"), true)]));
    let service = r#""service":{"name":"shop"}"#;
    assert_eq!(record, format!(r#"{{{TIME},"message":"say \"hi\"\t\u0001",{OWN},{service}}}"#));
    assert_eq!(flags, Flags::NONE);
}

#[test]
fn json_fields_stand_at_the_top_level_untouched() {
    check(
        r#"{"n":9223372036854775807,"f":1.0,"o":{"b":1,"a":[ 2 ]}}"#,
        &[],
        &format!(r#"{{{TIME},"n":9223372036854775807,"f":1.0,"o":{{"b":1,"a":[ 2 ]}},{OWN}}}"#),
    );
    check("{}", &[], &format!("{{{TIME},{OWN}}}"));
    check("  { } ", &[], &format!("{{{TIME},{OWN}}}"));
}

#[test]
fn a_readable_time_of_the_line_wins_and_another_moves() {
    check(
        r#"{"@timestamp":"2026-01-02T03:04:05Z","message":"m"}"#,
        &[],
        &format!(r#"{{"@timestamp":"2026-01-02T03:04:05Z","message":"m",{OWN}}}"#),
    );
    check(r#"{"@timestamp":"noon"}"#, &[], &format!(r#"{{{TIME},{OWN},"original":{{"@timestamp":"noon"}}}}"#));
}

#[test]
fn objects_merge_and_equal_leaves_collide() {
    let log = r#""log":{"level":"warn","file":{"path":"/var/log/app.log"},"offset":77,"source":"0000000000000abc"}"#;
    check(r#"{"log":{"level":"warn"}}"#, &[], &format!(r#"{{{TIME},{log},"host":{{"name":"web-1"}}}}"#));
    check(r#"{"host":{"name":"x"}}"#, &[], &format!(r#"{{{TIME},{OWN},"original":{{"host.name":"x"}}}}"#));
    check(
        r#"{"host.name":"x","host.ip":"y"}"#,
        &[],
        &format!(r#"{{{TIME},"host.ip":"y",{OWN},"original":{{"host.name":"x"}}}}"#),
    );
    let below = r#"{"host.name.x":1,"log":{"offset.y":2}}"#;
    check(below, &[], &format!(r#"{{{TIME},{OWN},"original":{{"host.name.x":1,"log.offset.y":2}}}}"#));
    check(r#"{"host":"x"}"#, &[], &format!(r#"{{{TIME},{OWN},"original":{{"host":"x"}}}}"#));
    check(r#"{"log":{"offset":{"a":1}}}"#, &[], &format!(r#"{{{TIME},{OWN},"original":{{"log.offset":{{"a":1}}}}}}"#));
}

#[test]
fn an_original_of_the_line_is_kept_beside_what_moves() {
    check(
        r#"{"original":{"host.name":"a"},"host.name":"b"}"#,
        &[],
        &format!(r#"{{{TIME},"original":{{"host.name":"a","host.name_":"b"}},{OWN}}}"#),
    );
    check(r#"{"original":1}"#, &[], &format!(r#"{{{TIME},{OWN},"original":{{"original":1}}}}"#));
}

#[test]
fn the_operator_decides_whether_a_field_overwrites() {
    let ours = ("service.name", json!("ours"), true);
    check(
        r#"{"service":{"name":"theirs","id":1}}"#,
        &[ours],
        &format!(r#"{{{TIME},"service":{{"id":1,"name":"ours"}},{OWN},"original":{{"service.name":"theirs"}}}}"#),
    );
    let yields = ("service.name", json!("ours"), false);
    check(
        r#"{"service":{"name":"theirs"}}"#,
        std::slice::from_ref(&yields),
        &format!(r#"{{{TIME},"service":{{"name":"theirs"}},{OWN}}}"#),
    );
    check(r#"{"service":"theirs"}"#, std::slice::from_ref(&yields), &format!(r#"{{{TIME},"service":"theirs",{OWN}}}"#));
    check(r#"{}"#, &[yields], &format!(r#"{{{TIME},{OWN},"service":{{"name":"ours"}}}}"#));
}

#[test]
fn the_last_of_duplicate_keys_wins_and_is_flagged() {
    let (record, flags) = encode(Content::Json, br#"{"time":1,"o":{"a":1,"a":2},"time":2}"#, &own(&[]));
    let log = r#""log":{"file":{"path":"/var/log/app.log"},"offset":77,"source":"0000000000000abc","flags":["duplicate_key"]}"#;
    assert_eq!(record, format!(r#"{{{TIME},"o":{{"a":2}},"time":2,"host":{{"name":"web-1"}},{log}}}"#));
    assert_eq!(flags, Flags::DUPLICATE_KEY);
}

#[test]
fn m10_the_last_of_duplicate_keys_wins_inside_arrays() {
    let (record, _) =
        encode(Content::Json, br#"{"l":[ {"a":1,"a":[{"b":1,"b":2}]}, 7, [{"c":1.0}] ],"m":[ 1 ]}"#, &own(&[]));
    assert!(record.contains(r#""l":[{"a":[{"b":2}]},7,[{"c":1.0}]],"m":[ 1 ],"#), "{record}");
}

#[test]
fn what_is_not_a_json_object_is_shipped_as_text() {
    for line in ["", "plain", "[1]", r#"{"a":NaN}"#, r#"{"a":1"#, &"[".repeat(10_000), &(r#"{"a":"#.repeat(10_000))] {
        let (record, flags) = encode(Content::Json, line.as_bytes(), &own(&[]));
        let record: Value = serde_json::from_str(&record).unwrap();
        assert_eq!((&record["message"], &record["log"]["flags"]), (&json!(line), &json!(["not_json"])));
        assert_eq!(flags, Flags::NOT_JSON);
    }
}

#[test]
fn invalid_bytes_are_replaced_and_what_follows_is_kept() {
    for format in [Content::Text, Content::Json] {
        let (record, flags) = encode(format, b"Estagi\xe1rio visualizou \xff \xf0\x9f\x98", &own(&[]));
        let record: Value = serde_json::from_str(&record).unwrap();
        assert_eq!(record["message"], "Estagi\u{fffd}rio visualizou \u{fffd} \u{fffd}");
        assert!(flags.contains(Flags::INVALID_UTF8));
    }
    let (record, _) = encode(Content::Json, b"{\"a\":\"\xff\"}", &own(&[]));
    assert_eq!(serde_json::from_str::<Value>(&record).unwrap()["a"], "\u{fffd}");
}

#[test]
fn reserved_and_conflicting_fields_are_refused() {
    let origin = Origin { host_name: "h", path: "p", source: SourceId::from_u64(1) };
    let field = |path: &str| Field { path: path.to_owned(), value: json!(1), overwrite: true };
    let fault =
        |paths: &[&str]| OwnFields::new(origin, &paths.iter().map(|p| field(p)).collect::<Vec<_>>()).unwrap_err();
    for path in ["log", "log.offset", "log.offset.x", "message", "@timestamp", "original.a"] {
        assert_eq!(fault(&[path]), FieldError::Reserved(path.to_owned()));
    }
    assert_eq!(fault(&["a", "a.b"]), FieldError::Conflict("a.b".to_owned()));
    assert_eq!(fault(&["a.b", "a"]), FieldError::Conflict("a".to_owned()));
    assert_eq!(fault(&["a..b"]), FieldError::Empty("a..b".to_owned()));
}

fn leaves(prefix: &str, value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (name, value) in members {
                leaves(&format!("{prefix}.{name}"), value, out);
            }
        }
        _ => out.push(value.to_string()),
    }
}

proptest! {
    #[test]
    fn a_record_never_exceeds_its_limit(text in "[a\u{1}\"é]{0,3000}", limit in 600..2000usize, json: bool) {
        let line = if json { serde_json::json!({ "message": text }).to_string() } else { text.clone() };
        let format = if json { Content::Json } else { Content::Text };
        let mut out = Vec::new();
        let cut = Line { max_record: limit, ..self::line(line.as_bytes()) };
        let flags = Encoder::new(format, encoding_rs::UTF_8).encode(cut, &own(&[]), &mut out);
        prop_assert!(out.len() <= limit, "{} > {limit}", out.len());
        let record: Value = serde_json::from_slice(&out).unwrap();
        if !flags.contains(Flags::TRUNCATED) {
            prop_assert_eq!(record["message"].as_str().unwrap(), text);
        }
    }

    #[test]
    fn every_value_of_a_line_is_in_the_record_and_no_key_twice(
        members in prop::collection::vec(
            ("(host|log|service|original|a)(\\.(name|file|offset|x))?", prop::sample::select(vec!["1", "\"s\"", "{\"name\":2}", "{\"file\":{\"path\":3}}", "{}"])),
            0..6,
        ),
        overwrite: bool,
    ) {
        let line = format!("{{{}}}", members.iter().map(|(k, v)| format!("\"{k}\":{v}")).collect::<Vec<_>>().join(","));
        let own = own(&[("service.name", json!("shop"), overwrite)]);
        let (record, _) = encode(Content::Json, line.as_bytes(), &own);
        let mut parser = Parser::default();
        prop_assert!(!parser.parse(record.as_bytes()).unwrap().has_duplicate_keys(), "{}", record);
        let (mut expected, mut found) = (Vec::new(), Vec::new());
        leaves("", &serde_json::from_str(&line).unwrap(), &mut expected);
        leaves("", &serde_json::from_str(&record).unwrap(), &mut found);
        for value in expected.iter().filter(|v| *v != "{}") {
            let at = found.iter().position(|f| f == value);
            prop_assert!(at.is_some(), "{} lost of {} in {}", value, line, record);
            found.remove(at.unwrap());
        }
    }

    #[test]
    fn splicing_says_the_same_as_merging_whatever_came_before(
        names in prop::collection::vec("(host|log|service|team|stream|a|@timestamp)(\\.(name|file))?", 0..6),
        lines in prop::collection::vec((
            prop::collection::vec(prop::sample::select(vec![
                "1", "\"s\"", "{\"x\":2}", "{ \"level\" : [1, {}] }", "{}", "{\"file\":{}}", "\"2026-01-01T00:00:00Z\"",
            ]), 6),
            "[ \t]{0,2}",
            any::<bool>(),
            0..2_usize,
        ), 1..16),
    ) {
        let ours = [
            own(&[("service.name", json!("shop"), true), ("team", json!("t"), true)]),
            own(&[("service.name", json!("shop"), true), ("a.name", json!("t"), true)]),
        ];
        let (mut parser, mut plans) = (Parser::default(), Plans::default());
        for (values, space, is_wrapped, own) in lines {
            // A name that is followed by a space has no id, and its line no shape.
            let after = if space.len() == 2 { " " } else { "" };
            let members = names.iter().zip(values).map(|(k, v)| format!("{space}\"{k}\"{after}:{v}{space}"));
            let line = format!("{{{}{space}}}", members.collect::<Vec<_>>().join(","));
            let own = &ours[own];
            let value = parser.parse(line.as_bytes()).unwrap();
            let wrapper = is_wrapped.then_some(Wrapper { time: "2026-01-02T03:04:05Z", stream: "stdout" });
            let at = Line { flags: Flags::PARTIAL, max_record: 9999, wrapper, ..self::line(line.as_bytes()) };
            let (mut spliced, mut merged) = (Vec::new(), Vec::new());
            let flags = plans.encode(value, at, own, &mut spliced);
            prop_assert_eq!(flags, merge::encode(value, at, own, &mut merged));
            let read = |text: &[u8]| serde_json::from_slice::<Value>(text).unwrap();
            prop_assert_eq!(read(&spliced), read(&merged), "{}", line);
        }
    }
}
