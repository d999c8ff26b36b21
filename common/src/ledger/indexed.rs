//! What the indexers finished, in [`super::INDEXED`].

use serde::{Deserialize, Serialize};

use super::Intervals;
use crate::record::SourceId;

/// Whose fact it is: `writer` is one run of one indexer, so no other ever writes this key but to remove it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "KeyText", into = "KeyText")]
pub struct IndexedKey {
    pub group: String,
    pub topic: String,
    pub partition: i32,
    pub source: SourceId,
    pub writer: String,
}

type KeyText = (String, String, i32, SourceId, String);

impl From<KeyText> for IndexedKey {
    fn from((group, topic, partition, source, writer): KeyText) -> Self {
        Self { group, topic, partition, source, writer }
    }
}

impl From<IndexedKey> for KeyText {
    fn from(key: IndexedKey) -> Self {
        (key.group, key.topic, key.partition, key.source, key.writer)
    }
}

/// The ranges of a source that one writer finished in one partition. Published before the offsets after them are committed.
///
/// The union over all writers and partitions is what is finished of the source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexedRow {
    pub version: u32,
    /// The offset after the finished prefix of the partition at that time.
    pub offset: i64,
    #[serde(default, skip_serializing_if = "Intervals::is_empty")]
    pub indexed: Intervals,
    #[serde(default, skip_serializing_if = "Intervals::is_empty")]
    pub dead_lettered: Intervals,
    /// Finished without a document: expired records.
    #[serde(default, skip_serializing_if = "Intervals::is_empty")]
    pub skipped: Intervals,
    /// Finished in too many pieces to tell their fates apart.
    #[serde(default, skip_serializing_if = "Intervals::is_empty")]
    pub merged: Intervals,
    /// Records that Elasticsearch had already.
    #[serde(default)]
    pub num_duplicates: u64,
    #[serde(default)]
    pub num_dead_letters: u64,
}

impl IndexedRow {
    /// Takes over what another writer finished.
    pub fn fold(&mut self, other: &Self) {
        self.offset = self.offset.max(other.offset);
        self.indexed.extend(other.indexed.iter());
        self.dead_lettered.extend(other.dead_lettered.iter());
        self.skipped.extend(other.skipped.iter());
        self.merged.extend(other.merged.iter());
        self.num_duplicates += other.num_duplicates;
        self.num_dead_letters += other.num_dead_letters;
    }

    /// Keeps the row small where every other record of a source has another fate: with more than `max` ranges, the half that
    /// stands first in the source becomes `merged`.
    pub fn merge_pieces(&mut self, max: usize) {
        let sets = [&self.indexed, &self.dead_lettered, &self.skipped];
        if sets.iter().map(|set| set.len()).sum::<usize>() <= max {
            return;
        }
        let mut ends: Vec<u64> = sets.iter().flat_map(|set| set.iter().map(|range| range.end)).collect();
        let middle = ends.len() / 2;
        let (_, &mut middle, _) = ends.select_nth_unstable(middle);
        for set in [&mut self.indexed, &mut self.dead_lettered, &mut self.skipped] {
            self.merged.extend(set.take_below(middle).iter());
        }
    }

    /// The sets of ranges, each with another fate.
    pub fn sets(&self) -> [&Intervals; 4] {
        [&self.indexed, &self.dead_lettered, &self.skipped, &self.merged]
    }

    /// All ranges, whatever became of them.
    pub fn finished(&self) -> Intervals {
        self.sets().into_iter().flat_map(Intervals::iter).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{decode, encode};

    #[test]
    fn a_key_is_an_array() {
        let key = IndexedKey {
            group: "g".to_owned(),
            topic: "logs".to_owned(),
            partition: 3,
            source: SourceId::from_u64(7),
            writer: "w1".to_owned(),
        };
        assert_eq!(encode(&key), br#"["g","logs",3,"0000000000000007","w1"]"#);
        assert_eq!(decode::<IndexedKey>(&encode(&key)).unwrap(), key);
    }

    #[test]
    fn folding_takes_the_union() {
        let row = |start, end, offset| IndexedRow {
            version: 1,
            offset,
            indexed: Intervals::from(vec![(start, end)]),
            dead_lettered: Intervals::from(vec![(end, end + 1)]),
            ..IndexedRow::default()
        };
        let mut own = row(0, 10, 5);
        own.fold(&row(11, 20, 3));
        assert_eq!(own.offset, 5);
        assert_eq!(own.finished(), Intervals::from(vec![(0, 21)]));
    }
}
