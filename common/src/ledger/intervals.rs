//! Sets of byte positions, as few ranges as possible.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Ranges `start..end`, ascending, that neither overlap nor touch. As JSON: `[[0,120],[300,310]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub struct Intervals(Vec<(u64, u64)>);

impl From<Vec<(u64, u64)>> for Intervals {
    /// Takes ranges in any order, overlapping or empty.
    fn from(ranges: Vec<(u64, u64)>) -> Self {
        ranges.into_iter().map(|(start, end)| start..end).collect()
    }
}

impl From<Intervals> for Vec<(u64, u64)> {
    fn from(intervals: Intervals) -> Self {
        intervals.0
    }
}

impl FromIterator<Range<u64>> for Intervals {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> Self {
        let mut intervals = Self::default();
        intervals.extend(ranges);
        intervals
    }
}

impl Extend<Range<u64>> for Intervals {
    fn extend<I: IntoIterator<Item = Range<u64>>>(&mut self, ranges: I) {
        ranges.into_iter().for_each(|range| self.insert(range));
    }
}

impl Intervals {
    /// Adds the positions of `range`. Constant time at the end, where nearly all are added.
    pub fn insert(&mut self, range: Range<u64>) {
        let Range { mut start, mut end } = range;
        if start >= end {
            return;
        }
        if let Some((_, last)) = self.0.last_mut().filter(|(_, last)| *last == start) {
            *last = end;
            return;
        }
        let from = match self.0.last() {
            Some(&(_, last)) if last < start => self.0.len(),
            Some(&(first, _)) if first <= start => self.0.len() - 1,
            _ => self.0.partition_point(|&(_, e)| e < start),
        };
        let mut to = from;
        while let Some(&(s, e)) = self.0.get(to)
            && s <= end
        {
            (start, end) = (start.min(s), end.max(e));
            to += 1;
        }
        self.0.splice(from..to, [(start, end)]);
    }

    /// Takes the positions below `position` out of the set.
    pub fn take_below(&mut self, position: u64) -> Self {
        let at = self.0.partition_point(|&(_, end)| end <= position);
        let mut above = self.0.split_off(at);
        if let Some((start, _)) = above.first_mut().filter(|(start, _)| *start < position) {
            self.0.push((*start, position));
            *start = position;
        }
        Self(std::mem::replace(&mut self.0, above))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many ranges there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = Range<u64>> + '_ {
        self.0.iter().map(|&(start, end)| start..end)
    }

    pub fn num_bytes(&self) -> u64 {
        self.0.iter().map(|&(start, end)| end - start).sum()
    }

    /// The end of the range that begins at 0, or 0.
    pub fn prefix_end(&self) -> u64 {
        self.0.first().filter(|&&(start, _)| start == 0).map_or(0, |&(_, end)| end)
    }

    pub fn contains(&self, position: u64) -> bool {
        let at = self.0.partition_point(|&(_, end)| end <= position);
        self.0.get(at).is_some_and(|&(start, _)| start <= position)
    }

    /// The ranges of `within` that are not in the set, ascending.
    pub fn holes(&self, within: Range<u64>) -> Vec<Range<u64>> {
        let mut holes = Vec::new();
        let mut at = within.start;
        let first = self.0.partition_point(|&(_, end)| end <= within.start);
        for &(start, end) in self.0[first..].iter().take_while(|&&(start, _)| start < within.end) {
            if at < start {
                holes.push(at..start);
            }
            at = end;
        }
        if at < within.end {
            holes.push(at..within.end);
        }
        holes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn ranges() -> impl Strategy<Value = Vec<(u64, u64)>> {
        prop::collection::vec((0u64..60, 0u64..12).prop_map(|(start, length)| (start, start + length)), 0..20)
    }

    proptest! {
        #[test]
        fn it_is_the_set_of_its_positions(ranges in ranges(), within in (0u64..80, 0u64..80)) {
            let naive: BTreeSet<u64> = ranges.iter().flat_map(|&(start, end)| start..end).collect();
            let set = Intervals::from(ranges);
            let positions: Vec<u64> = set.iter().flatten().collect();
            prop_assert_eq!(&positions, &naive.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(set.num_bytes(), naive.len() as u64);
            prop_assert!(set.0.windows(2).all(|pair| pair[0].1 < pair[1].0), "{:?}", set);
            let holes: Vec<u64> = set.holes(within.0..within.1).into_iter().flatten().collect();
            let missing: Vec<u64> = (within.0..within.1).filter(|position| !naive.contains(position)).collect();
            prop_assert_eq!(holes, missing);
            prop_assert!((0..80).all(|position| set.contains(position) == naive.contains(&position)));
            prop_assert_eq!(set.prefix_end(), (0..).find(|position| !naive.contains(position)).unwrap());
            let mut above = set;
            let below: Vec<u64> = above.take_below(within.0).iter().flatten().collect();
            let (low, high): (Vec<u64>, Vec<u64>) = positions.iter().partition(|&&position| position < within.0);
            prop_assert_eq!((below, above.iter().flatten().collect()), (low, high));
        }
    }

    #[test]
    fn its_text_is_its_ranges() {
        let set = Intervals::from(vec![(5, 7), (0, 3), (3, 4)]);
        assert_eq!(serde_json::to_string(&set).unwrap(), "[[0,4],[5,7]]");
        assert_eq!(serde_json::from_str::<Intervals>("[[5,7],[2,6]]").unwrap(), Intervals::from(vec![(2, 7)]));
    }
}
