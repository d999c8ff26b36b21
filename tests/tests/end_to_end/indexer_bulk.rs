//! The indexer against a scripted server that refuses, stumbles and lies: every record ends exactly once in the index or,
//! where the document itself is at fault, in the dead letters. Real broker, real HTTP.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use millrace_tests::fake_elasticsearch::{Answer, FakeElasticsearch, Item};
use millrace_tests::indexer_rig::{IndexerRig, LIMIT, number};
use millrace_tests::proxy::{Mode, Proxy};
use millrace_tests::{http, wait};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::json;

fn is_number(item: &Item, numbers: &[u64]) -> bool {
    number(&item.document).is_ok_and(|n| numbers.contains(&n))
}

#[test]
fn b01_items_pushed_back_inside_a_200_are_sent_again() -> Result<()> {
    let mut rig = IndexerRig::new("b01", 4, "")?;
    let started = Instant::now();
    rig.fake.script(move |bulk| {
        if started.elapsed() > Duration::from_secs(10) {
            return Answer::Index;
        }
        let mut at = 0;
        let failures = bulk.items.iter().map(|_| {
            at += 1;
            (at % 3 == 0).then_some((429, "es_rejected_execution_exception", "rejected execution"))
        });
        Answer::Items(failures.collect())
    });
    rig.start()?;
    rig.produce(0..30_000, "a")?;
    rig.judge(30_000, &[])
}

#[test]
fn b02_only_the_items_pushed_back_are_sent_again() -> Result<()> {
    let mut rig = IndexerRig::new("b02", 1, "max_documents: 1000")?;
    rig.produce(0..1_000, "a")?;
    rig.fake.script(|bulk| match bulk.number {
        0 => Answer::items(bulk, |item| {
            number(&item.document).is_ok_and(|n| n % 100 == 0).then_some((429, "es_rejected_execution_exception", ""))
        }),
        _ => Answer::Index,
    });
    rig.start()?;
    rig.wait_documents(1_000)?;
    assert_eq!(rig.fake.num_items(), 1_010);
    rig.judge(1_000, &[])
}

#[test]
fn b04_a_413_is_split_and_later_batches_stay_smaller() -> Result<()> {
    const BODY_LIMIT: usize = 256 << 10;
    let mut rig = IndexerRig::new("b04", 2, "max_bytes: 2MiB")?;
    rig.fake.script(|bulk| match bulk.bytes > BODY_LIMIT {
        true => Answer::Status(413, vec![("connection", "close".into())], String::new()),
        false => Answer::Index,
    });
    rig.produce(0..40_000, "a")?;
    rig.start()?;
    rig.wait_documents(40_000)?;
    let bulks = rig.fake.bulks();
    let num_refused = bulks.iter().filter(|bulk| bulk.bytes > BODY_LIMIT).count();
    assert!((1..=20).contains(&num_refused), "{num_refused} requests were too large");
    rig.produce(40_000..80_000, "a")?;
    rig.wait_documents(80_000)?;
    let later = &rig.fake.bulks()[bulks.len()..];
    assert!(later.iter().all(|bulk| bulk.bytes <= BODY_LIMIT), "a later request was too large");
    assert!(later.iter().any(|bulk| bulk.bytes > BODY_LIMIT / 8), "only tiny requests came");
    rig.judge(80_000, &[])
}

#[test]
fn b07_a_401_holds_everything_and_backs_off() -> Result<()> {
    let mut rig = IndexerRig::new("b07", 2, "")?;
    let started = Instant::now();
    rig.fake.script(move |_| match started.elapsed().as_secs() {
        0..6 => Answer::refuse(401),
        6..12 => Answer::refuse(403),
        _ => Answer::Index,
    });
    rig.produce(0..10_000, "a")?;
    rig.start()?;
    wait::until_true("readiness to fail", LIMIT, || {
        Ok(rig.ready().is_ok_and(|(status, body)| status == 503 && body.contains("forbidden")))
    })?;
    assert_eq!(rig.kafka.lag(&rig.name, &rig.name)?, 10_000);
    rig.wait_documents(10_000)?;
    let num_refused = rig.fake.bulks().iter().filter(|bulk| bulk.at.duration_since(started).as_secs() < 12).count();
    assert!(num_refused <= 12, "{num_refused} attempts in 12 s");
    assert_eq!(rig.num_letters()?, 0);
    rig.judge(10_000, &[])
}

