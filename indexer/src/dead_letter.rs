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

use millrace_common::kafka::{self, Log, OptionFault};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};

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
    pub record: Record,
}

impl Letter {
    /// Puts a reject's words into the letter.
    pub fn with_reject(self, reject: Reject) -> Self {
        Self { reason: reject.reason, message: reject.detail, field: reject.field, ..self }
    }

    fn headers(&self, timestamp: &str) -> OwnedHeaders {
        let (partition, offset) = (self.partition.to_string(), self.offset.to_string());
        let (attempts, status) = (self.attempts.to_string(), self.status.map(|status| status.to_string()));
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
        ];
        // A header without a value would say nothing.
        let told = headers.into_iter().filter(|(_, value)| !value.is_empty());
        told.fold(OwnedHeaders::new_with_capacity(12), |all, (key, value)| {
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
    #[error("Kafka options are not usable: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Options(Vec<OptionFault>),
    #[error("cannot set up the producer of dead letters: {0}")]
    Client(#[from] KafkaError),
}

struct Context<W> {
    log: Log,
    delivered: mpsc::Sender<Delivered>,
    wake: W,
}

impl<W: Fn() + Send + Sync> ClientContext for Context<W> {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.log.write(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.log.error(&error, reason);
    }
}

impl<W: Fn() + Send + Sync + 'static> ProducerContext for Context<W> {
    type DeliveryOpaque = Box<Letter>;

    fn delivery(&self, result: &DeliveryResult<'_>, letter: Box<Letter>) {
        let result = result.as_ref().map(|_| ()).map_err(|(error, _)| error.clone());
        // The owner hangs up only when it is done with everything.
        let _ = self.delivered.send(Delivered { letter: *letter, result });
        (self.wake)();
    }
}

/// Sends letters. What is on its way is bounded by the budgets of the partitions.
pub struct DeadLetters {
    producer: ThreadedProducer<Context<Box<dyn Fn() + Send + Sync>>>,
    topic: String,
    delivered: mpsc::Receiver<Delivered>,
}

impl DeadLetters {
    /// `wake` is called after each delivery.
    pub fn new(
        settings: &Kafka,
        topic: &str,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, DeadLetterError> {
        let mut config = kafka::producer("indexer", &settings.brokers, &producer_options(&settings.options))
            .map_err(DeadLetterError::Options)?;
        // Whether a letter is too large is for the topic to say.
        kafka::set_default(&mut config, "message.max.bytes", "1000000000");
        let (sender, delivered) = mpsc::channel();
        let context =
            Context { log: Log::new(), delivered: sender, wake: Box::new(wake) as Box<dyn Fn() + Send + Sync> };
        let producer = config.create_with_context(context)?;
        Ok(Self { producer, topic: topic.to_owned(), delivered })
    }

    /// Sends a letter. One that cannot be taken now comes back at once.
    #[expect(clippy::result_large_err, reason = "the letter itself comes back, and rarely")]
    pub fn send(&self, letter: Letter, timestamp: &str) -> Result<(), Delivered> {
        let headers = letter.headers(timestamp);
        let letter = Box::new(letter);
        let (key, value) = (letter.record.key.clone(), letter.record.value.clone());
        let mut record = BaseRecord::with_opaque_to(&self.topic, letter).payload(&value).headers(headers);
        if let Some(key) = &key {
            record = record.key(key);
        }
        let sent = self.producer.send(record);
        sent.map_err(|(error, record)| Delivered { letter: *record.delivery_opaque, result: Err(error) })
    }

    pub fn delivered(&self) -> Option<Delivered> {
        self.delivered.try_recv().ok()
    }

    /// Ends the producer's thread. What is still on its way is given up: its records are not committed.
    pub fn close(self) {
        self.producer.purge(rdkafka::producer::PurgeConfig::default().queue().inflight());
        let _ = self.producer.flush(Duration::from_millis(100));
        std::mem::forget(self.producer);
    }
}

/// Of the operator's options those that both kinds of clients know: security, sockets, names.
fn producer_options(options: &kafka::Options) -> kafka::Options {
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
}
