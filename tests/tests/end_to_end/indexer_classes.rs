//! What becomes of each class of answers to a bulk request: real broker, scripted server; where the mapping decides, a real
//! Elasticsearch.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_tests::fake_elasticsearch::{Answer, Bulk, Item, ItemFailure};
use millrace_tests::indexer_rig::{IndexerRig, LIMIT, number};
use millrace_tests::mapping_rig::{Lane, MappingRig};
use millrace_tests::process::Launch;
use millrace_tests::{scratch, wait};
use serde_json::json;

fn switch() -> (Arc<AtomicBool>, impl Fn() -> bool + Send + 'static) {
    let switch = Arc::new(AtomicBool::new(true));
    let reader = Arc::clone(&switch);
    (switch, move || reader.load(Ordering::SeqCst))
}

fn documents(rig: &IndexerRig, result: &str) -> Result<f64> {
    rig.metric("indexer_documents_total", &[&format!("result=\"{result}\"")])
}

#[test]
fn done_a_version_conflict_is_a_duplicate() -> Result<()> {
    let mut rig = IndexerRig::new("class-409", 1, "")?;
    rig.fake.script(|bulk| {
        Answer::items(bulk, |item| {
            let is_there = number(&item.document).is_ok_and(|n| n < 10);
            is_there.then_some((409, "version_conflict_engine_exception", "document already exists"))
        })
    });
    rig.produce(0..100, "a")?;
    rig.start()?;
    rig.kafka.wait_no_lag(&rig.name, &rig.name, LIMIT)?;
    assert_eq!((documents(&rig, "created")?, documents(&rig, "duplicate")?), (90.0, 10.0));
    assert_eq!((rig.fake.num_items(), rig.num_letters()?), (100, 0));
    Ok(())
}

#[test]
fn retry_alone_429_and_each_5xx_of_an_item() -> Result<()> {
    let mut rig = IndexerRig::new("class-5xx", 1, "")?;
    const STATUSES: [u16; 6] = [429, 500, 502, 503, 504, 507];
    let mut seen = BTreeSet::new();
    rig.fake.script(move |bulk| {
        let mut fate = |item: &Item| {
            let n = number(&item.document).ok()? as usize;
            (seen.insert(n) && n % 10 < STATUSES.len()).then(|| (STATUSES[n % 10], "some_exception", "busy"))
        };
        let fates: Vec<_> = bulk.items.iter().map(&mut fate).collect();
        Answer::Items(fates)
    });
    rig.produce(0..1_000, "a")?;
    rig.start()?;
    rig.wait_documents(1_000)?;
    for status in STATUSES {
        let retries = rig.metric("indexer_item_retries_total", &[&format!("status=\"{status}\"")])?;
        assert_eq!(retries, 100.0, "{status}");
    }
    assert_eq!(rig.fake.num_items(), 1_600, "only what failed is sent again");
    rig.judge(1_000, &[])
}

/// Documents are held, which is told, and go on when the cause is gone; nothing goes to the dead letters. The index is there,
/// so that the class alone decides.
fn check_held(name: &str, failure: ItemFailure, words: &str) -> Result<()> {
    let mut rig = IndexerRig::new(name, 1, "max_backoff: 1s")?;
    rig.produce(0..10, "a")?;
    rig.start()?;
    rig.kafka.wait_no_lag(&rig.name, &rig.name, LIMIT)?;
    check_held_since(rig, 10, failure, words)
}

fn check_held_since(mut rig: IndexerRig, first: usize, failure: ItemFailure, words: &str) -> Result<()> {
    let (fails, is_failing) = switch();
    rig.fake.script(move |bulk| Answer::items(bulk, |_| is_failing().then_some(failure)));
    rig.produce(first..100, "a")?;
    rig.wait_blocked("index_held")?;
    let (_, body) = rig.ready()?;
    ensure!(body.contains(words), "{body}");
    // Longer than a blocked index would be waited for.
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!((rig.num_letters()?, rig.kafka.lag(&rig.name, &rig.name)?), (0, 100 - first as i64));
    fails.store(false, Ordering::SeqCst);
    rig.judge(100, &[])
}

#[test]
fn systemic_401_of_items_holds() -> Result<()> {
    check_held("class-401", (401, "security_exception", "missing authentication"), "missing authentication")
}

#[test]
fn systemic_403_of_a_role_holds() -> Result<()> {
    let reason = "action [indices:data/write/bulk[s]] is unauthorized for user [u] on indices [a]";
    check_held("class-403", (403, "security_exception", reason), "unauthorized")
}

#[test]
fn systemic_404_of_an_index_holds() -> Result<()> {
    check_held("class-404", (404, "index_not_found_exception", "no such index [a]"), "no such index")
}

#[test]
fn systemic_a_missing_pipeline_holds() -> Result<()> {
    let reason = "pipeline with id [nowhere] does not exist";
    check_held("class-pipeline", (400, "illegal_argument_exception", reason), "nowhere")
}

