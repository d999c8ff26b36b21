//! The owner's turns.

#![expect(clippy::disallowed_methods, reason = "this module owns the loop and its clock")]

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use millrace_common::shutdown::Signals;
use rdkafka::message::Message;

use super::Ended;
use super::ending::{Clients, Why};
use super::intake::Intake;
use super::letters::Letters;
use super::membership::Membership;
use super::meters::Meters;
use super::partitions::Partitions;
use super::publish::Publishing;
use super::refused::Refused;
use super::retention::Retention;
use super::take::Received;
use crate::bulk::concurrency::Concurrency;
use crate::bulk::schedule::Schedule;
use crate::bulk::service::{Outcome, Request, Service};
use crate::commit::ledger::Ending;
use crate::config::{Bulk, Kafka, Memory, Rule};
use crate::consume::{Questions, Source};
use crate::dead_letter::DeadLetters;
use crate::health::{EndToEnd, Health};
use crate::route::EpochMillis;
use crate::templates::NotReady;

/// Longest nap.
const NAP: Duration = Duration::from_millis(100);
/// Longest nap while producers are to tell of acknowledgements: they are asked, since a thread of theirs would spin through
/// the last millisecond of each of its waits.
const SHORT_NAP: Duration = Duration::from_millis(10);
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
    /// `None`: without the ledger.
    pub publishing: Option<Publishing>,
    pub health: Arc<Health>,
}

/// All state of the owner.
pub struct Flow {
    pub(super) kafka: Kafka,
    pub(super) bulk: Bulk,
    pub(super) rules: Vec<Rule>,
    pub(super) memory: Memory,
    pub(super) shutdown_deadline: Duration,
    pub(super) source: Source,
    pub(super) questions: Questions,
    pub(super) commits: Questions,
    service: Service,
    pub(super) letters: Letters,
    pub(super) publishing: Option<Publishing>,
    pub(super) health: Arc<Health>,
    pub(super) partitions: Partitions,
    pub(super) intake: Intake,
    pub(super) schedule: Schedule,
    pub(super) concurrency: Concurrency,
    pub(super) membership: Membership,
    pub(super) meters: Meters,
    pub(super) delays: EndToEnd,
    pub(super) retention: Retention,
    /// Refused documents that wait for a newer plan.
    pub(super) refused: Vec<Refused>,
    /// A partition that is over its limit waits for the batch that is being filled.
    pub(super) is_batch_wanted: bool,
    /// Bytes of documents that wait for blocked indices.
    pub(super) parked_bytes: u64,
    /// Why requests fail as a whole, while they do.
    pub(super) request_trouble: Option<(&'static str, String)>,
    /// Why Elasticsearch is not set up yet.
    pub(super) set_up_trouble: Option<NotReady>,
    /// Topics that are not there.
    pub(super) missing_topics: Vec<String>,
    pub(super) is_draining: bool,
    /// The consumer lost its brokers for good.
    pub(super) is_cut_off: bool,
    last_picture: Instant,
    last_ends: Instant,
}

impl Flow {
    pub fn new(parts: Parts, now: Instant) -> Self {
        let limits = parts.bulk.limits;
        Self {
            intake: Intake::new(&parts.rules, limits),
            schedule: Schedule::new(limits.max_bytes, limits.max_documents, parts.bulk.max_backoff),
            concurrency: Concurrency::new(parts.bulk.max_in_flight),
            letters: Letters::new(parts.letters, now),
            publishing: parts.publishing,
            membership: Membership::new(now),
            partitions: Partitions::default(),
            meters: Meters::new(),
            delays: EndToEnd::default(),
            retention: Retention::new(now),
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
            refused: Vec::new(),
            is_batch_wanted: false,
            parked_bytes: 0,
            request_trouble: None,
            set_up_trouble: Some(NotReady {
                label: "elasticsearch_unreachable",
                words: "Elasticsearch is not reached yet".to_owned(),
            }),
            missing_topics: Vec::new(),
            is_draining: false,
            is_cut_off: false,
            last_picture: now,
            last_ends: now - ENDS_INTERVAL,
        }
    }

    /// Takes turns until a signal asks for the end, then finishes what is on its way, commits and leaves.
    pub fn run(mut self, signals: &Signals) -> (Ended, Clients) {
        let mut ending: Option<(Why, Instant)> = None;
        loop {
            let now = Instant::now();
            let why = self.why_to_end(signals);
            if let Some(why) = why
                && ending.is_none_or(|(before, _)| before < why)
            {
                ending = Some((why, now + self.begin_end(why)));
            }
            let is_busy = self.turn(now);
            if let Some((why, deadline)) = ending {
                let is_done = self.is_settled() && self.is_committed();
                if is_done || now >= deadline {
                    return self.leave(why, is_done);
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
            self.partitions.finish(letter.owner, letter.sequence, letter.size, Ending::DeadLettered);
        }
        self.retry_refused(now);
        self.take_answers(now);
        self.take_rows_of_others();
        is_busy |= self.poll_events(now);
        self.serve_membership(now);
        if !self.is_draining {
            is_busy |= self.take_records(now);
        }
        let is_wanted = self.wants_to_settle() || (self.is_batch_wanted && self.has_free_slot());
        if self.intake.builder.is_due(now) || (is_wanted && !self.intake.builder.is_empty()) {
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
        let mut is_empty = false;
        loop {
            match source.poll() {
                // An event that is no message reads as nothing, too: only a second nothing is the end.
                None if is_empty => break,
                None => is_empty = true,
                Some(Ok(message)) => {
                    (any, is_empty) = (true, false);
                    let name = (message.topic().into(), message.partition());
                    let place = self.partitions.find(&name).map(|partition| partition.owner.slot as usize);
                    if let Some(place) = place {
                        self.take_message(place, Received::from(&message), now, wall_clock());
                    }
                }
                Some(Err(error)) => tracing::debug!(%error, "consumer reports"),
            }
        }
        any
    }

    pub(super) fn ask_plan(&mut self, target: u32, now: Instant) {
        if let Some(request) = self.intake.targets.request(target, now) {
            self.service.send(Request::Plan(request));
        }
    }

    /// Whether a batch would go out at once.
    fn has_free_slot(&self) -> bool {
        let is_free = self.schedule.num_in_flight() < self.concurrency.limit();
        is_free && self.schedule.num_ready() == 0 && !self.schedule.is_held()
    }

    pub(super) fn cut(&mut self) {
        self.is_batch_wanted = false;
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
            self.ask_around();
            self.ask_retention(now);
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
        let next = [self.intake.builder.due(), self.schedule.due(now, self.concurrency.limit()), self.letters.due()];
        let next = next.into_iter().flatten().min();
        let is_short = self.letters.are_on_their_way() || self.publishing.as_ref().is_some_and(Publishing::is_waiting);
        let longest = if is_short { SHORT_NAP } else { NAP };
        next.map_or(longest, |next| next.saturating_duration_since(now).min(longest))
    }

    /// Whether the end or a revocation waits for what is on its way.
    fn wants_to_settle(&self) -> bool {
        self.is_draining || self.membership.is_revoking()
    }

    fn is_settled(&self) -> bool {
        self.partitions.iter().all(super::partitions::Partition::is_settled)
    }
}

pub(super) fn wall_clock() -> EpochMillis {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
