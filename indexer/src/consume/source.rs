//! The group member. Only the owner thread uses it; rebalances are noted in a callback and answered by the owner
//! in its own time.

use std::collections::VecDeque;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use millrace_common::kafka::{self, Log, Login, LogsIn, OptionFaults, cut_off};
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::queue::PartitionQueue;
use crate::config::Kafka;

pub type TopicPartition = (Arc<str>, i32);

#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("Kafka options are not usable: {0}")]
    Options(OptionFaults),
    #[error("cannot set up the Kafka consumer: {0}")]
    Client(#[from] KafkaError),
    #[error("partition {1} of topic `{0}` has no queue")]
    NoQueue(Arc<str>, i32),
}

/// What the group asks for. The next comes only after this one was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rebalance {
    /// To be answered with [`Source::start`].
    Assign(Vec<TopicPartition>),
    /// To be answered with [`Source::release`]. `is_lost`: they belong to others already, nothing may be committed.
    Revoke { partitions: Vec<TopicPartition>, is_lost: bool },
}

#[derive(Default)]
pub struct Context {
    noted: Mutex<Noted>,
    log: Log,
}

#[derive(Default)]
struct Noted {
    rebalances: VecDeque<Rebalance>,
    /// Nobody takes rebalances any more: the callback answers by itself.
    is_closing: bool,
}

impl Context {
    /// What the client last had trouble with.
    pub fn trouble(&self) -> Option<String> {
        self.log.trouble()
    }

    fn noted(&self) -> std::sync::MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.login().renew()
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.log.write(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.log.error(&error, reason);
    }
}

impl LogsIn for Context {
    fn login(&self) -> &Login {
        self.log.login()
    }
}

impl ConsumerContext for Context {
    // Leaving the (un)assign call to the owner is sound: librdkafka waits for it in its own states (WAIT_ASSIGN_CALL,
    // WAIT_UNASSIGN_CALL) and takes it from any thread at any time, and the event is not needed for it.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let mut noted = self.noted();
        let partitions = partitions(list);
        if error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            noted.rebalances.push_back(Rebalance::Assign(partitions));
            return;
        }
        if noted.is_closing {
            if let Err(error) = consumer.incremental_unassign(list) {
                tracing::warn!(%error, "cannot give partitions back while leaving the group");
            }
            return;
        }
        let is_lost = consumer.assignment_lost();
        noted.rebalances.push_back(Rebalance::Revoke { partitions, is_lost });
    }
}

fn partitions(list: &TopicPartitionList) -> Vec<TopicPartition> {
    list.elements().iter().map(|element| (element.topic().into(), element.partition())).collect()
}

/// The consumer. Cloning it is cheap.
#[derive(Clone)]
pub struct Source {
    consumer: Arc<BaseConsumer<Context>>,
    /// Its settings, for another client to compare it with.
    config: Arc<ClientConfig>,
}

impl Source {
    /// Joins the group. `num_partitions` is how many partitions the topics have together, among which `prefetch` bytes are
    /// divided. `wake` is called from other threads when there is something to poll.
    pub fn subscribe(
        settings: &Kafka,
        num_partitions: usize,
        prefetch: u64,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, SourceError> {
        let mut config = kafka::consumer("indexer", &settings.brokers, &settings.group, &settings.options)
            .map_err(SourceError::Options)?;
        // The limit counts for each partition's queue, and one more response may come on top: of compressed bytes, which unpacked
        // are many times as many. So room is left for two, and none is longer than pays off.
        let share = prefetch / num_partitions.max(1) as u64;
        let fetch = (share / 4).clamp(16 << 10, 256 << 10);
        let kbytes = (share.saturating_sub(2 * fetch) >> 10).clamp(16, 64 << 10);
        kafka::set_default(&mut config, "queued.max.messages.kbytes", &kbytes.to_string());
        kafka::set_default(&mut config, "queued.min.messages", "1000000");
        kafka::set_default(&mut config, "fetch.message.max.bytes", &fetch.to_string());
        // A member that dies holds its partitions for this long. The owner never blocks and heartbeats have their own thread,
        // so a short time is safe.
        kafka::set_default(&mut config, "session.timeout.ms", "10000");
        // New topics and partitions are to be read within a minute.
        kafka::set_default(&mut config, "topic.metadata.refresh.interval.ms", "20000");
        // A broker that is back is to be used at once.
        kafka::set_default(&mut config, "reconnect.backoff.max.ms", "2000");
        // A full queue is looked at again this much later.
        kafka::set_default(&mut config, "fetch.queue.backoff.ms", "10");
        kafka::set_default(&mut config, "fetch.wait.max.ms", "100");
        let mut consumer: BaseConsumer<Context> = kafka::create(&config, Context::default())?;
        consumer.set_nonempty_callback(wake);
        let topics: Vec<&str> = settings.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics)?;
        Ok(Self { consumer: Arc::new(consumer), config: Arc::new(config) })
    }

