//! What is to be said of each source, and how far it was heard. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use millrace_common::ledger::encode;
use millrace_common::ledger::sources::{SourceRow, SourceState};
use millrace_common::record::SourceId;

/// A file that is tailed, as the tailer last told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    pub input: String,
    pub path: PathBuf,
    pub inode: u64,
    pub birth_time_ns: u64,
    pub progress: Progress,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub size: u64,
    /// Up to here it was read.
    pub read: u64,
    /// What holds it up is not the file: its topic, the broker, the disk of the checkpoint, another source.
    pub is_held: bool,
}

/// One message about a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Say {
    Row {
        text: Vec<u8>,
        state: SourceState,
    },
    /// The key is no longer needed.
    Forget,
}

#[derive(Debug, Default)]
struct Entry {
    /// `None` for what is finished.
    watched: Option<Watched>,
    /// Said next; what it replaces was never said.
    next: Option<Say>,
    is_under_way: bool,
    is_announced: bool,
}

/// At most one message of a source is under way, so that none overtakes the one before it. Memory is bounded by the number of
/// sources: a newer message takes the place of one that was not yet sent.
#[derive(Debug)]
pub struct Outbox {
    is_on: bool,
    entries: BTreeMap<SourceId, Entry>,
    /// Sources with something to say of which nothing is under way.
    due: BTreeSet<SourceId>,
    /// Sources that were announced and not yet taken.
    announced: Vec<SourceId>,
    num_changes: u64,
}

impl Outbox {
    /// Without a ledger (`is_on: false`) nothing is ever due, and every source counts as announced.
    pub fn new(is_on: bool) -> Self {
        Self { is_on, entries: BTreeMap::new(), due: BTreeSet::new(), announced: Vec::new(), num_changes: 0 }
    }

    pub fn tell(&mut self, id: SourceId, row: &SourceRow, is_held: bool) {
        self.num_changes += 1;
        let entry = self.entries.entry(id).or_default();
        let progress = Progress { size: row.size, read: row.read, is_held };
        entry.watched = (row.state == SourceState::Active).then(|| Watched {
            input: row.input.clone(),
            path: PathBuf::from(&row.path),
            inode: row.inode,
            birth_time_ns: row.birth_time_ns,
            progress,
        });
        if self.is_on {
            self.say(id, Say::Row { text: encode(row), state: row.state });
        } else if row.state == SourceState::Finished {
            self.entries.remove(&id);
        }
    }

    pub fn note(&mut self, id: SourceId, progress: Progress) {
        if let Some(watched) = self.entries.get_mut(&id).and_then(|entry| entry.watched.as_mut()) {
            self.num_changes += 1;
            watched.progress = progress;
        }
    }

    /// Has a finished source forgotten, unless it came back.
    pub fn forget(&mut self, id: SourceId) {
        if self.entries.get(&id).is_none_or(|entry| entry.watched.is_none()) {
            self.say(id, Say::Forget);
        }
    }

    fn say(&mut self, id: SourceId, say: Say) {
        let entry = self.entries.entry(id).or_default();
        entry.next = Some(say);
        if !entry.is_under_way {
            self.due.insert(id);
        }
    }

    /// The next message to send. It is under way until [`Self::settle`].
    pub fn take(&mut self) -> Option<(SourceId, Say)> {
        let id = self.due.pop_first()?;
        let entry = self.entries.get_mut(&id)?;
        let say = entry.next.take()?;
        entry.is_under_way = true;
        Some((id, say))
    }

