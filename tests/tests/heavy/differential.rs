//! Every server that is supported judges the rule plan: prediction and reality agree, and what is sent is accepted.
//!
//! `MILLRACE_PAIRS` sets how many documents are tried on each server, `MILLRACE_SEED` where the generator begins.

use anyhow::Result;
use millrace_tests::elasticsearch::{Elasticsearch, Options};

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
