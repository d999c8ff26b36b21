//! Indexers between a topic and the scripted server, and the judgement over what they index.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::fake_elasticsearch::FakeElasticsearch;
use crate::kafka::{Kafka, KafkaClient};
use crate::process::{Launch, Process};
use crate::{http, ports, scratch, wait};

/// The limit of whatever has no limit of its own.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A topic with its dead letters, the server, and an indexer.
pub struct IndexerRig {
    pub kafka: KafkaClient,
    pub fake: FakeElasticsearch,
    /// Of the topic and the group; the dead letters are in `<name>.dlq`.
    pub name: String,
    /// Where the first indexer's admin endpoint listens.
    pub admin: String,
    pub launch: Launch,
    config: PathBuf,
    /// The first indexer, while it runs.
    pub indexer: Option<Process>,
}

impl IndexerRig {
    /// Topics and an indexer that is not started yet. `bulk` is YAML for the section of that name.
    pub fn new(name: &str, partitions: i32, bulk: &str) -> Result<Self> {
        Self::with_options(name, partitions, bulk, "")
    }

    /// [`IndexerRig::new`] with YAML for `kafka.options`. Without partitions the topic is not made.
    pub fn with_options(name: &str, partitions: i32, bulk: &str, options: &str) -> Result<Self> {
        let kafka = Kafka::shared()?;
        Self::on(kafka, kafka.bootstrap(), name, partitions, bulk, options)
    }

    /// [`IndexerRig::with_options`] on a broker of the test's own; `brokers` is the address that the indexer gets.
    pub fn on(
        kafka: &KafkaClient,
        brokers: &str,
        name: &str,
        partitions: i32,
        bulk: &str,
        options: &str,
    ) -> Result<Self> {
        let name = format!("indexer-{name}");
        if partitions > 0 {
            kafka.create_topic(&name, partitions, &[])?;
        }
        kafka.create_topic(&format!("{name}.dlq"), 1, &[])?;
        let fake = FakeElasticsearch::start()?;
        let admin = format!("127.0.0.1:{}", ports::free()?);
        let dir = scratch::dir(&name)?;
        let config = format!(
            "kafka: {{ brokers: [\"{}\"], topics: [\"{name}\"], group: \"{name}\", options: {{ {options} }} }}\n\
             elasticsearch: {{ hosts: [\"{}\"], request_timeout: 5s }}\n\
             bulk: {{ max_delay: 100ms, index_wait: 3s, {bulk} }}\n\
             rules: [ {{ index: \"{{service.name}}\", default: {{ service.name: a }} }} ]\n\
             dead_letter: {{ topic: \"{name}.dlq\" }}\n\
             admin: {{ listen: \"{admin}\" }}\n",
            brokers,
            fake.url(),
        );
        let path = dir.join("indexer.yaml");
        std::fs::write(&path, config)?;
        let launch = Launch::indexer("indexer", &dir)?.args(["run", "-c"]).arg(&path);
        Ok(Self { kafka: kafka.clone(), fake, name, admin, launch, config: path, indexer: None })
    }

    /// The configuration file.
    pub fn config(&self) -> &std::path::Path {
        &self.config
    }

    /// Replaces a part of the configuration file for the starts to come.
    pub fn reconfigure(&self, from: &str, to: &str) -> Result<()> {
        let text = std::fs::read_to_string(&self.config)?;
        ensure!(text.contains(from), "no `{from}` in {text}");
        Ok(std::fs::write(&self.config, text.replace(from, to))?)
    }

    /// Starts the first indexer.
    pub fn start(&mut self) -> Result<()> {
        self.indexer = Some(self.launch.start()?);
        Ok(())
    }

    /// Starts one more indexer of the same group.
    pub fn start_another(&self, name: &str) -> Result<Process> {
        let dir = scratch::dir(&format!("{}-{name}", self.name))?;
        let launch =
            Launch::indexer(name, &dir)?.args(["run", "--admin-listen", "127.0.0.1:0", "-c"]).arg(&self.config);
        launch.start()
    }

