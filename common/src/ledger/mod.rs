//! The two compacted topics from which any instance can tell whether all that was written is indexed.
//!
//! | topic | key, as a JSON array | value, as a JSON object |
//! |---|---|---|
//! | [`SOURCES`] | `[host id, source id]` | [`sources::SourceRow`] |
//! | | `[host id]` | [`sources::Heartbeat`] |
//! | [`INDEXED`] | `[group, topic, partition, source id, writer]` | [`indexed::IndexedRow`] |
//!
//! Every key has one writer, so compaction never loses a fact. A null value says that the key is no longer needed. Both topics
//! have one partition and take the broker's time (`LogAppendTime`). Pure but for [`topics`], [`reader`] and
//! [`fate::ask`].

pub mod fate;
pub mod indexed;
pub mod intervals;
pub mod reader;
pub mod sources;
pub mod topics;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use intervals::Intervals;

pub const SOURCES: &str = "millrace.sources";
pub const INDEXED: &str = "millrace.indexed";

/// Version of the values. Readers take any version whose fields they can read.
pub const VERSION: u32 = 1;

/// The text of a key or value.
pub fn encode(fact: &impl Serialize) -> Vec<u8> {
    // Only maps with keys that are no strings, and writers that fail, make this an error; there are none.
    serde_json::to_vec(fact).unwrap_or_default()
}

/// # Errors
/// It is not what this version understands.
pub fn decode<T: DeserializeOwned>(text: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(text)
}
