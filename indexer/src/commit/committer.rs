//! When to commit which offsets. Pure: the owner asks, sends and reports back.
//!
//! One commit is on its way at a time, so that a retried older one can never land after a newer one and move an offset
//! back.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Topic and partition number.
pub type Partition = (Arc<str>, i32);

/// Offsets to commit, one for each partition.
pub type Offsets = Vec<(Partition, i64)>;

#[derive(Debug)]
pub struct Committer {
    interval: Duration,
    /// A commit whose outcome is unknown for longer is taken as lost.
    patience: Duration,
    /// The partitions owned, with the offset known to be committed.
    owned: HashMap<Partition, Option<i64>>,
    pending: Option<(Offsets, Instant)>,
    last: Instant,
}

impl Committer {
    pub fn new(interval: Duration, patience: Duration, now: Instant) -> Self {
        Self { interval, patience, owned: HashMap::new(), pending: None, last: now }
    }

    /// Returns the commit to send now, if one is due and none is on its way. `urgent` does not wait for the interval.
    ///
    /// `finished` gives the finished prefix of each partition owned.
    pub fn next(
        &mut self,
        now: Instant,
        urgent: bool,
        finished: impl Iterator<Item = (Partition, i64)>,
    ) -> Option<&Offsets> {
        if self.pending.as_ref().is_some_and(|(_, sent)| now.duration_since(*sent) >= self.patience) {
            self.pending = None;
        }
        let due = urgent || now.duration_since(self.last) >= self.interval;
        if self.pending.is_some() || !due {
            return None;
        }
        self.last = now;
        let is_news = |(partition, offset): &(Partition, i64)| {
            self.owned.get(partition).is_some_and(|committed| committed.is_none_or(|committed| committed < *offset))
        };
        let offsets: Offsets = finished.filter(is_news).collect();
        if offsets.is_empty() {
            return None;
        }
        Some(&self.pending.insert((offsets, now)).0)
    }

    /// Takes the outcome of a commit of `offsets`. A failed one is sent again when the next is due.
    pub fn settle(&mut self, offsets: &Offsets, is_committed: bool) {
        if self.pending.as_ref().is_some_and(|(pending, _)| pending == offsets) {
            self.pending = None;
        }
        if !is_committed {
            return;
        }
        for (partition, offset) in offsets {
            if let Some(committed) = self.owned.get_mut(partition) {
                *committed = (*committed).max(Some(*offset));
            }
        }
    }

    /// Whether the outcome of a commit is awaited.
    pub fn is_waiting(&self) -> bool {
        self.pending.is_some()
    }

    /// The offset of `partition` known to be committed.
    pub fn committed(&self, partition: &Partition) -> Option<i64> {
        self.owned.get(partition).copied().flatten()
    }

    /// A partition was assigned with this committed offset.
    pub fn assigned(&mut self, partition: Partition, committed: Option<i64>) {
        self.owned.insert(partition, committed);
    }

    /// A partition is no longer ours: it is not committed any more.
    pub fn revoked(&mut self, partition: &Partition) {
        self.owned.remove(partition);
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "some instant to count from")]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn partition(number: i32) -> Partition {
        ("logs".into(), number)
    }

    fn committer() -> (Committer, Instant) {
        let now = Instant::now();
        let mut committer = Committer::new(SECOND, 10 * SECOND, now);
        committer.assigned(partition(0), None);
        (committer, now)
    }

    fn at(offset: i64) -> Offsets {
        vec![(partition(0), offset)]
    }

    #[test]
    fn nothing_is_committed_twice() {
        let (mut committer, now) = committer();
        assert_eq!(committer.next(now + SECOND, false, at(5).into_iter()), Some(&at(5)));
        committer.settle(&at(5), true);
        assert_eq!(committer.next(now + 2 * SECOND, false, at(5).into_iter()), None);
    }

    #[test]
    fn one_commit_is_on_its_way_at_a_time() {
        let (mut committer, now) = committer();
        assert!(committer.next(now, true, at(5).into_iter()).is_some());
        assert_eq!(committer.next(now + 2 * SECOND, true, at(9).into_iter()), None);
        committer.settle(&at(5), true);
        assert_eq!(committer.next(now + 2 * SECOND, true, at(9).into_iter()), Some(&at(9)));
    }

    #[test]
    fn a_failed_commit_is_sent_again() {
        let (mut committer, now) = committer();
        assert!(committer.next(now, true, at(5).into_iter()).is_some());
        committer.settle(&at(5), false);
        assert_eq!(committer.committed(&partition(0)), None);
        assert!(committer.next(now + SECOND, false, at(5).into_iter()).is_some());
    }

    #[test]
    fn a_commit_never_goes_back() {
        let (mut committer, now) = committer();
        committer.assigned(partition(0), Some(8));
        assert_eq!(committer.next(now, true, at(5).into_iter()), None);
    }

    #[test]
    fn a_partition_of_another_owner_is_not_committed() {
        let (mut committer, now) = committer();
        committer.revoked(&partition(0));
        assert_eq!(committer.next(now, true, at(5).into_iter()), None);
    }

    #[test]
    fn a_commit_without_an_outcome_is_given_up_and_its_late_outcome_is_still_taken() {
        let (mut committer, now) = committer();
        assert!(committer.next(now, true, at(5).into_iter()).is_some());
        assert!(committer.next(now + 11 * SECOND, false, at(7).into_iter()).is_some());
        committer.settle(&at(5), true);
        assert!(committer.is_waiting());
        assert_eq!(committer.committed(&partition(0)), Some(5));
    }
}
