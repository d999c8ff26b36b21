//! The position below which everything of a source has been acknowledged. Pure.

use std::collections::VecDeque;

use crate::frame::assemble::{Open, Resume};

/// Names a record of one ledger. Never reused within the life of the ledger, so a late delivery report cannot settle a
/// record that was sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sequence(pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Outstanding,
    Acknowledged,
    Failed,
}

#[derive(Debug)]
struct Entry {
    end: u64,
    open: Open,
    num_bytes: u32,
    state: State,
}

/// Outstanding records of one source, in file order.
///
/// Invariant: `acknowledged` is the end of the longest prefix of records that were all acknowledged. It never decreases
/// and never passes a record that is outstanding or failed.
#[derive(Debug)]
pub struct PositionLedger {
    acknowledged: u64,
    /// The events that were open there.
    open: Open,
    first: u64,
    entries: VecDeque<Entry>,
    num_outstanding: usize,
    has_failed: bool,
    num_acknowledged: u64,
}

impl PositionLedger {
    pub fn new(position: u64, open: Open) -> Self {
        Self {
            acknowledged: position,
            open,
            first: 0,
            entries: VecDeque::new(),
            num_outstanding: 0,
            has_failed: false,
            num_acknowledged: 0,
        }
    }

    /// Frees the room for entries if there is none.
    pub fn free_room(&mut self) {
        if self.entries.is_empty() {
            self.entries = VecDeque::new();
        }
    }

    /// Everything before this position has been acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Where to go on after what has been acknowledged.
    pub fn resume(&self) -> Resume {
        Resume { covered: self.acknowledged, open: self.open }
    }

    /// Sets the events that are open at the position, before anything was sent from there.
    pub fn reopen(&mut self, open: Open) {
        self.open = open;
    }

    /// The records of that prefix, over the life of the ledger.
    pub fn num_acknowledged(&self) -> u64 {
        self.num_acknowledged
    }

    /// Records that were acknowledged although one before them was not.
    pub fn num_acknowledged_behind(&self) -> u64 {
        self.entries.iter().filter(|e| e.num_bytes > 0 && e.state == State::Acknowledged).count() as u64
    }

    pub fn num_outstanding(&self) -> usize {
        self.num_outstanding
    }

    /// Whether a record failed, so that the source must be rewound once nothing is outstanding.
    pub fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// The sequence that the next record will get.
    pub fn next_sequence(&self) -> Sequence {
        Sequence(self.first + self.entries.len() as u64)
    }

    /// Notes that a record of `num_bytes` was handed to the producer: it ends at `after.covered`, where the events
    /// `after.open` are open. Records come in file order.
    pub fn sent(&mut self, after: Resume, num_bytes: u32) -> Sequence {
        let Resume { covered: end, open } = after;
        debug_assert!(end > self.entries.back().map_or(self.acknowledged, |last| last.end));
        self.entries.push_back(Entry { end, open, num_bytes, state: State::Outstanding });
        self.num_outstanding += 1;
        Sequence(self.first + self.entries.len() as u64 - 1)
    }

    /// Notes that the bytes up to `after.covered` make no record: nothing is awaited for them.
    pub fn skipped(&mut self, after: Resume) {
        let sequence = self.sent(after, 0);
        self.settle(sequence, true);
    }

    /// Settles one record and returns its bytes, or `None` if it is not outstanding (settled before, or forgotten by a
    /// rewind).
    pub fn settle(&mut self, sequence: Sequence, is_acknowledged: bool) -> Option<u32> {
        let entry = sequence.0.checked_sub(self.first).and_then(|i| self.entries.get_mut(i as usize));
        let entry = entry.filter(|e| e.state == State::Outstanding)?;
        let num_bytes = entry.num_bytes;
        entry.state = if is_acknowledged { State::Acknowledged } else { State::Failed };
        self.num_outstanding -= 1;
        self.has_failed |= !is_acknowledged;
        while self.entries.front().is_some_and(|e| e.state == State::Acknowledged) {
            if let Some(entry) = self.entries.pop_front() {
                self.acknowledged = entry.end;
                self.open = entry.open;
                self.num_acknowledged += u64::from(entry.num_bytes > 0);
                self.first += 1;
            }
        }
        Some(num_bytes)
    }

    /// Forgets what was sent after the acknowledged prefix and returns where to read again.
    ///
    /// Only once nothing is outstanding: a record still under way could otherwise arrive after its successor.
    pub fn rewind(&mut self) -> Option<u64> {
        if self.num_outstanding > 0 {
            return None;
        }
        self.first += self.entries.len() as u64;
        self.entries.clear();
        self.has_failed = false;
        Some(self.acknowledged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The naive truth: every record sent since the last rewind with what became of it.
    #[derive(Default)]
    struct Model {
        records: Vec<(u64, Sequence, Option<bool>)>,
        floor: u64,
        num_before: u64,
    }

    impl Model {
        fn acknowledged(&self) -> u64 {
            self.records.iter().take_while(|r| r.2 == Some(true)).last().map_or(self.floor, |r| r.0)
        }

        fn num_acknowledged(&self) -> u64 {
            self.num_before + self.records.iter().take_while(|r| r.2 == Some(true)).count() as u64
        }
    }

    proptest! {
        #[test]
        fn acknowledged_is_the_end_of_the_settled_prefix(
            steps in prop::collection::vec((0..4u8, any::<prop::sample::Index>(), any::<bool>(), 1..50u64), 1..200),
        ) {
            let mut ledger = PositionLedger::new(100, Open::default());
            let mut model = Model { floor: 100, ..Default::default() };
            let mut end = 100;
            for (step, pick, ok, length) in steps {
                match step {
                    0 | 1 => {
                        end += length;
                        let sequence = ledger.sent(Resume::at(end), length as u32);
                        prop_assert!(model.records.iter().all(|r| r.1 != sequence));
                        model.records.push((end, sequence, None));
                    }
                    2 if !model.records.is_empty() => {
                        let at = pick.index(model.records.len());
                        let record = &mut model.records[at];
                        prop_assert_eq!(ledger.settle(record.1, ok).is_some(), record.2.is_none());
                        record.2.get_or_insert(ok);
                    }
                    _ => {
                        let settled = model.records.iter().all(|r| r.2.is_some());
                        let rewound = ledger.rewind();
                        prop_assert_eq!(rewound, settled.then(|| model.acknowledged()));
                        if settled {
                            model.num_before = model.num_acknowledged();
                            model.floor = model.acknowledged();
                            end = model.floor;
                            model.records.clear();
                        }
                    }
                }
                prop_assert_eq!(ledger.acknowledged(), model.acknowledged());
                prop_assert_eq!(ledger.num_acknowledged(), model.num_acknowledged());
                prop_assert_eq!(ledger.num_outstanding(), model.records.iter().filter(|r| r.2.is_none()).count());
                prop_assert_eq!(ledger.has_failed(), model.records.iter().any(|r| r.2 == Some(false)));
            }
        }
    }

    #[test]
    fn a_late_report_of_a_record_sent_before_a_rewind_changes_nothing() {
        let mut ledger = PositionLedger::new(0, Open::default());
        let old = ledger.sent(Resume::at(10), 10);
        assert_eq!(ledger.settle(old, false), Some(10));
        assert_eq!(ledger.rewind(), Some(0));
        ledger.sent(Resume::at(10), 10);
        assert_eq!(ledger.settle(old, true), None);
        assert_eq!(ledger.acknowledged(), 0);
    }
}
