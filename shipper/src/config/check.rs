//! From settings as written to checked ones, every fault at once.

use encoding_rs::Encoding;
use millrace_common::config::{Faults, HumanDuration};
use millrace_common::kafka::{self, Role};
use millrace_common::telemetry::admin;

use super::Config;
use super::raw::{Raw, RawInput, RawLimits};
use crate::discover::scan::{PatternError, Patterns};
use crate::encode::own_fields::{self, Field};
use crate::tail::InputSettings;
use crate::tail::hold::HoldLimits;

const MIN_MEMORY: u64 = 8 << 20;
const MIN_RECORD: u64 = 4 << 10;
const MIN_OPEN_FILES: u32 = 8;

pub(super) fn check(raw: Raw, faults: &mut Faults) -> Config {
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
        let ignore_older = input.ignore_older.map(HumanDuration::duration);
        let fields = check_fields(i, &input, faults);
        inputs.push(InputSettings { id, format: input.format, encoding, fields, ignore_older });
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
        open_files: raw.limits.open_files.map(|num| num as usize),
        hold_deleted: HoldLimits {
            time: raw.limits.hold_deleted.time.duration(),
            bytes: raw.limits.hold_deleted.bytes.bytes(),
            min_free_percent: raw.limits.hold_deleted.min_free.value(),
        },
        rescan: raw.files.rescan.duration(),
        checkpoint: raw.files.checkpoint.duration(),
        partial_after: raw.files.partial_after.duration(),
        rotate_wait: raw.files.rotate_wait.duration(),
        close_unlisted: raw.files.close_unlisted.duration(),
        close_idle: raw.files.close_idle.duration(),
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
    if let Some(num) = limits.open_files.filter(|&num| num < MIN_OPEN_FILES) {
        faults.at("limits.open_files").add(format!("{num} is too few"), "allow at least 8");
    }
    if max_record < MIN_RECORD {
        faults.at("limits.max_record").add(format!("{} is too little", limits.max_record), "allow at least 4KiB");
    }
    if max_record > memory / 8 {
        let what = format!("{} is more than an eighth of limits.memory ({})", limits.max_record, limits.memory);
        faults.at("limits.max_record").add(what, "lower it, or raise limits.memory");
    }
}
