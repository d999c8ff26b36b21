//! What the shipper says of its files and of itself in `millrace.sources`. Heartbeats are 1 s instead of 10 s apart, so that a
//! file counts as stalled after 3 s instead of 30 s.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use millrace_tests::hanging_files::{HangingFiles, Reads};
use millrace_tests::kafka::{self, Kafka, PASSWORD, USER};
use millrace_tests::ledger::{Host, SOURCES};
use millrace_tests::rig::{LIMIT, Rig, Shipper};
use millrace_tests::{servers, wait};
use serde_json::{Value, json};

fn rig(name: &str) -> Result<Rig> {
    let mut rig = Rig::new(name, 1)?;
    rig.set("heartbeat", "1s");
    Ok(rig)
}

fn host(rig: &Rig) -> Result<Host> {
    Host::read(&rig.kafka, &rig.topic)
}

/// Waits until the ledger says of the host what `is_wanted`.
fn wait_host(rig: &Rig, what: &str, is_wanted: impl Fn(&Host) -> bool) -> Result<Host> {
    wait::until(what, LIMIT, || Ok(Some(host(rig)?).filter(&is_wanted)))
}

#[test]
fn each_source_is_announced_and_told_to_its_end() -> Result<()> {
    let mut rig = rig("ledger-rows")?;
    rig.set("inputs.0.exclude_lines", json!(["^noise"]));
    rig.set("limits", json!({"max_record": "4KiB", "on_oversize": "drop"}));
    let head = rig.lines("a.log", 0..10);
    let long = format!("{}\n", "x".repeat(10_000));
    let tail = rig.lines("a.log", 10..20);
    rig.append("a.log", format!("{head}{long}{tail}noise 1\nnoise 2\n"))?;
    for n in 0..100 {
        let name = format!("b-{n}.log");
        rig.append(&name, rig.lines(&name, 0..3))?;
    }
    let started = Instant::now();
    let mut shipper = rig.start()?;
    rig.wait_for_records(320)?;
    println!("320 records of 101 sources after {:?}", started.elapsed());
    let size = fs::metadata(rig.path("a.log"))?.len();
    let is_told = |host: &Host| host.row_of("/a.log").is_ok_and(|row| row["acknowledged"] == size);
    let told = wait_host(&rig, "a.log acknowledged", is_told)?;
    let row = told.row_of("/a.log")?;
    let (head, long) = (head.len(), head.len() + long.len());
    let gaps = json!([
        {"start": head, "end": long, "reason": "too_large"},
        {"start": long + tail.len(), "end": size, "reason": "excluded"},
    ]);
    assert_eq!((&row["gaps"], &row["state"]), (&gaps, &json!("active")), "{row}");
    assert_eq!((&row["input"], &row["topic"], &row["read"]), (&json!("app"), &json!("ledger-rows"), &json!(size)));
    fs::remove_file(rig.path("b-7.log"))?;
    wait_host(&rig, "b-7.log finished", |host| host.row_of("/b-7.log").is_ok_and(|row| row["state"] == "finished"))?;
    shipper.stop()?;
    // The last words of all, and after them the goodbye.
    let host = host(&rig)?;
    assert_eq!(host.rows.len(), 101);
    assert!(host.rows.values().all(|row| row["acknowledged"] == row["size"]), "{host:?}");
    assert_eq!(host.last_heartbeat()?["state"], "stopped");
    let last = rig.kafka.read_topic(SOURCES)?.into_iter().rfind(|record| record.key_text().contains("ledger-rows"));
    assert_eq!(last.context("a message")?.key_text(), "[\"ledger-rows\"]");
    Ok(())
}

#[test]
fn no_record_comes_before_the_row_of_its_source() -> Result<()> {
    let (kafka, proxy) = Kafka::start_behind_proxy(&kafka::Options::default())?;
    kafka.create_topic("ledger-first", 1, &[("message.timestamp.type", "LogAppendTime")])?;
    let mut rig = Rig::without_topic(&kafka, &proxy.addr().to_string(), "ledger-first")?;
    rig.set("heartbeat", "1s");
    let mut shipper = rig.start()?;
    for n in 0..50 {
        let name = format!("{n}.log");
        rig.append(&name, rig.lines(&name, 0..20))?;
        rig.wait_for_records((n + 1) * 20)?;
        if n % 5 == 0 {
            // A generation of its own.
            rig.rewrite(&name, rig.lines(&format!("{name} again"), 0..1))?;
        }
    }
    rig.wait_until_whole(LIMIT)?;
    shipper.stop()?;
    let mut announced = std::collections::BTreeMap::new();
    for record in kafka.read_topic(SOURCES)? {
        let key: Vec<String> = serde_json::from_slice(record.key.as_deref().context("a key")?)?;
        if let Some(source) = key.get(1) {
            announced.entry(source.clone()).or_insert(record.timestamp.context("a time")?);
        }
    }
    assert_eq!(announced.len(), 60);
    for record in rig.records()? {
        let value: Value = serde_json::from_slice(&record.value)?;
        let source = value["log"]["source"].as_str().context("a source")?;
        assert!(announced[source] <= record.timestamp.context("a time")?, "{source}");
    }
    Ok(())
}

