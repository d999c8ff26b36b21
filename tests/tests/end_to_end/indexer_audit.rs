//! Every byte accounted, proved by sabotage: what is taken out of the topic or the index, or was never sent, is named by path
//! and byte range; what is whole is said to be whole.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use millrace_common::ledger::indexed::{IndexedKey, IndexedRow};
use millrace_common::ledger::sources::HostState;
use millrace_common::ledger::{INDEXED, Intervals, decode};
use millrace_tests::elasticsearch::Elasticsearch;
use millrace_tests::fake_elasticsearch::{Answer, FakeElasticsearch};
use millrace_tests::indexer_rig::LIMIT;
use millrace_tests::kafka::{self, Kafka};
use millrace_tests::{http, wait};
use serde_json::json;

use super::ledger_rig::{LINE, LedgerRig, pipeline};

#[test]
fn sabotage_is_named_by_path_and_bytes_and_what_is_whole_ends_with_0() -> Result<()> {
    let (kafka, elasticsearch) = (Kafka::shared()?, Elasticsearch::shared()?);
    let rig = LedgerRig::new(kafka, elasticsearch.url(), "audited", 3)?;
    let [a, b, c] = [("/a.log", 0), ("/b.log", 1), ("/c.log", 2)].map(|(path, partition)| rig.file(path, partition));
    for file in [a, b, c] {
        rig.send(file, 0..300)?;
        rig.report(file, 300)?;
    }
    let (mut indexer, _) = rig.indexer("first")?;
    let (code, files, total) = rig.audit(&["--verify-index"])?;
    ensure!(code == 0, "exit code {code}: {files:?}");
    assert_eq!((files.len(), &total["indexed"], &total["missing"]), (3, &json!(900 * LINE), &json!(0)));

    // Records that the topic loses before they are read.
    ensure!(indexer.terminate(LIMIT)? == 0, "{}", indexer.log_tail());
    rig.send(a, 300..400)?;
    rig.report(a, 400)?;
    let mut before = kafka.end_offsets(&rig.name)?;
    before.retain(|partition, _| *partition == 0);
    before.values_mut().for_each(|end| *end -= 50);
    kafka.delete_records(&rig.name, &before)?;
    // A shipper that skips: what it says to be acknowledged no record covers.
    rig.send(c, 303..310)?;
    rig.report(c, 310)?;
    let (mut indexer, _) = rig.indexer("second")?;
    let (code, files, _) = rig.audit(&[])?;
    assert_eq!(code, 65);
    assert_eq!(files["/a.log"]["holes"], json!([[300 * LINE, 350 * LINE]]));
    assert_eq!((&files["/b.log"]["state"], &files["/b.log"]["holes"]), (&json!("OKAY"), &json!([])));
    assert_eq!(files["/c.log"]["holes"], json!([[300 * LINE, 303 * LINE]]));
    let (code, output) = rig.command(&["audit", "--path", "/c*"])?;
    ensure!(code == 65 && output.contains("HOLE web-1:/c.log 6000..6060"), "{code}: {output}");

    // Documents that somebody deletes from the index.
    for line in [10, 11, 12, 40] {
        let path = format!("/{}-all/_doc/{}?refresh=true", rig.name, LedgerRig::id(b, line));
        elasticsearch.call("DELETE", &path, None)?;
    }
    let (code, ..) = rig.audit(&["--path", "/b.log"])?;
    assert_eq!(code, 0, "the ledger knows nothing of it");
    let (code, files, total) = rig.audit(&["--path", "/b.log", "--verify-index"])?;
    assert_eq!(code, 65);
    assert_eq!(files["/b.log"]["deleted"], json!([[10 * LINE, 13 * LINE], [40 * LINE, 41 * LINE]]));
    assert_eq!(total["deleted"], json!(4 * LINE));

    ensure!(indexer.terminate(LIMIT)? == 0, "{}", indexer.log_tail());
    Ok(())
}

