//! Reading what topics got lately, without a group.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use millrace_common::kafka::{self, Log};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use crate::config::Kafka;

const POLL: Duration = Duration::from_millis(200);
/// How long the broker may take for an answer,
const PATIENCE: Duration = Duration::from_secs(15);
/// and say nothing at all while records are asked for.
const SILENCE: Duration = Duration::from_secs(60);

/// Calls `look` with topic, value and time of each record from `since_ms` to the end that the topics have now.
pub fn each(settings: &Kafka, since_ms: i64, mut look: impl FnMut(&str, &[u8], Option<i64>)) -> anyhow::Result<()> {
    let mut config = kafka::consumer("indexer-usage", &settings.brokers, &settings.group, &settings.options)?;
    config.set("enable.partition.eof", "true");
    kafka::set_default(&mut config, "fetch.message.max.bytes", "1048576");
    kafka::set_default(&mut config, "queued.max.messages.kbytes", "2048");
    let consumer: BaseConsumer<Log> = kafka::create(&config, Log::new())?;
    let mut ends = assign(&consumer, settings, since_ms)?;
    let mut heard = now();
    while !ends.is_empty() {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                heard = now();
                let place = (message.topic().to_owned(), message.partition());
                let Some(&end) = ends.get(&place) else { continue };
                if message.offset() < end
                    && let Some(value) = message.payload()
                {
                    look(message.topic(), value, message.timestamp().to_millis());
                }
                if message.offset() + 1 >= end {
                    ends.remove(&place);
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) | None => {}
            Some(Err(error)) => tracing::debug!(%error, "consumer reports"),
        }
        if now().duration_since(heard) >= SILENCE {
            bail!("the broker said nothing for {} s before the end was reached", SILENCE.as_secs());
        }
        // The last offsets of a partition may hold no record: compacted ones, markers of transactions.
        let position = consumer.position()?;
        ends.retain(|(topic, partition), end| {
            let at = position.find_partition(topic, *partition).map(|element| element.offset());
            !matches!(at, Some(Offset::Offset(at)) if at >= *end)
        });
    }
    Ok(())
}

type Ends = BTreeMap<(String, i32), i64>;

/// Begins to read where each partition stood at `since_ms`, and gives their ends.
fn assign(consumer: &BaseConsumer<Log>, settings: &Kafka, since_ms: i64) -> anyhow::Result<Ends> {
    let (mut ends, mut wanted) = (Ends::new(), TopicPartitionList::new());
    for topic in &settings.topics {
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).context("Kafka does not answer")?;
        let partitions = metadata.topics().first().map(|topic| topic.partitions()).unwrap_or_default();
        ensure!(!partitions.is_empty(), "there is no topic `{topic}`");
        for partition in partitions {
            wanted.add_partition_offset(topic, partition.id(), Offset::Offset(since_ms))?;
        }
    }
    let starts = consumer.offsets_for_times(wanted, PATIENCE).context("Kafka does not answer")?;
    let mut list = TopicPartitionList::new();
    for element in starts.elements() {
        let Offset::Offset(start) = element.offset() else { continue };
        let (_, end) = consumer.fetch_watermarks(element.topic(), element.partition(), PATIENCE)?;
        if start < end {
            ends.insert((element.topic().to_owned(), element.partition()), end);
            list.add_partition_offset(element.topic(), element.partition(), Offset::Offset(start))?;
        }
    }
    consumer.assign(&list)?;
    Ok(ends)
}

#[expect(clippy::disallowed_methods, reason = "an edge module: the clock of this loop")]
fn now() -> Instant {
    Instant::now()
}
