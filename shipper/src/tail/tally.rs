//! Which events of one source were counted, so that those read again after a rewind are not counted twice. Pure.
//!
//! Over all sources, at any time: read = acknowledged + pending + dropped.

use std::collections::BTreeSet;

#[derive(Debug, Default)]
pub struct Tally {
    /// No event that ends behind this position was counted.
    counted_until: u64,
    /// Events counted that are neither acknowledged with all before them nor given up.
    num_pending: u64,
    /// Ends of events, behind the acknowledged position, that were counted as too large.
    oversize: BTreeSet<u64>,
    num_oversize: u64,
}

impl Tally {
    /// Notes the event that ends at `end`. Returns whether it is read for the first time.
    pub fn count(&mut self, end: u64) -> bool {
        let is_new = end > self.counted_until;
        if is_new {
            self.counted_until = end;
            self.num_pending += 1;
        }
        is_new
    }

    /// Notes that the event that ends at `end`, counted before, is too large. Returns whether that is news.
    pub fn is_newly_oversize(&mut self, end: u64, acknowledged: u64) -> bool {
        self.oversize = self.oversize.split_off(&acknowledged);
        let is_new = self.oversize.insert(end);
        self.num_oversize += u64::from(is_new);
        is_new
    }

    pub fn num_oversize(&self) -> u64 {
        self.num_oversize
    }

    /// Notes that as many events are acknowledged or given up.
    pub fn finish(&mut self, num_events: u64) {
        debug_assert!(num_events <= self.num_pending);
        self.num_pending = self.num_pending.saturating_sub(num_events);
    }

    pub fn num_pending(&self) -> u64 {
        self.num_pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_again_counts_once() {
        let mut tally = Tally::default();
        assert!(tally.count(10) && tally.count(20) && tally.count(30));
        assert!(tally.is_newly_oversize(20, 0));
        tally.finish(1);
        // A rewind to 10. The last event is cut only now.
        assert!(!tally.count(20) && !tally.is_newly_oversize(20, 10));
        assert!(!tally.count(30) && tally.is_newly_oversize(30, 10) && tally.count(40));
        assert_eq!((tally.num_pending(), tally.num_oversize()), (3, 2));
    }
}