#[test]
fn systemic_an_index_that_may_not_be_created_holds() -> Result<()> {
    let reason = "Validation Failed: 1: this action would add [2] shards, but this cluster currently has [1000]/[1000] maximum normal shards open;";
    check_held("class-shards", (400, "validation_exception", reason), "shards open")
}

#[test]
fn systemic_the_same_error_on_every_item_of_a_new_index_holds() -> Result<()> {
    let reason = "Failed to parse mapping: analyzer [missing] has not been configured in mappings";
    let mut rig = IndexerRig::new("class-same", 1, "max_backoff: 1s")?;
    rig.start()?;
    check_held_since(rig, 0, (400, "mapper_parsing_exception", reason), "has not been configured")
}

#[test]
fn blocked_a_closed_index_waits_and_then_goes_to_the_dead_letters() -> Result<()> {
    let mut rig = IndexerRig::new("class-closed", 1, "")?;
    rig.fake.script(|bulk| {
        Answer::items(bulk, |item| (item.index == "old").then_some((400, "index_closed_exception", "closed")))
    });
    rig.produce(0..10, "old")?;
    rig.produce(10..100, "new")?;
    rig.start()?;
    rig.wait_documents(90)?;
    assert_eq!(rig.num_letters()?, 0, "they wait first");
    wait::until_true("the dead letters", LIMIT, || Ok(rig.num_letters()? == 10))?;
    for letter in rig.kafka.read_topic(&format!("{}.dlq", rig.name))? {
        assert_eq!(letter.header("dlq.reason").as_deref(), Some("index_blocked"));
        assert_eq!(letter.header("dlq.error.type").as_deref(), Some("index_closed_exception"));
    }
    rig.judge(100, &(0..10).collect::<Vec<_>>())
}

#[test]
fn blocked_what_exceeds_the_parked_bytes_goes_to_the_dead_letters_at_once() -> Result<()> {
    const PARKED: f64 = 65_536.0;
    let mut rig = IndexerRig::new("class-parked", 1, "parked_bytes: 64KiB")?;
    rig.reconfigure("index_wait: 3s", "index_wait: 10m")?;
    let (blocks, is_blocking) = switch();
    rig.fake.script(move |bulk| {
        Answer::items(bulk, |item| {
            (item.index == "old" && is_blocking()).then_some((
                403,
                "cluster_block_exception",
                "FORBIDDEN/8/index write (api)",
            ))
        })
    });
    rig.produce(0..2_000, "old")?;
    rig.produce(2_000..2_500, "new")?;
    rig.start()?;
    rig.wait_documents(500)?;
    let parked = || rig.metric("indexer_parked_bytes", &[]);
    wait::until_true("the room for parked documents to be used up", LIMIT, || {
        Ok(rig.num_letters()? > 500 && parked()? > PARKED * 0.9)
    })?;
    ensure!(parked()? <= PARKED, "{}", parked()?);
    let num_letters = rig.num_letters()?;
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(rig.num_letters()?, num_letters, "what is parked stays parked");
    blocks.store(false, Ordering::SeqCst);
    rig.wait_documents(2_500 - num_letters as usize)?;
    wait::until_true("nothing to be parked", LIMIT, || Ok(parked()? == 0.0))?;
    let dead = rig.kafka.read_topic(&format!("{}.dlq", rig.name))?;
    let dead: Vec<usize> = dead.iter().map(|letter| Ok(number(&letter.text())? as usize)).collect::<Result<_>>()?;
    rig.judge(2_500, &dead)
}

#[test]
fn document_every_other_4xx_goes_to_the_dead_letters_after_one_request() -> Result<()> {
    let mut rig = IndexerRig::new("class-document", 1, "")?;
    rig.fake.script(|bulk| {
        Answer::items(bulk, |item| match number(&item.document) {
            Ok(7) => Some((400, "document_parsing_exception", "failed to parse field [n] of type [date]")),
            Ok(8) => Some((405, "some_exception", "not so")),
            Ok(9) => Some((413, "some_exception", "too large")),
            Ok(10) => Some((422, "some_exception", "not so")),
            _ => None,
        })
    });
    rig.produce(0..100, "a")?;
    rig.start()?;
    wait::until_true("the dead letters", LIMIT, || Ok(rig.num_letters()? == 4))?;
    for letter in rig.kafka.read_topic(&format!("{}.dlq", rig.name))? {
        assert_eq!(letter.header("dlq.reason").as_deref(), Some("refused"));
        assert_eq!(letter.header("dlq.attempts").as_deref(), Some("1"));
    }
    assert_eq!(rig.fake.num_items(), 100);
    rig.judge(100, &[7, 8, 9, 10])
}

#[test]
fn whole_a_request_without_a_reply_in_time_is_sent_again() -> Result<()> {
    let mut rig = IndexerRig::new("class-timeout", 1, "")?;
    rig.reconfigure("request_timeout: 5s", "request_timeout: 2s")?;
    rig.fake.script(|bulk| match bulk.number {
        0 => Answer::After(Duration::from_secs(4), Box::new(Answer::Index)),
        _ => Answer::Index,
    });
    rig.produce(0..100, "a")?;
    rig.start()?;
    rig.kafka.wait_no_lag(&rig.name, &rig.name, LIMIT)?;
    let bulks = rig.fake.bulks();
    let of = |bulk: &Bulk| bulk.items.iter().map(|item| item.id.clone()).collect::<Vec<_>>();
    assert_eq!(of(&bulks[0]), of(&bulks[1]), "the same request");
    ensure!(bulks[1].at.duration_since(bulks[0].at) >= Duration::from_secs(2));
    rig.judge(100, &[])
}

