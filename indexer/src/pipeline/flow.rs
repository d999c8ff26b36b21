//! The owner's turns.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use millrace_common::exit::Exit;
use millrace_common::shutdown::Signals;
use rdkafka::message::{BorrowedMessage, Message};

use super::intake::{Intake, Taken};
use super::letters::Letters;
use super::membership::Membership;
use super::meters::Meters;
use super::partitions::{Partitions, WaitingRecord};
use crate::bulk::batch::{Owner, Record};
use crate::bulk::concurrency::Concurrency;
use crate::bulk::schedule::Schedule;
use crate::bulk::service::{Outcome, Request, Service};
use crate::commit::ledger::Sequence;
use crate::config::{Bulk, Kafka, Memory, Rule};
use crate::consume::{Question, Questions, Source, header};
use crate::dead_letter::{DeadLetters, Letter};
use crate::decode::{ID_HEADER, Incoming};
use crate::health::{Health, PartitionPicture, Picture};
use crate::reject::Reject;
use crate::route::EpochMillis;

/// A turn takes at most this many records of one partition before it looks at the next.
const RECORDS_PER_VISIT: usize = 512;
/// Batches that wait to be sent while no more records are taken. One is enough to keep every request slot busy, a second
/// hides the time it takes to fill the next.
const READY_BATCHES: usize = 2;
/// Longest nap.
const NAP: Duration = Duration::from_millis(100);
const PICTURE_INTERVAL: Duration = Duration::from_millis(250);
const ENDS_INTERVAL: Duration = Duration::from_secs(5);

/// What a [`Flow`] is made of.
pub struct Parts {
    pub kafka: Kafka,
    pub bulk: Bulk,
    pub rules: Vec<Rule>,
    pub memory: Memory,
    pub shutdown_deadline: Duration,
    pub source: Source,
    pub questions: Questions,
    /// For commits alone, so that they wait for no other question.
    pub commits: Questions,
    pub service: Service,
    pub letters: DeadLetters,
    pub health: Arc<Health>,
}

/// All state of the owner.
pub struct Flow {
    pub(super) kafka: Kafka,
    pub(super) bulk: Bulk,
    pub(super) rules: Vec<Rule>,
    memory: Memory,
    shutdown_deadline: Duration,
    pub(super) source: Source,
    pub(super) questions: Questions,
    pub(super) commits: Questions,
    service: Service,
    pub(super) letters: Letters,
    health: Arc<Health>,
    pub(super) partitions: Partitions,
    pub(super) intake: Intake,
    pub(super) schedule: Schedule,
    pub(super) concurrency: Concurrency,
    pub(super) membership: Membership,
    pub(super) meters: Meters,
    /// Why requests fail as a whole, while they do.
    pub(super) request_trouble: Option<(&'static str, String)>,
    /// Why Elasticsearch is not set up yet.
    set_up_trouble: Option<String>,
    /// Topics that are not there.
    pub(super) missing_topics: Vec<String>,
    is_draining: bool,
    last_picture: Instant,
    last_ends: Instant,
}

impl Flow {
    pub fn new(parts: Parts, now: Instant) -> Self {
        let limits = parts.bulk.limits;
        Self {
            intake: Intake::new(&parts.rules, limits),
            schedule: Schedule::new(limits.max_bytes, limits.max_documents),
            concurrency: Concurrency::new(parts.bulk.max_in_flight),
            letters: Letters::new(parts.letters, now),
            membership: Membership::new(now),
            partitions: Partitions::default(),
            meters: Meters::new(),
            kafka: parts.kafka,
            bulk: parts.bulk,
            rules: parts.rules,
            memory: parts.memory,
            shutdown_deadline: parts.shutdown_deadline,
            source: parts.source,
            questions: parts.questions,
            commits: parts.commits,
            service: parts.service,
            health: parts.health,
            request_trouble: None,
            set_up_trouble: Some("Elasticsearch is not reached yet".to_owned()),
            missing_topics: Vec::new(),
            is_draining: false,
            last_picture: now,
            last_ends: now - ENDS_INTERVAL,
        }
    }

    /// Takes turns until a signal asks for the end, then finishes what is on its way, commits and leaves.
    pub fn run(mut self, signals: &Signals) -> Exit {
        let mut deadline = None;
        loop {
            let now = Instant::now();
            if signals.is_draining() && deadline.is_none() {
                tracing::info!("stopping: what is on its way is finished first");
                deadline = Some(now + self.shutdown_deadline);
                self.is_draining = true;
                self.abandon_waiting();
            }
            let is_busy = self.turn(now);
            if let Some(deadline) = deadline {
                let is_done = self.is_settled() && self.is_committed();
                if is_done || now >= deadline {
                    return self.leave(is_done);
                }
            }
            if !is_busy {
                thread::park_timeout(self.nap(Instant::now()));
            }
        }
    }

