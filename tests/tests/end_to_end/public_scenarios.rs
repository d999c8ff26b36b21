//! Scenarios that users of other shippers reported in public, beyond the failure catalogue. Each test is named after its thread.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::time::Duration;

use anyhow::{Result, ensure};
use millrace_tests::rig::{LIMIT, Rig};
use millrace_tests::wait;
use serde_json::json;

/// grafana/loki#8039: the application writes on into its file for a while after the rename, before it opens the new one.
#[test]
fn loki_8039_lines_written_after_the_rename() -> Result<()> {
    let rig = Rig::new("loki-8039", 2)?;
    let mut shipper = rig.start()?;
    let mut file = File::options().create(true).append(true).open(rig.path("iter.log"))?;
    for generation in 0..10 {
        let lines = |from: u64, to: u64| rig.lines("iter.log", generation * 1000 + from..generation * 1000 + to);
        std::io::Write::write_all(&mut file, lines(0, 900).as_bytes())?;
        for number in (1..=generation).rev() {
            rig.rename(&format!("iter.log.{number}"), &format!("iter.log.{}", number + 1))?;
        }
        rig.rename("iter.log", "iter.log.1")?;
        std::io::Write::write_all(&mut file, lines(900, 1000).as_bytes())?;
        file = File::options().create(true).append(true).open(rig.path("iter.log"))?;
    }
    rig.wait_until_whole(LIMIT)?;
    shipper.stop()?;
    rig.check_sent_once()
}

/// fluent/fluentd#1383: the old file is removed, the live one renamed over its name, and a new one begins with its first line
/// at once; after the second rotation the position was never updated again.
#[test]
fn fluentd_1383_rotation_over_an_old_file() -> Result<()> {
    let rig = Rig::new("fluentd-1383", 1)?;
    let mut shipper = rig.start()?;
    for round in 0..30 {
        rig.append("application.log", rig.lines("application.log", round * 20..round * 20 + 20))?;
        // Its lines may go only once they are delivered: nobody could read them any more.
        rig.wait_for_records((round + 1) * 20)?;
        let _ = fs::remove_file(rig.path("application.log.1"));
        rig.rename("application.log", "application.log.1")?;
    }
    rig.append("application.log", rig.lines("application.log", 600..620))?;
    rig.wait_until_whole(LIMIT)?;
    let inode = fs::metadata(rig.path("application.log"))?.ino();
    wait::until_true("the position of the last file is saved", LIMIT, || {
        let rows = rig.checkpoint()?;
        let row = rows.iter().find(|row| row["inode"].as_u64() == Some(inode));
        Ok(row.is_some_and(|row| row["acknowledged"] == row["size"] && row["size"].as_u64() > Some(0)))
    })?;
    shipper.stop()?;
    rig.check_sent_once()
}

/// elastic/beats#36541: each restart takes the rotated files for truncated ones and sends them again from their start.
#[test]
fn beats_36541_restarts_send_rotated_files_once() -> Result<()> {
    let rig = Rig::new("beats-36541", 2)?;
    let mut num_lines = 0;
    for round in 0..4 {
        rig.append("my-svc-json.log", rig.lines("my-svc-json.log", num_lines..num_lines + 5000))?;
        num_lines += 5000;
        let mut shipper = rig.start()?;
        rig.wait_for_records(num_lines)?;
        shipper.stop()?;
        for number in (1..=round).rev() {
            rig.rename(&format!("my-svc-json.log.{number}"), &format!("my-svc-json.log.{}", number + 1))?;
        }
        rig.rename("my-svc-json.log", "my-svc-json.log.1")?;
    }
    for _ in 0..3 {
        rig.run_until_eof()?;
    }
    ensure!(rig.num_records()? == num_lines, "a restart sent something again");
    rig.check_sent_once()
}

/// vectordotdev/vector#643: hundreds of empty files look like one, and flood the log. elastic/beats#44749: files of a few bytes
/// are not read until they have grown.
#[test]
fn vector_643_empty_and_tiny_files_are_quiet_and_apart() -> Result<()> {
    const FILES: u64 = 400;
    let mut rig = Rig::new("vector-643", 2)?;
    rig.set("files.rescan", "200ms");
    for file in 0..FILES {
        rig.append(&format!("file-{file}.cron.log"), "")?;
    }
    let mut shipper = rig.start()?;
    shipper.wait_logged("topic found")?;
    shipper.wait_metric("shipper_sources", &[], LIMIT, |num| num == FILES as f64)?;
    let logged = shipper.log().lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).count();
    ensure!(logged == 0, "{}", shipper.log_tail());
    for file in 0..FILES {
        let name = format!("file-{file}.cron.log");
        rig.append(&name, rig.lines(&name, 0..1))?;
    }
    rig.wait_until_whole(LIMIT)?;
    shipper.stop()?;
    rig.check_sent_once()
}

/// flori/file-tail#14: a file that is gone for a while and comes back with lines in it is read from its end.
#[test]
fn file_tail_14_a_file_that_was_gone_for_a_while_is_read_from_its_start() -> Result<()> {
    let mut rig = Rig::new("file-tail-14", 1)?;
    rig.set_patterns(&["file.txt"]);
    rig.set("files.rescan", "200ms");
    let mut shipper = rig.start()?;
    for round in 0..5 {
        rig.append("file.txt", rig.lines("file.txt", round * 100..round * 100 + 50))?;
        rig.wait_for_records(round * 100 + 50)?;
        rig.rename("file.txt", "file.txt.bak")?;
        std::thread::sleep(Duration::from_millis(500));
        let text = rig.lines("file.txt", round * 100 + 50..round * 100 + 100);
        rig.append("aside", text)?;
        rig.rename("aside", "file.txt")?;
        rig.wait_for_records(round * 100 + 100)?;
        fs::remove_file(rig.path("file.txt"))?;
    }
    rig.wait_until_whole(LIMIT)?;
    shipper.stop()?;
    rig.check_sent_once()
}

/// fluent/fluent-bit#2110 and #1712: a chain of symbolic links as Kubernetes makes it; the file behind it is renamed and
/// made again, faster than it is read, and the pattern matches the links only.
#[test]
fn fluent_bit_2110_files_behind_a_chain_of_links_rotate() -> Result<()> {
    let mut rig = Rig::new("fluent-bit-2110", 2)?;
    rig.set_patterns(&["containers/*.log"]);
    rig.set("inputs.0.links_into", json!([rig.path("data")]));
    rig.set("files.rescan", "200ms");
    for dir in ["containers", "pods", "data"] {
        fs::create_dir(rig.path(dir))?;
    }
    symlink(rig.path("data/json.log"), rig.path("pods/0.log"))?;
    symlink(rig.path("pods/0.log"), rig.path("containers/xyz-blue_our-app.log"))?;
    rig.append("data/json.log", "")?;
    let mut shipper = rig.start()?;
    shipper.wait_logged("tailing")?;
    for round in 0..10 {
        rig.append("data/json.log", rig.lines("json.log", round * 5000..(round + 1) * 5000))?;
        std::thread::sleep(Duration::from_millis(400));
        for number in (1..=round).rev() {
            rig.rename(&format!("data/json.log.{number}"), &format!("data/json.log.{}", number + 1))?;
        }
        rig.rename("data/json.log", "data/json.log.1")?;
        rig.append("data/json.log", "")?;
    }
    rig.wait_until_whole(LIMIT)?;
    shipper.stop()?;
    rig.check_sent_once()
}
