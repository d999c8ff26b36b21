//! How long Kafka keeps the records of a topic, by time. By size (`retention.bytes`) is not foreseen here.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

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
    #[error("the broker refuses the settings of a topic (it takes DescribeConfigs): {0}")]
    Refused(RDKafkaErrorCode),
}

/// Asks a broker, over a connection of its own.
pub(super) fn ask(config: &ClientConfig, topics: &[String]) -> Result<Vec<(String, RetentionMs)>, RetentionError> {
    let client: AdminClient<DefaultClientContext> = config.create()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let options = AdminOptions::new().request_timeout(Some(PATIENCE));
    let names: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
    let answers = runtime.block_on(client.describe_configs(&names, &options))?;
    let answer = |(topic, answer): (&String, Result<ConfigResource, RDKafkaErrorCode>)| {
        let settings = answer.map_err(RetentionError::Refused)?;
        let value = |name| settings.get(name).and_then(|entry| entry.value.clone());
        Ok((topic.clone(), retention(value("cleanup.policy").as_deref(), value("retention.ms").as_deref())))
    };
    topics.iter().zip(answers).map(answer).collect()
}

fn retention(cleanup_policy: Option<&str>, retention_ms: Option<&str>) -> RetentionMs {
    let deletes = cleanup_policy.is_none_or(|policy| policy.split(',').any(|policy| policy.trim() == "delete"));
    // -1 is without limit, and no number of 64 bits without a sign.
    retention_ms.filter(|_| deletes)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_topic_that_deletes_by_time_has_a_limit() {
        for (policy, ms, expected) in [
            (Some("delete"), Some("604800000"), Some(604_800_000)),
            (Some("compact, delete"), Some("7"), Some(7)),
            (None, Some("7"), Some(7)),
            (Some("compact"), Some("604800000"), None),
            (Some("delete"), Some("-1"), None),
            (Some("delete"), None, None),
        ] {
            assert_eq!(retention(policy, ms), expected, "{policy:?} {ms:?}");
        }
    }
}
