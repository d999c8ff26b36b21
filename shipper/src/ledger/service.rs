//! The ledger's thread. It reads no files, so that it lives on when the reading thread hangs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use millrace_common::kafka::Log;
use millrace_common::ledger::sources::{Heartbeat, HostState, SourceState, Stalled};
use millrace_common::ledger::topics::{self, TopicError};
use millrace_common::ledger::{SOURCES, VERSION, encode};
use millrace_common::record::SourceId;
use millrace_common::retry::Delays;
use rdkafka::ClientConfig;
use tracing::{info, warn};

use super::desk::{Desk, Stop};
use super::examine::Examiner;
use super::finished::Finished;
use super::outbox::Say;
use super::sender::Sender;
use super::stalls::Judge;
use crate::clock::Clock;
use crate::produce::kafka::{KafkaBroker, StartError};
use crate::tail::Now;

pub struct Settings {
    /// `None`: nothing is said, only this machine's metrics tell what stands still.
    pub client: Option<ClientConfig>,
    pub log: Arc<Log>,
    /// Those of records; the ledger's gets as many replicas as the first.
    pub topics: Vec<String>,
    pub host_id: String,
    pub host_name: String,
    pub heartbeat: Duration,
    pub forget_after: Duration,
    pub data_dir: PathBuf,
    /// Sources that were finished before, with the time of that.
    pub finished: Vec<(SourceId, i64)>,
}

impl Settings {
    /// A file that does not move for longer is stalled.
    pub fn patience(&self) -> Duration {
        self.heartbeat * 3
    }
}

struct Service {
    settings: Settings,
    desk: Arc<Desk>,
    clock: Clock,
    /// Called when sources were announced.
    wake: Box<dyn Fn() + Send>,
    sender: Option<Sender>,
    /// Of attempts to have a topic and a producer.
    delays: Delays,
    attempt_at: Duration,
    fault: Option<String>,
    judge: Judge,
    /// What there was to judge when that was done last: of the outbox, and of the examiner.
    judged: (u64, u64),
    examiner: Examiner,
    examined_at: Option<Duration>,
    stalled: Vec<Stalled>,
    finished: Finished,
    forgot_at: Duration,
    beat_at: Option<Duration>,
    started_ms: i64,
    /// When the tailing thread last said something, and what number that had.
    turned: (Duration, u64),
    is_goodbye_sent: bool,
}

/// Starts the thread. It ends with [`Desk::stop`], or with the process.
///
/// # Errors
/// There is no thread.
pub fn start(settings: Settings, desk: Arc<Desk>, wake: impl Fn() + Send + 'static) -> std::io::Result<()> {
    let clock = Clock::start();
    let service = Service {
        judge: Judge::new(settings.patience()),
        judged: (0, 0),
        examiner: Examiner::start()?,
        finished: Finished::load(settings.data_dir.join("finished"), &settings.finished),
        settings,
        desk,
        clock,
        wake: Box::new(wake),
        sender: None,
        delays: Delays::new(Duration::from_secs(1), Duration::from_secs(30)),
        attempt_at: Duration::ZERO,
        fault: None,
        examined_at: None,
        stalled: Vec::new(),
        forgot_at: Duration::ZERO,
        beat_at: None,
        started_ms: clock.now().wall_ms,
        turned: (Duration::ZERO, 0),
        is_goodbye_sent: false,
    };
    std::thread::Builder::new().name("ledger".into()).spawn(move || service.run()).map(|_| ())
}

impl Service {
    const LOOK_EVERY: Duration = Duration::from_secs(1);
    /// How soon to ask for acknowledgements.
    const ACK_PAUSE: Duration = Duration::from_millis(5);
    const MAX_ACK_PAUSE: Duration = Duration::from_millis(200);

