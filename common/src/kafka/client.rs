//! The one place where clients are made, so that each can log in.

use rdkafka::ClientConfig;
use rdkafka::admin::AdminClient;
use rdkafka::client::{Client, ClientContext};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};

use super::Log;
use super::oauth::Login;

/// A context with a login. Its `generate_oauth_token` is [`Login::renew`].
pub trait LogsIn: ClientContext {
    fn login(&self) -> &Login;
}

/// A producer or a consumer.
pub trait Polled<C: ClientContext>: FromClientConfigAndContext<C> {
    fn client(&self) -> &Client<C>;
}

impl<C: ProducerContext> Polled<C> for BaseProducer<C> {
    fn client(&self) -> &Client<C> {
        Producer::client(self)
    }
}

impl<C: ConsumerContext> Polled<C> for BaseConsumer<C> {
    fn client(&self) -> &Client<C> {
        Consumer::client(self)
    }
}

/// Makes a producer or consumer.
///
/// # Errors
/// The library refuses.
pub fn create<C: LogsIn, T: Polled<C>>(config: &ClientConfig, context: C) -> KafkaResult<T> {
    let made = T::from_config_and_context(config, context)?;
    let client = made.client();
    // Without a token it asks for one as soon as it is polled, and tells why there is none.
    let _ = client.context().login().begin(config, client.native_ptr());
    Ok(made)
}

/// Makes a client for a few questions at once. It is never polled, so it keeps the token that it begins with.
///
/// # Errors
/// The library refuses, or there is no token.
pub fn create_admin(config: &ClientConfig) -> KafkaResult<AdminClient<Log>> {
    let made: AdminClient<Log> = AdminClient::from_config_and_context(config, Log::new())?;
    let client = made.inner();
    let begun = client.context().login().begin(config, client.native_ptr());
    begun.map_err(|fault| KafkaError::ClientCreation(fault.to_string()))?;
    Ok(made)
}