#[test]
fn b16_a_400_is_bisected_down_to_the_culprit() -> Result<()> {
    let mut rig = IndexerRig::new("b16", 1, "max_documents: 1000, max_in_flight: 1")?;
    rig.produce(0..1_000, "a")?;
    rig.fake.script(|bulk| match bulk.items.iter().any(|item| is_number(item, &[617])) {
        true => Answer::refuse(400),
        false => Answer::Index,
    });
    rig.start()?;
    rig.wait_documents(999)?;
    wait::until_true("the dead letter", LIMIT, || Ok(rig.num_letters()? == 1))?;
    let num = rig.fake.bulks().len();
    assert!(num <= 22, "{num} requests");
    let letter = rig.kafka.read_topic(&format!("{}.dlq", rig.name))?.remove(0);
    assert_eq!(letter.header("dlq.status").as_deref(), Some("400"));
    assert_eq!(letter.header("dlq.reason").as_deref(), Some("refused"));
    assert_eq!(letter.header("dlq.offset").as_deref(), Some("617"));
    assert!(letter.text().contains("\"n\":617,"));
    rig.judge(1_000, &[617])
}

#[test]
fn b13_replies_that_are_not_about_the_items_index_nothing() -> Result<()> {
    let mut rig = IndexerRig::new("b13", 1, "max_documents: 100, max_in_flight: 1")?;
    rig.fake.script(|bulk| match bulk.number {
        0 => Answer::IndexThenSay("<html>all fine</html>".into()),
        2 => Answer::IndexThenSay(String::new()),
        4 => Answer::Status(502, Vec::new(), "<html>bad gateway</html>".into()),
        6 => Answer::IndexThenOmitOne,
        8 => Answer::IndexThenReverse,
        _ => Answer::Index,
    });
    rig.produce(0..1_000, "a")?;
    rig.start()?;
    rig.wait_documents(1_000)?;
    wait::until_true("the answers to be counted", LIMIT, || {
        Ok(rig.metric("indexer_bulk_requests_total", &["code=\"malformed\""])? == 4.0
            && rig.metric("indexer_bulk_requests_total", &["code=\"502\""])? == 1.0)
    })?;
    // What was kept before a false answer is met again as a duplicate.
    wait::until_true("all items to be settled", LIMIT, || {
        let of = |result: &str| rig.metric("indexer_documents_total", &[&format!("result=\"{result}\"")]);
        Ok(of("created")? + of("duplicate")? == 1_000.0)
    })?;
    rig.judge(1_000, &[])
}

#[test]
fn b14_a_connection_cut_after_processing_doubles_nothing() -> Result<()> {
    let mut rig = IndexerRig::new("b14", 2, "max_documents: 500")?;
    rig.fake.script(|bulk| if bulk.number % 5 == 0 { Answer::IndexThenCut } else { Answer::Index });
    rig.produce(0..10_000, "a")?;
    rig.start()?;
    rig.wait_documents(10_000)?;
    rig.fake.script(|_| Answer::Index);
    rig.judge(10_000, &[])
}

#[test]
fn b14_a_request_is_not_sent_again_while_the_first_is_worked_on() -> Result<()> {
    let mut rig = IndexerRig::new("b14-running", 1, "")?;
    rig.fake.script(|bulk| match bulk.number {
        0 => Answer::CutThenIndexAfter(Duration::from_secs(4)),
        _ => Answer::Index,
    });
    rig.produce(0..100, "a")?;
    rig.start()?;
    wait::until_true("two requests", LIMIT, || Ok(rig.fake.bulks().len() == 2))?;
    let bulks = rig.fake.bulks();
    assert!(bulks[1].at.duration_since(bulks[0].at) >= Duration::from_secs(4));
    wait::until_true("the duplicates", LIMIT, || {
        Ok(rig.metric("indexer_documents_total", &["result=\"duplicate\""])? == 100.0)
    })?;
    rig.judge(100, &[])
}