#[test]
fn a_kill_is_no_goodbye_and_two_hosts_do_not_mix() -> Result<()> {
    let (one, two) = (rig("ledger-one")?, rig("ledger-two")?);
    for rig in [&one, &two] {
        rig.append("app.log", rig.lines("app.log", 0..10))?;
    }
    let (mut killed, mut stopped) = (one.start()?, two.start()?);
    for rig in [&one, &two] {
        wait_host(rig, "a row and a heartbeat", |host| !host.rows.is_empty() && !host.heartbeats.is_empty())?;
    }
    killed.kill9()?;
    stopped.stop()?;
    let (killed, stopped) = (host(&one)?, host(&two)?);
    assert_eq!(
        (&killed.last_heartbeat()?["state"], &stopped.last_heartbeat()?["state"]),
        (&json!("running"), &json!("stopped"))
    );
    for (rig, host) in [(&one, &killed), (&two, &stopped)] {
        assert_eq!(host.rows.len(), 1);
        assert_eq!(host.row_of("app.log")?["path"], json!(rig.path("app.log")));
    }
    Ok(())
}

#[test]
fn without_the_ledger_nothing_is_said() -> Result<()> {
    let mut rig = rig("ledger-off")?;
    rig.set("ledger", "off");
    rig.append("app.log", rig.lines("app.log", 0..10))?;
    let mut shipper = rig.start()?;
    rig.wait_until_whole(LIMIT)?;
    assert_eq!(shipper.status()?["ledger"]["state"], "off");
    shipper.stop()?;
    let topics = rig.kafka.partitions(SOURCES).unwrap_or_default();
    ensure!(topics.is_empty() || host(&rig)?.num_messages == 0, "the ledger has heard of it");
    Ok(())
}

#[test]
fn without_the_right_to_create_its_topic_it_says_so_and_holds() -> Result<()> {
    let (kafka, addr) = Kafka::start_guarded(&kafka::Options::default())?;
    let mut rig = Rig::on(&kafka, &addr.to_string(), "ledger-rights", 1)?;
    rig.set("heartbeat", "1s");
    for (name, value) in [
        ("security.protocol", "sasl_plaintext"),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", USER),
        ("sasl.password", PASSWORD),
    ] {
        rig.set_option(name, value);
    }
    kafka.allow("Write", "ledger-rights")?;
    rig.append("app.log", rig.lines("app.log", 0..10))?;
    let mut shipper = rig.start()?;
    shipper.wait_blocked("ledger")?;
    let ledger = &shipper.status()?["ledger"];
    let fault = ledger["fault"].as_str().context("a fault")?;
    ensure!(ledger["state"] == "held" && fault.contains("cannot create topic `millrace.sources`"), "{ledger}");
    assert_eq!(shipper.num_logged("the ledger cannot be written"), 1, "{}", shipper.log_tail());
    assert_eq!(rig.num_records()?, 0, "no record before the row of its source");
    kafka.allow("Create", SOURCES)?;
    kafka.allow("Write", SOURCES)?;
    rig.wait_until_whole(LIMIT)?;
    shipper.wait_metric("shipper_blocked", &[], LIMIT, |num| num == 0.0)?;
    shipper.stop()
}

#[test]
fn a_lost_state_directory_is_recovered_from_the_ledger() -> Result<()> {
    let mut rig = rig("ledger-lost")?;
    rig.set("files.partial_after", "1s");
    let mut shipper = rig.start()?;
    for name in ["a.log", "b.log"] {
        rig.append(name, rig.lines(name, 0..500))?;
    }
    rig.wait_for_records(1000)?;
    // Without the ledger, what follows would be read as generation 0, with other ids.
    rig.rewrite("a.log", rig.lines("a.log again", 0..400))?;
    rig.wait_for_records(1400)?;
    // A boundary that the bytes alone do not tell.
    rig.append("b.log", rig.lines("b.log", 500..501).trim_end())?;
    rig.wait_for_records(1401)?;
    shipper.stop()?;
    fs::remove_dir_all(rig.dir.join("state"))?;
    let mut shipper = rig.start()?;
    shipper.wait_metric("shipper_sources", &[], LIMIT, |num| num == 2.0)?;
    wait::until_true("all read", LIMIT, || Ok(shipper.status()?["unread_bytes"] == 0))?;
    assert_eq!(rig.num_records()?, 1401, "nothing is sent again\n{}", shipper.log_tail());
    let rows = wait::until("a checkpoint", LIMIT, || Ok(rig.checkpoint().ok()))?;
    let generations: Vec<_> = rows.iter().map(|row| row["generation"].clone()).collect();
    ensure!(generations.contains(&json!(1)), "{generations:?}");
    rig.append("a.log", rig.lines("a.log again", 400..500))?;
    rig.wait_for_records(1501)?;
    shipper.stop()?;
    rig.check_sent_once()
}