    /// Whether a new client hears of `topic` and this one does not. Takes its time.
    pub fn is_cut_off(&self, topic: &str) -> bool {
        cut_off::is_cut_off(self.consumer.client(), &self.config, topic)
    }

    /// What the client last had trouble with.
    pub fn trouble(&self) -> Option<String> {
        self.consumer.context().trouble()
    }

    /// Serves one event. A message comes this way only if it was fetched before its partition had a queue of its own.
    /// Must be called again until `None`.
    pub fn poll(&self) -> Option<KafkaResult<BorrowedMessage<'_>>> {
        self.consumer.poll(Duration::ZERO)
    }

    /// What the group asks for, if anything.
    pub fn rebalance(&self) -> Option<Rebalance> {
        self.consumer.context().noted().rebalances.pop_front()
    }

    /// Answers an assignment: gives each partition a queue of its own and begins to fetch, at the committed offset where there
    /// is one. `wake` as for [`Source::subscribe`].
    pub fn start(
        &self,
        partitions: &[(TopicPartition, Option<i64>)],
        wake: impl Fn() + Send + Sync + Clone + 'static,
    ) -> Result<Vec<PartitionQueue>, SourceError> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        let mut queues = Vec::with_capacity(partitions.len());
        for ((topic, partition), committed) in partitions {
            // Before fetching begins, so that no message takes the common queue.
            let queue = PartitionQueue::split(&self.consumer, topic, *partition);
            let mut queue = queue.ok_or_else(|| SourceError::NoQueue(Arc::clone(topic), *partition))?;
            queue.on_message(wake.clone());
            queues.push(queue);
            let offset = committed.map_or(Offset::Beginning, Offset::Offset);
            list.add_partition_offset(topic, *partition, offset)?;
        }
        self.consumer.incremental_assign(&list)?;
        Ok(queues)
    }

    /// Answers a revocation.
    pub fn release(&self, partitions: &[TopicPartition]) -> Result<(), SourceError> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for (topic, partition) in partitions {
            list.add_partition(topic, *partition);
        }
        Ok(self.consumer.incremental_unassign(&list)?)
    }

    /// Leaves the group, waiting no longer than `patience` for it. All queues must be gone. The consumer must not be used
    /// afterwards, nor dropped: its drop would wait without limit for brokers that do not answer.
    pub fn leave(&self, patience: Duration, now: impl Fn() -> Instant) {
        {
            let mut noted = self.consumer.context().noted();
            noted.is_closing = true;
            for rebalance in std::mem::take(&mut noted.rebalances) {
                // One that came in the last moment is waited for, too.
                let answered = match rebalance {
                    Rebalance::Revoke { partitions, .. } => self.release(&partitions),
                    Rebalance::Assign(_) => {
                        self.consumer.incremental_assign(&TopicPartitionList::new()).map_err(Into::into)
                    }
                };
                if let Err(error) = answered {
                    tracing::debug!(%error, "cannot answer a rebalance while leaving the group");
                }
            }
        }
        if let Err(error) = self.consumer.close_queue() {
            tracing::warn!(%error, "cannot leave the consumer group; it will notice by its session timeout");
            return;
        }
        let deadline = now() + patience;
        while !self.consumer.closed() && now() < deadline {
            self.consumer.poll(Duration::from_millis(20));
        }
    }

    /// Whether the partitions belong to others already.
    pub fn is_assignment_lost(&self) -> bool {
        self.consumer.assignment_lost()
    }

    pub(super) fn config(&self) -> &ClientConfig {
        &self.config
    }

    pub(super) fn consumer(&self) -> &BaseConsumer<Context> {
        &self.consumer
    }
}

/// The value of a header; of several the last.
pub fn header<'m>(message: &'m BorrowedMessage<'_>, name: &str) -> Option<&'m [u8]> {
    let headers = message.headers()?;
    let mut found = None;
    for header in headers.iter() {
        if header.key == name {
            found = header.value;
        }
    }
    found
}
