//! The configuration file as written.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use millrace_common::config::{ByteSize, HumanDuration, Secret};
use millrace_common::kafka::Options;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::map::{OnConflict, Unmapped};

/// Settings of the indexer.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Raw {
    pub kafka: Kafka,
    pub elasticsearch: Elasticsearch,
    #[serde(default)]
    pub bulk: Bulk,
    #[serde(default)]
    pub templates: Templates,
    /// Which records go to which index, and by which rules. The first rule that names a record's topic (or names none)
    /// applies. Without any, all topics go to `applogs-{service.name}-{@timestamp:%Y.%m.%d}`.
    #[serde(default)]
    pub rules: Vec<Rule>,
    #[serde(default)]
    pub dead_letter: DeadLetter,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default)]
    pub shutdown: Shutdown,
    #[serde(default)]
    pub admin: Admin,
    #[serde(default)]
    pub ledger: Ledger,
    /// Hosts that must be there; one that never reported is `ABSENT`.
    #[serde(default)]
    pub expect: Vec<Expect>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kafka {
    /// Addresses to begin with, as `host:port`.
    pub brokers: Vec<String>,
    /// Topics to read.
    pub topics: Vec<String>,
    /// Consumer group; instances of one group share the partitions.
    #[serde(default = "group")]
    pub group: String,
    /// Further librdkafka settings. Those that break delivery are refused. `sasl.oauthbearer.token_file` names a file with a token.
    #[serde(default)]
    pub options: Options,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Elasticsearch {
    /// Addresses, as `http://host:port` or `https://host:port`. With several, one that fails is left alone for a while.
    pub hosts: Vec<String>,
    /// API key in the encoded form that Elasticsearch hands out.
    pub api_key: Option<Secret>,
    pub bearer_token: Option<Secret>,
    pub username: Option<String>,
    pub password: Option<Secret>,
    /// PEM file with the certificate authorities to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM file with the certificate by which the server knows us, and those of authorities between it and the server's,
    pub client_certificate_file: Option<PathBuf>,
    /// and the one with its key, not encrypted.
    pub client_key_file: Option<PathBuf>,
    #[serde(default)]
    pub verify: Verify,
    #[serde(default)]
    pub compression: Compression,
    /// How long a bulk request may take.
    #[serde(default = "request_timeout")]
    pub request_timeout: HumanDuration,
}

/// What is checked of the server's certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// Authority and host name.
    #[default]
    Full,
    /// Nothing: anybody can pose as the server.
    None,
}

/// Of bulk bodies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    #[default]
    None,
    /// Saves network, costs about as much CPU as all the rest.
    Gzip,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Bulk {
    /// A request is sent when it is this large,
    pub max_bytes: ByteSize,
    /// holds this many documents,
    pub max_documents: u32,
    /// or its first document is this old.
    pub max_delay: HumanDuration,
    /// Most requests on their way at a time; fewer while Elasticsearch is slow.
    pub max_in_flight: u32,
    /// How long documents wait for an index that is blocked or closed before they go to the dead letters,
    pub index_wait: HumanDuration,
    /// and how many bytes of them may wait; what comes on top goes there at once.
    pub parked_bytes: ByteSize,
    /// Longest pause between attempts while Elasticsearch does not take requests.
    pub max_backoff: HumanDuration,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Templates {
    /// Folder with the JSON files that `PUT _index_template/…` takes, and `component/` with those of `PUT _component_template/…`.
    pub dir: Option<PathBuf>,
    /// Install missing and older ones at the start. Default: true.
    pub apply: Option<bool>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Topics of this rule; none: all.
    #[serde(default)]
    pub topics: Vec<String>,
    /// Name of the index: text with `{field}` and `{time field:%Y.%m.%d}`.
    #[serde(default = "index")]
    pub index: String,
    /// What stands in for a missing field of the index name.
    #[serde(default)]
    pub default: BTreeMap<String, String>,
    #[serde(default)]
    pub document_id: DocumentId,
    #[serde(default)]
    pub unmapped: Unmapped,
    /// Field that takes what the mapping does not: `flattened`, or an object with `enabled: false`.
    pub fold_into: Option<String>,
    #[serde(default)]
    pub on_conflict: OnConflict,
    /// Most fields that the mapping may grow to. Default: the index's `total_fields.limit`.
    pub field_budget: Option<u32>,
    #[serde(default)]
    pub accept_time: AcceptTime,
    /// Records older than this, by their own time and by Kafka's, are finished without a document, so that a replay does not
    /// revive deleted indices.
    #[serde(default = "max_age")]
    pub max_age: HumanDuration,
    /// New index names per hour; past it, the defaults name the index.
    #[serde(default = "max_new_indices")]
    pub max_new_indices: u32,
}

/// Where the `_id` of a document comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DocumentId {
    /// The record's id: a copy of a record is refused.
    #[default]
    Record,
    /// Elasticsearch makes one, which is faster: whatever is sent again is indexed again.
    None,
}

/// Event times that may name an index. Outside, the Kafka timestamp names it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AcceptTime {
    pub past: HumanDuration,
    pub future: HumanDuration,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeadLetter {
    /// Takes the records that cannot be indexed, each with the reason.
    pub topic: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bound for all records in memory.
    pub memory: ByteSize,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Shutdown {
    /// How long a stop may wait for records on their way. What is not finished then is read again at the next start.
    pub deadline: HumanDuration,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Address of the admin endpoint, as `host:port`.
    pub listen: String,
}

/// Whether what is indexed is told in the topic `millrace.indexed`, and what shippers tell in `millrace.sources` is held against it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Ledger {
    #[default]
    On,
    /// Without these topics, where a cluster forbids them: no audit, and nobody sees a source that stopped.
    Off,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// Names or ids of hosts.
    pub hosts: Vec<String>,
    /// A host that sends nothing new for so long is `QUIET`. Default: it may be quiet.
    pub interval: Option<HumanDuration>,
}

fn group() -> String {
    "indexer".into()
}

pub fn index() -> String {
    "applogs-{service.name}-{@timestamp:%Y.%m.%d}".into()
}

fn request_timeout() -> HumanDuration {
    seconds(60)
}

fn max_age() -> HumanDuration {
    seconds(90 * 86_400)
}

fn max_new_indices() -> u32 {
    1_000
}

fn seconds(seconds: u64) -> HumanDuration {
    HumanDuration::new(Duration::from_secs(seconds))
}

impl Default for Bulk {
    fn default() -> Self {
        Self {
            max_bytes: ByteSize::new(8 << 20),
            max_documents: 5_000,
            max_delay: seconds(1),
            max_in_flight: 8,
            index_wait: seconds(60),
            parked_bytes: ByteSize::new(32 << 20),
            max_backoff: seconds(25),
        }
    }
}

impl Default for Rule {
    fn default() -> Self {
        Self {
            topics: Vec::new(),
            index: index(),
            default: BTreeMap::from([("service.name".into(), "unknown".into())]),
            document_id: DocumentId::default(),
            unmapped: Unmapped::default(),
            fold_into: None,
            on_conflict: OnConflict::default(),
            field_budget: None,
            accept_time: AcceptTime::default(),
            max_age: max_age(),
            max_new_indices: max_new_indices(),
        }
    }
}

impl Default for AcceptTime {
    fn default() -> Self {
        Self { past: seconds(30 * 86_400), future: seconds(86_400) }
    }
}

impl Default for DeadLetter {
    fn default() -> Self {
        Self { topic: "logs.dlq".into() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: ByteSize::new(256 << 20) }
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { deadline: seconds(25) }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: "127.0.0.1:9641".into() }
    }
}
