//! The questions to Kafka. Each blocks for some seconds at the most.

use std::collections::BTreeMap;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::Finding;
use super::clocks::Heartbeats;
use super::topics::{self, Topic};
use crate::kafka::settings::{self, Settings};
use crate::kafka::{self, Log, Reports};
use crate::ledger::SOURCES;
use crate::ledger::reader::{ReadError, Reader};

const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);
/// A larger record would cost more than the answer is worth.
const MAX_PROBE_BYTES: i64 = 16 << 20;

/// What is known of each of `names`, in their order; `None`: it is not there, or may not be seen. `config` is that of a producer.
///
/// # Errors
/// No broker answers.
pub fn describe(config: &ClientConfig, names: &[&str]) -> Result<Vec<Option<Topic>>> {
    let client = kafka::create_admin(config).context("cannot make a Kafka client")?;
    let metadata = client.inner().fetch_metadata(None, PATIENCE).context("Kafka does not answer")?;
    let find = |name: &&str| {
        let topic = metadata.topics().iter().find(|topic| topic.name() == *name);
        topic.filter(|topic| !topic.partitions().is_empty())
    };
    let known: Vec<&str> = names.iter().copied().filter(|name| find(name).is_some()).collect();
    let mut told: BTreeMap<String, Settings> = match known.is_empty() {
        true => BTreeMap::new(),
        false => settings::of_topics(config, &known, PATIENCE)
            .context("Kafka tells no settings of topics")?
            .into_iter()
            .collect(),
    };
    let describe = |name: &&str| {
        let partitions = find(name)?.partitions();
        Some(Topic {
            name: (*name).to_owned(),
            num_partitions: partitions.len(),
            num_replicas: partitions.iter().map(|partition| partition.replicas().len()).min().unwrap_or(0),
            settings: told.remove(*name).filter(|settings| !settings.is_empty()),
        })
    };
    Ok(names.iter().map(describe).collect())
}

/// Whether `topic` may be written to, without writing: a broker looks at the right first, and then refuses a record that is larger
/// than the topic takes. `config` is that of a producer.
///
/// # Errors
/// No client can be made.
pub fn may_write(config: &ClientConfig, topic: &Topic) -> Result<Option<Finding>> {
    let untold = |why: String| {
        let what = format!("whether it may be written to is not told ({why})");
        Some(Finding::warning(
            topic.place(),
            what,
            "without the right Write nothing is acknowledged",
            "grant Write on it",
        ))
    };
    let Some(max) = topic.number("max.message.bytes").filter(|&max| max <= MAX_PROBE_BYTES) else {
        return Ok(untold("max.message.bytes is unknown or very large".to_owned()));
    };
    let mut config = config.clone();
    let room = (max + (128 << 10)).to_string();
    for (name, value) in [
        ("enable.idempotence", "false"),
        ("compression.codec", "none"),
        ("message.timeout.ms", "10000"),
        ("message.max.bytes", &room),
        ("queue.buffering.max.kbytes", "65536"),
    ] {
        config.set(name, value);
    }
    let (sender, outcome) = sync_channel(1);
    let report = move |_: Box<()>, result| {
        // Nobody waits for a second word.
        let _ = sender.try_send(result);
    };
    let producer: BaseProducer<Reports<Box<()>>> = kafka::create(&config, Reports::new(report))?;
    let value = vec![0_u8; max as usize + 1];
    let sent = producer.send(BaseRecord::with_opaque_to(&topic.name, Box::new(())).key("check").payload(&value));
    let outcome = match sent {
        Err((error, _)) => Err(error),
        Ok(()) => loop {
            producer.poll(POLL);
            if let Ok(outcome) = outcome.try_recv() {
                break outcome;
            }
        },
    };
    Ok(match outcome.map_err(|error| error.rdkafka_error_code()) {
        Err(Some(RDKafkaErrorCode::MessageSizeTooLarge)) => None,
        Err(Some(RDKafkaErrorCode::TopicAuthorizationFailed)) => Some(Finding::breach(
            topic.place(),
            "it may not be written to",
            "nothing is acknowledged",
            "grant Write on it",
        )),
        Err(Some(code)) => untold(code.to_string()),
        outcome => untold(format!("{outcome:?}")),
    })
}

/// Whether `topic` may be read. `config` is that of a consumer.
///
/// # Errors
/// No client can be made.
pub fn may_read(config: &ClientConfig, topic: &Topic) -> Result<Option<Finding>> {
    let mut config = config.clone();
    config.set("enable.partition.eof", "true");
    let consumer: BaseConsumer<Log> = kafka::create(&config, Log::new())?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&topic.name, 0, Offset::End)?;
    consumer.assign(&list)?;
    let polls = PATIENCE.as_millis() / POLL.as_millis();
    for _ in 0..polls {
        match consumer.poll(POLL) {
            Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => return Ok(None),
            Some(Err(error)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                let remedy = "grant Read on it";
                return Ok(Some(Finding::breach(topic.place(), "it may not be read", "nothing is indexed", remedy)));
            }
            _ => {}
        }
    }
    let what = format!("no answer within {} s when it is read", PATIENCE.as_secs());
    Ok(Some(Finding::warning(topic.place(), what, "whether it may be read is not told", "look at its leaders")))
}

/// Whether the clocks of the hosts that have shippers, of Kafka and of this machine agree.
pub fn clocks(config: ClientConfig, now_ms: i64) -> Vec<Finding> {
    let read = || -> Result<Heartbeats, ReadError> {
        let mut heartbeats = Heartbeats::default();
        let mut reader = Reader::open(config, &[SOURCES])?;
        reader.read_to_end(PATIENCE, &|| true, |fact| heartbeats.take(&fact))?;
        reader.close();
        Ok(heartbeats)
    };
    match read() {
        Ok(heartbeats) => heartbeats.findings(now_ms),
        Err(ReadError::NoTopic(_)) => Vec::new(),
        Err(error) => {
            let what = format!("{:#}", anyhow::Error::from(error));
            let remedy = "grant Read on it";
            vec![Finding::warning(topics::place(SOURCES), what, "clocks were not compared", remedy)]
        }
    }
}

/// A topic of the ledger, which is written to; the programs make it where it is missing. `config` is that of a producer.
///
/// # Errors
/// No client can be made.
pub fn ledger(config: &ClientConfig, name: &str, topic: Option<&Topic>) -> Result<Vec<Finding>> {
    let Some(topic) = topic else {
        let stake =
            "it is made at the first start, with as many replicas as the records' topic, if the right Create is there";
        return Ok(vec![Finding::warning(topics::place(name), "does not exist", stake, "create it, or grant Create")]);
    };
    let mut findings = topics::ledger(topic);
    findings.extend(may_write(config, topic)?);
    Ok(findings)
}
