//! What the admin endpoint tells: the owner leaves a picture of itself, the admin thread reads it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use millrace_common::telemetry::gauges::Gauges;
use millrace_common::telemetry::{Delays, admin};
use serde_json::{Value, json};

use crate::route::EpochMillis;
use crate::watch::history::History;
use crate::watch::judge::{NOT_READ, State};
use crate::watch::reading::Shared;
use crate::watch::report;
use crate::watch::view::View;

/// A loop that did not turn for this long hangs.
const HANGS_AFTER: Duration = Duration::from_secs(30);

/// Labels of what keeps records from flowing.
const BLOCKED_REASONS: [&str; 14] = [
    "starting",
    "kafka_unreachable",
    "group_not_joined",
    "topic_missing",
    "elasticsearch_unreachable",
    "no_reply",
    "overloaded",
    "forbidden",
    "refused",
    "malformed_reply",
    "templates",
    "index_held",
    "dead_letter_topic",
    "ledger",
];

const LEDGER_OFF: &str = "the settings say `ledger: off`";

/// Shared between owner and admin thread.
pub struct Health {
    started: Instant,
    /// Milliseconds from `started` to the last turn of the loop; 0 before the first.
    last_turn: AtomicU64,
    picture: Mutex<Picture>,
    watched: Mutex<Watched>,
}

/// What is known of the whole pipeline; nothing without the ledger.
#[derive(Default)]
struct Watched {
    is_ledger_off: bool,
    shown: Option<Arc<Shared>>,
    /// Takes its place once the ledger was read to its end.
    next: Option<Arc<Shared>>,
}

/// The owner's state as of its last look.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    /// What keeps records from flowing: a label from a closed set, and words.
    pub blocked: Vec<(&'static str, String)>,
    pub partitions: Vec<PartitionPicture>,
    pub retention: Vec<RetentionPicture>,
    pub delays: EndToEnd,
    pub details: Value,
}

#[derive(Clone, Debug)]
pub struct PartitionPicture {
    pub topic: String,
    pub partition: i32,
    /// Next offset to be committed, and what is known to be committed.
    pub finished: Option<i64>,
    pub committed: Option<i64>,
    pub end: Option<i64>,
    pub lag_records: Option<i64>,
    pub lag_seconds: Option<f64>,
    /// When the oldest unfinished record known was stamped.
    pub oldest_ms: Option<EpochMillis>,
    pub is_held: bool,
}

impl PartitionPicture {
    /// The topic, and since when its oldest record waits, if any does. `None` if that is not known.
    pub fn oldest(&self) -> Option<(&str, Option<EpochMillis>)> {
        match self.lag_records? {
            0 => Some((&self.topic, None)),
            _ => Some((&self.topic, Some(self.oldest_ms?))),
        }
    }
}

/// The race of a topic's oldest unfinished record against retention by time. Infinite where there is none.
#[derive(Clone, Debug)]
pub struct RetentionPicture {
    pub topic: String,
    pub retention_seconds: f64,
    pub hours_left: f64,
}

impl RetentionPicture {
    fn tell(&self, gauges: &mut Gauges) {
        let labels = [("topic", self.topic.as_str())];
        let help = "Hours until retention.ms takes the oldest unfinished record; +Inf if none waits or without limit. retention.bytes is not foreseen.";
        gauges.set("indexer_hours_to_retention", help, &labels, self.hours_left);
        let help = "How long the topic keeps records by time (retention.ms); +Inf without limit.";
        gauges.set("indexer_retention_seconds", help, &labels, self.retention_seconds);
    }
}

/// From the Kafka timestamp, at which the shipper read the event.
#[derive(Clone, Debug, Default)]
pub struct EndToEnd {
    pub consumed: Delays,
    pub indexed: Delays,
}

impl EndToEnd {
    fn tell(&self, gauges: &mut Gauges) {
        for (stage, delays) in [("consumed", &self.consumed), ("indexed", &self.indexed)] {
            let help =
                "From reading an event (Kafka timestamp) to taking its record, and to the answer that it is indexed.";
            gauges.delays("indexer_end_to_end_seconds", help, &[("to", stage)], delays);
        }
    }
}

