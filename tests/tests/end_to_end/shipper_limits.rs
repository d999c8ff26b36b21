//! What the shipper holds and what it leaves alone: descriptors, deleted files, old files, copies. Each test is named after
//! its row of the failure catalogue; see `heavy_shipper` for T35 at full size.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use millrace_tests::kafka::Proxied;
use millrace_tests::proxy::Mode;
use millrace_tests::rig::{LIMIT, Rig, messages_by_path};
use millrace_tests::wait;
use serde_json::json;

/// Waits until a budget of 8 MiB is used up and the file was seen whole; returns how far it was read.
fn wait_until_full(shipper: &millrace_tests::rig::Shipper, size: u64) -> Result<u64> {
    wait::until("the budget used up", LIMIT, || {
        let status = shipper.status()?;
        let source = &status["sources"][0];
        let is_full = status["inflight_bytes"].as_u64() >= Some((8 << 20) / 6) && source["size"].as_u64() == Some(size);
        Ok(source["read"].as_u64().filter(|_| is_full))
    })
}

#[test]
fn t07_unread_part_of_a_truncated_file_is_read_from_its_copy() -> Result<()> {
    let broker = Proxied::take()?;
    let mut rig = broker.rig("t07-copy", 1)?;
    rig.set_patterns(&["app.log*"]);
    // A small budget, so that the reader lags.
    rig.set("limits", json!({"memory": "8MiB"}));
    let mut shipper = rig.start()?;
    rig.append("app.log", rig.lines("app.log", 0..10))?;
    rig.wait_for_records(10)?;
    broker.set(Mode::BlackHole)?;
    rig.append("app.log", rig.lines("app.log", 10..50_000))?;
    let size = fs::metadata(rig.path("app.log"))?.len();
    let read = wait_until_full(&shipper, size)?;
    ensure!(read < size, "nothing is left to be read from the copy");
    fs::copy(rig.path("app.log"), rig.path("app.log.1"))?;
    rig.rewrite("app.log", "")?;
    rig.append("app.log", rig.lines("app.log", 50_000..51_000))?;
    broker.set(Mode::Pass)?;
    rig.wait_until_whole(LIMIT)?;
    assert_eq!(shipper.metric("shipper_lost_bytes_total", &[])?, 0.0);
    assert_eq!(shipper.metric("shipper_rotations_total", &["copytruncate"])?, 1.0);
    shipper.stop()?;
    rig.check_sent_once()
}

#[test]
fn t07_copy_of_a_file_that_was_read_is_not_read_again() -> Result<()> {
    let mut rig = Rig::new("t07-read", 1)?;
    rig.set_patterns(&["app.log*"]);
    let mut shipper = rig.start()?;
    for round in 0..10 {
        let from = round * 100;
        rig.append("app.log", rig.lines("app.log", from..from + 100))?;
        rig.wait_for_records(from + 100)?;
        fs::copy(rig.path("app.log"), rig.path(&format!("app.log.{round}")))?;
        rig.rewrite("app.log", "")?;
    }
    rig.append("app.log", rig.lines("app.log", 1000..1100))?;
    rig.wait_until_whole(LIMIT)?;
    shipper.stop()?;
    rig.check_sent_once()
}

#[test]
fn t07_copy_that_is_no_rotation_is_read_as_a_file_of_its_own() -> Result<()> {
    let mut rig = Rig::new("t07-own", 1)?;
    rig.set("files.rotate_wait", "1s");
    let mut shipper = rig.start()?;
    let text = rig.lines("app.log", 0..100);
    rig.append("app.log", &text)?;
    rig.wait_for_records(100)?;
    rig.append("app.log.copy", &text)?;
    rig.wait_for_records(200)?;
    shipper.stop()?;
    let found = messages_by_path(&rig.records()?)?;
    let lines: Vec<&str> = text.lines().collect();
    ensure!(found[&rig.path("app.log")] == lines && found[&rig.path("app.log.copy")] == lines);
    Ok(())
}