#[test]
fn b20_of_several_hosts_those_that_answer_are_used() -> Result<()> {
    let mut rig = IndexerRig::new("b20", 2, "max_documents: 100")?;
    let mut working = FakeElasticsearch::start()?;
    let silent = Proxy::start(working.address())?;
    silent.set(Mode::BlackHole)?;
    // The rig's own server refuses, one is silent, one works.
    let hosts = format!("{},{},http://{}", rig.fake.url(), working.url(), silent.addr());
    rig.launch = rig.launch.env("INDEXER_ELASTICSEARCH", hosts);
    rig.fake.close_port()?;
    rig.produce(0..5_000, "a")?;
    rig.start()?;
    let started = Instant::now();
    wait::until_true("the documents", LIMIT, || Ok(working.num_documents() == 5_000))?;
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    working.close_port()?;
    rig.fake.open_port()?;
    rig.produce(5_000..6_000, "a")?;
    let started = Instant::now();
    rig.wait_documents(1_000)?;
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    rig.kafka.wait_no_lag(&rig.name, &rig.name, LIMIT)
}

#[test]
fn b25_a_refused_request_waits_as_long_as_asked() -> Result<()> {
    let mut rig = IndexerRig::new("b25", 1, "")?;
    rig.fake.script(|bulk| match bulk.number {
        0 => Answer::Status(503, vec![("retry-after", "4".into())], String::new()),
        1 => Answer::Status(429, Vec::new(), String::new()),
        _ => Answer::Index,
    });
    rig.produce(0..10, "a")?;
    rig.start()?;
    rig.wait_documents(10)?;
    let bulks = rig.fake.bulks();
    assert!(bulks[1].at.duration_since(bulks[0].at) >= Duration::from_secs(4));
    rig.judge(10, &[])
}

#[test]
fn b08_a_blocked_index_waits_and_then_goes_to_the_dead_letters_while_others_flow() -> Result<()> {
    let mut rig = IndexerRig::new("b08", 1, "")?;
    rig.fake.script(|bulk| {
        Answer::items(bulk, |item| {
            let reason = "index [old] blocked by: [FORBIDDEN/8/index write (api)];";
            (item.index == "old").then_some((403, "cluster_block_exception", reason))
        })
    });
    rig.produce(0..10, "old")?;
    rig.produce(10..100, "new")?;
    rig.start()?;
    rig.wait_documents(90)?;
    assert_eq!(rig.num_letters()?, 0, "blocked documents wait first");
    wait::until_true("the dead letters", LIMIT, || Ok(rig.num_letters()? == 10))?;
    let letter = rig.kafka.read_topic(&format!("{}.dlq", rig.name))?.remove(0);
    assert_eq!(letter.header("dlq.reason").as_deref(), Some("index_blocked"));
    assert_eq!(letter.header("dlq.error.type").as_deref(), Some("cluster_block_exception"));
    assert_eq!(letter.header("dlq.index").as_deref(), Some("old"));
    rig.judge(100, &(0..10).collect::<Vec<_>>())
}

#[test]
fn b08_a_block_that_is_lifted_in_time_costs_nothing() -> Result<()> {
    let mut rig = IndexerRig::new("b08-lifted", 1, "")?;
    let mut first = None;
    rig.fake.script(move |bulk| {
        let blocked = first.get_or_insert_with(Instant::now).elapsed() < Duration::from_secs(2);
        Answer::items(bulk, |_| blocked.then_some((403, "cluster_block_exception", "FORBIDDEN/12")))
    });
    rig.produce(0..100, "a")?;
    rig.start()?;
    rig.judge(100, &[])
}

#[test]
fn b10_a_missing_index_holds() -> Result<()> {
    let mut rig = IndexerRig::new("b10", 1, "max_documents: 10")?;
    let mut first = None;
    rig.fake.script(move |bulk| match first.get_or_insert_with(Instant::now).elapsed().as_secs() {
        0..3 => Answer::refuse(404),
        3..6 => Answer::items(bulk, |_| Some((404, "index_not_found_exception", "no such index"))),
        _ => Answer::Index,
    });
    rig.produce(0..100, "a")?;
    rig.start()?;
    rig.judge(100, &[])
}

