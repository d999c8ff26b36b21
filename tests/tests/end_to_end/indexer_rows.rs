//! Rows of the failure catalogue about refusals, odd replies and what an operator sees of them: real broker, scripted server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use millrace_tests::elasticsearch::Elasticsearch;
use millrace_tests::fake_elasticsearch::{Answer, Bulk, Item};
use millrace_tests::indexer_rig::{IndexerRig, LIMIT, number};
use millrace_tests::kafka::Proxied;
use millrace_tests::wait;
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};

/// A switch that a script reads while the test goes on.
fn switch() -> (Arc<AtomicBool>, impl Fn() -> bool + Send + 'static) {
    let switch = Arc::new(AtomicBool::new(true));
    let reader = Arc::clone(&switch);
    (switch, move || reader.load(Ordering::SeqCst))
}

fn is_number(item: &Item, numbers: &[u64]) -> bool {
    number(&item.document).is_ok_and(|n| numbers.contains(&n))
}

#[test]
fn c05_a_batch_refused_with_401_is_not_skipped() -> Result<()> {
    let mut rig = IndexerRig::new("c05", 1, "max_documents: 1, max_in_flight: 1, max_backoff: 1s")?;
    let (refuses, is_refusing) = switch();
    rig.fake.script(move |bulk| match bulk.number > 0 && is_refusing() {
        true => Answer::refuse(401),
        false => Answer::Index,
    });
    rig.produce(0..20, "a")?;
    rig.start()?;
    rig.wait_documents(1)?;
    rig.wait_blocked("forbidden")?;
    let is_held = || -> Result<()> {
        let committed = rig.kafka.committed(&rig.name, &rig.name)?;
        ensure!(committed.values().sum::<i64>() <= 1, "committed past the refused record: {committed:?}");
        ensure!(rig.fake.num_documents() == 1);
        Ok(())
    };
    is_held()?;
    rig.indexer.take().context("started above")?.kill9()?;
    rig.start()?;
    rig.wait_blocked("forbidden")?;
    let is_held = rig.kafka.committed(&rig.name, &rig.name)?.values().sum::<i64>() <= 1;
    ensure!(is_held && rig.fake.num_documents() == 1, "it went on after the restart");
    refuses.store(false, Ordering::SeqCst);
    rig.judge(20, &[])
}

