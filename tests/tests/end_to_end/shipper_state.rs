//! What the shipper remembers: checkpoints that are damaged, replaced in mid-kill, shared, and bounded. Each test is named
//! after its row of the failure catalogue.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use millrace_tests::process::{Launch, built};
use millrace_tests::rig::{LIMIT, Rig, checkpoint_rows};
use millrace_tests::wait;
use millrace_tests::writer::Format;
use serde_json::json;

/// Delivers 1,000 lines, damages the newest checkpoint, and delivers 100 more.
fn survives_a_damaged_checkpoint(name: &str, damage: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let rig = Rig::new(name, 1)?;
    rig.append("app.log", rig.lines("app.log", 0..500))?;
    let mut shipper = rig.start()?;
    rig.wait_for_records(500)?;
    shipper.stop()?;
    let mut shipper = rig.start()?;
    rig.append("app.log", rig.lines("app.log", 500..1000))?;
    rig.wait_for_records(1000)?;
    shipper.stop()?;
    let checkpoint = rig.dir.join("state/checkpoint");
    let older = checkpoint_rows(&rig.dir.join("state/checkpoint.old"))?;
    let older = older[0]["acknowledged"].as_u64().unwrap_or_default();
    damage(&checkpoint)?;
    let mut shipper = rig.start()?;
    rig.append("app.log", rig.lines("app.log", 1000..1100))?;
    rig.wait_until_whole(LIMIT)?;
    assert_eq!(shipper.metric("shipper_checkpoint_corrupt_total", &[])?, 1.0);
    shipper.stop()?;
    let complaints: Vec<String> =
        shipper.log().lines().filter(|line| line.contains("ERROR")).map(str::to_owned).collect();
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    assert!(complaints[0].contains(&checkpoint.display().to_string()), "the fault names the file: {complaints:?}");
    assert!(rig.dir.join("state/checkpoint.corrupt-1").exists(), "it is kept for a person to look at");
    rig.verdict()?.check()?;
    let text = fs::read_to_string(rig.path("app.log"))?;
    let since_older = text[older as usize..].lines().count() - 100;
    let num_repeated = rig.records()?.len() - 1100;
    assert!(num_repeated <= since_older, "{num_repeated} repeated, {since_older} since the older checkpoint");
    rig.checkpoint()?;
    Ok(())
}

#[test]
fn t40_checkpoint_empty() -> Result<()> {
    survives_a_damaged_checkpoint("t40-empty", |path| Ok(fs::write(path, b"")?))
}

#[test]
fn t40_checkpoint_all_nul() -> Result<()> {
    survives_a_damaged_checkpoint("t40-nul", |path| Ok(fs::write(path, [0; 4096])?))
}

#[test]
fn t40_checkpoint_cut_in_half() -> Result<()> {
    survives_a_damaged_checkpoint("t40-half", |path| {
        let text = fs::read(path)?;
        Ok(fs::write(path, &text[..text.len() / 2])?)
    })
}

#[test]
fn t40_checkpoint_random_bytes() -> Result<()> {
    survives_a_damaged_checkpoint("t40-random", |path| {
        let mut word = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            word as u8
        };
        Ok(fs::write(path, (0..2000).map(|_| next()).collect::<Vec<u8>>())?)
    })
}

#[test]
fn t41_killed_a_hundred_times_while_saving() -> Result<()> {
    let mut rig = Rig::new("t41", 2)?;
    // As many saves as the disk allows, so that kills hit them.
    rig.set("files.checkpoint", "5ms");
    let launch = rig.launch()?;
    let mut log = rig.writer("app.log", Format::Text)?;
    let mut num_unacknowledged = 0;
    for cycle in 0..100_u64 {
        let mut shipper = rig.start_as(&launch)?;
        log.write(250)?;
        std::thread::sleep(Duration::from_millis(30 + (cycle * 7919) % 170));
        log.write(250)?;
        shipper.kill9()?;
        let checkpoint = rig.dir.join("state/checkpoint");
        if checkpoint.exists() {
            let rows = checkpoint_rows(&checkpoint)?;
            let acknowledged = rows.first().and_then(|row| row["acknowledged"].as_u64()).unwrap_or_default();
            let text = fs::read(rig.path("app.log"))?;
            num_unacknowledged += text[acknowledged as usize..].iter().filter(|byte| **byte == b'\n').count();
        }
        assert!(!shipper.log().contains("cannot be read"), "{}", shipper.log_tail());
    }
    let mut shipper = rig.start()?;
    rig.wait_until_whole(LIMIT)?;
    shipper.stop()?;
    let num_repeated = rig.records()?.len() - 50_000;
    assert!(
        num_repeated <= num_unacknowledged,
        "{num_repeated} repeated, {num_unacknowledged} unacknowledged at kills"
    );
    Ok(())
}

