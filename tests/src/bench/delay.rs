//! How long a line takes, at a steady ten thousand lines a second, once both programs are at work: from its write to the end of
//! the topic, to the answer of the bulk request that it was in, and to a search that finds it (an index that refreshes every
//! second).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use rdkafka::Message as _;
use serde_json::{Value, json};

use super::Plan;
use super::answers::Answers;
use super::measure::Measured;
use super::report::Report;
use crate::elasticsearch::{self, Elasticsearch};
use crate::kafka::{Kafka, KafkaClient};
use crate::process::built;
use crate::{scratch, wait};

const TOPIC: &str = "bench-delay";
const SECONDS: u64 = 20;
/// So long nobody measures: a node that has just started compiles its code.
const WARM_UP_SECONDS: u64 = 20;
const LINES_PER_SECOND: u64 = 10_000;
const NUM_LINES: u64 = LINES_PER_SECOND * SECONDS;
const BATCH: Duration = Duration::from_millis(10);

pub(super) fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64
}

pub(super) fn measure(plan: &Plan, kafka: &Kafka, report: &mut Report) -> Result<()> {
    if !plan.wants("delay") {
        return Ok(());
    }
    let dir = scratch::dir("bench-delay")?;
    // What earlier parts wrote would have the node wait for the disk.
    rustix::fs::sync();
    kafka.create_topic(TOPIC, 4, &[])?;
    let node = Elasticsearch::start(&elasticsearch::Options { is_brief: false, ..elasticsearch::Options::default() })?;
    let settings = json!({"settings": {"number_of_replicas": 0, "refresh_interval": "1s"},
        "mappings": {"dynamic": "false", "properties": {"us": {"type": "long"}}}});
    node.call("PUT", "/bench-delay", Some(&settings))?;
    let mut shipper = Command::new(built("shipper")?);
    shipper
        .args([
            "run",
            "--brokers",
            kafka.bootstrap(),
            "--topic",
            TOPIC,
            "--format",
            "json",
            "--admin-listen",
            "127.0.0.1:0",
        ])
        .arg("--data-dir")
        .arg(dir.join("state"))
        .arg(dir.join("*.log"));
    let shipper = Measured::start(shipper, &dir.join("shipper.out"))?;
    let answers = Answers::of(node.url().trim_start_matches("http://").parse().context("the address of the node")?)?;
    let config = json!({
        "kafka": {"brokers": [kafka.bootstrap()], "topics": [TOPIC], "group": TOPIC},
        "elasticsearch": {"hosts": [format!("http://{}", answers.addr())]},
        "rules": [{"index": "bench-delay"}],
        "dead_letter": {"topic": "bench-dead-letters"},
        "admin": {"listen": "127.0.0.1:0"},
    });
    fs::write(dir.join("indexer.yaml"), config.to_string())?;
    let mut indexer = Command::new(built("indexer")?);
    indexer.args(["run", "--config"]).arg(dir.join("indexer.yaml"));
    let indexer = Measured::start(indexer, &dir.join("indexer.out"))?;

    let is_over = AtomicBool::new(false);
    let (arrivals, ages) = thread::scope(|scope| -> Result<_> {
        let arrivals = scope.spawn(|| arrivals(&KafkaClient::new(kafka.bootstrap()), &is_over));
        let ages = scope.spawn(|| ages(&node, &is_over));
        let wait_indexed = |num| {
            wait::until_true("the lines are indexed", Duration::from_secs(120), || {
                node.refresh("bench-delay")?;
                Ok(node.count("bench-delay")? == num)
            })
        };
        let log = dir.join("app.log");
        fs::write(&log, "")?;
        let warm_up = LINES_PER_SECOND * WARM_UP_SECONDS;
        let result = write(&log, WARM_UP_SECONDS, || 0)
            .and_then(|()| wait_indexed(warm_up))
            .and_then(|()| write(&log, SECONDS, now_us))
            .and_then(|()| wait_indexed(warm_up + NUM_LINES));
        is_over.store(true, Ordering::SeqCst);
        result?;
        let join = |_| anyhow::anyhow!("a measuring thread panicked");
        Ok((arrivals.join().map_err(join)??, ages.join().map_err(join)??))
    })?;
    drop((shipper, indexer));
    ensure!(arrivals.len() as u64 == NUM_LINES, "{} lines arrived", arrivals.len());
    let answered = answers.take();
    ensure!(answered.len() as u64 == NUM_LINES, "{} lines were answered", answered.len());
    report.delays("write to the end of the topic, per line", arrivals);
    report.delays("write to the answer of its bulk request, per line", answered);
    report.delays("age of the newest line that a search finds", ages);
    kafka.delete_topic(TOPIC)
}

/// Appends lines that say when they were written, or 0 for those that are not measured.
fn write(path: &std::path::Path, seconds: u64, us: impl Fn() -> u64) -> Result<()> {
    let mut file = File::options().append(true).open(path)?;
    let started = Instant::now();
    let batches = seconds * 1000 / BATCH.as_millis() as u64;
    for batch in 0..batches {
        let text: String = (0..LINES_PER_SECOND / 100).map(|n| format!("{{\"us\":{},\"n\":{n}}}\n", us())).collect();
        file.write_all(text.as_bytes())?;
        thread::sleep((BATCH * (batch + 1) as u32).saturating_sub(started.elapsed()));
    }
    Ok(())
}

/// For each line, how long after its write a consumer had it.
fn arrivals(kafka: &KafkaClient, is_over: &AtomicBool) -> Result<Vec<Duration>> {
    let mut delays = Vec::new();
    kafka.follow(TOPIC, Duration::from_millis(5), |record| {
        if let Some(record) = record {
            let value: Value = serde_json::from_slice(record.payload().unwrap_or_default())?;
            let written = value["us"].as_u64().context("a line without its time")?;
            if written > 0 {
                delays.push(Duration::from_micros(now_us().saturating_sub(written)));
            }
        }
        Ok(!is_over.load(Ordering::SeqCst))
    })?;
    Ok(delays)
}

/// Asks again and again for the newest line.
fn ages(node: &Elasticsearch, is_over: &AtomicBool) -> Result<Vec<Duration>> {
    let newest = json!({"size": 0, "aggs": {"newest": {"max": {"field": "us"}}}});
    let (mut first, mut ages) = (None, BTreeMap::new());
    let is_written =
        |first: Option<Instant>| first.is_some_and(|first| first.elapsed() >= Duration::from_secs(SECONDS));
    while !is_over.load(Ordering::SeqCst) && !is_written(first) {
        let found = node.search("bench-delay", &newest)?;
        if let Some(us) = found["aggregations"]["newest"]["value"].as_f64().filter(|us| *us > 0.0) {
            let first = first.get_or_insert_with(Instant::now);
            ages.insert(first.elapsed(), Duration::from_micros(now_us().saturating_sub(us as u64)));
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(ages.into_values().collect())
}
