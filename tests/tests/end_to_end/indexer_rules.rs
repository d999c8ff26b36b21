//! Several topics with rules of their own in one indexer: what ails one of them stays with it. Real broker, scripted server.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_tests::fake_elasticsearch::{Answer, Item, ItemFailure};
use millrace_tests::indexer_rig::LIMIT;
use millrace_tests::lanes::Lanes;
use millrace_tests::{http, wait};
use serde_json::json;

/// What ails the lane of this name while the switch is on.
fn ailment(item: &Item) -> Option<ItemFailure> {
    Some(match item.index.as_str() {
        "blocked" => (403, "cluster_block_exception", "index [blocked] blocked by: [FORBIDDEN/8/index write (api)];"),
        "full" => {
            (429, "cluster_block_exception", "index [full] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded];")
        }
        "uncreatable" => {
            (400, "validation_exception", "this cluster currently has [9]/[9] maximum normal shards open;")
        }
        "pipeline" => (400, "illegal_argument_exception", "pipeline with id [nowhere] does not exist"),
        "forbidden" => (403, "security_exception", "action [bulk] is unauthorized for user [u] on indices [forbidden]"),
        "conflict" => (400, "document_parsing_exception", "failed to parse field [n]"),
        _ => return None,
    })
}

/// With the word by which `/readyz` names each.
const HELD: [&str; 8] = ["blocked", "full", "uncreatable", "pipeline", "forbidden", "foreign", "unfit", "absent"];
const NUM: usize = 200;

fn switch_on(lanes: &Lanes) -> Arc<AtomicBool> {
    let switch = Arc::new(AtomicBool::new(true));
    let is_on = Arc::clone(&switch);
    let fake = &lanes.rig.fake;
    fake.script(move |bulk| Answer::items(bulk, |item| ailment(item).filter(|_| is_on.load(Ordering::SeqCst))));
    // Only of an index that is there a refusal is the document's fault.
    fake.set_mapping("conflict", json!({"properties": {"n": {"type": "long"}}}));
    let loser = json!({"template": {}, "overlapping": [{"name": "foreign", "index_patterns": ["foreign"]}]});
    fake.answer("POST _index_template/_simulate_index/foreign", Some((200, loser)));
    let refusal = json!({"error": {"type": "illegal_argument_exception", "reason": "unknown setting"}, "status": 400});
    fake.answer("PUT _index_template/unfit", Some((400, refusal)));
    switch
}

fn switch_off(lanes: &Lanes, switch: &AtomicBool) -> Result<()> {
    switch.store(false, Ordering::SeqCst);
    lanes.rig.fake.answer("POST _index_template/_simulate_index/foreign", None);
    lanes.rig.fake.answer("PUT _index_template/unfit", None);
    lanes.create("absent")?;
    lanes.produce("absent", 0..NUM, "x")
}

/// Nine ailments at a time; the block outlasts the test, so that nothing of it becomes a dead letter.
#[test]
fn an_ailing_rule_holds_no_other() -> Result<()> {
    let all: Vec<&str> = HELD.into_iter().chain(["conflict", "well"]).collect();
    let mut lanes = Lanes::new("rules", &all, "max_backoff: 1s", "")?;
    lanes.rig.reconfigure("index_wait: 3s", "index_wait: 10m")?;
    let switch = switch_on(&lanes);
    for lane in all.iter().filter(|lane| **lane != "absent") {
        lanes.create(lane)?;
        lanes.produce(lane, 0..NUM, "x")?;
    }
    lanes.rig.start()?;
    let told = lanes.wait_told(&HELD)?;
    ensure!(!told.contains("well") && !told.contains("conflict"), "{told}");

    // The others flow, are committed, and nothing of them is sent twice.
    for round in 1..=10 {
        lanes.produce("well", round * 1_000..(round + 1) * 1_000, "x")?;
        lanes.wait_no_lag("well")?;
    }
    lanes.wait_no_lag("conflict")?;
    let expected: BTreeSet<u64> = (0..NUM as u64).chain(1_000..11_000).collect();
    ensure!(lanes.documents("well")? == expected);
    assert_eq!(lanes.sent()["well"], expected.len());
    assert_eq!(lanes.rig.num_letters()?, NUM as i64);
    for lane in HELD.into_iter().filter(|lane| *lane != "absent") {
        assert_eq!(lanes.lag(lane)?, NUM as i64, "{lane}");
    }
    wait::until_true("the lag of each", LIMIT, || {
        let metrics = http::get(&format!("http://{}/metrics", lanes.rig.admin))?.body;
        let lag = |lane: &str| {
            let topic = format!("topic=\"{}\"", lanes.topic(lane));
            http::metric(&metrics, "indexer_lag_records", &[&topic])
        };
        let is_held = |lane: &&str| **lane == *"absent" || lag(lane) == Some(NUM as f64);
        Ok(lag("well") == Some(0.0) && HELD.iter().all(is_held))
    })?;
    let held: BTreeSet<String> = partitions_held(&lanes)?;
    ensure!(held.iter().all(|topic| HELD.iter().any(|lane| lanes.topic(lane) == *topic)), "{held:?}");

    // When the causes end, what waited is there once.
    switch_off(&lanes, &switch)?;
    for lane in HELD {
        lanes.wait_no_lag(lane).context(lane)?;
        ensure!(lanes.documents(lane)? == (0..NUM as u64).collect(), "{lane}");
    }
    lanes.rig.wait_ready(LIMIT)?;
    assert_eq!(lanes.rig.num_letters()?, NUM as i64, "of the conflict alone");
    Ok(())
}

