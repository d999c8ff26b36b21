//! An indexer between topics and a real Elasticsearch, one index template for each topic, and the judgement that every
//! record became one document or one dead letter.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::elasticsearch::Elasticsearch;
use crate::kafka::{Kafka, Record};
use crate::process::{Launch, Process};
use crate::rig::Rig;
use crate::{http, ports, scratch, wait};

/// The limit of whatever has no limit of its own.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A topic, the index and the template of the same name, and the rule between them.
pub struct Lane {
    pub name: &'static str,
    pub mappings: Value,
    /// Of the index, besides those that keep it small.
    pub settings: Value,
    /// YAML of the rule, besides topic and index.
    pub rule: &'static str,
}

impl Lane {
    /// With the settings that every index has.
    pub fn new(name: &'static str, mappings: Value, rule: &'static str) -> Self {
        Self { name, mappings, settings: json!({}), rule }
    }

    fn template(&self) -> Value {
        let mut settings = json!({"number_of_replicas": 0, "number_of_shards": 1});
        let own = self.settings.as_object().into_iter().flatten();
        own.for_each(|(name, value)| settings[name] = value.clone());
        json!({
            "index_patterns": [self.name],
            "priority": 600,
            "version": 1,
            "_meta": {"managed_by": "millrace"},
            "template": {"settings": settings, "mappings": self.mappings},
        })
    }
}

/// What became of the records of a lane, by their offsets.
pub struct Outcome {
    pub records: Vec<Record>,
    pub documents: BTreeMap<i64, Value>,
    pub letters: BTreeMap<i64, Record>,
}

impl Outcome {
    /// The document of a record.
    ///
    /// # Errors
    ///
    /// If it went to the dead letters; the message says why.
    pub fn document(&self, offset: i64) -> Result<&Value> {
        self.documents.get(&offset).with_context(|| {
            let letter = self.letters.get(&offset).and_then(|letter| letter.header("dlq.error.message"));
            format!("no document of record {offset}: {letter:?}")
        })
    }

    /// Fails unless exactly these records are in the dead letters, each for this reason.
    ///
    /// # Errors
    ///
    /// With what differs.
    pub fn check_letters(&self, reason: &str, offsets: &[i64]) -> Result<()> {
        let header = |letter: &Record, name| letter.header(name).unwrap_or_default();
        let found: BTreeMap<i64, (String, String)> = self
            .letters
            .iter()
            .map(|(offset, letter)| (*offset, (header(letter, "dlq.reason"), header(letter, "dlq.error.message"))))
            .collect();
        let is_wanted = found.keys().eq(offsets) && found.values().all(|(found, _)| found == reason);
        ensure!(is_wanted, "wanted {reason} of {offsets:?}, found {found:?}");
        Ok(())
    }
}

/// The lanes of one test, and their indexer.
pub struct MappingRig {
    pub kafka: &'static Kafka,
    pub elasticsearch: &'static Elasticsearch,
    /// Of the group; the dead letters are in `<name>.dlq`.
    name: String,
    dir: PathBuf,
    /// Without the address of the admin endpoint.
    config: String,
    admin: String,
    /// The first indexer, while it runs.
    indexer: Option<Process>,
}

impl MappingRig {
    /// Topics of one partition, templates and an indexer that runs.
    ///
    /// # Errors
    ///
    /// If something does not start.
    pub fn start(name: &str, lanes: &[Lane]) -> Result<Self> {
        let mut rig = Self::new(name, lanes, Elasticsearch::shared()?.url())?;
        rig.start_indexer()?;
        Ok(rig)
    }

    /// Starts the first indexer.
    ///
    /// # Errors
    ///
    /// If the program is not built.
    pub fn start_indexer(&mut self) -> Result<()> {
        self.indexer = Some(self.launch("indexer", &self.admin)?);
        Ok(())
    }

    /// Starts one more indexer of the same group.
    ///
    /// # Errors
    ///
    /// If the program is not built.
    pub fn start_another(&self) -> Result<Process> {
        self.launch("another", "127.0.0.1:0")
    }

    fn launch(&self, name: &str, admin: &str) -> Result<Process> {
        let config = self.dir.join(format!("{name}.yaml"));
        fs::write(&config, format!("{}admin: {{ listen: \"{admin}\" }}\n", self.config))?;
        Launch::indexer(name, &self.dir)?.args(["run", "-c"]).arg(config).start()
    }

    /// As [`MappingRig::start`], with the indexer not started, and Elasticsearch at an address of its own for it.
    ///
    /// # Errors
    ///
    /// If something does not start.
    pub fn new(name: &str, lanes: &[Lane], elasticsearch_url: &str) -> Result<Self> {
        let (kafka, elasticsearch) = (Kafka::shared()?, Elasticsearch::shared()?);
        let dir = scratch::dir(name)?;
        let templates = dir.join("templates");
        fs::create_dir(&templates)?;
        kafka.create_topic(&format!("{name}.dlq"), 1, &[])?;
        let mut rules = String::new();
        for lane in lanes {
            kafka.create_topic(lane.name, 1, &[])?;
            fs::write(templates.join(format!("{}.json", lane.name)), lane.template().to_string())?;
            rules += &format!("  - {{ topics: [{0}], index: {0}, {1} }}\n", lane.name, lane.rule);
        }
        let topics: Vec<_> = lanes.iter().map(|lane| lane.name).collect();
        let admin = format!("127.0.0.1:{}", ports::free()?);
        let config = format!(
            "kafka: {{ brokers: [\"{}\"], topics: {topics:?}, group: {name} }}\n\
             elasticsearch: {{ hosts: [\"{elasticsearch_url}\"] }}\n\
             bulk: {{ max_delay: 100ms }}\n\
             templates: {{ dir: \"{}\", apply: true }}\n\
             rules:\n{rules}\
             dead_letter: {{ topic: {name}.dlq }}\n",
            kafka.bootstrap(),
            templates.display(),
        );
        Ok(Self { kafka, elasticsearch, name: name.to_owned(), dir, config, admin, indexer: None })
    }

