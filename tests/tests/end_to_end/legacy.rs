//! Legacy templates, which Elasticsearch merges by `order`, on whatever server is given.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_tests::elasticsearch::ElasticsearchClient;
use millrace_tests::kafka::Kafka;
use millrace_tests::process::Launch;
use millrace_tests::scratch;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(120);

/// Settings of an indexer for the topic of this name, with one rule and a dead letter topic. Returns their file.
pub fn configure(
    dir: &Path,
    name: &str,
    kafka: &Kafka,
    node: &ElasticsearchClient,
    templates: &Path,
    rule: &str,
) -> Result<PathBuf> {
    let config = dir.join("indexer.yaml");
    let text = format!(
        "kafka: {{ brokers: [\"{}\"], topics: [\"{name}\"], group: \"{name}\" }}\n\
         elasticsearch: {{ hosts: [\"{}\"] }}\n\
         bulk: {{ max_delay: 100ms }}\n\
         templates: {{ dir: {templates:?} }}\n\
         rules: [ {{ {rule} }} ]\n\
         dead_letter: {{ topic: \"{name}.dlq\" }}\n\
         admin: {{ listen: \"127.0.0.1:0\" }}\n",
        kafka.bootstrap(),
        node.url(),
    );
    fs::write(&config, text)?;
    Ok(config)
}

/// Two templates that both define `status`: the one of the higher order decides, for the server as for the plan.
pub fn templates_rule_by_their_order(node: &ElasticsearchClient, name: &str, flattened: &str) -> Result<()> {
    let kafka = Kafka::shared()?;
    kafka.create_topic(name, 1, &[])?;
    kafka.create_topic(&format!("{name}.dlq"), 1, &[])?;
    let dir = scratch::dir(name)?;
    let template = |order: u8, properties: Value| {
        json!({
            "index_patterns": [format!("{name}-*")],
            "order": order,
            "version": 1,
            "settings": {"index": {"number_of_replicas": 0}},
            "mappings": {"_meta": {"managed_by": "millrace"}, "dynamic": false, "properties": properties},
        })
    };
    let base = json!({"status": {"type": "keyword"}, "message": {"type": "text"}, "attrs": {"type": flattened}});
    fs::create_dir_all(dir.join("templates/legacy"))?;
    for (file, body) in [
        (format!("{name}-a-own"), template(2, json!({"status": {"type": "short"}}))),
        (format!("{name}-b-base"), template(1, base)),
    ] {
        fs::write(dir.join(format!("templates/legacy/{file}.json")), body.to_string())?;
    }
    let rule = format!("index: \"{name}-1\", unmapped: fold, fold_into: attrs, on_conflict: reject");
    let config = configure(&dir, name, kafka, node, &dir.join("templates"), &rule)?;
    // The first record meets the files alone: there is no index yet.
    let bad = r#"{"message":"bad","status":"none"}"#;
    kafka.produce(name, None, [("", bad), ("", r#"{"message":"good","status":200,"n":7}"#)])?;

    let mut indexer = Launch::indexer(name, &dir)?.args(["run", "-c"]).arg(&config).start()?;
    kafka.wait_no_lag(name, name, LIMIT)?;
    ensure!(indexer.terminate(Duration::from_secs(40))? == 0, "{}", indexer.log_tail());
    let letters = kafka.read_topic(&format!("{name}.dlq"))?;
    ensure!(letters.len() == 1 && letters[0].text() == bad, "{} letters", letters.len());
    // The plan's word: Elasticsearch was not asked.
    ensure!(letters[0].header("dlq.reason").as_deref() == Some("type_conflict"));
    ensure!(letters[0].header("dlq.field").as_deref() == Some("status"));

    let index = format!("{name}-1");
    let mapping = node.mapping(&index)?;
    let type_of = |field: &str| mapping["properties"][field]["type"].as_str();
    ensure!(type_of("status") == Some("short") && type_of("attrs") == Some(flattened), "{mapping}");
    let found = node.search(&index, &json!({"query": {"term": {"attrs.n": "7"}}}))?;
    let hit = found["hits"]["hits"].get(0).context("no document")?;
    ensure!(hit["_source"]["message"] == "good" && hit["_source"]["status"] == 200, "{hit}");

    let mut diff = Launch::indexer("diff", &dir)?.args(["templates", "diff", "-c"]).arg(&config).start()?;
    ensure!(diff.wait(LIMIT)? == 0, "{}", diff.output());
    Ok(())
}