fn partitions_held(lanes: &Lanes) -> Result<BTreeSet<String>> {
    let status = lanes.status()?;
    let partitions = status["partitions"].as_array().context("no partitions")?;
    let held = partitions.iter().filter(|partition| partition["held"] == true);
    Ok(held.filter_map(|partition| Some(partition["topic"].as_str()?.to_owned())).collect())
}

/// Two fifths of this are for records on their way: less than either rule holds.
const MEMORY: &str = "limits: { memory: 32MiB }";

#[test]
fn what_two_rules_hold_leaves_memory_to_a_third() -> Result<()> {
    let mut lanes = Lanes::new("rules-memory", &["forbidden", "pipeline", "well"], "max_backoff: 1s", MEMORY)?;
    let switch = switch_on(&lanes);
    const LARGE: usize = 150;
    for lane in ["forbidden", "pipeline", "well"] {
        lanes.create(lane)?;
    }
    for lane in ["forbidden", "pipeline"] {
        lanes.produce(lane, 0..LARGE, &"x".repeat(200_000))?;
    }
    lanes.rig.start()?;
    wait::until_true("both to be held", LIMIT, || Ok(partitions_held(&lanes).is_ok_and(|held| held.len() == 2)))?;
    lanes.produce("well", 0..20_000, "a line of usual length, as many are")?;
    lanes.wait_no_lag("well")?;
    assert_eq!(partitions_held(&lanes)?.len(), 2);
    // Each may lead past its limit by one record.
    let on_their_way = lanes.status()?["unfinished_bytes"].as_u64().context("a number")?;
    ensure!(on_their_way <= (32 << 20) / 5 * 2 + 2 * 400_000, "{on_their_way}");
    switch.store(false, Ordering::SeqCst);
    for lane in ["forbidden", "pipeline"] {
        lanes.wait_no_lag(lane)?;
        ensure!(lanes.documents(lane)? == (0..LARGE as u64).collect(), "{lane}");
    }
    Ok(())
}

/// Each finished record behind one that is not takes some bytes: they count as well.
#[test]
fn a_record_that_is_held_bounds_what_is_taken_behind_it() -> Result<()> {
    const BEHIND: usize = 400_000;
    let mut lanes = Lanes::new("rules-behind", &["one", "well"], "max_backoff: 1s", MEMORY)?;
    let is_held = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&is_held);
    lanes.rig.fake.keep_only_ids();
    lanes.rig.fake.script(move |bulk| {
        let is_held = switch.load(Ordering::SeqCst);
        let failure = (404, "index_not_found_exception", "no such index");
        Answer::items(bulk, |item| (is_held && item.document.contains(r#""first""#)).then_some(failure))
    });
    for lane in ["one", "well"] {
        lanes.create(lane)?;
    }
    lanes.produce("one", 0..1, "first")?;
    lanes.produce("one", 1..BEHIND, "x")?;
    lanes.rig.start()?;
    wait::until_true("the partition to be held", LIMIT, || {
        Ok(partitions_held(&lanes).is_ok_and(|held| held.len() == 1))
    })?;
    let num = lanes.rig.metric("indexer_consumed_records_total", &[])?;
    ensure!(num < BEHIND as f64, "all {num} are taken, although the first is not finished");
    lanes.produce("well", 0..1_000, "x")?;
    lanes.wait_no_lag("well")?;
    is_held.store(false, Ordering::SeqCst);
    lanes.wait_no_lag("one")?;
    assert_eq!(lanes.rig.fake.num_documents(), BEHIND + 1_000);
    Ok(())
}

/// A backlog ahead of it in the order of partitions: the others have their turn before the backlog is done.
#[test]
fn a_backlog_of_one_rule_does_not_delay_the_others() -> Result<()> {
    const BACKLOG: usize = 150_000;
    // One slow request at a time carries the backlog in half a minute.
    let mut lanes = Lanes::new("rules-turns", &["a", "b", "c", "well"], "max_documents: 500, max_in_flight: 1", "")?;
    lanes.rig.fake.script(|_| Answer::After(Duration::from_millis(40), Box::new(Answer::Index)));
    for lane in ["a", "b", "c", "well"] {
        lanes.create(lane)?;
    }
    for lane in ["a", "b", "c"] {
        lanes.produce(lane, 0..BACKLOG / 3, "x")?;
    }
    lanes.rig.start()?;
    lanes.rig.wait_documents(5_000)?;
    for n in 0..5 {
        let before = lanes.rig.fake.bulks().len();
        lanes.produce("well", n..n + 1, "x")?;
        wait::until_true("the record", LIMIT, || Ok(lanes.documents("well")?.contains(&(n as u64))))?;
        let num_before_it = lanes.rig.fake.bulks().len() - before;
        ensure!(num_before_it < 40, "{num_before_it} requests went before a record of another topic");
    }
    ensure!(lanes.rig.fake.num_documents() < BACKLOG, "the backlog was gone, so nothing was tested");
    Ok(())
}

/// A lone busy topic among many has no more on its way than is its own: what it has is not to wait for the age of a batch.
#[test]
fn one_busy_topic_among_many_does_not_wait_for_batches_to_age() -> Result<()> {
    // Several times what it may have on its way, each of which would wait longer than the test does.
    const RECORDS: usize = 60_000;
    let names: Vec<String> = (0..10).map(|n| format!("lane-{n}")).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut lanes = Lanes::new("rules-busy", &all, "", MEMORY)?;
    lanes.rig.reconfigure("max_delay: 100ms", "max_delay: 10m")?;
    all.iter().try_for_each(|lane| lanes.create(lane))?;
    lanes.rig.fake.keep_only_ids();
    lanes.produce("lane-5", 0..RECORDS, &"x".repeat(400))?;
    lanes.rig.start()?;
    lanes.rig.wait_documents(RECORDS - 10_000)
}
