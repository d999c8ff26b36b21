//! Kafka to a server that only counts: the indexer, on records of the shipper and with rules applied, beside `kcat -C`, which only reads.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Plan;
use super::measure::{self, Measured, Usage};
use super::peers::Peer;
use super::report::{Report, Row};
use super::workload::Workload;
use crate::fake_elasticsearch::FakeElasticsearch;
use crate::kafka::Kafka;
use crate::process::built;
use crate::{scratch, wait};

const NUM_PARTITIONS: i32 = 4;
const TOPIC: &str = "bench-out";
/// What other collectors are given.
const FEW_TOPIC: &str = "bench-out-few";
/// Name, compression and number of instances.
const OURS: [(&str, &str, usize); 3] = [
    ("indexer, null bulk server", "none", 1),
    ("indexer, null bulk server, gzip", "gzip", 1),
    ("2 instances of the indexer, null bulk server", "none", 2),
];
/// So many times the records of the first workload: what a start takes is little of the whole.
const FACTOR: u64 = 3;
pub(super) const PATIENCE: Duration = Duration::from_secs(600);

pub(super) fn measure(plan: &Plan, kafka: &Kafka, report: &mut Report) -> Result<()> {
    if !plan.wants("indexer to the null bulk server") {
        return Ok(());
    }
    let dir = scratch::dir("bench-out")?;
    let num = fill(kafka, &dir, TOPIC, FACTOR * plan.num_records)?;
    let peers = Peer::all()?;
    let few = if peers.is_empty() { 0 } else { fill(kafka, &dir, FEW_TOPIC, plan.num_records / 2)? };
    let server = FakeElasticsearch::start()?;
    let mut reads = Vec::new();
    let (mut ours, mut theirs) = (vec![Vec::new(); OURS.len()], vec![Vec::new(); peers.len()]);
    // The first fills caches and compiles the broker.
    for run in 0..=plan.num_runs {
        reads.push(read(kafka, &dir)?);
        for ((_, compression, num_instances), ours) in OURS.iter().zip(&mut ours) {
            server.only_count();
            let all_came = || {
                wait::until_true("all is indexed", PATIENCE, || Ok(server.counted().num >= num))?;
                let (first, last) = server.counted().times.context("the time it took")?;
                Ok(last - first)
            };
            let elasticsearch = json!({"hosts": [server.url()], "compression": compression});
            let group = format!("null-{compression}-{num_instances}-{run}");
            ours.push(index(kafka, &dir, TOPIC, elasticsearch, &group, *num_instances, all_came)?);
            let came = server.counted().num;
            ensure!(came == num, "{came} documents came instead of {num}");
        }
        for (peer, theirs) in peers.iter().zip(&mut theirs) {
            theirs.push(peer.index(kafka, FEW_TOPIC, run, &server, few, &dir)?);
        }
        if run == 0 {
            [&mut reads].into_iter().chain(&mut ours).chain(&mut theirs).for_each(Vec::clear);
        }
    }
    report.add(Row { name: "kcat -C".to_owned(), num, runs: &reads, beside: None })?;
    for ((name, ..), runs) in OURS.iter().zip(&ours) {
        report.add(Row { name: (*name).to_owned(), num, runs, beside: Some(("kcat -C", &reads)) })?;
    }
    let reads: Vec<_> = reads.iter().map(|run| run.of_share(few as f64 / num as f64)).collect();
    for (peer, runs) in peers.iter().zip(&theirs) {
        let name = format!("{}, null bulk server", peer.name());
        report.add(Row { name, num: few, runs, beside: Some(("kcat -C", &reads)) })?;
    }
    if !peers.is_empty() {
        kafka.delete_topic(FEW_TOPIC)?;
    }
    kafka.delete_topic(TOPIC)
}

/// Lets the shipper fill the topic, and returns how many records it holds.
pub(super) fn fill(kafka: &Kafka, dir: &Path, topic: &str, num_records: u64) -> Result<u64> {
    kafka.create_topic(topic, NUM_PARTITIONS, &[])?;
    // Several, so that all partitions fill.
    let files = Workload::named("json lines").write(dir.join("logs"), 100, num_records)?;
    let mut command = Command::new(built("shipper")?);
    command
        .args(["run", "--until", "eof", "--brokers", kafka.bootstrap(), "--topic", topic, "--format", "json"])
        .arg("--data-dir")
        .arg(dir.join("state"))
        .arg(files.dir.join("*.log"));
    measure::run(command, &dir.join("shipper.log"))?;
    fs::remove_dir_all(&files.dir)?;
    Ok(files.num_events)
}

fn read(kafka: &Kafka, dir: &Path) -> Result<Usage> {
    let mut command = Command::new("sh");
    command.args(["-c", r#"exec kcat -C -e -q -b "$0" -t "$1" -o beginning > /dev/null"#, kafka.bootstrap(), TOPIC]);
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

/// Runs instances of the indexer until `all_came` returns, with the time that its documents took, and all is committed. CPU is that of
/// all, memory that of the largest.
pub(super) fn index(
    kafka: &Kafka,
    dir: &Path,
    topic: &str,
    elasticsearch: Value,
    group: &str,
    num_instances: usize,
    all_came: impl FnOnce() -> Result<Duration>,
) -> Result<Usage> {
    let templates = dir.join("templates");
    fs::create_dir_all(&templates)?;
    fs::write(templates.join("bench.json"), template().to_string())?;
    let config = json!({
        "kafka": {"brokers": [kafka.bootstrap()], "topics": [topic], "group": group},
        "elasticsearch": elasticsearch,
        "templates": {"dir": templates, "apply": true},
        "rules": [{"index": "bench-logs", "unmapped": "fold", "fold_into": "attrs"}],
        "dead_letter": {"topic": "bench-dead-letters"},
        "admin": {"listen": "127.0.0.1:0"},
    });
    let path = dir.join("indexer.yaml");
    fs::write(&path, config.to_string())?;
    let start = |n| {
        let mut command = Command::new(built("indexer")?);
        command.args(["run", "--config"]).arg(&path);
        Measured::start(command, &dir.join(format!("indexer-{n}.log")))
    };
    let instances = (0..num_instances).map(start).collect::<Result<Vec<_>>>()?;
    let log = || measure::tail(&dir.join("indexer-0.log"));
    let wall = all_came().with_context(log)?;
    wait::until_true("all is committed", PATIENCE, || Ok(kafka.lag(group, topic)? == 0)).with_context(log)?;
    let mut all = Usage { wall, cpu: Duration::ZERO, peak_rss_bytes: 0 };
    for instance in instances {
        let usage = instance.stop()?;
        all.cpu += usage.cpu;
        all.peak_rss_bytes = all.peak_rss_bytes.max(usage.peak_rss_bytes);
    }
    Ok(all)
}
