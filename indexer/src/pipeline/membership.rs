//! The group: assignments, revocations, commits.

use std::time::{Duration, Instant};

use super::flow::Flow;
use crate::commit::committer::{Committer, Partition as PartitionName};
use crate::commit::ledger::Sequence;
use crate::consume::{Answer, Question, Rebalance, TopicPartition};

/// How often finished offsets are committed.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);
/// A commit without an outcome for so long is given up. Longer than librdkafka itself tries.
const COMMIT_PATIENCE: Duration = Duration::from_secs(75);
/// How long a revocation waits for what is on its way: other members wait for it.
const DRAIN: Duration = Duration::from_secs(5);
/// And then for its commit.
const LAST_COMMIT: Duration = Duration::from_secs(5);
/// Ranges of skipped offsets kept until they are explained; transactions leave one for each.
const MAX_GAPS: usize = 1_000;

/// What the group asked for and is not answered yet.
enum Pending {
    Nothing,
    /// Waits for the committed offsets.
    Assign,
    Revoke {
        partitions: Vec<TopicPartition>,
        drain_until: Instant,
        commit_until: Instant,
    },
}

pub struct Membership {
    pending: Pending,
    committer: Committer,
    has_joined: bool,
    commit_trouble_told: Option<Instant>,
    /// The last time that a broker answered.
    pub(super) heard: Instant,
    /// Questions about the ends of partitions and about missing topics that are not answered.
    pub(super) num_open: u32,
}

impl Membership {
    pub fn new(now: Instant) -> Self {
        Self {
            pending: Pending::Nothing,
            committer: Committer::new(COMMIT_INTERVAL, COMMIT_PATIENCE, now),
            has_joined: false,
            commit_trouble_told: None,
            heard: now,
            num_open: 0,
        }
    }

    /// For how long no broker has answered.
    pub fn silent_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.heard)
    }

    pub fn is_revoking(&self) -> bool {
        matches!(self.pending, Pending::Revoke { .. })
    }

    /// Whether the group has answered with an assignment, be it empty.
    pub fn has_joined(&self) -> bool {
        self.has_joined
    }

    pub fn committed(&self, partition: &PartitionName) -> Option<i64> {
        self.committer.committed(partition)
    }
}

impl Flow {
    /// Notes a record as taken. `None` if it belongs to no partition of ours.
    pub(super) fn begin(
        &mut self,
        place: usize,
        offset: i64,
        timestamp_ms: Option<i64>,
        now: Instant,
    ) -> Option<Sequence> {
        let partition = self.partitions.at(place)?;
        if partition.is_revoked {
            return None;
        }
        partition.last_timestamp_ms = timestamp_ms;
        match partition.expected {
            Some(expected) if expected < offset && partition.gaps.len() < MAX_GAPS => {
                partition.gaps.push(expected..offset);
                self.ask_gap(place, now);
            }
            // Nothing was taken yet, and the log ends before the committed offset: it is another log.
            Some(expected) if offset < expected && partition.ledger.last().is_none() => {
                let name = partition.name();
                tracing::warn!(topic = %name.0, partition = name.1, committed = expected, offset, "the log begins anew: was the topic made again?");
                self.membership.committer.assigned(name, None);
            }
            _ => {}
        }
        let partition = self.partitions.at(place)?;
        let sequence = match partition.ledger.begin(offset, timestamp_ms) {
            Ok(sequence) => sequence,
            Err(error) => {
                let (owner, name) = (partition.owner, partition.name());
                tracing::warn!(topic = %name.0, partition = name.1, %error, "the log begins anew: was the topic made again?");
                self.membership.committer.assigned(name, None);
                let partition = self.partitions.begin_anew(owner)?;
                partition.ledger.begin(offset, timestamp_ms).ok()?
            }
        };
        self.partitions.at(place)?.expected = Some(offset + 1);
        Some(sequence)
    }

    pub(super) fn serve_membership(&mut self, now: Instant) {
        if let Pending::Revoke { .. } = self.membership.pending {
            self.serve_revocation(now);
        }
        while matches!(self.membership.pending, Pending::Nothing) {
            let Some(rebalance) = self.source.rebalance() else { return };
            self.meters.rebalances.increment(1);
            match rebalance {
                Rebalance::Assign(partitions) if partitions.is_empty() => self.assign(partitions, Vec::new()),
                Rebalance::Assign(partitions) => {
                    self.membership.pending = Pending::Assign;
                    self.questions.ask(Question::Committed(partitions));
                }
                Rebalance::Revoke { partitions, is_lost: true } => {
                    tracing::warn!(
                        num = partitions.len(),
                        "partitions lost: what was on its way is read again by others"
                    );
                    self.release(&partitions);
                }
                Rebalance::Revoke { partitions, is_lost: false } => {
                    for name in &partitions {
                        if let Some(partition) = self.partitions.find(name) {
                            partition.is_revoked = true;
                            partition.queue = None;
                        }
                    }
                    let drain_until = now + DRAIN;
                    let commit_until = drain_until + LAST_COMMIT;
                    self.membership.pending = Pending::Revoke { partitions, drain_until, commit_until };
                    self.serve_revocation(now);
                }
            }
        }
    }

