//! Creates the ledger's topics.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

use crate::kafka::{self, Log};

const TIMEOUT: Duration = Duration::from_secs(15);

/// Settings that the promises rest on.
const SETTINGS: [(&str, &str); 2] = [("cleanup.policy", "compact"), ("message.timestamp.type", "LogAppendTime")];

#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    #[error("cannot make a Kafka client")]
    Client(#[source] KafkaError),
    #[error("Kafka does not answer")]
    Unreachable(#[source] KafkaError),
    #[error(
        "cannot create topic `{topic}`: {cause}; create it with {}, or allow Create, or set `ledger: off`",
        words()
    )]
    Refused { topic: String, cause: String },
}

fn words() -> String {
    SETTINGS.map(|(name, value)| format!("{name}={value}")).join(" and ")
}

/// Creates those of `topics` that are not there, with one partition and as many replicas as `like` has (or the broker's default).
///
/// Blocks on the broker. One that another program creates at the same time is fine.
///
/// # Errors
/// The broker does not answer, or refuses.
pub fn create_missing(config: &ClientConfig, topics: &[&str], like: &str) -> Result<(), TopicError> {
    let client = kafka::create_admin(config).map_err(TopicError::Client)?;
    let metadata = client.inner().fetch_metadata(None, TIMEOUT).map_err(TopicError::Unreachable)?;
    let is_there = |name: &str| metadata.topics().iter().any(|topic| topic.name() == name);
    let model = metadata.topics().iter().find(|topic| topic.name() == like);
    let num_replicas = model.and_then(|topic| topic.partitions().first()).map_or(-1, |p| p.replicas().len() as i32);
    let new_topic = |name| {
        let topic = NewTopic::new(name, 1, TopicReplication::Fixed(num_replicas));
        SETTINGS.iter().fold(topic, |topic, (name, value)| topic.set(name, value))
    };
    let missing: Vec<_> = topics.iter().copied().filter(|topic| !is_there(topic)).map(new_topic).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.map_err(|error| TopicError::Refused {
        topic: topics.join(", "),
        cause: format!("no thread for the request: {error}"),
    })?;
    let options = AdminOptions::new().operation_timeout(Some(TIMEOUT)).request_timeout(Some(TIMEOUT));
    let results = runtime.block_on(client.create_topics(&missing, &options)).map_err(TopicError::Unreachable)?;
    for result in results {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => return Err(TopicError::Refused { topic, cause: code.to_string() }),
        }
    }
    topics.iter().try_for_each(|topic| await_partitions(&client, &runtime, topic))
}

/// A broker may hear of a new topic later than the controller that made it.
fn await_partitions(
    client: &AdminClient<Log>,
    runtime: &tokio::runtime::Runtime,
    topic: &str,
) -> Result<(), TopicError> {
    const PAUSE: Duration = Duration::from_millis(50);
    for _ in 0..TIMEOUT.as_millis() / PAUSE.as_millis() {
        let metadata = client.inner().fetch_metadata(Some(topic), TIMEOUT).map_err(TopicError::Unreachable)?;
        if metadata.topics().iter().any(|found| !found.partitions().is_empty()) {
            break;
        }
        runtime.block_on(async { tokio::time::sleep(PAUSE).await });
    }
    Ok(())
}
