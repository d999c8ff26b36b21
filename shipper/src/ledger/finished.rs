//! Which finished sources the ledger still knows, so that they are removed from it in time. Kept in the data folder, because
//! reading the whole topic back for it would cost every start.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use millrace_common::record::SourceId;

/// By source, since when it is finished, in milliseconds since the epoch.
pub struct Finished {
    path: PathBuf,
    since_ms: BTreeMap<SourceId, i64>,
    is_saved: bool,
}

impl Finished {
    /// Beyond, the longest finished is forgotten early.
    const MAX: usize = 100_000;

    /// Reads the file, and adds `more`. Lines that cannot be read are left out: what they named stays in the topic.
    pub fn load(path: PathBuf, more: &[(SourceId, i64)]) -> Self {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let entry = |line: &str| {
            let (id, since_ms) = line.split_once(' ')?;
            Some((id.parse().ok()?, since_ms.parse().ok()?))
        };
        let mut finished = Self { path, since_ms: text.lines().filter_map(entry).collect(), is_saved: true };
        more.iter().for_each(|(id, since_ms)| finished.insert(*id, *since_ms));
        finished
    }

    pub fn insert(&mut self, id: SourceId, since_ms: i64) {
        self.since_ms.entry(id).or_insert_with(|| {
            self.is_saved = false;
            since_ms
        });
    }

    pub fn remove(&mut self, id: SourceId) {
        self.is_saved &= self.since_ms.remove(&id).is_none();
    }

    /// Those that are finished for longer than `forget_after`.
    pub fn old(&self, now_ms: i64, forget_after: Duration) -> Vec<SourceId> {
        let limit = now_ms.saturating_sub(i64::try_from(forget_after.as_millis()).unwrap_or(i64::MAX));
        let mut by_age: Vec<_> = self.since_ms.iter().map(|(id, since_ms)| (*since_ms, *id)).collect();
        by_age.sort_unstable();
        let excess = by_age.len().saturating_sub(Self::MAX);
        let old = by_age.into_iter().enumerate().filter(|(at, (since_ms, _))| *at < excess || *since_ms <= limit);
        old.map(|(_, (_, id))| id).collect()
    }

    /// Writes the file anew if something changed.
    pub fn save(&mut self) -> io::Result<()> {
        if self.is_saved {
            return Ok(());
        }
        let lines: String = self.since_ms.iter().map(|(id, since_ms)| format!("{id} {since_ms}\n")).collect();
        let aside = self.path.with_extension("new");
        std::fs::write(&aside, lines)?;
        std::fs::rename(&aside, &self.path)?;
        self.is_saved = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_ones_are_found_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("finished");
        let mut finished = Finished::load(path.clone(), &[]);
        for n in 0..10 {
            finished.insert(SourceId::from_u64(n), n as i64 * 1000);
        }
        finished.remove(SourceId::from_u64(1));
        finished.save().unwrap();
        let finished = Finished::load(path, &[(SourceId::from_u64(20), 1)]);
        let old = finished.old(12_500, Duration::from_secs(10));
        assert_eq!(old, [0, 20, 2].map(SourceId::from_u64));
    }
}