    /// Puts records straight into the topic of a lane; the first is record 0.
    ///
    /// # Errors
    ///
    /// If the broker does not take them.
    pub fn produce<'a>(&self, lane: &str, values: impl IntoIterator<Item = &'a str>) -> Result<()> {
        self.kafka.produce(lane, None, values.into_iter().map(|value| ("", value)))
    }

    /// Lets a shipper send a file of JSON lines to the topic of a lane.
    ///
    /// # Errors
    ///
    /// If it does not send as many records as there are lines.
    pub fn ship(&self, lane: &str, lines: &[impl AsRef<str>]) -> Result<()> {
        let mut rig = Rig::without_topic(self.kafka, self.kafka.bootstrap(), lane)?;
        rig.set("inputs.0.format", "json");
        let text: String = lines.iter().flat_map(|line| [line.as_ref(), "\n"]).collect();
        rig.append("app.log", text)?;
        rig.run_until_eof()?;
        let num_records = rig.num_records()?;
        ensure!(num_records == lines.len() as u64, "{num_records} records of {} lines", lines.len());
        Ok(())
    }

    /// A metric of the indexer, summed over the series with these labels; 0 if there is none.
    ///
    /// # Errors
    ///
    /// If it does not answer.
    pub fn metric(&self, name: &str, labels: &[&str]) -> Result<f64> {
        let text = http::get(&format!("http://{}/metrics", self.admin))?.body;
        Ok(http::metric(&text, name, labels).unwrap_or(0.0))
    }

    /// Waits until all records of a lane are finished, and fails unless each is either one document or one letter with the
    /// original bytes that the rule, not Elasticsearch, refused.
    ///
    /// # Errors
    ///
    /// With what is missing, double or altered.
    pub fn settle(&mut self, lane: &str) -> Result<Outcome> {
        self.settle_with(lane, &json!(true))
    }

    /// As [`MappingRig::settle`], with only a part of each document: `_source` of the search.
    ///
    /// # Errors
    ///
    /// As [`MappingRig::settle`].
    pub fn settle_with(&mut self, lane: &str, source: &Value) -> Result<Outcome> {
        let (kafka, group) = (self.kafka, &self.name);
        let indexer = self.indexer.as_mut().context("the indexer was not started")?;
        wait::until_true(&format!("the last commit on {lane}"), LIMIT, || {
            indexer.ensure_running()?;
            Ok(kafka.lag(group, lane)? == 0)
        })?;
        let records = self.kafka.read_topic(lane)?;
        let by_key: BTreeMap<String, i64> = records
            .iter()
            .map(|record| (record.key_text(), record.offset))
            .filter(|(key, _)| !key.is_empty())
            .collect();
        let mut documents = BTreeMap::new();
        let found = self.elasticsearch.search(lane, &json!({"size": 10_000, "_source": source}))?;
        for hit in found["hits"]["hits"].as_array().context("no hits")? {
            let id = hit["_id"].as_str().context("a document without id")?;
            let offset = by_key.get(id).copied().map_or_else(|| offset_in(id, lane), Ok)?;
            ensure!(documents.insert(offset, hit["_source"].clone()).is_none(), "record {offset} is indexed twice");
        }
        let mut letters = BTreeMap::new();
        for letter in self.kafka.read_topic(&format!("{}.dlq", self.name))? {
            if letter.header("dlq.topic").as_deref() != Some(lane) {
                continue;
            }
            let offset: i64 = letter.header("dlq.offset").context("a letter without offset")?.parse()?;
            let original = records.get(usize::try_from(offset)?).context("a letter of no record")?;
            ensure!(
                (&letter.key, &letter.value) == (&original.key, &original.value),
                "the letter of record {offset} is altered"
            );
            let status = letter.header("dlq.status").unwrap_or_default();
            ensure!(
                status.is_empty(),
                "Elasticsearch refused record {offset}: {:?}",
                letter.header("dlq.error.message")
            );
            ensure!(letters.insert(offset, letter).is_none(), "record {offset} is parked twice");
        }
        for record in &records {
            let is_one = documents.contains_key(&record.offset) != letters.contains_key(&record.offset);
            ensure!(is_one, "record {} is not either a document or a letter: {:.300}", record.offset, record.text());
        }
        Ok(Outcome { records, documents, letters })
    }

    /// Stops the indexer; fails unless it ran well: nothing was sent twice, no request was refused as a whole.
    ///
    /// # Errors
    ///
    /// With what went wrong.
    pub fn finish(mut self) -> Result<()> {
        let refused = self.metric("indexer_bulk_requests_total", &["code=\"4"])?;
        let retried = self.metric("indexer_item_retries_total", &[])?;
        ensure!((refused, retried) == (0.0, 0.0), "{refused} requests refused, {retried} items sent again");
        self.indexer.take().context("the indexer was not started")?.stop_within(LIMIT)
    }
}

/// The offset in the id `topic-partition-offset-H` of a record without an id of its own.
fn offset_in(id: &str, topic: &str) -> Result<i64> {
    let rest = id.strip_prefix(topic).and_then(|rest| rest.strip_prefix("-0-"));
    let offset = rest.and_then(|rest| rest.split('-').next());
    offset.with_context(|| format!("a document of no record: {id}"))?.parse().with_context(|| id.to_owned())
}
