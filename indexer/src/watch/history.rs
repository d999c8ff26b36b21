//! What each host delivered over the last hour, minute by minute. Pure; bounded by [`MAX_HOSTS`] and [`NUM_STEPS`].
//!
//! `/history` answers with it, names and meanings stay:
//!
//! ```text
//! { "step_seconds": 60,
//!   "hosts": [ { "host": "id", "name": "web-1", "acknowledged": [0, 5120, …], "indexed": [0, 5120, …] } ] }
//! ```
//!
//! Bytes in each minute, oldest first, at most 60 and the last one still growing: `acknowledged` by Kafka and `indexed` by the group.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use millrace_common::ledger::Intervals;
use millrace_common::record::SourceId;
use serde_json::{Value, json};

use super::view::{ClockMs, View};

const STEP_MS: ClockMs = 60_000;
const NUM_STEPS: usize = 60;
/// Hosts that are followed, the first ones seen.
const MAX_HOSTS: usize = 1_000;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bytes {
    acknowledged: u64,
    indexed: u64,
}

#[derive(Debug, Default)]
struct Series {
    name: String,
    /// Sums over the host's sources at the last look.
    last: Bytes,
    /// The last one is of the minute that runs.
    steps: VecDeque<Bytes>,
}

#[derive(Debug, Default)]
pub struct History {
    hosts: BTreeMap<Arc<str>, Series>,
    /// Number of the minute that runs.
    step: Option<ClockMs>,
}

impl History {
    /// Looks at the view, which has been read to its end. To be called every few seconds.
    pub fn look(&mut self, view: &View, now_ms: ClockMs) {
        let mut sums: BTreeMap<&Arc<str>, Bytes> = BTreeMap::new();
        for ((host, id), source) in &view.sources {
            let sum = sums.entry(host).or_default();
            sum.acknowledged += source.row.acknowledged;
            sum.indexed += finished_bytes(view, *id);
        }
        self.turn_to(now_ms.div_euclid(STEP_MS));
        for (host, sum) in sums {
            if let Some(series) = self.hosts.get_mut(host) {
                series.add(sum);
            } else if self.hosts.len() < MAX_HOSTS {
                let name = view.hosts.get(host).map(|host| host.name.clone()).unwrap_or_default();
                // What was there before is no work of this minute.
                let series = Series { name, last: sum, steps: VecDeque::from([Bytes::default()]) };
                self.hosts.insert(Arc::clone(host), series);
            }
        }
        self.hosts.retain(|host, _| view.hosts.contains_key(host));
    }

    fn turn_to(&mut self, step: ClockMs) {
        let num_new = self.step.map_or(0, |before| step - before).clamp(0, NUM_STEPS as ClockMs);
        self.step = Some(step);
        for series in self.hosts.values_mut() {
            series.steps.extend((0..num_new).map(|_| Bytes::default()));
            let excess = series.steps.len().saturating_sub(NUM_STEPS);
            series.steps.drain(..excess);
        }
    }

    pub fn report(&self) -> Value {
        let hosts = self.hosts.iter().map(|(host, series)| {
            let of = |bytes: fn(&Bytes) -> u64| series.steps.iter().map(bytes).collect::<Vec<_>>();
            json!({
                "host": &**host, "name": series.name,
                "acknowledged": of(|step| step.acknowledged), "indexed": of(|step| step.indexed),
            })
        });
        json!({ "step_seconds": STEP_MS / 1_000, "hosts": hosts.collect::<Vec<_>>() })
    }
}

/// Ranges of two writers that overlap count twice: good enough for a rate.
fn finished_bytes(view: &View, source: SourceId) -> u64 {
    view.finished(source).iter().flat_map(|finished| finished.row.sets()).map(Intervals::num_bytes).sum()
}

impl Series {
    fn add(&mut self, sum: Bytes) {
        if let Some(step) = self.steps.back_mut() {
            // Less than before: rows of finished files were removed.
            step.acknowledged += sum.acknowledged.saturating_sub(self.last.acknowledged);
            step.indexed += sum.indexed.saturating_sub(self.last.indexed);
        }
        self.last = sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(acknowledged: u64, indexed: u64) -> Bytes {
        Bytes { acknowledged, indexed }
    }

    fn history() -> History {
        let series =
            Series { name: "web-1".to_owned(), last: bytes(100, 50), steps: VecDeque::from([Bytes::default()]) };
        History { hosts: BTreeMap::from([("h".into(), series)]), step: Some(7) }
    }

    fn steps(history: &History) -> Vec<Bytes> {
        history.hosts["h"].steps.iter().copied().collect()
    }

    #[test]
    fn what_came_is_counted_in_its_minute() {
        let mut history = history();
        history.hosts.get_mut("h").unwrap().add(bytes(160, 60));
        history.turn_to(9);
        history.hosts.get_mut("h").unwrap().add(bytes(165, 165));
        assert_eq!(steps(&history), [bytes(60, 10), bytes(0, 0), bytes(5, 105)]);
    }

    #[test]
    fn removed_rows_are_no_loss() {
        let mut history = history();
        history.hosts.get_mut("h").unwrap().add(bytes(10, 10));
        history.hosts.get_mut("h").unwrap().add(bytes(15, 11));
        assert_eq!(steps(&history), [bytes(5, 1)]);
    }

    #[test]
    fn an_hour_is_kept() {
        let mut history = history();
        history.turn_to(1_000_000);
        assert_eq!(steps(&history).len(), NUM_STEPS);
        history.turn_to(5);
        assert_eq!(steps(&history).len(), NUM_STEPS);
    }
}