impl Health {
    pub fn new(now: Instant, reason: &str) -> Self {
        let blocked = vec![("starting", reason.to_owned())];
        let picture = Mutex::new(Picture { blocked, ..Picture::default() });
        Self { started: now, last_turn: AtomicU64::new(0), picture, watched: Mutex::default() }
    }

    /// The loop turned.
    pub fn turned(&self, now: Instant) {
        let elapsed = now.duration_since(self.started).as_millis() as u64;
        self.last_turn.store(elapsed.max(1), Ordering::Relaxed);
    }

    pub fn show(&self, picture: Picture) {
        *self.picture() = picture;
    }

    /// Begins a view of the whole pipeline. The one before is shown until this one knows as much.
    pub fn begin(&self, view: View) -> Arc<Shared> {
        let mut watched = self.lock_watched();
        let before = watched.next.take().filter(|next| next.is_synced()).or(watched.shown.take());
        let next = Arc::new(match &before {
            Some(before) => before.next(view),
            None => Shared::new(view),
        });
        *watched = Watched { shown: before, next: Some(Arc::clone(&next)), is_ledger_off: false };
        next
    }

    /// Nothing will be known of the whole pipeline: the settings do without the ledger.
    pub fn do_without_ledger(&self) {
        *self.lock_watched() = Watched { is_ledger_off: true, ..Watched::default() };
    }

    /// Why nothing is known of the whole pipeline.
    fn why_unknown(&self) -> &'static str {
        if self.lock_watched().is_ledger_off { LEDGER_OFF } else { NOT_READ }
    }

    /// What is known of the whole pipeline, unless the ledger is off.
    fn watched(&self) -> Option<Arc<Shared>> {
        let mut watched = self.lock_watched();
        if let Some(next) = watched.next.take_if(|next| next.is_synced()) {
            watched.shown = Some(next);
        }
        watched.shown.clone().or_else(|| watched.next.clone())
    }

    fn lock_watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `/pipeline` answers, and whether all is well.
    pub fn pipeline(&self) -> (bool, Value) {
        let Some(shared) = self.watched() else {
            return (false, json!({ "status": "UNKNOWN", "reason": self.why_unknown(), "sources": [], "left_out": 0 }));
        };
        let now_ms = shared.now_ms();
        let view = shared.view();
        report::pipeline(&view, &view.judge(now_ms))
    }

    /// What `/history` answers.
    pub fn history(&self) -> Value {
        let report = |shared: Arc<Shared>| shared.history().report();
        self.watched().map_or_else(|| History::default().report(), report)
    }

    fn picture(&self) -> MutexGuard<'_, Picture> {
        self.picture.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Health {
    fn pipeline_status(&self) -> Value {
        let Some(shared) = self.watched() else {
            return json!({
                "pipeline": { "status": "UNKNOWN", "reason": self.why_unknown() }, "states": {}, "hosts": [], "sources": [],
                "left_out": { "hosts": 0, "sources": 0 },
            });
        };
        let now_ms = shared.now_ms();
        let view = shared.view();
        report::status(&view, &view.judge(now_ms))
    }

    fn gauges_of_sources(&self, gauges: &mut Gauges) {
        let Some(shared) = self.watched() else { return };
        let now_ms = shared.now_ms();
        let verdicts = shared.view().judge(now_ms);
        // Without a view nothing is told, so that nobody takes old numbers for new ones.
        if verdicts.unknown.is_some() {
            return;
        }
        for state in State::ALL {
            let num = verdicts.sources.iter().filter(|source| source.state == state).count();
            let labels = [("state", state.as_str())];
            gauges.set("indexer_sources", "Files by their state.", &labels, num as f64);
            let num = verdicts.hosts.iter().filter(|host| host.state == state).count();
            gauges.set("indexer_hosts", "Hosts by their state.", &labels, num as f64);
        }
        let missing: u64 = verdicts.sources.iter().map(|source| source.missing).sum();
        gauges.set("indexer_audit_missing_bytes", "Bytes that were sent and are nowhere.", &[], missing as f64);
    }
}

