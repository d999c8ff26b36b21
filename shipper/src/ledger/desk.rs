//! What the threads share: the tailer lays down what it knows, the service takes it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use millrace_common::ledger::sources::SourceRow;
use millrace_common::record::SourceId;
use serde_json::{Value, json};

use super::Announcer;
use super::outbox::{Outbox, Progress};
use super::stalls::Report;

/// What the tailing thread says of the whole, about once a second.
#[derive(Clone, Debug, Default)]
pub struct Whole {
    pub num_sources: u64,
    /// Since the process started.
    pub acked_events: u64,
    pub unread_bytes: u64,
    /// Why records do not flow.
    pub blocked: Vec<&'static str>,
    /// Counts how often it was said: a thread that hangs says nothing.
    pub turn: u64,
}

#[derive(Debug, Default)]
struct Facts {
    whole: Whole,
    report: Report,
    /// Why the ledger cannot be written.
    fault: Option<String>,
    stop: Stop,
    is_stopped: bool,
}

/// What the service is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stop {
    #[default]
    No,
    /// Say all there is, and that the shipper stops.
    Goodbye,
    /// Say all there is: the next service of this process goes on.
    HandOver,
    /// End.
    AtOnce,
}

pub struct Desk {
    outbox: Mutex<Outbox>,
    facts: Mutex<Facts>,
    is_on: bool,
    told: Condvar,
    ended: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Desk {
    pub fn new(is_on: bool) -> Self {
        let (outbox, facts) = (Mutex::new(Outbox::new(is_on)), Mutex::default());
        Self { outbox, facts, is_on, told: Condvar::new(), ended: Condvar::new() }
    }

    pub fn publish(&self, whole: Whole) {
        let mut facts = lock(&self.facts);
        let turn = facts.whole.turn + 1;
        facts.whole = Whole { turn, ..whole };
    }

    /// Why the ledger cannot be written, if it cannot.
    pub fn fault(&self) -> Option<String> {
        lock(&self.facts).fault.clone()
    }

    pub fn report(&self) -> Report {
        lock(&self.facts).report.clone()
    }

    pub fn status(&self) -> Value {
        let facts = lock(&self.facts);
        let state = match (self.is_on, &facts.fault) {
            (false, _) => "off",
            (true, None) => "on",
            (true, Some(_)) => "held",
        };
        json!({"state": state, "fault": facts.fault, "stalled": facts.report.stalled})
    }

    /// Has all said, then that the shipper stops. Returns whether it was heard within `limit`.
    pub fn stop(&self, limit: Duration) -> bool {
        self.stop_by(Stop::Goodbye, limit)
    }

    /// Has all said that can be said within `limit`. Others hear nothing of it.
    pub fn hand_over(&self, limit: Duration) {
        if !self.stop_by(Stop::HandOver, limit) {
            // What the sources are now, the next service says again.
            self.want(Stop::AtOnce);
        }
    }

    fn want(&self, stop: Stop) {
        lock(&self.facts).stop = stop;
        drop(self.outbox());
        self.told.notify_all();
    }

    fn stop_by(&self, stop: Stop, limit: Duration) -> bool {
        self.want(stop);
        let facts = lock(&self.facts);
        let waited = self.ended.wait_timeout_while(facts, limit, |facts| !facts.is_stopped);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_stopped
    }

    pub(super) fn wanted(&self) -> Stop {
        lock(&self.facts).stop
    }

    pub(super) fn stopped(&self) {
        lock(&self.facts).is_stopped = true;
        self.ended.notify_all();
    }

    pub(super) fn whole(&self) -> Whole {
        lock(&self.facts).whole.clone()
    }

    pub(super) fn outbox(&self) -> MutexGuard<'_, Outbox> {
        lock(&self.outbox)
    }

    pub(super) fn set_report(&self, report: Report) {
        lock(&self.facts).report = report;
    }

    pub(super) fn set_fault(&self, fault: Option<String>) {
        lock(&self.facts).fault = fault;
    }

    /// Waits until something is told, the stop, or `limit`. With `may_send`, not at all if there is something to say.
    pub(super) fn wait(&self, limit: Duration, may_send: bool) {
        const WHILE_STOPPING: Duration = Duration::from_millis(20);
        let outbox = self.outbox();
        let limit = if self.wanted() != Stop::No { limit.min(WHILE_STOPPING) } else { limit };
        if may_send && outbox.has_due() {
            return;
        }
        // A poisoned lock only cuts the wait short.
        let _ = self.told.wait_timeout(outbox, limit);
    }
}

impl Announcer for Arc<Desk> {
    fn tell(&mut self, id: SourceId, row: &SourceRow, is_held: bool) {
        self.outbox().tell(id, row, is_held);
        if self.is_on {
            self.told.notify_all();
        }
    }

    fn note(&mut self, id: SourceId, progress: Progress) {
        self.outbox().note(id, progress);
    }

    fn is_announced(&self, id: SourceId) -> bool {
        self.outbox().is_announced(id)
    }

    fn take_announced(&mut self) -> Vec<SourceId> {
        self.outbox().take_announced()
    }
}
