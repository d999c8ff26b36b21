//! Producing letters to the topics they came from.

use std::collections::BTreeMap;
use std::mem::ManuallyDrop;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use millrace_common::kafka::{self, Reports};
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::types::RDKafkaErrorCode;

use super::letter::ParkedLetter;
use super::read::ReadError;
use super::settings::Dlq;
use super::{MAX_TOLD, show};
use crate::dead_letter::producer_options;
use crate::decode::ID_HEADER;

/// Without any acknowledgement for this long, the rest is given up.
const SILENCE: Duration = Duration::from_secs(120);
const PATIENCE: Duration = Duration::from_secs(15);
/// What a record weighs besides its bytes.
const RECORD_OVERHEAD: usize = 256;

/// A record on its way.
#[derive(Clone)]
struct Outgoing {
    id: String,
    topic: String,
    partition: Option<i32>,
    timestamp_ms: i64,
    key: Option<Vec<u8>>,
    value: Vec<u8>,
    /// Sent in a request of its own: the topic's limit counts for all records of a request together.
    is_alone: bool,
}

impl Outgoing {
    fn num_bytes(&self) -> usize {
        self.value.len() + self.key.as_ref().map_or(0, Vec::len) + RECORD_OVERHEAD
    }
}

/// Taken after each poll, so that it holds no more than what is in flight.
type Delivered = Arc<Mutex<Vec<(Arc<Outgoing>, Result<(), KafkaError>)>>>;

// Dropping a producer waits for brokers that may never answer, and the process is about to end.
type Client = ManuallyDrop<BaseProducer<Reports<Arc<Outgoing>>>>;

/// What was sent to a topic.
#[derive(Default)]
pub struct Target {
    /// Partitions it has now; `None` if it is not there.
    num_partitions: Option<i32>,
    pub num_letters: u64,
    pub num_bytes: u64,
}

/// Produces letters and knows what became of them.
pub struct Sender {
    config: ClientConfig,
    producer: Client,
    /// One record a request; made when first needed.
    alone: Option<Client>,
    delivered: Delivered,
    dead_letter_topic: String,
    is_dry: bool,
    pub targets: BTreeMap<String, Target>,
    pub in_flight: usize,
    in_flight_bytes: usize,
    max_in_flight_bytes: usize,
    pub num_acknowledged: u64,
    pub num_sent: u64,
    pub num_failed: u64,
    /// Why, of the first few.
    pub failures: Vec<String>,
    heard: Instant,
}

impl Sender {
    pub fn new(settings: &Dlq, is_dry: bool) -> anyhow::Result<Self> {
        let options = producer_options(&settings.options);
        let mut config = kafka::producer("indexer-dlq", &settings.brokers, &options).map_err(ReadError::Options)?;
        // Whether a record is too large is for its topic to say. Requests stay below usual limits unless one record is not.
        kafka::set_default(&mut config, "message.max.bytes", "1000000000");
        kafka::set_default(&mut config, "batch.size", "65536");
        let delivered = Arc::new(Mutex::new(Vec::new()));
        let producer = client(&config, &delivered)?;
        Ok(Self {
            config,
            producer,
            alone: None,
            delivered,
            dead_letter_topic: settings.topic.clone(),
            is_dry,
            targets: BTreeMap::new(),
            in_flight: 0,
            in_flight_bytes: 0,
            // Half in ours and half in librdkafka's copies.
            max_in_flight_bytes: usize::try_from(settings.memory / 8).unwrap_or(usize::MAX),
            num_acknowledged: 0,
            num_sent: 0,
            num_failed: 0,
            failures: Vec::new(),
            heard: now(),
        })
    }

    /// Sends a letter, waiting for room.
    pub fn send(&mut self, letter: ParkedLetter) -> anyhow::Result<()> {
        let num_partitions = match self.targets.get(&letter.topic) {
            Some(target) => target.num_partitions,
            None => {
                let num_partitions = self.ask_partitions(&letter.topic)?;
                self.targets.insert(letter.topic.clone(), Target { num_partitions, ..Target::default() });
                num_partitions
            }
        };
        let Some(num_partitions) = num_partitions.filter(|_| letter.topic != self.dead_letter_topic) else {
            self.fail(&letter.id, &format!("topic `{}` is not there or is the dead letter topic", letter.topic));
            return Ok(());
        };
        if let Some(target) = self.targets.get_mut(&letter.topic) {
            target.num_letters += 1;
            target.num_bytes += letter.value.len() as u64;
        }
        if self.is_dry {
            return Ok(());
        }
        let outgoing = Outgoing {
            // Where its source is in order, and where whoever owned it before expects it.
            partition: letter.partition.filter(|partition| (0..num_partitions).contains(partition)),
            // The time names the index of a document without a time of its own. Were it the time of the replay, the next
            // replay would make another document in another index.
            timestamp_ms: letter.first_parked_ms,
            id: letter.id,
            topic: letter.topic,
            key: letter.key,
            value: letter.value,
            is_alone: false,
        };
        self.num_sent += 1;
        if self.is_idle() {
            self.heard = now();
        }
        while self.in_flight_bytes > self.max_in_flight_bytes && !self.is_stuck() {
            self.turn(Duration::from_millis(100));
        }
        self.push(Arc::new(outgoing))
    }

