//! What the brokers answer: where the group stands, where logs begin and end, which topics are missing.

use std::time::{Duration, Instant};

use super::flow::Flow;
use crate::consume::{Answer, Question, TopicPartition};

/// Pause between questions about skipped offsets of a partition.
const GAP_INTERVAL: Duration = Duration::from_secs(1);

impl Flow {
    /// Skipped offsets are lost if retention took them, and nothing if they were control records or compacted.
    pub(super) fn ask_gap(&mut self, place: usize, now: Instant) {
        let Some(partition) = self.partitions.at(place) else { return };
        if partition.gaps.is_empty() || partition.gap_asked.is_some_and(|at| now.duration_since(at) < GAP_INTERVAL) {
            return;
        }
        partition.gap_asked = Some(now);
        let (owner, name) = (partition.owner, partition.name());
        for offsets in std::mem::take(&mut partition.gaps) {
            self.questions.ask(Question::Gap { owner, partition: name.clone(), offsets });
        }
    }

    /// Asks where partitions end and which topics are missing, unless it was asked and is not answered: while the brokers are
    /// away each question takes its timeout.
    pub(super) fn ask_around(&mut self) {
        if self.membership.num_open > 0 {
            return;
        }
        let partitions = self.partitions.iter().filter(|partition| !partition.is_revoked);
        self.questions.ask(Question::Ends(partitions.map(|p| (p.owner, p.name())).collect()));
        self.questions.ask(Question::Missing(self.kafka.topics.clone()));
        self.membership.num_open = 2;
    }

    pub(super) fn take_answers(&mut self, now: Instant) {
        while let Some(answer) = self.questions.answer() {
            if answer.is_from_broker() {
                self.membership.heard = now;
            }
            if matches!(answer, Answer::Ends(_) | Answer::Missing(_)) {
                self.membership.num_open -= 1;
            }
            match answer {
                Answer::Committed { partitions, result } => match result {
                    Ok(offsets) => self.assign(partitions, offsets),
                    Err(error) => {
                        tracing::warn!(%error, "cannot read committed offsets: asking again");
                        self.questions.ask(Question::Committed(partitions));
                    }
                },
                Answer::Gap { owner, partition, offsets, log_start } => match log_start {
                    Ok(log_start) => self.count_lost(&partition, offsets, log_start),
                    Err(_) => {
                        if let Some(partition) = self.partitions.of(owner) {
                            partition.gaps.push(offsets);
                        }
                    }
                },
                Answer::Ends(ends) => {
                    for (owner, ends) in ends {
                        if let Some(partition) = self.partitions.of(owner) {
                            partition.ends = Some(ends);
                        }
                        self.ask_gap(owner.slot as usize, now);
                    }
                }
                Answer::Missing(Ok(missing)) => {
                    for topic in missing.iter().filter(|topic| !self.missing_topics.contains(topic)) {
                        tracing::warn!(topic, "topic is not there: waiting for it");
                    }
                    self.missing_topics = missing;
                }
                Answer::Retention(answer) => self.take_retention(answer, now),
                Answer::Commit { .. } => {}
                Answer::CutOff => self.is_cut_off = true,
                Answer::Missing(Err(error)) => tracing::debug!(%error, "cannot ask for the topics"),
            }
        }
    }

    fn count_lost(&self, (topic, partition): &TopicPartition, offsets: std::ops::Range<i64>, log_start: i64) {
        let lost = offsets.end.min(log_start) - offsets.start;
        if lost <= 0 {
            return;
        }
        self.meters.lost.increment(lost as u64);
        let last = offsets.start + lost - 1;
        tracing::error!(%topic, partition, first = offsets.start, last, lost, "retention took records before they were read");
    }
}
