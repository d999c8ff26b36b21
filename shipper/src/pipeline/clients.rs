//! The Kafka clients as the settings want them, and what is asked of the ledger at the start.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use millrace_common::kafka::{self, Log, OptionFaults, Reports};
use millrace_common::shutdown::Signals;
use rdkafka::ClientConfig;
use rdkafka::producer::BaseProducer;
use tracing::{info, warn};

use crate::checkpoint::row::Row;
use crate::config::{Config, Ledger};
use crate::ledger::recover::{self, Recovered};
use crate::ledger::service;
use crate::produce::kafka::{KafkaBroker, Wake};
use crate::status::Board;

/// The producer, and how many records it takes before deliveries came back.
pub(super) fn start_producer(config: &Config, log: &Arc<Log>, wake: Wake) -> Result<(KafkaBroker, u64)> {
    let mut client = client(config)?;
    // Our own budget holds records back before the client's queue does; the client's is the second line.
    let queue_kib = (config.max_inflight() / 1024 + config.max_record as u64 / 1024 + 1).to_string();
    kafka::set_default(&mut client, "queue.buffering.max.kbytes", &queue_kib);
    kafka::set_default(&mut client, "queue.buffering.max.messages", "1000000");
    // librdkafka has one batch of a partition on its way at a time (its pull request 4989). While that is not answered and the
    // next has waited for longer than this, its thread spins: with its own 5 ms for most of the time.
    kafka::set_default(&mut client, "linger.ms", "25");
    let max_message = config.max_record as u64 + 64 * 1024;
    if max_message > 1_000_000 {
        kafka::set_default(&mut client, "message.max.bytes", &max_message.to_string());
    }
    let max_records = client.get("queue.buffering.max.messages").and_then(|text| text.parse().ok());
    // 0 is librdkafka's word for no limit.
    let max_records = max_records.filter(|&num| num > 0).unwrap_or(u64::MAX);
    Ok((KafkaBroker::new(client, &config.topics, Arc::clone(log), wake)?, max_records))
}

pub(crate) fn client(config: &Config) -> Result<ClientConfig> {
    kafka::producer("shipper", &config.brokers, &config.options).map_err(|faults| told(&faults))
}

/// What is wrong with options of Kafka, by name.
pub(crate) fn told(OptionFaults(faults): &OptionFaults) -> anyhow::Error {
    anyhow::anyhow!(faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

/// Whether a client can be made, with all the files that the options name.
pub(super) fn prove(config: &Config) -> Result<()> {
    let _: BaseProducer<Reports<()>> =
        kafka::create(&client(config)?, Reports::new(|(), _| {})).context("kafka.options")?;
    Ok(())
}

pub(super) fn ledger_settings(
    config: &Config,
    log: &Arc<Log>,
    host_id: &str,
    host_name: &str,
) -> Result<service::Settings> {
    Ok(service::Settings {
        client: (config.ledger == Ledger::On).then(|| client(config)).transpose()?,
        log: Arc::clone(log),
        topics: config.topics.clone(),
        host_id: host_id.to_owned(),
        host_name: host_name.to_owned(),
        heartbeat: config.heartbeat,
        forget_after: config.forget_after,
        data_dir: config.data_dir.clone(),
        finished: Vec::new(),
    })
}

/// Without a checkpoint, the ledger may know where this host's files stand.
pub(super) fn recover(config: &Config, host_id: &str, signals: &Signals, board: &Board) -> Result<Recovered> {
    let client = recover::client(&config.brokers, &config.options).map_err(|faults| told(&faults))?;
    info!("there is no checkpoint; asking the ledger where the files of this host stand");
    let go_on = || {
        board.turned();
        !signals.is_draining() && !signals.is_restarting()
    };
    let is_ours = |row: &Row| {
        let paths = [Path::new(&row.current_path), Path::new(&row.path)];
        config.patterns.iter().any(|patterns| paths.iter().any(|path| patterns.matches(path)))
    };
    Ok(match recover::read(&client, host_id, &go_on) {
        Ok(mut recovered) => {
            // Another shipper of this host has files of its own.
            recovered.rows.retain(is_ours);
            info!(files = recovered.rows.len(), "going on where the ledger says");
            recovered
        }
        Err(cause) => {
            let cause = format!("{:#}", anyhow::Error::from(cause));
            warn!(
                cause,
                "files are read from their start: records of files that were ever truncated arrive a second time, under other ids"
            );
            Recovered::default()
        }
    })
}