    /// Writes records `{"n":k,"service":{"name":…}}`.
    pub fn produce(&self, numbers: std::ops::Range<usize>, service: &str) -> Result<()> {
        self.produce_to(None, numbers, service)
    }

    /// [`IndexerRig::produce`] to one partition.
    pub fn produce_to(&self, partition: Option<i32>, numbers: std::ops::Range<usize>, service: &str) -> Result<()> {
        let record = |n| format!(r#"{{"n":{n},"service":{{"name":"{service}"}},"message":"line {n}"}}"#);
        let records: Vec<String> = numbers.map(record).collect();
        self.kafka.produce(&self.name, partition, records.iter().map(|value| ("", value.as_str())))
    }

    pub fn metric(&self, name: &str, labels: &[&str]) -> Result<f64> {
        let text = http::get(&format!("http://{}/metrics", self.admin))?.body;
        Ok(http::metric(&text, name, labels).unwrap_or(0.0))
    }

    pub fn ready(&self) -> Result<(u16, String)> {
        let reply = http::get(&format!("http://{}/readyz", self.admin))?;
        Ok((reply.status, reply.body))
    }

    /// Waits until it says, within 30 s as promised, that records do not flow for this reason.
    pub fn wait_blocked(&self, reason: &str) -> Result<()> {
        wait::until_true(&format!("readiness to fail for `{reason}`"), Duration::from_secs(30), || {
            Ok(self.ready().is_ok_and(|(status, body)| status == 503 && body.contains(reason)))
        })
    }

    pub fn wait_ready(&self, limit: Duration) -> Result<()> {
        wait::until_true("readiness", limit, || Ok(self.ready().is_ok_and(|(status, _)| status == 200)))
    }

    pub fn is_live(&self) -> Result<bool> {
        Ok(http::get(&format!("http://{}/livez", self.admin))?.status == 200)
    }

    pub fn wait_documents(&self, num: usize) -> Result<()> {
        wait::until_true(&format!("{num} documents"), LIMIT, || Ok(self.fake.num_documents() >= num))
    }

    pub fn num_letters(&self) -> Result<i64> {
        Ok(self.kafka.end_offsets(&format!("{}.dlq", self.name))?.values().sum())
    }

    /// Waits for the end and judges: numbers `0..num` are each in the index once, except those in the dead letters.
    pub fn judge(&mut self, num: usize, dead: &[usize]) -> Result<()> {
        self.wait_documents(num - dead.len())?;
        self.kafka.wait_no_lag(&self.name, &self.name, LIMIT)?;
        let mut seen: BTreeMap<u64, usize> = BTreeMap::new();
        for document in self.fake.documents().values() {
            *seen.entry(number(document)?).or_default() += 1;
        }
        let letters = self.kafka.read_topic(&format!("{}.dlq", self.name))?;
        let in_letters: BTreeSet<u64> = letters.iter().map(|letter| number(&letter.text())).collect::<Result<_>>()?;
        ensure!(in_letters == dead.iter().map(|&n| n as u64).collect(), "dead letters: {in_letters:?}");
        let wrong: Vec<_> = (0..num as u64)
            .filter(|n| seen.get(n).copied().unwrap_or(0) != usize::from(!in_letters.contains(n)))
            .collect();
        ensure!(wrong.is_empty(), "{} records not exactly once: {:?}", wrong.len(), &wrong[..wrong.len().min(10)]);
        self.indexer.take().context("the indexer was not started")?.stop_within(Duration::from_secs(30))
    }
}

/// The number of a record of [`IndexerRig::produce`].
pub fn number(document: &str) -> Result<u64> {
    let value: Value = serde_json::from_str(document)?;
    value["n"].as_u64().with_context(|| format!("no number in {document}"))
}
