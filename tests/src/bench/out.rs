//! Kafka to a server that only counts: the indexer, on records of the shipper and with rules applied, beside `kcat -C`, which only reads.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::measure::{self, Measured, Side, Usage};
use super::peers::Peer;
use super::report::{Report, Yardstick};
use super::workload::Workload;
use super::{Plan, warm};
use crate::fake_elasticsearch::{Counted, FakeElasticsearch};
use crate::kafka::Kafka;
use crate::process::built;
use crate::{scratch, wait};

pub(super) const NUM_PARTITIONS: i32 = 4;
const TOPIC: &str = "bench-out";
/// What other collectors are given.
const FEW_TOPIC: &str = "bench-out-few";
/// Name and compression.
const OURS: [(&str, &str); 2] = [("indexer, null bulk server", "none"), ("indexer, null bulk server, gzip", "gzip")];
/// So many times the records of the first workload: what a start takes is little of the whole.
const FACTOR: u64 = 3;
pub(super) const PATIENCE: Duration = Duration::from_secs(600);

pub(super) fn measure(plan: &Plan, kafka: &Kafka, report: &mut Report) -> Result<()> {
    if !plan.wants("indexer to the null bulk server") {
        return Ok(());
    }
    let dir = scratch::dir("bench-out")?;
    let num = fill(kafka, &dir, TOPIC, NUM_PARTITIONS, FACTOR * plan.num_records)?;
    let peers = Peer::all()?;
    let few = if peers.is_empty() { 0 } else { fill(kafka, &dir, FEW_TOPIC, NUM_PARTITIONS, plan.num_records / 2)? };
    let server = FakeElasticsearch::start()?;
    let mut sides = vec![Side::new("kcat -C", num, || read(kafka, TOPIC, &dir))];
    for (name, compression) in OURS {
        let (server, dir) = (&server, &dir);
        sides.push(Side::new(name, num, move || {
            let settings = json!({"elasticsearch": {"hosts": [server.url()], "compression": compression}});
            Group { kafka, dir, topic: TOPIC, num_instances: 1, settings }.count(server, Duration::ZERO, num)
        }));
    }
    for peer in &peers {
        let name = format!("{}, null bulk server", peer.name());
        sides.push(Side::new(name, few, || peer.index(kafka, FEW_TOPIC, &server, few, &dir)));
    }
    // A group fetches and commits in other ways than `kcat`.
    warm::until_compiled(kafka, || sides[1].run_once().map(drop))?;
    measure::in_turns(plan.num_runs, &mut sides)?;
    for (n, side) in sides.iter().enumerate() {
        let share = side.num as f64 / num as f64;
        let yardstick = Yardstick { name: &sides[0].name, runs: &sides[0].runs, share };
        report.side(side, Some(yardstick).filter(|_| n > 0))?;
    }
    drop(sides);
    if !peers.is_empty() {
        kafka.delete_topic(FEW_TOPIC)?;
    }
    kafka.delete_topic(TOPIC)
}

/// Lets the shipper fill a new topic, and returns how many records it holds.
pub(super) fn fill(kafka: &Kafka, dir: &Path, topic: &str, num_partitions: i32, num_records: u64) -> Result<u64> {
    kafka.create_topic(topic, num_partitions, &[])?;
    // So many that all partitions hold about as much: a run ends with the largest.
    let files = Workload::named("json lines").write(dir.join("logs"), 1000, num_records)?;
    let mut command = Command::new(built("shipper")?);
    command
        .args(["run", "--until", "eof", "--brokers", kafka.bootstrap(), "--topic", topic, "--format", "json"])
        .arg("--data-dir")
        .arg(dir.join(topic))
        .arg(files.dir.join("*.log"));
    measure::run(command, &dir.join("shipper.log"))?;
    fs::remove_dir_all(&files.dir)?;
    Ok(files.num_events)
}

