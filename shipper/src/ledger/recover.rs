//! Reads back from the ledger what the state directory held.

use std::collections::BTreeMap;
use std::time::Duration;

use millrace_common::kafka::{self, OptionFaults, Options, Role};
use millrace_common::ledger::reader::{Fact, ReadError, Reader};
use millrace_common::ledger::sources::{SourceKey, SourceRow, SourceState};
use millrace_common::ledger::{SOURCES, decode};
use millrace_common::record::SourceId;
use rdkafka::ClientConfig;
use tracing::warn;

use crate::checkpoint::row::Row;
use crate::clock::Clock;

/// What the ledger knows of this host's files.
#[derive(Debug, Default)]
pub struct Recovered {
    pub rows: Vec<Row>,
    /// Finished sources with the time of that, in milliseconds since the epoch: to be forgotten in time.
    pub finished: Vec<(SourceId, i64)>,
}

#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    #[error("the ledger cannot be read")]
    Read(#[from] ReadError),
    #[error("stopped while reading the ledger")]
    Stopped,
}

/// So long nothing may come before it is given up. Nothing could be sent meanwhile either, but readiness waits for it, which
/// must not depend on Kafka for long.
const PATIENCE: Duration = Duration::from_secs(10);

/// The options of the records' producer that a consumer takes, too: address, login, encryption.
///
/// # Errors
/// What is wrong with them.
pub fn client(brokers: &[String], options: &Options) -> Result<ClientConfig, OptionFaults> {
    let faults = kafka::check(Role::Consumer, brokers, options);
    let is_common = |name: &str| faults.iter().all(|fault| fault.path != format!("options.{name}"));
    let common: Options = options.iter().filter(|(name, _)| is_common(name)).collect();
    let mut config = kafka::consumer("shipper", brokers, "millrace-shipper", &common)?;
    // The start waits for the end of the topic.
    kafka::set_default(&mut config, "fetch.wait.max.ms", "50");
    Ok(config)
}

/// Reads the rows of `host_id`. `go_on` is asked a few times a second whether to.
///
/// # Errors
/// The topic cannot be read to its end. Without a topic there is nothing to read.
pub fn read(config: &ClientConfig, host_id: &str, go_on: &dyn Fn() -> bool) -> Result<Recovered, RecoverError> {
    let clock = Clock::start();
    let mut reader = loop {
        match Reader::open(config.clone(), &[SOURCES]) {
            Ok(reader) => break reader,
            Err(ReadError::NoTopic(_)) => return Ok(Recovered::default()),
            Err(cause) if clock.now().mono >= PATIENCE => return Err(cause.into()),
            Err(_) if !go_on() => return Err(RecoverError::Stopped),
            Err(_) => {}
        }
    };
    let mut facts = BTreeMap::new();
    if !reader.read_to_end(PATIENCE, go_on, |fact| take(&mut facts, fact, host_id))? {
        return Err(RecoverError::Stopped);
    }
    reader.close();
    Ok(recovered(facts))
}

/// Keeps the last value of each source of the host.
fn take(facts: &mut BTreeMap<SourceId, Vec<u8>>, fact: Fact, host_id: &str) {
    let Ok(SourceKey::Source(host, id)) = decode(&fact.key) else { return };
    if host != host_id {
        return;
    }
    match fact.value {
        Some(value) => facts.insert(id, value),
        None => facts.remove(&id),
    };
}

fn recovered(facts: BTreeMap<SourceId, Vec<u8>>) -> Recovered {
    let mut recovered = Recovered::default();
    for (id, value) in facts {
        let Ok(told) = decode::<SourceRow>(&value) else {
            warn!(source = %id, "a row of the ledger cannot be read");
            continue;
        };
        if told.state == SourceState::Finished {
            recovered.finished.push((id, told.at_ms));
            continue;
        }
        match told.checkpoint.read::<Row>() {
            Ok(row) if row.source == id => {
                // More may have been sent since than the row says.
                recovered.rows.push(Row { horizon: Row::UNKNOWN_HORIZON, ..row });
            }
            _ => warn!(source = %id, path = told.path, "a row of the ledger has no checkpoint to go on with"),
        }
    }
    recovered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::outbox::tests::row as row_for_tests;
    use millrace_common::ledger::encode;
    use millrace_common::ledger::sources::Opaque;

    fn fact(host: &str, id: u64, value: Option<&SourceRow>) -> Fact {
        Fact {
            topic: SOURCES.to_owned(),
            offset: 0,
            broker_ms: 0,
            key: encode(&SourceKey::Source(host.to_owned(), SourceId::from_u64(id))),
            value: value.map(encode),
        }
    }

    #[test]
    fn the_last_row_of_each_own_source_counts() {
        let row = |id: u64, acknowledged: u64, state| {
            let checkpoint = serde_json::json!({
                "source": SourceId::from_u64(id), "input": "app", "path": "/a", "current_path": "/a", "device": 1,
                "inode": 7, "birth_time_ns": 8, "generation": 1, "size": 100, "acknowledged": acknowledged, "horizon": 10,
                "prefix": {"length": 0, "hash": 0}, "guard": {"position": 0, "length": 0, "hash": 0}, "hours": [],
                "boundaries": [], "last_seen_ms": 1,
            });
            SourceRow { checkpoint: Opaque::of(&checkpoint).unwrap(), ..row_for_tests(acknowledged, state) }
        };
        let mut facts = BTreeMap::new();
        for (host, id, value) in [
            ("us", 1, Some(row(1, 10, SourceState::Active))),
            ("us", 1, Some(row(1, 20, SourceState::Active))),
            ("other", 1, Some(row(1, 99, SourceState::Active))),
            ("us", 2, Some(row(2, 20, SourceState::Active))),
            ("us", 2, None),
            ("us", 3, Some(row(3, 20, SourceState::Finished))),
            ("us", 4, Some(row_for_tests(5, SourceState::Active))),
        ] {
            take(&mut facts, fact(host, id, value.as_ref()), "us");
        }
        let recovered = recovered(facts);
        let found: Vec<_> = recovered.rows.iter().map(|row| (row.source.as_u64(), row.acknowledged)).collect();
        assert_eq!((found, recovered.rows[0].horizon), (vec![(1, 20)], Row::UNKNOWN_HORIZON));
        assert_eq!(recovered.finished, [(SourceId::from_u64(3), 0)]);
    }

    #[test]
    fn options_of_producers_do_not_hinder_reading() {
        let options = Options::from_iter([("compression.type", "lz4"), ("sasl.username", "app"), ("linger.ms", "5")]);
        let config = client(&["k:9092".to_owned()], &options).unwrap();
        assert_eq!((config.get("sasl.username"), config.get("linger.ms")), (Some("app"), None));
    }
}
