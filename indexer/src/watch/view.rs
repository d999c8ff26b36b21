//! What is known of hosts, sources and what the group finished of them. Pure.

mod take;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use millrace_common::ledger::Intervals;
use millrace_common::ledger::indexed::{IndexedKey, IndexedRow};
use millrace_common::ledger::sources::{Heartbeat, SourceRow};
use millrace_common::record::SourceId;

use crate::config::Expect;

/// Milliseconds on the reader's own clock.
pub type ClockMs = i64;

/// The first offset and the one after the last, of each partition of a topic.
pub type Ends = BTreeMap<i32, std::ops::Range<i64>>;

/// A pause between two rounds of reading that is longer than this says that Kafka was away: whatever is late is given its time
/// anew.
pub const STALE_MS: i64 = 20_000;

/// When a fact arrived.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    pub clock_ms: ClockMs,
    pub broker_ms: i64,
    /// It was there before the reader was: only the broker's time says how old it is.
    pub is_old: bool,
}

#[derive(Debug, Default)]
pub struct Host {
    pub name: String,
    pub heartbeat: Option<Heartbeat>,
    /// Between the last two heartbeats of one process.
    pub events_per_second: Option<f64>,
    /// Of the last sign of life.
    pub seen: Option<Arrival>,
    /// When one of its sources last had something new acknowledged.
    pub advanced: Option<Arrival>,
}

#[derive(Debug)]
pub struct Source {
    pub row: SourceRow,
    pub arrival: Arrival,
    /// Holes below this will not be filled any more: the group is past everything that was in the topic when it was claimed.
    pub proven: u64,
    /// What the proof on its way is about.
    in_proof: u64,
    /// Everything below this was accounted for at the last look.
    complete: u64,
    /// Since when the group has not finished all of what was acknowledged up to there.
    pub waiting: Option<Waiting>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub target: u64,
    pub since_ms: ClockMs,
}

/// What one writer finished of a source in one partition.
#[derive(Debug)]
pub struct Finished {
    pub key: IndexedKey,
    pub row: IndexedRow,
    pub broker_ms: i64,
}

/// The state of a topic whose acknowledged bytes are being proven.
#[derive(Debug, Default)]
struct Proof {
    ends: Option<Ends>,
}

#[derive(Debug)]
pub struct View {
    group: String,
    topics: Vec<String>,
    pub expect: Vec<Expect>,
    pub hosts: BTreeMap<Arc<str>, Host>,
    pub sources: BTreeMap<(Arc<str>, SourceId), Source>,
    indexed: HashMap<SourceId, Vec<Finished>>,
    proofs: BTreeMap<String, Proof>,
    /// When the last round began of which all was read.
    synced_ms: Option<ClockMs>,
    /// Nothing is late for what happened before this.
    resumed_ms: ClockMs,
    /// When some fact arrived while the reader was there: by it the age of older ones is known.
    anchor: Option<(ClockMs, i64)>,
    newest_broker_ms: i64,
    /// Facts that are not readable.
    pub num_unreadable: u64,
    num_proofs: u64,
}

impl View {
    /// A view for the members of `group` that read `topics`.
    pub fn new(group: &str, topics: &[String], expect: &[Expect]) -> Self {
        Self {
            group: group.to_owned(),
            topics: topics.to_vec(),
            expect: expect.to_vec(),
            hosts: BTreeMap::new(),
            sources: BTreeMap::new(),
            indexed: HashMap::new(),
            proofs: BTreeMap::new(),
            synced_ms: None,
            resumed_ms: 0,
            anchor: None,
            newest_broker_ms: 0,
            num_unreadable: 0,
            num_proofs: 0,
        }
    }

    /// Whether records of this topic are ours.
    pub fn reads(&self, topic: &str) -> bool {
        self.topics.iter().any(|own| own == topic)
    }

    /// The sources of a host.
    pub fn source_keys(&self, host: &Arc<str>) -> impl Iterator<Item = SourceId> {
        let first = (Arc::clone(host), SourceId::from_u64(0));
        self.sources.range(first..).take_while(move |((id, _), _)| id == host).map(|((_, source), _)| *source)
    }

    /// What the group finished of a source.
    pub fn finished(&self, source: SourceId) -> &[Finished] {
        self.indexed.get(&source).map_or(&[], Vec::as_slice)
    }

    /// Everything that is finished of a source or needs not to be.
    pub fn accounted(&self, source: SourceId, row: &SourceRow) -> Intervals {
        accounted(&self.indexed, source, row)
    }

    /// Begins to prove what is acknowledged by now, where no proof is on its way. Gives the topics whose ends are wanted, as
    /// they are from now on.
    pub fn begin_proofs(&mut self) -> Vec<String> {
        let wanted: Vec<String> =
            self.topics.iter().filter(|topic| !self.proofs.contains_key(*topic)).cloned().collect();
        for source in self.sources.values_mut().filter(|source| wanted.contains(&source.row.topic)) {
            source.in_proof = source.row.acknowledged;
        }
        for topic in &wanted {
            self.proofs.insert(topic.clone(), Proof::default());
        }
        wanted
    }