    /// A message was acknowledged, or (`failed`) comes back to be sent again unless there is news.
    pub fn settle(&mut self, id: SourceId, failed: Option<Say>) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.is_under_way = false;
        match failed {
            None if !entry.is_announced => {
                entry.is_announced = true;
                self.announced.push(id);
            }
            None => {}
            Some(say) => _ = entry.next.get_or_insert(say),
        }
        if entry.next.is_some() {
            self.due.insert(id);
        } else if entry.watched.is_none() {
            self.entries.remove(&id);
        }
    }

    /// Whether a row of the source was acknowledged.
    pub fn is_announced(&self, id: SourceId) -> bool {
        !self.is_on || self.entries.get(&id).is_some_and(|entry| entry.is_announced)
    }

    /// The sources that were announced since this was asked last.
    pub fn take_announced(&mut self) -> Vec<SourceId> {
        std::mem::take(&mut self.announced)
    }

    pub fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Whether all that was told is acknowledged.
    pub fn is_heard(&self) -> bool {
        self.due.is_empty() && self.entries.values().all(|entry| !entry.is_under_way)
    }

    /// Grows whenever [`Self::watched`] says something else than before.
    pub fn num_changes(&self) -> u64 {
        self.num_changes
    }

    pub fn watched(&self) -> impl Iterator<Item = (SourceId, &Watched)> {
        self.entries.iter().filter_map(|(id, entry)| Some((*id, entry.watched.as_ref()?)))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use millrace_common::ledger::decode;
    use millrace_common::ledger::sources::Opaque;
    use proptest::prelude::*;

    pub fn row(read: u64, state: SourceState) -> SourceRow {
        SourceRow {
            version: 1,
            host_name: "web-1".into(),
            input: "app".into(),
            topic: "logs".into(),
            path: "/a.log".into(),
            inode: 7,
            birth_time_ns: 8,
            generation: 0,
            size: 1000,
            read,
            acknowledged: read,
            gaps: Vec::new(),
            state,
            at_ms: 0,
            checkpoint: Opaque::default(),
        }
    }

    proptest! {
        /// The topic must end with what was told last of each source, whatever fails in between.
        #[test]
        fn what_was_told_last_is_heard_last(
            steps in prop::collection::vec((0..4u8, 0..3u64, any::<bool>()), 1..200),
        ) {
            let mut outbox = Outbox::new(true);
            let mut under_way: Vec<(SourceId, Say)> = Vec::new();
            let (mut told, mut heard) = (BTreeMap::new(), BTreeMap::new());
            for (number, (step, source, is_good)) in (0..).zip(steps) {
                let id = SourceId::from_u64(source);
                match step {
                    0 => {
                        let state = if is_good { SourceState::Active } else { SourceState::Finished };
                        outbox.tell(id, &row(number, state), false);
                        told.insert(id, number);
                    }
                    1 => under_way.extend(outbox.take()),
                    _ if !under_way.is_empty() => {
                        let (id, say) = under_way.remove(source as usize % under_way.len());
                        if let (true, Say::Row { text, .. }) = (is_good, &say) {
                            heard.insert(id, decode::<SourceRow>(text).unwrap().read);
                        }
                        outbox.settle(id, (!is_good).then_some(say));
                        prop_assert!(!is_good || heard.contains_key(&id));
                    }
                    _ => {}
                }
                let mut ids: Vec<_> = under_way.iter().map(|(id, _)| id).collect();
                ids.sort();
                ids.dedup();
                prop_assert_eq!(ids.len(), under_way.len());
            }
            for (id, say) in under_way {
                outbox.settle(id, Some(say));
            }
            while let Some((id, Say::Row { text, .. })) = outbox.take() {
                heard.insert(id, decode::<SourceRow>(&text).unwrap().read);
                outbox.settle(id, None);
            }
            prop_assert!(outbox.is_heard());
            prop_assert_eq!(told, heard);
        }
    }

    #[test]
    fn a_source_is_announced_by_an_acknowledgement_only() {
        let (mut outbox, id) = (Outbox::new(true), SourceId::from_u64(1));
        outbox.tell(id, &row(0, SourceState::Active), false);
        let (_, say) = outbox.take().unwrap();
        outbox.settle(id, Some(say));
        assert!(!outbox.is_announced(id));
        outbox.take().unwrap();
        outbox.settle(id, None);
        assert!(outbox.is_announced(id));
        assert_eq!(outbox.take_announced(), [id]);
        outbox.tell(id, &row(5, SourceState::Active), false);
        outbox.take().unwrap();
        outbox.settle(id, None);
        assert_eq!(outbox.take_announced(), []);
        assert!(Outbox::new(false).is_announced(id));
    }

    #[test]
    fn a_finished_source_that_came_back_is_not_forgotten() {
        let (mut outbox, id) = (Outbox::new(true), SourceId::from_u64(1));
        outbox.tell(id, &row(5, SourceState::Active), false);
        outbox.take().unwrap();
        outbox.settle(id, None);
        outbox.forget(id);
        assert!(!outbox.has_due());
        outbox.tell(id, &row(5, SourceState::Finished), false);
        outbox.take().unwrap();
        outbox.settle(id, None);
        assert!(outbox.watched().next().is_none() && !outbox.is_announced(id));
        outbox.forget(id);
        assert_eq!(outbox.take(), Some((id, Say::Forget)));
    }
}
