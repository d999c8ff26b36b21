//! How long Kafka keeps the records of a topic, by time. By size (`retention.bytes`) is not foreseen here.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResourceResult, OwnedResourceSpecifier, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaError;

/// Others wait for the thread that asks.
const PATIENCE: Duration = Duration::from_secs(3);

/// `None`: without limit.
pub type RetentionMs = Option<u64>;

#[derive(Debug, thiserror::Error)]
pub enum RetentionError {
    #[error("no client, or no answer")]
    Client(#[from] KafkaError),
    #[error("no runtime for the request")]
    Runtime(#[from] std::io::Error),
    #[error("no settings are told of topic `{0}` (it takes DescribeConfigs)")]
    Refused(String),
}

/// What a broker told, and why not of all topics.
#[derive(Debug, Default)]
pub struct Retentions {
    pub by_topic: Vec<(String, RetentionMs)>,
    pub fault: Option<RetentionError>,
}

/// Asks a broker, over a connection of its own.
pub(super) fn ask(config: &ClientConfig, topics: &[String]) -> Retentions {
    let answers = match describe(config, topics) {
        Ok(answers) => answers,
        Err(fault) => return Retentions { fault: Some(fault), ..Retentions::default() },
    };
    let mut retentions = Retentions::default();
    for resource in answers.into_iter().flatten() {
        let OwnedResourceSpecifier::Topic(topic) = resource.specifier else { continue };
        let value = |name| resource.entries.iter().find(|entry| entry.name == name)?.value.as_deref();
        // Every topic has it. The client library swallows the broker's error, and only the settings are missing.
        match value("retention.ms") {
            Some(ms) => retentions.by_topic.push((topic, retention(value("cleanup.policy"), ms))),
            None => retentions.fault = Some(RetentionError::Refused(topic)),
        }
    }
    retentions
}

fn describe(config: &ClientConfig, topics: &[String]) -> Result<Vec<ConfigResourceResult>, RetentionError> {
    let client: AdminClient<DefaultClientContext> = config.create()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let options = AdminOptions::new().request_timeout(Some(PATIENCE));
    let names: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
    Ok(runtime.block_on(client.describe_configs(&names, &options))?)
}

fn retention(cleanup_policy: Option<&str>, retention_ms: &str) -> RetentionMs {
    let deletes = cleanup_policy.is_none_or(|policy| policy.split(',').any(|policy| policy.trim() == "delete"));
    // -1 is without limit, and no number without a sign.
    if deletes { retention_ms.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_topic_that_deletes_by_time_has_a_limit() {
        for (policy, ms, expected) in [
            (Some("delete"), "604800000", Some(604_800_000)),
            (Some("compact, delete"), "7", Some(7)),
            (None, "7", Some(7)),
            (Some("compact"), "604800000", None),
            (Some("delete"), "-1", None),
        ] {
            assert_eq!(retention(policy, ms), expected, "{policy:?} {ms:?}");
        }
    }
}
