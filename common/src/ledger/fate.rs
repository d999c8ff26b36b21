//! What became of a range of a source, in each group that reads its topic.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use rdkafka::ClientConfig;
use serde::Serialize;

use super::indexed::{IndexedKey, IndexedRow};
use super::reader::{Fact, ReadError, Reader};
use super::{INDEXED, Intervals, decode};
use crate::record::SourceId;

/// Where all bytes of a range are, as the ledger knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    Indexed,
    DeadLettered,
    /// Expired: no document was made of it.
    Skipped,
    /// Finished; whether as a document or a dead letter is no longer told.
    Finished,
    /// Nobody said anything of it, or of some of it.
    Waiting,
}

/// The fate of `range` in each group that the ledger has a word of about `source`. Empty without one.
///
/// # Errors
/// The topic cannot be read to its end, or not for `patience` without news.
pub fn ask(
    config: ClientConfig,
    source: SourceId,
    range: Range<u64>,
    patience: Duration,
) -> Result<BTreeMap<String, Fate>, ReadError> {
    let mut reader = match Reader::open(config, &[INDEXED]) {
        Err(ReadError::NoTopic(_)) => return Ok(BTreeMap::new()),
        opened => opened?,
    };
    let mut rows = BTreeMap::new();
    reader.read_to_end(patience, &|| true, |fact| take(&mut rows, fact, source))?;
    reader.close();
    Ok(by_group(rows, &range))
}

fn take(rows: &mut BTreeMap<IndexedKey, IndexedRow>, fact: Fact, source: SourceId) {
    let Ok(key) = decode::<IndexedKey>(&fact.key) else { return };
    if key.source != source {
        return;
    }
    match fact.value.map(|value| decode(&value)) {
        Some(Ok(row)) => rows.insert(key, row),
        // What cannot be read says nothing.
        Some(Err(_)) | None => rows.remove(&key),
    };
}

fn by_group(rows: BTreeMap<IndexedKey, IndexedRow>, range: &Range<u64>) -> BTreeMap<String, Fate> {
    let mut groups: BTreeMap<String, IndexedRow> = BTreeMap::new();
    for (key, row) in rows {
        groups.entry(key.group).or_default().fold(&row);
    }
    groups.into_iter().map(|(group, row)| (group, fate(&row, range))).collect()
}

fn fate(row: &IndexedRow, range: &Range<u64>) -> Fate {
    let has = |set: &Intervals| set.holes(range.clone()).is_empty();
    match row {
        _ if has(&row.indexed) => Fate::Indexed,
        _ if has(&row.dead_lettered) => Fate::DeadLettered,
        _ if has(&row.skipped) => Fate::Skipped,
        _ if has(&row.finished()) => Fate::Finished,
        _ => Fate::Waiting,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::encode;

    fn fact(group: &str, source: u64, writer: &str, row: Option<&IndexedRow>) -> Fact {
        let key = IndexedKey {
            group: group.to_owned(),
            topic: "logs".to_owned(),
            partition: 0,
            source: SourceId::from_u64(source),
            writer: writer.to_owned(),
        };
        let (topic, offset, broker_ms) = (INDEXED.to_owned(), 0, 0);
        Fact { topic, offset, broker_ms, key: encode(&key), value: row.map(encode) }
    }

    #[test]
    fn each_group_has_its_own_fate_and_the_union_of_its_writers_counts() {
        let set = |start, end| Intervals::from(vec![(start, end)]);
        let indexed = |start, end| IndexedRow { indexed: set(start, end), ..IndexedRow::default() };
        let dead = IndexedRow { dead_lettered: set(10, 20), indexed: set(20, 30), ..IndexedRow::default() };
        let mut rows = BTreeMap::new();
        for fact in [
            fact("a", 1, "w1", Some(&indexed(0, 10))),
            fact("a", 1, "w2", Some(&indexed(10, 20))),
            fact("b", 1, "w3", Some(&dead)),
            fact("c", 1, "w4", Some(&indexed(0, 99))),
            fact("c", 1, "w4", None),
            fact("d", 2, "w5", Some(&indexed(0, 99))),
        ] {
            take(&mut rows, fact, SourceId::from_u64(1));
        }
        let fates = |range| by_group(rows.clone(), &range).into_values().collect::<Vec<_>>();
        assert_eq!(fates(5..15), [Fate::Indexed, Fate::Waiting]);
        assert_eq!(fates(12..20), [Fate::Indexed, Fate::DeadLettered]);
        assert_eq!(fates(15..25), [Fate::Waiting, Fate::Finished]);
    }
}