#[test]
fn whole_of_many_requests_429_slows_down_and_does_not_stop() -> Result<()> {
    let mut rig = IndexerRig::new("class-429", 2, "max_documents: 50")?;
    rig.fake.script(|bulk| match bulk.num_running > 2 {
        true => Answer::refuse(429),
        false => Answer::After(Duration::from_millis(30), Box::new(Answer::Index)),
    });
    rig.produce(0..20_000, "a")?;
    rig.start()?;
    rig.wait_documents(20_000)?;
    let num_refused = rig.metric("indexer_bulk_requests_total", &["code=\"429\""])?;
    ensure!(num_refused >= 1.0, "nothing was refused, so nothing was tested");
    let log = rig.indexer.as_ref().context("started above")?.output();
    ensure!(!log.contains("everything is held"), "{log}");
    rig.judge(20_000, &[])
}

#[test]
fn documents_without_our_ids_get_those_of_elasticsearch_and_letters_keep_ours() -> Result<()> {
    let mut rig = IndexerRig::new("no-ids", 2, "")?;
    rig.reconfigure("rules: [ { ", "rules: [ { document_id: none, ")?;
    rig.fake.script(|bulk| {
        Answer::items(bulk, |item| {
            let is_bad = number(&item.document).is_ok_and(|n| n == 7);
            is_bad.then_some((400, "document_parsing_exception", "failed to parse"))
        })
    });
    rig.produce(0..1_000, "a")?;
    rig.start()?;
    wait::until_true("the dead letter", LIMIT, || Ok(rig.num_letters()? == 1))?;
    ensure!(rig.fake.bulks().iter().flat_map(|bulk| &bulk.items).all(|item| item.id.starts_with("made-up-")));
    let letter = rig.kafka.read_topic(&format!("{}.dlq", rig.name))?.remove(0);
    let id = letter.header("millrace.id").context("no id")?;
    ensure!(id.starts_with("indexer-no-ids-"), "{id}");
    let log = rig.indexer.as_ref().context("started above")?.output();
    ensure!(log.contains("document_id: none") && log.contains("is indexed again"), "{log}");
    let dir = scratch::dir("no-ids-check")?;
    let mut check = Launch::indexer("check", &dir)?.args(["check", "-c"]).arg(rig.config()).start()?;
    assert_eq!(check.wait(LIMIT)?, 0);
    ensure!(check.output().contains("warning: rules[0].document_id: none"), "{}", check.output());
    rig.judge(1_000, &[7])
}

/// The mapping is full before the plan knows it: what the plan let through is folded after all.
#[test]
fn a_document_refused_for_a_mapping_that_changed_is_planned_anew() -> Result<()> {
    let (full, changed) = ("anew-full", "anew-changed");
    let mappings = || {
        json!({"dynamic": "true", "properties": {
            "n": {"type": "long"}, "@timestamp": {"type": "date"}, "attrs": {"type": "flattened"},
        }})
    };
    let lane = |name| Lane {
        settings: json!({"mapping.total_fields.limit": 20}),
        ..Lane::new(name, mappings(), "unmapped: fold, fold_into: attrs")
    };
    let mut rig = MappingRig::start("anew", &[lane(full), lane(changed)])?;
    for lane in [full, changed] {
        rig.produce(lane, [r#"{"n":0}"#])?;
        rig.settle(lane)?;
    }
    // Behind the plan's back: another's document fills the mapping, another's field is of another type.
    let mut filler = json!({});
    (0..20 - 3).for_each(|i| filler[format!("f{i}")] = i.into());
    let by_others = |index: &str, document| rig.elasticsearch.put_document(index, "of-others", &document);
    by_others(full, filler)?;
    by_others(changed, json!({"size": 7}))?;
    for index in [full, changed] {
        rig.elasticsearch.call("DELETE", &format!("/{index}/_doc/of-others"), None)?;
    }
    rig.produce(full, [r#"{"n":1,"fresh":5}"#, r#"{"n":2,"fresh":6}"#])?;
    rig.produce(changed, [r#"{"n":1,"size":"large"}"#, r#"{"n":2,"size":8}"#])?;
    let outcome = rig.settle(full)?;
    assert_eq!(outcome.document(1)?["attrs"], json!({"fresh": 5}));
    assert_eq!(outcome.document(2)?["attrs"], json!({"fresh": 6}));
    let outcome = rig.settle(changed)?;
    ensure!(outcome.document(1)?["attrs"].to_string().contains("large"), "{}", outcome.document(1)?);
    assert_eq!(outcome.document(2)?["size"], json!(8));
    assert_eq!(rig.metric("indexer_documents_planned_anew_total", &[])?, 3.0);
    rig.finish()
}