    fn run(mut self) {
        let mut looked_at: Option<Duration> = None;
        let mut ack_pause = Self::ACK_PAUSE;
        loop {
            let now = self.clock.now();
            if looked_at.is_none_or(|at| now.mono >= at + Self::LOOK_EVERY) {
                self.look(now);
                looked_at = Some(now.mono);
            }
            let stop = self.desk.wanted();
            if stop == Stop::AtOnce {
                return;
            }
            let is_moving = self.settings.client.is_some() && self.proceed(now, stop);
            if stop != Stop::No && (self.settings.client.is_none() || self.is_over(stop)) {
                return self.desk.stopped();
            }
            let is_waiting = self.sender.as_ref().is_some_and(|sender| !sender.is_idle());
            ack_pause = if is_moving { Self::ACK_PAUSE } else { (ack_pause * 2).min(Self::MAX_ACK_PAUSE) };
            let next_look = looked_at.unwrap_or_default() + Self::LOOK_EVERY;
            let pause = next_look.saturating_sub(self.clock.now().mono);
            let may_send = self.sender.as_ref().is_some_and(|sender| sender.may_send(self.clock.now().mono));
            self.desk.wait(if is_waiting { pause.min(ack_pause) } else { pause }, may_send);
        }
    }

    /// Judges what stands still, and whether the tailing thread does.
    fn look(&mut self, now: Now) {
        let every = self.settings.heartbeat / 2;
        if self.examined_at.is_none_or(|at| now.mono >= at + every) {
            let paths = self.desk.outbox().watched().map(|(id, file)| (id, file.path.clone())).collect();
            self.examiner.ask(paths);
            self.examined_at = Some(now.mono);
        }
        let turn = self.desk.whole().turn;
        if self.turned.1 != turn {
            self.turned = (now.mono, turn);
        }
        // Thousands of files that rest cost nothing.
        let news = (self.desk.outbox().num_changes(), self.examiner.num_changes());
        if news == self.judged && self.judge.is_at_rest() {
            return;
        }
        self.judged = news;
        let report = self.examiner.look(|seen, examined| {
            let outbox = self.desk.outbox();
            self.judge.judge(now.mono, now.wall_ms, outbox.watched(), seen, examined)
        });
        for Stalled { path, unread_bytes, reason, .. } in &report.begun {
            warn!(path, unread_bytes, reason, "file stands still");
        }
        for path in &report.ended {
            info!(path = %path.display(), "file no longer stands still");
        }
        self.stalled.clone_from(&report.stalled);
        self.desk.set_report(report);
    }

    /// Says what is due. Returns whether something was sent or acknowledged.
    fn proceed(&mut self, now: Now, stop: Stop) -> bool {
        if self.sender.is_none() && now.mono >= self.attempt_at {
            match self.open() {
                Ok(sender) => {
                    self.sender = Some(sender);
                    self.delays.reset();
                }
                Err(fault) => {
                    self.attempt_at = self.clock.now().mono + self.delays.next_delay();
                    self.note_fault(Some(fault));
                }
            }
        }
        let now = self.clock.now();
        let Some(mut sender) = self.sender.take() else { return false };
        let answers = sender.take(now.mono, &mut self.desk.outbox());
        if answers.num_acknowledged > 0 {
            (self.wake)();
        }
        answers.forgotten.into_iter().for_each(|id| self.finished.remove(id));
        let num_sent = self.send(&mut sender, now, stop);
        self.note_fault(sender.fault(now.mono));
        if answers.is_topic_gone {
            sender.give_back(&mut self.desk.outbox());
            self.attempt_at = now.mono + self.delays.next_delay();
        } else {
            self.sender = Some(sender);
        }
        num_sent + answers.num_acknowledged > 0
    }

    fn open(&self) -> Result<Sender, String> {
        let Some(client) = &self.settings.client else { return Err("the ledger is off".to_owned()) };
        let told = |error: TopicError| format!("{:#}", anyhow::Error::from(error));
        topics::create_missing(client, &[SOURCES], self.settings.topics.first().map_or("", String::as_str))
            .map_err(told)?;
        let told = |error: StartError| format!("{:#}", anyhow::Error::from(error));
        // The thread asks by itself.
        let wake = Arc::new(|| {});
        let broker = KafkaBroker::new(client.clone(), &[SOURCES.to_owned()], Arc::clone(&self.settings.log), wake);
        Ok(Sender::new(broker.map_err(told)?, self.settings.host_id.clone()))
    }