/// A consumer group that begins with the topic.
pub(super) fn new_group() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("bench-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Reads a topic to its end, to nowhere.
pub(super) fn read(kafka: &Kafka, topic: &str, dir: &Path) -> Result<Usage> {
    let mut command = Command::new("sh");
    command.args(["-c", r#"exec kcat -C -e -q -b "$0" -t "$1" -o beginning > /dev/null"#, kafka.bootstrap(), topic]);
    measure::run(command, &dir.join("kcat.log"))
}

/// The template of the indices: all fields of JSON lines are mapped.
pub fn template() -> Value {
    let keyword = json!({"type": "keyword", "ignore_above": 256});
    json!({
        "index_patterns": ["bench-*"],
        "priority": 600,
        "version": 1,
        "_meta": {"managed_by": "millrace"},
        "template": {
            "settings": {"number_of_replicas": 0, "number_of_shards": 1, "refresh_interval": "60s"},
            "mappings": {"dynamic": "false", "properties": {
                "@timestamp": {"type": "date"}, "time": {"type": "date"}, "message": {"type": "text"},
                "level": keyword, "logger": keyword, "thread": keyword, "request_id": keyword,
                "status": {"type": "short"}, "duration_ms": {"type": "float"},
                "user": {"properties": {"id": {"type": "long"}, "plan": keyword}},
                "host": {"properties": {"name": keyword}}, "attrs": {"type": "flattened"},
                "log": {"properties": {"file": {"properties": {"path": keyword}}, "offset": {"type": "long"}, "source": keyword}},
            }},
        },
    })
}

/// Instances of the indexer that read a topic from its beginning.
pub(super) struct Group<'a> {
    pub kafka: &'a Kafka,
    pub dir: &'a Path,
    pub topic: &'a str,
    pub num_instances: usize,
    /// Sections of the configuration.
    pub settings: Value,
}

impl Group<'_> {
    /// To a server that only counts `num` documents, and answers each request after `pause`. The time is that from the first
    /// documents there to the last.
    pub fn count(&self, server: &FakeElasticsearch, pause: Duration, num: u64) -> Result<Usage> {
        server.only_count(pause);
        let usage = self.run(|| {
            wait::until_true("all is indexed", PATIENCE, || Ok(server.counted().num >= num))?;
            let (first, last) = server.counted().times.context("the time it took")?;
            Ok(last - first)
        })?;
        let Counted { num: came, num_without_id, .. } = server.counted();
        ensure!(came == num, "{came} documents came instead of {num}");
        ensure!(num_without_id == 0, "{num_without_id} documents came without an id");
        Ok(usage)
    }

    /// Until `all_came` returns, with the time that the documents took, and all is committed. CPU is that of all instances, memory
    /// that of the largest.
    pub fn run(&self, all_came: impl FnOnce() -> Result<Duration>) -> Result<Usage> {
        let Self { kafka, dir, topic, num_instances, settings } = self;
        let group = &new_group();
        let templates = dir.join("templates");
        fs::create_dir_all(&templates)?;
        fs::write(templates.join("bench.json"), template().to_string())?;
        let mut config = json!({
            "kafka": {"brokers": [kafka.bootstrap()], "topics": [topic], "group": group},
            "templates": {"dir": templates, "apply": true},
            "rules": [{"index": "bench-logs", "unmapped": "fold", "fold_into": "attrs"}],
            "dead_letter": {"topic": "bench-dead-letters"},
            "admin": {"listen": "127.0.0.1:0"},
        });
        for (section, value) in settings.as_object().into_iter().flatten() {
            config[section] = value.clone();
        }
        let path = dir.join("indexer.yaml");
        fs::write(&path, config.to_string())?;
        let start = |n| {
            let mut command = Command::new(built("indexer")?);
            command.args(["run", "--config"]).arg(&path);
            Measured::start(command, &dir.join(format!("indexer-{n}.log")))
        };
        let instances = (0..*num_instances).map(start).collect::<Result<Vec<_>>>()?;
        let log = || measure::tail(&dir.join("indexer-0.log"));
        let wall = all_came().with_context(log)?;
        kafka.wait_no_lag(group, topic, PATIENCE).with_context(log)?;
        let mut all = Usage { wall, cpu: Duration::ZERO, peak_rss_bytes: 0 };
        for instance in instances {
            let usage = instance.stop()?;
            all.cpu += usage.cpu;
            all.peak_rss_bytes = all.peak_rss_bytes.max(usage.peak_rss_bytes);
        }
        Ok(all)
    }
}
