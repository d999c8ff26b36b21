//! What a shipper says about its files and itself, in [`super::SOURCES`].

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::record::SourceId;

/// Whose fact it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SourceKey {
    Source(String, SourceId),
    /// The host's heartbeat.
    Host((String,)),
}

/// One generation of one file. Positions are byte offsets, times are milliseconds since the epoch by the host's clock.
///
/// It is acknowledged before the first record of the source is produced, written again when it changes, and
/// removed when the file has been finished for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRow {
    pub version: u32,
    pub host_name: String,
    pub input: String,
    /// The topic that its records go to.
    pub topic: String,
    /// Where the file was last found.
    pub path: String,
    pub inode: u64,
    pub birth_time_ns: u64,
    pub generation: u32,
    pub size: u64,
    /// Up to here it was read.
    pub read: u64,
    /// Up to here every byte is in a record that Kafka acknowledged, or in one of `gaps`.
    pub acknowledged: u64,
    /// Bytes that no record covers, ascending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
    pub state: SourceState,
    /// When this was written.
    pub at_ms: i64,
    /// What the shipper needs to go on with the file if its state is lost. Nobody else looks inside.
    #[serde(default)]
    pub checkpoint: Opaque,
}

/// JSON that is handed on as it is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Opaque(Option<Box<RawValue>>);

impl Opaque {
    /// # Errors
    /// It has maps with keys that are no strings.
    pub fn of(content: &impl Serialize) -> Result<Self, serde_json::Error> {
        serde_json::value::to_raw_value(content).map(|text| Self(Some(text)))
    }

    /// # Errors
    /// It is not such a content.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.text())
    }

    fn text(&self) -> &str {
        self.0.as_ref().map_or("null", |text| text.get())
    }
}

impl PartialEq for Opaque {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl Eq for Opaque {}

/// Bytes `start..end` that no record covers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    pub start: u64,
    pub end: u64,
    /// `deleted`, `truncated`, `too_large`, `hold_limit`, …: bytes given up. `excluded`, `nul_bytes`, `carried`: not lost.
    pub reason: String,
}

impl Gap {
    /// Whether these bytes were lines that nobody will find.
    pub fn is_loss(&self) -> bool {
        !matches!(self.reason.as_str(), "excluded" | "nul_bytes" | "carried")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceState {
    /// It is tailed.
    Active,
    /// The file is gone or was replaced, and all of it is acknowledged or given up: nothing will come.
    Finished,
}

/// A shipper lives. Written every `interval_ms`, by another thread than the one that reads files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    pub version: u32,
    pub host_name: String,
    /// The shipper's version.
    pub program: String,
    pub interval_ms: u64,
    pub at_ms: i64,
    /// When the process started.
    pub started_ms: i64,
    pub state: HostState,
    /// The topics that its records go to: whose pipelines it belongs to. Empty if the writer does not say.
    #[serde(default)]
    pub topics: Vec<String>,
    pub num_sources: u64,
    /// Events that Kafka acknowledged since the process started.
    #[serde(default)]
    pub acked_events: u64,
    pub unread_bytes: u64,
    /// Why records do not flow, if they do not.
    #[serde(default)]
    pub blocked: Vec<String>,
    /// Files that stand still though they should be read.
    #[serde(default)]
    pub stalled: Vec<Stalled>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostState {
    Running,
    /// It said goodbye: a planned stop.
    Stopped,
}

/// A file with bytes that are not read, or a path that is now another file than the one that is read, as seen by a thread that
/// does not read files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stalled {
    pub path: String,
    pub since_ms: i64,
    pub unread_bytes: u64,
    /// In words, for a person.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{decode, encode};

    #[test]
    fn keys_tell_hosts_from_sources() {
        let source = SourceKey::Source("web \"1\"".to_owned(), SourceId::from_u64(7));
        let host = SourceKey::Host(("web-1".to_owned(),));
        assert_eq!(encode(&source), br#"["web \"1\"","0000000000000007"]"#);
        assert_eq!(encode(&host), br#"["web-1"]"#);
        for key in [source, host] {
            assert_eq!(decode::<SourceKey>(&encode(&key)).unwrap(), key);
        }
    }

    #[test]
    fn a_row_of_a_newer_version_is_read_as_far_as_it_is_known() {
        let text = br#"{"version":9,"host_name":"h","input":"i","topic":"t","path":"/a","inode":1,"birth_time_ns":2,
            "generation":0,"size":10,"read":10,"acknowledged":4,"state":"active","at_ms":5,"news":{}}"#;
        let row: SourceRow = decode(text).unwrap();
        assert_eq!((row.version, row.acknowledged, row.gaps.len()), (9, 4, 0));
    }
}
