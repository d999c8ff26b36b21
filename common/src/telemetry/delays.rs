//! How long things took, counted by bucket: cheap enough for each record, as one owner counts and shows copies.

/// Upper bounds in milliseconds, from a fast acknowledgement to a backlog of a day.
const BOUNDS_MS: [u64; 18] = [
    5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000, 900_000, 3_600_000, 21_600_000,
    86_400_000,
];

/// A histogram of durations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delays {
    /// Those up to each bound and above the one before it; the last are beyond all bounds.
    by_bucket: [u64; BOUNDS_MS.len() + 1],
    sum_ms: u64,
}

impl Delays {
    /// Counts one duration. Below 0, as between clocks that differ, it is 0.
    pub fn note(&mut self, milliseconds: i64) {
        let milliseconds = milliseconds.max(0) as u64;
        self.by_bucket[BOUNDS_MS.partition_point(|&bound| bound < milliseconds)] += 1;
        self.sum_ms += milliseconds;
    }

    /// The buckets as Prometheus has them: bound in seconds, and how many took no longer.
    pub(super) fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = BOUNDS_MS.iter().map(|&bound| bound as f64 / 1_000.0).chain([f64::INFINITY]);
        bounds.zip(self.by_bucket.iter().scan(0, |total, number| {
            *total += number;
            Some(*total)
        }))
    }

    pub(super) fn sum_seconds(&self) -> f64 {
        self.sum_ms as f64 / 1_000.0
    }
}
