//! What happens when the broker is away, slow, full, or refuses. Each test is named after its row of the failure
//! catalogue; times are scaled down, see `heavy_shipper` for some at full length.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use millrace_tests::kafka::{self, Kafka, Proxied};
use millrace_tests::oracle;
use millrace_tests::proxy::Mode;
use millrace_tests::rig::{LIMIT, Rig, messages_by_path};
use millrace_tests::wait;
use millrace_tests::writer::{Format, LineId, Traffic};
use serde_json::{Value, json};

#[test]
fn t02_rotated_twice_while_the_broker_hangs() -> Result<()> {
    let broker = Proxied::take()?;
    let rig = broker.rig("t02-all", 2)?;
    let mut shipper = rig.start()?;
    shipper.wait_logged("topic found")?;
    broker.set(Mode::BlackHole)?;
    rig.append("app.log", rig.lines("app.log", 0..1000))?;
    rig.rename("app.log", "app.log.1")?;
    rig.append("app.log", rig.lines("app.log", 1000..2000))?;
    rig.rename("app.log.1", "app.log.2")?;
    rig.rename("app.log", "app.log.1")?;
    rig.append("app.log", rig.lines("app.log", 2000..3000))?;
    shipper.wait_metric("shipper_sources", &[], LIMIT, |num| num == 3.0)?;
    broker.set(Mode::Pass)?;
    rig.wait_until_whole(LIMIT)?;
    shipper.stop()?;
    rig.check_sent_once()
}

#[test]
fn t02_rotated_twice_out_of_the_patterns_while_the_broker_hangs() -> Result<()> {
    let broker = Proxied::take()?;
    let mut rig = broker.rig("t02-live", 2)?;
    rig.set_patterns(&["app.log"]);
    let mut shipper = rig.start()?;
    shipper.wait_logged("topic found")?;
    broker.set(Mode::BlackHole)?;
    for generation in 0..3 {
        if generation == 2 {
            rig.rename("app.log.1", "app.log.2")?;
        }
        if generation > 0 {
            rig.rename("app.log", "app.log.1")?;
        }
        rig.append("app.log", rig.lines("app.log", generation * 1000..(generation + 1) * 1000))?;
        // It sees every generation before its rotation.
        shipper.wait_metric("shipper_sources", &[], LIMIT, |num| num == (generation + 1) as f64)?;
    }
    broker.set(Mode::Pass)?;
    rig.wait_until_whole(LIMIT)?;
    shipper.stop()?;
    rig.check_sent_once()
}

#[test]
fn t07_bytes_truncated_unread_are_counted_exactly() -> Result<()> {
    let broker = Proxied::take()?;
    let mut rig = broker.rig("t07", 1)?;
    rig.set_patterns(&["app.log"]);
    // A small budget, so that the reader lags.
    rig.set("limits", json!({"memory": "8MiB"}));
    let mut shipper = rig.start()?;
    rig.append("app.log", rig.lines("app.log", 0..10))?;
    rig.wait_for_records(10)?;
    broker.set(Mode::BlackHole)?;
    rig.append("app.log", rig.lines("app.log", 10..50_000))?;
    let size = fs::metadata(rig.path("app.log"))?.len();
    // It has seen the whole size, and read what its budget takes.
    let read = wait::until("the budget used up", LIMIT, || {
        let status = shipper.status()?;
        let source = &status["sources"][0];
        let is_full = status["inflight_bytes"].as_u64() >= Some((8 << 20) / 6) && source["size"].as_u64() == Some(size);
        Ok(source["read"].as_u64().filter(|_| is_full))
    })?;
    fs::copy(rig.path("app.log"), rig.path("app.log.1"))?;
    let unread = fs::read_to_string(rig.path("app.log"))?.split_off(read as usize);
    rig.rewrite("app.log", rig.lines("app.log", 50_000..51_000))?;
    broker.set(Mode::Pass)?;
    let unread: Vec<LineId> = unread.lines().filter_map(LineId::find).collect();
    assert!(unread.len() > 10_000, "{} lines unread", unread.len());
    rig.wait_for_records(51_000 - unread.len() as u64)?;
    let lost = shipper.wait_metric("shipper_lost_bytes_total", &["reason=\"truncated\""], LIMIT, |lost| lost > 0.0)?;
    assert_eq!(lost, (size - read) as f64);
    shipper.stop()?;
    let verdict = rig.verdict()?;
    assert_eq!((verdict.doubled.len(), verdict.altered.len(), verdict.foreign.len()), (0, 0, 0), "{verdict}");
    let mut wanted = unread;
    wanted.sort();
    ensure!(verdict.missing == wanted, "other lines are missing than the unread ones: {verdict}");
    Ok(())
}

