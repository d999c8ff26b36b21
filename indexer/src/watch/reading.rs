//! Reading the ledger and asking where the group is, round by round.

#![expect(clippy::disallowed_methods, reason = "an edge module: it owns the reader's clock")]

use std::collections::BTreeMap;
use std::mem::ManuallyDrop;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use millrace_common::kafka::{self, OptionFaults};
use millrace_common::ledger::reader::{ReadError, Reader};
use millrace_common::ledger::topics::{self, TopicError};
use millrace_common::ledger::{INDEXED, SOURCES};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::history::History;
use super::view::{ClockMs, Ends, View};
use crate::config::Kafka;
use crate::consume::Context;

/// How long the broker may take for an answer,
const PATIENCE: Duration = Duration::from_secs(5);
/// and for what it has to be read.
const READ_PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    #[error("Kafka options are not usable: {0}")]
    Options(OptionFaults),
    #[error("cannot set up the Kafka client")]
    Client(#[source] KafkaError),
    #[error(transparent)]
    Topic(#[from] TopicError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the ledger is not read to its end within {} s", READ_PATIENCE.as_secs())]
    Slow,
}

/// The view, and the clock by which its facts arrive.
pub struct Shared {
    started: Instant,
    view: Mutex<View>,
    history: Arc<Mutex<History>>,
    /// Why the ledger cannot be used, while it cannot.
    trouble: Mutex<Option<String>>,
}

impl Shared {
    pub fn new(view: View) -> Self {
        Self { started: Instant::now(), view: Mutex::new(view), history: Arc::default(), trouble: Mutex::new(None) }
    }

    /// Another view that takes the place of this one, with the same history.
    pub fn next(&self, view: View) -> Self {
        let (started, history) = (self.started, Arc::clone(&self.history));
        Self { started, view: Mutex::new(view), history, trouble: Mutex::new(None) }
    }

    pub fn now_ms(&self) -> ClockMs {
        self.started.elapsed().as_millis() as ClockMs
    }

    /// Facts are taken one by one, each whole, so a panic elsewhere does not spoil the view.
    pub fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what came since the last look to the history.
    pub(super) fn note_history(&self) {
        let now_ms = self.now_ms();
        self.history().look(&self.view(), now_ms);
    }

    /// Whether the ledger was read to its end once.
    pub fn is_synced(&self) -> bool {
        self.view().synced_ms().is_some()
    }

    pub fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn note_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

/// Both topics and a client for questions.
pub struct Reading {
    readers: [Reader; 2],
    // Dropping a consumer waits for brokers that may never answer.
    asking: ManuallyDrop<BaseConsumer<Context>>,
}

/// Creates those of the ledger's topics that are not there, like the first topic that is read.
///
/// # Errors
/// The broker does not answer, or refuses.
pub fn create_topics(kafka: &Kafka) -> Result<(), WatchError> {
    let options = crate::dead_letter::producer_options(&kafka.options);
    let config = kafka::producer("indexer", &kafka.brokers, &options).map_err(WatchError::Options)?;
    let like = kafka.topics.first().map_or("", String::as_str);
    Ok(topics::create_missing(&config, &[SOURCES, INDEXED], like)?)
}

impl Reading {
    /// Begins to read both topics.
    ///
    /// # Errors
    /// One is not there, or the broker does not answer.
    pub fn open(kafka: &Kafka) -> Result<Self, WatchError> {
        let config = || -> Result<ClientConfig, WatchError> {
            let config = kafka::consumer("indexer-ledger", &kafka.brokers, &kafka.group, &kafka.options);
            config.map_err(WatchError::Options)
        };
        let readers = [Reader::open(config()?, &[SOURCES])?, Reader::open(config()?, &[INDEXED])?];
        let asking = kafka::create(&config()?, Context::default()).map_err(WatchError::Client)?;
        Ok(Self { readers, asking: ManuallyDrop::new(asking) })
    }

    /// Ends reading, and waits for the brokers to hear of it.
    pub fn close(self) {
        self.readers.into_iter().for_each(Reader::close);
        drop(ManuallyDrop::into_inner(self.asking));
    }

    /// Takes what has arrived. Waits shortly if nothing has.
    ///
    /// # Errors
    /// Reading failed. It may go on.
    pub fn take(&mut self, shared: &Shared) -> Result<(), ReadError> {
        let mut waits = POLL;
        for reader in &mut self.readers {
            while let Some(fact) = reader.next(waits)? {
                waits = Duration::ZERO;
                let now_ms = shared.now_ms();
                shared.view().take(&fact, now_ms);
            }
            waits = Duration::ZERO;
        }
        Ok(())
    }

    /// Asks where the group and the topics are, and reads all that was told until then.
    ///
    /// # Errors
    /// A broker does not answer. The view stands as it was.
    pub fn round(&mut self, shared: &Shared, topics: &[String]) -> Result<(), WatchError> {
        let begin_ms = shared.now_ms();
        // It only asks: what it has to say, and that it wants another token, is heard here.
        self.asking.poll(Duration::ZERO);
        let wanted = shared.view().begin_proofs();
        // In this order: what is committed was published before, and is read before anything is concluded from it.
        let committed: Vec<_> = topics.iter().map(|topic| self.committed(topic)).collect();
        for reader in &mut self.readers {
            reader.look_at_ends()?;
        }
        let ends: Vec<_> = topics.iter().map(|topic| self.ends(topic)).collect();
        let deadline = Instant::now() + READ_PATIENCE;
        while !self.readers.iter().all(Reader::is_caught_up) {
            if Instant::now() > deadline {
                return Err(WatchError::Slow);
            }
            self.take(shared)?;
        }
        let mut view = shared.view();
        for (topic, (committed, ends)) in topics.iter().zip(committed.into_iter().zip(ends)) {
            for error in [committed.as_ref().err(), ends.as_ref().err()].into_iter().flatten() {
                tracing::debug!(topic, %error, "cannot ask where the group is");
            }
            if let (Ok(committed), Ok(ends)) = (&committed, &ends) {
                view.note_committed(topic, committed, ends);
            }
            if wanted.contains(topic) {
                view.note_ends(topic, ends.ok());
            }
        }
        view.note_synced(begin_ms);
        Ok(())
    }

    fn partitions(&self, topic: &str) -> Result<Vec<i32>, KafkaError> {
        let metadata = self.asking.fetch_metadata(Some(topic), PATIENCE)?;
        Ok(metadata.topics().iter().flat_map(|topic| topic.partitions()).map(|partition| partition.id()).collect())
    }

    fn committed(&self, topic: &str) -> Result<BTreeMap<i32, i64>, KafkaError> {
        let mut list = TopicPartitionList::new();
        for partition in self.partitions(topic)? {
            list.add_partition(topic, partition);
        }
        let list = self.asking.committed_offsets(list, PATIENCE)?;
        Ok(list
            .elements()
            .iter()
            .filter_map(|e| Some((e.partition(), e.offset().to_raw().filter(|at| *at >= 0)?)))
            .collect())
    }

    /// First and last offsets of all partitions, in two questions whatever their number.
    fn ends(&self, topic: &str) -> Result<Ends, KafkaError> {
        let partitions = self.partitions(topic)?;
        let ask = |offset: Offset| -> Result<BTreeMap<i32, i64>, KafkaError> {
            let mut list = TopicPartitionList::new();
            for partition in &partitions {
                list.add_partition_offset(topic, *partition, offset)?;
            }
            let list = self.asking.offsets_for_times(list, PATIENCE)?;
            let offset = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
                element.error()?;
                Ok((element.partition(), element.offset().to_raw().unwrap_or(0)))
            };
            list.elements().iter().map(offset).collect()
        };
        let (begins, ends) = (ask(Offset::Beginning)?, ask(Offset::End)?);
        Ok(begins
            .into_iter()
            .filter_map(|(partition, begin)| Some((partition, begin..*ends.get(&partition)?)))
            .collect())
    }
}
