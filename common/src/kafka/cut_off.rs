//! Notices a client that is cut off from brokers that others reach.
//!
//! librdkafka can lose every broker for good: one that shuts down may answer a metadata request with no brokers at all, and the
//! client then removes those it knew (confluentinc/librdkafka#5301, seen with 2.12.1). Nothing but a new client helps.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::client::{Client, ClientContext};

use super::create_admin;

/// How long a new client may take to hear of the topic.
const PATIENCE: Duration = Duration::from_secs(5);

/// Says when a client is to be compared with a new one. Pure.
#[derive(Debug, Default)]
pub struct Suspicion {
    silent_since: Option<Instant>,
}

impl Suspicion {
    /// A client without an answer for so long is suspicious, and again after as long.
    pub const AFTER: Duration = Duration::from_secs(20);

    /// Notes whether a broker answered a request that ended at `now`, and returns whether to compare.
    pub fn note(&mut self, has_answered: bool, now: Instant) -> bool {
        if has_answered {
            self.silent_since = None;
            return false;
        }
        let is_due = now.duration_since(*self.silent_since.get_or_insert(now)) >= Self::AFTER;
        if is_due {
            self.silent_since = Some(now);
        }
        is_due
    }
}

/// Whether a new client with the settings of `client` hears of `topic`, and `client` does not. The last question gets more time
/// than the new client took: a slow broker cuts nobody off.
pub fn is_cut_off<C: ClientContext>(client: &Client<C>, config: &ClientConfig, topic: &str) -> bool {
    let anew = create_admin(config);
    let is_reachable = anew.is_ok_and(|anew| anew.inner().fetch_metadata(Some(topic), PATIENCE).is_ok());
    is_reachable && client.fetch_metadata(Some(topic), PATIENCE * 3).is_err()
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "some instant to count from")]
mod tests {
    use super::*;

    #[test]
    fn only_a_long_silence_is_suspicious() {
        let (mut suspicion, start) = (Suspicion::default(), Instant::now());
        let mut note = |seconds, has_answered| suspicion.note(has_answered, start + Duration::from_secs(seconds));
        assert!(!note(0, false) && !note(19, false));
        assert!(!note(19, true), "it spoke");
        assert!(!note(20, false) && !note(39, false));
        assert!(note(40, false));
        assert!(!note(41, false) && !note(59, false) && note(60, false));
    }
}
