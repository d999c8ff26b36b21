//! Drives the stages on one thread and owns every source. Time, files, broker and disk come from outside, so that a
//! simulation can run it.

mod adopt;
mod begin;
mod copies;
mod pump;
mod assembled;
mod rotation;
mod send;
mod round;
mod descriptors;
pub mod hold;
mod horizon;
mod finish;
pub mod legacy;
mod topics;
mod tally;
mod gauges;
pub(crate) mod facts;
pub mod source;
pub mod stats;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use millrace_common::record::SourceId;
use millrace_common::retry::Delays;
use tracing::{info, warn};

use self::hold::HoldLimits;
use self::source::{Fate, Source};
use self::stats::{Given, Stats};
use self::tally::Tally;
use self::topics::{Load, Topics};
use crate::checkpoint::ledger::Sequence;
use crate::checkpoint::row::{Print, Row};
use crate::checkpoint::store::Store;
use crate::encode::own_fields::{Origin, OwnFields};
use crate::encode::path_fields::InputFields;
use crate::encode::timestamp::Moment;
use crate::encode::{Content, Encoder};
use crate::frame::Framing;
use crate::frame::assemble::Assembler;
use crate::ledger::Announcer;
use crate::produce::{Broker, Delivery};
use crate::read::{FileSystem, Identity, Reach};

/// The clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Milliseconds since the epoch.
    pub wall_ms: i64,
    /// Monotonic time since some fixed moment.
    pub mono: Duration,
}

#[derive(Clone, Debug)]
pub struct InputSettings {
    pub id: String,
    /// Index in [`Settings::topics`].
    pub topic: usize,
    pub content: Content,
    pub framing: Arc<Framing>,
    pub fields: InputFields,
    /// Files that are not known and were last written longer ago are left alone.
    pub ignore_older: Option<Duration>,
    /// Where links to its files may lead.
    pub reach: Arc<Reach>,
}

#[derive(Clone, Debug)]
pub struct Settings {
    pub inputs: Vec<InputSettings>,
    pub topics: Vec<String>,
    pub host_id: String,
    pub host_name: String,
    /// Largest record in bytes.
    pub max_record: usize,
    /// Events whose record would be larger are given up, not cut.
    pub drops_oversize: bool,
    /// Bytes handed to the producer and not acknowledged, at most.
    pub max_inflight: u64,
    /// The same in one partition. Some batches keep a broker busy; more only wait in the client.
    pub max_inflight_partition: u64,
    /// Records that the producer takes before deliveries came back.
    pub max_inflight_records: u64,
    /// Bytes of a file that one turn looks at.
    pub window: usize,
    pub checkpoint_interval: Duration,
    /// Age of an unterminated last line of a file that still has its path.
    pub partial_after: Duration,
    /// How long a renamed or deleted file must be quiet before it counts as finished.
    pub rotate_wait: Duration,
    /// How long a file renamed out of the patterns is kept open without growing.
    pub close_unlisted: Duration,
    /// How long a file that is read is kept open without growing.
    pub close_idle: Duration,
    /// Files open at the same time, at most.
    pub open_files: usize,
    pub hold_deleted: HoldLimits,
    /// Rows of files that were not found again, at most.
    pub max_absent: usize,
    /// How often the ledger is told of positions that move.
    pub ledger_interval: Duration,
}

impl Settings {
    /// What a file begins with; no longer than what a usual look can compare.
    fn prefix_of(&self, beginning: &[u8]) -> Print {
        Print::of(&beginning[..beginning.len().min(self.window)])
    }

    /// Room for a window, or for the largest event and what another file has of it.
    fn buffer_bytes(&self) -> usize {
        let framings = self.inputs.iter().map(|input| &input.framing);
        let reach = framings.filter(|framing| !framing.is_plain()).map(|framing| framing.reach()).max();
        self.window + reach.unwrap_or(0)
    }

    fn own_fields(&self, input: usize, path: &Path, source: SourceId) -> OwnFields {
        let path = &path.to_string_lossy();
        let origin = Origin { host_name: &self.host_name, path, source };
        OwnFields::new(origin, &self.inputs[input].fields.at(path)).expect("fields are checked with the configuration")
    }
}

