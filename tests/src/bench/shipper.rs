//! Files to Kafka: the shipper beside `kcat -P`, which sends lines as they are, and `kcat -P -K`, which sends the shipper's
//! finished keys and values.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use millrace_common::ledger;
use rdkafka::Message as _;
use serde_json::{Value, json};

use super::measure::{self, Side, Usage};
use super::peers::Peer;
use super::report::{Report, Yardstick};
use super::workload::{Files, Layout, Workload};
use super::{Plan, kcat_producer};
use crate::kafka::Kafka;
use crate::process::built;
use crate::scratch;

const NUM_PARTITIONS: i32 = 4;
/// The workload that other collectors are given, too: this part of it.
const JSON_LINES: &str = "json lines";
const PEERS_PART: u64 = 6;

pub(super) fn measure(plan: &Plan, kafka: &Kafka, report: &mut Report) -> Result<()> {
    let dir = scratch::dir("bench")?;
    for mut workload in Workload::all() {
        workload.layouts.retain(|layout| plan.wants(layout.name));
        if !workload.layouts.is_empty() {
            let dir = dir.join(workload.name.replace([' ', ','], "-"));
            measure_workload(&workload, plan, kafka, &dir, report)?;
            fs::remove_dir_all(&dir)?;
        }
    }
    Ok(())
}

/// In each turn the yardsticks send all lines, the shipper those of each layout, and other collectors a part of them.
fn measure_workload(workload: &Workload, plan: &Plan, kafka: &Kafka, dir: &Path, report: &mut Report) -> Result<()> {
    let num_events = workload.num_events(plan.num_records);
    let whole = workload.write(dir.join("whole"), 1, num_events)?;
    let write = |(n, layout): (usize, &Layout)| {
        let num_events = (num_events as f64 * layout.share).round() as u64;
        workload.write(dir.join(n.to_string()), layout.num_files, num_events)
    };
    let files = workload.layouts.iter().enumerate().map(write).collect::<Result<Vec<_>>>()?;
    let peers = if workload.name == JSON_LINES { Peer::all()? } else { Vec::new() };
    let few = workload.write(dir.join("few"), 1, if peers.is_empty() { 0 } else { num_events / PEERS_PART })?;
    let tasks = Tasks { kafka, dir, number: Cell::new(0) };
    let (lines, records) = (whole.dir.join("0.log"), dir.join("records"));
    let (_, topic) = tasks.ship(&workload.input, &whole)?;
    write_finished_records(kafka, &topic, &records)?;
    tasks.delete(&topic)?;

    let name = |what: &str| format!("{}: {what}", workload.name);
    let raw = Side::new(name("kcat -P"), whole.num_lines, || tasks.kcat(&lines, &[], whole.num_lines));
    let mut sides = vec![raw];
    for (layout, files) in workload.layouts.iter().zip(&files) {
        sides.push(Side::new(format!("{}: shipper", layout.name), files.num_events, || {
            let (usage, topic) = tasks.ship(&workload.input, files)?;
            tasks.delete(&topic)?;
            Ok(usage)
        }));
    }
    let finished = name("kcat -P -K, finished records");
    sides.push(Side::new(finished, num_events, || tasks.kcat(&records, &["-K", "\t"], num_events)));
    for peer in &peers {
        sides.push(Side::new(name(peer.name()), few.num_events, || {
            let topic = tasks.topic()?;
            let usage = peer.ship(kafka, &few.dir.join("0.log"), &topic, few.num_events, dir)?;
            kafka.delete_topic(&topic)?;
            Ok(usage)
        }));
    }
    measure::in_turns(plan.num_runs, &mut sides)?;

    report.side(&sides[0], None)?;
    for side in &sides[1..] {
        let share = side.num as f64 / num_events as f64;
        report.side(side, Some(Yardstick { name: "kcat -P", runs: &sides[0].runs, share }))?;
    }
    let ours = &sides[1..=files.len()];
    for (layouts, sides) in workload.layouts.windows(2).zip(ours.windows(2)) {
        let (few, many) = (&sides[0], &sides[1]);
        if layouts[0].num_files == layouts[1].num_files {
            let runs: Vec<_> = many.runs.iter().zip(&few.runs).map(|(many, few)| many.beyond(few)).collect();
            let (name, num) = (format!("{}, each record more than before", many.name), many.num - few.num);
            let share = num as f64 / ours[0].num as f64;
            report.runs(&name, num, &runs, Some(Yardstick { name: &ours[0].name, runs: &ours[0].runs, share }))?;
        }
    }
    report.note(&format!("{} of {} bytes", workload.name, whole.num_bytes / whole.num_lines));
    Ok(())
}

