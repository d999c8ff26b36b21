//! Removing what a host told from the ledger.

use std::time::Duration;

use anyhow::{Context as _, Result};
use millrace_common::exit::Exit;
use millrace_common::kafka::{self, Reports};
use millrace_common::ledger::sources::{HostState, SourceKey};
use millrace_common::ledger::{SOURCES, encode};
use millrace_common::terminal::escape;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use super::{open, settle};
use crate::config::Config;
use crate::dead_letter::producer_options;
use crate::watch::judge::State;

const TIMEOUT: Duration = Duration::from_secs(30);

pub(super) fn forget(config: &Config, host: &str) -> Result<Exit> {
    let (shared, mut reading) = open(config)?;
    settle(&shared, &mut reading, config)?;
    let (id, keys) = {
        let view = shared.view();
        let verdicts = view.judge(shared.now_ms());
        let found = verdicts.hosts.iter().find(|known| *known.id == *host || known.name == host);
        let Some(found) = found.filter(|found| found.state != State::Absent) else {
            eprintln!("the ledger knows no host `{}`; `indexer status` lists those it knows", escape(host));
            return Ok(Exit::Usage);
        };
        let heartbeat = view.hosts.get(&found.id).and_then(|host| host.heartbeat.as_ref());
        let has_left = heartbeat.is_some_and(|heartbeat| heartbeat.state == HostState::Stopped);
        if !has_left && found.state != State::Silent {
            eprintln!("host `{}` still gives signs of life: stop its shipper first", escape(host));
            return Ok(Exit::Usage);
        }
        let sources = view.source_keys(&found.id).map(|source| SourceKey::Source(found.id.to_string(), source));
        let mut keys: Vec<SourceKey> = sources.collect();
        keys.push(SourceKey::Host((found.id.to_string(),)));
        (found.id.to_string(), keys)
    };
    remove(config, &keys)?;
    println!("{}: forgotten, with {} of its files", escape(&id), keys.len() - 1);
    Ok(Exit::Clean)
}

fn remove(config: &Config, keys: &[SourceKey]) -> Result<()> {
    let options = producer_options(&config.kafka.options);
    let mut client = kafka::producer("indexer", &config.kafka.brokers, &options)?;
    // A person waits for this one.
    client.set("message.timeout.ms", TIMEOUT.as_millis().to_string());
    let reports = Reports::new(|(), _| {});
    let producer: BaseProducer<Reports<()>> =
        kafka::create(&client, reports).context("cannot set up the Kafka client")?;
    for key in keys {
        let key = encode(key);
        let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(SOURCES).key(&key);
        producer.send(record).map_err(|(error, _)| error).context("cannot write to the ledger")?;
    }
    producer.flush(TIMEOUT).context("the ledger does not take the removal")
}