pub struct Tailer<F: FileSystem, B, S> {
    settings: Settings,
    files: F,
    broker: B,
    store: S,
    ledger: Box<dyn Announcer>,
    encoders: Vec<Encoder>,
    assembler: Assembler,
    sources: Vec<Option<Box<Source<F::File>>>>,
    free: Vec<usize>,
    by_identity: HashMap<Identity, usize>,
    /// Of those that are listed.
    by_path: HashMap<PathBuf, usize>,
    /// Rows of the checkpoint whose file no scan has found, by inode.
    absent: BTreeMap<u64, Vec<Row>>,
    /// Rows whose file has other content now, and since when: a copy may have theirs.
    rewritten: Vec<(Row, Duration)>,
    /// Slots of files that are open, the longest open first.
    opened: VecDeque<usize>,
    ready: VecDeque<usize>,
    failed: BTreeSet<usize>,
    waiting: Vec<usize>,
    /// Sources with something to read that are not announced yet.
    announcing: BTreeSet<(SourceId, usize)>,
    are_absent_told: bool,
    unreadable: BTreeSet<PathBuf>,
    num_ignored: u64,
    wants_scan: bool,
    topics: Topics,
    stalls_told_at: Duration,
    last_save: u64,
    is_last_save_taken: bool,
    saved_at: Duration,
    save_took: Duration,
    is_dirty: bool,
    is_urgent: bool,
    is_scanned: bool,
    is_flushing: bool,
    /// Until then a planned end waits for events of several lines.
    awaits_events_until: Option<Duration>,
    /// Which of the quiet files were looked at last: see [`Self::look_by_turns`].
    turn_of_quiet: usize,
    deliveries: Vec<Delivery>,
    buffer: Vec<u8>,
    value: Vec<u8>,
    /// Of the record sent last.
    read_time: Moment,
    stats: Stats,
    wall_ms: i64,
    /// The last bytes given up.
    given: VecDeque<Given>,
    /// What was counted of sources that a tailer before this one had, and that were not found again.
    inherited: HashMap<SourceId, Tally>,
}

/// Slots and sequences share one word that travels with a record.
const SEQUENCE_BITS: u32 = 44;

fn token(slot: usize, sequence: Sequence) -> usize {
    slot << SEQUENCE_BITS | (sequence.0 & ((1 << SEQUENCE_BITS) - 1)) as usize
}

fn of_token(token: usize) -> (usize, Sequence) {
    (token >> SEQUENCE_BITS, Sequence((token & ((1 << SEQUENCE_BITS) - 1)) as u64))
}

impl<F: FileSystem, B: Broker, S: Store> Tailer<F, B, S> {
    /// `rows` are those of the last checkpoint.
    pub fn new(settings: Settings, files: F, broker: B, store: S, ledger: Box<dyn Announcer>, rows: Vec<Row>) -> Self {
        let encoder = |input: &InputSettings| Encoder::new(input.content.clone(), input.framing.record_encoding());
        let encoders = settings.inputs.iter().map(encoder).collect();
        let buffer = vec![0; settings.buffer_bytes()];
        let max = Load { bytes: settings.max_inflight, records: settings.max_inflight_records };
        let topics = Topics::new(settings.topics.len(), max, settings.max_inflight_partition);
        let mut absent: BTreeMap<u64, Vec<Row>> = BTreeMap::new();
        for row in rows {
            absent.entry(row.identity.inode).or_default().push(row);
        }
        Self {
            settings,
            files,
            broker,
            store,
            ledger,
            encoders,
            assembler: Assembler::default(),
            sources: Vec::new(),
            free: Vec::new(),
            by_identity: HashMap::new(),
            by_path: HashMap::new(),
            absent,
            rewritten: Vec::new(),
            opened: VecDeque::new(),
            ready: VecDeque::new(),
            failed: BTreeSet::new(),
            waiting: Vec::new(),
            announcing: BTreeSet::new(),
            are_absent_told: false,
            unreadable: BTreeSet::new(),
            num_ignored: 0,
            wants_scan: false,
            topics,
            stalls_told_at: Duration::ZERO,
            last_save: 0,
            is_last_save_taken: true,
            saved_at: Duration::ZERO,
            save_took: Duration::ZERO,
            is_dirty: false,
            is_urgent: false,
            is_scanned: false,
            is_flushing: false,
            awaits_events_until: None,
            turn_of_quiet: 0,
            deliveries: Vec::new(),
            buffer,
            value: Vec::new(),
            read_time: Moment::at(0),
            stats: Stats::default(),
            wall_ms: 0,
            given: VecDeque::new(),
            inherited: HashMap::new(),
        }
    }