#[test]
fn m20_an_index_that_cannot_be_created_holds_instead_of_burying_its_documents() -> Result<()> {
    let mut rig = IndexerRig::new("m20", 1, "")?;
    let mut first = None;
    rig.fake.script(move |bulk| {
        let broken = first.get_or_insert_with(Instant::now).elapsed() < Duration::from_secs(5);
        Answer::items(bulk, |_| {
            broken.then_some((400, "mapper_parsing_exception", "No handler for type [not_analyzed]"))
        })
    });
    rig.produce(0..1_000, "a")?;
    rig.start()?;
    wait::until_true("readiness to fail", LIMIT, || {
        Ok(rig.ready().is_ok_and(|(status, body)| status == 503 && body.contains("not_analyzed")))
    })?;
    rig.judge(1_000, &[])
}

#[test]
fn b24_one_document_that_elasticsearch_refuses_goes_to_the_dead_letters() -> Result<()> {
    let mut rig = IndexerRig::new("b24", 2, "")?;
    rig.fake.script(|bulk| {
        Answer::items(bulk, |item| {
            let reason = "[1:5] failed to parse field [n] of type [date] in document with id '1'";
            is_number(item, &[3, 55, 999]).then_some((400, "document_parsing_exception", reason))
        })
    });
    rig.produce(0..1_000, "a")?;
    rig.start()?;
    wait::until_true("the dead letters", LIMIT, || Ok(rig.num_letters()? == 3))?;
    let letter = rig.kafka.read_topic(&format!("{}.dlq", rig.name))?.remove(0);
    assert_eq!(letter.header("dlq.field").as_deref(), Some("n"));
    assert_eq!(letter.header("dlq.error.type").as_deref(), Some("document_parsing_exception"));
    rig.judge(1_000, &[3, 55, 999])
}

#[test]
fn c04_a_closed_port_loses_nothing_and_kill_9_doubles_nothing() -> Result<()> {
    let mut rig = IndexerRig::new("c04", 4, "max_documents: 200")?;
    rig.fake.script(|_| Answer::After(Duration::from_millis(20), Box::new(Answer::Index)));
    rig.produce(0..20_000, "a")?;
    rig.start()?;
    rig.wait_documents(2_000)?;
    rig.fake.close_port()?;
    wait::until_true("readiness to fail", LIMIT, || Ok(rig.ready().is_ok_and(|(status, _)| status == 503)))?;
    let live = http::get(&format!("http://{}/livez", rig.admin))?.status;
    assert_eq!(live, 200);
    rig.indexer.take().context("started above")?.kill9()?;
    rig.start()?;
    std::thread::sleep(Duration::from_secs(2));
    rig.fake.open_port()?;
    rig.judge(20_000, &[])
}

#[test]
fn c10_null_values_are_skipped_and_counted() -> Result<()> {
    let mut rig = IndexerRig::new("c10", 1, "")?;
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", rig.kafka.bootstrap()).create()?;
    for n in 0..50_000 {
        let key = format!("k{n}");
        producer.send(BaseRecord::<str, [u8]>::to(&rig.name).key(&key)).map_err(|(error, _)| error)?;
    }
    producer.flush(LIMIT)?;
    rig.start()?;
    rig.kafka.wait_no_lag(&rig.name, &rig.name, LIMIT)?;
    rig.produce(0..100, "a")?;
    rig.wait_documents(100)?;
    wait::until_true("all to be counted", LIMIT, || {
        Ok(rig.metric("indexer_skipped_records_total", &["reason=\"null\""])? == 50_000.0)
    })?;
    rig.judge(100, &[])
}