    pub(super) fn assign(&mut self, partitions: Vec<TopicPartition>, committed: Vec<Option<i64>>) {
        self.membership.pending = Pending::Nothing;
        self.membership.has_joined = true;
        let num = partitions.len();
        let assigned: Vec<_> = partitions.into_iter().zip(committed).collect();
        let owner = std::thread::current();
        let queues = match self.source.start(&assigned, move || owner.unpark()) {
            Ok(queues) => queues,
            Err(error) => {
                // The group took the partitions back in the meantime; it will say what is next.
                tracing::warn!(%error, "cannot take an assignment");
                return;
            }
        };
        for ((name, committed), queue) in assigned.into_iter().zip(queues) {
            let Some(rule) = self
                .rules
                .iter()
                .position(|rule| rule.topics.is_empty() || rule.topics.iter().any(|topic| **topic == *name.0))
            else {
                continue;
            };
            self.membership.committer.assigned(name.clone(), committed);
            self.partitions.remove(&name);
            self.partitions.add(name.clone(), rule, committed, queue);
            self.ask_rows_of_others(&name);
        }
        if num > 0 {
            tracing::info!(num, "partitions assigned");
        }
    }

    /// Waits until what is on its way is settled and committed, or its time is over; then lets go.
    fn serve_revocation(&mut self, now: Instant) {
        let Pending::Revoke { partitions, drain_until, commit_until } = &self.membership.pending else { return };
        let (drain_until, commit_until) = (*drain_until, *commit_until);
        let partitions = partitions.clone();
        if self.source_lost() {
            return self.release(&partitions);
        }
        let mut is_settled = true;
        let mut is_committed = true;
        for name in &partitions {
            let Some(partition) = self.partitions.find(name) else { continue };
            is_settled &= partition.is_settled();
            let finished = partition.ledger.committable();
            is_committed &= finished <= self.membership.committed(name);
        }
        if !is_settled && now < drain_until {
            return;
        }
        if !is_committed && now < commit_until {
            return self.commit(now, true);
        }
        if !is_settled {
            tracing::warn!(
                num = partitions.len(),
                "partitions given back with records on their way, which are read again"
            );
        }
        self.release(&partitions);
    }

    fn source_lost(&self) -> bool {
        self.source.is_assignment_lost()
    }

    fn release(&mut self, partitions: &[TopicPartition]) {
        self.membership.pending = Pending::Nothing;
        for name in partitions {
            self.partitions.remove(name);
            self.membership.committer.revoked(name);
        }
        match self.source.release(partitions) {
            Ok(()) => tracing::info!(num = partitions.len(), "partitions given back"),
            Err(error) => tracing::warn!(%error, "cannot give partitions back"),
        }
    }

    /// Publishes and commits finished prefixes if it is time, or at once if `urgent`.
    pub(super) fn commit(&mut self, now: Instant, urgent: bool) {
        while let Some(answer) = self.commits.answer() {
            let Answer::Commit { offsets, result } = answer else { continue };
            if let Err(error) = &result
                && self.membership.commit_trouble_told.is_none_or(|at| now.duration_since(at) > Duration::from_secs(10))
            {
                self.membership.commit_trouble_told = Some(now);
                tracing::warn!(%error, "offsets not committed: trying again");
            }
            self.membership.committer.settle(&offsets, result.is_ok());
        }
        let is_news = self.publish(now, urgent);
        let finished = self.partitions.iter().filter_map(|p| p.published.map(|offset| (p.name(), offset)));
        if let Some(offsets) = self.membership.committer.next(now, urgent || is_news, finished) {
            self.commits.ask(Question::Commit(offsets.clone()));
        }
    }

    /// Whether everything finished is committed.
    pub(super) fn is_committed(&self) -> bool {
        let is_committed =
            |p: &super::partitions::Partition| p.ledger.committable() <= self.membership.committed(&p.name());
        self.partitions.iter().all(is_committed)
    }
}
