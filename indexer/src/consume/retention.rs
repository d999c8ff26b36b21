//! How long Kafka keeps the records of a topic, by time. By size (`retention.bytes`) is not foreseen here.

use std::time::Duration;

use millrace_common::kafka::settings::{self, SettingsError};
use rdkafka::ClientConfig;

/// Others wait for the thread that asks.
const PATIENCE: Duration = Duration::from_secs(3);

/// `None`: without limit.
pub type RetentionMs = Option<u64>;

#[derive(Debug, thiserror::Error)]
pub enum RetentionError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
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
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    let told = match settings::of_topics(config, &names, PATIENCE) {
        Ok(told) => told,
        Err(fault) => return Retentions { fault: Some(fault.into()), ..Retentions::default() },
    };
    let mut retentions = Retentions::default();
    for (topic, settings) in told {
        // Every topic has it, unless nothing is told.
        match settings.get("retention.ms") {
            Some(ms) => {
                let policy = settings.get("cleanup.policy").map(String::as_str);
                retentions.by_topic.push((topic, retention(policy, ms)));
            }
            None => retentions.fault = Some(RetentionError::Refused(topic)),
        }
    }
    retentions
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
