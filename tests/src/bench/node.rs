//! One Elasticsearch node: the indexer beside finished bulk bodies, which cost their sender nothing.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rdkafka::Message as _;
use serde_json::json;

use super::Plan;
use super::measure::{self, Side, Usage};
use super::out::{self, NUM_PARTITIONS, PATIENCE, fill};
use super::report::{Report, Yardstick};
use crate::elasticsearch::{self, Elasticsearch};
use crate::kafka::Kafka;
use crate::{http, scratch, wait};

const TOPIC: &str = "bench-node";
/// Of one body, as many as the indexer puts into one by default.
const DOCUMENTS: usize = 5000;
/// Bodies on their way at a time: more than a node of two cores works on.
const CONNECTIONS: usize = 4;

pub(super) fn measure(plan: &Plan, kafka: &Kafka, report: &mut Report) -> Result<()> {
    if !plan.wants("indexer on a node") {
        return Ok(());
    }
    let dir = scratch::dir("bench-node")?;
    let num = fill(kafka, &dir, TOPIC, NUM_PARTITIONS, plan.num_records / 2)?;
    let bodies = bodies(kafka)?;
    let node = Elasticsearch::start(&elasticsearch::Options {
        heap_mib: 2048,
        is_brief: false,
        ..elasticsearch::Options::default()
    })?;
    node.call("PUT", "/_index_template/bench", Some(&out::template()))?;
    let yardstick = "the node's, finished bodies";
    let mut sides = [
        Side::new(yardstick, num, || {
            let sent = send(&node, &bodies, num)?;
            clear(&node, num)?;
            Ok(sent)
        }),
        Side::new("one node on the same machine: indexer", num, || {
            let settings = json!({"elasticsearch": {"hosts": [node.url()]}});
            let group = out::Group { kafka, dir: &dir, topic: TOPIC, num_instances: 1, settings };
            let indexed = group.run(|| took(&node, num))?;
            clear(&node, num)?;
            Ok(indexed)
        }),
    ];
    measure::in_turns(plan.num_runs, &mut sides)?;
    let [finished, indexed] = &sides;
    report.side(finished, None)?;
    report.side(indexed, Some(Yardstick { name: yardstick, runs: &finished.runs, share: 1.0 }))?;
    kafka.delete_topic(TOPIC)
}

/// The records of the topic as the indexer sends them.
fn bodies(kafka: &Kafka) -> Result<Vec<String>> {
    let (mut bodies, mut body, mut num) = (Vec::new(), String::new(), 0);
    kafka.for_each_record(TOPIC, |record| {
        let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        let (id, document) = (text(record.key()), text(record.payload()));
        body += &format!("{{\"create\":{{\"_index\":\"bench-logs\",\"_id\":\"{id}\"}}}}\n{document}\n");
        num += 1;
        if num % DOCUMENTS == 0 {
            bodies.push(std::mem::take(&mut body));
        }
    })?;
    bodies.extend(Some(body).filter(|body| !body.is_empty()));
    Ok(bodies)
}

/// Sends all bodies. What it took is the node's.
fn send(node: &Elasticsearch, bodies: &[String], num: u64) -> Result<Usage> {
    let cpu_so_far = || node.with_process(|process| process.group_cpu_time());
    let before = cpu_so_far()?;
    let next = AtomicUsize::new(0);
    let url = format!("{}/_bulk?filter_path=errors,items.*._id,items.*.status", node.url());
    let wall = thread::scope(|scope| {
        let post = || -> Result<()> {
            while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
                let reply = http::request_as("POST", &url, Some(body.clone()), "application/x-ndjson", "bench")?;
                ensure!(reply.status == 200 && reply.body.contains(r#""errors":false"#), "{}", reply.status);
            }
            Ok(())
        };
        let senders: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(post)).collect();
        let wall = took(node, num);
        for sender in senders {
            sender.join().map_err(|_| anyhow::anyhow!("a sender panicked"))??;
        }
        wall
    })?;
    let peak_rss_bytes = node.with_process(|process| process.group_rss_bytes())?;
    Ok(Usage { wall, cpu: cpu_so_far()? - before, peak_rss_bytes })
}

/// What all documents would take at the rate from the first look at which some are there to the last, as the node counts.
fn took(node: &Elasticsearch, num: u64) -> Result<Duration> {
    let (since, before) = wait::until("the first document", PATIENCE, || {
        Ok(Some(indexed(node)?).filter(|count| *count > 0).map(|count| (Instant::now(), count)))
    })?;
    wait::until_true("all documents", PATIENCE, || Ok(indexed(node)? >= num))?;
    Ok(since.elapsed().mul_f64(num as f64 / (num - before).max(1) as f64))
}

fn indexed(node: &Elasticsearch) -> Result<u64> {
    let reply =
        node.request("GET", "/bench-logs/_stats/indexing?filter_path=_all.primaries.indexing.index_total", None)?;
    if reply.status != 200 {
        return Ok(0);
    }
    let reply: serde_json::Value = serde_json::from_str(&reply.body)?;
    Ok(reply["_all"]["primaries"]["indexing"]["index_total"].as_u64().unwrap_or(0))
}

fn clear(node: &Elasticsearch, num: u64) -> Result<()> {
    node.refresh("bench-*")?;
    let count = node.count("bench-*")?;
    ensure!(count == num, "{count} of {num} documents are in the index");
    node.call("DELETE", "/bench-logs", None)?;
    Ok(())
}