#[test]
fn t42_full_disk_of_the_state_is_told_and_skips_nothing() -> Result<()> {
    let mut rig = Rig::new("t42", 1)?;
    rig.set("files.checkpoint", "200ms");
    fs::create_dir(rig.dir.join("state"))?;
    rig.launch()?;
    // A small disk of its own, which is filled when the file `full` is there, until `room` is there.
    let script = r#"mount -t tmpfs -o size=512k none "$2" && {
        while [ ! -e "$3/full" ]; do sleep 0.05; done; cat /dev/zero > "$2/fill" 2> "$3/filled"
        while [ ! -e "$3/room" ]; do sleep 0.05; done; rm "$2/fill"
    } & sleep 0.5; exec "$0" run --config "$1""#;
    let launch = Launch::program("shipper", "unshare", &rig.dir.join("shipper.log"))
        .args(["-m", "sh", "-c", script])
        .arg(built("shipper")?)
        .arg(rig.dir.join("shipper.yaml"))
        .arg(rig.dir.join("state"))
        .arg(&rig.dir);
    rig.append("app.log", rig.lines("app.log", 0..1000))?;
    let mut shipper = rig.start_as(&launch)?;
    rig.wait_for_records(1000)?;
    fs::write(rig.dir.join("full"), "")?;
    wait::until_true("the full disk", LIMIT, || {
        Ok(fs::read_to_string(rig.dir.join("filled")).unwrap_or_default().contains("No space left"))
    })?;
    // Rows of so many new files find no room.
    for n in 0..60 {
        let name = format!("new-{n}.log");
        rig.append(&name, rig.lines(&name, 0..10))?;
    }
    shipper.wait_metric("shipper_checkpoint_errors_total", &[], LIMIT, |num| num >= 1.0)?;
    shipper.wait_blocked("checkpoint")?;
    assert_eq!(shipper.num_logged("cannot save the checkpoint"), 1, "{}", shipper.log_tail());
    assert!(rig.num_records()? < 1600, "a new file waits for its note in the state");
    fs::write(rig.dir.join("room"), "")?;
    rig.wait_until_whole(LIMIT)?;
    shipper.stop()?;
    rig.check_sent_once()
}

#[test]
fn t43_rotation_while_stopped() -> Result<()> {
    let rig = Rig::new("t43", 2)?;
    let mut shipper = rig.start()?;
    rig.append("app.log", rig.lines("before", 0..1000))?;
    rig.wait_for_records(1000)?;
    shipper.stop()?;
    rig.append("app.log", rig.lines("before", 1000..1200))?;
    rig.rename("app.log", "app.log.1")?;
    rig.append("app.log", rig.lines("after", 0..100))?;
    let mut shipper = rig.start()?;
    rig.wait_until_whole(LIMIT)?;
    shipper.stop()?;
    rig.check_sent_once()
}

#[test]
fn t44_two_inputs_share_one_state() -> Result<()> {
    let mut rig = Rig::new("t44", 2)?;
    rig.set(
        "inputs",
        json!([
            {"id": "foo", "paths": [rig.path("foo*")]},
            {"id": "bar", "paths": [rig.path("bar*")]},
        ]),
    );
    for name in ["foo.log", "bar.log"] {
        rig.append(name, rig.lines(name, 0..100))?;
    }
    let mut shipper = rig.start()?;
    rig.wait_until_whole(LIMIT)?;
    shipper.stop()?;
    for _ in 0..2 {
        let mut shipper = rig.start()?;
        shipper.wait_metric("shipper_sources", &[], LIMIT, |num| num == 2.0)?;
        shipper.stop()?;
    }
    let inputs: BTreeSet<String> = rig.checkpoint()?.iter().map(|row| row["input"].to_string()).collect();
    assert_eq!(inputs, BTreeSet::from(["\"bar\"".to_owned(), "\"foo\"".to_owned()]));
    rig.check_sent_once()
}

