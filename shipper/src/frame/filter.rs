//! Which events are sent. Those that are not belong to the range of the next one that is.

use regex::bytes::RegexSet;

/// `include_lines` and `exclude_lines`, applied to whole events.
#[derive(Clone, Debug)]
pub struct Filter {
    /// Empty: every event.
    pub include: RegexSet,
    pub exclude: RegexSet,
}

impl Filter {
    /// Bytes of excluded events after which the position moves on without a record. Like every boundary it depends on
    /// nothing but bytes.
    pub const MAX_SKIP: u64 = 64 << 10;

    pub fn keeps(&self, content: &[u8]) -> bool {
        (self.include.is_empty() || self.include.is_match(content)) && !self.exclude.is_match(content)
    }
}
