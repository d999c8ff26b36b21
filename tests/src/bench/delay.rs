//! How long a line takes, at a steady ten thousand lines a second, once both programs are at work: from its write to the end of
//! the topic, beside `tail -F | kcat -P` on the same file at the same time, to the answer of the bulk request that it was in, and to
//! a search that finds it (an index that refreshes every second).

use std::fs::{self, File};
use std::io::Write;
use std::ops::Range;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use rdkafka::Message as _;
use serde_json::{Value, json};

use super::answers::Answers;
use super::measure::Measured;
use super::report::Report;
use super::{Plan, kcat_producer, out};
use crate::elasticsearch::{self, Elasticsearch};
use crate::kafka::{Kafka, KafkaClient};
use crate::process::{Launch, built};
use crate::{scratch, wait};

const TOPIC: &str = "bench-delay";
const KCAT_TOPIC: &str = "bench-delay-kcat";
const SECONDS: u64 = 20;
/// So long nobody measures: a node that has just started compiles its code.
const WARM_UP_SECONDS: u64 = 20;
const LINES_PER_SECOND: u64 = 10_000;
/// Of a run.
const NUM_LINES: u64 = LINES_PER_SECOND * SECONDS;
const BATCH: Duration = Duration::from_millis(10);

/// What a line waited that was written then, in microseconds since the epoch.
#[derive(Clone, Copy)]
pub(super) struct Delay {
    written_us: u64,
    waited: Duration,
}

impl Delay {
    pub(super) fn of(written_us: u64, now_us: u64) -> Self {
        Self { written_us, waited: Duration::from_micros(now_us.saturating_sub(written_us)) }
    }

    fn until_us(&self) -> u64 {
        self.written_us + self.waited.as_micros() as u64
    }
}

pub(super) fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64
}

/// What both programs are told beside the necessary.
struct Setting {
    /// Before what is measured with it.
    label: &'static str,
    /// Of the shipper: `kafka.options`.
    kafka: Value,
    /// Of the indexer: `bulk`.
    bulk: Value,
}

/// As they come, and as docs/operations.md has it for those who cannot wait.
fn settings() -> [Setting; 2] {
    [
        Setting { label: "", kafka: json!({}), bulk: json!({}) },
        Setting { label: "low latency: ", kafka: json!({"linger.ms": 5}), bulk: json!({"max_delay": "100ms"}) },
    ]
}

pub(super) fn measure(plan: &Plan, kafka: &Kafka, report: &mut Report) -> Result<()> {
    if !plan.wants("delay") {
        return Ok(());
    }
    // What earlier parts wrote would have the node wait for the disk.
    rustix::fs::sync();
    let node = Elasticsearch::start(&elasticsearch::Options { is_brief: false, ..elasticsearch::Options::default() })?;
    let yardstick = "tail -F, kcat -P";
    for setting in settings() {
        let Delays { ours, kcats, answered, ages } = one(plan, kafka, &node, &setting)?;
        let label = setting.label;
        let topic = format!("{label}write to the end of the topic, per line");
        report.delays(&format!("{topic}: {yardstick}"), &kcats, None)?;
        report.delays(&format!("{topic}: shipper"), &ours, Some((yardstick, &kcats)))?;
        report.delays(&format!("{label}write to the answer of its bulk request, per line"), &answered, None)?;
        report.delays(&format!("{label}age of the newest line that a search finds"), &ages, None)?;
    }
    Ok(())
}

/// Of each run, sorted.
struct Delays {
    ours: Vec<Vec<Duration>>,
    kcats: Vec<Vec<Duration>>,
    answered: Vec<Vec<Duration>>,
    ages: Vec<Vec<Duration>>,
}

