//! `check --online`: what of Kafka breaks the promises.

use anyhow::Result;
use millrace_common::ledger::SOURCES;
use millrace_common::online::{Finding, ask, topics};

use crate::config::{Config, Ledger};
use crate::ledger::recover;
use crate::pipeline::clients;

/// What a record is more than its event.
const OVERHEAD_BYTES: u64 = 64 << 10;

/// # Errors
/// Kafka does not answer.
pub fn check(config: &Config) -> Result<Vec<Finding>> {
    let client = clients::client(config)?;
    let names: Vec<&str> = config.topics.iter().map(String::as_str).collect();
    let mut told = ask::describe(&client, &[&names[..], &[SOURCES]].concat())?;
    let sources = told.pop().flatten();
    let mut findings = Vec::new();
    for (name, topic) in names.iter().zip(told) {
        let Some(topic) = topic else {
            findings.push(topics::missing(name));
            continue;
        };
        findings.extend(topics::records(&topic, config.max_record as u64 + OVERHEAD_BYTES));
        findings.extend(ask::may_write(&client, &topic)?);
    }
    if config.ledger == Ledger::On {
        findings.extend(ask::ledger(&client, SOURCES, sources.as_ref())?);
        let consumer = recover::client(&config.brokers, &config.options).map_err(|faults| clients::told(&faults))?;
        findings.extend(ask::clocks(consumer, now_ms()));
    }
    Ok(findings)
}

#[expect(clippy::disallowed_methods, reason = "an edge: this machine's clock is what is compared")]
fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