#[test]
fn c11_what_retention_took_is_counted_exactly() -> Result<()> {
    let mut rig = IndexerRig::new("c11", 1, "max_documents: 100")?;
    rig.produce(0..4_000, "a")?;
    rig.start()?;
    rig.wait_documents(4_000)?;
    rig.kafka.wait_no_lag(&rig.name, &rig.name, LIMIT)?;
    assert_eq!(rig.indexer.take().context("started above")?.terminate(LIMIT)?, 0);
    rig.produce(4_000..10_000, "a")?;
    let before = rig.kafka.end_offsets(&rig.name)?.into_keys().map(|partition| (partition, 7_000)).collect();
    rig.kafka.delete_records(&rig.name, &before)?;
    rig.start()?;
    rig.wait_documents(7_000)?;
    rig.kafka.wait_no_lag(&rig.name, &rig.name, LIMIT)?;
    wait::until_true(
        "the loss to be counted",
        LIMIT,
        || Ok(rig.metric("indexer_lost_records_total", &[])? == 3_000.0),
    )?;
    assert_eq!(rig.fake.num_documents(), 7_000);
    Ok(())
}

#[test]
fn b26_a_dead_letter_topic_that_refuses_holds_the_commit() -> Result<()> {
    let mut rig = IndexerRig::new("b26", 1, "")?;
    let letters = format!("{}.dlq", rig.name);
    rig.kafka.delete_topic(&letters)?;
    let bad: Vec<String> = (0..20).map(|n| format!("{{\"n\":{n},")).collect();
    rig.kafka.produce(&rig.name, None, bad.iter().map(|value| ("", value.as_str())))?;
    rig.produce(20..100, "a")?;
    rig.start()?;
    rig.wait_documents(80)?;
    wait::until_true("readiness to fail", LIMIT, || {
        Ok(rig.ready().is_ok_and(|(status, body)| status == 503 && body.contains("dead_letter_topic")))
    })?;
    assert_eq!(rig.kafka.lag(&rig.name, &rig.name)?, 100, "nothing may be committed past the first bad record");
    rig.kafka.create_topic(&letters, 1, &[])?;
    wait::until_true("the dead letters", LIMIT, || Ok(rig.num_letters()? == 20))?;
    rig.kafka.wait_no_lag(&rig.name, &rig.name, LIMIT)?;
    let letter = rig.kafka.read_topic(&letters)?.remove(0);
    assert_eq!(letter.text(), bad[letter.header("dlq.offset").context("no offset")?.parse::<usize>()?]);
    assert_eq!(letter.header("dlq.reason").as_deref(), Some("not_json"));
    assert_eq!(json!(letter.header("dlq.topic")), json!(rig.name));
    Ok(())
}

#[test]
fn b26_a_letter_too_large_for_its_topic_is_parked_in_parts() -> Result<()> {
    let mut rig = IndexerRig::new("b26-parts", 1, "")?;
    let letters = format!("{}.dlq", rig.name);
    rig.kafka.delete_topic(&letters)?;
    rig.kafka.create_topic(&letters, 1, &[("max.message.bytes", "4096")])?;
    // Not to be compressed away, since the limit is for compressed batches.
    let mut random = 1_u64;
    let noise = std::iter::repeat_with(|| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{:016x}", random)
    });
    let bad = format!("{{\"n\":0,\"message\":\"{}", noise.take(2_000).collect::<String>());
    rig.kafka.produce(&rig.name, None, [("", bad.as_str())])?;
    rig.produce(1..50, "a")?;
    rig.start()?;
    rig.wait_documents(49)?;
    rig.kafka.wait_no_lag(&rig.name, &rig.name, LIMIT)?;
    let mut parts: BTreeMap<(usize, usize), String> = BTreeMap::new();
    for part in rig.kafka.read_topic(&letters)? {
        let place = part.header("dlq.chunk").context("no place")?;
        let (number, num) = place.split_once('/').context("not a place")?;
        parts.insert((num.parse()?, number.parse()?), part.text());
    }
    let num = parts.keys().map(|(num, _)| *num).max().context("no letters")?;
    let whole: String = parts.iter().filter(|((of, _), _)| *of == num).map(|(_, text)| text.as_str()).collect();
    assert!(whole == bad, "{} of {} bytes in {num} parts", whole.len(), bad.len());
    Ok(())
}
