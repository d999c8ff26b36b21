//! From settings as written to checked ones, every fault at once.

use std::sync::Arc;
use std::time::Duration;

use millrace_common::config::{Faults, HumanDuration, Written};
use millrace_common::kafka::{self, Role};
use millrace_common::telemetry::admin;

use super::raw::{InputFormat, Raw, RawInput, RawLimits};
use super::{Config, content, framing};
use crate::discover::scan::{PatternError, Patterns};
use crate::encode::own_fields::{self, Field};
use crate::encode::path_fields::{InputFields, PathRule};
use crate::tail::InputSettings;
use crate::tail::hold::HoldLimits;

const MIN_MEMORY: u64 = 8 << 20;
const MIN_RECORD: u64 = 4 << 10;
const MIN_OPEN_FILES: u32 = 8;
const MIN_HEARTBEAT: Duration = Duration::from_secs(1);

pub(super) fn check(raw: Raw, faults: &mut Faults) -> Config {
    if raw.inputs.is_empty() {
        faults.at("inputs").add("has no entry", "name the files to tail, for example paths: [\"/var/log/app/*.log\"]");
    }
    let mut inputs: Vec<InputSettings> = Vec::new();
    let mut patterns = Vec::new();
    let mut topics: Vec<String> = Vec::new();
    for (i, input) in raw.inputs.into_iter().enumerate() {
        let id = input.id.clone().unwrap_or_else(|| format!("input-{i}"));
        if inputs.iter().any(|other| other.id == id) {
            let remedy = "give each input a name of its own";
            faults.at(&format!("inputs[{i}].id")).add(format!("`{id}` is the name of another input too"), remedy);
        }
        let files = check_patterns(i, &input, faults);
        let reach = files.as_ref().map(Patterns::reach).unwrap_or_default();
        patterns.extend(files);
        let topic = check_input_topic(i, &input, raw.kafka.topic.as_deref(), &mut topics, faults);
        let framing = Arc::new(framing::check(i, &input, raw.limits.memory.bytes(), faults));
        let content = content::check(&format!("inputs[{i}]"), framing::content(&input), &input, faults);
        let fields = check_fields(i, &input, faults);
        let ignore_older = input.ignore_older.map(HumanDuration::duration);
        inputs.push(InputSettings { id, topic, content, framing, fields, ignore_older, reach });
    }
    for fault in kafka::check(Role::Producer, &raw.kafka.brokers, &raw.kafka.options) {
        faults.at(&format!("kafka.{}", fault.path)).add(fault.what, fault.remedy);
    }
    if let Some(topic) = &raw.kafka.topic {
        check_topic("kafka.topic", topic, faults);
    }
    check_limits(&raw.limits, faults);
    if raw.heartbeat.duration() < MIN_HEARTBEAT {
        faults.at("heartbeat").add(format!("{} is too often", raw.heartbeat), "allow at least 1s");
    }
    if let Err(what) = admin::check_listen(&raw.admin.listen) {
        faults.at("admin.listen").add(what, "write host:port, for example 127.0.0.1:9640");
    }
    Config {
        inputs,
        patterns,
        brokers: raw.kafka.brokers,
        topics,
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
        ledger: raw.ledger,
        heartbeat: raw.heartbeat.duration(),
        forget_after: raw.forget_after.duration(),
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
        written: Written::default(),
    }
}

fn check_patterns(i: usize, input: &RawInput, faults: &mut Faults) -> Option<Patterns> {
    if input.paths.is_empty() {
        faults.at(&format!("inputs[{i}].paths")).add("has no entry", "name at least one pattern");
    }
    match Patterns::new(&input.paths, &input.exclude, &input.links_into) {
        Ok(patterns) => return Some(patterns),
        Err(fault) => {
            let (PatternError::Invalid { pattern, .. } | PatternError::Relative { pattern }) = &fault;
            let place = |key: &str, list: &[String]| {
                list.iter().position(|p| p == pattern).map(|at| format!("inputs[{i}].{key}[{at}]"))
            };
            let path = place("paths", &input.paths).or_else(|| place("exclude", &input.exclude));
            let path = path.or_else(|| place("links_into", &input.links_into));
            let (what, remedy) = match &fault {
                PatternError::Invalid { cause, .. } => (format!("{fault}: {}", cause.kind()), "correct the pattern"),
                PatternError::Relative { .. } => (fault.to_string(), "write the path from / on"),
            };
            faults.at(&path.unwrap_or_else(|| format!("inputs[{i}]"))).add(what, remedy);
        }
    }
    None
}

fn check_fields(i: usize, input: &RawInput, faults: &mut Faults) -> InputFields {
    let mut flat = Vec::new();
    for (path, value) in &input.fields {
        value.flatten(path, &mut flat);
    }
    let overwrite = input.overwrite;
    let constants: Vec<_> = flat.into_iter().map(|(path, value)| Field { path, value, overwrite }).collect();
    let remedy = "choose another field name";
    let are_constants_sound = match own_fields::check(&constants) {
        Ok(()) => true,
        Err(fault) => {
            faults.at(&format!("inputs[{i}].fields")).add(fault.to_string(), remedy);
            false
        }
    };
    // Files of a container runtime are most often those of a kubelet.
    let is_usual = matches!(input.format, InputFormat::Cri | InputFormat::Docker);
    let is_expected = input.kubernetes == Some(true);
    let mut from_path = Vec::new();
    if input.kubernetes.unwrap_or(is_usual) {
        from_path.push(PathRule::kubernetes(overwrite, is_expected));
    }
    let place = format!("inputs[{i}].path_fields");
    match input.path_fields.as_deref().map(|expression| PathRule::new(expression, overwrite)) {
        Some(Ok(rule)) => from_path.push(rule),
        Some(Err(cause)) => framing::bad_expression(&place, &cause, faults),
        None => {}
    }
    let fields = InputFields { constants, from_path };
    if are_constants_sound && let Err(fault) = own_fields::check(&fields.all()) {
        faults.at(&place).add(fault.to_string(), remedy);
    }
    fields
}

/// The place of the input's topic in `topics`.
fn check_input_topic(
    i: usize,
    input: &RawInput,
    common: Option<&str>,
    topics: &mut Vec<String>,
    faults: &mut Faults,
) -> usize {
    let path = format!("inputs[{i}].topic");
    if let Some(topic) = &input.topic {
        check_topic(&path, topic, faults);
    }
    let Some(topic) = input.topic.as_deref().or(common) else {
        faults.at(&path).add("is missing", "name the topic here, or one for all inputs in kafka.topic");
        return 0;
    };
    topics.iter().position(|known| known == topic).unwrap_or_else(|| {
        topics.push(topic.to_owned());
        topics.len() - 1
    })
}

fn check_topic(path: &str, topic: &str, faults: &mut Faults) {
    if topic.contains(['%', '{']) {
        let what = format!("`{topic}` is not a topic name: no topic is taken from a field");
        return faults
            .at(path)
            .add(what, "write the name, and give files that go elsewhere an entry with inputs[].topic");
    }
    // Kafka's own rule: org.apache.kafka.common.internals.Topic.
    let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if topic.is_empty() || topic.len() > 249 || topic == "." || topic == ".." || !topic.chars().all(is_legal) {
        let remedy = "use letters, digits, `.`, `_` and `-`, 249 at most";
        faults.at(path).add(format!("`{topic}` is not a topic name"), remedy);
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
