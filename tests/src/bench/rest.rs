//! What a shipper takes while nothing is written to its files.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::Plan;
use super::report::Report;
use super::workload::Workload;
use crate::kafka::Kafka;
use crate::process::Launch;
use crate::{scratch, wait};

const TOPIC: &str = "bench-rest";
const NUM_FILES: u64 = 1_000;
const LINES_PER_FILE: u64 = 10;
const REST: Duration = Duration::from_secs(60);

pub(super) fn measure(plan: &Plan, kafka: &Kafka, report: &mut Report) -> Result<()> {
    if !plan.wants("at rest") {
        return Ok(());
    }
    let dir = scratch::dir("bench-rest")?;
    kafka.create_topic(TOPIC, 4, &[])?;
    let lines = Workload::lines("json lines", NUM_FILES * LINES_PER_FILE);
    let logs = dir.join("logs");
    fs::create_dir(&logs)?;
    for (n, lines) in lines.chunks(LINES_PER_FILE as usize).enumerate() {
        fs::write(logs.join(format!("{n}.log")), lines.join("\n") + "\n")?;
    }
    let shipper = Launch::shipper("shipper", &dir)?
        .args(["run", "--brokers", kafka.bootstrap(), "--topic", TOPIC, "--format", "json"])
        .args(["--admin-listen", "127.0.0.1:0", "--data-dir"])
        .arg(dir.join("state"))
        .arg(logs.join("*.log"))
        .start()?;
    wait::until_true("all lines are in the topic", Duration::from_secs(120), || {
        Ok(kafka.end_offsets(TOPIC)?.values().sum::<i64>() as u64 == NUM_FILES * LINES_PER_FILE)
    })?;
    // The last positions are saved and told.
    thread::sleep(Duration::from_secs(10));
    let cpu = || shipper.cpu_time().context("it runs");
    let (before, since) = (cpu()?, Instant::now());
    thread::sleep(REST);
    let share = (cpu()? - before).as_secs_f64() / since.elapsed().as_secs_f64();
    let (rss_bytes, peak_rss_bytes) = shipper.rss_bytes().zip(shipper.peak_rss_bytes()).context("it runs")?;
    report.rest(&format!("{NUM_FILES} files of {LINES_PER_FILE} lines"), share, rss_bytes, peak_rss_bytes);
    drop(shipper);
    kafka.delete_topic(TOPIC)
}
