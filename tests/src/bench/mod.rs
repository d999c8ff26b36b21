//! `make bench`: the programs beside bare librdkafka loops, in the same run on the same broker.
//!
//! Yardstick and product alternate, so that whatever else the machine does falls on both. `BENCH_RECORDS` (1,000,000) and
//! `BENCH_RUNS` (5) set how much is measured, `BENCH_ONLY` which parts (words of their names).

mod answers;
mod delay;
mod growth;
mod measure;
mod node;
pub mod out;
mod peers;
mod report;
mod rest;
mod shipper;
mod warm;
pub mod workload;

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::kafka::{self, Kafka};
use crate::process::built;
use report::Report;

/// How much to measure, from the environment.
struct Plan {
    num_records: u64,
    num_runs: usize,
    only: Vec<String>,
}

impl Plan {
    fn from_env() -> Result<Self> {
        let number = |name: &str, default: u64| match std::env::var(name) {
            Ok(text) => text.parse().with_context(|| format!("{name}=`{text}` is not a number")),
            Err(_) => Ok(default),
        };
        let only = std::env::var("BENCH_ONLY").unwrap_or_default();
        Ok(Self {
            num_records: number("BENCH_RECORDS", 1_000_000)?.max(1000),
            num_runs: number("BENCH_RUNS", 5)?.max(1) as usize,
            only: only.split_whitespace().map(str::to_owned).collect(),
        })
    }

    fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|word| part.contains(word.as_str()))
    }
}

/// How the yardstick is to write a topic: as safely as the shipper.
fn kcat_producer<'a>(kafka: &'a Kafka, topic: &'a str) -> [&'a str; 11] {
    let (brokers, idempotence) = (kafka.bootstrap(), "enable.idempotence=true");
    ["-P", "-b", brokers, "-t", topic, "-X", "acks=all", "-X", idempotence, "-X", "compression.codec=lz4"]
}

/// Measures, prints, and stores the report in `into` unless only parts were asked for.
///
/// # Errors
///
/// If something does not run, or a program did not deliver everything.
pub fn run(into: &Path) -> Result<()> {
    let plan = Plan::from_env()?;
    for program in ["shipper", "indexer"] {
        built(program)?;
    }
    if !measure::is_installed("kcat") {
        bail!("kcat, the yardstick, is not installed: run BENCH=1 scripts/bootstrap");
    }
    let kafka = Kafka::start(&kafka::Options {
        heap_mib: 1024,
        is_brief: false,
        // Kafka's default: instances that start together join together.
        settings: vec![("group.initial.rebalance.delay.ms".into(), "3000".into())],
        ..kafka::Options::default()
    })?;
    warm::broker(&plan, &kafka)?;
    let mut report = Report::new(&plan)?;
    shipper::measure(&plan, &kafka, &mut report)?;
    rest::measure(&plan, &kafka, &mut report)?;
    out::measure(&plan, &kafka, &mut report)?;
    growth::measure(&plan, &kafka, &mut report)?;
    node::measure(&plan, &kafka, &mut report)?;
    delay::measure(&plan, &kafka, &mut report)?;
    kafka.stop()?;
    if plan.only.is_empty() { report.store(into) } else { Ok(()) }
}
