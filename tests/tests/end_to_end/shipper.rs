//! Files to Kafka: every line once per record id, whatever happens to files, process and broker.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use millrace_tests::process::Launch;
use millrace_tests::rig::{LIMIT, Rig};
use millrace_tests::writer::{Format, Traffic};
use serde_json::Value;

#[test]
fn text_and_json_lines_arrive_once_and_a_stop_is_clean() -> Result<()> {
    let rig = Rig::new("text-and-json", 3)?;
    let mut text = rig.writer("a.log", Format::Text)?;
    let mut json = rig.writer("b.log", Format::Json)?;
    text.write(1000)?;
    json.write(1000)?;
    // As a sidecar runs it: without a file of settings.
    let launch = Launch::shipper("shipper", &rig.dir)?
        .args(["run", "--brokers", rig.kafka.bootstrap(), "--topic", &rig.topic, "--admin-listen", rig.admin()])
        .args(["--format", "json", "--data-dir"])
        .arg(rig.dir.join("state"))
        .arg(rig.path("*.log*"));
    let mut shipper = rig.start_as(&launch)?;
    rig.wait_until_whole(LIMIT)?;
    text.write(10)?;
    json.write(10)?;
    shipper.stop()?;
    rig.check_sent_once()?;
    let mut again = rig.start_as(&launch)?;
    again.wait_metric("shipper_sources", &[], LIMIT, |num| num == 2.0)?;
    again.stop()?;
    rig.check_sent_once()
}

#[test]
fn run_until_the_end_of_the_files_sends_unterminated_lines_too() -> Result<()> {
    let rig = Rig::new("until-eof", 1)?;
    let lines = rig.lines("app.log", 0..1000);
    rig.append("app.log", lines.trim_end())?;
    rig.run_until_eof()?;
    rig.check_sent_once()?;
    rig.run_until_eof()?;
    rig.check_sent_once()
}

/// Many records go to librdkafka in one call, which looks at the clock itself: only an interruption in between may show.
#[test]
fn kafkas_time_of_a_record_is_its_read_time() -> Result<()> {
    let rig = Rig::new("read-time", 1)?;
    rig.append("app.log", rig.lines("app.log", 0..50_000))?;
    rig.run_until_eof()?;
    let records = rig.records()?;
    ensure!(records.len() == 50_000, "{} records", records.len());
    let mut num_later = 0;
    for record in &records {
        let value: Value = serde_json::from_slice(&record.value)?;
        let read_time: Timestamp = value["@timestamp"].as_str().context("no time")?.parse()?;
        let late_ms = record.timestamp.context("no Kafka timestamp")? - read_time.as_millisecond();
        ensure!((0..5000).contains(&late_ms), "{late_ms} ms: {value}");
        num_later += usize::from(late_ms > 0);
    }
    ensure!(num_later * 20 < records.len(), "{num_later} records have a later time");
    Ok(())
}

#[test]
fn killed_twenty_times_while_writing_and_rotating() -> Result<()> {
    let mut rig = Rig::new("killed-shipper", 4)?;
    rig.set("inputs.0.format", "json");
    let launch = rig.launch()?;
    let writers = vec![rig.writer("a.log", Format::Json)?, rig.writer("b.log", Format::Text)?];
    let traffic = Traffic::start(writers, 2000, 1500);
    for round in 0..20 {
        let mut shipper = rig.start_as(&launch)?;
        std::thread::sleep(Duration::from_millis(300 + 37 * round));
        shipper.kill9()?;
    }
    let mut shipper = rig.start_as(&launch)?;
    std::thread::sleep(Duration::from_secs(1));
    traffic.stop()?;
    rig.wait_until_whole(LIMIT)?;
    shipper.stop()
}