#[test]
fn t46_state_stays_small_over_many_rotations() -> Result<()> {
    const CYCLES: u64 = 5000;
    const KEPT: u64 = 200;
    let mut rig = Rig::new("t46", 4)?;
    rig.set("files.rotate_wait", "500ms");
    rig.set("files.close_unlisted", "1s");
    let mut shipper = rig.start()?;
    let mut oldest = 0;
    let remove = |oldest: &mut u64, end: u64| -> Result<()> {
        (*oldest..end).try_for_each(|cycle| fs::remove_file(rig.path(&format!("app.log.{cycle}"))))?;
        *oldest = end;
        Ok(())
    };
    for cycle in 0..CYCLES {
        if cycle == CYCLES / 2 {
            shipper.stop()?;
            // More files than rows of missing files may stay.
            remove(&mut oldest, cycle)?;
            shipper = rig.start()?;
        }
        rig.append("app.log", rig.lines("app.log", cycle..cycle + 1))?;
        rig.rename("app.log", &format!("app.log.{cycle}"))?;
        if cycle - oldest == KEPT {
            // What was delivered may go.
            rig.wait_for_records(oldest + KEPT / 4)?;
            let end = oldest + KEPT / 4;
            remove(&mut oldest, end)?;
        }
    }
    rig.wait_until_whole(LIMIT)?;
    remove(&mut oldest, CYCLES)?;
    wait::until_true("at most 100 rows and 100 KiB of state", LIMIT, || {
        let size = fs::metadata(rig.dir.join("state/checkpoint"))?.len();
        Ok(rig.checkpoint()?.len() <= 100 && size < 100 << 10)
    })?;
    shipper.stop()?;
    let sizes = fs::read_dir(rig.dir.join("state"))?.map(|entry| Ok(entry?.metadata()?.len()));
    let size: u64 = sizes.sum::<Result<u64>>()?;
    // What the ledger is to forget after a week: an id and a time for each file.
    let finished = fs::metadata(rig.dir.join("state/finished"))?.len();
    assert!(finished <= CYCLES * 32, "{finished} bytes of finished files");
    assert!(size - finished < 2 * (100 << 10), "{size} bytes of state, with the checkpoint before");
    rig.check_sent_once()
}

#[test]
fn o17_stop_at_full_speed_is_quick_and_sends_nothing_twice() -> Result<()> {
    let rig = Rig::new("o17", 4)?;
    for file in 0..4 {
        let name = format!("{file}.log");
        rig.append(&name, rig.lines(&name, 0..25_000))?;
    }
    let mut shipper = rig.start()?;
    rig.wait_for_records(1000)?;
    let asked = Instant::now();
    shipper.stop()?;
    ensure!(asked.elapsed() < Duration::from_secs(5), "the stop took {:?}", asked.elapsed());
    let mut shipper = rig.start()?;
    shipper.wait_metric("shipper_sources", &[], LIMIT, |num| num == 4.0)?;
    shipper.stop()?;
    rig.check_sent_once()
}

#[test]
fn o22_second_process_on_one_state_is_refused() -> Result<()> {
    let mut rig = Rig::new("o22", 1)?;
    rig.append("app.log", rig.lines("app.log", 0..100))?;
    let mut first = rig.start()?;
    rig.wait_for_records(100)?;
    let port = millrace_tests::ports::free()?;
    rig.set("admin.listen", format!("127.0.0.1:{port}"));
    let mut second = rig.start()?;
    assert_eq!(second.wait(LIMIT)?, 73);
    assert!(second.log().contains(&format!("used by process {}", first.pid())), "{}", second.log_tail());
    rig.append("app.log", rig.lines("app.log", 100..200))?;
    rig.wait_until_whole(LIMIT)?;
    first.stop()?;
    rig.check_sent_once()
}
