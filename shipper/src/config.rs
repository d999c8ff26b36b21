//! The shipper's settings: as written, and checked. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use encoding_rs::Encoding;
use millrace_common::config::{self, ByteSize, Draft, Faults, HumanDuration, Setting};
use millrace_common::kafka::{self, Options, Role};
use millrace_common::telemetry::admin;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::discover::scan::{PatternError, Patterns};
use crate::encode::Format;
use crate::encode::own_fields::{self, Field};
use crate::tail::InputSettings;

/// Settings of the shipper.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Raw {
    /// Files to tail.
    #[serde(default)]
    inputs: Vec<RawInput>,
    kafka: RawKafka,
    #[serde(default)]
    limits: RawLimits,
    #[serde(default)]
    files: RawFiles,
    #[serde(default)]
    shutdown: RawShutdown,
    #[serde(default)]
    host: RawHost,
    /// Folder of the checkpoint. It must survive a restart.
    data_dir: PathBuf,
    #[serde(default)]
    admin: RawAdmin,
}

/// Files of one kind.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawInput {
    /// Name of the input, for status and logs.
    id: Option<String>,
    /// Absolute patterns: `*` and `?` stay within a folder, `**` crosses folders.
    paths: Vec<String>,
    /// Patterns of paths or names to leave out.
    #[serde(default)]
    exclude: Vec<String>,
    #[serde(default)]
    format: Format,
    /// Character encoding, by a label of the WHATWG standard: `euc-kr`, `shift_jis`, `windows-1252`, … Records are UTF-8.
    encoding: Option<String>,
    /// Fields to add to every record, by dotted name. They win over the line's own.
    #[serde(default)]
    fields: BTreeMap<String, FieldValue>,
    /// Whether `fields` win over fields of the line.
    #[serde(default = "yes")]
    overwrite: bool,
}

/// A constant in `fields`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum FieldValue {
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<String>),
    /// `service: {name: x}` is the same as `service.name: x`.
    Object(BTreeMap<String, FieldValue>),
}

