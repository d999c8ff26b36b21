//! What librdkafka says, as log lines of ours, without the flood of repeats while a broker is down.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

use super::{Login, LogsIn};

/// The context of a client that has nothing else to do, and what other contexts hand their log and error callbacks to. Each
/// message is told once per interval, with the number left out.
#[derive(Debug)]
pub struct Log {
    login: Login,
    repeats: Mutex<Repeats>,
    trouble: Mutex<Option<String>>,
}

impl Default for Log {
    fn default() -> Self {
        Self::new()
    }
}

impl Log {
    /// A log that tells the same thing every ten seconds at most.
    pub fn new() -> Self {
        let repeats = Mutex::new(Repeats::new(Duration::from_secs(10)));
        Self { login: Login::default(), repeats, trouble: Mutex::default() }
    }

    /// What the client last had trouble with: the broker, the cause, and what to do where we know.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// For `ClientContext::log`.
    pub fn write(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let reason = without_thread(message);
        // `SSL` are the lines of OpenSSL's own stack of errors, told beside what they led to.
        let is_trouble = facility != "SSL"
            && !matches!(level, RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug);
        let remedy = if is_trouble { self.note(reason) } else { None };
        let Some(num_suppressed) = self.pass(reason) else { return };
        let num_suppressed = (num_suppressed > 0).then_some(num_suppressed);
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(facility, reason, remedy, num_suppressed, "kafka client failed");
            }
            // A lost connection is an error to librdkafka; to us it is something that is being mended.
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
                tracing::warn!(facility, reason, remedy, num_suppressed, "kafka client has trouble");
            }
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(facility, reason, num_suppressed, "kafka client says");
            }
            RDKafkaLogLevel::Debug => tracing::debug!(facility, reason, "kafka client says"),
        }
    }

    /// For `ClientContext::error`: errors of the client as a whole, from which it recovers by itself unless they are fatal.
    pub fn error(&self, error: &KafkaError, reason: &str) {
        let reason = without_thread(reason);
        // That all brokers are down says less than what was said before it.
        let says_all = matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::AllBrokersDown));
        let remedy = if says_all { None } else { self.note(reason) };
        let Some(num_suppressed) = self.pass(reason) else { return };
        let num_suppressed = (num_suppressed > 0).then_some(num_suppressed);
        let code = error.rdkafka_error_code().map(|code| format!("{code:?}"));
        if matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::Fatal)) {
            tracing::error!(code, reason, remedy, num_suppressed, "kafka client failed");
        } else {
            tracing::warn!(code, reason, remedy, num_suppressed, "kafka client has trouble");
        }
    }

    /// Remembers what the client has trouble with. Returns what to do about it, where we know.
    fn note(&self, reason: &str) -> Option<&'static str> {
        let remedy = remedy(reason);
        let words = remedy.map_or_else(|| reason.to_owned(), |remedy| format!("{reason}; {remedy}"));
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(words);
        remedy
    }

    fn pass(&self, message: &str) -> Option<u64> {
        #[expect(
            clippy::disallowed_methods,
            reason = "the callback comes from a thread of librdkafka, with nobody to hand a time in"
        )]
        let now = Instant::now();
        self.repeats.lock().unwrap_or_else(PoisonError::into_inner).pass(message, now)
    }
}

impl ClientContext for Log {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.login.renew()
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.write(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // Only told where it was asked for, and answered where records are taken.
        if !matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::PartitionEOF)) {
            Self::error(self, &error, reason);
        }
    }
}

impl LogsIn for Log {
    fn login(&self) -> &Login {
        &self.login
    }
}

impl ConsumerContext for Log {}

/// What to do about a refusal of TLS or a login, where librdkafka does not say or says only half.
fn remedy(reason: &str) -> Option<&'static str> {
    let reason = reason.to_ascii_lowercase();
    let is = |words: &str| reason.contains(words);
    if is("certificate verify failed") {
        Some(
            "its authority is not in `ssl.ca.location`, it has expired, or it is for another host: \
             `openssl s_client -connect HOST:PORT -CAfile FILE -verify_hostname HOST` tells which",
        )
    } else if is("certificate required") || is("bad certificate") {
        Some("the broker wants a certificate: set `ssl.certificate.location` and `ssl.key.location`")
    } else if is("invalid_token") || is("oauthbearer authentication fail") {
        Some(
            "the broker takes no token with this key, issuer, audience or lifetime: compare the one in \
             `sasl.oauthbearer.token_file` with its settings",
        )
    } else if is("authentication fail") {
        Some("compare `sasl.mechanism`, `sasl.username` and the password with the broker's")
    } else {
        None
    }
}

/// `[thrd:kafka:9092/1]: kafka:9092/1: Connect …`: the first part says nothing to a person.
fn without_thread(message: &str) -> &str {
    match message.strip_prefix("[thrd:").and_then(|rest| rest.split_once("]: ")) {
        Some((_, rest)) => rest,
        None => message,
    }
}

/// Remembers what was told when.
#[derive(Debug)]
struct Repeats {
    interval: Duration,
    told: HashMap<String, (Instant, u64)>,
}

/// More kinds of message than a client has trouble with; beyond, the oldest are forgotten.
const MAX_KINDS: usize = 256;

impl Repeats {
    fn new(interval: Duration) -> Self {
        Self { interval, told: HashMap::new() }
    }

    /// The number of repeats left out before this message, or `None` if it is one to leave out.
    fn pass(&mut self, message: &str, now: Instant) -> Option<u64> {
        // The log and the error callback bring the same text; times, counts and the remark in brackets differ between repeats.
        let stem = message.split_once(" (after ").map_or(message, |(stem, _)| stem);
        let kind: String = stem.chars().take(160).filter(|c| !c.is_ascii_digit()).collect();
        if let Some((at, num_suppressed)) = self.told.get_mut(&kind) {
            if now.saturating_duration_since(*at) < self.interval {
                *num_suppressed += 1;
                return None;
            }
            *at = now;
            return Some(std::mem::take(num_suppressed));
        }
        if self.told.len() >= MAX_KINDS {
            let interval = self.interval;
            self.told.retain(|_, (at, _)| now.saturating_duration_since(*at) < interval);
            if self.told.len() >= MAX_KINDS {
                self.told.clear();
            }
        }
        self.told.insert(kind, (now, 0));
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any start will do")]
    fn repeats_are_counted_instead_of_told() {
        let start = Instant::now();
        let mut repeats = Repeats::new(Duration::from_secs(10));
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(repeats.pass("a: refused (after 1ms)", at(0)), Some(0));
        assert_eq!(repeats.pass("a: refused (after 2ms, 1 suppressed)", at(1)), None);
        assert_eq!(repeats.pass("a: refused", at(9)), None);
        assert_eq!(repeats.pass("a: wrong password", at(9)), Some(0));
        assert_eq!(repeats.pass("a: refused (after 4ms)", at(11)), Some(2));
        for kind in 0..1000_u32 {
            repeats.pass(&"x".repeat(kind as usize), at(12));
        }
        assert!(repeats.told.len() <= MAX_KINDS);
    }

    #[test]
    fn the_thread_is_left_out() {
        assert_eq!(without_thread("[thrd:a:1/2]: a:1/2: refused"), "a:1/2: refused");
        assert_eq!(without_thread("plain"), "plain");
    }
}