    fn push(&mut self, outgoing: Arc<Outgoing>) -> anyhow::Result<()> {
        if outgoing.is_alone && self.alone.is_none() {
            self.config.set("batch.num.messages", "1");
            self.alone = Some(client(&self.config, &self.delivered)?);
        }
        self.in_flight += 1;
        self.in_flight_bytes += outgoing.num_bytes();
        let id = OwnedHeaders::new_with_capacity(1).insert(Header { key: ID_HEADER, value: Some(&outgoing.id) });
        let mut record = BaseRecord::with_opaque_to(&outgoing.topic, Arc::clone(&outgoing))
            .payload(&outgoing.value)
            .timestamp(outgoing.timestamp_ms)
            .headers(id);
        if let Some(key) = &outgoing.key {
            record = record.key(key);
        }
        if let Some(partition) = outgoing.partition {
            record = record.partition(partition);
        }
        loop {
            let producer = self.alone.as_ref().filter(|_| outgoing.is_alone).unwrap_or(&self.producer);
            match producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) if !self.is_stuck() => {
                    record = back;
                    self.turn(Duration::from_millis(100));
                }
                Err((error, _)) => {
                    self.settle(&outgoing);
                    self.fail(&outgoing.id, &error.to_string());
                    return Ok(());
                }
            }
        }
    }

    /// Takes acknowledgements, waiting at most `timeout` for one.
    pub fn turn(&mut self, timeout: Duration) {
        self.producer.poll(timeout);
        if let Some(alone) = &self.alone {
            alone.poll(timeout);
        }
        let delivered = std::mem::take(&mut *self.delivered.lock().unwrap_or_else(PoisonError::into_inner));
        for (outgoing, result) in delivered {
            self.heard = now();
            self.settle(&outgoing);
            match result {
                Ok(()) => self.num_acknowledged += 1,
                // Perhaps only its company made the request too large.
                Err(error) if is_too_large(&error) && !outgoing.is_alone => {
                    let again = Outgoing { is_alone: true, ..Arc::unwrap_or_clone(outgoing) };
                    let id = again.id.clone();
                    if let Err(error) = self.push(Arc::new(again)) {
                        self.fail(&id, &format!("{error:#}"));
                    }
                }
                Err(error) => self.fail(&outgoing.id, &error.to_string()),
            }
        }
    }

    fn settle(&mut self, outgoing: &Outgoing) {
        self.in_flight -= 1;
        self.in_flight_bytes -= outgoing.num_bytes();
    }

    fn fail(&mut self, id: &str, why: &str) {
        self.num_failed += 1;
        if self.failures.len() < MAX_TOLD {
            self.failures.push(format!("letter {}: {}", show::escape(id), show::escape(why)));
        }
    }

    /// How many partitions a topic has; `None` if it is not there.
    fn ask_partitions(&self, topic: &str) -> anyhow::Result<Option<i32>> {
        let metadata = self.producer.client().fetch_metadata(Some(topic), PATIENCE);
        let metadata = metadata.map_err(|source| ReadError::Unreachable { topic: topic.to_owned(), source })?;
        let num_partitions = metadata.topics().first().map_or(0, |found| found.partitions().len());
        Ok(i32::try_from(num_partitions).ok().filter(|num| *num > 0))
    }

    /// Whether nothing is on its way.
    pub fn is_idle(&self) -> bool {
        self.in_flight == 0
    }

    /// Nothing was heard of what is on its way for too long.
    pub fn is_stuck(&self) -> bool {
        !self.is_idle() && now().duration_since(self.heard) > SILENCE
    }

    /// Whether all that was given was acknowledged.
    pub fn is_whole(&self) -> bool {
        self.is_idle() && self.num_failed == 0
    }
}

fn client(config: &ClientConfig, delivered: &Delivered) -> Result<Client, ReadError> {
    let delivered = Arc::clone(delivered);
    let reports = Reports::new(move |outgoing, result| {
        delivered.lock().unwrap_or_else(PoisonError::into_inner).push((outgoing, result));
    });
    kafka::create(config, reports).map(ManuallyDrop::new).map_err(ReadError::Client)
}

fn is_too_large(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge)
}

#[expect(clippy::disallowed_methods, reason = "an edge module: the clock of this loop")]
fn now() -> Instant {
    Instant::now()
}
