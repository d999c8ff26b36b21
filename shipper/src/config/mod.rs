//! The shipper's settings: as written, and checked. Pure.

mod raw;
mod check;
mod framing;
mod content;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use millrace_common::config::{self, Draft, Faults, Setting, Written};
use millrace_common::kafka::Options;
use millrace_common::reload::Configuration;

pub use self::raw::{Drain, Ledger, OnOversize, Partial};
use crate::discover::scan::Patterns;
use crate::produce::kafka::size_option;
use crate::tail::hold::HoldLimits;
use crate::tail::{InputSettings, Settings};

/// Checked settings.
#[derive(Debug)]
pub struct Config {
    pub inputs: Vec<InputSettings>,
    pub patterns: Vec<Patterns>,
    pub brokers: Vec<String>,
    /// Each once; inputs name theirs by its place.
    pub topics: Vec<String>,
    pub options: Options,
    pub memory: u64,
    pub max_record: usize,
    pub on_oversize: OnOversize,
    pub open_files: Option<usize>,
    pub hold_deleted: HoldLimits,
    pub rescan: Duration,
    pub checkpoint: Duration,
    pub partial_after: Duration,
    pub rotate_wait: Duration,
    pub close_unlisted: Duration,
    pub close_idle: Duration,
    pub drain: Drain,
    pub partial: Partial,
    pub deadline: Duration,
    pub ledger: Ledger,
    pub heartbeat: Duration,
    pub forget_after: Duration,
    pub host_id: Option<String>,
    pub host_name: Option<String>,
    pub data_dir: PathBuf,
    pub listen: String,
    /// To tell it from another one.
    pub written: Written,
}

impl Config {
    /// Bytes on their way to Kafka. They take about twice that, as measured: what librdkafka keeps of them, its requests, and
    /// what the allocator does not give back.
    pub fn max_inflight(&self) -> u64 {
        self.memory / 6
    }

    /// Three full batches: librdkafka sends one of a partition at a time, so that one more is ready and one can be filled.
    fn max_inflight_partition(&self) -> u64 {
        3 * size_option(self.options.get("batch.size")) as u64
    }

    /// What the tailer works by. `max_inflight_records` is what the producer takes.
    pub fn tail_settings(
        &self,
        host_id: String,
        host_name: String,
        open_files: usize,
        max_inflight_records: u64,
    ) -> Settings {
        Settings {
            inputs: self.inputs.clone(),
            topics: self.topics.clone(),
            host_id,
            host_name,
            max_record: self.max_record,
            drops_oversize: self.on_oversize == OnOversize::Drop,
            max_inflight: self.max_inflight(),
            max_inflight_partition: self.max_inflight_partition(),
            max_inflight_records,
            window: (self.memory / 64).clamp(64 << 10, 256 << 10) as usize,
            checkpoint_interval: self.checkpoint,
            partial_after: self.partial_after,
            rotate_wait: self.rotate_wait,
            close_unlisted: self.close_unlisted,
            close_idle: self.close_idle,
            open_files,
            hold_deleted: self.hold_deleted,
            max_absent: 100,
            ledger_interval: self.heartbeat,
        }
    }

    /// The memory that this many files need: what the process has at rest, each file's share as measured at 20,000, and
    /// three tenths for records and windows.
    pub fn memory_for(num_files: u64) -> u64 {
        const AT_REST: u64 = 20 << 20;
        const PER_FILE: u64 = 4608;
        AT_REST + num_files * PER_FILE
    }
}

/// What stands until a restart: the lock on the folder, and the name under which others know this shipper.
pub const FIXED: &[&str] = &["data_dir", "host.id"];

impl Configuration for Config {
    fn written(&self) -> &Written {
        &self.written
    }

    fn files(&self) -> BTreeSet<PathBuf> {
        self.options.files().collect()
    }

    fn listen(&self) -> &str {
        &self.listen
    }
}

/// The JSON Schema of the settings.
pub fn schema() -> serde_json::Value {
    config::schema::<raw::Raw>()
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
    let Draft { value, mut faults, written } = config::draft::<raw::Raw>(name, text, settings, env);
    let checked = value.map(|raw| Config { written, ..check::check(raw, &mut faults) });
    faults.finish(checked)
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
        assert_eq!(load("command line", "", &flags, &|_| None).unwrap().topics, ["logs"]);
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
    fn an_input_has_a_topic_of_its_own_or_the_common_one() {
        let text = "inputs:\n  - {paths: [/a]}\n  - {paths: [/b], topic: audit}\n  - {paths: [/c], topic: logs}\nkafka:\n  brokers: ['k:9092']\n  topic: logs\ndata_dir: /d\n";
        let config = load("shipper.yaml", text, &[], &|_| None).unwrap();
        let topics: Vec<_> = config.inputs.iter().map(|input| config.topics[input.topic].as_str()).collect();
        assert_eq!((topics, config.topics.len()), (vec!["logs", "audit", "logs"], 2));
        let without_common = text.replace("  topic: logs\n", "");
        let fault = faults(&without_common);
        assert!(fault.starts_with("shipper.yaml:2:5: inputs[0].topic: is missing"), "{fault}");
        let named = without_common.replace("{paths: [/a]}", "{paths: [/a], topic: web}");
        assert_eq!(load("shipper.yaml", &named, &[], &|_| None).unwrap().topics, ["web", "audit", "logs"]);
    }

    #[test]
    fn o16_a_topic_is_not_taken_from_a_field() {
        for topic in ["logs-%{service}", "logs-{service.name}", "%{[app]}"] {
            let fault = faults(&GOOD.replace("topic: logs", &format!("topic: '{topic}'")));
            assert!(fault.starts_with("shipper.yaml:2:37: kafka.topic: "), "{fault}");
            assert!(fault.contains("no topic is taken from a field") && fault.contains("inputs[].topic"), "{fault}");
            let fault = faults(&GOOD.replace("{paths", &format!("{{topic: '{topic}', paths")));
            assert!(fault.starts_with("shipper.yaml:1:18: inputs[0].topic: "), "{fault}");
        }
    }

    #[test]
    fn an_encoding_is_known_and_keeps_line_ends() {
        let with = |label: &str| GOOD.replace("{paths", &format!("{{encoding: {label}, paths"));
        let config = load("shipper.yaml", &with("EUC-KR"), &[], &|_| None).unwrap();
        assert_eq!(config.inputs[0].framing.encoding, encoding_rs::EUC_KR);
        assert!(faults(&with("klingon")).contains("`klingon` is not an encoding"));
    }

    #[test]
    fn the_ledger_is_on_unless_it_is_off() {
        let load = |more: &str| load("shipper.yaml", &format!("{GOOD}{more}"), &[], &|_| None).unwrap();
        let config = load("");
        let days = Duration::from_secs(7 * 86_400);
        assert_eq!((config.ledger, config.heartbeat, config.forget_after), (Ledger::On, Duration::from_secs(10), days));
        assert_eq!(load("ledger: off\n").ledger, Ledger::Off);
        assert!(faults(&format!("{GOOD}ledger: false\n")).starts_with("shipper.yaml:4:9: ledger: "));
        assert!(faults(&format!("{GOOD}heartbeat: 100ms\n")).contains("at least 1s"));
    }

    #[test]
    fn a_record_must_fit_into_memory() {
        assert!(faults(&format!("{GOOD}limits: {{memory: 8MiB, max_record: 4MiB}}\n")).contains("an eighth"));
        assert!(faults(&format!("{GOOD}limits: {{memory: 1MiB}}\n")).contains("at least 8MiB"));
    }
}
