//! What the brokers say about the topics: partitions and their leaders, asked for on a thread of its own.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use millrace_common::kafka::cut_off::{self, Suspicion};
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::types::RDKafkaErrorCode;
use tracing::{info, warn};

use super::kafka::Reports;

/// What is known of one topic.
pub(super) struct Topic {
    name: String,
    /// 0: not known yet.
    num_partitions: AtomicU32,
    /// By partition; empty while there is none.
    leaders: Mutex<Vec<String>>,
    is_doubted: AtomicBool,
}

impl Topic {
    pub(super) fn new(name: &str) -> Self {
        let (num_partitions, leaders) = (AtomicU32::new(0), Mutex::default());
        Self { name: name.to_owned(), num_partitions, leaders, is_doubted: AtomicBool::new(false) }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn num_partitions(&self) -> Option<u32> {
        Some(self.num_partitions.load(Ordering::Relaxed)).filter(|&n| n > 0)
    }

    pub(super) fn leader(&self, partition: i32) -> Option<String> {
        let leaders = self.leaders.lock().unwrap_or_else(PoisonError::into_inner);
        leaders.get(usize::try_from(partition).ok()?).filter(|name| !name.is_empty()).cloned()
    }

    fn learn(&self, leaders: Vec<String>) {
        let found = leaders.len() as u32;
        if self.num_partitions.swap(found, Ordering::Relaxed) != found {
            info!(topic = self.name, partitions = found, "topic found");
        }
        *self.leaders.lock().unwrap_or_else(PoisonError::into_inner) = leaders;
    }
}

/// Asks for every topic, at first until it is known and then at a quiet pace, or soon where it is in doubt.
pub(super) struct MetadataWatch {
    is_stopped: Arc<AtomicBool>,
    is_cut_off: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl MetadataWatch {
    const PACE: Duration = Duration::from_secs(1);
    const QUIET_ROUNDS: u32 = 30;

    /// `config` is that of the producer, for another client to compare it with.
    #[expect(clippy::disallowed_methods, reason = "an edge: the thread's own clock")]
    pub(super) fn start(
        config: ClientConfig,
        producer: Arc<BaseProducer<Reports>>,
        topics: Arc<[Topic]>,
    ) -> std::io::Result<Self> {
        let (is_stopped, is_cut_off) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (stopped, found_cut_off) = (Arc::clone(&is_stopped), Arc::clone(&is_cut_off));
        let run = move || {
            let mut faults: Vec<Option<Fault>> = vec![None; topics.len()];
            let mut suspicion = Suspicion::default();
            let mut round = 0;
            while !stopped.load(Ordering::Relaxed) {
                for (topic, last_fault) in topics.iter().zip(&mut faults) {
                    let is_doubted = topic.is_doubted.swap(false, Ordering::Relaxed);
                    if is_doubted || last_fault.is_some() || round % Self::QUIET_ROUNDS == 0 {
                        Self::renew(&producer, topic, last_fault);
                    }
                }
                let is_silent = faults.iter().all(|fault| matches!(fault, Some(Fault::Silent(_))));
                let is_suspicious = suspicion.note(!is_silent, Instant::now());
                if let Some(topic) = topics.first().filter(|_| is_suspicious)
                    && cut_off::is_cut_off(producer.client(), &config, &topic.name)
                {
                    found_cut_off.store(true, Ordering::Relaxed);
                }
                round += 1;
                std::thread::park_timeout(Self::PACE);
            }
        };
        let thread = std::thread::Builder::new().name("metadata".into()).spawn(run)?;
        Ok(Self { is_stopped, is_cut_off, thread: Some(thread) })
    }

    fn renew(producer: &BaseProducer<Reports>, topic: &Topic, last_fault: &mut Option<Fault>) {
        match ask(producer, &topic.name) {
            Ok(leaders) => {
                topic.learn(leaders);
                *last_fault = None;
            }
            Err(fault) => {
                if last_fault.as_ref() != Some(&fault) {
                    warn!(topic = topic.name, error = %fault, "cannot learn the topic's partitions, trying again");
                }
                *last_fault = Some(fault);
            }
        }
    }

    /// Whether a new client reaches the brokers and the producer does not.
    pub(super) fn is_cut_off(&self) -> bool {
        self.is_cut_off.load(Ordering::Relaxed)
    }

    /// Has the topic asked for within a second.
    pub(super) fn doubt(&self, topic: &Topic) {
        topic.is_doubted.store(true, Ordering::Relaxed);
    }
}

const NO_TOPIC: &str = "the topic does not exist: create it, or correct its name in the settings";

const PATIENCE: Duration = Duration::from_secs(5);

/// Why a topic is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Fault {
    /// No broker answered.
    #[error("{0}")]
    Silent(KafkaError),
    #[error("{0}")]
    Refused(String),
}

/// The leader of each partition.
fn ask(producer: &BaseProducer<Reports>, topic: &str) -> Result<Vec<String>, Fault> {
    let metadata = producer.client().fetch_metadata(Some(topic), PATIENCE).map_err(Fault::Silent)?;
    let found = metadata.topics().iter().find(|t| t.name() == topic);
    match found {
        Some(t) if t.error().is_none() && !t.partitions().is_empty() => {
            let mut leaders = vec![String::new(); t.partitions().len()];
            for partition in t.partitions() {
                let broker = metadata.brokers().iter().find(|broker| broker.id() == partition.leader());
                let place = usize::try_from(partition.id()).ok().and_then(|at| leaders.get_mut(at));
                if let (Some(broker), Some(place)) = (broker, place) {
                    *place = format!("{}:{}/{}", broker.host(), broker.port(), broker.id());
                }
            }
            Ok(leaders)
        }
        Some(t) => Err(Fault::Refused(match t.error().map(RDKafkaErrorCode::from) {
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => NO_TOPIC.to_owned(),
            Some(code) => code.to_string(),
            None => "the topic has no partitions yet".to_owned(),
        })),
        None => Err(Fault::Refused(NO_TOPIC.to_owned())),
    }
}

impl Drop for MetadataWatch {
    fn drop(&mut self) {
        self.is_stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A metadata request under way ends by its own timeout; nobody needs its answer.
            drop(thread);
        }
    }
}
