//! How things stand, per topic and over all, and which topics wake or stall.

use std::collections::BTreeMap;
use std::time::Duration;

use tracing::{error, info};

use super::stats::{Gauges, TopicGauges};
use super::tally::Tally;
use super::{Now, Tailer};
use crate::checkpoint::store::Store;
use crate::produce::Broker;
use crate::read::FileSystem;

impl<F: FileSystem, B: Broker, S: Store> Tailer<F, B, S> {
    const STALLS_EVERY: Duration = Duration::from_secs(1);

    /// Sources whose topic is known and has room again go on.
    pub(super) fn wake_held(&mut self) {
        if !self.topics.is_any_held() {
            return;
        }
        for topic in self.topics.indices() {
            if self.broker.num_partitions(topic).is_some() {
                self.ready.extend(self.topics.wake(topic));
            }
        }
    }

    /// Says, once, which partitions of which broker acknowledge nothing: the client retries in silence for ever.
    pub(super) fn tell_stalls(&mut self, now: Now) {
        if now.mono < self.stalls_told_at + Self::STALLS_EVERY {
            return;
        }
        self.stalls_told_at = now.mono;
        let mut told: BTreeMap<(usize, Option<String>, bool), Vec<i32>> = BTreeMap::new();
        for stall in self.topics.stalls(now.mono) {
            let is_stalled = stall.waited.is_some();
            let broker = is_stalled.then(|| self.leader(stall.topic, stall.partition));
            told.entry((stall.topic, broker, is_stalled)).or_default().push(stall.partition);
        }
        for ((topic, broker, is_stalled), partitions) in told {
            let topic = &self.settings.topics[topic];
            if is_stalled {
                let waited = self.topics.waited(now.mono);
                error!(topic, ?partitions, broker, ?waited, "the broker acknowledges nothing, records wait");
            } else {
                info!(topic, ?partitions, "the broker answers again");
            }
        }
    }

    fn leader(&self, topic: usize, partition: i32) -> String {
        self.broker.leader(topic, partition).unwrap_or_else(|| "unknown".to_owned())
    }

    pub fn gauges(&self, now: Now) -> Gauges {
        let topics: Vec<_> = self.topics.indices().map(|topic| self.topic_gauges(topic)).collect();
        let (mut sources, mut pending_events, mut is_any_retried) = (0, 0, false);
        let mut unread = vec![0; self.settings.inputs.len()];
        for source in self.rows() {
            sources += 1;
            pending_events += source.tally.num_pending();
            is_any_retried |= source.retry_at.is_some();
            unread[source.input] += source.unread();
        }
        let is_any = |reason| topics.iter().any(|topic| topic.blocked.contains(&reason));
        let checks = [
            ("topic_unknown", is_any("topic_unknown")),
            ("unacknowledged", is_any("unacknowledged")),
            ("delivery_failed", is_any("delivery_failed") || is_any_retried),
            ("checkpoint", !self.store.is_ready() && now.mono > self.saved_at + Duration::from_secs(5)),
            ("unreadable", !self.unreadable.is_empty()),
        ];
        Gauges {
            unread_bytes: unread.iter().sum(),
            inflight_bytes: self.topics.inflight_bytes(),
            open_files: self.opened.len() as u64,
            unreadable_files: self.unreadable.len() as u64,
            unwatched_folders: 0,
            ignored_files: self.num_ignored,
            sources,
            oldest_unacked_seconds: self.topics.waited(now.mono).as_secs(),
            checkpoint_errors: self.store.num_failures(),
            blocked: reasons(checks),
            pending_events: pending_events + self.inherited.values().map(Tally::num_pending).sum::<u64>(),
            topics,
            unread_by_input: self.settings.inputs.iter().map(|input| input.id.clone()).zip(unread).collect(),
        }
    }

    fn topic_gauges(&self, topic: usize) -> TopicGauges {
        let num_partitions = self.broker.num_partitions(topic);
        let stalled: Vec<_> = self.topics.stalled(topic).map(|at| (at, self.leader(topic, at))).collect();
        let checks = [
            ("topic_unknown", num_partitions.is_none()),
            ("unacknowledged", !stalled.is_empty()),
            ("delivery_failed", self.topics.is_failing(topic)),
        ];
        TopicGauges {
            name: self.settings.topics[topic].clone(),
            num_partitions,
            inflight_bytes: self.topics.load(topic).bytes,
            blocked: reasons(checks),
            stalled,
        }
    }
}

fn reasons<const N: usize>(checks: [(&'static str, bool); N]) -> Vec<&'static str> {
    checks.into_iter().filter(|(_, is_so)| *is_so).map(|(reason, _)| reason).collect()
}
