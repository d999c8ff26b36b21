//! `check --online` of both programs: every breach by name, and none where there is none.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_common::ledger::{INDEXED, SOURCES};
use millrace_tests::elasticsearch::Elasticsearch;
use millrace_tests::fake_elasticsearch::FakeElasticsearch;
use millrace_tests::kafka::{self, Cluster, Kafka, PASSWORD, USER};
use millrace_tests::process::Launch;
use millrace_tests::{ports, scratch};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(60);

/// Runs `PROGRAM check --online -c` on a configuration. Gives its exit code and what it printed.
fn check(program: &str, dir: &Path, config: &str) -> Result<(i32, String)> {
    let path = dir.join(format!("{program}.yaml"));
    fs::write(&path, config)?;
    fs::remove_file(dir.join(format!("{program}.log"))).ok();
    let mut process = Launch::binary(program, program, dir)?.args(["check", "--online", "-c"]).arg(path).start()?;
    let code = process.wait(LIMIT)?;
    Ok((code, process.output()))
}

/// That the findings begin like these, in any order, and that there is no other one.
fn ensure_found(output: &str, expected: &[&str]) -> Result<()> {
    let is_finding = |line: &&str| line.starts_with("breach: ") || line.starts_with("warning: ");
    let mut found: Vec<&str> = output.lines().filter(is_finding).collect();
    for start in expected {
        let at = found.iter().position(|line| line.starts_with(start));
        found.remove(at.with_context(|| format!("no `{start}` in:\n{output}"))?);
    }
    ensure!(found.is_empty(), "not expected: {found:#?}");
    Ok(())
}

fn shipper(brokers: &str, topic: &str, dir: &Path, more: &str) -> String {
    format!(
        "inputs: [{{ id: a, paths: [\"/nowhere/*.log\"] }}]\n\
         kafka: {{ brokers: [\"{brokers}\"], topic: {topic}, options: {{ {more} }} }}\n\
         data_dir: {}\n",
        dir.display()
    )
}

fn indexer(brokers: &str, topic: &str, elasticsearch: &str, more: &str) -> String {
    format!(
        "kafka: {{ brokers: [\"{brokers}\"], topics: [{topic}], group: {topic} }}\n\
         elasticsearch: {{ hosts: [\"{elasticsearch}\"] }}\n\
         rules: [{{ index: \"{topic}-{{service.name}}\", default: {{ service.name: a }} }}]\n\
         dead_letter: {{ topic: {topic}.dlq }}\n{more}\n"
    )
}

#[test]
fn what_breaks_the_promises_of_a_shipper_is_named() -> Result<()> {
    let (kafka, dir) = (Kafka::shared()?, scratch::dir("check-shipper")?);
    let settings =
        [("max.message.bytes", "100000"), ("retention.ms", "3600000"), ("unclean.leader.election.enable", "true")];
    kafka.create_topic("check-weak", 2, &settings)?;
    let config = shipper(kafka.bootstrap(), "check-weak", &dir, "") + "ledger: off\n";
    let (code, output) = check("shipper", &dir, &config)?;
    ensure!(code == 78, "{code}: {output}");
    let expected = [
        "breach: topic `check-weak`: replication factor is 1:",
        "breach: topic `check-weak`: min.insync.replicas is 1:",
        "breach: topic `check-weak`: unclean.leader.election.enable is true:",
        "breach: topic `check-weak`: max.message.bytes is 100000:",
        "warning: topic `check-weak`: retention.ms is 3600000, less than a day:",
    ];
    ensure_found(&output, &expected)?;
    // It was asked for the right to write, and nothing was written.
    assert_eq!(kafka.end_offsets("check-weak")?.values().sum::<i64>(), 0);
    let (code, output) = check("shipper", &dir, &config.replace("check-weak", "check-absent"))?;
    ensure!(code == 78, "{code}: {output}");
    ensure_found(&output, &["breach: topic `check-absent`: does not exist, or may not be seen:"])
}

