//! Kafka to Elasticsearch: the indexer, on records of the shipper and with rules applied, beside `kcat -C`, which only reads.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::Plan;
use super::measure::{self, Measured, Usage};
use super::report::{Report, Row};
use super::workload::Workload;
use crate::elasticsearch::{self, Elasticsearch};
use crate::fake_elasticsearch::FakeElasticsearch;
use crate::kafka::Kafka;
use crate::process::built;
use crate::{scratch, wait};

const NUM_PARTITIONS: i32 = 4;
const TOPIC: &str = "bench-out";
const PATIENCE: Duration = Duration::from_secs(600);

pub(super) fn measure(plan: &Plan, kafka: &Kafka, report: &mut Report) -> Result<()> {
    if !plan.wants("indexer") {
        return Ok(());
    }
    let dir = scratch::dir("bench-out")?;
    let num = fill(kafka, &dir, plan.num_records)?;
    let server = FakeElasticsearch::start()?;
    server.only_count();
    let (mut reads, mut indexed) = (Vec::new(), Vec::new());
    for run in 0..=plan.num_runs {
        let read = read(kafka, &dir)?;
        let before = server.num_counted();
        let index = index(kafka, &dir, server.url(), &format!("null-{run}"))?;
        ensure!(server.num_counted() - before == num, "{} of {num} documents came", server.num_counted() - before);
        if run > 0 {
            reads.push(read);
            indexed.push(index);
        }
    }
    report.add(Row { name: "kcat -C".to_owned(), num, runs: &reads, beside: None })?;
    let name = "indexer, null bulk server".to_owned();
    report.add(Row { name, num, runs: &indexed, beside: Some(("kcat -C", &reads)) })?;

    let node = Elasticsearch::start(&elasticsearch::Options {
        heap_mib: 2048,
        is_brief: false,
        ..elasticsearch::Options::default()
    })?;
    let mut real = Vec::new();
    for run in 0..plan.num_runs.min(3) {
        real.push(index(kafka, &dir, node.url().to_owned(), &format!("real-{run}"))?);
        node.refresh("bench-*")?;
        let count = node.count("bench-*")?;
        ensure!(count == num, "{count} of {num} documents are in the index");
        node.call("DELETE", "/bench-logs", None)?;
    }
    let name = "indexer, one Elasticsearch node on the same machine".to_owned();
    report.add(Row { name, num, runs: &real, beside: None })?;
    kafka.delete_topic(TOPIC)
}

/// Lets the shipper fill the topic, and returns how many records it holds.
fn fill(kafka: &Kafka, dir: &Path, num_records: u64) -> Result<u64> {
    kafka.create_topic(TOPIC, NUM_PARTITIONS, &[])?;
    let workload =
        Workload::all().into_iter().nth(1).context("a workload of several files, so that all partitions fill")?;
    let files = workload.write(dir, num_records)?;
    let mut command = Command::new(built("shipper")?);
    command
        .args(["run", "--until", "eof", "--brokers", kafka.bootstrap(), "--topic", TOPIC, "--format", "json"])
        .arg("--data-dir")
        .arg(dir.join("state"))
        .arg(files.dir.join("logs/*.log"));
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

/// From the start of an indexer to the last committed offset.
fn index(kafka: &Kafka, dir: &Path, url: String, group: &str) -> Result<Usage> {
    let templates = dir.join("templates");
    fs::create_dir_all(&templates)?;
    fs::write(templates.join("bench.json"), template().to_string())?;
    let config = json!({
        "kafka": {"brokers": [kafka.bootstrap()], "topics": [TOPIC], "group": group},
        "elasticsearch": {"hosts": [url]},
        "templates": {"dir": templates, "apply": true},
        "rules": [{"index": "bench-logs", "unmapped": "fold", "fold_into": "attrs"}],
        "dead_letter": {"topic": "bench-dead-letters"},
        "admin": {"listen": "127.0.0.1:0"},
    });
    let path = dir.join("indexer.yaml");
    fs::write(&path, config.to_string())?;
    let mut command = Command::new(built("indexer")?);
    command.args(["run", "--config"]).arg(path);
    let started = Instant::now();
    let mut indexer = Measured::start(command, &dir.join("indexer.log"))?;
    let pid = Pid::from_raw(indexer.pid().try_into()?).context("a process id")?;
    wait::until_true("all is committed", PATIENCE, || {
        indexer.look();
        Ok(kafka.lag(group, TOPIC)? == 0)
    })
    .with_context(|| fs::read_to_string(dir.join("indexer.log")).unwrap_or_default())?;
    let wall = started.elapsed();
    kill_process(pid, Signal::TERM)?;
    Ok(Usage { wall, ..indexer.finish()? })
}