    /// Goes round once: takes acknowledgements, reads and sends up to a fair share, saves what is due.
    ///
    /// Waits up to `wait` for acknowledgements. Returns whether there is more to do at once.
    pub fn turn(&mut self, now: Now, wait: Duration) -> bool {
        self.wall_ms = now.wall_ms;
        self.take_deliveries(now, wait);
        self.take_saves(now);
        self.take_announced(now);
        self.rewind_failed(now);
        self.wake_held();
        let is_taken = self.pump_ready(now);
        self.broker.dispatch();
        self.tell_stalls(now);
        self.save_if_due(now);
        is_taken && !self.ready.is_empty() && !self.topics.is_full()
    }

    fn take_deliveries(&mut self, now: Now, wait: Duration) {
        let mut deliveries = std::mem::take(&mut self.deliveries);
        self.broker.poll(wait, &mut deliveries);
        for delivery in deliveries.drain(..) {
            self.settle(delivery, now);
        }
        self.deliveries = deliveries;
    }

    fn settle(&mut self, delivery: Delivery, now: Now) {
        let (slot, sequence) = of_token(delivery.token);
        let Some(source) = self.sources.get_mut(slot).and_then(Option::as_mut) else { return };
        let before = (source.ledger.acknowledged(), source.ledger.num_acknowledged());
        let Some(num_bytes) = source.ledger.settle(sequence, delivery.error.is_none()) else { return };
        let topic = self.settings.inputs[source.input].topic;
        self.topics.settled(topic, source.partition.unwrap_or_default(), num_bytes, now.mono);
        match delivery.error {
            None => {
                let num_acknowledged = source.ledger.num_acknowledged() - before.1;
                source.tally.finish(num_acknowledged);
                self.stats.acked_events += num_acknowledged;
                self.stats.acked_bytes += source.ledger.acknowledged() - before.0;
                self.stats.ack_latency.note(now.wall_ms - delivery.timestamp_ms);
                self.is_dirty = true;
                let has_carry = source.rotation.carry.is_some();
                if source.unread() == 0 {
                    source.ledger.free_room();
                }
                if source.retry_at.is_none() && source.delays.num_attempts() > 0 {
                    source.delays.reset();
                    if self.topics.delivers(topic, slot) {
                        info!(topic = self.settings.topics[topic], "records are acknowledged again");
                    }
                }
                if has_carry {
                    self.settle_carry(slot);
                }
            }
            Some(code) => {
                self.note_failure(slot, code, num_bytes, now);
            }
        }
        if self.sources[slot].as_ref().is_some_and(|s| s.is_given_up() && s.ledger.num_outstanding() == 0) {
            self.end_given_up(slot);
        }
    }

    /// Notes whether the last save is durable by now, and returns which is.
    fn note_durable(&mut self, now: Now) -> u64 {
        let durable = self.store.durable();
        if durable == self.last_save && !self.is_last_save_taken {
            self.is_last_save_taken = true;
            self.save_took = now.mono.saturating_sub(self.saved_at);
            for source in self.sources.iter_mut().flatten() {
                source.horizon.saved();
            }
        }
        durable
    }

    /// Sources that waited for a durable note go on.
    fn take_saves(&mut self, now: Now) {
        let durable = self.note_durable(now);
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.retain(|&slot| {
            let Some(source) = self.sources[slot].as_mut() else { return false };
            if source.waits_for.is_some_and(|version| version > durable) {
                return true;
            }
            source.waits_for = None;
            Self::enqueue(&mut self.ready, slot, source);
            false
        });
        self.waiting = waiting;
    }

    fn enqueue(ready: &mut VecDeque<usize>, slot: usize, source: &mut Source<F::File>) {
        if !source.is_queued && (source.file.is_some() || source.is_closed) {
            source.is_queued = true;
            ready.push_back(slot);
        }
    }

    /// Marks the source for the next save and stops it until that is durable.
    fn wait_for_save(&mut self, slot: usize) {
        self.is_urgent = true;
        self.is_dirty = true;
        if let Some(source) = self.sources[slot].as_mut() {
            source.waits_for = Some(self.last_save + 1);
            self.waiting.push(slot);
        }
    }

    fn save_if_due(&mut self, now: Now) {
        // Saves may take a tenth of the disk's time at most, those that records wait for a third.
        let interval = self.settings.checkpoint_interval.max(self.save_took * 10);
        let is_due = |interval| now.mono >= self.saved_at + interval;
        let is_wanted = (self.is_dirty && is_due(interval)) || (self.is_urgent && is_due(self.save_took * 3));
        if is_wanted {
            self.save(now);
        }
    }