impl FieldValue {
    fn flatten(&self, path: &str, out: &mut Vec<(String, serde_json::Value)>) {
        let value = match self {
            Self::Bool(value) => (*value).into(),
            Self::Integer(value) => (*value).into(),
            Self::Float(value) => (*value).into(),
            Self::Text(value) => value.as_str().into(),
            Self::List(values) => values.clone().into(),
            Self::Object(members) => {
                for (name, member) in members {
                    member.flatten(&format!("{path}.{name}"), out);
                }
                return;
            }
        };
        out.push((path.to_owned(), value));
    }
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawKafka {
    /// Bootstrap servers, `host:port`.
    brokers: Vec<String>,
    topic: String,
    /// librdkafka options by name. Those that would break delivery are refused.
    #[serde(default)]
    options: Options,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct RawLimits {
    /// Memory of the whole process. A quarter of it holds records on their way.
    memory: ByteSize,
    /// Largest record. What becomes of a longer line says `on_oversize`.
    max_record: ByteSize,
    on_oversize: OnOversize,
}

/// What becomes of an event whose record would be too large.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnOversize {
    /// Its message is cut and flagged.
    #[default]
    Truncate,
    /// It is given up, counted and logged with its path and range.
    Drop,
}

impl Default for RawLimits {
    fn default() -> Self {
        Self {
            memory: ByteSize::new(32 << 20),
            max_record: ByteSize::new(900 << 10),
            on_oversize: OnOversize::default(),
        }
    }
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct RawFiles {
    /// How often all patterns are walked, besides when the kernel tells of a change.
    rescan: HumanDuration,
    /// How often the checkpoint is saved while positions move.
    checkpoint: HumanDuration,
    /// Age at which an unterminated last line is sent (text only).
    partial_after: HumanDuration,
    /// How long a renamed or deleted file must be quiet before its last line is sent and it is let go.
    rotate_wait: HumanDuration,
    /// How long a file renamed out of the patterns is kept open without growing.
    close_unlisted: HumanDuration,
}

impl Default for RawFiles {
    fn default() -> Self {
        let seconds = |s| HumanDuration::new(Duration::from_secs(s));
        Self {
            rescan: seconds(10),
            checkpoint: seconds(1),
            partial_after: seconds(300),
            rotate_wait: seconds(5),
            close_unlisted: seconds(300),
        }
    }
}

/// What to do with files on SIGTERM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Drain {
    /// Read every file to its end.
    #[default]
    Eof,
    /// Stop reading; deliver what was read.
    None,
}

/// What to do with an unterminated last line on SIGTERM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Partial {
    /// Leave it for the next start.
    #[default]
    Hold,
    /// Send it as it is.
    Send,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct RawShutdown {
    drain: Drain,
    partial: Partial,
    deadline: HumanDuration,
}

impl Default for RawShutdown {
    fn default() -> Self {
        let deadline = HumanDuration::new(Duration::from_secs(25));
        Self { drain: Drain::default(), partial: Partial::default(), deadline }
    }
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct RawHost {
    /// Part of every record id. Default: machine id and host name, stored at first start. Set it to the node name or the pod UID
    /// where files outlive the container.
    id: Option<String>,
    /// `host.name` of the records. Default: the host name.
    name: Option<String>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct RawAdmin {
    /// Address of `/livez`, `/readyz`, `/metrics` and `/status`.
    listen: String,
}

impl Default for RawAdmin {
    fn default() -> Self {
        Self { listen: "127.0.0.1:9640".to_owned() }
    }
}

fn yes() -> bool {
    true
}

/// Checked settings.
#[derive(Debug)]
pub struct Config {
    pub inputs: Vec<InputSettings>,
    pub patterns: Vec<Patterns>,
    pub brokers: Vec<String>,
    pub topic: String,
    pub options: Options,
    pub memory: u64,
    pub max_record: usize,
    pub on_oversize: OnOversize,
    pub rescan: Duration,
    pub checkpoint: Duration,
    pub partial_after: Duration,
    pub rotate_wait: Duration,
    pub close_unlisted: Duration,
    pub drain: Drain,
    pub partial: Partial,
    pub deadline: Duration,
    pub host_id: Option<String>,
    pub host_name: Option<String>,
    pub data_dir: PathBuf,
    pub listen: String,
}

impl Config {
    /// Bytes on their way to Kafka: half of what the process may use beyond its own needs.
    pub fn max_inflight(&self) -> u64 {
        self.memory / 4
    }
}

/// Reads and checks a configuration. `name` is the file's name for messages, `text` is empty without a file.
///
/// # Errors
/// All faults together.
pub fn load(
    name: &str,
    text: &str,
    settings: &[Setting],
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, Faults> {
    let Draft { value, mut faults } = config::draft::<Raw>(name, text, settings, env);
    let checked = value.map(|raw| check(raw, &mut faults));
    faults.finish(checked)
}

const MIN_MEMORY: u64 = 8 << 20;
const MIN_RECORD: u64 = 4 << 10;

fn check(raw: Raw, faults: &mut Faults) -> Config {
    if raw.inputs.is_empty() {
        faults.at("inputs").add("has no entry", "name the files to tail, for example paths: [\"/var/log/app/*.log\"]");
    }
    let mut inputs: Vec<InputSettings> = Vec::new();
    let mut patterns = Vec::new();
    for (i, input) in raw.inputs.into_iter().enumerate() {
        let id = input.id.clone().unwrap_or_else(|| format!("input-{i}"));
        if inputs.iter().any(|other| other.id == id) {
            let remedy = "give each input a name of its own";
            faults.at(&format!("inputs[{i}].id")).add(format!("`{id}` is the name of another input too"), remedy);
        }
        patterns.extend(check_patterns(i, &input, faults));
        let encoding = check_encoding(i, &input, faults);
        inputs.push(InputSettings { id, format: input.format, encoding, fields: check_fields(i, &input, faults) });
    }
    for fault in kafka::check(Role::Producer, &raw.kafka.brokers, &raw.kafka.options) {
        faults.at(&format!("kafka.{}", fault.path)).add(fault.what, fault.remedy);
    }
    check_topic(&raw.kafka.topic, faults);
    check_limits(&raw.limits, faults);
    if let Err(what) = admin::check_listen(&raw.admin.listen) {
        faults.at("admin.listen").add(what, "write host:port, for example 127.0.0.1:9640");
    }
    Config {
        inputs,
        patterns,
        brokers: raw.kafka.brokers,
        topic: raw.kafka.topic,
        options: raw.kafka.options,
        memory: raw.limits.memory.bytes(),
        max_record: raw.limits.max_record.bytes() as usize,
        on_oversize: raw.limits.on_oversize,
        rescan: raw.files.rescan.duration(),
        checkpoint: raw.files.checkpoint.duration(),
        partial_after: raw.files.partial_after.duration(),
        rotate_wait: raw.files.rotate_wait.duration(),
        close_unlisted: raw.files.close_unlisted.duration(),
        drain: raw.shutdown.drain,
        partial: raw.shutdown.partial,
        deadline: raw.shutdown.deadline.duration(),
        host_id: raw.host.id,
        host_name: raw.host.name,
        data_dir: raw.data_dir,
        listen: raw.admin.listen,
    }
}

fn check_patterns(i: usize, input: &RawInput, faults: &mut Faults) -> Option<Patterns> {
    if input.paths.is_empty() {
        faults.at(&format!("inputs[{i}].paths")).add("has no entry", "name at least one pattern");
    }
    match Patterns::new(&input.paths, &input.exclude) {
        Ok(patterns) => return Some(patterns),
        Err(fault) => {
            let (PatternError::Invalid { pattern, .. } | PatternError::Relative { pattern }) = &fault;
            let place = |key: &str, list: &[String]| {
                list.iter().position(|p| p == pattern).map(|at| format!("inputs[{i}].{key}[{at}]"))
            };
            let path = place("paths", &input.paths).or_else(|| place("exclude", &input.exclude));
            let (what, remedy) = match &fault {
                PatternError::Invalid { cause, .. } => (format!("{fault}: {}", cause.kind()), "correct the pattern"),
                PatternError::Relative { .. } => (fault.to_string(), "write the path from / on"),
            };
            faults.at(&path.unwrap_or_else(|| format!("inputs[{i}]"))).add(what, remedy);
        }
    }
    None
}

fn check_encoding(i: usize, input: &RawInput, faults: &mut Faults) -> &'static Encoding {
    let Some(label) = &input.encoding else { return encoding_rs::UTF_8 };
    let path = format!("inputs[{i}].encoding");
    match Encoding::for_label_no_replacement(label.as_bytes()) {
        Some(encoding) if encoding == encoding_rs::UTF_16LE || encoding == encoding_rs::UTF_16BE => {
            let remedy = "have the application write UTF-8, or one of the encodings that keep line ends as they are";
            faults.at(&path).add("UTF-16 is not read yet", remedy);
            encoding
        }
        Some(encoding) => encoding,
        None => {
            let remedy =
                "use a label of the WHATWG standard, for example utf-8, euc-kr, shift_jis, gb18030, windows-1252";
            faults.at(&path).add(format!("`{label}` is not an encoding"), remedy);
            encoding_rs::UTF_8
        }
    }
}

fn check_fields(i: usize, input: &RawInput, faults: &mut Faults) -> Vec<Field> {
    let mut flat = Vec::new();
    for (path, value) in &input.fields {
        value.flatten(path, &mut flat);
    }
    let fields: Vec<_> =
        flat.into_iter().map(|(path, value)| Field { path, value, overwrite: input.overwrite }).collect();
    if let Err(fault) = own_fields::check(&fields) {
        let remedy = "choose another field name";
        faults.at(&format!("inputs[{i}].fields")).add(fault.to_string(), remedy);
    }
    fields
}

fn check_topic(topic: &str, faults: &mut Faults) {
    // Kafka's own rule: org.apache.kafka.common.internals.Topic.
    let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if topic.is_empty() || topic.len() > 249 || topic == "." || topic == ".." || !topic.chars().all(is_legal) {
        let remedy = "use letters, digits, `.`, `_` and `-`, 249 at most";
        faults.at("kafka.topic").add(format!("`{topic}` is not a topic name"), remedy);
    }
}

fn check_limits(limits: &RawLimits, faults: &mut Faults) {
    let (memory, max_record) = (limits.memory.bytes(), limits.max_record.bytes());
    if memory < MIN_MEMORY {
        faults.at("limits.memory").add(format!("{} is too little", limits.memory), "allow at least 8MiB");
    }
    if max_record < MIN_RECORD {
        faults.at("limits.max_record").add(format!("{} is too little", limits.max_record), "allow at least 4KiB");
    }
    if max_record > memory / 8 {
        let what = format!("{} is more than an eighth of limits.memory ({})", limits.max_record, limits.memory);
        faults.at("limits.max_record").add(what, "lower it, or raise limits.memory");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> String {
        load("shipper.yaml", text, &[], &|_| None).unwrap_err().to_string()
    }

    const GOOD: &str = "inputs: [{paths: [/var/log/*.log]}]\nkafka: {brokers: ['k:9092'], topic: logs}\ndata_dir: /d\n";

    #[test]
    fn the_simple_case_needs_three_settings() {
        let config = load("shipper.yaml", GOOD, &[], &|_| None).unwrap();
        assert_eq!((config.memory, config.max_record, config.inputs[0].id.as_str()), (32 << 20, 900 << 10, "input-0"));
        let flags = [
            Setting::list("PATHS", "inputs[0].paths", ["/a.log"]),
            Setting::list("--brokers", "kafka.brokers", ["k:9092"]),
            Setting::one("--topic", "kafka.topic", "logs"),
            Setting::one("--data-dir", "data_dir", "/d"),
        ];
        assert_eq!(load("command line", "", &flags, &|_| None).unwrap().topic, "logs");
    }

    #[test]
    fn all_faults_come_together_with_their_places() {
        let text = "inputs:\n  - paths: ['var/x']\n    formt: json\n    fields: {log.offset: 1}\nkafka:\n  brokers: [k]\n  topic: 'a b'\n  options: {acks: 0}\ndata_dir: /d\n";
        let text = faults(text);
        for (place, part) in
            [("2:13", "absolute"), ("3:5", "format"), ("4:5", "log.offset"), ("7:10", "topic"), ("8:", "acks")]
        {
            let found = text.lines().any(|l| l.starts_with(&format!("shipper.yaml:{place}")) && l.contains(part));
            assert!(found, "{place} {part} in\n{text}");
        }
    }

    #[test]
    fn an_encoding_is_known_and_keeps_line_ends() {
        let with = |label: &str| GOOD.replace("{paths", &format!("{{encoding: {label}, paths"));
        let config = load("shipper.yaml", &with("EUC-KR"), &[], &|_| None).unwrap();
        assert_eq!(config.inputs[0].encoding, encoding_rs::EUC_KR);
        assert!(faults(&with("klingon")).contains("`klingon` is not an encoding"));
        assert!(faults(&with("utf-16")).contains("UTF-16 is not read yet"));
    }

    #[test]
    fn a_record_must_fit_into_memory() {
        assert!(faults(&format!("{GOOD}limits: {{memory: 8MiB, max_record: 4MiB}}\n")).contains("an eighth"));
        assert!(faults(&format!("{GOOD}limits: {{memory: 1MiB}}\n")).contains("at least 8MiB"));
    }
}
