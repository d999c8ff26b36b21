//! Clocks that are apart: of shippers, of the brokers, and our own. Pure.

use std::collections::BTreeMap;

use super::Finding;
use crate::ledger::decode;
use crate::ledger::reader::Fact;
use crate::ledger::sources::{Heartbeat, SourceKey};

/// Above this an hour of an index, or a broker's limit for times to come, is soon missed.
const MAX_APART_MS: i64 = 60_000;

/// The last heartbeat of each host: its own time, and the broker's.
#[derive(Debug, Default)]
pub struct Heartbeats(BTreeMap<String, (i64, i64)>);

impl Heartbeats {
    pub fn take(&mut self, fact: &Fact) {
        let Ok(SourceKey::Host((host,))) = decode(&fact.key) else { return };
        match fact.value.as_deref().map(decode::<Heartbeat>) {
            Some(Ok(heartbeat)) => self.0.insert(host, (heartbeat.at_ms, fact.broker_ms)),
            _ => self.0.remove(&host),
        };
    }

    /// Hosts whose clock was not the broker's at their last heartbeat, and a broker that is ahead of `now_ms`.
    pub fn findings(&self, now_ms: i64) -> Vec<Finding> {
        let host =
            |(host, (own, broker)): (&String, &(i64, i64))| apart(&format!("host `{host}`"), *own, *broker, "Kafka's");
        let newest = self.0.values().map(|(_, broker)| *broker).max();
        // What the broker stamped lately says nothing of a broker that is behind.
        let ahead = newest
            .filter(|&newest| newest > now_ms)
            .and_then(|newest| apart("Kafka", newest, now_ms, "this machine's"));
        self.0.iter().filter_map(host).chain(ahead).collect()
    }
}

/// A clock that is not the other one.
pub fn apart(place: &str, ms: i64, other_ms: i64, others: &str) -> Option<Finding> {
    let seconds = (ms - other_ms) / 1000;
    if (ms - other_ms).abs() <= MAX_APART_MS {
        return None;
    }
    let word = if seconds > 0 { "ahead of" } else { "behind" };
    let stake = "times of records, indices of days and delays are wrong by as much, and a broker refuses records from the future";
    let what = format!("its clock is {} s {word} {others}", seconds.abs());
    Some(Finding::warning(place, what, stake, "keep all clocks in step (NTP)"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::sources::HostState;
    use crate::ledger::{SOURCES, encode};

    fn heartbeat(host: &str, at_ms: i64, broker_ms: i64) -> Fact {
        let heartbeat = Heartbeat {
            version: 1,
            host_name: host.to_owned(),
            program: String::new(),
            interval_ms: 10_000,
            at_ms,
            started_ms: 0,
            state: HostState::Running,
            topics: Vec::new(),
            num_sources: 0,
            acked_events: 0,
            unread_bytes: 0,
            blocked: Vec::new(),
            stalled: Vec::new(),
        };
        let key = encode(&SourceKey::Host((host.to_owned(),)));
        Fact { topic: SOURCES.to_owned(), offset: 0, broker_ms, key, value: Some(encode(&heartbeat)) }
    }

    #[test]
    fn a_host_is_named_by_its_last_heartbeat_and_a_broker_that_is_ahead_too() {
        let mut heartbeats = Heartbeats::default();
        for fact in [heartbeat("a", 0, 90_000), heartbeat("a", 900_000, 901_000), heartbeat("b", 800_000, 861_000)] {
            heartbeats.take(&fact);
        }
        let told = |heartbeats: &Heartbeats, now_ms| {
            let found = heartbeats.findings(now_ms).into_iter();
            found.map(|finding| format!("{}: {}", finding.place, finding.what)).collect::<Vec<_>>()
        };
        assert_eq!(told(&heartbeats, 9_000_000), ["host `b`: its clock is 61 s behind Kafka's"]);
        assert_eq!(
            told(&heartbeats, 840_000),
            ["host `b`: its clock is 61 s behind Kafka's", "Kafka: its clock is 61 s ahead of this machine's"]
        );
        heartbeats.take(&Fact { value: None, ..heartbeat("b", 0, 0) });
        assert_eq!(told(&heartbeats, 9_000_000), [""; 0]);
    }
}
