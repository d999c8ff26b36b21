use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

const NOW: i64 = 1_763_879_417_123;

fn read(line: &str) -> Option<String> {
    let types = [("n", FieldType::Integer), ("s", FieldType::Float), ("ok", FieldType::Boolean)];
    let types = types.iter().map(|(name, field_type)| (name.to_string(), *field_type)).collect();
    let mut out = Vec::new();
    let mut logfmt = Logfmt::new(types, EventTime::of_fields(&Logfmt::TIME_FIELDS));
    logfmt.write_object(line, NOW, &mut out).then(|| String::from_utf8(out).unwrap())
}

fn check(line: &str, expected: &str) {
    assert_eq!(read(line).as_deref(), Some(expected), "{line}");
}

#[test]
fn pairs_become_fields() {
    check(r#"level=info msg="hello world" user=ann"#, r#"{"level":"info","message":"hello world","user":"ann"}"#);
    check("\ta=1 \t b=  c ", r#"{"a":"1","b":"","c":true}"#);
    check(r#"a="" b="true" c=true"#, r#"{"a":"","b":"true","c":"true"}"#);
    check("url=/a?b=c&d=e 키=값", r#"{"url":"/a?b=c&d=e","키":"값"}"#);
    check("a.b=1 a-b=2 @c=3", r#"{"a.b":"1","a-b":"2","@c":"3"}"#);
}

#[test]
fn types_are_those_that_were_asked_for() {
    check(r#"n=9223372036854775808 s=1.50 ok=true id=17"#, r#"{"n":9223372036854775808,"s":1.50,"ok":true,"id":"17"}"#);
    check(r#"n=1.5 s="2" ok=1"#, r#"{"n":"1.5","s":2,"ok":"1"}"#);
}

#[test]
fn escapes_are_those_of_json_and_other_backslashes_stay() {
    check(r#"a="say \"hi\"\n\u00e9\/" b=1"#, r#"{"a":"say \"hi\"\n\u00e9\/","b":"1"}"#);
    check(r#"a="C:\dir\x" b="it\'s""#, r#"{"a":"C:\\dir\\x","b":"it's"}"#);
    check(r#"a="\ud83d\ude00 \ud83d \ude00 \u12" b=\n"#, r#"{"a":"\ud83d\ude00 \\ud83d \\ude00 \\u12","b":"\\n"}"#);
    check("a=\"one\ntwo\ttab\u{1}\"", r#"{"a":"one\ntwo\ttab\u0001"}"#);
    check(r#"a="\é""#, r#"{"a":"\\é"}"#);
}

#[test]
fn names_of_message_and_time_are_made_ours() {
    check("ts=2026-11-23T06:30:17.123456Z msg=x", r#"{"@timestamp":"2026-11-23T06:30:17.123456Z","message":"x"}"#);
    check(r#"time="2026-11-23 06:30:17" message=x"#, r#"{"@timestamp":"2026-11-23T06:30:17.000Z","message":"x"}"#);
    check("ts=1764000000.25 a=1", r#"{"@timestamp":"2025-11-24T16:00:00.250Z","a":"1"}"#);
    check("msg=a message=b", r#"{"msg":"a","message":"b"}"#);
    check("msg=a msg=b", r#"{"msg":"a","message":"b"}"#);
    check("ts=soon time=1764000000000", r#"{"ts":"soon","@timestamp":"2025-11-24T16:00:00.000Z"}"#);
    check("ts=noon msg=x", r#"{"ts":"noon","message":"x"}"#);
    check("@timestamp=2026-01-01 ts=1764000000", r#"{"@timestamp":"2026-01-01","ts":"1764000000"}"#);
}

#[test]
fn what_is_no_logfmt_is_refused() {
    let many = "a=1 ".repeat(Logfmt::MAX_PAIRS + 1);
    for line in [
        "",
        " ",
        "plain words",
        "GET /index.html took=5",
        "=a",
        "a=1 =b",
        r#"a="open"#,
        r#"a="open\"#,
        r#"a="x"y"#,
        r#"a=x"y""#,
        r#"a=1 "b""#,
        r#"{"a":"b=c"}"#,
        "a=1\nb=2",
        "a=\u{1}",
        &many,
    ] {
        assert_eq!(read(line), None, "{line}");
    }
}

proptest! {
    #[test]
    fn every_pair_is_in_the_object(pairs in prop::collection::vec(("[a-z.]{1,3}", prop::option::of(".{0,6}")), 1..6), blank in "[ \t]{1,2}") {
        let words = pairs.iter().map(|(key, value)| match value {
            // A string of JSON is a quoted value.
            Some(value) => format!("{key}={}", Value::from(value.as_str())),
            None => key.clone(),
        });
        let line = format!("first=1{blank}{}", words.collect::<Vec<_>>().join(&blank));
        let found: Value = serde_json::from_str(&read(&line).unwrap()).unwrap();
        let mut expected = serde_json::Map::new();
        expected.insert("first".to_owned(), json!("1"));
        expected.extend(pairs.into_iter().map(|(key, value)| (key, value.map_or(json!(true), Value::from))));
        // The types of `n`, `s` and `ok` are tested above.
        for name in ["n", "s", "ok"] {
            expected.remove(name);
        }
        for (key, value) in expected {
            let renamed = if key == "msg" { "message" } else { &key };
            prop_assert_eq!(&found[renamed], &value, "{} of {}", key, line);
        }
    }

    #[test]
    fn bare_values_arrive_as_written(value in "[^ \t\"\u{0}-\u{1f}]{1,8}") {
        let line = format!("a={value}");
        let found: Value = serde_json::from_str(&read(&line).unwrap()).unwrap();
        prop_assert_eq!(found, json!({"a": value}));
    }

    #[test]
    fn any_text_is_an_object_or_refused(line in "[a\"\\\\=u0d \n]{0,16}") {
        if let Some(object) = read(&line) {
            prop_assert!(serde_json::from_str::<Value>(&object).unwrap().is_object(), "{}", line);
        }
    }
}
