//! Settings: what the file, flags and environment say ([`raw`]), turned once into checked types.

mod check;
mod raw;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use millrace_common::config::{Secret, Written};
use millrace_common::kafka::Options;
use millrace_common::reload::Configuration;

use crate::bulk::batch::Limits;
use crate::map::{RuleOptions, TemplateSet};
use crate::route::{AcceptTime, Pattern};

pub use check::{Problem, load};
pub use raw::Raw;

/// All settings, checked.
pub struct Config {
    pub kafka: Kafka,
    pub elasticsearch: Elasticsearch,
    pub bulk: Bulk,
    /// Compiled from `templates.dir`; `None` without one.
    pub templates: Option<TemplateSet>,
    pub apply_templates: bool,
    /// At least one.
    pub rules: Vec<Rule>,
    pub dead_letter_topic: String,
    pub memory: Memory,
    pub shutdown_deadline: Duration,
    pub admin_listen: String,
    /// Whether the ledger's topics are used.
    pub ledger: bool,
    pub expect: Vec<Expect>,
    /// To tell it from another one: what was written,
    pub written: Written,
    /// and files whose content counts.
    pub files: BTreeSet<PathBuf>,
}

/// What stands until a restart: who judges the pipeline is made once.
pub const FIXED: &[&str] = &["ledger"];

impl Configuration for Config {
    fn written(&self) -> &Written {
        &self.written
    }

    fn files(&self) -> BTreeSet<PathBuf> {
        self.files.clone()
    }

    fn listen(&self) -> &str {
        &self.admin_listen
    }
}

/// A host that must be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expect {
    /// Its name or id.
    pub host: String,
    /// How long it may send nothing new, if there is a limit.
    pub interval: Option<Duration>,
}

#[derive(Clone, Debug)]
pub struct Kafka {
    pub brokers: Vec<String>,
    pub topics: Vec<String>,
    pub group: String,
    pub options: Options,
}

#[derive(Clone, Debug)]
pub struct Elasticsearch {
    /// At least one.
    pub hosts: Vec<String>,
    pub authentication: Authentication,
    pub ca_file: Option<PathBuf>,
    pub client_certificate: Option<ClientCertificate>,
    pub accept_any_certificate: bool,
    pub gzip: bool,
    pub request_timeout: Duration,
}

/// PEM files.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

#[derive(Clone, Debug)]
pub enum Authentication {
    None,
    ApiKey(Secret),
    Bearer(Secret),
    Basic { username: String, password: Secret },
}

#[derive(Clone, Copy, Debug)]
pub struct Bulk {
    pub limits: Limits,
    pub max_in_flight: usize,
    /// How long documents wait for a blocked index.
    pub index_wait: Duration,
    /// How many bytes of them.
    pub parked_bytes: u64,
    /// Longest pause between attempts.
    pub max_backoff: Duration,
}

/// One rule: which records, and what becomes of them.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Empty: all topics.
    pub topics: Vec<String>,
    pub index: Pattern,
    pub defaults: BTreeMap<String, String>,
    pub accept_time: AcceptTime,
    pub max_age: Duration,
    pub max_new_indices: u32,
    /// Documents get the record's id, and not one that Elasticsearch makes.
    pub keeps_ids: bool,
    pub options: Arc<RuleOptions>,
}

/// `limits.memory`, divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Prefetched by librdkafka, over all partitions.
    pub prefetch: u64,
    /// Records that are taken and unfinished: batches, retries, parked items, dead letters.
    pub unfinished: u64,
}

impl Memory {
    /// A small part is prefetch, for which librdkafka takes twice that and more where records are small: as much as keeps the
    /// owner busy. Two fifths are documents on their way; the rest is room for copies while items are sorted out of a batch,
    /// replies, plans and the program itself.
    pub fn divide(total: u64) -> Self {
        Self { prefetch: total / 24, unfinished: total / 5 * 2 }
    }
}

impl Config {
    /// What these settings give up, for the operator to know.
    pub fn warnings(&self) -> Vec<String> {
        let without_ids = self.rules.iter().enumerate().filter(|(_, rule)| !rule.keeps_ids);
        let words = without_ids.map(|(number, _)| {
            format!(
                "rules[{number}].document_id: none: a record that is sent again (a lost reply, a crash, a rebalance, a replayed \
                 dead letter, bytes read again by a shipper) is indexed again, and nothing tells the copies apart"
            )
        });
        let without_ledger = (!self.ledger).then(|| {
            "ledger: off: the promises end at this machine: `indexer audit` cannot tell whether all that was written is \
             indexed, and nobody sees a host or file that stopped (`/pipeline` has no answer). When it is on again, what was \
             indexed meanwhile looks like a hole"
                .to_owned()
        });
        words.chain(without_ledger).collect()
    }

    /// The rule for a topic: the first that names it or names none.
    pub fn rule_for(&self, topic: &str) -> Option<usize> {
        self.rules.iter().position(|rule| rule.topics.is_empty() || rule.topics.iter().any(|t| t == topic))
    }
}