#[test]
fn t25_long_pause_of_the_broker_with_little_memory() -> Result<()> {
    let broker = Proxied::take()?;
    let mut rig = broker.rig("t25", 2)?;
    rig.set("limits", json!({"memory": "8MiB", "max_record": "4KiB"}));
    // Every line begins an event.
    rig.set("inputs.0.multiline", json!({"start": "^mr~"}));
    let mut shipper = rig.start()?;
    rig.append("app.log", rig.lines("app.log", 0..5000))?;
    rig.wait_for_records(1)?;
    broker.set(Mode::BlackHole)?;
    rig.append("app.log", rig.lines("app.log", 5000..40_000))?;
    shipper.wait_metric("shipper_inflight_bytes", &[], LIMIT, |bytes| bytes >= 1_300_000.0)?;
    std::thread::sleep(Duration::from_secs(3));
    broker.set(Mode::Pass)?;
    rig.wait_until_whole(LIMIT)?;
    shipper.stop()?;
    rig.check_sent_once()
}

#[test]
fn p01_broker_unreachable_at_the_start() -> Result<()> {
    let broker = Proxied::take()?;
    let rig = broker.rig("p01", 2)?;
    broker.set(Mode::Refuse)?;
    let mut shipper = rig.start()?;
    rig.append("app.log", rig.lines("app.log", 0..1000))?;
    shipper.wait_blocked("topic_unknown")?;
    shipper.wait_metric("shipper_unread_bytes", &[], LIMIT, |bytes| bytes > 0.0)?;
    std::thread::sleep(Duration::from_secs(5));
    shipper.ensure_running()?;
    broker.set(Mode::Pass)?;
    rig.wait_until_whole(Duration::from_secs(15))?;
    shipper.stop()?;
    rig.check_sent_once()
}

#[test]
fn p02_stopped_and_killed_while_the_broker_hangs() -> Result<()> {
    let broker = Proxied::take()?;
    let mut rig = broker.rig("p02", 2)?;
    rig.set("shutdown", json!({"deadline": "3s"}));
    let mut shipper = rig.start()?;
    // Known to the ledger before the outage: records of a file that is not wait for that.
    rig.append("app.log", "")?;
    shipper.wait_announced(1)?;
    broker.set(Mode::BlackHole)?;
    rig.append("app.log", rig.lines("app.log", 0..5000))?;
    shipper.wait_metric("shipper_inflight_bytes", &[], LIMIT, |bytes| bytes > 0.0)?;
    assert_eq!(shipper.terminate(LIMIT)?, 75, "it says that not all is delivered");
    assert!(shipper.log().contains("unacknowledged_events=5000"), "{}", shipper.log_tail());
    assert_eq!(rig.acknowledged("app.log")?, 0);
    let mut shipper = rig.start()?;
    rig.append("app.log", rig.lines("app.log", 5000..10_000))?;
    shipper.wait_blocked("topic_unknown")?;
    shipper.kill9()?;
    assert_eq!(rig.acknowledged("app.log")?, 0);
    let mut shipper = rig.start()?;
    broker.set(Mode::Pass)?;
    rig.wait_until_whole(LIMIT)?;
    shipper.stop()?;
    rig.verdict()?.check()
}

