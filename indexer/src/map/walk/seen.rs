//! Which names an object had already.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use millrace_common::json::Value;

use crate::map::plan::model::NameHasher;

/// The hashes of the names seen in one object. Few names cost no allocation.
pub(super) struct Seen {
    few: [u32; Seen::FEW],
    num_few: usize,
    many: HashSet<u32, BuildHasherDefault<NameHasher>>,
}

impl Seen {
    const FEW: usize = 32;

    /// The first `num` names of an object.
    pub(super) fn first(num: usize, object: Value<'_, '_>) -> Self {
        let mut seen = Self::default();
        for (key, _) in object.members().take(num) {
            seen.repeats(&key.name());
        }
        seen
    }

    /// Whether `name` may have been there before. Equal hashes of different names are possible: the caller looks again.
    pub(super) fn repeats(&mut self, name: &str) -> bool {
        let mut hasher = NameHasher::default();
        hasher.write(name.as_bytes());
        let hash = hasher.finish() as u32;
        if self.few[..self.num_few].contains(&hash) {
            return true;
        }
        if self.num_few < Self::FEW {
            self.few[self.num_few] = hash;
            self.num_few += 1;
            return false;
        }
        !self.many.insert(hash)
    }
}

impl Default for Seen {
    fn default() -> Self {
        Self { few: [0; Self::FEW], num_few: 0, many: HashSet::default() }
    }
}
