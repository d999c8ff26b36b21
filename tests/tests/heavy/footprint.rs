//! What the shipper takes of its machine over ten minutes. `FOOTPRINT_SECONDS` makes them shorter.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use millrace_tests::footprint;
use millrace_tests::rig::{LIMIT, Rig};
use millrace_tests::wait;
use rdkafka::Message as _;
use serde_json::json;

fn seconds() -> Result<u64> {
    let name = "FOOTPRINT_SECONDS";
    std::env::var(name).map_or(Ok(600), |text| text.parse().with_context(|| format!("{name}={text}")))
}

#[test]
fn o10_twenty_thousand_files_come_and_go() -> Result<()> {
    footprint::o10_files_come_and_go("o10-heavy", 20_000, Duration::from_secs(seconds()?))
}

const FILES: usize = 32;
const LINES_PER_SECOND: u64 = 100;
const ROTATED_AT: u64 = 10_000_000;

/// A file that is rotated: the one before is kept, older ones are deleted.
struct Rotating {
    name: String,
    file: File,
    size: u64,
    num_lines: u64,
}

impl Rotating {
    fn open(rig: &Rig, name: String) -> Result<Self> {
        let file = File::create_new(rig.path(&name))?;
        Ok(Self { name, file, size: 0, num_lines: 0 })
    }

    /// Lines of 1, 2, 4 … 128 KiB.
    fn write(&mut self, rig: &Rig) -> Result<()> {
        let length = 1024 << (self.num_lines % 8);
        let mut line = format!("<{} {}> ", self.name, self.num_lines);
        line.extend(std::iter::repeat_n('x', length - line.len() - 1));
        line.push('\n');
        self.file.write_all(line.as_bytes())?;
        self.size += line.len() as u64;
        self.num_lines += 1;
        if self.size >= ROTATED_AT {
            let path = rig.path(&self.name);
            fs::rename(&path, path.with_extension("log.1"))?;
            (self.file, self.size) = (File::create_new(&path)?, 0);
        }
        Ok(())
    }
}

/// The slope of the line through the points (seconds, bytes) with the least squares, in KiB a minute.
fn slope(points: &[(f64, f64)]) -> f64 {
    let num = points.len() as f64;
    let mean = |of: &dyn Fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / num;
    let (x, y) = (mean(&|p| p.0), mean(&|p| p.1));
    let rise: f64 = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    let run: f64 = points.iter().map(|p| (p.0 - x).powi(2)).sum();
    rise / run * 60.0 / 1024.0
}

/// How often each line is in the topic: by file, in the order of lines.
fn count(rig: &Rig, files: &[Rotating]) -> Result<BTreeMap<String, Vec<u8>>> {
    let new = |file: &Rotating| (file.name.clone(), vec![0; file.num_lines as usize]);
    let mut seen: BTreeMap<_, _> = files.iter().map(new).collect();
    let mut odd = 0_u64;
    rig.kafka.for_each_record(&rig.topic, |record| {
        let value = record.payload().unwrap_or_default();
        let value = std::str::from_utf8(value).unwrap_or_default();
        let id = value.split_once("\"message\":\"<").and_then(|(_, rest)| rest.split_once("> x")?.0.split_once(' '));
        let place = id.and_then(|(name, n)| seen.get_mut(name)?.get_mut(n.parse::<usize>().ok()?));
        match place {
            Some(place) => *place += 1,
            None => odd += 1,
        }
    })?;
    ensure!(odd == 0, "{odd} records are no line that was written");
    Ok(seen)
}

