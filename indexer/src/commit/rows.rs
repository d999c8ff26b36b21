//! What the finished prefix of a partition holds of each source: the rows to be published. Pure.

use std::collections::HashMap;

use millrace_common::ledger::indexed::IndexedRow;
use millrace_common::ledger::{Intervals, VERSION};
use millrace_common::record::SourceId;

use super::ledger::{Covered, Ending};

/// More ranges than this in one row are merged: every change of a row writes all of it.
const MAX_PIECES: usize = 2_000;

/// The rows of one partition during one assignment. About 250 bytes for each source.
#[derive(Debug, Default)]
pub struct Rows {
    rows: HashMap<SourceId, Row>,
    /// Sources whose row is not published as it is.
    changed: Vec<SourceId>,
    /// Records that follow each other in one source, not yet in its row: nearly all do.
    run: Option<Run>,
}

#[derive(Debug)]
struct Row {
    facts: IndexedRow,
    is_changed: bool,
}

#[derive(Debug)]
struct Run {
    source: SourceId,
    start: u64,
    end: u64,
    ending: Ending,
    num: u64,
}

impl Rows {
    /// Notes a record that became part of the finished prefix.
    pub fn add(&mut self, covered: Covered, ending: Ending) {
        let (start, end) = (covered.range.start, covered.range.end());
        if let Some(run) = &mut self.run {
            if run.source == covered.source && run.end == start && run.ending == ending {
                run.end = end;
                run.num += 1;
                return;
            }
            self.note_run();
        }
        self.run = Some(Run { source: covered.source, start, end, ending, num: 1 });
    }

    fn note_run(&mut self) {
        let Some(Run { source, start, end, ending, num }) = self.run.take() else { return };
        let facts = &mut self.changing(source).facts;
        let ranges = match ending {
            Ending::Indexed => &mut facts.indexed,
            Ending::Duplicate => {
                facts.num_duplicates += num;
                &mut facts.indexed
            }
            Ending::DeadLettered => {
                facts.num_dead_letters += num;
                &mut facts.dead_lettered
            }
            Ending::Skipped => &mut facts.skipped,
        };
        ranges.insert(start..end);
        facts.merge_pieces(MAX_PIECES);
    }

    fn changing(&mut self, source: SourceId) -> &mut Row {
        let new = || Row { facts: IndexedRow { version: VERSION, ..IndexedRow::default() }, is_changed: false };
        let row = self.rows.entry(source).or_insert_with(new);
        if !row.is_changed {
            row.is_changed = true;
            self.changed.push(source);
        }
        row
    }

    /// Takes over what a writer that left finished.
    pub fn fold(&mut self, source: SourceId, facts: &IndexedRow) {
        let row = &mut self.changing(source).facts;
        row.fold(facts);
        row.merge_pieces(MAX_PIECES);
    }

    /// A row that was taken as changed did not reach the topic.
    pub fn mark_changed(&mut self, source: SourceId) {
        self.changing(source);
    }

    /// Hands out the rows that changed since the last call. `offset`: the one after the finished prefix.
    pub fn take_changed(&mut self, offset: i64, mut take: impl FnMut(SourceId, &IndexedRow)) {
        self.note_run();
        for source in std::mem::take(&mut self.changed) {
            let Some(row) = self.rows.get_mut(&source) else { continue };
            row.is_changed = false;
            row.facts.offset = row.facts.offset.max(offset);
            take(source, &row.facts);
        }
    }

    pub fn is_changed(&self) -> bool {
        self.run.is_some() || !self.changed.is_empty()
    }

    /// Drops the row of a source that nobody asks for any more. `false` if it changed meanwhile.
    pub fn forget(&mut self, source: SourceId) -> bool {
        let is_running = self.run.as_ref().is_some_and(|run| run.source == source);
        let is_idle = !is_running && self.rows.get(&source).is_some_and(|row| !row.is_changed);
        if is_idle {
            self.rows.remove(&source);
        }
        is_idle
    }

