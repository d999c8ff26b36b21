//! Parking rejects in a topic.
//!
//! A record is finished only when its letter is acknowledged. A letter that is refused comes back and is sent again later:
//! nothing is dropped, the commit waits.

#![expect(
    clippy::disallowed_methods,
    reason = "an edge module: the channel is bounded by the budgets of the partitions"
)]

use std::sync::mpsc;
use std::time::Duration;

use millrace_common::kafka::{self, OptionFaults, Reports};
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, PurgeConfig};

use crate::bulk::batch::{Owner, Record};
use crate::commit::ledger::Sequence;
use crate::config::Kafka;
use crate::reject::{Reason, Reject};

/// Longest `dlq.error.message`.
const MAX_MESSAGE_BYTES: usize = 4 << 10;

/// A reject on its way to the topic.
#[derive(Clone, Debug)]
pub struct Letter {
    pub owner: Owner,
    pub sequence: Sequence,
    /// Bytes that count against the budget of the partition.
    pub size: u64,
    pub id: String,
    pub reason: Reason,
    /// Type and status of Elasticsearch's error, if it was the one who refused.
    pub error_type: String,
    pub status: Option<u16>,
    pub message: String,
    pub field: String,
    pub index: String,
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// Bulk requests that carried the document.
    pub attempts: u16,
    /// Of a letter too large for the topic: which part of its value this is (from 1), and of how many.
    pub part: Option<(u32, u32)>,
    /// Sent in a request of its own, since the topic's limit counts for all letters of a request together.
    pub is_alone: bool,
    pub record: Record,
}

impl Letter {
    /// Puts a reject's words into the letter.
    pub fn with_reject(self, reject: Reject) -> Self {
        Self { reason: reject.reason, message: reject.detail, field: reject.field, ..self }
    }

    /// The letter in parts whose values have at most `max` bytes.
    pub fn parts(&self, max: usize) -> impl Iterator<Item = Self> {
        let chunks = self.record.value.chunks(max.max(1));
        let num = chunks.len() as u32;
        chunks.zip(1..).map(move |(chunk, number)| {
            let record = Record { key: self.record.key.clone(), value: chunk.to_vec() };
            Self { part: Some((number, num)), is_alone: true, record, ..self.clone() }
        })
    }

    fn headers(&self, timestamp: &str) -> OwnedHeaders {
        let (partition, offset) = (self.partition.to_string(), self.offset.to_string());
        let (attempts, status) = (self.attempts.to_string(), self.status.map(|status| status.to_string()));
        let part = self.part.map(|(number, num)| format!("{number}/{num}"));
        let headers = [
            ("millrace.id", self.id.as_str()),
            ("dlq.reason", self.reason.as_str()),
            ("dlq.error.type", &self.error_type),
            ("dlq.error.message", cut(&self.message, MAX_MESSAGE_BYTES)),
            ("dlq.field", &self.field),
            ("dlq.index", &self.index),
            ("dlq.status", status.as_deref().unwrap_or_default()),
            ("dlq.topic", &self.topic),
            ("dlq.partition", &partition),
            ("dlq.offset", &offset),
            ("dlq.attempts", &attempts),
            ("dlq.timestamp", timestamp),
            ("dlq.chunk", part.as_deref().unwrap_or_default()),
        ];
        // A header without a value would say nothing.
        let told = headers.into_iter().filter(|(_, value)| !value.is_empty());
        told.fold(OwnedHeaders::new_with_capacity(13), |all, (key, value)| {
            all.insert(Header { key, value: Some(value) })
        })
    }
}

fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// A letter that the topic has, or has refused.
#[derive(Debug)]
pub struct Delivered {
    pub letter: Letter,
    pub result: Result<(), KafkaError>,
}

#[derive(Debug, thiserror::Error)]
pub enum DeadLetterError {
    #[error("Kafka options are not usable: {0}")]
    Options(OptionFaults),
    #[error("cannot set up the producer of dead letters: {0}")]
    Client(#[from] KafkaError),
}

type Client = BaseProducer<Reports<Box<Letter>>>;

/// Sends letters. What is on its way is bounded by the budgets of the partitions.
pub struct DeadLetters {
    config: ClientConfig,
    producer: Client,
    /// One letter a request; made when first needed.
    alone: Option<Client>,
    topic: String,
    sender: mpsc::Sender<Delivered>,
    delivered: mpsc::Receiver<Delivered>,
}

impl DeadLetters {
    pub fn new(settings: &Kafka, topic: &str) -> Result<Self, DeadLetterError> {
        let mut config = kafka::producer("indexer", &settings.brokers, &producer_options(&settings.options))
            .map_err(DeadLetterError::Options)?;
        // Whether a letter is too large is for the topic to say. Requests stay below usual limits unless one letter is not.
        kafka::set_default(&mut config, "message.max.bytes", "1000000000");
        kafka::set_default(&mut config, "batch.size", "65536");
        let (sender, delivered) = mpsc::channel();
        let producer = client(&config, &sender)?;
        Ok(Self { config, producer, alone: None, topic: topic.to_owned(), sender, delivered })
    }

