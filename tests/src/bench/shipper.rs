//! Files to Kafka: the shipper beside `kcat -P`, which sends lines as they are, and `kcat -P -K`, which sends the shipper's
//! finished keys and values.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use millrace_common::ledger;
use rdkafka::Message as _;
use serde_json::{Value, json};

use super::Plan;
use super::measure::{self, Usage};
use super::report::{Report, Row};
use super::workload::{Files, Workload};
use crate::kafka::Kafka;
use crate::process::built;
use crate::scratch;

const NUM_PARTITIONS: i32 = 4;

pub(super) fn measure(plan: &Plan, kafka: &Kafka, report: &mut Report) -> Result<()> {
    let dir = scratch::dir("bench")?;
    let mut measured: BTreeMap<&str, (u64, Vec<Usage>)> = BTreeMap::new();
    for workload in Workload::all().into_iter().filter(|workload| plan.wants(workload.name)) {
        let files = workload.write(&dir, plan.num_records)?;
        let mut sides = Sides { kafka, files: &files, number: 0 };
        let mut raw = Vec::new();
        let mut ours = Vec::new();
        let mut finished = Vec::new();
        let mut keyed = None;
        for run in 0..=plan.num_runs {
            let kcat = sides.kcat(&files.whole, &[], files.num_lines)?;
            let (shipper, topic) = sides.shipper(&workload.input)?;
            if keyed.is_none() {
                keyed = Some(finished_records(kafka, &topic, &files.dir)?);
            }
            kafka.delete_topic(&topic)?;
            // The next run is the first of its host: it need not read what the hosts before it said of their files.
            kafka.delete_topic(ledger::SOURCES)?;
            let keyed = keyed.as_deref().context("written above")?;
            let keyed = sides.kcat(keyed, &["-K", "\t"], files.num_events)?;
            // The first fills caches and compiles the broker.
            if run > 0 {
                raw.push(kcat);
                ours.push(shipper);
                finished.push(keyed);
            }
        }
        let name = |what: &str| format!("{}: {what}", workload.name);
        report.add(Row { name: name("kcat -P"), num: files.num_lines, runs: &raw, beside: None })?;
        report.add(Row {
            name: name("kcat -P -K, finished records"),
            num: files.num_events,
            runs: &finished,
            beside: None,
        })?;
        report.add(Row {
            name: name("shipper"),
            num: files.num_events,
            runs: &ours,
            beside: Some(("kcat -P", &raw)),
        })?;
        if let Some((num_events, few)) = workload.more_than.and_then(|name| measured.get(name)) {
            let more: Vec<_> = ours.iter().zip(few).map(|(all, few)| all.beyond(few)).collect();
            let num = files.num_events - num_events;
            report.add(Row { name: name("shipper, each record more than before"), num, runs: &more, beside: None })?;
        }
        measured.insert(workload.name, (files.num_events, ours));
        report.note(&format!("{} of {} bytes", workload.name, files.num_bytes / files.num_lines));
        fs::remove_dir_all(&files.dir)?;
    }
    Ok(())
}

struct Sides<'a> {
    kafka: &'a Kafka,
    files: &'a Files,
    number: u32,
}

impl Sides<'_> {
    fn topic(&mut self) -> Result<String> {
        self.number += 1;
        let topic =
            format!("bench-{}-{}", self.files.dir.file_name().unwrap_or_default().to_string_lossy(), self.number);
        self.kafka.create_topic(&topic, NUM_PARTITIONS, &[])?;
        Ok(topic)
    }

    fn ensure_all(&self, topic: &str, num: u64) -> Result<()> {
        let sent: i64 = self.kafka.end_offsets(topic)?.values().sum();
        ensure!(sent as u64 == num, "{sent} records in {topic} instead of {num}");
        Ok(())
    }

    fn kcat(&mut self, file: &Path, args: &[&str], num: u64) -> Result<Usage> {
        let topic = self.topic()?;
        let mut command = Command::new("kcat");
        command.args(["-P", "-b", self.kafka.bootstrap(), "-t", &topic]);
        for option in ["acks=all", "enable.idempotence=true", "compression.codec=lz4"] {
            command.args(["-X", option]);
        }
        command.args(args).arg("-l").arg(file);
        let usage = measure::run(command, &self.files.dir.join("kcat.log"))?;
        self.ensure_all(&topic, num)?;
        self.kafka.delete_topic(&topic)?;
        Ok(usage)
    }

    fn shipper(&mut self, input: &Value) -> Result<(Usage, String)> {
        let topic = self.topic()?;
        let mut input = input.clone();
        input["id"] = "app".into();
        input["paths"] = json!([self.files.dir.join("logs/*.log")]);
        input["fields"] = json!({"service.name": "checkout"});
        let state = self.files.dir.join(format!("state-{}", self.number));
        let config = json!({
            "inputs": [input],
            "kafka": {"brokers": [self.kafka.bootstrap()], "topic": topic},
            "data_dir": state,
            // Another host each time: the ledger would tell the next run that all is sent.
            "host": {"id": format!("bench-{}", self.number)},
            "admin": {"listen": "127.0.0.1:0"},
        });
        let path = self.files.dir.join("shipper.yaml");
        fs::write(&path, config.to_string())?;
        let mut command = Command::new(built("shipper")?);
        command.args(["run", "--until", "eof", "--config"]).arg(path);
        let usage = measure::run(command, &self.files.dir.join("shipper.log"))?;
        self.ensure_all(&topic, self.files.num_events)?;
        Ok((usage, topic))
    }
}

/// Writes keys and values of a topic as `kcat -P -K` takes them.
fn finished_records(kafka: &Kafka, topic: &str, dir: &Path) -> Result<PathBuf> {
    let path = dir.join("finished");
    let mut file = BufWriter::with_capacity(1 << 20, File::create(&path)?);
    let mut result = Ok(());
    kafka.for_each_record(topic, |record| {
        let parts = [record.key().unwrap_or_default(), b"\t", record.payload().unwrap_or_default(), b"\n"];
        if result.is_ok() {
            result = parts.iter().try_for_each(|part| file.write_all(part));
        }
    })?;
    result?;
    file.flush()?;
    Ok(path)
}