struct Tasks<'a> {
    kafka: &'a Kafka,
    dir: &'a Path,
    /// Of the last topic.
    number: Cell<u32>,
}

impl Tasks<'_> {
    fn topic(&self) -> Result<String> {
        self.number.set(self.number.get() + 1);
        let workload = self.dir.file_name().unwrap_or_default().to_string_lossy();
        let topic = format!("bench-{workload}-{}", self.number.get());
        self.kafka.create_topic(&topic, NUM_PARTITIONS, &[])?;
        Ok(topic)
    }

    /// Deletes the topic that the shipper wrote. Its next run is the first of its host: it need not read what the hosts before it
    /// said of their files.
    fn delete(&self, topic: &str) -> Result<()> {
        self.kafka.delete_topic(topic)?;
        self.kafka.delete_topic(ledger::SOURCES)
    }

    fn ensure_all(&self, topic: &str, num: u64) -> Result<()> {
        let sent: i64 = self.kafka.end_offsets(topic)?.values().sum();
        ensure!(sent as u64 == num, "{sent} records in {topic} instead of {num}");
        Ok(())
    }

    fn kcat(&self, file: &Path, args: &[&str], num: u64) -> Result<Usage> {
        let topic = self.topic()?;
        let mut command = Command::new("kcat");
        command.args(kcat_producer(self.kafka, &topic)).args(args).arg("-l").arg(file);
        let usage = measure::run(command, &self.dir.join("kcat.log"))?;
        self.ensure_all(&topic, num)?;
        self.kafka.delete_topic(&topic)?;
        Ok(usage)
    }

    fn ship(&self, input: &Value, files: &Files) -> Result<(Usage, String)> {
        let topic = self.topic()?;
        let mut input = input.clone();
        input["id"] = "app".into();
        input["paths"] = json!([files.dir.join("*.log")]);
        input["fields"] = json!({"service.name": "checkout"});
        let state = self.dir.join(format!("state-{}", self.number.get()));
        let config = json!({
            "inputs": [input],
            "kafka": {"brokers": [self.kafka.bootstrap()], "topic": topic},
            "data_dir": state,
            // Another host each time: the ledger would tell the next run that all is sent.
            "host": {"id": format!("bench-{}", self.number.get())},
            "admin": {"listen": "127.0.0.1:0"},
        });
        let path = self.dir.join("shipper.yaml");
        fs::write(&path, config.to_string())?;
        let mut command = Command::new(built("shipper")?);
        command.args(["run", "--until", "eof", "--config"]).arg(path);
        let usage = measure::run(command, &self.dir.join("shipper.log"))?;
        self.ensure_all(&topic, files.num_events)?;
        Ok((usage, topic))
    }
}

/// Writes keys and values of a topic as `kcat -P -K` takes them.
fn write_finished_records(kafka: &Kafka, topic: &str, path: &Path) -> Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut result = Ok(());
    kafka.for_each_record(topic, |record| {
        let parts = [record.key().unwrap_or_default(), b"\t", record.payload().unwrap_or_default(), b"\n"];
        if result.is_ok() {
            result = parts.iter().try_for_each(|part| file.write_all(part));
        }
    })?;
    result?;
    file.flush()?;
    // What is still to be written would disturb the first runs.
    rustix::fs::sync();
    Ok(())
}
