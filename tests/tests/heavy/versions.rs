//! The shipped templates and their rule on every server that is supported.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_tests::elasticsearch::{Elasticsearch, Options};
use millrace_tests::kafka::Kafka;
use millrace_tests::process::Launch;
use millrace_tests::{scratch, servers};
use serde_json::Value;

use crate::legacy;

const LIMIT: Duration = Duration::from_secs(120);
const NUM_RECORDS: u64 = 200;

/// Records become one document each, twice over; a bad one is parked; the template is the one of the files.
fn works_on(server: &str, flattened: &str) -> Result<()> {
    let node = Elasticsearch::start(&Options { server: server.to_owned(), ..Options::default() })?;
    let kafka = Kafka::shared()?;
    let name = format!("versions-{}", server.replace(':', "-"));
    kafka.create_topic(&name, 2, &[])?;
    kafka.create_topic(&format!("{name}.dlq"), 1, &[])?;
    let dir = scratch::dir(&name)?;
    let rule = "default: { service.name: none }, unmapped: fold, fold_into: attrs, on_conflict: reject";
    let config = legacy::configure(&dir, &name, kafka, &node, &servers::checkout().join("templates"), rule)?;
    let record = |n: u64| {
        format!(
            r#"{{"message":"line {n}","service":{{"name":"a"}},"n":{n},"http":{{"response":{{"status_code":200}}}}}}"#
        )
    };
    let records: Vec<String> = (0..NUM_RECORDS).map(record).collect();
    kafka.produce(&name, None, records.iter().map(|value| ("", value.as_str())))?;
    let bad = r#"{"message":"bad","service":{"name":"a"},"http":{"response":{"status_code":"none"}}}"#;
    kafka.produce(&name, None, [("", bad)])?;

    // The second group reads everything again.
    for group in [format!("{name}-first"), format!("{name}-again")] {
        let launch = Launch::indexer(&group, &dir)?.args(["run", "--group", &group, "-c"]).arg(&config);
        let mut indexer = launch.start()?;
        kafka.wait_no_lag(&group, &name, LIMIT)?;
        ensure!(indexer.terminate(Duration::from_secs(40))? == 0, "{}", indexer.log_tail());
        ensure!(node.count("applogs-a-*")? == NUM_RECORDS, "{group}: {}", node.count("applogs-a-*")?);
    }
    let letters = kafka.read_topic(&format!("{name}.dlq"))?;
    ensure!(letters.len() == 2 && letters.iter().all(|letter| letter.text() == bad), "{} letters", letters.len());
    ensure!(letters[0].header("millrace.id") == letters[1].header("millrace.id"));
    ensure!(letters[0].header("dlq.field").as_deref() == Some("http.response.status_code"));

    let template = node.call("GET", "/_index_template/logs", None)?;
    let template = &template["index_templates"][0]["index_template"];
    ensure!(template["_meta"]["managed_by"] == "millrace", "{template}");
    let index = node.indices("applogs-a-*")?.pop().context("no index")?;
    let mapping = node.mapping(&index)?;
    ensure!(mapping["properties"]["attrs"]["type"] == flattened, "{mapping}");
    ensure!(mapping["properties"].get("n").is_none(), "{mapping}");
    let found = node.search("applogs-a-*", &serde_json::json!({"query": {"term": {"attrs.n": "7"}}}))?;
    let hits: Vec<&Value> = found["hits"]["hits"].as_array().into_iter().flatten().collect();
    ensure!(hits.len() == 1 && hits[0]["_source"]["message"] == "line 7", "{found}");

    let diff = Launch::indexer("diff", &dir)?.args(["templates", "diff", "-c"]).arg(&config);
    let mut diff = diff.start()?;
    let code = diff.wait(LIMIT)?;
    ensure!(code == 0, "{}", diff.output());
    legacy::templates_rule_by_their_order(&node, &format!("{name}-legacy"), flattened)?;
    node.stop()
}

#[test]
fn elasticsearch_8_19_works() -> Result<()> {
    works_on("elasticsearch:8.19.7", "flattened")
}

#[test]
fn elasticsearch_7_17_works() -> Result<()> {
    works_on("elasticsearch:7.17.28", "flattened")
}

#[test]
fn elasticsearch_9_2_works() -> Result<()> {
    works_on("elasticsearch:9.2.0", "flattened")
}

#[test]
fn opensearch_2_19_works() -> Result<()> {
    works_on("opensearch:2.19.0", "flat_object")
}

#[test]
fn opensearch_3_3_works() -> Result<()> {
    works_on("opensearch:3.3.0", "flat_object")
}
