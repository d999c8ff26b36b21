//! How far topics reach and how far groups have come.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;

use super::client::{KafkaClient, TIMEOUT};
use crate::wait;

/// Offsets per partition.
pub type Offsets = BTreeMap<i32, i64>;

impl KafkaClient {
    /// The offset after the last record, per partition.
    ///
    /// # Errors
    ///
    /// If the broker does not answer.
    pub fn end_offsets(&self, topic: &str) -> Result<Offsets> {
        self.watermarks(topic).map(|marks| {
            let ends = marks.into_iter().map(|(partition, (_, end))| (partition, end));
            ends.collect()
        })
    }

    /// The offset of the first record still there, per partition.
    ///
    /// # Errors
    ///
    /// If the broker does not answer.
    pub fn start_offsets(&self, topic: &str) -> Result<Offsets> {
        self.watermarks(topic).map(|marks| {
            let starts = marks.into_iter().map(|(partition, (start, _))| (partition, start));
            starts.collect()
        })
    }

    fn watermarks(&self, topic: &str) -> Result<BTreeMap<i32, (i64, i64)>> {
        let consumer = self.consumer("harness")?;
        let mut marks = BTreeMap::new();
        for partition in self.partitions(topic)? {
            // A leader that has just been elected does not know its own yet (KIP-207).
            let is_early =
                |error: &KafkaError| error.rdkafka_error_code() == Some(RDKafkaErrorCode::OffsetNotAvailable);
            let found = wait::until("the leader's offsets", TIMEOUT, || {
                match consumer.fetch_watermarks(topic, partition, TIMEOUT) {
                    Err(error) if is_early(&error) => Ok(None),
                    found => Ok(Some(found?)),
                }
            });
            marks.insert(partition, found.with_context(|| format!("no offsets of {topic}/{partition}"))?);
        }
        Ok(marks)
    }

    /// The offsets that a group has committed; partitions without a commit are left out.
    ///
    /// # Errors
    ///
    /// If the broker does not answer.
    pub fn committed(&self, group: &str, topic: &str) -> Result<Offsets> {
        let consumer = self.consumer(group)?;
        let mut list = TopicPartitionList::new();
        for partition in self.partitions(topic)? {
            list.add_partition(topic, partition);
        }
        let committed = consumer.committed_offsets(list, TIMEOUT)?;
        let mut offsets = Offsets::new();
        for element in committed.elements() {
            if let Offset::Offset(offset) = element.offset() {
                offsets.insert(element.partition(), offset);
            }
        }
        Ok(offsets)
    }

    /// How many records a group has not yet committed, over all partitions.
    ///
    /// # Errors
    ///
    /// If the broker does not answer.
    pub fn lag(&self, group: &str, topic: &str) -> Result<i64> {
        let committed = self.committed(group, topic)?;
        let marks = self.watermarks(topic)?;
        let lags = marks.into_iter().map(|(partition, (start, end))| {
            let finished = committed.get(&partition).copied().unwrap_or(start);
            end - finished.max(start)
        });
        Ok(lags.sum())
    }

    /// Waits until a group has committed the end of every partition.
    ///
    /// # Errors
    ///
    /// If it stands still for `limit` before that; the message gives the lag then.
    pub fn wait_no_lag(&self, group: &str, topic: &str, limit: Duration) -> Result<()> {
        let what = format!("the last commit of group `{group}` on `{topic}`");
        wait::until_none_left(&what, limit, || Ok(self.lag(group, topic)?.unsigned_abs()))
    }
}
