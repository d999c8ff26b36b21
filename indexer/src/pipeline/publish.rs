//! Telling the ledger what is finished, before it is committed.
//!
//! A round takes the rows that changed and the offsets after the finished prefixes at that moment; once all rows are
//! acknowledged, these offsets may be committed. One round is on its way at a time. A topic that refuses holds the commit.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_common::ledger::indexed::{IndexedKey, IndexedRow};
use millrace_common::record::SourceId;
use millrace_common::retry::Delays;

use super::flow::Flow;
use crate::bulk::batch::Owner;
use crate::commit::publisher::Publisher;
use crate::consume::TopicPartition;
use crate::watch::thread::{Answer, Question, Watch};

/// Pause between rounds, as commits had it.
const INTERVAL: Duration = Duration::from_secs(1);
/// Where many sources change at a time their rows are written less often: this many rows a second.
const ROWS_PER_SECOND: u32 = 1_000;
const MAX_INTERVAL: Duration = Duration::from_secs(10);
/// Rows without an acknowledgement for so long are told.
const SILENCE: Duration = Duration::from_secs(15);

/// The owner's side of the ledger.
pub struct Publishing {
    publisher: Publisher,
    watch: Watch,
    /// One for each run of the program.
    run: u64,
    round: Option<Round>,
    next_token: usize,
    /// When the next round is due, and before when none may begin.
    due: Instant,
    not_before: Instant,
    delays: Delays,
    trouble: Option<String>,
}

struct Round {
    started: Instant,
    /// Offsets that may be committed after it.
    offsets: Vec<(Owner, i64)>,
    /// Rows by their tokens, the first of which is `first`.
    rows: Vec<(Owner, SourceId)>,
    first: usize,
    num_open: usize,
    failed: Vec<(Owner, SourceId)>,
    /// Keys whose rows are held by those of this round.
    folded: Vec<(Owner, IndexedKey)>,
}

impl Publishing {
    pub fn new(publisher: Publisher, watch: Watch, now: Instant) -> Self {
        Self {
            publisher,
            watch,
            run: RandomState::new().hash_one(std::process::id()),
            round: None,
            next_token: 1,
            due: now,
            not_before: now,
            delays: Delays::new(Duration::from_millis(500), Duration::from_secs(15)),
            trouble: None,
        }
    }

    /// Who writes the rows of an assignment. A partition that comes back gets another name, so that its first row does not
    /// replace a larger set of the same key.
    fn writer(&self, owner: Owner) -> String {
        format!("{:016x}-{}", self.run, owner.epoch)
    }

    /// Why commits wait or nothing is known of the pipeline, if so.
    pub fn trouble(&self, now: Instant) -> Option<String> {
        let silent = self.round.as_ref().map(|round| now.saturating_duration_since(round.started));
        let silent = silent.filter(|silent| *silent > SILENCE);
        let silent = || Some(format!("no acknowledgement for {} s", silent?.as_secs()));
        let held = self.trouble.clone().or_else(silent).map(|words| format!("offsets are not committed: {words}"));
        held.or_else(|| Some(format!("the pipeline is not watched: {}", self.watch.trouble()?)))
    }

    /// Whether outcomes are to come, for which nothing wakes the owner.
    pub fn is_waiting(&self) -> bool {
        self.round.is_some()
    }

    pub fn give_up(&self) {
        self.publisher.give_up();
    }
}

impl Flow {
    /// Asks what other writers left of a partition that is ours now.
    pub(super) fn ask_rows_of_others(&mut self, name: &TopicPartition) {
        let (Some(partition), Some(publishing)) = (self.partitions.find(name), &self.publishing) else { return };
        let owner = partition.owner;
        let writer = publishing.writer(owner);
        publishing.watch.ask(Question { owner, topic: Arc::clone(&name.0), partition: name.1, writer });
    }

    /// Folds the rows of writers that left into ours. They are removed once ours are acknowledged. One that was thought dead
    /// and writes once more is folded by the next owner.
    pub(super) fn take_rows_of_others(&mut self) {
        let Some(publishing) = &self.publishing else { return };
        while let Some(answer) = publishing.watch.answer() {
            match answer {
                Answer::Left { owner, rows } => {
                    let Some(partition) = self.partitions.of(owner) else { continue };
                    for (key, row) in rows {
                        partition.rows.fold(key.source, &row);
                        partition.folded.push(key);
                    }
                }
                Answer::Forgotten(keys) => {
                    for key in keys {
                        let name = (key.topic.as_str().into(), key.partition);
                        let Some(partition) = self.partitions.find(&name) else { continue };
                        if publishing.writer(partition.owner) == key.writer && partition.rows.forget(key.source) {
                            publishing.publisher.remove(&key);
                        }
                    }
                }
            }
        }
    }