#[test]
fn what_breaks_the_promises_of_an_indexer_is_named() -> Result<()> {
    let (kafka, node, dir) = (Kafka::shared()?, Elasticsearch::shared()?, scratch::dir("check-indexer")?);
    kafka.create_topic("check-es", 1, &[])?;
    kafka.create_topic("check-es.dlq", 1, &[("max.message.bytes", "1000"), ("retention.ms", "86400000")])?;
    let template = |name: &str, priority: u32, field: &str| {
        json!({
            "index_patterns": [format!("{name}*")], "priority": priority, "version": 2, "_meta": {"managed_by": "millrace"},
            "template": {
                "settings": {"index": {"number_of_replicas": "0", "translog": {"durability": "async"}}},
                "mappings": {"dynamic": "false", "properties": {"status": {"type": field}}},
            },
        })
    };
    let templates = dir.join("templates");
    fs::create_dir(&templates)?;
    fs::write(templates.join("check-es.json"), template("check-es-", 600, "long").to_string())?;
    node.call("PUT", "/_index_template/check-es", Some(&template("check-es-", 600, "keyword")))?;
    node.call("PUT", "/_index_template/check-es-other", Some(&template("check-es-a", 700, "long")))?;
    let live = json!({"settings": {"index.translog.durability": "request"}});
    node.call("PUT", "/check-es-b", Some(&live))?;
    let more = format!("templates: {{ dir: \"{}\" }}\nledger: off", templates.display());
    let (code, output) = check("indexer", &dir, &indexer(kafka.bootstrap(), "check-es", node.url(), &more))?;
    ensure!(code == 78, "{code}: {output}");
    let expected = [
        "warning: ledger: off:",
        "breach: topic `check-es`: replication factor is 1:",
        "breach: topic `check-es`: min.insync.replicas is 1:",
        "breach: topic `check-es.dlq`: replication factor is 1:",
        "breach: topic `check-es.dlq`: min.insync.replicas is 1:",
        "warning: topic `check-es.dlq`: max.message.bytes is 1000, that of `check-es` is 1048588:",
        "warning: topic `check-es.dlq`: retention.ms is 86400000, less than that of `check-es`:",
        "breach: Elasticsearch: has 1 data node(s):",
        "breach: index template `check-es`: differs from the file in 1 places (template.mappings.properties.status.type):",
        "breach: rules[0]: template `check-es-other` wins over `check-es` for `check-es-a`:",
        "breach: rules[0]: index.translog.durability of `check-es-a` would be async:",
        "breach: rules[0]: `check-es-a` would have no replica:",
        "breach: rules[0]: 1 of 1 indices `check-es-*` have no replica, among them `check-es-b`:",
    ];
    ensure_found(&output, &expected)?;

    let down = indexer(kafka.bootstrap(), "check-es", &format!("http://127.0.0.1:{}", ports::free()?), "ledger: off");
    let (code, output) = check("indexer", &dir, &down)?;
    ensure!(code == 69 && output.contains("cannot reach"), "{code}: {output}");
    // What the other server told is not lost by that.
    ensure_found(&output, &expected[..7])
}

#[test]
fn three_brokers_set_up_as_documented_have_no_finding() -> Result<()> {
    let dir = scratch::dir("check-cluster")?;
    let cluster = Cluster::start(3, &kafka::Options { heap_mib: 256, ..kafka::Options::default() })?;
    let safe = [("min.insync.replicas", "2")];
    let ledger = [&safe[..], &[("cleanup.policy", "compact"), ("message.timestamp.type", "LogAppendTime")]].concat();
    let replicas = [vec![1, 2, 3]];
    for (topic, settings) in [("check", &safe[..]), ("check.dlq", &safe), (SOURCES, &ledger), (INDEXED, &ledger)] {
        cluster.brokers[0].create_topic_on(topic, &replicas, settings)?;
    }
    let brokers = cluster.bootstrap().join(",");
    let (code, output) = check("shipper", &dir, &shipper(&brokers, "check", &dir, ""))?;
    ensure!(code == 0 && output.contains("online: 0 breaches, 0 warnings"), "{code}: {output}");
    let fake = FakeElasticsearch::start()?;
    let (code, output) = check("indexer", &dir, &indexer(&brokers, "check", &fake.url(), ""))?;
    ensure!(code == 0 && output.contains("online: 0 breaches, 0 warnings"), "{code}: {output}");
    Ok(())
}

#[test]
fn a_right_that_is_missing_is_named_and_a_broker_that_is_down_is_69() -> Result<()> {
    let dir = scratch::dir("check-rights")?;
    let (kafka, addr) = Kafka::start_guarded(&kafka::Options::default())?;
    kafka.create_topic("check-rights", 1, &[])?;
    let login = format!(
        "security.protocol: sasl_plaintext, sasl.mechanism: PLAIN, sasl.username: {USER}, sasl.password: {PASSWORD}"
    );
    let config = shipper(&addr.to_string(), "check-rights", &dir, &login) + "ledger: off\n";
    let told = |breaches: &[&str]| -> Result<()> {
        let (code, output) = check("shipper", &dir, &config)?;
        ensure!(code == 78, "{code}: {output}");
        ensure_found(&output, breaches)
    };
    kafka.allow("Describe", "check-rights")?;
    told(&[
        "breach: topic `check-rights`: replication factor is 1:",
        "warning: topic `check-rights`: its settings are not told:",
        "warning: topic `check-rights`: whether it may be written to is not told",
    ])?;
    kafka.allow("DescribeConfigs", "check-rights")?;
    let weak = [
        "breach: topic `check-rights`: replication factor is 1:",
        "breach: topic `check-rights`: min.insync.replicas is 1:",
    ];
    told(&[&weak[..], &["breach: topic `check-rights`: it may not be written to:"]].concat())?;
    kafka.allow("Write", "check-rights")?;
    told(&weak)?;
    kafka.stop()?;
    let (code, output) = check("shipper", &dir, &config)?;
    ensure!(code == 69 && output.contains("Kafka does not answer"), "{code}: {output}");
    Ok(())
}
