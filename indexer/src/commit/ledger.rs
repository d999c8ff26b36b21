//! The finished prefix of each partition.
//!
//! Records finish in any order, but a committed offset says that everything before it is finished. The ledger holds one
//! word per record between the first unfinished one and the last one taken, and gives the offset after the finished
//! prefix. Pure: no clock, no Kafka.

use std::collections::VecDeque;

/// Position of a record in its ledger: 0, 1, 2 … in the order of [`Ledger::begin`]. Unlike offsets it has no gaps.
pub type Sequence = u64;

const FINISHED: u64 = 1;

/// The records of one partition during one assignment.
#[derive(Debug, Default)]
pub struct Ledger {
    /// `offset << 1 | finished`, for the sequences from `head` on.
    entries: VecDeque<u64>,
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
    pub fn begin(&mut self, offset: i64) -> Result<Sequence, OffsetWentBack> {
        match self.last {
            Some(last) if offset <= last => return Err(OffsetWentBack { offset, last }),
            _ => self.last = Some(offset),
        }
        self.entries.push_back((offset as u64) << 1);
        Ok(self.head + self.entries.len() as u64 - 1)
    }

    /// Notes a record as finished. `false` if it was finished before or never begun.
    pub fn finish(&mut self, sequence: Sequence) -> bool {
        let Some(entry) = sequence.checked_sub(self.head).and_then(|at| self.entries.get_mut(at as usize)) else {
            return false;
        };
        if *entry & FINISHED == FINISHED {
            return false;
        }
        *entry |= FINISHED;
        while let Some(&front) = self.entries.front()
            && front & FINISHED == FINISHED
        {
            self.entries.pop_front();
            self.head += 1;
            self.committable = Some((front >> 1) as i64 + 1);
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
        let entry = self.entries.get(sequence.checked_sub(self.head)? as usize)?;
        Some((entry >> 1) as i64)
    }

    /// The last offset taken.
    pub fn last(&self) -> Option<i64> {
        self.last
    }

    /// Whether every record taken is finished.
    pub fn is_settled(&self) -> bool {
        self.entries.is_empty()
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
            for step in steps {
                let before = ledger.committable();
                match step {
                    Step::Begin { gap } => {
                        prop_assert_eq!(ledger.begin(next), Ok(model.taken.len() as u64));
                        model.taken.push((next, false));
                        next += gap;
                    }
                    Step::Finish(index) if !model.taken.is_empty() => {
                        let at = index.index(model.taken.len());
                        prop_assert_eq!(ledger.finish(at as u64), !model.taken[at].1);
                        model.taken[at].1 = true;
                    }
                    Step::Finish(_) => prop_assert!(!ledger.finish(0)),
                }
                prop_assert_eq!(ledger.committable(), model.committable());
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
        let sequences: Vec<_> = [10, 11, 15].into_iter().map(|offset| ledger.begin(offset).unwrap()).collect();
        assert!(ledger.finish(sequences[1]) && ledger.finish(sequences[2]));
        assert_eq!(ledger.committable(), None);
        assert!(ledger.finish(sequences[0]));
        assert_eq!(ledger.committable(), Some(16));
    }

    #[test]
    fn an_offset_that_goes_back_is_refused() {
        let mut ledger = Ledger::new();
        ledger.begin(7).unwrap();
        assert_eq!(ledger.begin(7), Err(OffsetWentBack { offset: 7, last: 7 }));
    }
}
