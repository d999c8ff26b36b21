use std::collections::BTreeMap;

use serde::Deserialize;

use super::*;

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Sample {
    /// Where records go.
    kafka: Broker,
    #[serde(default)]
    inputs: Vec<Input>,
    #[serde(default)]
    limits: Limits,
    shutdown: Option<Shutdown>,
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Broker {
    brokers: Vec<String>,
    /// Topic to write to. It must exist.
    topic: String,
    #[serde(default)]
    options: crate::kafka::Options,
    port: Option<u16>,
    password: Option<Secret>,
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Input {
    paths: Vec<String>,
    #[serde(default)]
    format: Format,
    #[serde(default)]
    fields: BTreeMap<String, serde_json::Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Text,
    /// One object per line.
    Json,
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Limits {
    memory: ByteSize,
    wait: Option<HumanDuration>,
    free: Percent,
    follow: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: ByteSize::new(1), wait: None, free: Percent::new(10.0), follow: false }
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
enum Shutdown {
    Drain { deadline: HumanDuration },
    Quit,
}

fn env(name: &str) -> Option<String> {
    match name {
        "TOPIC" => Some("from-env".to_owned()),
        "PORT" => Some("9092".to_owned()),
        "INJECT" => Some("x\nport: 1".to_owned()),
        _ => None,
    }
}

fn read(text: &str) -> Result<Sample, Faults> {
    load("a.yaml", text, &env)
}

fn check_faults(text: &str, expected: &[&str]) {
    let printed = read(text).expect_err("the text has faults").to_string();
    assert_eq!(printed.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_sound_file_is_read() {
    let sample = read(
        r#"
# comment
kafka:
  brokers: ["a:9092", b:9092]
  topic: ${TOPIC}
  port: "${PORT}"
  options: { linger.ms: 5, compression.type: lz4, acks: "all", enable.idempotence: true }
  password_file: /run/secrets/kafka
inputs:
  - paths: ['/var/log/*.log']
    format: json
    fields: { service.name: "${SERVICE:-shop}", version: 1.0, tags: [a, 2], none: ~ }
  - paths: [x]
limits: { memory: 10MiB, wait: 90s, follow: true }
shutdown: { kind: drain, deadline: 25s }
"#,
    )
    .unwrap();
    assert_eq!(sample.kafka.topic, "from-env");
    assert_eq!(sample.kafka.port, Some(9092));
    let options: Vec<_> = sample.kafka.options.iter().collect();
    assert_eq!(
        options,
        [("acks", "all"), ("compression.type", "lz4"), ("enable.idempotence", "true"), ("linger.ms", "5")]
    );
    assert_eq!(sample.kafka.password, Some(Secret::from_file("/run/secrets/kafka")));
    assert_eq!(sample.inputs[0].format, Format::Json);
    assert_eq!(
        serde_json::to_string(&sample.inputs[0].fields).unwrap(),
        r#"{"none":null,"service.name":"shop","tags":["a",2],"version":1.0}"#
    );
    assert_eq!(sample.limits.memory.bytes(), 10 << 20);
    assert_eq!(sample.limits.free, Percent::new(10.0));
    assert!(matches!(sample.shutdown, Some(Shutdown::Drain { .. })));
}

#[test]
fn three_faults_are_told_together_with_line_and_column() {
    check_faults(
        "kafka:\n  brokers: [a]\n  topc: logs\nlimits: { memory: 10 Mebi }\ninputs:\n  - paths: [x]\n    format: jsn\n",
        &[
            "a.yaml:3:3: kafka.topc: unknown key; did you mean `topic`?",
            "a.yaml:4:19: limits.memory: `10 Mebi` is not a size; write a whole number with B, KiB, MiB, GiB, TiB (1024) or kB, MB, GB, TB (1000), such as 10MiB",
            "a.yaml:7:13: inputs[0].format: `jsn` is not known here; did you mean `json`? write one of: text, json",
        ],
    );
}

#[test]
fn missing_keys_are_told_with_what_they_are_for() {
    check_faults(
        "kafka:\n  brokers: []\ninputs:\n  - format: text\n",
        &[
            "a.yaml:2:3: kafka.topic: missing; add the key `topic` (Topic to write to)",
            "a.yaml:4:5: inputs[0].paths: missing; add the key `paths`",
        ],
    );
    check_faults("", &["a.yaml: kafka: missing; add the key `kafka` (Where records go)"]);
}

#[test]
fn wrong_types_say_what_is_wanted() {
    check_faults(
        "kafka:\n  brokers: a:9092\n  topic: [x]\n  port: 70000\ninputs: {}\nlimits:\n  follow: yes\n  wait: 30\n  free: \"5\"\nshutdown:\n  kind: drain\n  deadlin: 1s\n",
        &[
            "a.yaml:2:12: kafka.brokers: is a single value, but must be a list; write `[a:9092]`",
            "a.yaml:3:10: kafka.topic: is a list, but must be a text",
            "a.yaml:4:9: kafka.port: `70000` is out of range; write a number from 0 to 65535",
            "a.yaml:5:9: inputs: is a mapping, but must be a list",
            "a.yaml:7:11: limits.follow: `yes` is not true or false; write true",
            "a.yaml:8:9: limits.wait: `30` is not a duration; write whole numbers with ms, s, m, h or d, such as 30s, 250ms or 1h30m",
            "a.yaml:9:9: limits.free: `5` is not a share; write a number between 0% and 100%, such as 10%",
            "a.yaml:12:3: shutdown.deadlin: unknown key; did you mean `deadline`?",
        ],
    );
}

#[test]
fn duplicate_keys_name_the_first_place() {
    check_faults(
        "kafka: {brokers: [a], topic: x}\nlimits:\n  follow: true\n  follow: false\n",
        &["a.yaml:4:3: limits.follow: written twice, first in line 3, column 3; remove one of the two"],
    );
}

#[test]
fn unset_variables_and_broken_yaml_have_a_place() {
    check_faults(
        "kafka:\n  brokers: [a]\n  topic: x-${NOPE}\n",
        &[
            "a.yaml:3:10: kafka.topic: the environment variable `NOPE` is not set; set it, or give a default: `${NOPE:-…}`",
        ],
    );
    let printed = read("kafka:\n  brokers: [a\n  topic: x\n").unwrap_err().to_string();
    assert!(printed.starts_with("a.yaml:3:") && printed.contains("not valid YAML"), "{printed}");
    // What is missing at the end is not on a line behind it.
    for text in ["kafka: [", "kafka: {", "kafka: \"", "kafka: { brokers: [a", "kafka: { brokers: [-"] {
        let printed = read(text).unwrap_err().to_string();
        assert!(printed.starts_with("a.yaml:1:") && printed.contains("not valid YAML"), "{printed}");
    }
    // A fault is one line, whatever stands in the value.
    let printed = read("kafka:\n  brokers: [a]\n  topic: \"${a\\n\u{1b}[2J}\"\n").unwrap_err().to_string();
    assert!(!printed.contains(crate::terminal::acts), "{printed:?}");
    let printed = read("a: 1\n---\nb: 2\n").unwrap_err().to_string();
    assert!(printed.contains("a second YAML document"), "{printed}");
}

#[test]
fn a_variable_cannot_add_keys() {
    let sample = read("kafka:\n  brokers: [a]\n  topic: ${INJECT}\n").unwrap();
    assert_eq!(sample.kafka.topic, "x\nport: 1");
    assert_eq!(sample.kafka.port, None);
}

#[test]
fn a_quoted_variable_is_a_text_where_a_text_will_do() {
    let text = r#"
kafka: { topic: "${PORT}", brokers: [b], port: "${PORT}" }
inputs: [{ paths: [x], fields: { text: "${PORT}", number: "${PORT}5", plain: 5 } }]
"#;
    let sample = read(text).unwrap();
    assert_eq!((sample.kafka.topic.as_str(), sample.kafka.port), ("9092", Some(9092)));
    assert_eq!(
        serde_json::to_string(&sample.inputs[0].fields).unwrap(),
        r#"{"number":"90925","plain":5,"text":"9092"}"#
    );
    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    #[serde(untagged)]
    enum Any {
        Number(u32),
        Text(String),
    }
    let read = |text| load::<BTreeMap<String, Any>>("a.yaml", text, &env).unwrap();
    assert_eq!(read("a: \"${PORT}\"")["a"], Any::Text("9092".to_owned()));
    assert_eq!(read("a: ${PORT}")["a"], Any::Number(9092));
}

#[test]
fn anchors_and_merges_are_followed() {
    let sample = read(
        "inputs:\n  - &a { paths: [x], format: json }\n  - { <<: *a, paths: [y] }\nkafka: { topic: t, brokers: [b] }\n",
    )
    .unwrap();
    assert_eq!((sample.inputs[1].paths[0].as_str(), &sample.inputs[1].format), ("y", &Format::Json));
}

#[test]
fn aliases_of_aliases_are_refused_before_they_fill_the_memory() {
    let mut text = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..12 {
        let items = vec![format!("*a{}", level - 1); 10].join(",");
        text.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    assert!(read(&text).unwrap_err().to_string().contains("too many values"));
    let deep = format!("kafka: {}x{}", "[".repeat(100), "]".repeat(100));
    assert!(read(&deep).unwrap_err().to_string().contains("nested too deeply"));
    assert!(read(&"[".repeat(10_000)).is_err());
}

#[test]
fn an_empty_section_takes_its_defaults() {
    let sample = read("kafka: { topic: t, brokers: [b] }\nlimits:\n  # memory: 1MiB\nshutdown:\n").unwrap();
    assert_eq!((sample.limits, sample.shutdown), (Limits::default(), None));
}

#[test]
fn a_secret_is_given_once_and_never_shown() {
    let text = "kafka: { topic: t, brokers: [b], password: hunter2 }\n";
    let sample = read(text).unwrap();
    assert_eq!(sample.kafka.password.as_ref().unwrap().read().unwrap(), "hunter2");
    assert!(!format!("{sample:?}").contains("hunter2"));
    for text in [
        "kafka: { topic: t, brokers: [b], password: hunter2, password_file: f }\n",
        "kafka: { topic: t, brokers: [b], password_file: f, password: hunter2 }\n",
        "kafka: { topic: t, brokers: [b], password: [hunter2] }\n",
        "kafka: { topic: t, brokers: [b], passwrd: hunter2 }\n",
    ] {
        let faults = read(text).unwrap_err();
        assert!(!format!("{faults} {faults:?}").contains("hunter2"), "{faults}");
        assert_eq!(faults.iter().count(), 1, "{faults}");
    }
}

#[test]
fn flags_win_over_the_file_and_suffice_alone() {
    let settings = [
        Setting::one("--topic", "kafka.topic", "flagged"),
        Setting::list("--brokers", "kafka.brokers", ["c:1", "d:2"]),
    ];
    let over = draft::<Sample>("a.yaml", "kafka: { topic: t, brokers: [b], port: 5 }", &settings, &env);
    let sample = over.faults.finish(over.value).unwrap();
    assert_eq!((sample.kafka.topic.as_str(), sample.kafka.brokers.len(), sample.kafka.port), ("flagged", 2, Some(5)));

    let alone = [settings.as_slice(), &[Setting::list("PATHS", "inputs[0].paths", ["/var/log/*.log"])]].concat();
    let alone = draft::<Sample>("command line", "", &alone, &env);
    let sample = alone.faults.finish(alone.value).unwrap();
    assert_eq!(sample.inputs[0].paths, ["/var/log/*.log"]);

    let bad = draft::<Sample>("command line", "", &[Setting::one("--memory", "limits.memory", "much")], &env);
    let printed = bad.faults.finish(bad.value).unwrap_err().to_string();
    assert!(printed.contains("command line: kafka: missing"), "{printed}");
    assert!(printed.contains("--memory: limits.memory: `much` is not a size"), "{printed}");
}

#[test]
fn faults_of_the_program_join_those_of_the_file() {
    let text = "kafka:\n  brokers: [a]\n  topc: t\n  options:\n    acks: 1\ninputs:\n  - paths: []\n";
    let Draft { value, mut faults, .. } = draft::<Sample>("a.yaml", text, &[], &env);
    let sample = value.expect("an unknown key can be stepped over");
    assert_eq!(sample.kafka.topic, "t");
    faults.at("kafka.options.acks").add("breaks delivery", "remove it");
    faults.at("inputs[0].paths").add("has no entry", "add one");
    faults.at("limits.memory").add("is too small", "raise it");
    let printed = faults.finish(Some(sample)).unwrap_err().to_string();
    assert_eq!(
        printed.lines().collect::<Vec<_>>(),
        [
            "a.yaml:3:3: kafka.topc: unknown key; did you mean `topic`?",
            "a.yaml:5:11: kafka.options.acks: breaks delivery; remove it",
            "a.yaml:7:5: inputs[0].paths: has no entry; add one",
            "a.yaml: limits.memory: is too small; raise it",
        ]
    );
}

#[test]
fn the_schema_offers_the_file_twin_of_a_secret() {
    let schema = schema::<Sample>();
    assert_eq!(schema["$defs"]["Broker"]["properties"]["password_file"]["x-file-of"], "password");
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Choices {
    multiline: Option<Multiline>,
    ends: Option<OneOrMany>,
    drain: Option<Drain>,
    level: Option<Level>,
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Multiline {
    Preset(Preset),
    Custom(Custom),
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Preset {
    preset: Level,
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Custom {
    start: String,
    max_bytes: Option<ByteSize>,
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
enum OneOrMany {
    One(u32),
    Many(Vec<u32>),
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Drain {
    Eof,
    After(HumanDuration),
    Until { bytes: ByteSize },
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Level {
    Java,
    Python,
}

#[test]
fn alternatives_are_taken_by_their_shape() {
    let read = |text| load::<Choices>("a.yaml", text, &env).unwrap();
    assert!(matches!(read("multiline: { preset: java }").multiline, Some(Multiline::Preset(_))));
    assert!(matches!(read("multiline: { start: '^x', max_bytes: 1KiB }").multiline, Some(Multiline::Custom(_))));
    assert_eq!(read("ends: 3").ends, Some(OneOrMany::One(3)));
    assert_eq!(read("ends: [3, 4]").ends, Some(OneOrMany::Many(vec![3, 4])));
    assert_eq!(read("drain: eof").drain, Some(Drain::Eof));
    assert_eq!(read("drain: { after: 5s }").drain, Some(Drain::After("5s".parse().unwrap())));
    assert_eq!(read("drain: { until: { bytes: 5 } }").drain, Some(Drain::Until { bytes: ByteSize::new(5) }));
    assert_eq!(read("level: ~").level, None);
}

#[test]
fn a_fault_is_told_of_the_alternative_that_was_meant() {
    let printed = |text| load::<Choices>("a.yaml", text, &env).unwrap_err().to_string();
    assert_eq!(
        printed("multiline: { preset: jav }"),
        "a.yaml:1:22: multiline.preset: `jav` is not known here; did you mean `java`? write one of: java, python"
    );
    assert_eq!(
        printed("multiline: { start: x, max_byte: 1KiB }"),
        "a.yaml:1:24: multiline.max_byte: unknown key; did you mean `max_bytes`?"
    );
    assert_eq!(printed("ends: [3, x]"), "a.yaml:1:11: ends[1]: `x` is not a whole number");
    assert_eq!(
        printed("drain: { after: soon }"),
        "a.yaml:1:17: drain.after: `soon` is not a duration; write whole numbers with ms, s, m, h or d, such as 30s, 250ms or 1h30m"
    );
    assert_eq!(
        printed("drain: eofs"),
        "a.yaml:1:8: drain: `eofs` is not known here; did you mean `eof`? write one of: eof"
    );
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_loader_panic(text in "([ \\n\\-:?&*!|>'\"%@`{}\\[\\],#$~<]|kafka|topic|paths|a|1|\\t|é){0,60}") {
        // Settings or faults, as long as it is one of them.
        let _ = read(&text);
    }
}