#[test]
fn o11_memory_is_flat_under_rotation() -> Result<()> {
    let time = Duration::from_secs(seconds()?);
    let mut rig = Rig::new("o11", 4)?;
    // Rotation is faster than any disk check need be.
    rig.set("limits.hold_deleted", json!({"bytes": "4GiB", "min_free": "1%"}));
    let mut shipper = rig.start()?;
    shipper.wait_logged("topic found")?;
    let names = (0..FILES).map(|n| Rotating::open(&rig, format!("{n}.log")));
    let mut files = names.collect::<Result<Vec<_>>>()?;
    let (started, mut points) = (Instant::now(), Vec::new());
    let mut num_ticks = 0;
    while started.elapsed() < time {
        for file in &mut files {
            for _ in 0..LINES_PER_SECOND / 10 {
                file.write(&rig)?;
            }
        }
        num_ticks += 1;
        if num_ticks % 10 == 0 && started.elapsed() >= time.mul_f64(0.3) {
            let rss = shipper.rss_bytes().context("it runs")?;
            points.push((started.elapsed().as_secs_f64(), rss as f64));
        }
        thread::sleep(Duration::from_millis(100 * num_ticks).saturating_sub(started.elapsed()));
    }
    let num_written: u64 = files.iter().map(|file| file.num_lines).sum();
    let (slope, peak) = (slope(&points), shipper.peak_rss_bytes().context("it runs")? >> 20);
    let every = points.len().div_ceil(10).max(1);
    let mebibytes =
        points.iter().step_by(every).map(|p| format!("{:.1}", p.1 / 1_048_576.0)).collect::<Vec<_>>().join(" ");
    println!(
        "{num_written} lines in {:?}, {slope:.0} KiB a minute, {peak} MiB at most: {mebibytes}",
        started.elapsed()
    );
    wait::until_true("every line is acknowledged", 5 * LIMIT, || {
        Ok(shipper.metric("shipper_acked_events_total", &[])? >= num_written as f64)
    })?;
    shipper.check_counts()?;
    let seen = count(&rig, &files)?;
    let num_wrong = seen.values().flatten().filter(|count| **count != 1).count();
    ensure!(num_wrong == 0, "{num_wrong} of {num_written} lines are not there exactly once");
    ensure!(slope < 1024.0, "memory grows by {slope:.0} KiB a minute: {points:?}");
    shipper.stop()
}

/// Quiet files of one host, with the ledger and without, side by side.
#[test]
fn the_ledger_of_ten_thousand_files_takes_less_than_a_hundredth_of_a_core_and_twelve_megabytes() -> Result<()> {
    const FILES: u64 = 10_000;
    let mut rigs = Vec::new();
    for ledger in ["on", "off"] {
        let mut rig = Rig::new(&format!("ledger-{ledger}"), 2)?;
        rig.set("ledger", ledger);
        rig.set("limits", json!({"memory": "64MiB"}));
        for file in 0..FILES {
            let name = format!("{file}.log");
            rig.append(&name, rig.lines(&name, 0..1))?;
        }
        let shipper = rig.start()?;
        rigs.push((rig, shipper));
    }
    for (rig, _) in &rigs {
        wait::until_true("every line", 4 * LIMIT, || Ok(rig.num_records()? >= FILES))?;
    }
    // What is said of the last file is said by then.
    thread::sleep(Duration::from_secs(15));
    let cpu = |rigs: &[(Rig, millrace_tests::rig::Shipper)]| -> Result<Vec<Duration>> {
        rigs.iter().map(|(_, shipper)| shipper.cpu_time().context("it runs")).collect()
    };
    let (before, begun) = (cpu(&rigs)?, Instant::now());
    thread::sleep(Duration::from_secs(60));
    let (after, took) = (cpu(&rigs)?, begun.elapsed());
    let share = |at: usize| (after[at] - before[at]).as_secs_f64() / took.as_secs_f64();
    // The host is called as the topic. What compaction keeps is the last of each key.
    let host = &rigs[0].0.topic;
    let (mut kept, mut num_said) = (BTreeMap::new(), 0);
    rigs[0].0.kafka.for_each_record(millrace_tests::ledger::SOURCES, |record| {
        let key = record.key().unwrap_or_default();
        if String::from_utf8_lossy(key).contains(host.as_str()) {
            num_said += 1;
            kept.insert(key.to_vec(), key.len() + record.payload().unwrap_or_default().len());
        }
    })?;
    let num_bytes: usize = kept.values().sum();
    println!(
        "{:.2} % of a core with, {:.2} % without; {num_said} facts said, {num_bytes} bytes of them kept",
        share(0) * 100.0,
        share(1) * 100.0
    );
    ensure!(share(0) - share(1) < 0.01, "{} and {}", share(0), share(1));
    ensure!(num_bytes < 12 << 20, "{num_bytes} bytes");
    for (_, mut shipper) in rigs {
        shipper.stop()?;
    }
    Ok(())
}