#[test]
fn a_finished_source_is_forgotten_in_time() -> Result<()> {
    let mut rig = rig("ledger-forget")?;
    rig.set("forget_after", "3s");
    rig.set("files.rotate_wait", "500ms");
    rig.append("gone.log", rig.lines("gone.log", 0..10))?;
    rig.append("kept.log", rig.lines("kept.log", 0..10))?;
    let mut shipper = rig.start()?;
    rig.wait_for_records(20)?;
    fs::remove_file(rig.path("gone.log"))?;
    wait_host(&rig, "gone.log finished", |host| host.row_of("gone.log").is_ok_and(|row| row["state"] == "finished"))?;
    // The next process knows what the one before was to forget.
    shipper.kill9()?;
    let mut shipper = rig.start()?;
    wait_host(&rig, "gone.log forgotten", |host| host.row_of("gone.log").is_err())?;
    assert_eq!(host(&rig)?.row_of("kept.log")?["state"], "active");
    shipper.stop()
}

#[test]
fn after_compaction_the_topic_still_tells_everything() -> Result<()> {
    let options = kafka::Options {
        settings: [
            ("log.cleaner.backoff.ms", "200"),
            ("log.cleaner.min.compaction.lag.ms", "0"),
            ("log.roll.ms", "1000"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec(),
        ..kafka::Options::default()
    };
    let kafka = Kafka::start(&options)?;
    let settings = [
        ("cleanup.policy", "compact"),
        ("message.timestamp.type", "LogAppendTime"),
        ("segment.ms", "500"),
        ("min.cleanable.dirty.ratio", "0.01"),
    ];
    kafka.create_topic(SOURCES, 1, &settings)?;
    let mut rig = Rig::on(&kafka, kafka.bootstrap(), "ledger-compact", 1)?;
    rig.set("heartbeat", "1s");
    let mut shipper = rig.start()?;
    let mut round = 0;
    let compacted = wait::until("a compacted topic", LIMIT, || {
        for n in 0..5 {
            let name = format!("{n}.log");
            rig.append(&name, rig.lines(&name, round * 10..round * 10 + 10))?;
        }
        round += 1;
        std::thread::sleep(Duration::from_millis(300));
        let num_sent: i64 = kafka.end_offsets(SOURCES)?.values().sum();
        let num_left = kafka.read_topic(SOURCES)?.len() as i64;
        Ok((num_sent > 30 && num_left * 2 < num_sent).then_some((num_sent, num_left)))
    })?;
    println!("of {} messages, {} are left", compacted.0, compacted.1);
    rig.wait_until_whole(LIMIT)?;
    shipper.stop()?;
    let host = host(&rig)?;
    assert_eq!(host.rows.len(), 5);
    for n in 0..5 {
        let size = fs::metadata(rig.path(&format!("{n}.log")))?.len();
        let row = host.row_of(&format!("/{n}.log"))?;
        assert_eq!((&row["size"], &row["acknowledged"]), (&json!(size), &json!(size)), "{row}");
    }
    assert_eq!(host.last_heartbeat()?["state"], "stopped");
    Ok(())
}

/// 49 files on the disk, as one input, and one on a file system that can be told to fail, as another.
fn wedged(name: &str) -> Result<Option<(Rig, HangingFiles)>> {
    if !servers::are_root() {
        println!("only root can mount the file system of this test");
        return Ok(None);
    }
    let mut rig = rig(name)?;
    let dir = rig.dir.join("wedged");
    fs::create_dir(&dir)?;
    let input = |id: &str, paths| json!({"id": id, "paths": [paths], "format": "text"});
    rig.set("inputs", json!([input("sound", rig.path("*.log")), input("wedged", dir.join("*.log"))]));
    let files = HangingFiles::mount(&dir)?;
    files.append("wedged.log", &rig.lines("wedged.log", 0..10));
    for n in 0..49 {
        let name = format!("{n}.log");
        rig.append(&name, rig.lines(&name, 0..10))?;
    }
    Ok(Some((rig, files)))
}

fn unread(shipper: &mut Shipper, input: &str, is_wanted: impl Fn(f64) -> bool) -> Result<f64> {
    shipper.wait_metric("shipper_unread_bytes", &[&format!("input=\"{input}\"")], LIMIT, is_wanted)
}

#[test]
fn o08_a_file_that_cannot_be_read_is_named_and_the_others_are_not_delayed() -> Result<()> {
    let Some((rig, files)) = wedged("o08")? else { return Ok(()) };
    let mut shipper = rig.start()?;
    rig.wait_for_records(500)?;
    files.set(Reads::Fail)?;
    let (text, started) = (rig.lines("wedged.log", 10..20), Instant::now());
    files.append("wedged.log", &text);
    let mut slowest = Duration::ZERO;
    let mut num_records = 500;
    for round in 1..=10 {
        let written = Instant::now();
        for n in 0..49 {
            let name = format!("{n}.log");
            rig.append(&name, rig.lines(&name, round * 10..round * 10 + 10))?;
        }
        num_records += 490;
        rig.wait_for_records(num_records)?;
        slowest = slowest.max(written.elapsed());
    }
    println!("490 lines of 49 files after {slowest:?} at most");
    assert!(slowest < Duration::from_secs(3), "{slowest:?}");
    shipper.wait_logged("file stands still")?;
    println!("told after {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(60));
    let line = shipper.log().lines().find(|line| line.contains("file stands still")).map(str::to_owned);
    ensure!(line.as_ref().is_some_and(|line| line.contains("WARN") && line.contains("wedged.log")), "{line:?}");
    assert_eq!(unread(&mut shipper, "wedged", |bytes| bytes > 0.0)?, text.len() as f64);
    let waited = ["shipper_oldest_unread_seconds", "input=\"wedged\""];
    shipper.wait_metric(waited[0], &[waited[1]], LIMIT, |seconds| seconds >= 3.0)?;
    assert_eq!(unread(&mut shipper, "sound", |bytes| bytes == 0.0)?, 0.0);
    let stalled = wait_host(&rig, "the stall in a heartbeat", |host| {
        host.last_heartbeat().is_ok_and(|beat| beat["stalled"].as_array().is_some_and(|stalled| stalled.len() == 1))
    })?;
    let stalled = &stalled.last_heartbeat()?["stalled"][0];
    ensure!(stalled["unread_bytes"] == text.len() && stalled["path"].to_string().contains("wedged.log"), "{stalled}");
    assert_eq!(shipper.num_logged("file stands still"), 1);
    files.set(Reads::Answered)?;
    rig.wait_until_whole(LIMIT)?;
    shipper.wait_metric("shipper_stalled_files", &[], LIMIT, |num| num == 0.0)?;
    shipper.wait_metric(waited[0], &[waited[1]], LIMIT, |seconds| seconds == 0.0)?;
    assert_eq!(shipper.num_logged("no longer stands still"), 1);
    shipper.stop()?;
    rig.check_sent_once()
}

#[test]
fn o08_a_reader_that_hangs_in_the_kernel_is_told_of_by_others() -> Result<()> {
    let Some((rig, files)) = wedged("o08-hang")? else { return Ok(()) };
    let mut shipper = rig.start()?;
    rig.wait_for_records(500)?;
    files.set(Reads::Hang)?;
    let text = rig.lines("wedged.log", 10..20);
    files.append("wedged.log", &text);
    wait::until_true("a read that hangs", LIMIT, || Ok(files.num_hung() > 0))?;
    let (started, num_before) = (Instant::now(), host(&rig)?.heartbeats.len());
    shipper.wait_logged("file stands still")?;
    println!("told after {:?}", started.elapsed());
    assert!(shipper.log().lines().any(|line| line.contains("stands still") && line.contains("wedged.log")));
    let told = wait_host(&rig, "heartbeats that tell it", |host| {
        let is_told =
            |beat: &Value| beat["blocked"].to_string().contains("reading_thread") && beat["stalled"] != json!([]);
        host.heartbeats.len() >= num_before + 5 && host.last_heartbeat().is_ok_and(is_told)
    })?;
    let times: Vec<i64> = told.heartbeats[num_before..].iter().map(|(at, _)| *at).collect();
    let pause = times.windows(2).map(|pair| pair[1] - pair[0]).max();
    println!("heartbeats at most {pause:?} ms apart");
    ensure!(pause.is_some_and(|pause| pause < 5000), "{times:?}");
    assert_eq!(unread(&mut shipper, "wedged", |bytes| bytes > 0.0)?, text.len() as f64);
    files.set(Reads::Answered)?;
    rig.wait_until_whole(LIMIT)?;
    wait_host(&rig, "no stall", |host| {
        host.last_heartbeat().is_ok_and(|beat| beat["stalled"].is_null() || beat["stalled"] == json!([]))
    })?;
    shipper.stop()?;
    rig.check_sent_once()
}
