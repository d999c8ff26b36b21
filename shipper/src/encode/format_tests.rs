//! What holds for every way to read a line, and for lines that a container runtime wrapped.

use super::event_time::EventTime;
use super::own_fields::{Field, Origin};
use super::typing::FieldType;
use super::*;
use millrace_common::record::SourceId;
use proptest::prelude::*;
use serde_json::{Value, json};

const NOW: i64 = 1_763_879_417_123;
const READ_TIME: &str = "2025-11-23T06:30:17.123Z";
const WRAPPER: Wrapper<'_> = Wrapper { time: "2026-11-23T06:30:17.123456789+09:00", stream: "stderr" };

fn logfmt() -> Content {
    let types = [("n".to_owned(), FieldType::Integer)].into();
    Content::Logfmt(Logfmt::new(types, EventTime::of_fields(&Logfmt::TIME_FIELDS)))
}

fn pattern() -> Content {
    let types = [("n".to_owned(), FieldType::Integer)].into();
    let expression = r"^(?:(?P<timestamp>[0-9T:Z-]+) )?(?P<n>[0-9]+) (?P<host.name>\w+)(?P<rest>.*)";
    Content::Pattern(Box::new(Pattern::of_regex(expression, &types, EventTime::of_fields(&["timestamp"])).unwrap()))
}

fn own(fields: &[(&str, Value)]) -> OwnFields {
    let field = |(path, value): &(&str, Value)| Field { path: path.to_string(), value: value.clone(), overwrite: true };
    let origin = Origin { host_name: "web-1", path: "/var/log/app.log", source: SourceId::from_u64(0xabc) };
    OwnFields::new(origin, &fields.iter().map(field).collect::<Vec<_>>()).unwrap()
}

fn line<'a>(content: &'a [u8], wrapper: Option<Wrapper<'a>>) -> Line<'a> {
    Line { content, offset: 77, read_time: Moment::at(NOW), flags: Flags::NONE, max_record: 4096, wrapper }
}

fn encode_line(content: Content, line: Line<'_>, own: &OwnFields) -> (Value, Flags) {
    let mut out = Vec::new();
    let flags = Encoder::new(content, encoding_rs::UTF_8).encode(line, own, &mut out);
    let mut parser = Parser::default();
    assert!(!parser.parse(&out).unwrap().has_duplicate_keys(), "{}", String::from_utf8_lossy(&out));
    (serde_json::from_slice(&out).unwrap(), flags)
}

fn encode(content: Content, text: &str) -> (Value, Flags) {
    encode_line(content, line(text.as_bytes(), None), &own(&[]))
}

fn wrapped(content: Content, text: &str, own: &OwnFields) -> Value {
    encode_line(content, line(text.as_bytes(), Some(WRAPPER)), own).0
}

fn ours() -> Value {
    json!({"host": {"name": "web-1"}, "log": {"file": {"path": "/var/log/app.log"}, "offset": 77, "source": "0000000000000abc"}})
}

/// Our own members and these.
fn with_ours(members: Value) -> Value {
    let mut record = ours();
    let Value::Object(members) = members else { panic!("not an object: {members}") };
    record.as_object_mut().unwrap().extend(members);
    record
}