#[test]
fn t33_deleted_file_is_held_until_the_limit_and_counted() -> Result<()> {
    let broker = Proxied::take()?;
    let mut rig = broker.rig("t33-limit", 1)?;
    rig.set("limits", json!({"memory": "8MiB", "hold_deleted": {"time": "2s"}}));
    let mut shipper = rig.start()?;
    rig.append("app.log", rig.lines("app.log", 0..10))?;
    rig.wait_for_records(10)?;
    let acknowledged = fs::metadata(rig.path("app.log"))?.len();
    wait::until_true("the acknowledgements", LIMIT, || {
        Ok(shipper.status()?["sources"][0]["acknowledged"].as_u64() == Some(acknowledged))
    })?;
    broker.set(Mode::BlackHole)?;
    let lost = rig.lines("app.log", 10..50_000);
    rig.append("app.log", &lost)?;
    let size = fs::metadata(rig.path("app.log"))?.len();
    let read = wait_until_full(&shipper, size)?;
    fs::remove_file(rig.path("app.log"))?;
    shipper.wait_metric("shipper_open_files", &[], LIMIT, |num| num == 0.0)?;
    let path = rig.path("app.log").to_string_lossy().into_owned();
    ensure!(!shipper.open_files()?.iter().any(|file| file.starts_with(&path)), "its room is not given back");
    // What was handed to the producer before may still arrive.
    broker.set(Mode::Pass)?;
    let counted = shipper.wait_metric("shipper_lost_bytes_total", &["hold_limit"], LIMIT, |bytes| bytes > 0.0)?;
    assert_eq!(counted, (size - read) as f64);
    let given_up = &shipper.status()?["last_given_up"][0];
    assert_eq!((&given_up["start"], &given_up["end"]), (&json!(read), &json!(size)));
    assert_eq!(given_up["reason"], "hold_limit");
    assert!(shipper.num_logged("reason=\"hold_limit\"") == 1, "{}", shipper.log_tail());
    shipper.stop()?;
    let num_delivered = rig.num_records()?;
    let num_read = 10 + lost[..(read - acknowledged) as usize].lines().count() as u64;
    assert_eq!(num_delivered, num_read);
    Ok(())
}

#[test]
fn t33_deleted_file_is_delivered_after_an_outage_within_the_limits() -> Result<()> {
    let broker = Proxied::take()?;
    let mut rig = broker.rig("t33-held", 1)?;
    rig.set("limits", json!({"memory": "8MiB", "hold_deleted": {"min_free": "0%"}}));
    let mut shipper = rig.start()?;
    rig.append("app.log", "")?;
    shipper.wait_announced(1)?;
    broker.set(Mode::BlackHole)?;
    rig.append("app.log", rig.lines("app.log", 0..50_000))?;
    wait_until_full(&shipper, fs::metadata(rig.path("app.log"))?.len())?;
    fs::remove_file(rig.path("app.log"))?;
    wait::until_true("the deletion noticed", LIMIT, || Ok(shipper.status()?["sources"][0]["fate"] == "deleted"))?;
    broker.set(Mode::Pass)?;
    rig.wait_until_whole(LIMIT)?;
    assert_eq!(shipper.metric("shipper_lost_bytes_total", &[])?, 0.0);
    shipper.stop()?;
    rig.check_sent_once()
}

#[test]
fn t35_more_files_than_descriptors() -> Result<()> {
    const FILES: u64 = 1000;
    let mut rig = Rig::new("t35", 2)?;
    rig.set("limits", json!({"open_files": 64}));
    for file in 0..FILES {
        let name = format!("{file}.log");
        rig.append(&name, rig.lines(&name, 0..1))?;
    }
    let mut shipper = rig.start()?;
    let num_open = |shipper: &millrace_tests::rig::Shipper| -> Result<usize> {
        let files = shipper.open_files()?;
        Ok(files.iter().filter(|file| file.contains("/logs/")).count())
    };
    wait::until_true("every first line", LIMIT, || {
        ensure!(num_open(&shipper)? <= 64, "{} files open", num_open(&shipper)?);
        Ok(rig.num_records()? >= FILES)
    })?;
    for file in (0..FILES).step_by(20) {
        let name = format!("{file}.log");
        rig.append(&name, rig.lines(&name, 1..11))?;
    }
    for file in [7, 400, 999] {
        let name = format!("{file}.log");
        rig.rename(&name, &format!("{name}.1"))?;
        rig.append(&name, rig.lines(&format!("{name}-new"), 0..1))?;
        rig.append(&format!("{name}.1"), rig.lines(&name, 20..21))?;
    }
    wait::until_true("every line", LIMIT, || {
        ensure!(num_open(&shipper)? <= 64, "{} files open", num_open(&shipper)?);
        Ok(rig.num_records()? >= FILES + 506)
    })?;
    // Deleted while closed, with nothing unread: nothing is lost.
    for file in 0..FILES / 2 {
        fs::remove_file(rig.path(&format!("{file}.log")))?;
    }
    shipper.wait_metric("shipper_sources", &[], LIMIT, |num| num <= (FILES / 2 + 3) as f64)?;
    assert_eq!(shipper.metric("shipper_lost_bytes_total", &[])?, 0.0);
    shipper.stop()?;
    let mut shipper = rig.start()?;
    rig.append("999.log", rig.lines("999.log-new", 1..2))?;
    rig.wait_until_whole(LIMIT)?;
    shipper.stop()?;
    rig.check_sent_once()
}

#[test]
fn t35_quiet_file_is_closed_and_read_on_when_it_grows() -> Result<()> {
    let mut rig = Rig::new("t35-idle", 1)?;
    rig.set("files.close_idle", "1s");
    let mut shipper = rig.start()?;
    for round in 0..3 {
        rig.append("app.log", rig.lines("app.log", round * 10..round * 10 + 10))?;
        rig.wait_for_records(round * 10 + 10)?;
        shipper.wait_metric("shipper_open_files", &[], LIMIT, |num| num == 0.0)?;
    }
    // Rewritten while it is closed, shorter and longer than before.
    rig.rewrite("app.log", rig.lines("short", 0..5))?;
    rig.wait_for_records(35)?;
    shipper.wait_metric("shipper_open_files", &[], LIMIT, |num| num == 0.0)?;
    rig.rewrite("app.log", rig.lines("long", 0..50))?;
    rig.wait_until_whole(LIMIT)?;
    shipper.stop()?;
    rig.check_sent_once()
}

