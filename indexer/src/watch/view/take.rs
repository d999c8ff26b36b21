//! Facts of the two topics, one by one.

use std::sync::Arc;

use millrace_common::ledger::indexed::{IndexedKey, IndexedRow};
use millrace_common::ledger::reader::Fact;
use millrace_common::ledger::sources::{Heartbeat, SourceKey, SourceRow};
use millrace_common::ledger::{INDEXED, decode};
use millrace_common::record::SourceId;

use super::{Arrival, ClockMs, Finished, Source, View};

impl View {
    /// Takes a fact of one of the two topics.
    pub fn take(&mut self, fact: &Fact, now_ms: ClockMs) {
        let arrival = Arrival { clock_ms: now_ms, broker_ms: fact.broker_ms, is_old: self.synced_ms.is_none() };
        self.newest_broker_ms = self.newest_broker_ms.max(fact.broker_ms);
        if !arrival.is_old && self.anchor.is_none() {
            self.anchor = Some((now_ms, fact.broker_ms));
        }
        let is_readable = match fact.topic.as_str() {
            INDEXED => self.take_indexed(fact),
            _ => self.take_source(fact, arrival),
        };
        self.num_unreadable += u64::from(is_readable.is_none());
    }

    fn take_indexed(&mut self, fact: &Fact) -> Option<()> {
        let key: IndexedKey = decode(&fact.key).ok()?;
        if key.group != self.group {
            return Some(());
        }
        let row = fact.value.as_deref().map(decode::<IndexedRow>).transpose().ok()?;
        let finished = self.indexed.entry(key.source).or_default();
        finished.retain(|known| known.key != key);
        if let Some(row) = row {
            finished.push(Finished { key, row, broker_ms: fact.broker_ms });
        } else if finished.is_empty() {
            self.indexed.remove(&key.source);
        }
        Some(())
    }

    fn take_source(&mut self, fact: &Fact, arrival: Arrival) -> Option<()> {
        match decode(&fact.key).ok()? {
            SourceKey::Host((id,)) => match &fact.value {
                None => {
                    self.hosts.remove(id.as_str());
                }
                Some(value) => {
                    let heartbeat: Heartbeat = decode(value).ok()?;
                    let host = self.hosts.entry(id.into()).or_default();
                    host.name.clone_from(&heartbeat.host_name);
                    host.events_per_second = host.heartbeat.as_ref().and_then(|before| rate(before, &heartbeat));
                    host.heartbeat = Some(heartbeat);
                    host.seen = Some(arrival);
                }
            },
            SourceKey::Source(id, source) => {
                let key = (Arc::from(id), source);
                let Some(value) = &fact.value else {
                    self.sources.remove(&key);
                    return Some(());
                };
                let row: SourceRow = decode(value).ok()?;
                if self.reads(&row.topic) {
                    self.take_row(key, row, arrival);
                }
            }
        }
        Some(())
    }

    fn take_row(&mut self, key: (Arc<str>, SourceId), row: SourceRow, arrival: Arrival) {
        let known = self.sources.get(&key);
        let has_advanced = known.is_none_or(|known| known.row.acknowledged < row.acknowledged);
        let host = self.hosts.entry(Arc::clone(&key.0)).or_default();
        if host.heartbeat.is_none() {
            host.name.clone_from(&row.host_name);
            host.seen = Some(arrival);
        }
        if has_advanced {
            host.advanced = Some(arrival);
        }
        let new = Source { row, arrival, proven: 0, in_proof: 0, complete: 0, waiting: None };
        match self.sources.get_mut(&key) {
            Some(known) => (known.row, known.arrival) = (new.row, arrival),
            None => _ = self.sources.insert(key, new),
        }
    }
}

/// Events a second from one heartbeat to the next. `None` if another process began between them.
fn rate(before: &Heartbeat, after: &Heartbeat) -> Option<f64> {
    let passed_ms = after.at_ms - before.at_ms;
    let num_events = after.acked_events.checked_sub(before.acked_events)?;
    (passed_ms > 0 && before.started_ms == after.started_ms).then(|| num_events as f64 * 1_000.0 / passed_ms as f64)
}
