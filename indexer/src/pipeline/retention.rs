//! The race against Kafka's retention: how long until it takes what is not indexed yet. Pure but for asking.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::flow::Flow;
use crate::consume::{Question, RetentionMs, Retentions};
use crate::health::RetentionPicture;
use crate::route::EpochMillis;

/// Retention changes rarely.
const INTERVAL: Duration = Duration::from_secs(600);
/// Where it could not be told.
const RETRY: Duration = Duration::from_secs(60);

/// What is known of the topics' retention.
#[derive(Default)]
pub struct Retention {
    by_topic: BTreeMap<String, RetentionMs>,
    /// `None` while an answer is awaited.
    next: Option<Instant>,
    was_told: bool,
}

impl Retention {
    pub fn new(now: Instant) -> Self {
        Self { next: Some(now), ..Self::default() }
    }

    /// What is left to the topics of `oldest`: for each partition its topic, and when its oldest record that waits was
    /// stamped, `None` if none waits. Of a topic's partitions the worst counts.
    pub fn pictures<'a>(
        &self,
        oldest: impl Iterator<Item = (&'a str, Option<EpochMillis>)>,
        wall: EpochMillis,
    ) -> Vec<RetentionPicture> {
        let mut pictures = BTreeMap::new();
        for (topic, stamped) in oldest {
            let Some(&retention) = self.by_topic.get(topic) else { continue };
            let retention_seconds = retention.map_or(f64::INFINITY, |ms| ms as f64 / 1_000.0);
            let age = stamped.map(|stamped| (wall - stamped) as f64 / 1_000.0);
            let seconds = age.map_or(f64::INFINITY, |age| retention_seconds - age);
            let new = || RetentionPicture { topic: topic.to_owned(), retention_seconds, hours_left: f64::INFINITY };
            let picture: &mut RetentionPicture = pictures.entry(topic).or_insert_with(new);
            picture.hours_left = picture.hours_left.min(seconds / 3_600.0);
        }
        pictures.into_values().collect()
    }
}

impl Flow {
    pub(super) fn ask_retention(&mut self, now: Instant) {
        let topics = self.kafka.topics.iter().filter(|topic| !self.missing_topics.contains(topic));
        let topics: Vec<String> = topics.cloned().collect();
        if self.retention.next.is_some_and(|next| now >= next) && !topics.is_empty() {
            self.retention.next = None;
            self.questions.ask(Question::Retention(topics));
        }
    }

    pub(super) fn take_retention(&mut self, told: Retentions, now: Instant) {
        self.retention.by_topic.extend(told.by_topic);
        self.retention.next = Some(now + if told.fault.is_none() { INTERVAL } else { RETRY });
        let Some(fault) = told.fault.map(anyhow::Error::new) else { return };
        if std::mem::replace(&mut self.retention.was_told, true) {
            return tracing::debug!("cannot tell the hours to retention: {fault:#}");
        }
        tracing::warn!("cannot tell the hours to retention of all topics, asking again each minute: {fault:#}");
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "some instant to count from")]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;
    const WALL: EpochMillis = 1_795_435_200_000;

    fn left(partitions: &[(&str, Option<EpochMillis>)]) -> Vec<(String, f64, f64)> {
        let mut retention = Retention::new(Instant::now());
        retention.by_topic = [("day".to_owned(), Some(24 * HOUR_MS as u64)), ("ever".to_owned(), None)].into();
        let pictures = retention.pictures(partitions.iter().copied(), WALL);
        pictures.into_iter().map(|p| (p.topic, p.retention_seconds, p.hours_left)).collect()
    }

    #[test]
    fn the_oldest_record_that_waits_counts() {
        let partitions = [
            ("day", None),
            ("day", Some(WALL - 20 * HOUR_MS)),
            ("day", Some(WALL - HOUR_MS)),
            ("ever", Some(WALL - 900 * HOUR_MS)),
            ("unheard", Some(WALL)),
        ];
        let expected = [("day".to_owned(), 86_400.0, 4.0), ("ever".to_owned(), f64::INFINITY, f64::INFINITY)];
        assert_eq!(left(&partitions), expected);
    }

    #[test]
    fn nothing_waits_for_ever_and_what_is_overdue_is_below_0() {
        assert_eq!(left(&[("day", None)]), [("day".to_owned(), 86_400.0, f64::INFINITY)]);
        assert_eq!(left(&[("day", Some(WALL - 26 * HOUR_MS))]), [("day".to_owned(), 86_400.0, -2.0)]);
        assert_eq!(left(&[]), []);
    }
}
