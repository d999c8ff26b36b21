//! The finished prefix of each partition.
//!
//! Records finish in any order, but a committed offset says that everything before it is finished. The ledger holds one
//! entry per record between the first unfinished one and the last one taken, and gives the offset after the finished
//! prefix, and what became of the records in it. Pure: no clock, no Kafka.

use std::collections::VecDeque;
use std::num::NonZeroI64;

use millrace_common::record::{CoveredRange, RecordId, SourceId};

/// Position of a record in its ledger: 0, 1, 2 … in the order of [`Ledger::begin`]. Unlike offsets it has no gaps.
pub type Sequence = u64;

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Indexed,
    /// It was in the index before.
    Duplicate,
    DeadLettered,
    /// Finished without a document.
    Skipped,
}

/// The bytes of a file that a shipper's record stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Covered {
    pub source: SourceId,
    pub range: CoveredRange,
}

impl From<RecordId> for Covered {
    fn from(id: RecordId) -> Self {
        Self { source: id.source, range: id.range }
    }
}

#[derive(Debug)]
struct Entry {
    offset: i64,
    /// Kafka's timestamp, if it has one.
    timestamp_ms: Option<NonZeroI64>,
    /// `None` until it is known, and for records of other producers.
    covered: Option<Covered>,
    /// `None` while it is unfinished.
    ending: Option<Ending>,
}

/// The records of one partition during one assignment.
#[derive(Debug, Default)]
pub struct Ledger {
    /// For the sequences from `head` on.
    entries: VecDeque<Entry>,
    head: Sequence,
    committable: Option<i64>,
    last: Option<i64>,
}

/// A record came before one that was already taken: the log of the partition is not what it was.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("offset {offset} follows offset {last}")]
pub struct OffsetWentBack {
    pub offset: i64,
    pub last: i64,
}

impl Ledger {
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes a record as taken and unfinished. Offsets must grow; gaps are fine (compaction, transactions).
    pub fn begin(&mut self, offset: i64, timestamp_ms: Option<i64>) -> Result<Sequence, OffsetWentBack> {
        match self.last {
            Some(last) if offset <= last => return Err(OffsetWentBack { offset, last }),
            _ => self.last = Some(offset),
        }
        let timestamp_ms = timestamp_ms.and_then(NonZeroI64::new);
        self.entries.push_back(Entry { offset, timestamp_ms, covered: None, ending: None });
        Ok(self.head + self.entries.len() as u64 - 1)
    }

    /// Notes which bytes an unfinished record stands for.
    pub fn cover(&mut self, sequence: Sequence, covered: Covered) {
        if let Some(entry) = sequence.checked_sub(self.head).and_then(|at| self.entries.get_mut(at as usize)) {
            entry.covered = Some(covered);
        }
    }

    /// Notes a record as finished. `false` if it was finished before or never begun. `passed` is called for each of a
    /// shipper's records that became part of the finished prefix, in their order.
    pub fn finish(&mut self, sequence: Sequence, ending: Ending, mut passed: impl FnMut(Covered, Ending)) -> bool {
        let Some(entry) = sequence.checked_sub(self.head).and_then(|at| self.entries.get_mut(at as usize)) else {
            return false;
        };
        if entry.ending.is_some() {
            return false;
        }
        entry.ending = Some(ending);
        while let Some(&Entry { offset, covered, ending: Some(ending), .. }) = self.entries.front() {
            self.entries.pop_front();
            self.head += 1;
            self.committable = Some(offset + 1);
            if let Some(covered) = covered {
                passed(covered, ending);
            }
        }
        true
    }

    /// Returns the next offset to commit, or `None` if nothing is finished.
    ///
    /// A gap holds the result back, so it never decreases and never skips a record.
    pub fn committable(&self) -> Option<i64> {
        self.committable
    }

    /// Returns the offset of a record that is not part of the finished prefix.
    pub fn offset_of(&self, sequence: Sequence) -> Option<i64> {
        self.entries.get(sequence.checked_sub(self.head)? as usize).map(|entry| entry.offset)
    }

    /// The last offset taken.
    pub fn last(&self) -> Option<i64> {
        self.last
    }