    /// Publishes what is news, if it is time or `urgent`. `true` if more may be committed now.
    pub(super) fn publish(&mut self, now: Instant, urgent: bool) -> bool {
        if self.publishing.is_none() {
            for partition in self.partitions.iter_mut() {
                partition.published = partition.ledger.committable();
            }
            return false;
        }
        let is_news = self.take_published(now);
        if let Some(publishing) = &self.publishing
            && publishing.round.is_none()
            && now >= publishing.not_before
            && (urgent || now >= publishing.due)
        {
            self.begin_round(now);
        }
        is_news
    }

    fn begin_round(&mut self, now: Instant) {
        let Some(publishing) = &mut self.publishing else { return };
        let mut round = Round {
            started: now,
            offsets: Vec::new(),
            rows: Vec::new(),
            first: publishing.next_token,
            num_open: 0,
            failed: Vec::new(),
            folded: Vec::new(),
        };
        for partition in self.partitions.iter_mut() {
            let committable = partition.ledger.committable();
            if committable == partition.published && !partition.rows.is_changed() {
                continue;
            }
            let owner = partition.owner;
            let mut key = IndexedKey {
                group: self.kafka.group.clone(),
                topic: partition.topic.to_string(),
                partition: partition.number,
                source: SourceId::from_u64(0),
                writer: publishing.writer(owner),
            };
            let num_before = round.rows.len();
            partition.rows.take_changed(committable.unwrap_or_default(), |source, row| {
                key.source = source;
                publishing.send(&mut round, owner, &key, row);
            });
            if round.rows.len() == num_before {
                // Only records of other producers.
                partition.published = committable;
                continue;
            }
            round.offsets.extend(committable.map(|offset| (owner, offset)));
            round.folded.extend(partition.folded.drain(..).map(|key| (owner, key)));
        }
        let pause = INTERVAL / ROWS_PER_SECOND * round.rows.len() as u32;
        publishing.due = now + pause.clamp(INTERVAL, MAX_INTERVAL);
        if !round.rows.is_empty() {
            publishing.round = Some(round);
        }
    }

    fn take_published(&mut self, now: Instant) -> bool {
        let Some(publishing) = &mut self.publishing else { return false };
        let Some(mut round) = publishing.take_round() else { return false };
        if round.num_open > 0 {
            publishing.round = Some(round);
            return false;
        }
        if round.failed.is_empty() {
            publishing.delays.reset();
            if publishing.trouble.take().is_some() {
                tracing::info!("the ledger takes rows again");
            }
            for (owner, offset) in round.offsets {
                if let Some(partition) = self.partitions.of(owner) {
                    partition.published = partition.published.max(Some(offset));
                }
            }
            round.folded.iter().for_each(|(_, key)| publishing.publisher.remove(key));
            return true;
        }
        for (owner, source) in round.failed.drain(..) {
            if let Some(partition) = self.partitions.of(owner) {
                partition.rows.mark_changed(source);
            }
        }
        for (owner, key) in round.folded {
            if let Some(partition) = self.partitions.of(owner) {
                partition.folded.push(key);
            }
        }
        publishing.not_before = now + publishing.delays.next_delay();
        false
    }
}

impl Publishing {
    fn send(&mut self, round: &mut Round, owner: Owner, key: &IndexedKey, row: &IndexedRow) {
        let token = self.next_token;
        // 0 is no token.
        self.next_token = token.checked_add(1).unwrap_or(1);
        round.rows.push((owner, key.source));
        match self.publisher.send(key, row, token) {
            Ok(()) => round.num_open += 1,
            Err(error) => {
                self.note_trouble(error.to_string());
                round.failed.push((owner, key.source));
            }
        }
    }

    fn note_trouble(&mut self, words: String) {
        if self.trouble.is_none() {
            tracing::error!(
                reason = words,
                topic = millrace_common::ledger::INDEXED,
                "the ledger refuses rows: offsets are not committed until it takes them"
            );
        }
        self.trouble = Some(words);
    }

    /// The round on its way, with what became of its rows so far.
    fn take_round(&mut self) -> Option<Round> {
        let Some(mut round) = self.round.take() else {
            self.publisher.serve();
            return None;
        };
        while let Some(published) = self.publisher.published() {
            let Some(&row) = published.token.checked_sub(round.first).and_then(|at| round.rows.get(at)) else {
                continue;
            };
            round.num_open -= 1;
            if let Err(error) = published.result {
                self.note_trouble(error.to_string());
                round.failed.push(row);
            }
        }
        if self.publisher.revive() {
            // Which of them the topic has is not known: all are written again.
            round.failed = std::mem::take(&mut round.rows);
            round.num_open = 0;
        }
        Some(round)
    }
}
