//! Reading from Kafka: group membership and assignment ([`source`]), the messages of each partition ([`queue`]), questions
//! to the broker that may take long ([`questions`]).
//!
//! Messages of each partition come through a queue of its own, and are left there while their partition must wait: the
//! group keeps its member, since events are polled all the same, and nothing prefetched is thrown away, as it would be by
//! `pause()`. librdkafka stops fetching for a partition when its queue is full.

mod questions;
mod queue;
mod retention;
mod source;

pub use questions::{Answer, Question, Questions};
pub use queue::{Message, PartitionQueue};
pub use retention::{RetentionMs, Retentions};
pub use source::{Context, Rebalance, Source, SourceError, TopicPartition, header};