    fn save(&mut self, now: Now) {
        // Until a copy was looked for, the checkpoint before knows what it may have to go on with.
        if !self.store.is_ready() || !self.rewritten.is_empty() {
            return;
        }
        // It may have become so since this turn began.
        self.note_durable(now);
        self.last_save += 1;
        self.is_last_save_taken = false;
        let mut rows = Vec::with_capacity(self.sources.len() + self.absent.len());
        for source in self.sources.iter_mut().flatten().filter(|s| !s.is_given_up()) {
            rows.push(source.row(&self.settings.inputs[source.input].id));
        }
        rows.extend(self.absent.values().flatten().cloned());
        self.store.save(self.last_save, rows);
        self.saved_at = now.mono;
        self.is_dirty = false;
        self.is_urgent = false;
    }

    /// Notes that a file was written to.
    pub fn written(&mut self, path: &Path, now: Now) {
        if let Some(&slot) = self.by_path.get(path)
            && let Some(source) = self.sources[slot].as_mut()
        {
            source.grown_at = now.mono;
            Self::enqueue(&mut self.ready, slot, source);
        }
    }

    fn remove(&mut self, slot: usize) -> Option<Source<F::File>> {
        let mut source = *self.sources[slot].take()?;
        if let Some(arrived) = source.rotation.carry.take() {
            self.give_back(arrived);
        }
        if self.by_identity.get(&source.identity) == Some(&slot) {
            self.by_identity.remove(&source.identity);
        }
        if self.by_path.get(&source.current_path) == Some(&slot) {
            self.by_path.remove(&source.current_path);
        }
        self.opened.retain(|&s| s != slot);
        self.failed.remove(&slot);
        self.waiting.retain(|&s| s != slot);
        self.announcing.remove(&(source.id, slot));
        self.ready.retain(|&s| s != slot);
        self.topics.forget(self.settings.inputs[source.input].topic, slot);
        self.give_up_pending(&source);
        self.free.push(slot);
        Some(source)
    }

    /// Counts what will never be delivered of a source that is let go. A settled one has nothing pending.
    fn give_up_pending(&mut self, source: &Source<F::File>) {
        let num_delivered = source.ledger.num_acknowledged_behind();
        let num_lost = source.tally.num_pending().saturating_sub(num_delivered);
        self.stats.acked_events += num_delivered;
        if num_lost > 0 {
            *self.stats.dropped_events.entry("truncated").or_default() += num_lost;
        }
    }

    fn insert(&mut self, mut source: Source<F::File>) -> usize {
        if let Some(tally) = self.inherited.remove(&source.id) {
            source.tally = tally;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.sources.push(None);
            self.sources.len() - 1
        });
        self.by_identity.insert(source.identity, slot);
        if source.fate == Fate::Listed {
            self.by_path.insert(source.current_path.clone(), slot);
        }
        if source.file.is_some() {
            self.opened.push_back(slot);
        }
        self.sources[slot] = Some(Box::new(source));
        self.is_dirty = true;
        slot
    }

    /// Counts checkpoints that could not be read.
    pub fn note_corrupt(&mut self, num: u64) {
        self.stats.corrupt_checkpoints += num;
    }

    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Every source with its positions, for people.
    pub fn rows(&self) -> impl Iterator<Item = &Source<F::File>> {
        self.sources.iter().flatten().map(Box::as_ref)
    }

    /// The last bytes given up, oldest first.
    pub fn given_up(&self) -> impl Iterator<Item = &Given> {
        self.given.iter()
    }

    /// Whether names changed in a way that only a scan can tell. Asks once.
    pub fn take_wants_scan(&mut self) -> bool {
        std::mem::take(&mut self.wants_scan)
    }

    pub fn topic(&self, input: usize) -> &str {
        &self.settings.topics[self.settings.inputs[input].topic]
    }

    pub fn input_id(&self, input: usize) -> &str {
        &self.settings.inputs[input].id
    }

    fn delays(seed: u64) -> Delays {
        Delays::new(Duration::from_millis(500), Duration::from_secs(10)).seeded(seed)
    }

    /// Counts and tells bytes of no source that is at hand: see [`Source::give_up_bytes`] for the others.
    fn lost(&mut self, reason: &'static str, path: &Path, start: u64, end: u64) {
        if end > start {
            *self.stats.lost_bytes.entry(reason).or_default() += end - start;
            if self.given.len() == Given::MAX_KEPT {
                self.given.pop_front();
            }
            self.given.push_back(Given { at_ms: self.wall_ms, path: path.to_owned(), start, end, reason });
            warn!(path = %path.display(), reason, start, end, bytes = end - start, "bytes given up");
        }
    }
}

#[cfg(test)]
mod simulation;
