//! The librdkafka producer. The only file of the shipper that talks to Kafka.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use millrace_common::kafka::Log;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext, PurgeConfig};
use rdkafka::types::RDKafkaErrorCode;
use tracing::{error, info, warn};

use super::{Broker, Delivery, Outgoing, Refused};

/// Collects delivery reports on the thread that polls.
struct Reports {
    deliveries: Mutex<Vec<Delivery>>,
    log: Log,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.log.write(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.log.error(&error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, token: usize) {
        let error =
            result.as_ref().err().map(|(error, _)| error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail));
        // A poisoned lock still holds every report.
        self.deliveries.lock().unwrap_or_else(|e| e.into_inner()).push(Delivery { token, error });
    }
}

/// Asks for the topic's partition count, at first until it is known and then at a quiet pace.
struct PartitionWatch {
    num_partitions: Arc<AtomicU32>,
    is_stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl PartitionWatch {
    fn start(
        producer: Arc<BaseProducer<Reports>>,
        topic: String,
        num_partitions: Arc<AtomicU32>,
    ) -> std::io::Result<Self> {
        let is_stopped = Arc::new(AtomicBool::new(false));
        let (count, stopped) = (Arc::clone(&num_partitions), Arc::clone(&is_stopped));
        let run = move || {
            let mut last_fault = None;
            while !stopped.load(Ordering::Relaxed) {
                let known = count.load(Ordering::Relaxed);
                match ask(&producer, &topic) {
                    Ok(found) => {
                        if found != known {
                            info!(topic, partitions = found, "topic found");
                            count.store(found, Ordering::Relaxed);
                        }
                        last_fault = None;
                    }
                    Err(fault) => {
                        if last_fault.as_ref() != Some(&fault) {
                            warn!(topic, error = %fault, "cannot learn the topic's partitions, trying again");
                        }
                        last_fault = Some(fault);
                    }
                }
                let pause = if last_fault.is_some() { Duration::from_secs(1) } else { Duration::from_secs(30) };
                std::thread::park_timeout(pause);
            }
        };
        let thread = std::thread::Builder::new().name("partitions".into()).spawn(run)?;
        Ok(Self { num_partitions, is_stopped, thread: Some(thread) })
    }
}

const NO_TOPIC: &str = "the topic does not exist: create it, or correct `kafka.topic`";

fn ask(producer: &BaseProducer<Reports>, topic: &str) -> Result<u32, String> {
    let metadata = producer.client().fetch_metadata(Some(topic), Duration::from_secs(5)).map_err(|e| e.to_string())?;
    let found = metadata.topics().iter().find(|t| t.name() == topic);
    match found {
        Some(t) if t.error().is_none() && !t.partitions().is_empty() => Ok(t.partitions().len() as u32),
        Some(t) => Err(match t.error().map(RDKafkaErrorCode::from) {
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => NO_TOPIC.to_owned(),
            Some(code) => code.to_string(),
            None => "the topic has no partitions yet".to_owned(),
        }),
        None => Err(NO_TOPIC.to_owned()),
    }
}

impl Drop for PartitionWatch {
    fn drop(&mut self) {
        self.is_stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A metadata request under way ends by its own timeout; nobody needs its answer.
            drop(thread);
        }
    }
}