#[test]
fn an_acknowledgement_is_taken_when_it_comes() -> Result<()> {
    const NUM: u64 = 8;
    let rig = Rig::new("answers", 1)?;
    let mut shipper = rig.start()?;
    for number in 0..NUM {
        rig.append("app.log", rig.lines("app.log", number..number + 1))?;
        // The shipper has nothing else to wake up for but its look at all files, once a second.
        shipper.wait_metric("shipper_acked_events_total", &[], LIMIT, |num| num == (number + 1) as f64)?;
    }
    let at_once = shipper.metric("shipper_ack_latency_seconds_bucket", &["le=\"0.25\""])?;
    ensure!(at_once > (NUM / 2) as f64, "{at_once} of {NUM} acknowledgements within 250 ms");
    shipper.stop()
}

#[test]
fn p04_full_queue_resumes_and_memory_stays_bounded() -> Result<()> {
    let broker = Proxied::take()?;
    let mut rig = broker.rig("p04", 2)?;
    rig.set_option("queue.buffering.max.messages", 1000);
    rig.set("limits", json!({"memory": "32MiB"}));
    let mut shipper = rig.start()?;
    // Known to the ledger before the outage: records of a file that is not wait for that.
    rig.append("app.log", "")?;
    shipper.wait_announced(1)?;
    broker.set(Mode::BlackHole)?;
    rig.append("app.log", rig.lines_of("app.log", 0..50_000, |id| format!("{id} {}", "x".repeat(200))))?;
    shipper.wait_blocked("unacknowledged")?;
    broker.set(Mode::Pass)?;
    rig.wait_until_whole(Duration::from_secs(30))?;
    rig.append("app.log", rig.lines("after", 0..1))?;
    rig.wait_until_whole(Duration::from_secs(10))?;
    let peak = shipper.peak_rss_bytes().context("it runs")?;
    assert!(peak <= 32 << 20, "{} KiB", peak >> 10);
    shipper.stop()?;
    rig.check_sent_once()
}

#[test]
fn p05_stopped_while_the_broker_hangs_and_the_queue_is_full() -> Result<()> {
    let broker = Proxied::take()?;
    let mut rig = broker.rig("p05", 2)?;
    rig.set("shutdown", json!({"deadline": "8s"}));
    rig.set_option("queue.buffering.max.messages", 1000);
    let mut shipper = rig.start()?;
    rig.append("app.log", rig.lines("app.log", 0..10_000))?;
    rig.wait_for_records(10_000)?;
    broker.set(Mode::BlackHole)?;
    rig.append("app.log", rig.lines("app.log", 10_000..20_000))?;
    shipper.wait_metric("shipper_inflight_bytes", &[], LIMIT, |bytes| bytes > 0.0)?;
    let asked = Instant::now();
    assert_eq!(shipper.terminate(LIMIT)?, 75);
    assert!(asked.elapsed() <= Duration::from_secs(10), "{:?}", asked.elapsed());
    let acknowledged = rig.acknowledged("app.log")? as usize;
    let text = fs::read_to_string(rig.path("app.log"))?;
    assert!(text[..acknowledged].lines().count() <= 10_000, "the checkpoint passed what was delivered");
    broker.set(Mode::Pass)?;
    let mut shipper = rig.start()?;
    rig.wait_until_whole(LIMIT)?;
    shipper.stop()?;
    let num_repeated = rig.num_records()? - 20_000;
    // Acknowledgements that were on their way when it ended, and the client's queue.
    assert!(num_repeated <= 2000, "{num_repeated} repeated");
    Ok(())
}

