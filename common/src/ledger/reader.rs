//! Reads the ledger's topics from their start, and on as they grow. Belongs to no group.

use std::collections::BTreeMap;
use std::mem::ManuallyDrop;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::kafka::{self, Log, set_default};

/// How long the broker may take for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("cannot set up the Kafka client")]
    Client(#[source] KafkaError),
    #[error("Kafka does not answer about topic `{topic}`")]
    Unreachable { topic: String, source: KafkaError },
    #[error("there is no topic `{0}`")]
    NoTopic(String),
    #[error("cannot read the ledger")]
    Read(#[source] KafkaError),
    #[error("the ledger was not read to its end within {0:?} without news")]
    Late(Duration),
}

/// A fact, or its removal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    pub topic: String,
    pub offset: i64,
    /// When the broker took it, in milliseconds since the epoch.
    pub broker_ms: i64,
    pub key: Vec<u8>,
    /// `None`: the key is no longer needed.
    pub value: Option<Vec<u8>>,
}

/// Reads each topic with a [`Reader`] of its own where it must be told for sure when its end is reached: the client's word
/// for the end of a partition does not name the topic.
pub struct Reader {
    // Dropping a consumer waits for brokers that may never answer.
    consumer: ManuallyDrop<BaseConsumer<Log>>,
    /// Topic and partition with the offset that is read next, as far as it is known.
    positions: BTreeMap<(String, i32), Option<i64>>,
    /// Those of which not all was read that was there when the ends were looked at, with these.
    behind: BTreeMap<(String, i32), i64>,
}

impl Reader {
    /// Begins at the start of `topics`. `config` is that of a consumer (see [`crate::kafka::consumer`]).
    ///
    /// # Errors
    /// A topic is not there, or the broker does not answer.
    pub fn open(mut config: ClientConfig, topics: &[&str]) -> Result<Self, ReadError> {
        config.set("enable.partition.eof", "true");
        set_default(&mut config, "fetch.message.max.bytes", "1048576");
        set_default(&mut config, "queued.max.messages.kbytes", "1024");
        // Else the client pauses for a second whenever so much is waiting to be taken.
        set_default(&mut config, "fetch.queue.backoff.ms", "10");
        let consumer: BaseConsumer<Log> = kafka::create(&config, Log::new()).map_err(ReadError::Client)?;
        let consumer = ManuallyDrop::new(consumer);
        let mut list = TopicPartitionList::new();
        let mut positions = BTreeMap::new();
        for &topic in topics {
            let unreachable = |source| ReadError::Unreachable { topic: topic.to_owned(), source };
            let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).map_err(unreachable)?;
            let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
            let numbers: Vec<i32> = partitions.map(|partition| partition.id()).collect();
            if numbers.is_empty() {
                return Err(ReadError::NoTopic(topic.to_owned()));
            }
            for number in numbers {
                list.add_partition_offset(topic, number, Offset::Beginning).map_err(unreachable)?;
                positions.insert((topic.to_owned(), number), None);
            }
        }
        consumer.assign(&list).map_err(ReadError::Read)?;
        let mut reader = Self { consumer, positions, behind: BTreeMap::new() };
        reader.look_at_ends()?;
        Ok(reader)
    }

    /// Asks where the topics end now, so that [`Reader::is_caught_up`] speaks of these ends.
    ///
    /// # Errors
    /// The broker does not answer. What was looked at before stands.
    pub fn look_at_ends(&mut self) -> Result<(), ReadError> {
        let mut behind = BTreeMap::new();
        for ((topic, partition), position) in &self.positions {
            let unreachable = |source| ReadError::Unreachable { topic: topic.clone(), source };
            let (start, end) = self.consumer.fetch_watermarks(topic, *partition, PATIENCE).map_err(unreachable)?;
            if position.unwrap_or(start) < end {
                behind.insert((topic.clone(), *partition), end);
            }
        }
        self.behind = behind;
        Ok(())
    }

    /// Gives the next fact, waiting at most `timeout`.
    ///
    /// # Errors
    /// Reading failed. It goes on at the next call where the client can.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<Fact>, ReadError> {
        match self.consumer.poll(timeout) {
            Some(Ok(message)) => {
                let fact = Fact {
                    topic: message.topic().to_owned(),
                    offset: message.offset(),
                    broker_ms: message.timestamp().to_millis().unwrap_or_default(),
                    key: message.key().unwrap_or_default().to_vec(),
                    value: message.payload().map(<[u8]>::to_vec),
                };
                let place = (fact.topic.clone(), message.partition());
                if self.behind.get(&place).is_some_and(|end| fact.offset + 1 >= *end) {
                    self.behind.remove(&place);
                }
                self.positions.insert(place, Some(fact.offset + 1));
                Ok(Some(fact))
            }
            Some(Err(KafkaError::PartitionEOF(number))) => {
                self.note_end(number);
                Ok(None)
            }
            Some(Err(error)) => Err(ReadError::Read(error)),
            None => Ok(None),
        }
    }

    /// Gives all facts up to the ends that were looked at. `go_on` is asked a few times a second whether to, and `false` comes
    /// back if not.
    ///
    /// # Errors
    /// Nothing came for `patience`.
    #[expect(clippy::disallowed_methods, reason = "an edge: patience with a broker")]
    pub fn read_to_end(
        &mut self,
        patience: Duration,
        go_on: &dyn Fn() -> bool,
        mut take: impl FnMut(Fact),
    ) -> Result<bool, ReadError> {
        let mut heard_at = Instant::now();
        while !self.is_caught_up() {
            match self.next(Duration::from_millis(200)) {
                Ok(Some(fact)) => {
                    heard_at = Instant::now();
                    take(fact);
                }
                _ if !go_on() => return Ok(false),
                Err(cause) if heard_at.elapsed() >= patience => return Err(cause),
                Ok(None) if heard_at.elapsed() >= patience => return Err(ReadError::Late(patience)),
                // The client tries again by itself.
                _ => {}
            }
        }
        Ok(true)
    }

    /// The last offsets of a topic may hold no record: compacted ones, markers of transactions.
    fn note_end(&mut self, number: i32) {
        let mut places = self.positions.keys().filter(|(_, partition)| *partition == number);
        let (Some(place), None) = (places.next().cloned(), places.next()) else { return };
        let end = self.behind.remove(&place);
        let position = self.positions.entry(place).or_default();
        *position = (*position).max(end);
    }

    /// Ends reading, and waits for the brokers to hear of it. A reader that is only dropped leaves its connections behind.
    pub fn close(self) {
        drop(ManuallyDrop::into_inner(self.consumer));
    }

    /// Whether all was read that was there when the ends were looked at.
    pub fn is_caught_up(&self) -> bool {
        self.behind.is_empty()
    }
}
