//! The topics, and what may be done with them.

use anyhow::Result;
use millrace_common::kafka;
use millrace_common::ledger::{INDEXED, SOURCES};
use millrace_common::online::{Finding, ask, topics};

use crate::config::Config;
use crate::dead_letter::producer_options;

pub(super) fn check(config: &Config, now_ms: i64) -> Result<Vec<Finding>> {
    let settings = &config.kafka;
    let producer = kafka::producer("indexer", &settings.brokers, &producer_options(&settings.options))?;
    let consumer = kafka::consumer("indexer-check", &settings.brokers, &settings.group, &settings.options)?;
    let names: Vec<&str> = settings.topics.iter().map(String::as_str).collect();
    let letters = config.dead_letter_topic.as_str();
    let mut told = ask::describe(&producer, &[&names[..], &[letters, SOURCES, INDEXED]].concat())?;
    let (indexed, sources, dead) = (told.pop().flatten(), told.pop().flatten(), told.pop().flatten());

    let mut findings = Vec::new();
    for (name, topic) in names.iter().zip(&told) {
        let Some(topic) = topic else {
            findings.push(topics::missing(name));
            continue;
        };
        findings.extend(topics::durability(topic));
        findings.extend(topics::short_retention(topic));
        findings.extend(ask::may_read(&consumer, topic)?);
    }
    match &dead {
        None => findings.push(topics::missing(letters)),
        Some(dead) => {
            findings.extend(topics::durability(dead));
            findings.extend(told.iter().flatten().flat_map(|source| topics::dead_letters(dead, source)));
            findings.extend(ask::may_write(&producer, dead)?);
        }
    }
    if config.ledger {
        for (name, topic) in [(SOURCES, &sources), (INDEXED, &indexed)] {
            findings.extend(ask::ledger(&producer, name, topic.as_ref())?);
        }
        findings.extend(ask::clocks(consumer, now_ms));
    }
    Ok(findings)
}
