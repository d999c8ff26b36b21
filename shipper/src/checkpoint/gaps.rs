//! The bytes of one source that no record covers. Pure.

use millrace_common::ledger::sources::Gap;
use serde::{Deserialize, Serialize};

/// Ascending, without overlap; neighbours that touch have different reasons.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Gaps(Vec<Gap>);

impl<'a> FromIterator<(u64, u64, &'a str)> for Gaps {
    fn from_iter<I: IntoIterator<Item = (u64, u64, &'a str)>>(ranges: I) -> Self {
        let mut gaps = Self::default();
        ranges.into_iter().for_each(|(start, end, reason)| gaps.insert(start, end, reason));
        gaps
    }
}

impl Gaps {
    /// What a row holds at most. Past it, the two of one reason with the fewest bytes between them become one (of different
    /// reasons, if there are no others: then the one that is a loss counts), so that more may be told as given up than was,
    /// never less.
    pub const MAX: usize = 64;

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where the bytes end that are covered up to `position` and in gaps from there on.
    pub fn end_from(&self, position: u64) -> u64 {
        self.0.iter().fold(position, |at, gap| if gap.start <= at { at.max(gap.end) } else { at })
    }

    pub fn iter(&self) -> impl Iterator<Item = &Gap> {
        self.0.iter()
    }

    /// Adds those of the bytes `start..end` that are in no gap yet.
    pub fn insert(&mut self, start: u64, end: u64, reason: &str) {
        let mut from = start;
        let mut added = Vec::new();
        let add = |start, end| Gap { start, end, reason: reason.to_owned() };
        for gap in self.0.iter().filter(|gap| gap.end > start && gap.start < end) {
            if gap.start > from {
                added.push(add(from, gap.start));
            }
            from = from.max(gap.end);
        }
        if from < end {
            added.push(add(from, end));
        }
        if added.is_empty() {
            return;
        }
        self.0.append(&mut added);
        self.0.sort_unstable_by_key(|gap| gap.start);
        self.0.dedup_by(|next, gap| {
            let is_one = gap.end == next.start && gap.reason == next.reason;
            if is_one {
                gap.end = next.end;
            }
            is_one
        });
        while self.0.len() > Self::MAX {
            self.merge_nearest();
        }
    }

    fn merge_nearest(&mut self) {
        let cost = |at: usize| (self.0[at].reason != self.0[at + 1].reason, self.0[at + 1].start - self.0[at].end);
        let Some(at) = (0..self.0.len().saturating_sub(1)).min_by_key(|&at| cost(at)) else { return };
        let next = self.0.remove(at + 1);
        let gap = &mut self.0[at];
        gap.end = next.end;
        if !gap.is_loss() {
            gap.reason = next.reason;
        }
    }

    /// Takes `start..end` out again, where it has this reason: a record covers it after all.
    pub fn remove(&mut self, start: u64, end: u64, reason: &str) {
        let kept = |gap: Gap| {
            if gap.reason != reason {
                return vec![gap];
            }
            let before = Gap { end: gap.end.min(start), ..gap.clone() };
            let after = Gap { start: gap.start.max(end), ..gap };
            [before, after].into_iter().filter(|gap| gap.start < gap.end).collect()
        };
        self.0 = std::mem::take(&mut self.0).into_iter().flat_map(kept).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const REASONS: [&str; 3] = ["too_large", "excluded", "nul_bytes"];

    proptest! {
        #[test]
        fn every_byte_has_its_first_reason(
            steps in prop::collection::vec((0..300u64, 1..30u64, 0..3usize, prop::bool::weighted(0.1)), 1..60),
        ) {
            let (mut gaps, mut naive) = (Gaps::default(), BTreeMap::new());
            for (start, length, reason, is_removal) in steps {
                if is_removal {
                    gaps.remove(start, start + length, REASONS[reason]);
                    naive.retain(|at, is| !(start..start + length).contains(at) || *is != REASONS[reason]);
                } else {
                    gaps.insert(start, start + length, REASONS[reason]);
                    (start..start + length).for_each(|at| _ = naive.entry(at).or_insert(REASONS[reason]));
                }
            }
            let told: BTreeMap<u64, &str> =
                gaps.iter().flat_map(|gap| (gap.start..gap.end).map(|at| (at, gap.reason.as_str()))).collect();
            prop_assert!(gaps.iter().count() <= Gaps::MAX);
            prop_assert!(gaps.0.windows(2).all(|pair| pair[0].end <= pair[1].start));
            let end = (0..).find(|at| !naive.contains_key(at)).unwrap_or_default();
            prop_assert_eq!(gaps.end_from(0), end);
            prop_assert_eq!(told, naive);
        }
    }

    #[test]
    fn past_the_most_nothing_given_up_is_forgotten() {
        let mut gaps = Gaps::default();
        for n in 0..1000 {
            gaps.insert(n * 100, n * 100 + 10, if n % 2 == 0 { "too_large" } else { "excluded" });
        }
        assert_eq!(gaps.iter().count(), Gaps::MAX);
        let is_lost = |at: u64| gaps.iter().any(|gap| gap.is_loss() && gap.start <= at && at < gap.end);
        assert!((0..1000).step_by(2).all(|n| is_lost(n * 100) && is_lost(n * 100 + 9)));
    }
}
