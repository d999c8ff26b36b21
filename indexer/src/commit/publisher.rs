//! Writing rows to the ledger's topic. Idempotent, so that a row sent again by the client never follows a newer one.

#![expect(
    clippy::disallowed_methods,
    reason = "an edge module: the channel is bounded by the number of rows of one round"
)]

use std::sync::mpsc;
use std::time::Duration;

use millrace_common::kafka::{self, OptionFaults, Reports};
use millrace_common::ledger::indexed::{IndexedKey, IndexedRow};
use millrace_common::ledger::{INDEXED, encode};
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, PurgeConfig};

use crate::config::Kafka;
use crate::dead_letter::producer_options;

#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error("Kafka options are not usable: {0}")]
    Options(OptionFaults),
    #[error("cannot set up the producer of the ledger: {0}")]
    Client(#[from] KafkaError),
}

/// A row that the topic has, or has refused.
#[derive(Debug)]
pub struct Published {
    /// As given to [`Publisher::send`].
    pub token: usize,
    pub result: Result<(), KafkaError>,
}

/// Of removals, whose outcome nobody waits for: what is not removed now is folded once more by the next owner.
const NO_TOKEN: usize = 0;

pub struct Publisher {
    config: ClientConfig,
    producer: Client,
    published: mpsc::Receiver<Published>,
}

impl Publisher {
    /// # Errors
    /// The settings are not those of a producer.
    pub fn new(settings: &Kafka) -> Result<Self, PublishError> {
        let mut config = kafka::producer("indexer-ledger", &settings.brokers, &producer_options(&settings.options))
            .map_err(PublishError::Options)?;
        // How large a row may be is for the topic to say, once it is compressed.
        kafka::set_default(&mut config, "message.max.bytes", "16000000");
        // All rows of a round, of which there is one for each source that changed.
        kafka::set_default(&mut config, "queue.buffering.max.messages", "1000000");
        let (producer, published) = client(&config)?;
        Ok(Self { config, producer, published })
    }

    /// Sends a row. `token` must not be 0.
    ///
    /// # Errors
    /// It cannot be taken now.
    pub fn send(&self, key: &IndexedKey, row: &IndexedRow, token: usize) -> Result<(), KafkaError> {
        let (key, value) = (encode(key), encode(row));
        let record = BaseRecord::with_opaque_to(INDEXED, token).key(&key).payload(&value);
        self.producer.send(record).map_err(|(error, _)| error)
    }

    /// Removes a row. Tried once.
    pub fn remove(&self, key: &IndexedKey) {
        let key = encode(key);
        let record: BaseRecord<'_, [u8], [u8], usize> = BaseRecord::with_opaque_to(INDEXED, NO_TOKEN).key(&key);
        if let Err((error, _)) = self.producer.send(record) {
            tracing::debug!(%error, "a row of the ledger is not removed");
        }
    }

    /// The next outcome, if there is one. Does not wait.
    pub fn published(&self) -> Option<Published> {
        self.published.try_recv().ok().or_else(|| {
            self.serve();
            self.published.try_recv().ok()
        })
    }

    /// Lets the client say what it has to: outcomes, and its log.
    pub fn serve(&self) {
        self.producer.poll(Duration::ZERO);
    }

    /// Begins anew with another client if this one can do nothing any more; what was on its way gets no outcome then. `false`
    /// if there is no need.
    pub fn revive(&mut self) -> bool {
        let Some((_, reason)) = self.producer.client().fatal_error() else { return false };
        tracing::warn!(reason, "the ledger's producer cannot go on: beginning with a new one");
        match client(&self.config) {
            Ok((producer, published)) => {
                self.give_up();
                self.published = published;
                // Dropping a producer waits for brokers that may never answer.
                kafka::retire(std::mem::replace(&mut self.producer, producer));
                true
            }
            Err(error) => {
                tracing::warn!(%error, "cannot make a producer");
                false
            }
        }
    }

    /// Gives up what is still on its way.
    pub fn give_up(&self) {
        self.producer.purge(PurgeConfig::default().queue().inflight());
    }
}

type Client = BaseProducer<Reports<usize>>;

fn client(config: &ClientConfig) -> Result<(Client, mpsc::Receiver<Published>), KafkaError> {
    let (sender, published) = mpsc::channel();
    let reports = Reports::new(move |token, result| {
        if token != NO_TOKEN {
            // The owner hangs up only when it is done with everything.
            let _ = sender.send(Published { token, result });
        }
    });
    Ok((kafka::create(config, reports)?, published))
}
