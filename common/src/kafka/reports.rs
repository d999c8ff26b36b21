//! The context of a producer whose outcomes go to a function.

use std::error::Error;

use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;
use rdkafka::util::IntoOpaque;

use super::{Log, Login, LogsIn};

type Report<T> = Box<dyn Fn(T, Result<(), KafkaError>) + Send + Sync>;

/// Calls a function with what each record was sent with, and its outcome, on the thread that polls.
pub struct Reports<T> {
    log: Log,
    report: Report<T>,
}

impl<T> Reports<T> {
    pub fn new(report: impl Fn(T, Result<(), KafkaError>) + Send + Sync + 'static) -> Self {
        Self { log: Log::new(), report: Box::new(report) }
    }
}

impl<T: IntoOpaque + 'static> ClientContext for Reports<T> {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.login().renew()
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        ClientContext::log(&self.log, level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        ClientContext::error(&self.log, error, reason);
    }
}

impl<T: IntoOpaque + 'static> LogsIn for Reports<T> {
    fn login(&self) -> &Login {
        self.log.login()
    }
}

impl<T: IntoOpaque + 'static> ProducerContext for Reports<T> {
    type DeliveryOpaque = T;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: T) {
        (self.report)(opaque, result.as_ref().map(|_| ()).map_err(|(error, _)| error.clone()));
    }
}