    /// Sends a letter. One that cannot be taken now comes back at once.
    #[expect(clippy::result_large_err, reason = "the letter itself comes back, and rarely")]
    pub fn send(&mut self, letter: Letter, timestamp: &str) -> Result<(), Delivered> {
        if letter.is_alone && self.alone.is_none() {
            self.config.set("batch.num.messages", "1");
            match client(&self.config, &self.sender) {
                Ok(client) => self.alone = Some(client),
                Err(error) => return Err(Delivered { letter, result: Err(error) }),
            }
        }
        let producer = self.alone.as_ref().filter(|_| letter.is_alone).unwrap_or(&self.producer);
        let headers = letter.headers(timestamp);
        let letter = Box::new(letter);
        let (key, value) = (letter.record.key.clone(), letter.record.value.clone());
        let mut record = BaseRecord::with_opaque_to(&self.topic, letter).payload(&value).headers(headers);
        if let Some(key) = &key {
            record = record.key(key);
        }
        let sent = producer.send(record);
        sent.map_err(|(error, record)| Delivered { letter: *record.delivery_opaque, result: Err(error) })
    }

    /// The next outcome, if there is one. Does not wait.
    pub fn delivered(&self) -> Option<Delivered> {
        self.delivered.try_recv().ok().or_else(|| {
            self.producers().for_each(|producer| producer.poll(Duration::ZERO));
            self.delivered.try_recv().ok()
        })
    }

    /// Whether outcomes are to come.
    pub fn is_waiting(&self) -> bool {
        self.producers().any(|producer| producer.in_flight_count() > 0)
    }

    fn producers(&self) -> impl Iterator<Item = &Client> {
        self.alone.iter().chain([&self.producer])
    }

    /// Gives up what is still on its way, whose records are not committed.
    pub fn give_up(&self) {
        self.producers().for_each(|producer| producer.purge(PurgeConfig::default().queue().inflight()));
    }
}

fn client(config: &ClientConfig, sender: &mpsc::Sender<Delivered>) -> Result<Client, KafkaError> {
    let sender = sender.clone();
    let reports = Reports::new(move |letter: Box<Letter>, result| {
        // The owner hangs up only when it is done with everything.
        let _ = sender.send(Delivered { letter: *letter, result });
    });
    kafka::create(config, reports)
}

/// Of the operator's options those that both kinds of clients know: security, sockets, names.
pub(crate) fn producer_options(options: &kafka::Options) -> kafka::Options {
    let is_common = |name: &str| {
        [
            "sasl.",
            "ssl.",
            "security.",
            "socket.",
            "broker.",
            "client.",
            "metadata.",
            "reconnect.",
            "enable.ssl",
            "https.",
            "log.",
        ]
        .iter()
        .any(|prefix| name.starts_with(prefix))
    };
    options
        .iter()
        .filter(|(name, _)| is_common(name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::message::Headers;

    fn letter() -> Letter {
        Letter {
            owner: Owner { slot: 0, epoch: 0 },
            sequence: 0,
            size: 0,
            id: "id".into(),
            reason: Reason::Refused,
            error_type: String::new(),
            status: Some(400),
            message: "é".repeat(MAX_MESSAGE_BYTES),
            field: "http.status".into(),
            index: "logs".into(),
            topic: "t".into(),
            partition: 1,
            offset: 2,
            attempts: 1,
            part: None,
            is_alone: false,
            record: Record { key: None, value: b"{".to_vec() },
        }
    }

    #[test]
    fn the_headers_tell_what_happened_and_nothing_empty() {
        let headers = letter().headers("now");
        let get = |name: &str| headers.iter().find(|h| h.key == name).and_then(|h| h.value).map(<[u8]>::to_vec);
        assert_eq!(get("dlq.reason").unwrap(), b"refused");
        assert_eq!(get("dlq.status").unwrap(), b"400");
        assert_eq!(get("dlq.error.message").unwrap().len(), MAX_MESSAGE_BYTES);
        assert_eq!(get("dlq.error.type"), None);
        assert_eq!(get("dlq.offset").unwrap(), b"2");
    }

    #[test]
    fn the_parts_of_a_letter_are_its_value_in_order() {
        let value: Vec<u8> = (0..=255).cycle().take(1_000).collect();
        let letter = Letter { record: Record { key: Some(b"k".to_vec()), value: value.clone() }, ..letter() };
        let parts: Vec<Letter> = letter.parts(300).collect();
        assert_eq!(
            parts.iter().map(|part| part.part).collect::<Vec<_>>(),
            (1..=4).map(|n| Some((n, 4))).collect::<Vec<_>>()
        );
        assert_eq!(parts.iter().flat_map(|part| part.record.value.clone()).collect::<Vec<u8>>(), value);
        assert!(parts.iter().all(|part| part.record.key == letter.record.key));
    }
}