#[test]
fn o17_stop_while_the_broker_is_down_keeps_the_acknowledged_position() -> Result<()> {
    let broker = Proxied::take()?;
    let mut rig = broker.rig("o17-down", 2)?;
    rig.set("shutdown", json!({"deadline": "5s"}));
    let mut shipper = rig.start()?;
    rig.append("app.log", rig.lines("app.log", 0..1000))?;
    rig.wait_for_records(1000)?;
    let delivered = fs::metadata(rig.path("app.log"))?.len();
    wait::until_true("the acknowledgements", LIMIT, || {
        Ok(shipper.status()?["sources"][0]["acknowledged"].as_u64() == Some(delivered))
    })?;
    let writer = rig.writer("b.log", Format::Text)?;
    shipper.wait_announced(2)?;
    broker.set(Mode::Refuse)?;
    let traffic = Traffic::start(vec![writer], 5000, 0);
    shipper.wait_metric("shipper_inflight_bytes", &[], LIMIT, |bytes| bytes > 0.0)?;
    let asked = Instant::now();
    assert_eq!(shipper.terminate(LIMIT)?, 75);
    assert!(asked.elapsed() < Duration::from_secs(6), "{:?}", asked.elapsed());
    traffic.stop()?;
    assert_eq!((rig.acknowledged("app.log")?, rig.acknowledged("b.log")?), (delivered, 0));
    broker.set(Mode::Pass)?;
    let mut shipper = rig.start()?;
    rig.wait_until_whole(LIMIT)?;
    shipper.stop()?;
    rig.check_sent_once()
}

fn one_kilobyte(id: &LineId) -> String {
    // Not to be compressed: the broker judges the size of a batch as it came.
    let mut word = id.n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let noise: String = (0..60)
        .map(|_| {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            format!("{word:016x}")
        })
        .collect();
    format!("{id} {noise}")
}

#[test]
fn p07_too_large_line_is_cut_and_does_not_block_the_others() -> Result<()> {
    let kafka = Kafka::shared()?;
    kafka.create_topic("p07", 1, &[("max.message.bytes", "1000000")])?;
    let rig = Rig::without_topic(kafka, kafka.bootstrap(), "p07")?;
    let mut shipper = rig.start()?;
    rig.append("app.log", rig.lines_of("app.log", 0..500, one_kilobyte))?;
    rig.append("app.log", "L".repeat(1_500_000) + "\n")?;
    rig.append("app.log", rig.lines_of("app.log", 500..1000, one_kilobyte))?;
    let started = Instant::now();
    rig.wait_for_records(1001)?;
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!(shipper.metric("shipper_truncated_events_total", &[])?, 1.0);
    assert_eq!(shipper.metric("shipper_produce_errors_total", &[])?, 0.0);
    shipper.stop()?;
    large_line_is_cut(&rig, 900 << 10)
}

#[test]
fn p08_dropped_line_is_counted_to_the_byte() -> Result<()> {
    let mut rig = Rig::new("p08", 1)?;
    rig.set("limits", json!({"on_oversize": "drop"}));
    let mut shipper = rig.start()?;
    rig.append("app.log", rig.lines_of("app.log", 0..500, one_kilobyte))?;
    let offset = fs::metadata(rig.path("app.log"))?.len();
    let large = "L".repeat(1_500_000) + "\n";
    rig.append("app.log", &large)?;
    rig.append("app.log", rig.lines_of("app.log", 500..1000, one_kilobyte))?;
    rig.wait_until_whole(Duration::from_secs(10))?;
    shipper.wait_metric("shipper_acked_events_total", &[], LIMIT, |num| num == 1000.0)?;
    assert_eq!(shipper.metric("shipper_dropped_events_total", &["too_large"])?, 1.0);
    assert_eq!(shipper.metric("shipper_lost_bytes_total", &["too_large"])?, large.len() as f64);
    let size = fs::metadata(rig.path("app.log"))?.len();
    assert_eq!(shipper.status()?["sources"][0]["acknowledged"].as_u64(), Some(size));
    shipper.stop()?;
    let told: Vec<_> = shipper.log().lines().filter(|l| l.contains("too_large")).map(str::to_owned).collect();
    let has_place = |l: &String| l.contains("app.log") && l.contains(&format!("start={offset}"));
    ensure!(told.len() == 1 && told.iter().all(has_place), "{told:?}");
    rig.check_sent_once()?;
    // What was given up stays given up.
    let mut shipper = rig.start()?;
    rig.append("app.log", rig.lines_of("app.log", 1000..1010, one_kilobyte))?;
    rig.wait_until_whole(LIMIT)?;
    assert_eq!(shipper.metric("shipper_lost_bytes_total", &[])?, 0.0);
    shipper.stop()?;
    rig.check_sent_once()
}

