//! What the ledger's topic says.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use millrace_common::ledger::sources::{Opaque, SourceRow, SourceState};
use serde_json::Value;

use crate::kafka::KafkaClient;

pub const SOURCES: &str = "millrace.sources";

/// The facts of one host, as a reader has them who reads the topic to its end.
#[derive(Debug, Default)]
pub struct Host {
    /// The last row of each source by its id.
    pub rows: BTreeMap<String, Value>,
    /// All heartbeats that are still in the topic, with the broker's time in milliseconds.
    pub heartbeats: Vec<(i64, Value)>,
    /// Keys of the host that are in the topic, with and without a value.
    pub num_messages: usize,
}

impl Host {
    /// # Errors
    ///
    /// If the topic cannot be read, or what it says of the host is no JSON.
    pub fn read(kafka: &KafkaClient, host_id: &str) -> Result<Self> {
        let mut host = Self::default();
        // Not made yet: nobody has said anything.
        if kafka.partitions(SOURCES).unwrap_or_default().is_empty() {
            return Ok(host);
        }
        for record in kafka.read_topic(SOURCES)? {
            let key: Vec<String> = serde_json::from_slice(record.key.as_deref().context("a key")?)?;
            if key[0] != host_id {
                continue;
            }
            host.num_messages += 1;
            // A null value, as the harness reads it.
            if record.value.is_empty() {
                host.rows.remove(&key[1]);
                continue;
            }
            let value: Value = serde_json::from_slice(&record.value)?;
            match key.get(1) {
                Some(source) => _ = host.rows.insert(source.clone(), value),
                None => host.heartbeats.push((record.timestamp.context("a time")?, value)),
            }
        }
        Ok(host)
    }

    /// The row of the source whose path ends with `name`.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn row_of(&self, name: &str) -> Result<&Value> {
        let has_name = |row: &&Value| row["path"].as_str().is_some_and(|path| path.ends_with(name));
        self.rows.values().find(has_name).with_context(|| format!("no row of {name} in {:?}", self.rows))
    }

    /// # Errors
    ///
    /// If there is no heartbeat.
    pub fn last_heartbeat(&self) -> Result<&Value> {
        self.heartbeats.last().map(|(_, value)| value).context("a heartbeat")
    }
}

/// What a shipper says of a file that it read whole, and that Kafka acknowledged up to `end`.
pub fn whole_row(host_name: &str, topic: &str, path: &str, end: u64) -> SourceRow {
    SourceRow {
        version: 1,
        host_name: host_name.to_owned(),
        input: "app".into(),
        topic: topic.to_owned(),
        path: path.to_owned(),
        inode: 1,
        birth_time_ns: 1,
        generation: 0,
        size: end,
        read: end,
        acknowledged: end,
        gaps: Vec::new(),
        state: SourceState::Active,
        at_ms: 0,
        checkpoint: Opaque::default(),
    }
}