fn one(plan: &Plan, kafka: &Kafka, node: &Elasticsearch, setting: &Setting) -> Result<Delays> {
    let dir = scratch::dir("bench-delay")?;
    for topic in [TOPIC, KCAT_TOPIC] {
        kafka.create_topic(topic, 4, &[])?;
    }
    let settings = json!({"settings": {"number_of_replicas": 0, "refresh_interval": "1s"},
        "mappings": {"dynamic": "false", "properties": {"us": {"type": "long"}}}});
    node.call("PUT", "/bench-delay", Some(&settings))?;
    let config = json!({
        "inputs": [{"paths": [dir.join("*.log")], "format": "json"}],
        "kafka": {"brokers": [kafka.bootstrap()], "topic": TOPIC, "options": setting.kafka},
        "data_dir": dir.join("state"),
        // Another host each time: what the ledger tells of the one before is not this one's.
        "host": {"id": dir},
        "admin": {"listen": "127.0.0.1:0"},
    });
    fs::write(dir.join("shipper.yaml"), config.to_string())?;
    let mut shipper = Command::new(built("shipper")?);
    shipper.args(["run", "--config"]).arg(dir.join("shipper.yaml"));
    let shipper = Measured::start(shipper, &dir.join("shipper.out"))?;
    let answers = Answers::of(node.url().trim_start_matches("http://").parse().context("the address of the node")?)?;
    let config = json!({
        "kafka": {"brokers": [kafka.bootstrap()], "topics": [TOPIC], "group": out::new_group()},
        "elasticsearch": {"hosts": [format!("http://{}", answers.addr())]},
        "bulk": setting.bulk,
        "rules": [{"index": "bench-delay"}],
        "dead_letter": {"topic": "bench-dead-letters"},
        "admin": {"listen": "127.0.0.1:0"},
    });
    fs::write(dir.join("indexer.yaml"), config.to_string())?;
    let mut indexer = Command::new(built("indexer")?);
    indexer.args(["run", "--config"]).arg(dir.join("indexer.yaml"));
    let indexer = Measured::start(indexer, &dir.join("indexer.out"))?;

    let log = dir.join("app.log");
    fs::write(&log, "")?;
    let kcat = Launch::program("tail | kcat", "sh", &dir.join("kcat.out"))
        .args(["-c", r#"tail -n +1 -F "$0" | kcat "$@""#])
        .arg(&log)
        .args(kcat_producer(kafka, KCAT_TOPIC))
        .start()?;

    let is_over = AtomicBool::new(false);
    let mut runs = Vec::new();
    let (ours, kcats, mut ages) = thread::scope(|scope| -> Result<_> {
        let is_over = &is_over;
        let arrivals = |topic| scope.spawn(move || arrivals(&KafkaClient::new(kafka.bootstrap()), topic, is_over));
        let (ours, kcats) = (arrivals(TOPIC), arrivals(KCAT_TOPIC));
        let ages = scope.spawn(|| ages(node, is_over));
        let mut num_lines = 0;
        let mut write = |seconds, us: fn() -> u64| {
            let from_us = now_us();
            write(&log, seconds, us)?;
            let written = from_us..now_us();
            // kcat reads blocks of a kilobyte: the last lines of a run are in one that others fill.
            write(&log, 1, || 0)?;
            num_lines += LINES_PER_SECOND * (seconds + 1);
            wait::until_true("the lines are indexed", Duration::from_secs(120), || {
                node.refresh("bench-delay")?;
                Ok(node.count("bench-delay")? == num_lines)
            })?;
            anyhow::Ok(written)
        };
        let result = write(WARM_UP_SECONDS, || 0).and_then(|_| {
            for _ in 0..plan.num_runs {
                runs.push(write(SECONDS, now_us)?);
            }
            Ok(())
        });
        is_over.store(true, Ordering::SeqCst);
        result?;
        let join = |_| anyhow::anyhow!("a measuring thread panicked");
        Ok((ours.join().map_err(join)??, kcats.join().map_err(join)??, ages.join().map_err(join)??))
    })?;
    drop((shipper, indexer, kcat));
    // While a run goes on, from its first line that is found.
    ages.retain(|age| runs.iter().any(|run| run.contains(&age.written_us) && run.contains(&age.until_us())));
    let of_runs = |delays: &[Delay]| -> Vec<Vec<Duration>> {
        let of_run = |run: &Range<u64>| {
            let of_run = delays.iter().filter(|delay| run.contains(&delay.written_us));
            let mut waited: Vec<_> = of_run.map(|delay| delay.waited).collect();
            waited.sort();
            waited
        };
        runs.iter().map(of_run).collect()
    };
    let all = Delays {
        ours: of_runs(&ours),
        kcats: of_runs(&kcats),
        answered: of_runs(&answers.take()),
        ages: of_runs(&ages),
    };
    for (what, runs) in [("came", &all.ours), ("came from kcat", &all.kcats), ("were answered", &all.answered)] {
        for run in runs {
            ensure!(run.len() as u64 == NUM_LINES, "{} lines {what} instead of {NUM_LINES}", run.len());
        }
    }
    for topic in [TOPIC, KCAT_TOPIC] {
        kafka.delete_topic(topic)?;
    }
    node.call("DELETE", "/bench-delay", None)?;
    Ok(all)
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
fn arrivals(kafka: &KafkaClient, topic: &str, is_over: &AtomicBool) -> Result<Vec<Delay>> {
    let mut delays = Vec::new();
    kafka.follow(topic, Duration::from_millis(5), |record| {
        if let Some(record) = record {
            let value: Value = serde_json::from_slice(record.payload().unwrap_or_default())?;
            let written = value["us"].as_u64().context("a line without its time")?;
            if written > 0 {
                delays.push(Delay::of(written, now_us()));
            }
        }
        Ok(!is_over.load(Ordering::SeqCst))
    })?;
    Ok(delays)
}

/// Asks again and again for the newest line.
fn ages(node: &Elasticsearch, is_over: &AtomicBool) -> Result<Vec<Delay>> {
    let newest = json!({"size": 0, "aggs": {"newest": {"max": {"field": "us"}}}});
    let mut ages = Vec::new();
    while !is_over.load(Ordering::SeqCst) {
        let found = node.search("bench-delay", &newest)?;
        if let Some(us) = found["aggregations"]["newest"]["value"].as_f64().filter(|us| *us > 0.0) {
            ages.push(Delay::of(us as u64, now_us()));
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(ages)
}