/// All small lines are there once and whole, and the large one once, cut.
fn large_line_is_cut(rig: &Rig, max: usize) -> Result<()> {
    let mut records = rig.records()?;
    let mut seen = BTreeSet::new();
    // What came after a refused record is sent again after it.
    records.retain(|record| seen.insert(record.key_text()));
    assert_eq!(records.len(), 1001);
    let messages = &messages_by_path(&records)?[&rig.path("app.log")];
    let wanted: Vec<String> = rig.written.lines().values().cloned().collect();
    let small: BTreeSet<&String> = messages.iter().filter(|message| LineId::find(message).is_some()).collect();
    ensure!(small == wanted.iter().collect(), "a small line was changed");
    let large = records.iter().find(|record| record.text().contains("LLLL")).context("the large line")?;
    let value: Value = serde_json::from_slice(&large.value)?;
    assert_eq!(value["log"]["flags"], json!(["truncated"]));
    assert!(large.value.len() <= max && value["message"].as_str().is_some_and(|m| m.bytes().all(|b| b == b'L')));
    Ok(())
}

#[test]
fn p07_topic_that_takes_less_than_a_record_or_a_batch() -> Result<()> {
    let kafka = Kafka::shared()?;
    // Less than max_record, and less than librdkafka puts into one batch.
    kafka.create_topic("p07-small", 1, &[("max.message.bytes", "100000")])?;
    let mut rig = Rig::without_topic(kafka, kafka.bootstrap(), "p07-small")?;
    rig.set_option("compression.type", "none");
    rig.append("app.log", rig.lines_of("app.log", 0..500, one_kilobyte))?;
    rig.append("app.log", "L".repeat(500_000) + "\n")?;
    rig.append("app.log", rig.lines_of("app.log", 500..1000, one_kilobyte))?;
    let mut shipper = rig.start()?;
    wait::until_true("all records", LIMIT, || {
        let keys: BTreeSet<String> = rig.records()?.iter().map(|record| record.key_text()).collect();
        Ok(keys.len() >= 1001)
    })?;
    assert!(shipper.metric("shipper_produce_errors_total", &["MessageSizeTooLarge"])? >= 1.0);
    shipper.stop()?;
    large_line_is_cut(&rig, 100_000)
}

#[test]
fn p10_deleted_topic_comes_back() -> Result<()> {
    let broker = Proxied::take()?;
    let rig = broker.rig("p10", 1)?;
    let mut shipper = rig.start()?;
    rig.append("app.log", rig.lines("app.log", 0..1000))?;
    rig.wait_for_records(1000)?;
    let delivered = fs::metadata(rig.path("app.log"))?.len();
    wait::until_true("the acknowledgements", LIMIT, || {
        Ok(shipper.status()?["sources"][0]["acknowledged"].as_u64() == Some(delivered))
    })?;
    rig.written.lines().clear();
    rig.kafka.delete_topic("p10")?;
    let (cpu, away, logged) = (shipper.cpu_time().context("it runs")?, Instant::now(), shipper.log().lines().count());
    rig.append("app.log", rig.lines("app.log", 1000..2000))?;
    std::thread::sleep(Duration::from_secs(15));
    let cpu = shipper.cpu_time().context("it runs")? - cpu;
    assert!(cpu < away.elapsed() / 10, "{cpu:?} of CPU in {:?}", away.elapsed());
    let logged = shipper.log().lines().count() - logged;
    // One about the topic, one about the records, and one more per ten seconds.
    assert!(logged <= 4, "{logged} lines:\n{}", shipper.log_tail());
    rig.kafka.create_topic("p10", 1, &[])?;
    rig.append("app.log", rig.lines("app.log", 2000..3000))?;
    rig.wait_until_whole(LIMIT)?;
    shipper.stop()?;
    rig.check_sent_once()
}

