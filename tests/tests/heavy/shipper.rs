//! The shipper's rows of the failure catalogue that take minutes: `make test-heavy`.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use millrace_tests::kafka::{self, Kafka, KafkaClient};
use millrace_tests::process::{Launch, built};
use millrace_tests::proxy::{Mode, Proxy};
use millrace_tests::rig::{LIMIT, Rig, Shipper};
use millrace_tests::writer::{Format, Traffic};
use millrace_tests::{topic_rig, wait};
use rdkafka::Message as _;
use serde_json::json;

use crate::reload_rig::check_o14;

fn proxied(name: &str, num_partitions: i32) -> Result<(Rig, Kafka, Proxy)> {
    let (kafka, proxy) = Kafka::start_behind_proxy(&kafka::Options::default())?;
    let client: &KafkaClient = &kafka;
    let rig = Rig::on(client, &proxy.addr().to_string(), name, num_partitions)?;
    Ok((rig, kafka, proxy))
}

#[test]
fn killed_a_hundred_times_while_writing_and_rotating() -> Result<()> {
    let mut rig = Rig::new("killed-100", 4)?;
    rig.set("inputs.0.format", "json");
    rig.set("files.close_unlisted", "5s");
    let launch = rig.launch()?;
    let writers = vec![rig.writer("a.log", Format::Json)?, rig.writer("b.log", Format::Text)?];
    let traffic = Traffic::start(writers, 3000, 5000);
    for round in 0..100_u64 {
        let mut shipper = rig.start_as(&launch)?;
        std::thread::sleep(Duration::from_millis(100 + (round * 7919) % 900));
        shipper.kill9()?;
    }
    let mut shipper = rig.start_as(&launch)?;
    traffic.stop()?;
    rig.wait_until_whole(LIMIT * 2)?;
    shipper.stop()
}

/// 100,000 lines over 60 s.
#[test]
fn o14_reloads_every_two_seconds_while_writing_for_a_minute() -> Result<()> {
    check_o14("o14-heavy", 1_667, Duration::from_secs(2), 30)
}

#[test]
fn p01_broker_unreachable_for_a_minute() -> Result<()> {
    let (rig, _kafka, proxy) = proxied("p01", 2)?;
    proxy.set(Mode::Refuse)?;
    let mut shipper = rig.start()?;
    rig.append("app.log", rig.lines("app.log", 0..1000))?;
    shipper.wait_blocked("topic_unknown")?;
    std::thread::sleep(Duration::from_secs(60));
    shipper.ensure_running()?;
    proxy.set(Mode::Pass)?;
    rig.wait_until_whole(Duration::from_secs(15))?;
    shipper.stop()?;
    rig.check_sent_once()
}

