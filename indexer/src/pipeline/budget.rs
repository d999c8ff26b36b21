//! How much each partition may have on its way. Pure.
//!
//! Half of the memory is divided: a partition may always have its part of that, whatever the others hold, so that one whose
//! records do not flow cannot stop them. The other half goes to whoever has a use for it: a partition may take half of what
//! the others leave of it. So a single busy one among many gets three quarters of all.

/// What partitions have on their way, against what there is. In bytes.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    total: u64,
    /// What each partition may always have.
    part: u64,
    /// What is taken of the common half.
    common: u64,
    all: u64,
}

impl Budget {
    /// `loads` are those of the partitions that take part; `others` is on its way for none of them.
    pub fn new(total: u64, loads: impl Iterator<Item = u64> + Clone, others: u64) -> Self {
        let num = loads.clone().count().max(1) as u64;
        let mut budget = Self { total, part: total / 2 / num, common: others, all: others };
        loads.for_each(|load| budget.exchange(0, load));
        budget
    }

    /// Where a partition with this load must stop. When all memory is used up, each may still have one record on its way: large
    /// ones lead past a part.
    pub fn limit(&self, load: u64) -> u64 {
        if self.all >= self.total {
            return 1;
        }
        let of_others = self.common - self.excess(load);
        self.part + (self.total / 2).saturating_sub(of_others) / 2
    }

    /// The load of a partition changed.
    pub fn exchange(&mut self, before: u64, after: u64) {
        self.common = self.common - self.excess(before) + self.excess(after);
        self.all = self.all - before + after;
    }

    fn excess(&self, load: u64) -> u64 {
        load.saturating_sub(self.part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The loads after each partition in turn took as much as it may, in records of one byte, some times over.
    fn fill(total: u64, mut loads: Vec<u64>, takers: &[usize]) -> Vec<u64> {
        for &taker in takers {
            let budget = Budget::new(total, loads.iter().copied(), 0);
            loads[taker] = loads[taker].max(budget.limit(loads[taker]));
        }
        loads
    }

    #[test]
    fn a_single_partition_gets_three_quarters() {
        assert_eq!(fill(1_000, vec![0], &[0]), [750]);
        assert_eq!(fill(1_000, vec![0; 100], &[7])[7], 5 + 250);
    }

    #[test]
    fn what_others_hold_leaves_a_partition_its_part() {
        let held: Vec<usize> = (0..99).collect();
        let loads = fill(100_000, vec![0; 100], &held);
        assert!(loads.iter().sum::<u64>() <= 100_000 - 500);
        let budget = Budget::new(100_000, loads.iter().copied(), 0);
        assert!(budget.limit(0) >= 500, "{}", budget.limit(0));
    }

    #[test]
    fn records_larger_than_a_part_leave_room_for_one() {
        let budget = Budget::new(1_000, [900, 900, 0].into_iter(), 0);
        assert_eq!((budget.limit(0), budget.limit(900)), (1, 1));
    }

    proptest! {
        #[test]
        fn all_is_never_exceeded_and_nobody_is_left_without_a_part(
            num in 1..40_usize, turns in prop::collection::vec(0..40_usize, 0..200), others in 0..2_000_u64,
        ) {
            const TOTAL: u64 = 100_000;
            let mut loads = vec![0; num];
            let mut budget = Budget::new(TOTAL, loads.iter().copied(), others);
            for turn in turns {
                let load = loads[turn % num];
                let limit = budget.limit(load);
                prop_assert!(limit >= TOTAL / 2 / num as u64);
                loads[turn % num] = load.max(limit);
                budget.exchange(load, load.max(limit));
                prop_assert!(loads.iter().sum::<u64>() <= TOTAL);
            }
        }
    }
}