    fn note_fault(&mut self, fault: Option<String>) {
        if fault == self.fault {
            return;
        }
        match &fault {
            Some(fault) => {
                warn!(
                    topic = SOURCES,
                    fault, "the ledger cannot be written; records of files that are not announced wait"
                );
            }
            None => info!(topic = SOURCES, "the ledger is written again"),
        }
        self.fault.clone_from(&fault);
        self.desk.set_fault(fault);
    }

    fn send(&mut self, sender: &mut Sender, now: Now, stop: Stop) -> usize {
        let mut num_sent = 0;
        let is_due = self.beat_at.is_none_or(|at| now.mono >= at + self.settings.heartbeat);
        if is_due && stop == Stop::No && sender.may_send(now.mono) && !sender.has_heartbeat_under_way() {
            let text = encode(&self.heartbeat(now, HostState::Running));
            if sender.send_heartbeat(&text, now) {
                self.beat_at = Some(now.mono);
                num_sent += 1;
            }
        }
        self.forget(now);
        let desk = Arc::clone(&self.desk);
        let mut batch = Vec::new();
        {
            let mut outbox = desk.outbox();
            while sender.may_send(now.mono) && batch.len() < 100 {
                batch.extend(outbox.take());
                if !outbox.has_due() {
                    break;
                }
            }
        }
        self.note_finished(&batch, now);
        for (id, say) in batch {
            num_sent += usize::from(sender.send(id, say, now, &mut desk.outbox()));
        }
        let is_all_said = !self.is_goodbye_sent && sender.is_idle() && desk.outbox().is_heard();
        if stop == Stop::Goodbye && is_all_said && sender.may_send(now.mono) {
            let text = encode(&self.heartbeat(now, HostState::Stopped));
            self.is_goodbye_sent = sender.send_heartbeat(&text, now);
        }
        num_sent
    }

    /// Before they are sent: what is in the topic must not be forgotten here.
    fn note_finished(&mut self, batch: &[(SourceId, Say)], now: Now) {
        for (id, say) in batch {
            match say {
                Say::Row { state: SourceState::Finished, .. } => self.finished.insert(*id, now.wall_ms),
                Say::Row { state: SourceState::Active, .. } => self.finished.remove(*id),
                Say::Forget => {}
            }
        }
        if let Err(cause) = self.finished.save() {
            warn!(error = %cause, "cannot note which files are finished; the ledger may keep them");
        }
    }

    fn forget(&mut self, now: Now) {
        let every = (self.settings.forget_after / 2).clamp(Duration::from_secs(1), Duration::from_secs(60));
        if now.mono < self.forgot_at + every {
            return;
        }
        self.forgot_at = now.mono;
        let old = self.finished.old(now.wall_ms, self.settings.forget_after);
        let mut outbox = self.desk.outbox();
        old.into_iter().for_each(|id| outbox.forget(id));
    }

    fn heartbeat(&self, now: Now, state: HostState) -> Heartbeat {
        /// More of them say nothing new.
        const MAX_STALLED: usize = 50;
        let whole = self.desk.whole();
        let mut blocked: Vec<_> = whole.blocked.iter().map(|reason| (*reason).to_owned()).collect();
        if now.mono >= self.turned.0 + self.settings.patience() {
            blocked.push("reading_thread".to_owned());
        }
        Heartbeat {
            version: VERSION,
            host_name: self.settings.host_name.clone(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            interval_ms: self.settings.heartbeat.as_millis() as u64,
            at_ms: now.wall_ms,
            started_ms: self.started_ms,
            state,
            topics: self.settings.topics.clone(),
            num_sources: whole.num_sources,
            acked_events: whole.acked_events,
            unread_bytes: whole.unread_bytes,
            blocked,
            stalled: self.stalled.iter().take(MAX_STALLED).cloned().collect(),
        }
    }

    fn is_over(&self, stop: Stop) -> bool {
        let Some(sender) = &self.sender else { return stop == Stop::HandOver };
        let is_all_said = self.is_goodbye_sent || (stop == Stop::HandOver && self.desk.outbox().is_heard());
        is_all_said && sender.is_idle()
    }
}
