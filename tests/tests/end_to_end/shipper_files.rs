//! What happens to files while the shipper runs: rotation, truncation, links, long and unfinished lines. Each test is
//! named after its row of the failure catalogue.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use millrace_tests::process::Launch;
use millrace_tests::rig::{LIMIT, Rig, append, messages_by_path};
use millrace_tests::wait;
use millrace_tests::writer::LineId;
use serde_json::{Value, json};

fn flags(record: &Value) -> Vec<&str> {
    record["log"]["flags"].as_array().map(|flags| flags.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}

#[test]
fn t01_rename_rotation_under_full_load() -> Result<()> {
    let rig = Rig::new("t01", 4)?;
    let mut shipper = rig.start()?;
    for generation in 0..20 {
        let mut file = File::options().create(true).append(true).open(rig.path("app.log"))?;
        let text = rig.lines("app.log", generation * 10_000..(generation + 1) * 10_000);
        // As a buffered writer does it: lines are cut anywhere.
        for piece in text.as_bytes().chunks(8192) {
            file.write_all(piece)?;
        }
        rig.rename("app.log", &format!("app.log.{generation}"))?;
    }
    rig.wait_until_whole(LIMIT)?;
    shipper.stop()?;
    rig.check_sent_once()
}

#[test]
fn t04_directory_link_that_points_elsewhere() -> Result<()> {
    let mut rig = Rig::new("t04", 2)?;
    rig.set_patterns(&["cur/app.log"]);
    rig.set("files.rescan", "500ms");
    for version in ["v1", "v2"] {
        fs::create_dir(rig.path(version))?;
    }
    symlink("v1", rig.path("cur"))?;
    let mut shipper = rig.start()?;
    rig.append("v1/app.log", rig.lines("v1", 0..100))?;
    rig.wait_for_records(100)?;
    symlink("v2", rig.path("new"))?;
    rig.rename("new", "cur")?;
    rig.append("v1/app.log", rig.lines("v1", 100..150))?;
    rig.append("v2/app.log", rig.lines("v2", 0..100))?;
    rig.wait_until_whole(LIMIT)?;
    shipper.stop()?;
    rig.check_sent_once()
}

#[test]
fn t05_rotated_file_compressed_at_once() -> Result<()> {
    let mut rig = Rig::new("t05", 2)?;
    rig.set_patterns(&["*.log"]);
    let mut shipper = rig.start()?;
    shipper.wait_logged("topic found")?;
    for round in 0..20 {
        // The application has had its file open for half a second when it writes.
        rig.append("0.log", "")?;
        std::thread::sleep(Duration::from_millis(500));
        rig.append("0.log", rig.lines("0.log", round * 200..(round + 1) * 200))?;
        let rotated = rig.path(&format!("0.log.{round}"));
        fs::rename(rig.path("0.log"), &rotated)?;
        ensure!(Command::new("gzip").arg(&rotated).status()?.success());
    }
    rig.wait_until_whole(LIMIT)?;
    shipper.stop()?;
    rig.check_sent_once()
}

#[test]
fn t08_truncated_and_quickly_rewritten() -> Result<()> {
    let rig = Rig::new("t08", 4)?;
    let mut shipper = rig.start()?;
    let files: Vec<String> = (0..10).map(|n| format!("{n}.log")).collect();
    for file in &files {
        rig.append(file, "")?;
    }
    let mut num_lines = 0;
    for round in 0..5 {
        for file in &files {
            rig.append(file, rig.lines(&format!("{file}-{round}-before"), 0..10))?;
        }
        num_lines += 100;
        rig.wait_for_records(num_lines)?;
        for file in &files {
            let label = format!("{file}-{round}-after");
            rig.rewrite(file, rig.lines_of(&label, 0..100, |id| format!("{id} {}", "longer ".repeat(20))))?;
        }
        num_lines += 1000;
        rig.wait_for_records(num_lines)?;
    }
    rig.wait_until_whole(LIMIT)?;
    assert_eq!(shipper.metric("shipper_lost_bytes_total", &[])?, 0.0);
    shipper.stop()?;
    rig.check_sent_once()
}

#[test]
fn t10_truncated_file_is_read_before_it_is_as_long_as_it_was() -> Result<()> {
    let rig = Rig::new("t10", 1)?;
    let mut shipper = rig.start()?;
    rig.append("app.log", rig.lines_of("long", 0..1000, |id| format!("{id} {}", "x".repeat(500))))?;
    rig.wait_for_records(1000)?;
    rig.rewrite("app.log", rig.lines("short", 0..10))?;
    rig.wait_until_whole(Duration::from_secs(5))?;
    shipper.stop()?;
    rig.check_sent_once()
}

#[test]
fn t11_file_overwritten_every_tenth_line() -> Result<()> {
    let rig = Rig::new("t11", 1)?;
    let mut shipper = rig.start()?;
    rig.append("app.log", "")?;
    shipper.wait_logged("tailing")?;
    shipper.wait_logged("topic found")?;
    // Nothing of a file is read before the ledger knows it.
    shipper.wait_announced(1)?;
    for n in 0..50 {
        let line = rig.lines("app.log", n..n + 1);
        if n % 10 == 9 {
            rig.rewrite("app.log", line)?
        } else {
            rig.append("app.log", line)?
        }
        // Each line stands on disk for so long.
        std::thread::sleep(Duration::from_millis(50));
    }
    rig.wait_until_whole(LIMIT)?;
    shipper.stop()?;
    rig.check_sent_once()
}

/// Files to delete, of which one's inode comes again. Other tests create files too and may take some.
const NUM_CANDIDATES: u64 = 20;

fn append_candidates(rig: &Rig) -> Result<()> {
    (0..NUM_CANDIDATES).map(|n| format!("a-{n}.log")).try_for_each(|name| rig.append(&name, rig.lines(&name, 0..50)))
}

fn remove_candidates(rig: &Rig) -> Result<BTreeSet<u64>> {
    let mut inodes = BTreeSet::new();
    for n in 0..NUM_CANDIDATES {
        let path = rig.path(&format!("a-{n}.log"));
        inodes.insert(fs::metadata(&path)?.ino());
        fs::remove_file(path)?;
    }
    Ok(inodes)
}

/// Creates `path` with an inode that one of the files just deleted had, and fails if the file system gives none of them again.
fn create_with_inode(dir: &Path, path: &Path, inodes: &BTreeSet<u64>) -> Result<()> {
    // The misses are kept until the end, or they would be given again.
    let mut misses = Vec::new();
    for n in 0..500 {
        let candidate = dir.join(format!("candidate-{n}"));
        if inodes.contains(&File::create(&candidate)?.metadata()?.ino()) {
            fs::rename(&candidate, path)?;
            misses.iter().try_for_each(fs::remove_file)?;
            return Ok(());
        }
        misses.push(candidate);
    }
    anyhow::bail!("no file got one of the inodes {inodes:?} again: this test needs ext4")
}

fn longer_line(id: &LineId) -> String {
    format!("{id} {}", "longer than those of the file before ".repeat(3))
}

#[test]
fn t13_inode_reused_by_a_larger_file_while_stopped() -> Result<()> {
    let rig = Rig::new("t13-stopped", 1)?;
    append_candidates(&rig)?;
    let mut shipper = rig.start()?;
    rig.wait_for_records(50 * NUM_CANDIDATES)?;
    shipper.stop()?;
    let inodes = remove_candidates(&rig)?;
    create_with_inode(&rig.path(""), &rig.path("b.log"), &inodes)?;
    rig.append("b.log", rig.lines_of("b.log", 0..2000, longer_line))?;
    let mut shipper = rig.start()?;
    rig.wait_until_whole(LIMIT)?;
    shipper.stop()?;
    rig.check_sent_once()
}

#[test]
fn t13_inode_reused_by_a_larger_file_while_running() -> Result<()> {
    let mut rig = Rig::new("t13-running", 1)?;
    rig.set("files.rotate_wait", "500ms");
    append_candidates(&rig)?;
    let mut shipper = rig.start()?;
    rig.wait_for_records(50 * NUM_CANDIDATES)?;
    let inodes = remove_candidates(&rig)?;
    // As long as the shipper holds a file, nobody gets its inode.
    shipper.wait_metric("shipper_open_files", &[], LIMIT, |num| num == 0.0)?;
    create_with_inode(&rig.path(""), &rig.path("b.log"), &inodes)?;
    rig.append("b.log", rig.lines_of("b.log", 0..2000, longer_line))?;
    rig.wait_until_whole(LIMIT)?;
    shipper.stop()?;
    rig.check_sent_once()
}

#[test]
fn t14_files_with_the_same_beginning_stay_apart() -> Result<()> {
    let rig = Rig::new("t14", 3)?;
    let mut shipper = rig.start()?;
    let header = format!("id,{}end\n", "column,".repeat(28));
    let names: Vec<String> = (0..5).map(|n| format!("{n}.log")).collect();
    for name in &names {
        rig.append(name, header.clone() + &rig.lines(name, 0..900))?;
    }
    let same: String = (0..1000).map(|n| format!("{n} {}\n", "the same in both ".repeat(5))).collect();
    assert!(same.len() > 64 << 10);
    for name in ["twin-1.log", "twin-2.log"] {
        rig.append(name, same.clone() + &rig.lines(name, 0..900))?;
    }
    let files: Vec<String> = names.iter().cloned().chain(["twin-1.log".into(), "twin-2.log".into()]).collect();
    let add = |range: std::ops::Range<u64>| files.iter().try_for_each(|f| rig.append(f, rig.lines(f, range.clone())));
    rig.wait_for_records(5 * 901 + 2 * 1900)?;
    add(900..950)?;
    rig.wait_for_records(5 * 951 + 2 * 1950)?;
    shipper.stop()?;
    add(950..980)?;
    let mut shipper = rig.start()?;
    add(980..1000)?;
    rig.wait_for_records(5 * 1001 + 2 * 2000)?;
    shipper.stop()?;
    let records = rig.records()?;
    assert_eq!(records.len(), 5 * 1001 + 2 * 2000, "every line once");
    let found = messages_by_path(&records)?;
    for name in &files {
        let text = fs::read_to_string(rig.path(name))?;
        let lines: Vec<&str> = text.lines().collect();
        ensure!(found[&rig.path(name)] == lines, "{name} has other lines, or in another order");
    }
    Ok(())
}

fn half_a_json_line_survives(name: &str, end: impl Fn(&mut millrace_tests::rig::Shipper) -> Result<()>) -> Result<()> {
    let mut rig = Rig::new(name, 1)?;
    rig.set("inputs.0.format", "json");
    let first = rig.lines_of("app.log", 0..1, |id| format!(r#"{{"line":"{id}","n":0}}"#));
    let second = rig.lines_of("app.log", 1..2, |id| format!(r#"{{"line":"{id}","x":"partial"}}"#));
    let (head, tail) = second.split_at(second.len() / 2);
    rig.append("app.log", format!("{first}{head}"))?;
    let mut shipper = rig.start()?;
    rig.wait_for_records(1)?;
    shipper.wait_metric("shipper_unread_bytes", &[], LIMIT, |bytes| bytes == head.len() as f64)?;
    end(&mut shipper)?;
    assert_eq!(rig.acknowledged("app.log")?, first.len() as u64, "the checkpoint stands at the start of the line");
    let mut shipper = rig.start()?;
    rig.append("app.log", tail)?;
    rig.wait_until_whole(LIMIT)?;
    shipper.stop()?;
    rig.check_sent_once()
}

#[test]
fn t16_half_a_line_survives_a_stop() -> Result<()> {
    half_a_json_line_survives("t16-stop", |shipper| shipper.stop())
}

#[test]
fn t16_half_a_line_survives_a_kill() -> Result<()> {
    half_a_json_line_survives("t16-kill", |shipper| {
        let saved = || Ok(shipper.status()?["sources"][0]["acknowledged"].as_u64() > Some(0));
        wait::until_true("the acknowledgement", LIMIT, saved)?;
        // The checkpoint is written every second.
        std::thread::sleep(Duration::from_millis(1500));
        shipper.kill9()
    })
}

#[test]
fn t17_last_line_of_a_renamed_file_needs_no_line_end() -> Result<()> {
    let mut rig = Rig::new("t17-renamed", 1)?;
    rig.set("files.rotate_wait", "1s");
    let mut shipper = rig.start()?;
    let before = rig.lines("before", 0..10);
    rig.append("app.log", before.trim_end())?;
    rig.wait_for_records(9)?;
    rig.rename("app.log", "app.log.1")?;
    rig.append("app.log", rig.lines("after", 0..10))?;
    rig.wait_until_whole(Duration::from_secs(15))?;
    shipper.stop()?;
    rig.check_sent_once()?;
    let records = rig.records()?;
    let partial: Vec<String> = records.iter().map(|r| r.text()).filter(|t| t.contains("\"partial\"")).collect();
    assert_eq!(partial.len(), 1);
    assert!(partial[0].contains(before.lines().last().context("ten lines")?));
    Ok(())
}

#[test]
fn t17_last_line_of_a_live_file_is_held_until_its_end_or_the_idle_time() -> Result<()> {
    let mut rig = Rig::new("t17-live", 1)?;
    rig.set("files.partial_after", "3s");
    let mut shipper = rig.start()?;
    let lines = rig.lines("app.log", 0..2);
    let (first, second) = lines.trim_end().split_once('\n').context("two lines")?;
    rig.append("app.log", &first[..20])?;
    std::thread::sleep(Duration::from_millis(500));
    rig.append("app.log", format!("{}\n", &first[20..]))?;
    rig.wait_for_records(1)?;
    let written = Instant::now();
    rig.append("app.log", second)?;
    rig.wait_for_records(2)?;
    assert!(written.elapsed() >= Duration::from_secs(3), "sent after {:?} only", written.elapsed());
    rig.append("app.log", format!("\n{}", rig.lines("app.log", 2..3)))?;
    rig.wait_until_whole(LIMIT)?;
    shipper.stop()?;
    rig.check_sent_once()?;
    let records: Vec<Value> =
        rig.records()?.iter().map(|r| serde_json::from_slice(&r.value)).collect::<Result<_, _>>()?;
    assert_eq!(records.iter().map(flags).collect::<Vec<_>>(), [vec![], vec!["partial"], vec![]]);
    Ok(())
}

#[test]
fn t19_remainder_of_a_long_line_is_no_record() -> Result<()> {
    let mut rig = Rig::new("t19", 1)?;
    rig.kafka.delete_topic("t19")?;
    rig.topic = "t19-large".into();
    rig.kafka.create_topic("t19-large", 1, &[("max.message.bytes", "2097152")])?;
    rig.set("kafka.topic", "t19-large");
    rig.set("limits", json!({"max_record": "1MiB"}));
    rig.append("app.log", "A".repeat(10 << 20) + "\n")?;
    let mut shipper = rig.start()?;
    rig.wait_for_records(1)?;
    rig.append("app.log", rig.lines("app.log", 0..5))?;
    rig.wait_for_records(6)?;
    assert_eq!(shipper.metric("shipper_truncated_events_total", &[])?, 1.0);
    shipper.stop()?;
    let records = rig.records()?;
    assert_eq!(records.len(), 6);
    let long: Value = serde_json::from_slice(&records[0].value)?;
    assert_eq!(flags(&long), ["truncated"]);
    let kept = long["message"].as_str().context("a message")?;
    assert!(kept.bytes().all(|byte| byte == b'A') && kept.len() > 1_000_000 && records[0].value.len() <= 1 << 20);
    let others = messages_by_path(&records[1..])?;
    let wanted: Vec<String> = rig.written.lines().values().cloned().collect();
    assert_eq!(others[&rig.path("app.log")], wanted);
    Ok(())
}

#[test]
fn t20_position_is_right_after_a_long_line() -> Result<()> {
    let mut rig = Rig::new("t20", 1)?;
    rig.set("limits", json!({"max_record": "256KiB"}));
    rig.append("app.log", rig.lines("app.log", 0..50))?;
    rig.append("app.log", "B".repeat(640_000) + "\n")?;
    rig.append("app.log", rig.lines("app.log", 50..75))?;
    let mut shipper = rig.start()?;
    rig.wait_for_records(76)?;
    shipper.stop()?;
    let mut shipper = rig.start()?;
    shipper.wait_metric("shipper_sources", &[], LIMIT, |num| num == 1.0)?;
    shipper.stop()?;
    let records = rig.records()?;
    assert_eq!(records.len(), 76, "the second run sends nothing");
    let messages = &messages_by_path(&records)?[&rig.path("app.log")];
    let wanted: Vec<String> = rig.written.lines().values().cloned().collect();
    assert_eq!((&messages[..50], &messages[51..]), (&wanted[..50], &wanted[50..]));
    let long: Value = serde_json::from_slice(&records[50].value)?;
    assert_eq!(flags(&long), ["truncated"]);
    assert!(messages[50].bytes().all(|byte| byte == b'B') && messages[50].len() > 250_000);
    Ok(())
}

#[test]
fn t31_invalid_utf8_is_replaced_and_the_rest_kept() -> Result<()> {
    let rig = Rig::new("t31", 1)?;
    let mut bytes = rig.lines("app.log", 0..50).into_bytes();
    bytes.extend_from_slice(b"Estagi\xe1rio visualizou\nlone \xff byte\n");
    // A good character of four bytes, and then a cut one, where a read of 64, 128 or 256 KiB ends.
    let good = rig.lines_of("app.log", 50..52, |id| {
        let filler = (256 << 10) - bytes.len() - 2 - if id.n == 50 { 0 } else { id.to_string().len() };
        if id.n == 50 { format!("{}😀 {id}", "x".repeat(filler)) } else { format!("{id} {}", "y".repeat(1000)) }
    });
    bytes.extend_from_slice(good.as_bytes());
    let filler = (512 << 10) - bytes.len() - 3;
    bytes.extend_from_slice("z".repeat(filler).as_bytes());
    bytes.extend_from_slice(b"\xf0\x9f\x98\n");
    bytes.extend_from_slice(rig.lines("app.log", 52..100).as_bytes());
    rig.append("app.log", &bytes)?;
    let mut shipper = rig.start()?;
    rig.wait_for_records(103)?;
    shipper.wait_metric("shipper_invalid_utf8_events_total", &[], LIMIT, |num| num == 3.0)?;
    shipper.stop()?;
    let records = rig.records()?;
    assert_eq!(records.len(), 103);
    let found = &messages_by_path(&records)?[&rig.path("app.log")];
    let wanted: Vec<String> = String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect();
    ensure!(*found == wanted, "the messages are not the lines with U+FFFD for each bad byte");
    assert_eq!(found[50], "Estagi\u{fffd}rio visualizou");
    let num_flagged = records.iter().filter(|record| record.text().contains("\"invalid_utf8\"")).count();
    assert_eq!(num_flagged, 3);
    Ok(())
}

#[test]
fn t32_file_that_starts_with_an_empty_line_is_read_once() -> Result<()> {
    let mut rig = Rig::new("t32", 1)?;
    rig.set("files.rescan", "200ms");
    rig.append("app.log", "\none\ntwo\nthree\n")?;
    let mut shipper = rig.start()?;
    rig.wait_for_records(3)?;
    std::thread::sleep(Duration::from_secs(2));
    shipper.stop()?;
    let records = rig.records()?;
    assert_eq!(records.len(), 3);
    assert_eq!(messages_by_path(&records)?[&rig.path("app.log")], ["one", "two", "three"]);
    Ok(())
}

#[test]
fn t34_deleted_file_is_delivered_and_let_go() -> Result<()> {
    let mut rig = Rig::new("t34", 1)?;
    rig.set("files.rotate_wait", "1s");
    let mut shipper = rig.start()?;
    shipper.wait_logged("topic found")?;
    rig.append("app.log", rig.lines("app.log", 0..1000))?;
    std::thread::sleep(Duration::from_millis(100));
    fs::remove_file(rig.path("app.log"))?;
    rig.wait_until_whole(Duration::from_secs(5))?;
    let path = rig.path("app.log").to_string_lossy().into_owned();
    wait::until_true("the end of its descriptor", LIMIT, || {
        Ok(!shipper.open_files()?.iter().any(|file| file.starts_with(&path)))
    })?;
    shipper.wait_metric("shipper_open_files", &[], LIMIT, |num| num == 0.0)?;
    shipper.stop()?;
    rig.check_sent_once()
}

#[test]
fn t37_unreadable_file_is_taken_up_once_it_can_be_read() -> Result<()> {
    const NOBODY: u32 = 65534;
    let mut rig = Rig::new("t37", 1)?;
    let is_root = rustix::process::geteuid().is_root();
    ensure!(is_root, "this test gives files to another user, which only root can");
    fs::create_dir(rig.dir.join("state"))?;
    std::os::unix::fs::chown(rig.dir.join("state"), Some(NOBODY), Some(NOBODY))?;
    rig.set("files.rescan", "500ms");
    let mut shipper = rig.start_as(&rig.launch()?.user(Some(NOBODY)))?;
    for rotation in 0..9 {
        let label = format!("rotation-{rotation}");
        let file = File::create(rig.path("new"))?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        if rotation > 0 {
            rig.rename("app.log", &format!("app.log.{rotation}"))?;
        }
        rig.rename("new", "app.log")?;
        rig.append("app.log", rig.lines(&label, 0..100))?;
        shipper.wait_metric("shipper_unreadable_files", &[], LIMIT, |num| num == 1.0)?;
        fs::set_permissions(rig.path("app.log"), fs::Permissions::from_mode(0o644))?;
        rig.append("app.log", rig.lines(&label, 100..200))?;
        shipper.wait_metric("shipper_unreadable_files", &[], LIMIT, |num| num == 0.0)?;
    }
    rig.wait_until_whole(LIMIT)?;
    shipper.stop()?;
    rig.check_sent_once()?;
    let num_complaints = shipper.num_logged("cannot open the file") + shipper.num_logged("no longer unreadable");
    assert_eq!(num_complaints, 2 * 9, "two lines for each file:\n{}", shipper.log_tail());
    Ok(())
}

#[test]
fn t38_without_watches_left_it_polls() -> Result<()> {
    let mut rig = Rig::new("t38", 2)?;
    rig.set_patterns(&["*/app.log"]);
    let write = |range: std::ops::Range<u64>| {
        (0..50).try_for_each(|n| rig.append(&format!("{n}/app.log"), rig.lines(&format!("{n}"), range.clone())))
    };
    for n in 0..50 {
        fs::create_dir(rig.path(&n.to_string()))?;
    }
    write(0..10)?;
    let plain = rig.launch()?;
    let script = r#"echo 5 > /proc/sys/user/max_inotify_watches && exec "$0" run --config "$1""#;
    let limited = Launch::program("shipper", "unshare", &rig.dir.join("shipper.log"))
        .args(["-Ur", "sh", "-c", script])
        .arg(millrace_tests::process::built("shipper")?)
        .arg(rig.dir.join("shipper.yaml"));
    drop(plain);
    let mut shipper = rig.start_as(&limited)?;
    rig.wait_for_records(500)?;
    write(10..20)?;
    rig.wait_until_whole(Duration::from_secs(15))?;
    fs::create_dir(rig.path("50"))?;
    rig.append("50/app.log", rig.lines("50", 0..10))?;
    rig.wait_until_whole(Duration::from_secs(15))?;
    assert_eq!(shipper.num_logged("cannot watch a folder"), 1, "{}", shipper.log_tail());
    assert!(shipper.metric("shipper_unwatched_folders", &[])? > 40.0);
    shipper.stop()?;
    rig.check_sent_once()
}

#[test]
fn t49_file_with_many_names_is_read_once() -> Result<()> {
    let mut rig = Rig::new("t49", 2)?;
    rig.set_patterns(&["*.log", "a*", "a.log"]);
    rig.append("a.log", rig.lines("a.log", 0..200))?;
    symlink("a.log", rig.path("b.log"))?;
    fs::hard_link(rig.path("a.log"), rig.path("c.log"))?;
    let mut shipper = rig.start()?;
    rig.wait_for_records(200)?;
    rig.append("a.log", rig.lines("a.log", 200..300))?;
    append(&rig.path("c.log"), rig.lines("a.log", 300..400))?;
    rig.wait_for_records(400)?;
    shipper.stop()?;
    let mut shipper = rig.start()?;
    append(&rig.path("b.log"), rig.lines("a.log", 400..500))?;
    rig.wait_until_whole(LIMIT)?;
    shipper.stop()?;
    rig.check_sent_once()
}

/// A writer without O_APPEND goes on at its old place after a truncation: everything before is a hole.
#[test]
fn t28_hole_left_by_a_writer_without_append() -> Result<()> {
    const HOLE_BYTES: u64 = 2 << 30;
    let rig = Rig::new("t28", 1)?;
    let mut file = File::create(rig.path("app.log"))?;
    file.seek(SeekFrom::Start(HOLE_BYTES))?;
    let mut shipper = rig.start()?;
    shipper.wait_metric("shipper_sources", &[], LIMIT, |num| num == 1.0)?;
    let before = shipper.rss_bytes().context("it runs")?;
    fs::File::options().write(true).open(rig.path("app.log"))?.set_len(0)?;
    let started = Instant::now();
    file.write_all(rig.lines("app.log", 0..10).as_bytes())?;
    rig.wait_until_whole(Duration::from_secs(30))?;
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    let grown = shipper.peak_rss_bytes().context("it runs")?.saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more");
    assert_eq!(shipper.metric("shipper_nul_bytes_skipped_total", &[])?, HOLE_BYTES as f64);
    shipper.stop()?;
    rig.check_sent_once()?;
    for record in rig.records()? {
        let value: Value = serde_json::from_slice(&record.value)?;
        assert!(value["log"]["offset"].as_u64().is_some_and(|offset| offset >= HOLE_BYTES) && flags(&value).is_empty());
    }
    // The hole is not read again.
    let mut shipper = rig.start()?;
    rig.append("app.log", rig.lines("app.log", 10..20))?;
    rig.wait_until_whole(LIMIT)?;
    assert_eq!(shipper.metric("shipper_nul_bytes_skipped_total", &[])?, 0.0);
    shipper.stop()?;
    rig.check_sent_once()
}

/// A file with room set aside, whose lines are written over its NULs, is no file with holes.
#[test]
fn t28_preallocated_file_is_read_as_it_fills() -> Result<()> {
    let rig = Rig::new("t28-room", 1)?;
    let mut file = File::create(rig.path("app.log"))?;
    file.set_len(1 << 20)?;
    let mut shipper = rig.start()?;
    shipper.wait_metric("shipper_sources", &[], LIMIT, |num| num == 1.0)?;
    for round in 0..20 {
        file.write_all(rig.lines("app.log", round * 10..(round + 1) * 10).as_bytes())?;
        rig.wait_for_records((round + 1) * 10)?;
    }
    assert_eq!(shipper.metric("shipper_nul_bytes_skipped_total", &[])?, 0.0);
    assert_eq!(shipper.metric("shipper_lost_bytes_total", &[])?, 0.0);
    shipper.stop()?;
    // Nor is it another one at the next start.
    let mut shipper = rig.start()?;
    file.write_all(rig.lines("app.log", 200..210).as_bytes())?;
    rig.wait_for_records(210)?;
    assert_eq!(shipper.metric("shipper_lost_bytes_total", &[])?, 0.0);
    shipper.stop()?;
    rig.check_sent_once()
}

#[test]
fn lines_of_another_encoding_arrive_as_utf_8() -> Result<()> {
    let mut rig = Rig::new("euc-kr", 1)?;
    rig.set("inputs.0.encoding", "euc-kr");
    // KS X 1001 row 16, cells 1 to 3.
    rig.append("app.log", b"\xb0\xa1 \xb0\xa2 \xb0\xa3\r\n\xb0\xa1")?;
    let mut shipper = rig.start()?;
    rig.wait_for_records(1)?;
    rig.append("app.log", b"\xb0\xa2\n")?;
    rig.wait_for_records(2)?;
    shipper.stop()?;
    let messages = messages_by_path(&rig.records()?)?;
    assert_eq!(messages[&rig.path("app.log")], ["가 각 간", "가각"]);
    Ok(())
}
