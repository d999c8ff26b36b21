//! Lines by how often they occur.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// How often each distinct line was written. Lines are kept as hashes: 64 bits, for some hundred thousand lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    counts: HashMap<u64, u32>,
    total: u64,
}

impl Tally {
    /// Counts one line, known by the parts that tell it from others.
    pub fn add(&mut self, parts: &[&str]) {
        let mut hasher = DefaultHasher::new();
        parts.hash(&mut hasher);
        *self.counts.entry(hasher.finish()).or_default() += 1;
        self.total += 1;
    }

    pub fn total(&self) -> u64 {
        self.total
    }

    /// How many lines of this tally the other one lacks.
    pub fn lacking_in(&self, other: &Self) -> u64 {
        let lacking = |(hash, count): (&u64, &u32)| {
            let found = other.counts.get(hash).copied().unwrap_or(0);
            u64::from(count.saturating_sub(found))
        };
        self.counts.iter().map(lacking).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tally_counts_repeated_lines() {
        let (mut one, mut two) = (Tally::default(), Tally::default());
        for line in ["a", "a", "b"] {
            one.add(&[line]);
        }
        for line in ["a", "b", "b", "c"] {
            two.add(&[line]);
        }
        assert_eq!(one.lacking_in(&two), 1);
        assert_eq!(two.lacking_in(&one), 2);
        assert_eq!(one.lacking_in(&one), 0);
    }
}
