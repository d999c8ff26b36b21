//! Files to Kafka: every line once per record id, whatever happens to files, process and broker.

use std::time::Duration;

use anyhow::Result;
use millrace_tests::process::Launch;
use millrace_tests::rig::{LIMIT, Rig};
use millrace_tests::writer::{Format, Traffic};

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