/// Producer of one topic.
pub struct KafkaBroker {
    config: ClientConfig,
    topic: String,
    producer: Arc<BaseProducer<Reports>>,
    partitions: PartitionWatch,
    /// Reports of a producer that was replaced after a fatal error.
    orphaned: Vec<Delivery>,
    /// A record larger than this travels alone.
    batch_bytes: usize,
    /// The producer takes nothing until it is empty, and is then replaced by one with smaller batches.
    is_shrinking: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot create the Kafka producer")]
    Producer(#[from] KafkaError),
    #[error("cannot start a thread")]
    Thread(#[from] std::io::Error),
}

impl KafkaBroker {
    pub fn new(config: ClientConfig, topic: &str) -> Result<Self, StartError> {
        let producer = create(&config)?;
        let batch_bytes = config.get("batch.size").and_then(|text| text.parse().ok()).unwrap_or(DEFAULT_BATCH_BYTES);
        let count = Arc::new(AtomicU32::new(0));
        let partitions = PartitionWatch::start(Arc::clone(&producer), topic.to_owned(), count)?;
        let topic = topic.to_owned();
        Ok(Self { config, topic, producer, partitions, orphaned: Vec::new(), batch_bytes, is_shrinking: false })
    }

    /// An idempotent producer that met a fatal error delivers nothing any more (KIP-98). Its queue is purged, which
    /// fails what is outstanding, and a new one takes over; the sources then rewind.
    fn recreate(&mut self) {
        const PATIENCE: Duration = Duration::from_secs(5);
        self.producer.purge(PurgeConfig::default().queue().inflight());
        self.producer.poll(Duration::from_millis(100));
        if let Err(cause) = self.producer.flush(PATIENCE) {
            error!(error = %cause, "the failed producer did not give back all records");
        }
        if self.replace() {
            info!("producer recreated after a fatal error");
        }
    }

    fn replace(&mut self) -> bool {
        let next = create(&self.config).and_then(|producer| {
            let count = Arc::clone(&self.partitions.num_partitions);
            let watch = PartitionWatch::start(Arc::clone(&producer), self.topic.clone(), count)?;
            Ok((producer, watch))
        });
        match next {
            Ok((producer, watch)) => {
                let replaced = std::mem::replace(&mut self.producer, producer);
                self.partitions = watch;
                take(&replaced, &mut self.orphaned);
                true
            }
            Err(cause) => {
                error!(error = %cause, "cannot recreate the producer, trying again");
                false
            }
        }
    }

    /// The client does not split a batch that the topic's `max.message.bytes` refuses (Java's does), and its limit
    /// stands from its creation on.
    fn shrink_batches(&mut self) {
        self.batch_bytes = (self.batch_bytes / 2).max(MIN_BATCH_BYTES);
        self.config.set("batch.size", self.batch_bytes.to_string());
        self.is_shrinking = !self.replace();
        warn!(
            topic = self.topic,
            batch_bytes = self.batch_bytes,
            "the topic takes less than the client batches, sending smaller batches: raise max.message.bytes or lower kafka.options.batch.size"
        );
    }

    /// Takes what the client has ready. `BaseProducer::poll` serves one event and then spins through the last
    /// millisecond of its wait, so it is never asked to wait.
    fn drain(&mut self, deliveries: &mut Vec<Delivery>) -> bool {
        let before = deliveries.len();
        loop {
            let so_far = deliveries.len();
            self.producer.poll(Duration::ZERO);
            take(&self.producer, deliveries);
            if deliveries.len() == so_far {
                return so_far > before;
            }
        }
    }
}

/// librdkafka's default of `batch.size`.
const DEFAULT_BATCH_BYTES: usize = 1_000_000;
const MIN_BATCH_BYTES: usize = 16 << 10;

fn create(config: &ClientConfig) -> Result<Arc<BaseProducer<Reports>>, StartError> {
    let reports = Reports { deliveries: Mutex::new(Vec::new()), log: Log::new() };
    Ok(Arc::new(config.create_with_context(reports)?))
}

/// Appends the reports, leaving the room they took for the next ones.
fn take(producer: &BaseProducer<Reports>, deliveries: &mut Vec<Delivery>) {
    deliveries.append(&mut producer.context().deliveries.lock().unwrap_or_else(|e| e.into_inner()));
}

impl Broker for KafkaBroker {
    fn num_partitions(&self) -> Option<u32> {
        Some(self.partitions.num_partitions.load(Ordering::Relaxed)).filter(|&n| n > 0)
    }

    fn send(&mut self, record: Outgoing<'_>) -> Result<(), Refused> {
        if self.is_shrinking {
            return Err(Refused::Full);
        }
        let outgoing = BaseRecord::with_opaque_to(&self.topic, record.token)
            .partition(record.partition)
            .key(record.key)
            .payload(record.value)
            .timestamp(record.timestamp_ms);
        self.producer.send(outgoing).map_err(|(error, _)| match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::QueueFull) => Refused::Full,
            code => Refused::Error(code.unwrap_or(RDKafkaErrorCode::Fail)),
        })
    }

    fn poll(&mut self, wait: Duration, deliveries: &mut Vec<Delivery>) {
        if let Some((code, reason)) = self.producer.client().fatal_error() {
            error!(code = ?code, reason, "fatal producer error");
            self.recreate();
        }
        // All reports of the old batches are settled by now: the last call gave them.
        if self.is_shrinking && self.producer.in_flight_count() == 0 {
            self.shrink_batches();
        }
        deliveries.append(&mut self.orphaned);
        if !self.drain(deliveries) && !wait.is_zero() {
            #[expect(clippy::disallowed_methods, reason = "an edge: the client has nothing to wait on")]
            std::thread::sleep(wait);
            self.drain(deliveries);
        }
    }

    fn is_too_large_alone(&mut self, num_bytes: usize) -> bool {
        let is_alone = num_bytes > self.batch_bytes || self.batch_bytes <= MIN_BATCH_BYTES;
        self.is_shrinking |= !is_alone;
        is_alone
    }
}