#[test]
fn t35_twenty_thousand_files_with_256_descriptors() -> Result<()> {
    const FILES: u64 = 20_000;
    const MEMORY_MIB: u64 = 108;
    let mut rig = Rig::new("t35-heavy", 2)?;
    rig.set("limits", json!({"memory": format!("{MEMORY_MIB}MiB")}));
    for file in 0..FILES {
        let name = format!("{file}.log");
        rig.append(&name, rig.lines(&name, 0..1))?;
    }
    let _config = rig.launch()?;
    let launch = Launch::program("shipper", "sh", &rig.dir.join("shipper.log"))
        .args(["-c", r#"ulimit -n 256; exec "$0" run --config "$1""#])
        .arg(built("shipper")?)
        .arg(rig.dir.join("shipper.yaml"));
    let mut shipper = rig.start_as(&launch)?;
    let check_open = |shipper: &Shipper| -> Result<()> {
        let num = shipper.open_files()?.len();
        ensure!(num <= 200, "{num} descriptors");
        Ok(())
    };
    wait::until_true("every first line", 4 * LIMIT, || {
        check_open(&shipper)?;
        Ok(rig.num_records()? >= FILES)
    })?;
    let cpu = shipper.cpu_time().context("it runs")?;
    println!("{cpu:?} of CPU for the first lines");
    assert!(cpu < Duration::from_secs(20), "{cpu:?} of CPU for the first lines");
    let saved = fs::metadata(rig.dir.join("state/checkpoint"))?.modified()?;
    for file in (0..FILES).step_by(400) {
        let name = format!("{file}.log");
        rig.append(&name, rig.lines(&name, 1..11))?;
    }
    for file in [3, 7000, 19_999] {
        rig.rename(&format!("{file}.log"), &format!("{file}.log.1"))?;
    }
    wait::until_true("every line", LIMIT, || {
        check_open(&shipper)?;
        Ok(rig.num_records()? >= FILES + 500)
    })?;
    wait::until_true("a newer checkpoint", LIMIT, || {
        Ok(fs::metadata(rig.dir.join("state/checkpoint"))?.modified()? > saved)
    })?;
    std::thread::sleep(Duration::from_secs(5));
    let (cpu, since) = (shipper.cpu_time().context("it runs")?, Instant::now());
    std::thread::sleep(Duration::from_secs(60));
    let cpu = shipper.cpu_time().context("it runs")? - cpu;
    let peak_mib = shipper.peak_rss_bytes().context("it runs")? >> 20;
    println!("{cpu:?} of CPU in {:?}, {peak_mib} MiB at most", since.elapsed());
    assert!(peak_mib <= MEMORY_MIB, "{peak_mib} MiB");
    check_open(&shipper)?;
    assert!(cpu < since.elapsed() / 20, "{cpu:?} of CPU in {:?}", since.elapsed());
    shipper.stop()?;
    rig.check_sent_once()
}

#[test]
fn p04_broker_hangs_for_a_minute() -> Result<()> {
    let (mut rig, _kafka, proxy) = proxied("p04", 2)?;
    rig.set_option("queue.buffering.max.messages", 1000);
    let mut shipper = rig.start()?;
    shipper.wait_logged("topic found")?;
    proxy.set(Mode::BlackHole)?;
    let traffic = Traffic::start(vec![rig.writer("app.log", Format::Text)?], 1000, 0);
    std::thread::sleep(Duration::from_secs(60));
    traffic.stop()?;
    proxy.set(Mode::Pass)?;
    rig.wait_until_whole(Duration::from_secs(30))?;
    let peak = shipper.peak_rss_bytes().context("it runs")?;
    assert!(peak <= 32 << 20, "{} KiB", peak >> 10);
    shipper.stop()?;
    rig.check_sent_once()
}

#[test]
fn p17_closed_port_for_two_minutes() -> Result<()> {
    let (rig, _kafka, proxy) = proxied("p17", 1)?;
    let mut shipper = rig.start()?;
    rig.append("app.log", rig.lines("app.log", 0..1))?;
    rig.wait_for_records(1)?;
    proxy.set(Mode::Refuse)?;
    let (cpu, closed, logged) = (shipper.cpu_time().context("it runs")?, Instant::now(), shipper.log().lines().count());
    for n in 1..=120 {
        rig.append("app.log", rig.lines("app.log", n..n + 1))?;
        std::thread::sleep(Duration::from_secs(1));
    }
    let cpu = shipper.cpu_time().context("it runs")? - cpu;
    assert!(cpu < closed.elapsed() / 20, "{cpu:?} of CPU in {:?}", closed.elapsed());
    let logged = shipper.log().lines().count() - logged;
    assert!(logged <= 30, "{logged} lines:\n{}", shipper.log_tail());
    proxy.set(Mode::Pass)?;
    rig.wait_until_whole(Duration::from_secs(15))?;
    shipper.stop()?;
    rig.check_sent_once()
}

#[test]
fn p14_four_producers_over_ten_minutes_of_elections() -> Result<()> {
    let num_repeated = topic_rig::p14_elections("p14", 4, 120, Duration::from_secs(5))?;
    println!("{num_repeated} records came more than once");
    Ok(())
}

#[test]
fn p19_five_minutes_without_the_right_to_write_hold_only_one_topic() -> Result<()> {
    let (kafka, addr) = Kafka::start_guarded(&kafka::Options::default())?;
    topic_rig::p19_without_rights(&kafka, addr, "p19", Duration::from_secs(300))
}

/// Three minutes scaled down to half of one.
#[test]
fn t23_events_of_several_lines_under_load_and_rotation() -> Result<()> {
    const SECONDS: u64 = 30;
    const BYTES_PER_SECOND: usize = 5_000_000;
    let mut rig = Rig::new("t23", 4)?;
    rig.set("inputs.0.multiline", json!({"start": "^event "}));
    let mut shipper = rig.start()?;
    rig.append("app.log", "")?;
    shipper.wait_logged("tailing")?;
    let (pid, started) = (shipper.pid(), Instant::now());
    let (mut num_lines, mut num_bytes) = (0_u64, 0);
    for tick in 0..SECONDS * 10 {
        let mut text = String::new();
        while text.len() < BYTES_PER_SECOND / 10 {
            for line in 0..1 + num_lines % 7 {
                let word = if line == 0 { "event" } else { "  more" };
                text += &format!("{word} <{num_lines}> {}\n", "x".repeat((num_lines % 150) as usize));
                num_lines += 1;
            }
        }
        num_bytes += text.len();
        rig.append("app.log", text)?;
        if tick % 20 == 19 {
            rig.rename("app.log", &format!("app.log.{tick}"))?;
        }
        let due = Duration::from_millis(100 * (tick + 1));
        std::thread::sleep(due.saturating_sub(started.elapsed()));
    }
    println!("{num_lines} lines, {num_bytes} bytes in {:?}", started.elapsed());
    let seen = wait::until("every line", LIMIT * 2, || {
        let mut keys = BTreeSet::new();
        let mut seen = vec![0_u8; num_lines as usize];
        rig.kafka.for_each_record(&rig.topic, |record| {
            if keys.insert(record.key().unwrap_or_default().to_vec()) {
                let value = String::from_utf8_lossy(record.payload().unwrap_or_default()).into_owned();
                let numbers = value.split('<').skip(1).filter_map(|part| part.split('>').next()?.parse::<usize>().ok());
                numbers.for_each(|n| seen[n] += 1);
            }
        })?;
        Ok(seen.iter().all(|count| *count > 0).then_some(seen))
    })?;
    ensure!(seen.iter().all(|count| *count == 1), "lines are there more than once");
    ensure!(shipper.pid() == pid && shipper.is_running());
    shipper.stop()
}
