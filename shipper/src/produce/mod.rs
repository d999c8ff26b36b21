//! Hands records to Kafka and reports what became of each.

mod bundle;
mod destination;
mod events;
pub mod kafka;
mod metadata;

use std::time::Duration;

use rdkafka::types::RDKafkaErrorCode;

/// A record on its way. `token` comes back with its [`Delivery`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing<'a> {
    /// Index of the topic, in the order of the settings.
    pub topic: usize,
    pub partition: i32,
    pub key: &'a [u8],
    /// `None` removes the key from a compacted topic.
    pub value: Option<&'a [u8]>,
    /// Kafka timestamp: the read time, milliseconds since the epoch. The client may give one that is later within the hour if the
    /// thread is interrupted on the way.
    pub timestamp_ms: i64,
    pub token: usize,
}

impl Outgoing<'_> {
    /// Of key and value.
    pub fn num_bytes(&self) -> usize {
        self.key.len() + self.value.map_or(0, <[u8]>::len)
    }
}

/// What became of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    pub token: usize,
    /// Its Kafka timestamp.
    pub timestamp_ms: i64,
    /// `None`: acknowledged by all in-sync replicas.
    pub error: Option<RDKafkaErrorCode>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The client's queue is full: try again after deliveries came back.
    Full,
    /// The client refuses the record itself, or cannot take any at all right now.
    Error(RDKafkaErrorCode),
}

/// The operations on Kafka that the tailer needs.
pub trait Broker {
    /// Partitions of a topic, or `None` until the broker has told.
    fn num_partitions(&self, topic: usize) -> Option<u32>;
    /// Who leads a partition, for people.
    fn leader(&self, topic: usize, partition: i32) -> Option<String> {
        let _ = (topic, partition);
        None
    }
    /// The read time of the next record, milliseconds since the epoch: that of the turn, or a later one.
    fn read_time_ms(&mut self, turn_ms: i64) -> i64 {
        turn_ms
    }
    /// Takes a record, which may wait for others until [`Self::dispatch`]. If it is refused then, its delivery fails.
    fn send(&mut self, record: Outgoing<'_>) -> Result<(), Refused>;
    /// Sends the records that wait off, as far as the client takes them; the next call goes on.
    fn dispatch(&mut self) {}
    /// Appends the deliveries that arrived, waiting for the first up to `wait`.
    fn poll(&mut self, wait: Duration, deliveries: &mut Vec<Delivery>);
    /// Whether a record of `num_bytes` (key and value) that was refused for its size is too large by itself. If it may
    /// have been the company it travelled in, says no, and has smaller batches from then on.
    fn is_too_large_alone(&mut self, num_bytes: usize) -> bool {
        let _ = num_bytes;
        true
    }
}