    pub fn finished(&self, source: SourceId) -> Intervals {
        self.rows.get(&source).map(|row| row.facts.finished()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use millrace_common::record::CoveredRange;
    use proptest::prelude::*;

    use super::*;

    fn covered(source: u64, start: u64, length: u32) -> Covered {
        Covered { source: SourceId::from_u64(source), range: CoveredRange { start, length } }
    }

    fn changed(rows: &mut Rows) -> Vec<(SourceId, IndexedRow)> {
        let mut all = Vec::new();
        rows.take_changed(9, |source, row| all.push((source, row.clone())));
        all
    }

    fn endings() -> impl Strategy<Value = Ending> {
        prop_oneof![Just(Ending::Indexed), Just(Ending::Duplicate), Just(Ending::DeadLettered), Just(Ending::Skipped)]
    }

    proptest! {
        #[test]
        fn each_record_is_in_the_set_of_its_fate(
            records in prop::collection::vec((0u64..3, 0u64..50, 1u32..6, endings()), 0..60),
        ) {
            let mut rows = Rows::default();
            for &(source, start, length, ending) in &records {
                rows.add(covered(source, start, length), ending);
            }
            let published = changed(&mut rows);
            prop_assert!(!rows.is_changed());
            for (source, row) in published {
                let of = |wanted: &[Ending]| -> Intervals {
                    let own = records.iter().filter(|r| SourceId::from_u64(r.0) == source && wanted.contains(&r.3));
                    own.map(|r| r.1..r.1 + u64::from(r.2)).collect()
                };
                prop_assert_eq!(&row.indexed, &of(&[Ending::Indexed, Ending::Duplicate]));
                prop_assert_eq!(&row.dead_lettered, &of(&[Ending::DeadLettered]));
                prop_assert_eq!(&row.skipped, &of(&[Ending::Skipped]));
                let is_duplicate = |r: &&(u64, u64, u32, Ending)| SourceId::from_u64(r.0) == source && r.3 == Ending::Duplicate;
                prop_assert_eq!(row.num_duplicates, records.iter().filter(is_duplicate).count() as u64);
                prop_assert_eq!(row.offset, 9);
            }
        }
    }

    #[test]
    fn only_what_changed_is_handed_out_and_what_failed_again() {
        let mut rows = Rows::default();
        rows.add(covered(1, 0, 5), Ending::Indexed);
        rows.add(covered(2, 0, 5), Ending::Indexed);
        assert_eq!(changed(&mut rows).len(), 2);
        rows.add(covered(2, 5, 5), Ending::Indexed);
        let [(source, row)] = &changed(&mut rows)[..] else { panic!("one changed") };
        assert_eq!((source.as_u64(), row.indexed.prefix_end()), (2, 10));
        rows.mark_changed(SourceId::from_u64(1));
        assert_eq!(changed(&mut rows)[0].1.indexed.prefix_end(), 5);
    }

    #[test]
    fn a_source_with_many_dead_letters_stays_small_and_whole() {
        let mut rows = Rows::default();
        for n in 0..20_000 {
            rows.add(covered(1, n * 10, 10), if n % 3 == 0 { Ending::DeadLettered } else { Ending::Indexed });
        }
        let (_, row) = changed(&mut rows).remove(0);
        assert_eq!(row.finished(), Intervals::from(vec![(0, 200_000)]));
        assert!(row.indexed.len() + row.dead_lettered.len() <= MAX_PIECES);
        assert_eq!(row.num_dead_letters, 6_667);
    }

    #[test]
    fn what_others_finished_is_taken_over() {
        let mut rows = Rows::default();
        rows.add(covered(1, 10, 5), Ending::Indexed);
        let left = IndexedRow { indexed: Intervals::from(vec![(0, 10)]), offset: 3, ..IndexedRow::default() };
        rows.fold(SourceId::from_u64(1), &left);
        assert_eq!(changed(&mut rows)[0].1.indexed.prefix_end(), 15);
    }

    #[test]
    fn a_row_that_changed_is_not_forgotten() {
        let mut rows = Rows::default();
        rows.add(covered(1, 0, 5), Ending::Indexed);
        assert!(!rows.forget(SourceId::from_u64(1)));
        changed(&mut rows);
        assert!(rows.forget(SourceId::from_u64(1)));
        assert!(rows.finished(SourceId::from_u64(1)).is_empty());
    }
}
