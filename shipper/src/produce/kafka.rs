//! The librdkafka producer, for records and for the ledger.

use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use millrace_common::kafka::{self, Log, Login, LogsIn};
use millrace_common::retry::Delays;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseProducer, Producer, ProducerContext, PurgeConfig};
use rdkafka::types::RDKafkaErrorCode;
use tracing::{error, info, warn};

use super::bundle::Bundle;
use super::destination::Destination;
use super::events::Events;
use super::metadata::{MetadataWatch, Topic};
use super::{Broker, Delivery, Outgoing, Refused};
use crate::clock;

/// Collects delivery reports on the thread that polls.
pub(super) struct Reports {
    /// Of this producer, and not the log's, which others share.
    login: Login,
    deliveries: Mutex<Vec<Delivery>>,
    /// Outlives the producer, so that a new one does not tell everything again.
    log: Arc<Log>,
    wake: Wake,
}

/// Called from other threads when there is something to poll.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

impl Reports {
    pub(super) fn wake(&self) {
        (self.wake)();
    }
}

impl ClientContext for Reports {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.login.renew()
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.log.write(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.log.error(&error, reason);
    }
}

impl LogsIn for Reports {
    fn login(&self) -> &Login {
        &self.login
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, token: usize) {
        let (message, error) = match result {
            Ok(message) => (message, None),
            Err((error, message)) => (message, Some(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail))),
        };
        let timestamp_ms = message.timestamp().to_millis().unwrap_or_default();
        // A poisoned lock still holds every report.
        self.deliveries.lock().unwrap_or_else(|e| e.into_inner()).push(Delivery { token, timestamp_ms, error });
    }
}