#[test]
fn dead_letters_and_duplicates_are_told_and_a_group_that_is_away_ends_with_75() -> Result<()> {
    let kafka = Kafka::shared()?;
    let fake = FakeElasticsearch::start()?;
    fake.script(|bulk| {
        Answer::items(bulk, |item| {
            item.document.contains("poison").then_some((400, "document_parsing_exception", "failed to parse"))
        })
    });
    let rig = LedgerRig::new(kafka, &fake.url(), "audited-letters", 1)?;
    let file = rig.file("/a.log", 0);
    rig.send(file, 0..10)?;
    rig.send_with(file, 10..12, r#","x":"poison""#)?;
    rig.send(file, 8..10)?;
    rig.report(file, 12)?;
    let (code, files, _) = rig.audit(&["--timeout", "2s"])?;
    assert_eq!((code, &files["/a.log"]["late"]), (75, &json!(12 * LINE)), "nobody indexes");
    let (mut indexer, _) = rig.indexer("indexer")?;
    let (code, files, _) = rig.audit(&[])?;
    let told = &files["/a.log"];
    assert_eq!(code, 0, "{told}");
    assert_eq!((&told["indexed"], &told["dead_lettered"]), (&json!(10 * LINE), &json!(2 * LINE)), "{told}");
    assert_eq!((&told["dead_letters"], &told["duplicates"]), (&json!(2), &json!(2)), "{told}");
    ensure!(rig.command(&["audit", "--path", "/nowhere"])?.0 == 64);
    ensure!(indexer.terminate(LIMIT)? == 0, "{}", indexer.log_tail());
    Ok(())
}

/// Rows of the ledger by writer, as the topic has them now, and the union of their ranges.
fn rows(kafka: &Kafka, rig: &LedgerRig) -> Result<(BTreeSet<String>, Intervals)> {
    let mut rows = BTreeMap::new();
    for record in kafka.read_topic(INDEXED)? {
        let key: IndexedKey = decode(record.key.as_deref().unwrap_or_default())?;
        match record.value.is_empty() {
            true => _ = rows.remove(&key),
            false => _ = rows.insert(key, decode::<IndexedRow>(&record.value)?),
        }
    }
    let own = rows.into_iter().filter(|(key, _)| key.group == rig.name);
    let mut writers = BTreeSet::new();
    let mut union = Intervals::default();
    for (key, row) in own {
        writers.insert(key.writer);
        union.extend(row.finished().iter());
    }
    Ok((writers, union))
}

#[test]
fn a_killed_owner_and_a_compacted_ledger_lose_no_range_and_raise_no_alarm() -> Result<()> {
    let settings = [("log.cleaner.backoff.ms", "200"), ("log.retention.check.interval.ms", "500")];
    let settings = settings.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
    let kafka = Kafka::start(&kafka::Options { settings, ..kafka::Options::default() })?;
    kafka.create_topic(
        INDEXED,
        1,
        &[
            ("cleanup.policy", "compact"),
            ("message.timestamp.type", "LogAppendTime"),
            ("segment.ms", "500"),
            ("min.cleanable.dirty.ratio", "0.01"),
            ("delete.retention.ms", "500"),
        ],
    )?;
    let fake = FakeElasticsearch::start()?;
    let rig = LedgerRig::new(&kafka, &fake.url(), "compacted", 2)?;
    let files = [rig.file("/a.log", 0), rig.file("/b.log", 1)];
    let (mut first, first_admin) = rig.indexer("first")?;
    wait::until_true("the first owner", LIMIT, || Ok(is_ready(&first_admin)))?;
    let (mut second, second_admin) = rig.indexer("second")?;
    wait::until_true("a second owner", LIMIT, || Ok(num_assigned(&first_admin)? == 1.0))?;
    let sent = Cell::new(0);
    // Lines, rows and a heartbeat, after which there must be no alarm.
    let write = || -> Result<()> {
        for file in files {
            rig.send(file, sent.get()..sent.get() + 50)?;
            rig.report(file, sent.get() + 50)?;
        }
        sent.set(sent.get() + 50);
        rig.beat(2_000, HostState::Running)?;
        let (_, answer) = pipeline(&second_admin)?;
        ensure!(!["GAP", "SILENT"].iter().any(|state| answer.to_string().contains(state)), "{answer}");
        std::thread::sleep(Duration::from_millis(100));
        Ok(())
    };
    let write_for = |time: Duration| -> Result<()> {
        let started = Instant::now();
        while started.elapsed() < time {
            write()?;
        }
        Ok(())
    };
    write_for(Duration::from_secs(4))?;
    first.kill9()?;
    wait::until_true("both partitions", LIMIT, || {
        write()?;
        Ok(num_assigned(&second_admin)? == 2.0)
    })?;
    write_for(Duration::from_secs(4))?;
    kafka.wait_no_lag(&rig.name, &rig.name, LIMIT)?;
    let end = sent.get() * LINE;
    let mut left = Default::default();
    wait::until_true("one writer for each partition", LIMIT, || {
        let (writers, union) = rows(&kafka, &rig)?;
        ensure!(union.iter().all(|range| range == (0..end)), "{union:?}");
        left = writers;
        Ok(left.len() == 2)
    })
    .with_context(|| format!("{left:?}"))?;
    let run = |writer: &String| writer.split('-').next().map(str::to_owned);
    ensure!(left.iter().map(run).collect::<BTreeSet<_>>().len() == 1, "all by the second: {left:?}");
    let num_written = kafka.end_offsets(INDEXED)?[&0];
    wait::until_true("the cleaner", LIMIT, || Ok((kafka.read_topic(INDEXED)?.len() as i64) < num_written / 2))?;
    // A reader that comes after the cleaner sees the same.
    let (code, files, total) = rig.audit(&[])?;
    assert_eq!((code, &total["indexed"]), (0, &json!(2 * end)), "{files:?}");
    ensure!(second.terminate(LIMIT)? == 0, "{}", second.log_tail());
    Ok(())
}

fn is_ready(admin: &str) -> bool {
    http::get(&format!("http://{admin}/readyz")).is_ok_and(|reply| reply.status == 200)
}

fn num_assigned(admin: &str) -> Result<f64> {
    let text = http::get(&format!("http://{admin}/metrics"))?.body;
    Ok(http::metric(&text, "indexer_partitions_assigned", &[]).unwrap_or(0.0))
}

/// Waits for a state with this text in the answer, with heartbeats or without.
fn await_answer(rig: &LedgerRig, admin: &str, beats: bool, limit: Duration, text: &str) -> Result<Duration> {
    let started = Instant::now();
    wait::until_true(&format!("`{text}`"), limit, || {
        if beats {
            rig.beat(1_000, HostState::Running)?;
        }
        Ok(pipeline(admin).is_ok_and(|(_, answer)| answer.to_string().contains(text)))
    })?;
    Ok(started.elapsed())
}

/// Heartbeats come every second instead of every ten, so that what is late after five of them is so after 5 s instead of 50. What
/// comes on top is the same at any pace: two pauses of 2 s between rounds of reading, and 3 s here for a busy machine.
#[test]
fn every_instance_tells_silence_gaps_and_a_lame_group_in_time_and_their_end_and_a_goodbye_is_none() -> Result<()> {
    const MINUTE: Duration = Duration::from_secs(12);
    const HALF_A_MINUTE: Duration = Duration::from_secs(7);
    let kafka = Kafka::start(&kafka::Options::default())?;
    let fake = FakeElasticsearch::start()?;
    let rig = LedgerRig::new(&kafka, &fake.url(), "watched", 2)?;
    let file = rig.file("/a.log", 0);
    let (mut first, first_admin) = rig.indexer("first")?;
    let (mut second, second_admin) = rig.indexer("second")?;
    rig.send(file, 0..100)?;
    rig.report(file, 100)?;
    await_answer(&rig, &first_admin, true, LIMIT, "OKAY")?;
    await_answer(&rig, &second_admin, true, LIMIT, "OKAY")?;
    assert_eq!(pipeline(&second_admin)?.0, 200);

    let silent = await_answer(&rig, &second_admin, false, MINUTE, "SILENT")?;
    assert_eq!(pipeline(&second_admin)?.0, 503);
    // The other one answers while this one is down.
    second.kill9()?;
    await_answer(&rig, &first_admin, false, MINUTE, "SILENT")?;
    let well = await_answer(&rig, &first_admin, true, HALF_A_MINUTE, "OKAY")?;

    fake.script(|_| Answer::refuse(503));
    rig.send(file, 100..200)?;
    rig.report(file, 200)?;
    let behind = await_answer(&rig, &first_admin, true, MINUTE, "BEHIND")?;
    fake.script(|_| Answer::Index);
    await_answer(&rig, &first_admin, true, LIMIT, "OKAY")?;

    // What no record covers.
    rig.report(file, 203)?;
    let gap = await_answer(&rig, &first_admin, true, MINUTE, "GAP")?;
    let (_, answer) = pipeline(&first_admin)?;
    ensure!(answer.to_string().contains("/a.log") && answer.to_string().contains("4000..4060"), "{answer}");
    let metrics = http::get(&format!("http://{first_admin}/metrics"))?.body;
    assert_eq!(http::metric(&metrics, "indexer_audit_missing_bytes", &[]), Some(60.0));
    assert_eq!(http::metric(&metrics, "indexer_sources", &["state=\"GAP\""]), Some(1.0));
    rig.send(file, 200..203)?;
    await_answer(&rig, &first_admin, true, HALF_A_MINUTE, "OKAY")?;

    rig.beat(1_000, HostState::Stopped)?;
    let left = Instant::now();
    while left.elapsed() < HALF_A_MINUTE + Duration::from_secs(2) {
        let (status, answer) = pipeline(&first_admin)?;
        ensure!(status == 200, "a goodbye is no alarm: {answer}");
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("silent after {silent:?}, well after {well:?}, behind after {behind:?}, gap after {gap:?}");
    let (code, output) = rig.command(&["status"])?;
    ensure!(
        code == 0 && output.contains("OKAY: 1 host, 1 file: 1 OKAY") && output.contains("/a.log"),
        "{code}: {output}"
    );
    let (code, output) = rig.command(&["status", "--forget", &rig.host()])?;
    ensure!(code == 0 && output.contains("with 1 of its files"), "{code}: {output}");
    let (_, output) = rig.command(&["status", "--json"])?;
    ensure!(output.contains("\"hosts\": []") && output.contains("\"sources\": []"), "{output}");
    ensure!(first.terminate(LIMIT)? == 0, "{}", first.log_tail());
    Ok(())
}

#[test]
fn a_ledger_that_refuses_holds_the_commit_and_is_told() -> Result<()> {
    let kafka = Kafka::start(&kafka::Options::default())?;
    // The topic takes no row.
    kafka.create_topic(INDEXED, 1, &[("max.message.bytes", "40")])?;
    let fake = FakeElasticsearch::start()?;
    let rig = LedgerRig::new(&kafka, &fake.url(), "refused", 1)?;
    let file = rig.file("/a.log", 0);
    rig.send(file, 0..100)?;
    let (mut indexer, admin) = rig.indexer("indexer")?;
    wait::until_true("the reason", Duration::from_secs(30), || {
        let reply = http::get(&format!("http://{admin}/readyz"));
        Ok(reply.is_ok_and(|reply| reply.status == 503 && reply.body.contains("ledger: offsets are not committed")))
    })?;
    wait::until_true("the documents", LIMIT, || Ok(fake.num_documents() == 100))?;
    ensure!(kafka.committed(&rig.name, &rig.name)?.values().all(|offset| *offset <= 0), "committed without its rows");
    kafka.delete_topic(INDEXED)?;
    let mut client = rdkafka::ClientConfig::new();
    client.set("bootstrap.servers", kafka.bootstrap());
    wait::until_true("the topic made anew", LIMIT, || {
        Ok(millrace_common::ledger::topics::create_missing(&client, &[INDEXED], &rig.name).is_ok()
            && !kafka.partitions(INDEXED)?.is_empty())
    })?;
    kafka.wait_no_lag(&rig.name, &rig.name, LIMIT)?;
    wait::until_true("readiness", LIMIT, || Ok(is_ready(&admin)))?;
    ensure!(indexer.terminate(LIMIT)? == 0, "{}", indexer.log_tail());
    Ok(())
}
