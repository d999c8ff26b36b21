//! What the shipper says about itself: liveness, readiness, metrics, status.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use millrace_common::telemetry::admin::Health;
use millrace_common::telemetry::gauges::Gauges as Series;
use serde_json::{Value, json};

use crate::ledger::desk::Desk;
use crate::meters;
use crate::tail::stats::{BLOCKED_REASONS, Gauges, Stats};

/// Shared between the tailing thread, which fills it, and the admin thread, which reads it.
pub struct Board {
    started: Instant,
    /// Milliseconds after `started` at which the loop last came round.
    turned_ms: AtomicU64,
    is_scanned: AtomicBool,
    is_draining: AtomicBool,
    wants_status: AtomicBool,
    facts: Mutex<Facts>,
    /// That of the pipeline that runs.
    desk: Mutex<Arc<Desk>>,
    answered: Condvar,
    wake: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct Facts {
    stats: Stats,
    gauges: Gauges,
    status: Option<Value>,
}

impl Board {
    const STUCK_AFTER: Duration = Duration::from_secs(30);
    const STATUS_WAIT: Duration = Duration::from_secs(2);

    #[expect(clippy::disallowed_methods, reason = "an edge: the age of the last turn is judged by the real clock")]
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        meters::describe();
        Self {
            started: Instant::now(),
            turned_ms: AtomicU64::new(0),
            is_scanned: AtomicBool::new(false),
            is_draining: AtomicBool::new(false),
            wants_status: AtomicBool::new(false),
            facts: Mutex::default(),
            desk: Mutex::new(Arc::new(Desk::new(false))),
            answered: Condvar::new(),
            wake: Box::new(wake),
        }
    }

    fn facts(&self) -> std::sync::MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A pipeline begins.
    pub fn set_desk(&self, desk: Arc<Desk>) {
        *self.desk.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = desk;
    }

    fn desk(&self) -> Arc<Desk> {
        Arc::clone(&self.desk.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    pub fn turned(&self) {
        self.turned_ms.store(self.started.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    pub fn scanned(&self) {
        self.is_scanned.store(true, Ordering::Relaxed);
    }

    pub fn draining(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
    }

    pub fn wants_status(&self) -> bool {
        self.wants_status.load(Ordering::Relaxed)
    }

    pub fn publish(&self, stats: &Stats, gauges: Gauges) {
        let mut facts = self.facts();
        facts.stats.clone_from(stats);
        facts.gauges = gauges;
    }

    pub fn answer(&self, status: Value) {
        self.wants_status.store(false, Ordering::Relaxed);
        self.facts().status = Some(status);
        self.answered.notify_all();
    }
}

impl Board {
    /// What is not read, by input. A thread that reads no files saw it too, in case that the one that does hangs.
    fn tell_behind(&self, gauges: &Gauges, series: &mut Series) {
        let report = self.desk().report();
        for (input, unread) in &gauges.unread_by_input {
            let behind = report.inputs.get(input).copied().unwrap_or_default();
            let labels = [("input", input.as_str())];
            let unread = behind.unread_bytes.max(*unread);
            series.set("shipper_unread_bytes", "Bytes in files that were not read yet", &labels, unread as f64);
            series.set(
                "shipper_oldest_unread_seconds",
                "How long unread bytes have waited in a file whose position does not move, at most",
                &labels,
                behind.oldest.as_secs_f64(),
            );
        }
        series.set(
            "shipper_stalled_files",
            "Files that stand still though they should be read; /status names them",
            &[],
            report.stalled.len() as f64,
        );
    }
}

impl Health for Board {
    fn live(&self) -> Result<(), String> {
        let age = self.started.elapsed().saturating_sub(Duration::from_millis(self.turned_ms.load(Ordering::Relaxed)));
        if age > Self::STUCK_AFTER {
            Err(format!("the tailing thread has not turned for {} s", age.as_secs()))
        } else {
            Ok(())
        }
    }

    /// Never depends on Kafka: a sidecar's readiness gates its pod.
    fn ready(&self) -> Result<(), Vec<String>> {
        if !self.is_scanned.load(Ordering::Relaxed) {
            return Err(vec!["the first scan is not done".to_owned()]);
        }
        if self.is_draining.load(Ordering::Relaxed) { Err(vec!["draining".to_owned()]) } else { Ok(()) }
    }

    fn status(&self) -> Value {
        let mut facts = self.facts();
        facts.status = None;
        self.wants_status.store(true, Ordering::Relaxed);
        (self.wake)();
        let waited = self.answered.wait_timeout_while(facts, Self::STATUS_WAIT, |facts| facts.status.is_none());
        let (mut facts, _) = waited.unwrap_or_else(|poisoned| poisoned.into_inner());
        let unanswered = || json!({"error": "the tailing thread does not answer", "ledger": self.desk().status()});
        facts.status.take().unwrap_or_else(unanswered)
    }

    fn before_scrape(&self) {
        let facts = self.facts();
        meters::show(&facts.stats, &facts.gauges);
    }

    fn gauges(&self, series: &mut Series) {
        let facts = self.facts();
        let gauges = &facts.gauges;
        let values = [
            ("shipper_inflight_bytes", "Bytes handed to the producer and not acknowledged", gauges.inflight_bytes),
            ("shipper_open_files", "Files held open", gauges.open_files),
            ("shipper_unreadable_files", "Paths that cannot be opened or examined", gauges.unreadable_files),
            (
                "shipper_unwatched_folders",
                "Folders that the kernel does not watch for us (fs.inotify.max_user_watches): changes are found by scans",
                gauges.unwatched_folders,
            ),
            ("shipper_ignored_files", "Files left alone for their age (ignore_older)", gauges.ignored_files),
            ("shipper_sources", "Sources followed", gauges.sources),
            (
                "shipper_oldest_unacked_seconds",
                "Time without an acknowledgement while some are due",
                gauges.oldest_unacked_seconds,
            ),
        ];
        for (name, help, value) in values {
            series.set(name, help, &[], value as f64);
        }
        series.delays(
            "shipper_ack_latency_seconds",
            "From reading an event to its acknowledgement by Kafka",
            &[],
            &facts.stats.ack_latency,
        );
        self.tell_behind(gauges, series);
        for topic in &gauges.topics {
            let is_so = !topic.blocked.is_empty();
            series.set(
                "shipper_topic_blocked",
                "1 while records to this topic do not flow; /status says why",
                &[("topic", &topic.name)],
                f64::from(u8::from(is_so)),
            );
        }
        for reason in BLOCKED_REASONS {
            let is_so = gauges.blocked.contains(&reason);
            series.set(
                "shipper_blocked",
                "1 while records do not flow for this reason",
                &[("reason", reason)],
                f64::from(u8::from(is_so)),
            );
        }
    }
}
