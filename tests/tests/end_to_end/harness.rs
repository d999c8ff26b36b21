//! The harness itself on real servers: what the other tests stand on must hold.

use std::time::Duration;

use anyhow::Result;
use millrace_tests::elasticsearch::Elasticsearch;
use millrace_tests::kafka::{self, Kafka, Proxied};
use millrace_tests::process::Launch;
use millrace_tests::proxy::Mode;
use millrace_tests::{elasticsearch, scratch};
use serde_json::json;

fn numbered(range: std::ops::Range<u32>) -> Vec<(String, String)> {
    range.map(|n| (format!("key-{n}"), format!("value {n}"))).collect()
}

fn produce(kafka: &Kafka, topic: &str, range: std::ops::Range<u32>) -> Result<()> {
    let records = numbered(range);
    kafka.produce(topic, None, records.iter().map(|(key, value)| (&**key, &**value)))
}

#[test]
fn broker_keeps_records_over_kill_and_restart() -> Result<()> {
    let kafka = Kafka::start(&kafka::Options::default())?;
    kafka.create_topic("t", 3, &[("retention.ms", "-1")])?;
    produce(&kafka, "t", 0..1000)?;
    kafka.kill9()?;
    assert!(!kafka.is_ready()?);
    kafka.start_again()?;
    produce(&kafka, "t", 1000..1500)?;
    kafka.stop()?;
    kafka.start_again()?;

    let records = kafka.read_topic("t")?;
    let mut found: Vec<(String, String)> = records.iter().map(|record| (record.key_text(), record.text())).collect();
    let mut wanted = numbered(0..1500);
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted);
    let ends = kafka.end_offsets("t")?;
    assert_eq!(ends.values().sum::<i64>(), 1500);
    assert_eq!(kafka.lag("nobody", "t")?, 1500);

    kafka.delete_records("t", &ends)?;
    assert_eq!(kafka.read_topic("t")?.len(), 0);
    assert_eq!(kafka.start_offsets("t")?, ends);
    Ok(())
}

#[test]
fn topics_are_not_made_by_asking_for_them() -> Result<()> {
    let kafka = Kafka::shared()?;
    assert!(kafka.partitions("never-made")?.is_empty());
    assert!(kafka.read_topic("never-made").is_err());
    Ok(())
}

#[test]
fn clients_of_the_proxy_stay_behind_it() -> Result<()> {
    let broker = Proxied::take()?;
    let (kafka, proxy) = (broker.kafka(), broker.proxy());
    let outside = kafka::KafkaClient::new(&proxy.addr().to_string());
    kafka.create_topic("t", 1, &[])?;
    outside.produce("t", None, [("k", "v")])?;
    proxy.set(Mode::Refuse)?;
    assert!(!outside.is_ready()?);
    assert!(kafka.is_ready()?);
    proxy.set(Mode::Pass)?;
    assert_eq!(outside.read_topic("t")?.len(), 1);
    Ok(())
}

#[test]
fn node_keeps_documents_over_kill_and_restart() -> Result<()> {
    let node = Elasticsearch::start(&elasticsearch::Options::default())?;
    for n in 0..20 {
        node.put_document("logs-a", &format!("id-{n}"), &json!({"n": n}))?;
    }
    node.kill9()?;
    assert!(!node.is_ready());
    node.start_again()?;
    node.put_document("logs-b", "last", &json!({"n": 20}))?;
    node.stop()?;
    node.start_again()?;

    assert_eq!(node.count("logs-*")?, 21);
    assert_eq!(node.count("other-*")?, 0);
    assert_eq!(node.indices("logs-*")?, ["logs-a", "logs-b"]);
    let mut numbers: Vec<i64> =
        node.all_documents("logs-*")?.iter().filter_map(|found| found.source["n"].as_i64()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..21).collect::<Vec<i64>>());
    assert_eq!(node.mapping("logs-a")?["properties"]["n"]["type"], "long");
    Ok(())
}

#[test]
fn child_ends_by_signal_and_reports_its_exit_code() -> Result<()> {
    let dir = scratch::dir("child")?;
    let script = "trap 'echo bye; exit 7' TERM; echo hello; while :; do sleep 0.05; done";
    let launch = Launch::program("child", "sh", &dir.join("child.log")).args(["-c", script]);
    let mut child = launch.start()?;
    millrace_tests::wait::until_true("its first word", Duration::from_secs(10), || {
        Ok(child.output().contains("hello"))
    })?;
    assert!(child.rss_bytes().is_some_and(|bytes| bytes > 100_000));
    assert!(child.cpu_time().is_some());
    assert_eq!(child.terminate(Duration::from_secs(10))?, 7);
    assert_eq!(child.output(), "hello\nbye\n");
    assert!(child.kill9().is_err(), "it has ended already");

    let mut child = launch.start()?;
    child.kill9()?;
    assert_eq!(child.wait(Duration::from_secs(10))?, 128 + 9);
    Ok(())
}
