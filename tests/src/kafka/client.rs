//! What tests do to topics and groups.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::offsets::Offsets;
use crate::http::block_on;
use crate::wait;

pub(super) const TIMEOUT: Duration = Duration::from_secs(30);

/// One record of a topic, copied out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub value: Vec<u8>,
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Record {
    /// The key as text; empty without a key.
    pub fn key_text(&self) -> String {
        String::from_utf8_lossy(self.key.as_deref().unwrap_or_default()).into_owned()
    }

    /// The value as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.value).into_owned()
    }

    /// The first header of this name as text.
    pub fn header(&self, name: &str) -> Option<String> {
        let (_, value) = self.headers.iter().find(|(key, _)| key == name)?;
        Some(String::from_utf8_lossy(value).into_owned())
    }

    fn copy(message: &BorrowedMessage<'_>) -> Self {
        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        Self {
            partition: message.partition(),
            offset: message.offset(),
            timestamp: message.timestamp().to_millis(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().unwrap_or_default().to_vec(),
            headers: headers.map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec())).collect(),
        }
    }
}

/// A client of any Kafka cluster.
#[derive(Clone)]
pub struct KafkaClient {
    bootstrap: String,
}

impl KafkaClient {
    /// Makes a client; nothing is sent before its first use.
    pub fn new(bootstrap: &str) -> Self {
        Self { bootstrap: bootstrap.to_owned() }
    }