#[test]
fn t47_old_file_is_left_alone_until_it_is_written_to() -> Result<()> {
    let mut rig = Rig::new("t47", 1)?;
    rig.set("inputs.0.ignore_older", "1h");
    rig.set("files.rescan", "1s");
    let set_age = |name: &str, time: SystemTime| -> Result<()> {
        Ok(File::options().write(true).open(rig.path(name))?.set_modified(time)?)
    };
    #[expect(clippy::disallowed_methods, reason = "files get times relative to now")]
    let now = SystemTime::now();
    let days = |num: u64| Duration::from_secs(num * 86_400);
    let old = rig.lines("old.log", 0..100);
    rig.append("old.log", &old)?;
    set_age("old.log", now - days(2))?;
    rig.append("future.log", rig.lines("future.log", 0..10))?;
    set_age("future.log", now + days(2))?;
    // As `cp -p` leaves it: changed later than modified.
    rig.append("copied.log", rig.lines("copied.log", 0..10))?;
    set_age("copied.log", now - Duration::from_secs(600))?;
    let mut shipper = rig.start()?;
    rig.wait_for_records(20)?;
    shipper.wait_metric("shipper_ignored_files", &[], LIMIT, |num| num == 1.0)?;
    assert_eq!(rig.num_records()?, 20, "the old file is left alone");
    rig.append("old.log", rig.lines("old.log", 100..110))?;
    rig.wait_until_whole(LIMIT)?;
    shipper.wait_metric("shipper_ignored_files", &[], LIMIT, |num| num == 0.0)?;
    shipper.stop()?;
    rig.check_sent_once()?;
    // What is known is read on, however old.
    rig.append("old.log", rig.lines("old.log", 110..120))?;
    set_age("old.log", now - days(2))?;
    let mut shipper = rig.start()?;
    rig.wait_until_whole(LIMIT)?;
    shipper.stop()?;
    rig.check_sent_once()
}

#[test]
fn t50_folders_that_live_for_a_second_are_delivered_whole() -> Result<()> {
    const PODS: u64 = 200;
    let mut rig = Rig::new("t50", 2)?;
    rig.set_patterns(&["pods/*/*/*.log"]);
    rig.set("files.rotate_wait", "1s");
    let mut shipper = rig.start()?;
    shipper.wait_logged("topic found")?;
    let mut living = std::collections::VecDeque::new();
    for pod in 0..PODS {
        let name = format!("pods/ns_pod-{pod}_0000-{pod}/c");
        fs::create_dir_all(rig.path(&name))?;
        rig.append(&format!("{name}/0.log"), rig.lines(&format!("pod-{pod}"), 0..20))?;
        living.push_back(pod);
        std::thread::sleep(Duration::from_millis(50));
        // Each lives for a second.
        if living.len() > 20 {
            let pod = living.pop_front().context("more than twenty")?;
            fs::remove_dir_all(rig.path(&format!("pods/ns_pod-{pod}_0000-{pod}")))?;
        }
    }
    std::thread::sleep(Duration::from_secs(1));
    fs::remove_dir_all(rig.path("pods"))?;
    rig.wait_until_whole(LIMIT)?;
    shipper.wait_metric("shipper_sources", &[], LIMIT, |num| num == 0.0)?;
    shipper.stop()?;
    let found = messages_by_path(&rig.records()?)?;
    for pod in 0..PODS {
        let path = rig.path(&format!("pods/ns_pod-{pod}_0000-{pod}/c/0.log"));
        let lines = found.get(&path).with_context(|| format!("nothing of {}", path.display()))?;
        ensure!(lines.len() == 20 && lines.iter().all(|line| line.contains(&format!("~pod-{pod}~"))), "{lines:?}");
    }
    rig.check_sent_once()
}

/// What a start takes for a moment is more than what it needs.
#[test]
fn memory_is_given_back_at_rest() -> Result<()> {
    let rig = Rig::new("given-back", 1)?;
    rig.append("app.log", rig.lines("app.log", 0..1000))?;
    let shipper = rig.start()?;
    rig.wait_until_whole(LIMIT)?;
    let mut last = None;
    wait::until_true("4 MiB given back", Duration::from_secs(30), || {
        let (now, peak) = shipper.rss_bytes().zip(shipper.peak_rss_bytes()).context("it runs")?;
        last = Some((now, peak));
        Ok(now + (4 << 20) < peak)
    })
    .with_context(|| format!("bytes now and at most: {last:?}"))?;
    rig.append("app.log", rig.lines("app.log", 1000..1010))?;
    rig.wait_until_whole(LIMIT)?;
    rig.check_sent_once()
}
