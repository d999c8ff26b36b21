//! A ledger in memory that hears late, and forgets what it was told when the process is killed.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use millrace_common::ledger::Intervals;
use millrace_common::ledger::sources::{SourceRow, SourceState};
use millrace_common::record::{RecordId, SourceId};

use super::broker::Message;
use super::random::Random;
use crate::ledger::Announcer;
use crate::ledger::outbox::Progress;

/// What outlives the process.
pub struct Rows {
    /// Sources of which a row was acknowledged.
    announced: BTreeSet<SourceId>,
    /// What was told last of each. All of it must hold, whether it was heard or not.
    told: BTreeMap<SourceId, SourceRow>,
    early: Option<SourceId>,
    pub is_healthy: bool,
    random: Random,
}

impl Rows {
    pub fn new(random: Random) -> Self {
        Self { announced: BTreeSet::new(), told: BTreeMap::new(), early: None, is_healthy: false, random }
    }

    pub fn note_produced(&mut self, key: &[u8]) {
        let source = RecordId::decode(key).unwrap().source;
        if !self.announced.contains(&source) {
            self.early.get_or_insert(source);
        }
    }

    pub fn judge(&self, log: &[Message]) -> Result<(), String> {
        if let Some(source) = self.early {
            return Err(format!("a record of {source} was produced before it was announced"));
        }
        let mut covered: BTreeMap<SourceId, Intervals> = BTreeMap::new();
        for message in log {
            let id = RecordId::decode(&message.key).unwrap();
            covered.entry(id.source).or_default().insert(id.range.start..id.range.end());
        }
        for (source, row) in &self.told {
            let mut known = covered.remove(source).unwrap_or_default();
            known.extend(row.gaps.iter().map(|gap| gap.start..gap.end));
            let is_whole =
                row.acknowledged == 0 || known.iter().next().is_some_and(|r| r.start == 0 && r.end >= row.acknowledged);
            if !is_whole {
                return Err(format!("of {source} not all before {} is in {known:?}: {row:?}", row.acknowledged));
            }
            if row.state == SourceState::Finished && row.acknowledged < row.size {
                return Err(format!("{source} is finished, and not all of it is acknowledged or given up: {row:?}"));
            }
        }
        Ok(())
    }
}

/// The ledger's thread of one process life.
pub struct Teller {
    rows: Rc<RefCell<Rows>>,
    pending: RefCell<BTreeSet<SourceId>>,
    heard: RefCell<BTreeSet<SourceId>>,
    news: RefCell<Vec<SourceId>>,
}

impl Teller {
    pub fn new(rows: Rc<RefCell<Rows>>) -> Self {
        Self { rows, pending: RefCell::default(), heard: RefCell::default(), news: RefCell::default() }
    }
}

impl Announcer for Teller {
    fn tell(&mut self, id: SourceId, row: &SourceRow, _is_held: bool) {
        self.rows.borrow_mut().told.insert(id, row.clone());
        self.pending.borrow_mut().insert(id);
    }

    fn note(&mut self, _id: SourceId, _progress: Progress) {}

    fn is_announced(&self, id: SourceId) -> bool {
        let mut rows = self.rows.borrow_mut();
        if (rows.is_healthy || rows.random.chance(30)) && self.pending.borrow_mut().remove(&id) {
            rows.announced.insert(id);
            if self.heard.borrow_mut().insert(id) {
                self.news.borrow_mut().push(id);
            }
        }
        self.heard.borrow().contains(&id)
    }

    fn take_announced(&mut self) -> Vec<SourceId> {
        let pending = self.pending.borrow().clone();
        pending.into_iter().for_each(|id| _ = self.is_announced(id));
        self.news.take()
    }
}