    /// The ends of a topic, looked at after its proof began. Without them it begins again.
    pub fn note_ends(&mut self, topic: &str, ends: Option<Ends>) {
        match (self.proofs.get_mut(topic), ends) {
            (Some(proof), Some(ends)) => proof.ends = Some(ends),
            (Some(_), None) => {
                self.proofs.remove(topic);
            }
            (None, _) => {}
        }
    }

    /// So far the group is in a topic, of which `begins` are the first offsets; all that it published until then was read.
    pub fn note_committed(&mut self, topic: &str, committed: &BTreeMap<i32, i64>, begins: &Ends) {
        let Some(Proof { ends: Some(ends) }) = self.proofs.get(topic) else { return };
        let is_past = |(partition, ends): (&i32, &std::ops::Range<i64>)| {
            // What the log does not have any more nobody will read.
            let begin = begins.get(partition).map_or(ends.start, |range| range.start);
            committed.get(partition).copied().unwrap_or(i64::MIN).max(begin) >= ends.end
        };
        if !ends.iter().all(is_past) {
            return;
        }
        self.proofs.remove(topic);
        self.num_proofs += 1;
        for source in self.sources.values_mut().filter(|source| source.row.topic == topic) {
            source.proven = source.proven.max(source.in_proof);
        }
    }

    /// All was read that was there when a round began.
    pub fn note_synced(&mut self, begin_ms: ClockMs) {
        if self.synced_ms.is_none_or(|before| begin_ms - before > STALE_MS) {
            self.resumed_ms = begin_ms;
        }
        self.synced_ms = Some(begin_ms);
        for ((_, id), source) in &mut self.sources {
            if source.complete >= source.row.acknowledged {
                continue;
            }
            let accounted = accounted(&self.indexed, *id, &source.row);
            let first_hole = |end: u64| accounted.holes(0..end).first().map(|hole| hole.start);
            source.complete = first_hole(source.row.acknowledged).unwrap_or(source.row.acknowledged);
            let is_open = source.complete < source.row.acknowledged;
            let is_kept = source.waiting.is_some_and(|waiting| source.complete < waiting.target);
            if !is_kept {
                let target = source.row.acknowledged;
                source.waiting = is_open.then_some(Waiting { target, since_ms: begin_ms });
            }
        }
    }

    pub fn synced_ms(&self) -> Option<ClockMs> {
        self.synced_ms
    }

    pub fn resumed_ms(&self) -> ClockMs {
        self.resumed_ms
    }

    /// How many topics were proven so far, some more than once.
    pub fn num_proofs(&self) -> u64 {
        self.num_proofs
    }

    /// When something happened, as far as it can be told.
    pub fn when(&self, arrival: Arrival) -> Option<ClockMs> {
        if !arrival.is_old {
            return Some(arrival.clock_ms);
        }
        self.anchor.map(|(clock_ms, broker_ms)| clock_ms - (broker_ms - arrival.broker_ms).max(0))
    }

    /// The latest that something can have happened.
    pub fn at_latest(&self, arrival: Arrival) -> ClockMs {
        let by_newest = || arrival.clock_ms - (self.newest_broker_ms - arrival.broker_ms).max(0);
        self.when(arrival).unwrap_or_else(by_newest)
    }

    /// The rows of a partition that other writers left.
    pub fn left_by_others(&self, topic: &str, partition: i32, writer: &str) -> Vec<(IndexedKey, IndexedRow)> {
        let all = self.indexed.values().flatten();
        let left = all.filter(|f| f.key.topic == topic && f.key.partition == partition && f.key.writer != writer);
        left.map(|finished| (finished.key.clone(), finished.row.clone())).collect()
    }

    /// Keys of rows that nobody asks for: no shipper knows the source any more, and nothing came of it for `idle_ms`.
    pub fn forgotten(&self, idle_ms: i64) -> Vec<IndexedKey> {
        let mut known: Vec<SourceId> = self.sources.keys().map(|(_, source)| *source).collect();
        known.sort_unstable();
        let unknown = self.indexed.iter().filter(|(source, _)| known.binary_search(source).is_err());
        let idle = unknown.flat_map(|(_, rows)| rows).filter(|row| self.newest_broker_ms - row.broker_ms > idle_ms);
        idle.map(|row| row.key.clone()).collect()
    }
}

fn accounted(indexed: &HashMap<SourceId, Vec<Finished>>, source: SourceId, row: &SourceRow) -> Intervals {
    let mut all: Intervals = row.gaps.iter().map(|gap| gap.start..gap.end).collect();
    for finished in indexed.get(&source).into_iter().flatten() {
        all.extend(finished.row.sets().into_iter().flat_map(Intervals::iter));
    }
    all
}
