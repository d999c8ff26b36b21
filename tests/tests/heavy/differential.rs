//! Every server that is supported judges the rule plan: prediction and reality agree, and what is sent is accepted.
//!
//! `MILLRACE_PAIRS` sets how many documents are tried on each server, `MILLRACE_SEED` where the generator begins.

use std::time::Duration;

use anyhow::{Result, ensure};
use millrace_tests::elasticsearch::{Elasticsearch, Options};
use millrace_tests::http;
use serde_json::{Value, json};

use crate::agreement;

fn agree(server: &str, num_pairs: usize) -> Result<()> {
    let node = Elasticsearch::start(&Options { server: server.to_owned(), ..Options::default() })?;
    let num_pairs = agreement::pairs(num_pairs);
    agreement::predictions(node.url(), num_pairs)?;
    agreement::decisions(node.url(), num_pairs / 2)?;
    node.stop()
}

#[test]
fn elasticsearch_8_19_agrees() -> Result<()> {
    agree("elasticsearch:8.19.7", 20_000)
}

#[test]
fn elasticsearch_7_17_agrees() -> Result<()> {
    agree("elasticsearch:7.17.28", 2_000)
}

#[test]
fn elasticsearch_9_2_agrees() -> Result<()> {
    agree("elasticsearch:9.2.0", 2_000)
}

#[test]
fn opensearch_2_19_agrees() -> Result<()> {
    agree("opensearch:2.19.0", 2_000)
}

#[test]
fn opensearch_3_3_agrees() -> Result<()> {
    agree("opensearch:3.3.0", 2_000)
}

/// Whether the server answers a document for a new index of these mappings.
fn answers(node: &Elasticsearch, index: &str, mappings: &Value, document: &str) -> Result<bool> {
    node.call("PUT", &format!("/{index}"), Some(&json!({"mappings": mappings})))?;
    let url = format!("{}/{index}/_doc", node.url());
    Ok(http::request_within(Duration::from_secs(10), "POST", &url, Some(document.to_owned())).is_ok())
}

/// The plan refuses such documents. Should a later OpenSearch answer, the rule is to be bound to the versions before it.
#[test]
fn opensearch_3_3_never_answers_where_dots_lead_past_false_allow_templates() -> Result<()> {
    let node = Elasticsearch::start(&Options { server: "opensearch:3.3.0".to_owned(), ..Options::default() })?;
    let template = json!({"strings": {"match_mapping_type": "string", "mapping": {"type": "keyword"}}});
    let mappings = json!({"dynamic": "false_allow_templates", "dynamic_templates": [template]});
    ensure!(answers(&node, "inside", &mappings, r#"{"o":{"x":"a"}}"#)?);
    ensure!(answers(&node, "unmatched", &mappings, r#"{"o.x":1}"#)?);
    ensure!(!answers(&node, "matched", &mappings, r#"{"o.x":"a"}"#)?);
    node.kill9()
}

/// The plan refuses such documents.
#[test]
fn elasticsearch_7_17_never_answers_where_a_name_that_ends_with_dots_becomes_a_runtime_field() -> Result<()> {
    let node = Elasticsearch::start(&Options { server: "elasticsearch:7.17.28".to_owned(), ..Options::default() })?;
    ensure!(answers(&node, "concrete", &json!({}), r#"{"o.":"a"}"#)?);
    ensure!(answers(&node, "without", &json!({"dynamic": "runtime"}), r#"{"o":"a"}"#)?);
    ensure!(!answers(&node, "runtime", &json!({"dynamic": "runtime"}), r#"{"o.":"a"}"#)?);
    node.kill9()
}