#[test]
fn p16_order_holds_over_delays_and_cuts() -> Result<()> {
    let broker = Proxied::take()?;
    let rig = broker.rig("p16", 4)?;
    let mut shipper = rig.start()?;
    shipper.wait_logged("topic found")?;
    let names: Vec<String> = (0..20).map(|n| format!("{n}.log")).collect();
    for round in 0..10 {
        broker.set(Mode::Delay(Duration::from_millis(20 * (round % 4))))?;
        for name in &names {
            rig.append(name, rig.lines(name, round * 200..(round + 1) * 200))?;
        }
        std::thread::sleep(Duration::from_millis(300));
        match round % 3 {
            0 => broker.proxy().cut(),
            1 => broker.set(Mode::CutReplies)?,
            _ => {}
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    broker.set(Mode::Pass)?;
    rig.wait_until_whole(LIMIT)?;
    shipper.stop()?;
    let records = rig.records()?;
    assert_eq!(records.len(), 40_000, "a cut reply doubles nothing");
    let mut last = std::collections::BTreeMap::new();
    for record in &records {
        let id = LineId::find(&record.text()).context("a line")?;
        if let Some((partition, n)) = last.insert(id.file.clone(), (record.partition, id.n)) {
            ensure!(partition == record.partition && n < id.n, "{id} after line {n} of partition {partition}");
        }
    }
    Ok(())
}

#[test]
fn p17_closed_port_costs_no_cpu_and_no_flood() -> Result<()> {
    closed_port("p17", Duration::from_secs(15))
}

fn closed_port(name: &str, time: Duration) -> Result<()> {
    let broker = Proxied::take()?;
    let rig = broker.rig(name, 1)?;
    let mut shipper = rig.start()?;
    rig.append("app.log", rig.lines("app.log", 0..1))?;
    rig.wait_for_records(1)?;
    broker.set(Mode::Refuse)?;
    let (cpu, closed, logged) = (shipper.cpu_time().context("it runs")?, Instant::now(), shipper.log().lines().count());
    let mut n = 1;
    while closed.elapsed() < time {
        rig.append("app.log", rig.lines("app.log", n..n + 1))?;
        n += 1;
        std::thread::sleep(Duration::from_secs(1));
    }
    let cpu = shipper.cpu_time().context("it runs")? - cpu;
    assert!(cpu < closed.elapsed() / 20, "{cpu:?} of CPU in {:?}", closed.elapsed());
    // Both clients say once that they are alone. 30 lines in two minutes.
    let logged = (shipper.log().lines().count() - logged) as u64;
    assert!(logged <= 6 + time.as_secs() / 5, "{logged} lines:\n{}", shipper.log_tail());
    broker.set(Mode::Pass)?;
    rig.wait_until_whole(Duration::from_secs(15))?;
    shipper.stop()?;
    rig.check_sent_once()
}

#[test]
fn p20_broker_killed_under_load() -> Result<()> {
    let kafka = Kafka::start(&kafka::Options::default())?;
    let mut rig = Rig::on(&kafka, kafka.bootstrap(), "p20", 4)?;
    rig.append("app.log", rig.lines("app.log", 0..20_000))?;
    let mut shipper = rig.start()?;
    rig.wait_for_records(1000)?;
    kafka.kill9()?;
    rig.append("app.log", rig.lines("app.log", 20_000..50_000))?;
    kafka.start_again()?;
    rig.wait_until_whole(LIMIT)?;
    shipper.stop()?;
    oracle::judge(&rig.written, &oracle::in_topic(&rig.records()?)?).check()?;
    // Weaker acknowledgement is refused.
    rig.set_option("acks", 1);
    let mut refused = rig.start()?;
    assert_eq!(refused.wait(LIMIT)?, 78);
    assert!(refused.log().contains("acks") && refused.log().contains("loses records"), "{}", refused.log_tail());
    Ok(())
}
