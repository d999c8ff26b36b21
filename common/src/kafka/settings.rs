//! The settings of topics, as a broker tells them.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminOptions, OwnedResourceSpecifier, ResourceSpecifier};
use rdkafka::error::KafkaError;

use super::create_admin;

/// Values by name.
pub type Settings = BTreeMap<String, String>;

#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("no client, or no answer")]
    Client(#[from] KafkaError),
    #[error("no runtime for the request")]
    Runtime(#[from] std::io::Error),
}

/// Asks a broker, over a connection of its own. The settings of a topic are empty without the right DescribeConfigs: the client
/// library swallows the broker's error.
///
/// # Errors
/// No broker answers within `patience`.
pub fn of_topics(
    config: &ClientConfig,
    topics: &[&str],
    patience: Duration,
) -> Result<Vec<(String, Settings)>, SettingsError> {
    let client = create_admin(config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let options = AdminOptions::new().request_timeout(Some(patience));
    let names: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
    let answers = runtime.block_on(client.describe_configs(&names, &options))?;
    let of_topic = answers.into_iter().flatten().filter_map(|resource| {
        let OwnedResourceSpecifier::Topic(topic) = resource.specifier else { return None };
        let told = resource.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?)));
        Some((topic, told.collect()))
    });
    Ok(of_topic.collect())
}
