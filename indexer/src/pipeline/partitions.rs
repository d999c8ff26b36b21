//! The partitions that are ours: what is taken, unfinished and finished of each.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use millrace_common::ledger::indexed::IndexedKey;

use super::budget::Budget;
use crate::bulk::batch::Owner;
use crate::commit::ledger::{Covered, Ending, Ledger, Sequence};
use crate::commit::rows::Rows;
use crate::consume::{PartitionQueue, TopicPartition};

/// A copy of a record that waits for the plan of its index.
#[derive(Clone, Debug)]
pub struct WaitingRecord {
    pub sequence: Sequence,
    pub offset: i64,
    pub timestamp_ms: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub id_header: Option<Vec<u8>>,
}

/// One assigned partition.
pub struct Partition {
    pub owner: Owner,
    pub topic: Arc<str>,
    pub number: i32,
    /// Index of its rule.
    pub rule: usize,
    /// Taken out while it is read, and for good when the partition is revoked.
    pub queue: Option<PartitionQueue>,
    pub ledger: Ledger,
    /// What its finished prefix holds.
    pub rows: Rows,
    /// The offset after that part of the finished prefix which the ledger's topic knows of.
    pub published: Option<i64>,
    /// Keys of writers that left, folded into `rows`.
    pub folded: Vec<IndexedKey>,
    /// Bytes taken and unfinished.
    pub unfinished_bytes: u64,
    /// Stops the partition until its plan is there.
    pub waiting: Option<WaitingRecord>,
    /// The next offset if none is missing.
    pub expected: Option<i64>,
    /// Over its limit, until half of it is free again.
    pub is_held: bool,
    /// Taken from us: nothing more is read, what is on its way may finish.
    pub is_revoked: bool,
    /// First and last offset of the log as last heard.
    pub ends: Option<Range<i64>>,
    /// Kafka timestamp of the last record taken.
    pub last_timestamp_ms: Option<i64>,
    /// Offsets that were skipped, not yet explained.
    pub gaps: Vec<Range<i64>>,
    pub gap_asked: Option<Instant>,
}

impl Partition {
    pub fn name(&self) -> TopicPartition {
        (Arc::clone(&self.topic), self.number)
    }

    /// Bytes that it takes of the budget: its records on their way, and what is remembered of those that are finished while one
    /// before them is not.
    pub fn load(&self) -> u64 {
        self.unfinished_bytes + self.ledger.num_bytes()
    }

    /// Whether nothing of it is on its way.
    pub fn is_settled(&self) -> bool {
        self.ledger.num_open() == usize::from(self.waiting.is_some())
    }
}

/// All assigned partitions. Items name a place here and the epoch of the assignment they are from.
#[derive(Default)]
pub struct Partitions {
    places: Vec<Option<Partition>>,
    /// The place that is visited next.
    next: usize,
    next_epoch: u32,
    /// Bytes of all items on their way, those of earlier assignments included.
    pub unfinished_bytes: u64,
}

impl Partitions {
    /// Adds a partition under a new epoch.
    pub fn add(&mut self, (topic, number): TopicPartition, rule: usize, expected: Option<i64>, queue: PartitionQueue) {
        let slot = self.places.iter().position(Option::is_none).unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        let owner = Owner { slot: slot as u32, epoch: self.new_epoch() };
        self.places[slot] = Some(Partition {
            owner,
            topic,
            number,
            rule,
            queue: Some(queue),
            ledger: Ledger::new(),
            rows: Rows::default(),
            published: None,
            folded: Vec::new(),
            unfinished_bytes: 0,
            waiting: None,
            expected,
            is_held: false,
            is_revoked: false,
            ends: None,
            last_timestamp_ms: None,
            gaps: Vec::new(),
            gap_asked: None,
        });
    }

    fn new_epoch(&mut self) -> u32 {
        self.next_epoch += 1;
        self.next_epoch
    }

    pub fn remove(&mut self, name: &TopicPartition) {
        for place in &mut self.places {
            if place.as_ref().is_some_and(|partition| partition.name() == *name) {
                *place = None;
            }
        }
    }

    pub fn num_places(&self) -> usize {
        self.places.len()
    }

    /// The places one after the other, over and over.
    pub fn next_place(&mut self) -> usize {
        let place = self.next.min(self.places.len().saturating_sub(1));
        self.next = if place + 1 < self.places.len() { place + 1 } else { 0 };
        place
    }

    /// `total`, as it is divided among the partitions now.
    pub fn budget(&self, total: u64) -> Budget {
        let active = self.iter().filter(|partition| !partition.is_revoked);
        let of_active: u64 = active.clone().map(|partition| partition.unfinished_bytes).sum();
        Budget::new(total, active.map(Partition::load), self.unfinished_bytes - of_active)
    }

    pub fn at(&mut self, place: usize) -> Option<&mut Partition> {
        self.places.get_mut(place)?.as_mut()
    }

    /// The partition of an item, unless it was assigned anew since.
    pub fn of(&mut self, owner: Owner) -> Option<&mut Partition> {
        self.at(owner.slot as usize).filter(|partition| partition.owner == owner)
    }

    pub fn find(&mut self, name: &TopicPartition) -> Option<&mut Partition> {
        self.iter_mut().find(|partition| partition.number == name.1 && partition.topic == name.0)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Partition> + Clone {
        self.places.iter().flatten()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Partition> {
        self.places.iter_mut().flatten()
    }

    /// Notes bytes as on their way.
    pub fn begin_bytes(&mut self, owner: Owner, size: u64) {
        self.unfinished_bytes += size;
        if let Some(partition) = self.of(owner) {
            partition.unfinished_bytes += size;
        }
    }

    /// A document on its way takes other bytes than before.
    pub fn exchange_bytes(&mut self, owner: Owner, before: u64, after: u64) {
        self.unfinished_bytes = self.unfinished_bytes - before + after;
        if let Some(partition) = self.of(owner) {
            partition.unfinished_bytes = partition.unfinished_bytes - before + after;
        }
    }

    /// Notes which bytes an unfinished record stands for.
    pub fn cover(&mut self, owner: Owner, sequence: Sequence, covered: Option<Covered>) {
        if let (Some(partition), Some(covered)) = (self.of(owner), covered) {
            partition.ledger.cover(sequence, covered);
        }
    }

    /// Notes a record as finished and its bytes as gone. Items of an earlier assignment only give their bytes back.
    pub fn finish(&mut self, owner: Owner, sequence: Sequence, size: u64, ending: Ending) {
        self.unfinished_bytes -= size;
        if let Some(partition) = self.of(owner) {
            partition.unfinished_bytes -= size;
            let rows = &mut partition.rows;
            partition.ledger.finish(sequence, ending, |covered, ending| rows.add(covered, ending));
        }
    }

    /// The log of a partition begins anew below what was taken: what is on its way settles nothing any more.
    pub fn begin_anew(&mut self, owner: Owner) -> Option<&mut Partition> {
        let epoch = self.new_epoch();
        let partition = self.of(owner)?;
        partition.owner.epoch = epoch;
        partition.ledger = Ledger::new();
        partition.published = None;
        partition.unfinished_bytes = 0;
        partition.expected = None;
        partition.gaps.clear();
        Some(partition)
    }
}