    /// The address for `--brokers`.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap)
            .set("reconnect.backoff.max.ms", "500")
            // A broker that a test has stopped is no news.
            .set("log_level", "0");
        config
    }

    pub(super) fn consumer(&self, group: &str) -> Result<BaseConsumer> {
        let consumer = self
            .config()
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("check.crcs", "true")
            .set("fetch.wait.max.ms", "20")
            .create()?;
        Ok(consumer)
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>> {
        Ok(self.config().create()?)
    }

    /// True if a broker answers within a second.
    ///
    /// # Errors
    ///
    /// If no client can be made.
    pub fn is_ready(&self) -> Result<bool> {
        let consumer = self.consumer("harness")?;
        let metadata = consumer.fetch_metadata(None, Duration::from_secs(1));
        Ok(metadata.is_ok_and(|metadata| !metadata.brokers().is_empty()))
    }

    /// The number of brokers that the cluster has.
    ///
    /// # Errors
    ///
    /// If none answers.
    pub fn num_brokers(&self) -> Result<usize> {
        Ok(self.consumer("harness")?.fetch_metadata(None, TIMEOUT)?.brokers().len())
    }

    /// The leaders of a topic's partitions, by broker id; -1 for none.
    ///
    /// # Errors
    ///
    /// If the broker does not answer.
    pub fn leaders(&self, topic: &str) -> Result<Vec<i32>> {
        let metadata = self.consumer("harness")?.fetch_metadata(Some(topic), TIMEOUT)?;
        let partitions = metadata.topics().iter().flat_map(|found| found.partitions());
        let by_id: std::collections::BTreeMap<i32, i32> = partitions.map(|p| (p.id(), p.leader())).collect();
        Ok(by_id.into_values().collect())
    }

    /// Creates a topic with one replica; `settings` are topic settings such as
    /// `("max.message.bytes", "65536")`.
    ///
    /// # Errors
    ///
    /// If the broker refuses, or knows the topic already.
    pub fn create_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) -> Result<()> {
        self.create(NewTopic::new(name, partitions, TopicReplication::Fixed(1)), settings)
    }

    /// Creates a topic whose partitions stand on the given brokers, the leader first.
    ///
    /// # Errors
    ///
    /// As [`KafkaClient::create_topic`].
    pub fn create_topic_on(&self, name: &str, replicas: &[Vec<i32>], settings: &[(&str, &str)]) -> Result<()> {
        let assignment: Vec<&[i32]> = replicas.iter().map(Vec::as_slice).collect();
        let num_partitions = i32::try_from(replicas.len())?;
        self.create(NewTopic::new(name, num_partitions, TopicReplication::Variable(&assignment)), settings)
    }

    fn create<'a>(&self, mut topic: NewTopic<'a>, settings: &[(&'a str, &'a str)]) -> Result<()> {
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let (name, partitions) = (topic.name, topic.num_partitions);
        let admin = self.admin()?;
        let results = block_on(admin.create_topics([&topic], &admin_options()))?;
        for result in results {
            result.map_err(|(name, code)| anyhow!("cannot create topic `{name}`: {code}"))?;
        }
        // The reply may come before every partition has a leader.
        wait::until_true(&format!("leaders of topic `{name}`"), TIMEOUT, || {
            Ok(self.partitions(name)?.len() == usize::try_from(partitions)?)
        })
    }

    /// Deletes a topic.
    ///
    /// # Errors
    ///
    /// If the broker refuses.
    pub fn delete_topic(&self, name: &str) -> Result<()> {
        let admin = self.admin()?;
        let results = block_on(admin.delete_topics(&[name], &admin_options()))?;
        for result in results {
            result.map_err(|(name, code)| anyhow!("cannot delete topic `{name}`: {code}"))?;
        }
        Ok(())
    }

    /// Returns the partitions of a topic that have a leader; none if there is no such topic.
    ///
    /// # Errors
    ///
    /// If the broker does not answer.
    pub fn partitions(&self, topic: &str) -> Result<Vec<i32>> {
        let consumer = self.consumer("harness")?;
        let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT)?;
        let topics = metadata.topics().iter().filter(|found| found.name() == topic);
        let partitions = topics.flat_map(|topic| topic.partitions());
        let mut with_leader: Vec<i32> = partitions
            .filter(|partition| partition.leader() >= 0 && partition.error().is_none())
            .map(|partition| partition.id())
            .collect();
        with_leader.sort_unstable();
        Ok(with_leader)
    }

    /// Produces records of key and value and waits for all acknowledgements. `partition: None`
    /// leaves the choice to the key's hash.
    ///
    /// # Errors
    ///
    /// If one is not acknowledged.
    pub fn produce<'a>(
        &self,
        topic: &str,
        partition: Option<i32>,
        records: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<()> {
        let producer: BaseProducer = self
            .config()
            .set("enable.idempotence", "true")
            .set("linger.ms", "5")
            .set("message.timeout.ms", "30000")
            .create()?;
        for (key, value) in records {
            let mut record = BaseRecord::to(topic).key(key).payload(value);
            if let Some(partition) = partition {
                record = record.partition(partition);
            }
            while let Err((error, again)) = producer.send(record) {
                let full = KafkaError::MessageProduction(rdkafka::types::RDKafkaErrorCode::QueueFull);
                ensure!(error == full, "cannot produce to `{topic}`: {error}");
                producer.poll(Duration::from_millis(50));
                record = again;
            }
        }
        producer.flush(TIMEOUT)?;
        Ok(())
    }

    /// Reads a topic from its first record to the end it has now, in partition order.
    ///
    /// # Errors
    ///
    /// If the topic is not there or cannot be read.
    pub fn read_topic(&self, topic: &str) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        self.for_each_record(topic, |message| records.push(Record::copy(message)))?;
        records.sort_by_key(|record| (record.partition, record.offset));
        Ok(records)
    }

    /// Calls `look` with every record that the topic holds now, without copying it.
    ///
    /// # Errors
    ///
    /// If the topic is not there or cannot be read.
    pub fn for_each_record(&self, topic: &str, mut look: impl FnMut(&BorrowedMessage<'_>)) -> Result<()> {
        let consumer = self.consumer("harness")?;
        let ends = self.end_offsets(topic)?;
        ensure!(!ends.is_empty(), "there is no topic `{topic}`");
        let mut list = TopicPartitionList::new();
        for partition in ends.keys() {
            list.add_partition_offset(topic, *partition, Offset::Beginning)?;
        }
        consumer.assign(&list)?;
        let mut open: Offsets = ends.into_iter().filter(|(_, end)| *end > 0).collect();
        let mut heard = Instant::now();
        while !open.is_empty() {
            match consumer.poll(Duration::from_millis(200)) {
                None => ensure!(heard.elapsed() < TIMEOUT, "`{topic}` stopped answering: {open:?}"),
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    // The end of the partition is at or past the end asked for at the start.
                    open.remove(&partition);
                }
                Some(Err(error)) => bail!("cannot read `{topic}`: {error}"),
                Some(Ok(message)) => {
                    heard = Instant::now();
                    let Some(end) = open.get(&message.partition()).copied() else {
                        continue;
                    };
                    if message.offset() < end {
                        look(&message);
                    }
                    if message.offset() + 1 >= end {
                        open.remove(&message.partition());
                    }
                }
            }
        }
        Ok(())
    }

    /// Calls `look` with each record as it comes, from the start of the topic on, and with `None` when none came within
    /// `timeout`, until it returns `false`.
    ///
    /// # Errors
    ///
    /// If the topic cannot be read, or `look` fails.
    pub fn follow(
        &self,
        topic: &str,
        timeout: Duration,
        mut look: impl FnMut(Option<&BorrowedMessage<'_>>) -> Result<bool>,
    ) -> Result<()> {
        let consumer = self.consumer("harness")?;
        let mut list = TopicPartitionList::new();
        for partition in self.partitions(topic)? {
            list.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
        consumer.assign(&list)?;
        loop {
            let goes_on = match consumer.poll(timeout) {
                None | Some(Err(KafkaError::PartitionEOF(_))) => look(None)?,
                Some(Err(error)) => bail!("cannot read `{topic}`: {error}"),
                Some(Ok(message)) => look(Some(&message))?,
            };
            if !goes_on {
                return Ok(());
            }
        }
    }

    /// Removes all records before the given offsets, as retention would.
    ///
    /// # Errors
    ///
    /// If the broker refuses.
    pub fn delete_records(&self, topic: &str, before: &Offsets) -> Result<()> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in before {
            list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
        }
        let admin = self.admin()?;
        let done = block_on(admin.delete_records(&list, &admin_options()))?;
        for element in done.elements() {
            element.error().with_context(|| format!("cannot delete records of {topic}/{}", element.partition()))?;
        }
        Ok(())
    }
}

fn admin_options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(TIMEOUT)).operation_timeout(Some(TIMEOUT))
}