    /// The Kafka timestamp of the first unfinished record.
    pub fn oldest_ms(&self) -> Option<i64> {
        self.entries.front()?.timestamp_ms.map(NonZeroI64::get)
    }

    /// Whether every record taken is finished.
    pub fn is_settled(&self) -> bool {
        self.entries.is_empty()
    }

    /// What the records from the first unfinished one on take here.
    pub fn num_bytes(&self) -> u64 {
        (self.entries.len() * size_of::<Entry>()) as u64
    }

    /// Records from the first unfinished one on.
    pub fn num_open(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the ledger promises, written without any cleverness.
    #[derive(Default)]
    struct Model {
        taken: Vec<(i64, bool)>,
    }

    fn covered(at: usize) -> Covered {
        Covered { source: SourceId::from_u64(7), range: CoveredRange { start: at as u64, length: 1 } }
    }

    impl Model {
        fn committable(&self) -> Option<i64> {
            self.taken.iter().take_while(|(_, finished)| *finished).last().map(|(offset, _)| offset + 1)
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Begin { gap: i64 },
        Finish(prop::sample::Index),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let begin = (1..4i64).prop_map(|gap| Step::Begin { gap });
        let finish = any::<prop::sample::Index>().prop_map(Step::Finish);
        prop::collection::vec(prop_oneof![begin, finish], 0..200)
    }

    proptest! {
        #[test]
        fn the_ledger_agrees_with_a_naive_model(steps in steps(), first in 0..1_000_000i64) {
            let (mut ledger, mut model) = (Ledger::new(), Model::default());
            let mut next = first;
            let mut passed: Vec<u64> = Vec::new();
            for step in steps {
                let before = ledger.committable();
                match step {
                    Step::Begin { gap } => {
                        prop_assert_eq!(ledger.begin(next, Some(next * 10)), Ok(model.taken.len() as u64));
                        ledger.cover(model.taken.len() as u64, covered(model.taken.len()));
                        model.taken.push((next, false));
                        next += gap;
                    }
                    Step::Finish(index) if !model.taken.is_empty() => {
                        let at = index.index(model.taken.len());
                        let is_news = ledger.finish(at as u64, Ending::Indexed, |c, _| passed.push(c.range.start));
                        prop_assert_eq!(is_news, !model.taken[at].1);
                        model.taken[at].1 = true;
                    }
                    Step::Finish(_) => prop_assert_eq!(ledger.finish(0, Ending::Indexed, |_, _| ()), false),
                }
                prop_assert_eq!(ledger.committable(), model.committable());
                let oldest = model.taken.iter().find(|(_, finished)| !finished).map(|(offset, _)| offset * 10);
                // 0 stands for none.
                prop_assert_eq!(ledger.oldest_ms(), oldest.filter(|&ms| ms != 0));
                let prefix = model.taken.iter().take_while(|(_, finished)| *finished).count() as u64;
                prop_assert_eq!(&passed, &(0..prefix).collect::<Vec<_>>());
                prop_assert!(ledger.committable() >= before);
                prop_assert_eq!(ledger.is_settled(), model.taken.iter().all(|(_, finished)| *finished));
                for (at, &(offset, finished)) in model.taken.iter().enumerate() {
                    if !finished {
                        prop_assert_eq!(ledger.offset_of(at as u64), Some(offset));
                    }
                }
            }
        }
    }

    #[test]
    fn an_unfinished_record_holds_the_commit_back() {
        let mut ledger = Ledger::new();
        let sequences: Vec<_> = [10, 11, 15].into_iter().map(|offset| ledger.begin(offset, None).unwrap()).collect();
        let mut finish = |at: usize| ledger.finish(sequences[at], Ending::Indexed, |_, _| {});
        assert!(finish(1) && finish(2));
        assert_eq!(ledger.committable(), None);
        assert!(ledger.finish(sequences[0], Ending::Skipped, |_, _| {}));
        assert_eq!(ledger.committable(), Some(16));
    }

    #[test]
    fn an_offset_that_goes_back_is_refused() {
        let mut ledger = Ledger::new();
        ledger.begin(7, None).unwrap();
        assert_eq!(ledger.begin(7, None), Err(OffsetWentBack { offset: 7, last: 7 }));
    }
}