#[test]
fn pairs_stand_at_the_top_level_and_collide_as_fields_of_json_do() {
    let (record, flags) =
        encode(logfmt(), r#"ts=2026-11-23T06:30:17Z level=info msg="a b" n=1 host.name=x @timestamp.x=1"#);
    let expected = json!({"@timestamp": "2026-11-23T06:30:17.000Z", "level": "info", "message": "a b", "n": 1, "@timestamp.x": "1", "original": {"host.name": "x"}});
    assert_eq!((record, flags), (with_ours(expected), Flags::NONE));
    let (record, flags) = encode(logfmt(), "@timestamp=noon log=x a=1 a=2");
    assert_eq!(
        (&record["@timestamp"], &record["original"], &record["a"]),
        (&json!(READ_TIME), &json!({"@timestamp": "noon", "log": "x"}), &json!("2"))
    );
    assert_eq!(flags, Flags::DUPLICATE_KEY);
}

#[test]
fn a_line_that_does_not_fit_is_shipped_as_text_and_flagged() {
    for content in [logfmt(), pattern()] {
        let (record, flags) = encode(content.clone(), "some words");
        let mut expected = with_ours(json!({"@timestamp": READ_TIME, "message": "some words"}));
        expected["log"]["flags"] = json!(["unparsed"]);
        assert_eq!((record, flags), (expected, Flags::UNPARSED));
        // A part of a line must not be taken for the whole.
        let part = Line { flags: Flags::PARTIAL, ..line(b"7 a=b", None) };
        let (record, flags) = encode_line(content, part, &own(&[]));
        assert_eq!(record["message"], "7 a=b");
        assert!(flags.contains(Flags::UNPARSED) && flags.contains(Flags::PARTIAL));
    }
}

#[test]
fn what_a_pattern_captures_collides_as_fields_of_json_do() {
    let (record, flags) = encode(pattern(), "2026-11-23T06:30:17Z 42 web-9 done");
    let message = "2026-11-23T06:30:17Z 42 web-9 done";
    let expected = json!({"@timestamp": "2026-11-23T06:30:17.000Z", "message": message, "n": 42, "rest": "-9 done", "original": {"host.name": "web"}});
    assert_eq!((record, flags), (with_ours(expected), Flags::NONE));
}

#[test]
fn fields_that_make_a_record_too_large_leave_a_cut_text() {
    let long = "x".repeat(3000);
    for (content, text) in [(logfmt(), format!("a={long}\" b={long}")), (pattern(), format!("1 a {long}"))] {
        let text = text.replace('"', "");
        let (record, flags) = encode(content, &text);
        assert!(flags.contains(Flags::TRUNCATED) && flags.contains(Flags::UNPARSED), "{flags:?}");
        assert!(text.starts_with(record["message"].as_str().unwrap()));
    }
}

#[test]
fn the_time_and_the_stream_of_the_runtime_are_those_of_the_record() {
    let wrapper = json!({"@timestamp": WRAPPER.time, "stream": "stderr"});
    for (content, text, members) in [
        (Content::Text, "hello", json!({"message": "hello"})),
        (Content::Json, r#"{"a":1}"#, json!({"a": 1})),
        (Content::Json, "{ }", json!({})),
        (logfmt(), "a=1 ts=soon", json!({"a": "1", "ts": "soon"})),
        (pattern(), "1 x", json!({"message": "1 x", "n": 1, "rest": "", "original": {"host.name": "x"}})),
    ] {
        let mut expected = with_ours(wrapper.clone());
        expected.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        assert_eq!(wrapped(content, text, &own(&[])), expected, "{text}");
    }
    let record = wrapped(Content::Json, "no json", &own(&[]));
    assert_eq!(
        (&record["@timestamp"], &record["stream"], &record["message"]),
        (&json!(WRAPPER.time), &json!("stderr"), &json!("no json"))
    );
    let unreadable = Wrapper { time: "\"then\"", ..WRAPPER };
    assert_eq!(encode_line(Content::Text, line(b"x", Some(unreadable)), &own(&[])).0["@timestamp"], READ_TIME);
}

#[test]
fn a_readable_time_inside_wins_over_that_of_the_runtime() {
    for (content, text) in [
        (Content::Json, r#"{"@timestamp":"2026-01-02T03:04:05.000Z"}"#),
        (logfmt(), "ts=2026-01-02T03:04:05Z"),
        (pattern(), "2026-01-02T03:04:05Z 1 x"),
    ] {
        assert_eq!(wrapped(content, text, &own(&[]))["@timestamp"], "2026-01-02T03:04:05.000Z", "{text}");
    }
    let record = wrapped(Content::Json, r#"{"@timestamp":"noon"}"#, &own(&[]));
    assert_eq!((&record["@timestamp"], &record["original"]), (&json!(WRAPPER.time), &json!({"@timestamp": "noon"})));
}

#[test]
fn a_stream_of_the_line_moves_and_the_operators_wins() {
    for (text, moved) in [
        (r#"{"stream":"mine"}"#, json!({"stream": "mine"})),
        (r#"{"stream":{"id":1}}"#, json!({"stream": {"id": 1}})),
        (r#"{"stream.id":1,"original":{"stream.id":2}}"#, json!({"stream.id": 2, "stream.id_": 1})),
    ] {
        let record = wrapped(Content::Json, text, &own(&[]));
        assert_eq!((&record["stream"], &record["original"]), (&json!("stderr"), &moved), "{text}");
    }
    let operators = own(&[("stream", json!("theirs"))]);
    for (content, text) in [(Content::Text, "x"), (Content::Json, "{}"), (logfmt(), "a=1")] {
        let record = wrapped(content, text, &operators);
        assert_eq!(
            (&record["stream"], &record["original"]),
            (&json!("theirs"), &json!({"stream": "stderr"})),
            "{text}"
        );
    }
    let record = wrapped(Content::Text, "x", &own(&[("stream.kind", json!("theirs"))]));
    assert_eq!((&record["stream"], &record["original"]), (&json!({"kind": "theirs"}), &json!({"stream": "stderr"})));
    // Without a runtime it is a name like any other.
    assert_eq!(
        encode(Content::Json, r#"{"stream":"mine"}"#).0,
        with_ours(json!({"@timestamp": READ_TIME, "stream": "mine"}))
    );
}

fn contents() -> impl Strategy<Value = Content> {
    prop::sample::select(vec![Content::Text, Content::Json, logfmt(), pattern()])
}

proptest! {
    #[test]
    fn any_bytes_become_one_object_that_holds_them(
        content in contents(),
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..64),
            "[0-9a-z =\"\\\\.{}:\n]{0,48}".prop_map(String::into_bytes),
            "[0-9]{1,3} (host|log)[ =a-z]{0,9}".prop_map(String::into_bytes),
            "(host|log|stream|message|msg|ts|a)(\\.(name|a))?=[a1\"]{0,3}( (host|stream|original|a)(\\.name)?=1){0,3}".prop_map(String::into_bytes),
        ],
        is_wrapped: bool,
        max_record in prop::sample::select(vec![600, 4096]),
    ) {
        let line = Line { max_record, ..line(&bytes, is_wrapped.then_some(WRAPPER)) };
        let mut out = Vec::new();
        let flags = Encoder::new(content.clone(), encoding_rs::UTF_8).encode(line, &own(&[]), &mut out);
        prop_assert!(out.len() <= max_record);
        let mut parser = Parser::default();
        prop_assert!(!parser.parse(&out).unwrap().has_duplicate_keys());
        let record: Value = serde_json::from_slice(&out).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        prop_assert_eq!(flags.contains(Flags::INVALID_UTF8), matches!(text, std::borrow::Cow::Owned(_)));
        let is_text = content.is_text() || flags.contains(content.fallback());
        if is_text || matches!(content, Content::Pattern(_)) {
            prop_assert_eq!(record["message"].as_str(), Some(&*text));
        }
        prop_assert_eq!(record.get("stream").is_some_and(|stream| stream == "stderr"), is_wrapped);
        prop_assert_eq!(&record["host"]["name"], "web-1");
    }

    #[test]
    fn every_pair_is_in_the_record(
        pairs in prop::collection::btree_map(
            "(host|log|stream|original|message|msg|time|a)(\\.(name|file|offset|x))?", "[a-z]{1,5}", 1..6,
        ),
        is_wrapped: bool,
    ) {
        let text = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ");
        let line = line(text.as_bytes(), is_wrapped.then_some(WRAPPER));
        let (record, flags) = encode_line(logfmt(), line, &own(&[]));
        prop_assert_eq!(flags, Flags::NONE);
        for (key, value) in &pairs {
            let renamed = if key == "msg" && !pairs.contains_key("message") { "message" } else { key };
            let moved = [&record["original"][renamed], &record["original"][format!("{renamed}_")]];
            let is_there = record[renamed] == **value || moved.iter().any(|moved| *moved == value);
            prop_assert!(is_there, "{} lost of {} in {}", key, text, record);
        }
    }
}