    /// One turn. `true` if there may be more to do at once.
    fn turn(&mut self, now: Instant) -> bool {
        self.health.turned(now);
        let mut is_busy = self.take_outcomes(now);
        for letter in self.letters.turn(now) {
            self.meters.dead_lettered.increment(1);
            self.meters.count_dead_letter(letter.reason.as_str());
            self.partitions.finish(letter.owner, letter.sequence, letter.size);
        }
        self.take_answers(now);
        is_busy |= self.poll_events(now);
        self.serve_membership(now);
        if !self.is_draining {
            is_busy |= self.take_records(now);
        }
        if self.intake.builder.is_due(now) || (self.wants_to_settle() && !self.intake.builder.is_empty()) {
            self.cut();
        }
        self.send(now);
        self.commit(now, self.is_draining);
        self.tick(now);
        is_busy
    }

    fn take_outcomes(&mut self, now: Instant) -> bool {
        let mut any = false;
        while let Some(outcome) = self.service.receive() {
            any = true;
            match outcome {
                Outcome::Bulk(outcome) => self.settle(outcome, now),
                Outcome::Plan { target, result } => {
                    self.intake.targets.answer(target, result, now);
                }
                Outcome::Setup(state) => self.set_up_trouble = state.err(),
            }
        }
        any
    }

    /// Serves the group's events. Messages come this way only if they were fetched before their partition had its queue.
    fn poll_events(&mut self, now: Instant) -> bool {
        let source = self.source.clone();
        let mut any = false;
        while let Some(event) = source.poll() {
            any = true;
            match event {
                Ok(message) => {
                    let name = (message.topic().into(), message.partition());
                    let place = self.partitions.find(&name).map(|partition| partition.owner.slot as usize);
                    if let Some(place) = place {
                        self.take_message(place, &message, now, wall_clock());
                    }
                }
                Err(error) => tracing::debug!(%error, "consumer reports"),
            }
        }
        any
    }

    /// Visits each partition once. `true` if one has more.
    fn take_records(&mut self, now: Instant) -> bool {
        let wall = wall_clock();
        let num_active = self.partitions.iter().filter(|partition| !partition.is_revoked).count().max(1);
        let share = (self.memory.unfinished / num_active as u64).max(64 << 10);
        let mut is_busy = false;
        for place in 0..self.partitions.num_places() {
            if self.is_full() {
                return false;
            }
            self.take_waiting(place, now, wall);
            let Some(partition) = self.partitions.at(place) else { continue };
            // Hysteresis: a partition over its share waits until half of it is free.
            let held_above = if partition.is_held { share / 2 } else { share };
            partition.is_held = partition.unfinished_bytes >= held_above;
            if partition.is_held || partition.is_revoked || partition.waiting.is_some() {
                continue;
            }
            let Some(queue) = partition.queue.take() else { continue };
            is_busy |= self.visit(place, &queue, share, now, wall);
            if let Some(partition) = self.partitions.at(place)
                && !partition.is_revoked
            {
                partition.queue = Some(queue);
            }
        }
        self.meters.count_actions(&mut self.intake.actions);
        is_busy
    }

    fn visit(
        &mut self,
        place: usize,
        queue: &crate::consume::PartitionQueue,
        share: u64,
        now: Instant,
        wall: EpochMillis,
    ) -> bool {
        for num_taken in 0..RECORDS_PER_VISIT {
            let message = match queue.poll(Duration::ZERO) {
                Some(Ok(message)) => message,
                Some(Err(error)) => {
                    tracing::debug!(%error, "consumer reports");
                    continue;
                }
                None => {
                    self.meters.consumed.increment(num_taken as u64);
                    return false;
                }
            };
            let goes_on = self.take_message(place, &message, now, wall);
            let is_over = self.partitions.at(place).is_none_or(|partition| partition.unfinished_bytes >= share);
            if !goes_on || is_over || self.is_full() {
                self.meters.consumed.increment(num_taken as u64 + 1);
                return !self.is_full();
            }
        }
        self.meters.consumed.increment(RECORDS_PER_VISIT as u64);
        true
    }

    /// No more records are taken: enough wait to be sent, or memory is used up.
    fn is_full(&self) -> bool {
        self.schedule.num_ready() >= READY_BATCHES || self.partitions.unfinished_bytes >= self.memory.unfinished
    }

    /// Takes one message. `false` if its partition must wait.
    fn take_message(&mut self, place: usize, message: &BorrowedMessage<'_>, now: Instant, wall: EpochMillis) -> bool {
        let Some(sequence) = self.begin(place, message.offset(), message.timestamp().to_millis(), now) else {
            return true;
        };
        let record = WaitingView {
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis(),
            key: message.key(),
            value: message.payload(),
            id_header: header(message, ID_HEADER),
        };
        self.take(place, sequence, record, now, wall)
    }

