//! Files to Kafka: the shipper beside `kcat -P`, which sends lines as they are, and `kcat -P -K`, which sends the shipper's
//! finished keys and values.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use millrace_common::ledger;
use rdkafka::Message as _;
use serde_json::{Value, json};

use super::Plan;
use super::measure::{self, Usage};
use super::peers::Peer;
use super::report::{Report, Row};
use super::workload::{Files, Layout, Workload};
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

/// In each run the yardsticks send all lines, and the shipper those of each layout.
fn measure_workload(workload: &Workload, plan: &Plan, kafka: &Kafka, dir: &Path, report: &mut Report) -> Result<()> {
    let num_events = workload.num_events(plan.num_records);
    let whole = workload.write(dir.join("whole"), 1, num_events)?;
    let write = |(n, layout): (usize, &Layout)| {
        let num_events = (num_events as f64 * layout.share).round() as u64;
        workload.write(dir.join(n.to_string()), layout.num_files, num_events)
    };
    let files = workload.layouts.iter().enumerate().map(write).collect::<Result<Vec<_>>>()?;
    let peers = if workload.name == JSON_LINES { Peer::all()? } else { Vec::new() };
    let few =
        if peers.is_empty() { None } else { Some(workload.write(dir.join("few"), 1, num_events / PEERS_PART)?) };
    let lines = whole.dir.join("0.log");
    let records = dir.join("records");
    let mut sides = Sides { kafka, dir, number: 0 };
    let topic = sides.shipper(&workload.input, &whole)?.1;
    write_finished_records(kafka, &topic, &records)?;
    sides.delete(&topic)?;
    let (mut raw, mut finished, mut ours) = (Vec::new(), Vec::new(), vec![Vec::new(); files.len()]);
    let mut theirs = vec![Vec::new(); peers.len()];
    // The first fills caches and compiles the broker.
    for run in 0..=plan.num_runs {
        raw.push(sides.kcat(&lines, &[], whole.num_lines)?);
        for (files, ours) in files.iter().zip(&mut ours) {
            let (usage, topic) = sides.shipper(&workload.input, files)?;
            sides.delete(&topic)?;
            ours.push(usage);
        }
        finished.push(sides.kcat(&records, &["-K", "\t"], whole.num_events)?);
        for (files, (peer, theirs)) in few.iter().cycle().zip(peers.iter().zip(&mut theirs)) {
            let topic = sides.topic()?;
            theirs.push(peer.ship(kafka, &files.dir.join("0.log"), &topic, files.num_events, dir)?);
            kafka.delete_topic(&topic)?;
        }
        if run == 0 {
            [&mut raw, &mut finished].into_iter().chain(&mut ours).chain(&mut theirs).for_each(Vec::clear);
        }
    }
    let name = |what: &str| format!("{}: {what}", workload.name);
    report.add(Row { name: name("kcat -P"), num: whole.num_lines, runs: &raw, beside: None })?;
    let num = whole.num_events;
    report.add(Row { name: name("kcat -P -K, finished records"), num, runs: &finished, beside: None })?;
    let of_share = |runs: &[Usage], share| runs.iter().map(|run| run.of_share(share)).collect::<Vec<_>>();
    for ((layout, files), runs) in workload.layouts.iter().zip(&files).zip(&ours) {
        let raw = of_share(&raw, layout.share);
        let name = format!("{}: shipper", layout.name);
        report.add(Row { name, num: files.num_events, runs, beside: Some(("kcat -P", &raw)) })?;
    }
    for at in 1..files.len() {
        let [fewer, more] = [&workload.layouts[at - 1], &workload.layouts[at]];
        if fewer.num_files == more.num_files {
            let runs: Vec<_> = ours[at].iter().zip(&ours[at - 1]).map(|(more, fewer)| more.beyond(fewer)).collect();
            let first = of_share(&ours[0], (more.share - fewer.share) / workload.layouts[0].share);
            let name = format!("{}: shipper, each record more than before", more.name);
            let num = files[at].num_events - files[at - 1].num_events;
            report.add(Row { name, num, runs: &runs, beside: Some((workload.layouts[0].name, &first)) })?;
        }
    }
    let raw = of_share(&raw, 1.0 / PEERS_PART as f64);
    for (files, (peer, runs)) in few.iter().cycle().zip(peers.iter().zip(&theirs)) {
        let name = name(peer.name());
        report.add(Row { name, num: files.num_events, runs, beside: Some(("kcat -P", &raw)) })?;
    }
    report.note(&format!("{} of {} bytes", workload.name, whole.num_bytes / whole.num_lines));
    Ok(())
}

struct Sides<'a> {
    kafka: &'a Kafka,
    dir: &'a Path,
    number: u32,
}

impl Sides<'_> {
    fn topic(&mut self) -> Result<String> {
        self.number += 1;
        let topic = format!("bench-{}-{}", self.dir.file_name().unwrap_or_default().to_string_lossy(), self.number);
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

    fn kcat(&mut self, file: &Path, args: &[&str], num: u64) -> Result<Usage> {
        let topic = self.topic()?;
        let mut command = Command::new("kcat");
        command.args(["-P", "-b", self.kafka.bootstrap(), "-t", &topic]);
        for option in ["acks=all", "enable.idempotence=true", "compression.codec=lz4"] {
            command.args(["-X", option]);
        }
        command.args(args).arg("-l").arg(file);
        let usage = measure::run(command, &self.dir.join("kcat.log"))?;
        self.ensure_all(&topic, num)?;
        self.kafka.delete_topic(&topic)?;
        Ok(usage)
    }

    fn shipper(&mut self, input: &Value, files: &Files) -> Result<(Usage, String)> {
        let topic = self.topic()?;
        let mut input = input.clone();
        input["id"] = "app".into();
        input["paths"] = json!([files.dir.join("*.log")]);
        input["fields"] = json!({"service.name": "checkout"});
        let state = self.dir.join(format!("state-{}", self.number));
        let config = json!({
            "inputs": [input],
            "kafka": {"brokers": [self.kafka.bootstrap()], "topic": topic},
            "data_dir": state,
            // Another host each time: the ledger would tell the next run that all is sent.
            "host": {"id": format!("bench-{}", self.number)},
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
