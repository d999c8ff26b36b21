//! Asking for reloads and waiting for them, and the case O14 at any length.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use millrace_tests::ledger::Host;
use millrace_tests::process::Process;
use millrace_tests::rig::{LIMIT, Rig, Shipper};
use millrace_tests::wait;
use millrace_tests::writer::{Format, Traffic};
use rustix::process::Signal;

/// Within which a reload is done or refused.
pub const PROMPT: Duration = Duration::from_secs(10);

pub const DONE: [&str; 1] = ["result=\"done\""];
pub const REFUSED: [&str; 1] = ["result=\"refused\""];

/// The log line of the `number`-th reload (from 1) that was done or refused, within the promised time.
pub fn wait_reload(process: &mut Process, words: &str, number: usize) -> Result<String> {
    let found = wait::until(&format!("`{words}` in the log"), PROMPT, || {
        process.ensure_running()?;
        let log = process.output();
        Ok(log.lines().filter(|line| line.contains(words)).nth(number - 1).map(str::to_owned))
    });
    found.with_context(|| process.log_tail())
}

/// Asks for a reload, and waits until it is done or refused. Returns how long that took.
pub fn reload(process: &mut Process, words: &str, number: usize) -> Result<Duration> {
    let asked = Instant::now();
    process.signal(Signal::HUP)?;
    wait_reload(process, words, number)?;
    Ok(asked.elapsed())
}

pub const RELOADED: &str = "configuration reloaded";
pub const KEPT: &str = "reload refused: the configuration before goes on";

/// Waits until a process has no more threads than `before`: those of pipelines that are gone have ended.
pub fn wait_threads(process: &Process, before: usize) -> Result<()> {
    let mut num = 0;
    wait::until_true(&format!("{before} threads"), LIMIT, || {
        num = num_threads(process)?;
        Ok(num <= before)
    })
    .with_context(|| format!("there are {num}"))
}

pub fn num_threads(process: &Process) -> Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{}/task", process.pid()))?.count())
}

/// Lines to one rotated file, and as many reloads, alternately with a valid and an invalid configuration.
pub fn check_o14(name: &str, lines_per_second: u64, every: Duration, num_reloads: usize) -> Result<()> {
    let mut rig = Rig::new(name, 4)?;
    rig.set("heartbeat", "1s");
    let mut shipper = rig.start()?;
    shipper.wait_logged("shipper started")?;
    let metric = |shipper: &Shipper, labels: &[&str]| shipper.metric("shipper_config_reloads_total", labels);
    assert_eq!((metric(&shipper, &DONE)?, metric(&shipper, &REFUSED)?), (0.0, 0.0));
    let traffic = Traffic::start(vec![rig.writer("a.log", Format::Text)?], lines_per_second, 5_000);
    shipper.wait_metric("shipper_acked_events_total", &[], LIMIT, |acked| acked > 0.0)?;
    let threads = num_threads(&shipper)?;
    let (mut read, mut acked) = (0.0, 0.0);
    for number in 0..num_reloads {
        std::thread::sleep(every);
        match number % 2 {
            0 => rig.set("files.rescan", format!("{}s", 5 + number)),
            _ => rig.set("kafka.topic", "not a topic"),
        }
        rig.launch()?;
        let words = if number % 2 == 0 { RELOADED } else { KEPT };
        reload(&mut shipper, words, number / 2 + 1)?;
        rig.set("kafka.topic", name);
        let now =
            [shipper.metric("shipper_read_events_total", &[])?, shipper.metric("shipper_acked_events_total", &[])?];
        ensure!(now[0] >= read && now[1] >= acked, "a counter went back: {now:?} after {read}, {acked}");
        [read, acked] = now;
        shipper.check_counts()?;
    }
    traffic.stop()?;
    rig.wait_until_whole(LIMIT)?;
    let half = num_reloads as f64 / 2.0;
    assert_eq!((metric(&shipper, &DONE)?, metric(&shipper, &REFUSED)?), (half.ceil(), half.floor()));
    let fault = "shipper.yaml:1:";
    assert_eq!(
        shipper.log().lines().filter(|line| line.contains(fault)).count(),
        num_reloads / 2,
        "faults with their place"
    );
    let written = rig.written.len();
    wait::until_true("every line to be counted once", LIMIT, || Ok(shipper.check_counts()? == written as f64))?;
    wait_threads(&shipper, threads)?;
    let host = Host::read(&rig.kafka, name)?;
    ensure!(host.heartbeats.iter().all(|(_, beat)| beat["state"] == "running"), "a goodbye was said");
    println!("{written} lines, {} records", rig.num_records()?);
    shipper.stop()
}