    /// Tries the record that waits for its plan again.
    fn take_waiting(&mut self, place: usize, now: Instant, wall: EpochMillis) {
        let Some(waiting) = self.partitions.at(place).and_then(|partition| partition.waiting.take()) else { return };
        let record = WaitingView {
            offset: waiting.offset,
            timestamp_ms: waiting.timestamp_ms,
            key: waiting.key.as_deref(),
            value: waiting.value.as_deref(),
            id_header: waiting.id_header.as_deref(),
        };
        self.take(place, waiting.sequence, record, now, wall);
    }

    fn take(&mut self, place: usize, sequence: Sequence, record: WaitingView<'_>, now: Instant, wall: EpochMillis) -> bool {
        let Some(partition) = self.partitions.at(place) else { return false };
        let (owner, rule, topic) = (partition.owner, partition.rule, Arc::clone(&partition.topic));
        let WaitingView { offset, timestamp_ms, key, value, id_header } = record;
        let incoming = Incoming { topic: &topic, partition: partition.number, offset, timestamp_ms, key, value, id_header };
        if self.intake.builder.would_overflow(value.map_or(0, <[u8]>::len)) {
            self.cut();
        }
        match self.intake.take(&incoming, rule, owner, sequence, now, wall) {
            Taken::Batched { size } => {
                self.partitions.begin_bytes(owner, size);
                if self.intake.builder.is_full() {
                    self.cut();
                }
                true
            }
            Taken::Null => {
                self.meters.skipped_null.increment(1);
                self.partitions.finish(owner, sequence, 0);
                true
            }
            Taken::Rejected { reject, id, target } => {
                self.reject(&incoming, owner, sequence, reject, id, target, now);
                true
            }
            Taken::WaitsFor { target } => {
                if let Some(partition) = self.partitions.at(place) {
                    let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
                    partition.waiting = Some(WaitingRecord {
                        sequence,
                        offset,
                        timestamp_ms,
                        key: owned(key),
                        value: owned(value),
                        id_header: owned(id_header),
                    });
                }
                self.ask_plan(target, now);
                false
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one letter")]
    fn reject(
        &mut self,
        record: &Incoming<'_>,
        owner: Owner,
        sequence: Sequence,
        reject: Reject,
        id: String,
        target: Option<u32>,
        now: Instant,
    ) {
        self.meters.rejected.increment(1);
        let index = target.map(|target| self.intake.targets.get(target).name.to_string()).unwrap_or_default();
        let value = record.value.unwrap_or_default().to_vec();
        let record_bytes = Record { key: record.key.map(<[u8]>::to_vec), value };
        let size = (record_bytes.value.len() + record.key.map_or(0, <[u8]>::len)) as u64;
        self.partitions.begin_bytes(owner, size);
        let letter = Letter {
            owner,
            sequence,
            size,
            id,
            reason: reject.reason,
            error_type: String::new(),
            status: None,
            message: reject.detail,
            field: reject.field,
            index,
            topic: record.topic.to_owned(),
            partition: record.partition,
            offset: record.offset,
            attempts: 0,
            record: record_bytes,
        };
        self.letters.send(letter, now);
    }

    pub(super) fn ask_plan(&mut self, target: u32, now: Instant) {
        if let Some(request) = self.intake.targets.request(target, now) {
            self.service.send(Request::Plan(request));
        }
    }

    pub(super) fn cut(&mut self) {
        if let Some(batch) = self.intake.builder.cut() {
            self.schedule.push(batch);
        }
    }

    fn send(&mut self, now: Instant) {
        while let Some(departure) = self.schedule.next(now, self.concurrency.limit()) {
            self.meters.bulk_bytes.record(departure.queued.batch.body.len() as f64);
            self.service.send(Request::Bulk(departure));
        }
    }

    fn tick(&mut self, now: Instant) {
        if now.duration_since(self.last_ends) >= ENDS_INTERVAL {
            self.last_ends = now;
            let partitions = self.partitions.iter().filter(|partition| !partition.is_revoked);
            self.questions.ask(Question::Ends(partitions.map(|p| (p.owner, p.name())).collect()));
            self.questions.ask(Question::Missing(self.kafka.topics.clone()));
            for request in self.intake.targets.refresh(now) {
                self.service.send(Request::Plan(request));
            }
        }
        if now.duration_since(self.last_picture) >= PICTURE_INTERVAL {
            self.last_picture = now;
            self.show(now);
        }
    }

    /// How long nothing can happen unless an event comes.
    fn nap(&self, now: Instant) -> Duration {
        let next = [
            self.intake.builder.due(),
            self.schedule.due(now, self.concurrency.limit()),
            self.letters.due(),
        ];
        let next = next.into_iter().flatten().min();
        next.map_or(NAP, |next| next.saturating_duration_since(now).min(NAP))
    }

    /// Whether the end or a revocation waits for what is on its way.
    fn wants_to_settle(&self) -> bool {
        self.is_draining || self.membership.is_revoking()
    }

    fn abandon_waiting(&mut self) {
        for partition in self.partitions.iter_mut() {
            partition.queue = None;
        }
    }

    fn is_settled(&self) -> bool {
        self.partitions.iter().all(super::partitions::Partition::is_settled)
    }

    fn leave(mut self, is_done: bool) -> Exit {
        let num_unfinished: usize = self.partitions.iter().map(|partition| partition.ledger.num_open()).sum();
        for partition in self.partitions.iter_mut() {
            partition.queue = None;
        }
        self.source.leave(Duration::from_secs(5), Instant::now);
        self.letters.close();
        // Dropping the consumer would wait for brokers that may never answer; the process ends now.
        std::mem::forget(self.source);
        std::mem::forget((self.questions, self.commits));
        if is_done {
            tracing::info!("stopped, everything taken is finished and committed");
            return Exit::Clean;
        }
        tracing::warn!(num_unfinished, "stopped at the deadline: unfinished records are read again at the next start");
        Exit::Unacknowledged
    }

    fn show(&mut self, now: Instant) {
        self.meters.bulk_inflight.set(self.schedule.num_in_flight() as f64);
        self.meters.concurrency_limit.set(self.concurrency.limit() as f64);
        self.meters.partitions_assigned.set(self.partitions.iter().count() as f64);
        self.meters.partitions_paused.set(self.partitions.iter().filter(|p| p.is_held || p.waiting.is_some()).count() as f64);
        self.meters.unfinished_bytes.set(self.partitions.unfinished_bytes as f64);
        self.meters.by_kafka_time.increment(std::mem::take(&mut self.intake.num_by_kafka_time));
        let wall = wall_clock();
        let partitions = self.partitions.iter().map(|partition| {
            let committed = self.membership.committed(&partition.name());
            let position = partition.ledger.committable().max(committed);
            let begin = partition.ends.as_ref().map(|ends| ends.start);
            let lag = partition.ends.as_ref().map(|ends| (ends.end - position.or(begin).unwrap_or(ends.end)).max(0));
            let age = partition.last_timestamp_ms.map(|time| (wall - time) as f64 / 1_000.0);
            PartitionPicture {
                topic: partition.topic.to_string(),
                partition: partition.number,
                finished: partition.ledger.committable(),
                committed,
                end: partition.ends.as_ref().map(|ends| ends.end),
                lag_records: lag,
                lag_seconds: if lag == Some(0) { Some(0.0) } else { age },
                is_held: partition.is_held || partition.waiting.is_some(),
            }
        });
        let details = serde_json::json!({
            "bulk": {
                "in_flight": self.schedule.num_in_flight(),
                "concurrency_limit": self.concurrency.limit(),
                "waiting_batches": self.schedule.num_ready(),
            },
            "unfinished_bytes": self.partitions.unfinished_bytes,
            "group": self.kafka.group,
        });
        let picture = Picture { partitions: partitions.collect(), blocked: self.blocked(now), details };
        self.health.show(picture);
    }

    fn blocked(&self, _now: Instant) -> Vec<(&'static str, String)> {
        let mut blocked = Vec::new();
        if let Some(words) = &self.set_up_trouble {
            blocked.push(("elasticsearch_unreachable", words.clone()));
        }
        if self.schedule.is_held()
            && let Some((label, words)) = &self.request_trouble
        {
            blocked.push((*label, words.clone()));
        }
        if !self.membership.has_joined() {
            blocked.push(("group_not_joined", format!("group `{}` has not assigned anything yet", self.kafka.group)));
        }
        if !self.missing_topics.is_empty() {
            blocked.push(("topic_missing", format!("not there: {}", self.missing_topics.join(", "))));
        }
        if let Some(target) = self.intake.targets.iter().find(|target| target.held.is_some()) {
            let words = target.held.as_deref().unwrap_or_default();
            blocked.push(("index_held", format!("`{}`: {words}", target.name)));
        }
        if let Some(words) = self.letters.trouble() {
            blocked.push(("dead_letter_topic", words.to_owned()));
        }
        blocked
    }
}

/// A record before it is known whether it must wait.
#[derive(Clone, Copy)]
struct WaitingView<'a> {
    offset: i64,
    timestamp_ms: Option<i64>,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    id_header: Option<&'a [u8]>,
}

fn wall_clock() -> EpochMillis {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
