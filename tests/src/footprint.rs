//! What a shipper takes of its machine while files come and go.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::rig::{LIMIT, Rig};

/// How long a file exists.
const LIFETIME: Duration = Duration::from_secs(3);
/// Of the whole time: when memory is looked at first, and how often there is a scrape.
const SETTLED_AFTER: f64 = 0.2;
const NUM_SCRAPES: u32 = 120;

/// Creates `num_files` one after the other over `time`, each of one line, deletes each after a while, and scrapes all the
/// while. At the end `/metrics` must be short, memory must not have grown since a fifth of the time, and every line must be
/// there.
///
/// # Errors
///
/// If one of these is not so.
pub fn o10_files_come_and_go(name: &str, num_files: u32, time: Duration) -> Result<()> {
    let rig = Rig::new(name, 2)?;
    let mut shipper = rig.start()?;
    rig.append("first.log", rig.lines("first.log", 0..1))?;
    rig.wait_for_records(1)?;
    let file = |n: u32| format!("{n}.log");
    let started = Instant::now();
    let due = |n: u32| time.mul_f64(f64::from(n) / f64::from(num_files));
    let (mut num_deleted, mut num_scrapes, mut rss, mut num_lines) = (0, 0, Vec::new(), 0);
    for n in 0..num_files {
        thread::sleep(due(n).saturating_sub(started.elapsed()));
        rig.append(&file(n), rig.lines(&file(n), 0..1))?;
        while num_deleted <= n && due(num_deleted) + LIFETIME < started.elapsed() {
            fs::remove_file(rig.path(&file(num_deleted)))?;
            num_deleted += 1;
        }
        if started.elapsed() >= time / NUM_SCRAPES * num_scrapes {
            num_scrapes += 1;
            num_lines = shipper.metrics()?.lines().count();
            let is_settled = started.elapsed() >= time.mul_f64(SETTLED_AFTER);
            rss.extend(is_settled.then(|| shipper.rss_bytes()).flatten());
        }
    }
    let (first, most) = (*rss.first().context("a scrape")?, rss.iter().copied().max().context("a scrape")?);
    let growth = most.saturating_sub(first) >> 10;
    println!("{num_lines} lines of metrics, {} KiB resident, then {growth} KiB more at most", first >> 10);
    ensure!(num_lines < 1_000, "{num_lines} lines of metrics");
    ensure!(growth < 10 << 10, "{growth} KiB more");
    rig.wait_until_whole(LIMIT)?;
    shipper.stop()?;
    rig.check_sent_once()
}