#[test]
fn c17_a_record_larger_than_a_fetch_is_indexed() -> Result<()> {
    let mut rig = IndexerRig::with_options("c17", 1, "", "fetch.message.max.bytes: 100000")?;
    let large = format!(r#"{{"n":500,"service":{{"name":"a"}},"message":"{}"}}"#, "x".repeat(900_000));
    rig.produce(0..500, "a")?;
    rig.kafka.produce(&rig.name, None, [("", large.as_str())])?;
    rig.produce(501..1_001, "a")?;
    rig.start()?;
    let started = Instant::now();
    rig.wait_documents(1_001)?;
    ensure!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    rig.judge(1_001, &[])
}

#[test]
fn b05_with_gzip_the_limit_counts_unpacked_bytes_and_every_body_is_whole() -> Result<()> {
    const BODY_LIMIT: usize = 1 << 20;
    let mut rig = IndexerRig::new("b05", 2, "max_bytes: 10MiB, max_documents: 100000")?;
    rig.reconfigure("request_timeout: 5s", "request_timeout: 5s, compression: gzip")?;
    // Batches end by their size, however slow the machine is.
    rig.reconfigure("max_delay: 100ms", "max_delay: 3s")?;
    // The server refuses a body whose last line is cut or whose lines are not JSON.
    rig.fake.script(|bulk| match bulk.bytes > BODY_LIMIT {
        true => Answer::Status(413, Vec::new(), String::new()),
        false => Answer::Index,
    });
    rig.produce(0..100_000, "a")?;
    rig.start()?;
    rig.wait_documents(100_000)?;
    let bulks = rig.fake.bulks();
    ensure!(bulks.iter().all(|bulk| bulk.is_packed), "a body was not packed");
    let num_refused = bulks.iter().filter(|bulk| bulk.bytes > BODY_LIMIT).count();
    ensure!((1..=30).contains(&num_refused), "{num_refused} requests were too large");
    ensure!(rig.metric("indexer_bulk_requests_total", &["code=\"400\""])? == 0.0);
    rig.judge(100_000, &[])
}

#[test]
fn b11_operation_names_order_extra_fields_and_layout_of_a_reply_do_not_matter() -> Result<()> {
    let mut rig = IndexerRig::new("b11", 1, "max_documents: 50")?;
    rig.fake.script(|bulk| {
        let item = |(at, item): (usize, &Item)| {
            let operation = ["create", "index", "update"][at % 3];
            json!({operation: {
                "_seq_no": 7, "forced_refresh": false, "status": 201, "x": {"status": 500, "error": {}},
                "_id": item.id, "_index": item.index, "new": [1, {"_id": "other"}],
            }})
        };
        let items: Vec<Value> = bulk.items.iter().enumerate().map(item).collect();
        let items = serde_json::to_string_pretty(&items).unwrap_or_default();
        Answer::IndexThenSay(format!("\n{{\n  \"ingest_took\" : 3,\n  \"items\" : {items},\n\t\"errors\" : false }}\n"))
    });
    rig.produce(0..1_000, "a")?;
    rig.start()?;
    rig.kafka.wait_no_lag(&rig.name, &rig.name, LIMIT)?;
    assert_eq!(rig.metric("indexer_documents_total", &["result=\"created\""])?, 1_000.0);
    assert_eq!(rig.metric("indexer_bulk_requests_total", &["code=\"malformed\""])?, 0.0);
    assert_eq!(rig.fake.num_items(), 1_000, "nothing is sent twice");
    rig.judge(1_000, &[])
}

/// Ids of ours never come near the limit: what is too long to be one is hashed with the rest of the record.
#[test]
fn b17_keys_and_ids_over_512_bytes_cost_no_document() -> Result<()> {
    let elasticsearch = Elasticsearch::shared()?;
    let mut rig = IndexerRig::new("b17", 1, "")?;
    rig.launch = rig.launch.env("INDEXER_ELASTICSEARCH", elasticsearch.url());
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", rig.kafka.bootstrap()).create()?;
    let lengths = [511, 512, 513, 2_000];
    for n in 0..1_000 {
        let value = format!(r#"{{"n":{n},"service":{{"name":"b17"}}}}"#);
        let length = lengths[n % 4];
        let long = if n % 8 < 4 { "k".repeat(length) } else { "é".repeat(length / 2) + &"k".repeat(length % 2) };
        assert_eq!(long.len(), length);
        let mut record = BaseRecord::to(&rig.name).payload(&value).key(&long);
        if n % 100 < 8 {
            // Replayed ids: each is that of one record.
            let id = format!("{n:03}{}", "k".repeat(length - 3));
            record = record.headers(OwnedHeaders::new().insert(Header { key: "millrace.id", value: Some(&id) }));
        }
        producer.send(record).map_err(|(error, _)| error)?;
    }
    producer.flush(LIMIT)?;
    rig.start()?;
    rig.kafka.wait_no_lag(&rig.name, &rig.name, LIMIT)?;
    assert_eq!(elasticsearch.count("b17")?, 1_000);
    assert_eq!(rig.num_letters()?, 0);
    assert_eq!(rig.metric("indexer_bulk_requests_total", &["code=\"400\""])?, 0.0, "no request failed for an id");
    Ok(())
}

#[test]
fn b23_a_request_that_one_document_spoils_for_ever_is_bisected() -> Result<()> {
    let mut rig = IndexerRig::new("b23", 1, "max_documents: 1000, max_in_flight: 1")?;
    rig.fake.script(|bulk| match bulk.items.iter().find(|item| is_number(item, &[999])) {
        Some(item) => {
            let reason = format!("The number of object passed must be even but was [1] for [{}]", item.id);
            let error = json!({"error": {"type": "illegal_argument_exception", "reason": reason}, "status": 400});
            Answer::Status(400, Vec::new(), error.to_string())
        }
        None => Answer::Index,
    });
    rig.produce(0..1_000, "a")?;
    rig.start()?;
    let started = Instant::now();
    rig.wait_documents(999)?;
    wait::until_true("the dead letter", LIMIT, || Ok(rig.num_letters()? == 1))?;
    ensure!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    let num = rig.fake.bulks().len();
    ensure!(num as f64 <= 2.0 * 1_000_f64.log2() + 2.0, "{num} requests");
    let letter = rig.kafka.read_topic(&format!("{}.dlq", rig.name))?.remove(0);
    let message = letter.header("dlq.error.message").context("no message")?;
    ensure!(message.contains("must be even"), "{message}");
    rig.judge(1_000, &[999])
}

/// The counters against the harness's own count.
fn check_accounts(rig: &IndexerRig, num: f64) -> Result<()> {
    let documents = |result: &str| rig.metric("indexer_documents_total", &[&format!("result=\"{result}\"")]);
    let finished = || -> Result<f64> {
        let results = ["created", "duplicate", "dead_lettered", "skipped"].map(documents);
        results.into_iter().sum()
    };
    wait::until_true("all to be counted", LIMIT, || Ok(finished()? == num))?;
    ensure!(rig.metric("indexer_consumed_records_total", &[])? == num);
    wait::until_true("nothing to be on its way", LIMIT, || Ok(rig.metric("indexer_unfinished_bytes", &[])? == 0.0))
}

#[test]
fn o01_only_the_items_that_failed_are_counted() -> Result<()> {
    let mut rig = IndexerRig::new("o01", 1, "max_documents: 1000")?;
    rig.fake.script(|bulk| {
        let bad = (400, "document_parsing_exception", "failed to parse");
        let busy = (429, "es_rejected_execution_exception", "full");
        let is_first = bulk.items.len() >= 990;
        Answer::items(bulk, |item| match number(&item.document).unwrap_or_default() {
            1 | 2 | 503 => Some(bad),
            n if n >= 3 && n % 100 == 0 && is_first => Some(busy),
            _ => None,
        })
    });
    rig.start()?;
    rig.produce(0..3, "a")?;
    let dead = || rig.metric("indexer_documents_total", &["result=\"dead_lettered\""]);
    wait::until_true("two dead letters", LIMIT, || Ok(dead()? == 2.0))?;
    check_accounts(&rig, 3.0)?;
    rig.produce(3..1_003, "a")?;
    wait::until_true("one more dead letter", LIMIT, || Ok(dead()? == 3.0))?;
    check_accounts(&rig, 1_003.0)?;
    assert_eq!(rig.metric("indexer_item_retries_total", &[])?, 10.0);
    assert_eq!(rig.metric("indexer_item_retries_total", &["status=\"429\""])?, 10.0);
    assert_eq!(rig.metric("indexer_dead_letters_total", &["reason=\"refused\""])?, 3.0);
    rig.judge(1_003, &[1, 2, 503])
}

#[test]
fn o05_a_server_that_never_answers_is_told_and_the_member_stays() -> Result<()> {
    let mut rig = IndexerRig::new("o05", 2, "max_documents: 100, max_backoff: 2s")?;
    // The default, longer than the time within which it must be told.
    rig.reconfigure("request_timeout: 5s", "request_timeout: 60s")?;
    let (hangs, is_hanging) = switch();
    rig.fake.script(move |bulk| match bulk.number > 2 && is_hanging() {
        true => Answer::After(Duration::from_secs(24), Box::new(Answer::Index)),
        false => Answer::Index,
    });
    rig.produce(0..2_000, "a")?;
    rig.start()?;
    rig.wait_blocked("no_reply")?;
    let before = rig.metric("indexer_lag_seconds", &[])?;
    ensure!(rig.is_live()?);
    wait::until_true("the lag to grow", LIMIT, || Ok(rig.metric("indexer_lag_seconds", &[])? >= before + 3.0))?;
    hangs.store(false, Ordering::SeqCst);
    rig.wait_ready(LIMIT)?;
    ensure!(rig.metric("indexer_rebalances_total", &[])? == 1.0, "it left its group");
    rig.judge(2_000, &[])
}

#[test]
fn o07_lag_grows_with_the_log_while_nothing_flows() -> Result<()> {
    let mut rig = IndexerRig::new("o07", 2, "max_documents: 100, max_backoff: 1s")?;
    let (refuses, is_refusing) = switch();
    rig.fake.script(move |_| if is_refusing() { Answer::refuse(503) } else { Answer::Index });
    rig.start()?;
    let lag = || rig.metric("indexer_lag_records", &[]);
    for num in [1_000, 3_000, 6_000] {
        let produced = rig.kafka.end_offsets(&rig.name)?.values().sum::<i64>() as usize;
        rig.produce(produced..num, "a")?;
        wait::until_true(&format!("a lag of {num}"), Duration::from_secs(20), || Ok(lag()? == num as f64))?;
    }
    refuses.store(false, Ordering::SeqCst);
    rig.wait_documents(6_000)?;
    wait::until_true("no lag", Duration::from_secs(20), || Ok(lag()? == 0.0))?;
    rig.judge(6_000, &[])
}

#[test]
fn o04_readiness_fails_with_the_server_and_comes_back() -> Result<()> {
    let mut rig = IndexerRig::new("o04", 2, "max_backoff: 5s")?;
    let (refuses, is_refusing) = switch();
    rig.fake.script(move |bulk: &Bulk| match bulk.number > 0 && is_refusing() {
        true => Answer::refuse(503),
        false => Answer::Index,
    });
    rig.start()?;
    rig.produce(0..10, "a")?;
    rig.wait_documents(1)?;
    rig.wait_ready(LIMIT)?;
    rig.produce(10..1_000, "a")?;
    rig.wait_blocked("overloaded")?;
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        ensure!(rig.is_live()? && rig.ready()?.0 == 503, "readiness came back while nothing flows");
        std::thread::sleep(Duration::from_millis(500));
    }
    refuses.store(false, Ordering::SeqCst);
    rig.wait_ready(Duration::from_secs(10))?;
    ensure!(rig.is_live()?);
    rig.judge(1_000, &[])
}

#[test]
fn o04_readiness_fails_with_the_broker_and_comes_back() -> Result<()> {
    use millrace_tests::proxy::Mode;
    let broker = Proxied::take()?;
    let mut rig = IndexerRig::on(broker.kafka(), &broker.proxy().addr().to_string(), "o04-broker", 4, "", "")?;
    rig.start()?;
    rig.produce(0..100, "a")?;
    rig.wait_documents(100)?;
    rig.wait_ready(LIMIT)?;
    broker.set(Mode::BlackHole)?;
    rig.wait_blocked("kafka_unreachable")?;
    ensure!(rig.is_live()?);
    broker.set(Mode::Pass)?;
    rig.wait_ready(Duration::from_secs(10))?;
    rig.produce(100..200, "a")?;
    rig.judge(200, &[])
}

#[test]
fn o04_the_shipper_says_what_blocks_it_and_stays_ready() -> Result<()> {
    use millrace_tests::http;
    use millrace_tests::proxy::Mode;
    let broker = Proxied::take()?;
    let rig = broker.rig("o04-shipper", 2)?;
    let mut shipper = rig.start()?;
    rig.append("app.log", rig.lines("app.log", 0..100))?;
    rig.wait_for_records(100)?;
    broker.set(Mode::BlackHole)?;
    rig.append("app.log", rig.lines("app.log", 100..200))?;
    shipper.wait_blocked("unacknowledged")?;
    let blocked = shipper.status()?["blocked"].clone();
    ensure!(blocked.to_string().contains("unacknowledged"), "{blocked}");
    for path in ["livez", "readyz"] {
        // A sidecar's readiness gates its pod, which a broker must not.
        assert_eq!(http::get(&format!("http://{}/{path}", rig.admin()))?.status, 200, "{path}");
    }
    broker.set(Mode::Pass)?;
    shipper.wait_metric("shipper_blocked", &[], Duration::from_secs(10), |is_blocked| is_blocked == 0.0)?;
    rig.wait_until_whole(LIMIT)?;
    shipper.stop()
}