/// One producer for all topics.
pub struct KafkaBroker {
    config: ClientConfig,
    log: Arc<Log>,
    wake: Wake,
    topics: Arc<[Topic]>,
    producer: Arc<BaseProducer<Reports>>,
    /// Of `producer`.
    events: Events,
    /// Of `producer`, by topic; those that were sent to.
    destinations: Vec<Option<Destination>>,
    /// Records that `producer` was not given yet.
    bundle: Bundle,
    /// Of the records of `bundle`, and of those that follow.
    read_time_ms: i64,
    metadata: MetadataWatch,
    /// What became of records without a report of `producer`: of a bundle that was refused, of a producer that was replaced.
    orphaned: Vec<Delivery>,
    max_message_bytes: usize,
    /// A record larger than this travels alone.
    batch_bytes: usize,
    /// The producer takes nothing until it is empty, and is then replaced by one with smaller batches.
    is_shrinking: bool,
    /// A producer that meets a fatal error again and again is not replaced at once each time.
    delays: Delays,
    recreate_at: Option<Instant>,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot create the Kafka producer")]
    Producer(#[from] KafkaError),
    #[error("cannot start a thread")]
    Thread(#[from] std::io::Error),
}

impl KafkaBroker {
    /// Several producers may share a log, so that each trouble is told once.
    pub fn new(config: ClientConfig, topics: &[String], log: Arc<Log>, wake: Wake) -> Result<Self, StartError> {
        let producer = create(&config, &log, &wake)?;
        let batch_bytes = size_option(config.get("batch.size"));
        let max_message_bytes = size_option(config.get("message.max.bytes"));
        let topics: Arc<[Topic]> = topics.iter().map(|name| Topic::new(name)).collect();
        let metadata = MetadataWatch::start(config.clone(), Arc::clone(&producer), Arc::clone(&topics))?;
        Ok(Self {
            config,
            log,
            wake,
            events: Events::of(&producer),
            destinations: topics.iter().map(|_| None).collect(),
            topics,
            producer,
            bundle: Bundle::default(),
            read_time_ms: 0,
            metadata,
            orphaned: Vec::new(),
            max_message_bytes,
            batch_bytes,
            is_shrinking: false,
            delays: Delays::new(Duration::from_millis(500), Duration::from_secs(10)),
            recreate_at: None,
        })
    }

    /// Why the producer will deliver nothing any more: a fatal error (KIP-98), or it is cut off from its brokers.
    fn is_lost(&self) -> Option<String> {
        match self.producer.client().fatal_error() {
            Some((code, reason)) => Some(format!("fatal error {code:?}: {reason}")),
            None => self.metadata.is_cut_off().then(|| "it lost all its brokers, which answer others".to_owned()),
        }
    }

    /// The queue of a lost producer is purged, which fails what is outstanding, and a new one takes over; the sources then
    /// rewind.
    #[expect(clippy::disallowed_methods, reason = "an edge: the pause between two producers")]
    fn recreate(&mut self, reason: &str) {
        const PATIENCE: Duration = Duration::from_secs(5);
        let now = Instant::now();
        if self.recreate_at.is_some_and(|at| now < at) {
            return;
        }
        self.recreate_at = Some(now + self.delays.next_delay());
        let is_first = self.delays.num_attempts() == 1;
        if is_first {
            error!(reason, "the producer is lost");
        }
        self.bundle.fail(RDKafkaErrorCode::PurgeQueue, &mut self.orphaned);
        self.producer.purge(PurgeConfig::default().queue().inflight());
        self.producer.poll(Duration::from_millis(100));
        if let Err(cause) = self.producer.flush(PATIENCE) {
            error!(error = %cause, "the lost producer did not give back all records");
        }
        if self.replace() && is_first {
            info!("producer recreated");
        }
    }

    fn replace(&mut self) -> bool {
        let next = create(&self.config, &self.log, &self.wake).and_then(|producer| {
            let watch = MetadataWatch::start(self.config.clone(), Arc::clone(&producer), Arc::clone(&self.topics))?;
            Ok((producer, watch))
        });
        match next {
            Ok((producer, watch)) => {
                self.events = Events::of(&producer);
                let replaced = std::mem::replace(&mut self.producer, producer);
                self.metadata = watch;
                self.destinations.fill_with(|| None);
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
            batch_bytes = self.batch_bytes,
            "a topic takes less than the client batches, sending smaller batches: raise max.message.bytes or lower kafka.options.batch.size"
        );
    }

    fn destination(&mut self, topic: usize) -> Result<&Destination, RDKafkaErrorCode> {
        let destination = &mut self.destinations[topic];
        if destination.is_none() {
            *destination = Destination::new(&self.producer, self.topics[topic].name());
        }
        destination.as_ref().ok_or(RDKafkaErrorCode::InvalidTopic)
    }

    /// The client refuses what it last heard of the topic, and would not ask again for minutes.
    fn doubt(&self, topic: usize) {
        self.metadata.doubt(&self.topics[topic]);
    }

    /// Takes what the client has ready. Returns whether that was anything.
    fn drain(&mut self, deliveries: &mut Vec<Delivery>) -> bool {
        let before = deliveries.len();
        self.events.serve();
        take(&self.producer, deliveries);
        deliveries.len() > before
    }
}

/// Bytes, by what the option `batch.size` or `message.max.bytes` is set to.
pub fn size_option(option: Option<&str>) -> usize {
    /// That of librdkafka, for both.
    const DEFAULT: usize = 1_000_000;
    option.and_then(|text| text.parse().ok()).unwrap_or(DEFAULT)
}

const MIN_BATCH_BYTES: usize = 16 << 10;

fn create(config: &ClientConfig, log: &Arc<Log>, wake: &Wake) -> Result<Arc<BaseProducer<Reports>>, StartError> {
    let (deliveries, log, wake) = (Mutex::new(Vec::new()), Arc::clone(log), Arc::clone(wake));
    let reports = Reports { login: Login::default(), deliveries, log, wake };
    Ok(Arc::new(kafka::create(config, reports)?))
}

/// Appends the reports, leaving the room they took for the next ones.
fn take(producer: &BaseProducer<Reports>, deliveries: &mut Vec<Delivery>) {
    deliveries.append(&mut producer.context().deliveries.lock().unwrap_or_else(|e| e.into_inner()));
}

impl Broker for KafkaBroker {
    fn num_partitions(&self, topic: usize) -> Option<u32> {
        self.topics[topic].num_partitions()
    }

    fn leader(&self, topic: usize, partition: i32) -> Option<String> {
        self.topics[topic].leader(partition)
    }

    fn read_time_ms(&mut self, turn_ms: i64) -> i64 {
        if self.bundle.is_empty() || self.read_time_ms < turn_ms {
            self.read_time_ms = clock::wall_us().div_euclid(1000).max(turn_ms);
        }
        self.read_time_ms
    }

    fn send(&mut self, record: Outgoing<'_>) -> Result<(), Refused> {
        // Until it is known that earlier records of a source failed, none behind them may go.
        if self.is_shrinking || !self.orphaned.is_empty() {
            return Err(Refused::Full);
        }
        let goes_alone = !Bundle::suits(&record, self.max_message_bytes);
        if goes_alone || !self.bundle.has_room_for(&record) {
            self.dispatch();
            if !self.bundle.is_empty() || !self.orphaned.is_empty() {
                return Err(Refused::Full);
            }
        }
        if !goes_alone {
            self.bundle.push(&record);
            if self.bundle.is_full() {
                self.dispatch();
            }
            return Ok(());
        }
        let sent = self.destination(record.topic).and_then(|topic| topic.send(&record));
        sent.map_err(|code| match code {
            RDKafkaErrorCode::QueueFull => Refused::Full,
            code => {
                self.doubt(record.topic);
                Refused::Error(code)
            }
        })
    }

    fn dispatch(&mut self) {
        if self.bundle.is_empty() {
            return;
        }
        let topic = self.bundle.topic();
        let mut bundle = std::mem::take(&mut self.bundle);
        match self.destination(topic).and_then(|topic| bundle.hand_over(topic, clock::wall_us())) {
            Ok(()) | Err(RDKafkaErrorCode::QueueFull) => {}
            Err(code) => {
                self.doubt(topic);
                bundle.fail(code, &mut self.orphaned);
            }
        }
        self.bundle = bundle;
    }

    fn poll(&mut self, wait: Duration, deliveries: &mut Vec<Delivery>) {
        if let Some(reason) = self.is_lost() {
            self.recreate(&reason);
        }
        self.dispatch();
        if self.is_shrinking {
            // Another topic may never give its records back by itself.
            if self.topics.len() > 1 {
                self.producer.purge(PurgeConfig::default().queue().inflight());
            }
            // All reports of the old batches are settled by now: the last call gave them.
            if self.producer.in_flight_count() == 0 && self.bundle.is_empty() {
                self.shrink_batches();
            }
        }
        deliveries.append(&mut self.orphaned);
        if !self.drain(deliveries) && !wait.is_zero() {
            #[expect(clippy::disallowed_methods, reason = "an edge: only the end of a pipeline waits here")]
            std::thread::sleep(wait);
            self.drain(deliveries);
        }
        if self.recreate_at.is_some() && deliveries.iter().any(|delivery| delivery.error.is_none()) {
            self.recreate_at = None;
            self.delays.reset();
        }
    }

    fn is_too_large_alone(&mut self, num_bytes: usize) -> bool {
        let is_alone = num_bytes > self.batch_bytes || self.batch_bytes <= MIN_BATCH_BYTES;
        self.is_shrinking |= !is_alone;
        is_alone
    }
}
