//! Reading the dead letter topic once, without a group.

use std::collections::BTreeMap;
use std::mem::ManuallyDrop;
use std::time::{Duration, Instant};

use millrace_common::exit::Exit;
use millrace_common::kafka::{self, Log, OptionFaults};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};
use rdkafka::{Offset, TopicPartitionList};

use super::letter::{NotALetter, ParkedLetter};
use super::settings::Dlq;

/// How long one look for a record waits.
pub const POLL: Duration = Duration::from_millis(200);
/// How long the broker may take for an answer,
const PATIENCE: Duration = Duration::from_secs(15);
/// and say nothing at all while records are asked for.
const SILENCE: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("Kafka options are not usable: {0}")]
    Options(OptionFaults),
    #[error("cannot set up the Kafka client")]
    Client(#[source] KafkaError),
    #[error("Kafka does not answer about topic `{topic}`; are the brokers right?")]
    Unreachable { topic: String, source: KafkaError },
    #[error("there is no topic `{0}`; name the topic of the dead letters with --dead-letter-topic")]
    NoTopic(String),
    #[error("reading topic `{0}` is not allowed; grant Describe and Read")]
    Forbidden(String),
    #[error("topic `{topic}` said nothing for {} s before its end was reached", SILENCE.as_secs())]
    Silent { topic: String },
}

impl ReadError {
    pub fn exit(&self) -> Exit {
        match self {
            Self::Options(_) | Self::Client(_) | Self::NoTopic(_) => Exit::Config,
            Self::Unreachable { .. } | Self::Silent { .. } => Exit::Unavailable,
            Self::Forbidden(_) => Exit::Permission,
        }
    }
}

/// What comes next from the topic.
pub enum Next<'a> {
    Record(BorrowedMessage<'a>),
    /// Not yet.
    Nothing,
    /// All that was there at the start was given.
    End,
}

/// The dead letter topic between its start and the end it had when it was opened.
pub struct Topic {
    // Dropping a consumer waits for brokers that may never answer, and the process is about to end.
    consumer: ManuallyDrop<BaseConsumer<Log>>,
    name: String,
    /// Partition -> the offset after its last record, until that was read.
    ends: BTreeMap<i32, i64>,
    /// Offsets between start and end of all partitions.
    pub num_offsets: u64,
    heard: Instant,
}

impl Topic {
    /// Asks for the ends and begins to read.
    ///
    /// # Errors
    /// The topic is not there, or the broker does not answer.
    pub fn open(settings: &Dlq) -> Result<Self, ReadError> {
        let mut config = kafka::consumer("indexer-dlq", &settings.brokers, &settings.group, &settings.options)
            .map_err(ReadError::Options)?;
        config.set("enable.partition.eof", "true");
        let unreachable = |source| ReadError::Unreachable { topic: settings.topic.clone(), source };
        // The limit for prefetched records counts for each partition; until their number is known it is that of one.
        kafka::set_default(&mut config, "fetch.message.max.bytes", "1048576");
        kafka::set_default(&mut config, "fetch.wait.max.ms", "100");
        kafka::set_default(&mut config, "queued.max.messages.kbytes", &(settings.memory >> 14).max(256).to_string());
        let consumer = kafka::create(&config, Log::new()).map_err(ReadError::Client)?;
        let consumer: ManuallyDrop<BaseConsumer<Log>> = ManuallyDrop::new(consumer);
        let mut ends = BTreeMap::new();
        let mut num_offsets = 0;
        let mut list = TopicPartitionList::new();
        for partition in partitions(&consumer, &settings.topic)? {
            let (start, end) = consumer.fetch_watermarks(&settings.topic, partition, PATIENCE).map_err(unreachable)?;
            if start < end {
                ends.insert(partition, end);
                num_offsets += (end - start) as u64;
                list.add_partition_offset(&settings.topic, partition, Offset::Offset(start)).map_err(unreachable)?;
            }
        }
        consumer.assign(&list).map_err(unreachable)?;
        Ok(Self { consumer, name: settings.topic.clone(), ends, num_offsets, heard: now() })
    }

    /// Gives the next record, waiting at most `timeout`.
    ///
    /// # Errors
    /// The broker says nothing more.
    pub fn next(&mut self, timeout: Duration) -> Result<Next<'_>, ReadError> {
        if self.ends.is_empty() {
            return Ok(Next::End);
        }
        let now = now();
        match self.consumer.poll(timeout) {
            Some(Ok(message)) => {
                self.heard = now;
                let Some(&end) = self.ends.get(&message.partition()) else { return Ok(Next::Nothing) };
                if message.offset() + 1 >= end {
                    self.ends.remove(&message.partition());
                }
                if message.offset() >= end { Ok(Next::Nothing) } else { Ok(Next::Record(message)) }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                self.heard = now;
                // The last offsets of a partition may hold no record: compacted ones, markers of transactions.
                self.ends.remove(&partition);
                Ok(Next::Nothing)
            }
            Some(Err(error)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                Err(ReadError::Forbidden(self.name.clone()))
            }
            // The client mends what it can by itself, and its log says what is wrong.
            None | Some(Err(_)) if now.duration_since(self.heard) < SILENCE => Ok(Next::Nothing),
            None | Some(Err(_)) => Err(ReadError::Silent { topic: self.name.clone() }),
        }
    }
}

/// The partitions of a topic.
fn partitions(consumer: &BaseConsumer<Log>, topic: &str) -> Result<Vec<i32>, ReadError> {
    let unreachable = |source| ReadError::Unreachable { topic: topic.to_owned(), source };
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).map_err(unreachable)?;
    let Some(found) = metadata.topics().first() else { return Err(ReadError::NoTopic(topic.to_owned())) };
    match found.error() {
        Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED) => {
            Err(ReadError::Forbidden(topic.to_owned()))
        }
        _ if found.partitions().is_empty() => Err(ReadError::NoTopic(topic.to_owned())),
        _ => Ok(found.partitions().iter().map(|partition| partition.id()).collect()),
    }
}

/// The letter that a record holds.
pub fn parse(message: &BorrowedMessage<'_>) -> Result<ParkedLetter, NotALetter> {
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    let headers = headers.map(|header| (header.key, header.value.unwrap_or_default()));
    let value = message.payload().unwrap_or_default();
    ParkedLetter::read(headers, message.key(), value, message.timestamp().to_millis())
}

#[expect(clippy::disallowed_methods, reason = "an edge module: the clock of this loop")]
fn now() -> Instant {
    Instant::now()
}
