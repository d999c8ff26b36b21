use super::*;
use serde_json::{Value, json};

const NOW: i64 = 1_763_879_417_123;

fn read(pattern: &mut Pattern, line: &str) -> Option<Value> {
    let mut out = Vec::new();
    pattern.write_object(line, NOW, &mut out).then(|| serde_json::from_slice(&out).unwrap())
}

fn of_regex(expression: &str, types: &[(&str, FieldType)]) -> Result<Pattern, PatternError> {
    let types = types.iter().map(|(name, field_type)| (name.to_string(), *field_type)).collect();
    Pattern::of_regex(expression, &types, EventTime::of_fields(&[TIME_FIELD]))
}

fn of_grok(pattern: &str, definitions: &[(&str, &str)]) -> Result<Pattern, PatternError> {
    let definitions = definitions.iter().map(|(name, expression)| (name.to_string(), expression.to_string())).collect();
    Pattern::of_grok(pattern, &definitions, &BTreeMap::new(), EventTime::of_fields(&[TIME_FIELD]))
}

fn matches(name: &str, text: &str) -> bool {
    let mut pattern = of_grok(&format!("^%{{{name}:found}}$"), &[]).unwrap();
    read(&mut pattern, text).is_some_and(|object| object["found"] == text)
}

#[test]
fn named_groups_become_typed_nested_fields() {
    let types = [("http.status", FieldType::Integer), ("seconds", FieldType::Float), ("ok", FieldType::Boolean)];
    let expression =
        r"(?P<http.status>\S+) (?P<seconds>\S+) (?P<ok>\w+)(?: (?P<http[method]>[A-Z]+))?(?: (?P<a[b][c]>\d+))?";
    let mut pattern = of_regex(expression, &types).unwrap();
    let line = "200 0.250 true GET 7";
    let expected = json!({"message": line, "http": {"status": 200, "method": "GET"}, "seconds": 0.25, "ok": true, "a": {"b": {"c": "7"}}});
    assert_eq!(read(&mut pattern, line), Some(expected));
    let line = "- 0.5s no";
    let expected = json!({"message": line, "http": {"status": "-"}, "seconds": "0.5s", "ok": "no"});
    assert_eq!(read(&mut pattern, line), Some(expected));
    assert_eq!(read(&mut pattern, "nothing"), None);
    let mut out = Vec::new();
    assert!(pattern.write_object("18446744073709551616 1.50 x", NOW, &mut out));
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains(r#""status":18446744073709551616}"#) && text.contains(r#""seconds":1.50,"#), "{text}");
}

#[test]
fn a_captured_message_stands_for_the_line_and_a_time_becomes_the_time() {
    let mut pattern = of_regex(r"^(?P<timestamp>\S+) (?:(?P<level>\w+): )?(?P<message>.*)$", &[]).unwrap();
    assert_eq!(
        read(&mut pattern, "2026-11-23T06:30:17.5+09:00 info: started"),
        Some(json!({"@timestamp": "2026-11-22T21:30:17.500Z", "message": "started", "level": "info"}))
    );
    assert_eq!(
        read(&mut pattern, "yesterday started"),
        Some(json!({"timestamp": "yesterday", "message": "started"})),
        "a time that cannot be read stays"
    );
    let mut pattern = of_regex(r"^(?:x (?P<message>.*)|(?P<other>.*))$", &[]).unwrap();
    assert_eq!(read(&mut pattern, "abc"), Some(json!({"message": "abc", "other": "abc"})));
}

#[test]
fn access_logs_of_apache_and_nginx() {
    let mut pattern = of_grok("%{COMBINEDAPACHELOG}", &[]).unwrap();
    let line =
        r#"203.0.113.9 - frank [10/Oct/2026:13:55:36 -0700] "GET /a?b=c HTTP/1.1" 200 2326 "-" "curl/8.5 (x \"y\")""#;
    let expected = json!({
        "@timestamp": "2026-10-10T20:55:36.000Z",
        "message": line,
        "source": {"address": "203.0.113.9"},
        "user": {"name": "frank"},
        "http": {"request": {"method": "GET"}, "version": "1.1", "response": {"status_code": 200, "body": {"bytes": 2326}}},
        "url": {"original": "/a?b=c"},
        "user_agent": {"original": r#"curl/8.5 (x \"y\")"#},
    });
    assert_eq!(read(&mut pattern, line), Some(expected));
    let mut pattern = of_grok("^%{COMMONAPACHELOG}$", &[]).unwrap();
    let object = read(&mut pattern, r#"::1 - - [01/Jan/2026:00:00:00 +0000] "-" 408 -"#).unwrap();
    assert_eq!(
        (&object["http"], &object["source"]["address"]),
        (&json!({"response": {"status_code": 408}}), &json!("::1"))
    );
}

#[test]
fn syslog_lines() {
    let mut pattern = of_grok("%{SYSLOGLINE}", &[]).unwrap();
    let expected = json!({
        "@timestamp": "2025-11-23T06:30:17.000Z",
        "host": {"hostname": "web-1"},
        "process": {"name": "sshd", "pid": 4711},
        "message": "Accepted publickey for root: ok",
    });
    let line = "Nov 23 06:30:17 web-1 sshd[4711]: Accepted publickey for root: ok";
    assert_eq!(read(&mut pattern, line), Some(expected));
}

#[test]
fn names_of_the_library_match_what_they_say() {
    for (name, good, bad) in [
        ("NUMBER", vec!["1", "-1.5", ".5", "+7"], vec!["", "1.", "a", "1e5"]),
        (
            "IP",
            vec![
                "10.0.0.1",
                "255.255.255.255",
                "::",
                "::1",
                "fe80::1:2%eth0",
                "1:2:3:4:5:6:7:8",
                "1::8",
                "::ffff:1.2.3.4",
                "64:ff9b::1.2.3.4",
            ],
            vec!["256.1.1.1", "1.2.3", "12:30:45", "1::2::3", "1:2:3:4:5:6:7:8:9"],
        ),
        ("IPORHOST", vec!["web-1.example.com", "localhost", "a_b"], vec!["a b", "-a"]),
        ("QUOTEDSTRING", vec![r#""a \" b""#, "'x'", "\"\""], vec![r#""a"#, "a"]),
        ("UUID", vec!["7a8c9b0e-1f2d-4c3b-9a8e-0d1c2b3a4f5e"], vec!["7a8c9b0e"]),
        (
            "TIMESTAMP_ISO8601",
            vec!["2026-11-23 06:30:17,123", "2026-11-23T06:30Z", "2026-11-23T06:30:17.5+0900"],
            vec!["23.11.2026"],
        ),
        ("SYSLOGTIMESTAMP", vec!["Nov 23 06:30:17", "Jan  3 00:00:00"], vec!["23 Nov"]),
        ("URI", vec!["https://user:pw@example.com:8443/a/b?c=d&e=%20", "file:///etc/hosts"], vec!["example.com"]),
        ("LOGLEVEL", vec!["WARN", "warning", "Error", "INFO"], vec!["loud"]),
        ("MAC", vec!["00:1b:44:11:3a:b7", "001b.4411.3ab7"], vec!["00:1b:44"]),
        ("PATH", vec!["/var/log/a.log", r"C:\logs\a.log"], vec!["a.log"]),
        ("WORD", vec!["가나_1", "über"], vec!["a b", ""]),
    ] {
        for text in good {
            assert!(matches(name, text), "{name}: {text}");
        }
        for text in bad {
            assert!(!matches(name, text), "{name}: {text}");
        }
    }
}

#[test]
fn every_name_of_the_library_compiles() {
    let names = include_str!("library.grok").lines().filter(|line| !line.starts_with('#'));
    for name in names.filter_map(|line| Some(line.split_once(' ')?.0)) {
        if let Err(fault) = of_grok(&format!("%{{{name}:found}}"), &[]) {
            panic!("{name}: {fault:?}");
        }
    }
}

#[test]
fn own_definitions_win_and_names_may_repeat() {
    let definitions = [("ORDER", r"[A-Z]{2}%{INT}"), ("WORD", "[a-z]+")];
    let mut pattern =
        of_grok(r"^(?:order %{ORDER:id}|user %{WORD:id}|(?<rest>\d+) %{INT:n:int})$", &definitions).unwrap();
    assert_eq!(read(&mut pattern, "order AB12").unwrap()["id"], "AB12");
    assert_eq!(read(&mut pattern, "user ann").unwrap()["id"], "ann");
    assert_eq!(read(&mut pattern, "user ANN"), None);
    assert_eq!(read(&mut pattern, "1 -2"), Some(json!({"message": "1 -2", "rest": "1", "n": -2})));
}

#[test]
fn bad_patterns_are_refused_with_their_cause() {
    let endless = [("A", "%{B}"), ("B", "%{A}")];
    let cases: [(Result<Pattern, PatternError>, &str); 9] = [
        (of_regex("(a", &[]), "Regex"),
        (of_regex("(?P<a>x)(?=y)", &[]), "Regex"),
        (of_regex(r"(?P<a>\w{1000}{1000})", &[]), "Regex"),
        (of_regex("a", &[]), "NoField"),
        (of_regex("(?P<a>.)(?P<a.b>.)", &[]), "Conflict"),
        (of_regex("(?P<a..b>.)", &[]), "Empty"),
        (of_regex("(?P<a>.)", &[("b", FieldType::Integer)]), "Unknown"),
        (of_grok("%{NOPE:a}", &[]), "Grok(Unknown"),
        (of_grok("%{A:a}", &endless), "Grok(Endless"),
    ];
    for (made, expected) in cases {
        let fault = format!("{:?}", made.unwrap_err());
        assert!(fault.starts_with(expected), "{expected}: {fault}");
    }
    assert!(matches!(of_grok("%{INT:a", &[]), Err(PatternError::Grok(GrokError::Open(_)))));
    assert!(matches!(of_grok("%{INT:a:decimal}", &[]), Err(PatternError::Grok(GrokError::Type(_)))));
}
