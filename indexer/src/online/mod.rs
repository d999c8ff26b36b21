//! `check --online`: what of Kafka and Elasticsearch breaks the promises.

mod elasticsearch;
mod indices;
mod kafka;

use anyhow::Result;
use millrace_common::online::Finding;

use crate::cli::block_on;
use crate::config::Config;

/// What is found in Kafka and in Elasticsearch; an error is one that does not answer.
pub fn check(config: &Config) -> [Result<Vec<Finding>>; 2] {
    let now_ms = now_ms();
    [kafka::check(config, now_ms), block_on(elasticsearch::check(config, now_ms))]
}

#[expect(clippy::disallowed_methods, reason = "an edge: this machine's clock is what is compared")]
fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
