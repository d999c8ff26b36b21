//! The picture of the owner that the admin endpoint shows.

use std::time::{Duration, Instant};

use super::flow::{Flow, wall_clock};
use super::partitions::Partition;
use super::targets::Target;
use crate::health::{PartitionPicture, Picture};
use crate::route::EpochMillis;
use crate::templates::NotReady;

/// Nothing is flowing when nobody has answered for so long.
const SILENCE: Duration = Duration::from_secs(15);
/// Indices in trouble that are told by name.
const MOST_TOLD: usize = 10;

impl Flow {
    pub(super) fn show(&mut self, now: Instant) {
        self.meters.bulk_inflight.set(self.schedule.num_in_flight() as f64);
        self.meters.concurrency_limit.set(self.concurrency.limit() as f64);
        self.meters.partitions_assigned.set(self.partitions.iter().count() as f64);
        self.meters
            .partitions_paused
            .set(self.partitions.iter().filter(|p| p.is_held || p.waiting.is_some()).count() as f64);
        self.meters.unfinished_bytes.set(self.partitions.unfinished_bytes as f64);
        self.meters.parked_bytes.set(self.parked_bytes as f64);
        self.meters.by_kafka_time.increment(std::mem::take(&mut self.intake.num_by_kafka_time));
        let budgets = self.intake.targets.iter().filter_map(Target::budget_used);
        self.meters.field_budget_used.set(budgets.fold(0.0, f64::max));
        let wall = wall_clock();
        let partitions: Vec<_> = self.partitions.iter().map(|partition| self.picture(partition, wall)).collect();
        let retention = self.retention.pictures(partitions.iter().filter_map(PartitionPicture::oldest), wall);
        let details = serde_json::json!({
            "bulk": {
                "in_flight": self.schedule.num_in_flight(),
                "concurrency_limit": self.concurrency.limit(),
                "waiting_batches": self.schedule.num_ready(),
            },
            "unfinished_bytes": self.partitions.unfinished_bytes,
            "parked_bytes": self.parked_bytes,
            "group": self.kafka.group,
            "dead_letters": self.meters.num_letters,
            "fields": self.intake.fields.report(),
        });
        let delays = self.delays.clone();
        self.health.show(Picture { partitions, retention, delays, blocked: self.blocked(now), details });
    }

    fn picture(&self, partition: &Partition, wall: EpochMillis) -> PartitionPicture {
        let committed = self.membership.committed(&partition.name());
        let position = partition.ledger.committable().max(committed);
        let begin = partition.ends.as_ref().map(|ends| ends.start);
        let lag = partition.ends.as_ref().map(|ends| (ends.end - position.or(begin).unwrap_or(ends.end)).max(0));
        // What was not taken yet is not older than what was taken last.
        let oldest_ms = partition.ledger.oldest_ms().or(partition.last_timestamp_ms);
        let age = oldest_ms.map(|time| (wall - time) as f64 / 1_000.0);
        PartitionPicture {
            topic: partition.topic.to_string(),
            partition: partition.number,
            finished: partition.ledger.committable(),
            committed,
            end: partition.ends.as_ref().map(|ends| ends.end),
            lag_records: lag,
            lag_seconds: if lag == Some(0) { Some(0.0) } else { age },
            oldest_ms,
            is_held: partition.is_held || partition.waiting.is_some(),
        }
    }

    fn blocked(&self, now: Instant) -> Vec<(&'static str, String)> {
        let mut blocked = Vec::new();
        let silent = self.membership.silent_for(now);
        if silent > SILENCE {
            let trouble = self.source.trouble().map(|words| format!("; {words}")).unwrap_or_default();
            let words = format!("no broker has answered for {} s{trouble}", silent.as_secs());
            blocked.push(("kafka_unreachable", words));
        }
        let silent = self.schedule.silent_for(now);
        if silent > SILENCE && !self.schedule.is_held() {
            blocked.push(("no_reply", format!("bulk requests have been without a reply for {} s", silent.as_secs())));
        }
        if let Some(NotReady { label, words }) = &self.set_up_trouble {
            blocked.push((*label, words.clone()));
        }
        if self.schedule.is_held()
            && let Some((label, words)) = &self.request_trouble
        {
            blocked.push((*label, words.clone()));
        }
        if !self.membership.has_joined() {
            blocked.push(("group_not_joined", format!("group `{}` has not assigned anything yet", self.kafka.group)));
        }
        if !self.missing_topics.is_empty() {
            blocked.push(("topic_missing", format!("not there: {}", self.missing_topics.join(", "))));
        }
        let index_wait = self.bulk.index_wait;
        let targets = self.intake.targets.iter();
        let mut troubled = targets.filter_map(|target| Some((&target.name, target.trouble(now, index_wait)?)));
        let told = troubled.by_ref().take(MOST_TOLD);
        blocked.extend(told.map(|(name, words)| ("index_held", format!("`{name}`: {words}"))));
        match troubled.count() {
            0 => {}
            num => blocked.push(("index_held", format!("and {num} more"))),
        }
        if let Some(words) = self.publishing.as_ref().and_then(|publishing| publishing.trouble(now)) {
            blocked.push(("ledger", words));
        }
        if let Some(words) = self.letters.trouble() {
            blocked.push(("dead_letter_topic", words.to_owned()));
        }
        blocked
    }
}