impl admin::Health for Health {
    fn live(&self) -> Result<(), String> {
        let last = self.last_turn.load(Ordering::Relaxed);
        let still = self.started.elapsed().saturating_sub(Duration::from_millis(last));
        if last > 0 && still > HANGS_AFTER {
            return Err(format!("the event loop has not turned for {} s", still.as_secs()));
        }
        Ok(())
    }

    fn ready(&self) -> Result<(), Vec<String>> {
        let picture = self.picture();
        if picture.blocked.is_empty() {
            return Ok(());
        }
        Err(picture.blocked.iter().map(|(label, words)| format!("{label}: {words}")).collect())
    }

    fn status(&self) -> Value {
        let picture = self.picture().clone();
        let partition = |p: &PartitionPicture| {
            json!({
                "topic": p.topic, "partition": p.partition, "finished": p.finished, "committed": p.committed,
                "end": p.end, "lag_records": p.lag_records, "lag_seconds": p.lag_seconds, "held": p.is_held,
            })
        };
        let blocked = picture.blocked.iter().map(|(label, words)| json!({"reason": label, "detail": words}));
        let mut status = json!({
            "blocked": blocked.collect::<Vec<_>>(),
            "partitions": picture.partitions.iter().map(partition).collect::<Vec<_>>(),
        });
        if let (Value::Object(status), Value::Object(details)) = (&mut status, picture.details) {
            status.extend(details);
        }
        if let (Value::Object(status), Value::Object(pipeline)) = (&mut status, self.pipeline_status()) {
            status.extend(pipeline);
        }
        status
    }

    fn gauges(&self, gauges: &mut Gauges) {
        let picture = self.picture();
        let reasons = BLOCKED_REASONS.iter().map(|reason| (reason, 0.0));
        for (reason, value) in reasons.chain(picture.blocked.iter().map(|(reason, _)| (reason, 1.0))) {
            let help = "1 while records do not flow for this reason.";
            gauges.set("indexer_blocked", help, &[("reason", reason)], value);
        }
        self.gauges_of_sources(gauges);
        let mut seconds = f64::NEG_INFINITY;
        for p in &picture.partitions {
            let number = p.partition.to_string();
            let labels = [("topic", p.topic.as_str()), ("partition", number.as_str())];
            if let Some(lag) = p.lag_records {
                gauges.set("indexer_lag_records", "Records not yet finished.", &labels, lag as f64);
            }
            seconds = seconds.max(p.lag_seconds.unwrap_or(f64::NEG_INFINITY));
        }
        if seconds.is_finite() {
            gauges.set("indexer_lag_seconds", "Age of the oldest unfinished record known.", &[], seconds);
        }
        picture.delays.tell(gauges);
        picture.retention.iter().for_each(|retention| retention.tell(gauges));
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "some instant to count from")]
mod tests {
    use super::*;

    #[test]
    fn a_view_is_shown_until_the_next_one_knows_as_much() {
        let health = Health::new(Instant::now(), "starting");
        let begin = || health.begin(View::new("group", &["logs".to_owned()], &[]));
        let is_shown = |shared: &Arc<Shared>| health.watched().is_some_and(|shown| Arc::ptr_eq(&shown, shared));
        assert!(health.watched().is_none());
        let first = begin();
        assert!(is_shown(&first));
        first.view().note_synced(0);
        let second = begin();
        assert!(is_shown(&first));
        // One that never knew anything gives way at once.
        let third = begin();
        assert!(is_shown(&first));
        second.view().note_synced(1);
        assert!(is_shown(&first));
        third.view().note_synced(2);
        assert!(is_shown(&third));
    }

    #[test]
    fn what_is_not_read_yet_is_told_apart_from_what_is_not_kept() {
        let health = Health::new(Instant::now(), "starting");
        let reasons =
            || [health.pipeline().1["reason"].clone(), health.pipeline_status()["pipeline"]["reason"].clone()];
        assert_eq!(reasons(), [NOT_READ; 2]);
        health.begin(View::new("group", &["logs".to_owned()], &[])).view().note_synced(0);
        health.do_without_ledger();
        assert_eq!(reasons(), [LEDGER_OFF; 2]);
        health.begin(View::new("group", &["logs".to_owned()], &[]));
        assert_eq!(reasons(), [NOT_READ; 2]);
    }
}
