//! From facts to states. Pure.
//!
//! | state | of | means |
//! |---|---|---|
//! | `GAP` | source | acknowledged bytes that no record brought, though the group is past all that was in the topic then |
//! | `SILENT` | host | no sign of life for five heartbeats |
//! | `ABSENT` | host | expected, and never heard of |
//! | `STALLED` | source, host | its shipper says that a file stands still which should be read |
//! | `BEHIND` | source | the group has not finished for four heartbeats what was acknowledged, or the shipper cannot send |
//! | `QUIET` | host | nothing new for longer than expected |
//! | `UNKNOWN` | host | it was not heard yet since this reader began |
//!
//! A host that said goodbye is not silent, a file that ended is not stalled.

use std::ops::Range;
use std::sync::Arc;

use millrace_common::ledger::Intervals;
use millrace_common::ledger::sources::{HostState, SourceState};
use millrace_common::record::SourceId;

use super::view::{ClockMs, Host, STALE_MS, Source, View};

/// Heartbeats that may be missing, one after the other.
const PATIENCE: i64 = 5;
/// How late anything else may be, in heartbeats. It is told of by one, so that an alarm comes within six.
const LATE_PATIENCE: i64 = 4;
/// Where no heartbeat says how often it comes.
const USUAL_INTERVAL_MS: i64 = 10_000;

/// From harmless to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Okay,
    Unknown,
    Quiet,
    Behind,
    Stalled,
    Absent,
    Silent,
    Gap,
}

impl State {
    pub const ALL: [Self; 8] =
        [Self::Okay, Self::Unknown, Self::Quiet, Self::Behind, Self::Stalled, Self::Absent, Self::Silent, Self::Gap];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Okay => "OKAY",
            Self::Unknown => "UNKNOWN",
            Self::Quiet => "QUIET",
            Self::Behind => "BEHIND",
            Self::Stalled => "STALLED",
            Self::Absent => "ABSENT",
            Self::Silent => "SILENT",
            Self::Gap => "GAP",
        }
    }
}

/// A source with all that was said of its bytes.
#[derive(Clone, Debug)]
pub struct SourceVerdict {
    pub host: Arc<str>,
    pub source: SourceId,
    pub state: State,
    /// Why it is not well, in words.
    pub detail: String,
    pub indexed: u64,
    pub dead_lettered: u64,
    pub skipped: u64,
    /// Finished, and no longer told apart.
    pub merged: u64,
    /// Acknowledged, and the group is not there yet.
    pub waiting: u64,
    /// How long the oldest of that has waited, as far as it was seen.
    pub late_ms: i64,
    /// Bytes that the shipper gave up.
    pub given_up: u64,
    /// Bytes of `holes`.
    pub missing: u64,
    /// Acknowledged, and nowhere.
    pub holes: Vec<Range<u64>>,
    pub num_duplicates: u64,
    pub num_dead_letters: u64,
}

#[derive(Clone, Debug)]
pub struct HostVerdict {
    pub id: Arc<str>,
    pub name: String,
    pub state: State,
    pub detail: String,
    /// Since the last sign of life, if it can be told.
    pub seen_ms_ago: Option<i64>,
    pub num_sources: usize,
}

#[derive(Clone, Debug)]
pub struct Verdicts {
    /// Why nothing can be said, if so.
    pub unknown: Option<&'static str>,
    pub hosts: Vec<HostVerdict>,
    pub sources: Vec<SourceVerdict>,
}

/// Nothing is known of the pipeline before that.
pub const NOT_READ: &str = "the ledger was not read to its end yet";

impl View {
    /// All states as of `now_ms`.
    pub fn judge(&self, now_ms: ClockMs) -> Verdicts {
        // What is late is late by the last time that all was read: while nothing can be read nothing is heard either.
        let as_of = self.synced_ms().unwrap_or(now_ms);
        let unknown = match self.synced_ms() {
            None => Some(NOT_READ),
            Some(synced) if now_ms - synced > STALE_MS => Some("the ledger cannot be read"),
            Some(_) => None,
        };
        let mut hosts: Vec<HostVerdict> = self.own_hosts().map(|(id, host)| self.judge_host(id, host, as_of)).collect();
        let mut sources = Vec::with_capacity(self.sources.len());
        for ((id, source), facts) in &self.sources {
            let at = hosts.binary_search_by(|host| host.id.cmp(id));
            // A row makes its host known; a host that was removed takes its files with it.
            let Some(host) = at.ok().and_then(|at| hosts.get_mut(at)) else { continue };
            let verdict = self.judge_source(id, *source, facts, host.state, as_of);
            host.num_sources += 1;
            // A silent host stays that, whatever its files are.
            if verdict.state > host.state && verdict.state != State::Silent && host.state != State::Silent {
                host.state = verdict.state;
                host.detail = format!("{}: {}", facts.row.path, verdict.detail);
            }
            sources.push(verdict);
        }
        self.add_absent(&mut hosts);
        Verdicts { unknown, hosts, sources }
    }

    /// Other pipelines have their hosts in the same topic.
    fn own_hosts(&self) -> impl Iterator<Item = (&Arc<str>, &Host)> {
        self.hosts.iter().filter(|(id, host)| {
            let topics = host.heartbeat.as_ref().map_or(&[][..], |heartbeat| &heartbeat.topics);
            topics.is_empty()
                || topics.iter().any(|topic| self.reads(topic))
                || self.source_keys(id).next().is_some()
                || self.expect.iter().any(|expected| *expected.host == ***id || expected.host == host.name)
        })
    }

    fn add_absent(&self, hosts: &mut Vec<HostVerdict>) {
        for expected in &self.expect {
            if hosts.iter().any(|host| *host.id == *expected.host || host.name == expected.host) {
                continue;
            }
            hosts.push(HostVerdict {
                id: expected.host.as_str().into(),
                name: expected.host.clone(),
                state: State::Absent,
                detail: "expected, and never heard of".to_owned(),
                seen_ms_ago: None,
                num_sources: 0,
            });
        }
    }

    fn judge_host(&self, id: &Arc<str>, host: &Host, as_of: ClockMs) -> HostVerdict {
        let (state, detail) = self.state_of_host(id, host, as_of);
        let seen = host.seen.and_then(|seen| self.when(seen));
        HostVerdict {
            id: Arc::clone(id),
            name: host.name.clone(),
            state,
            detail,
            seen_ms_ago: seen.map(|seen| (as_of - seen).max(0)),
            num_sources: 0,
        }
    }

    fn state_of_host(&self, id: &str, host: &Host, as_of: ClockMs) -> (State, String) {
        let heartbeat = host.heartbeat.as_ref();
        let has_left = heartbeat.is_some_and(|heartbeat| heartbeat.state == HostState::Stopped);
        if !has_left && let Some(seen) = host.seen {
            let at_latest = self.at_latest(seen);
            // While this reader could not reach Kafka the others perhaps could not either.
            let since = if seen.is_old { at_latest } else { at_latest.max(self.resumed_ms()) };
            if as_of - since > interval_ms(Some(host)) * PATIENCE {
                return (State::Silent, format!("no sign of life for {} s", (as_of - at_latest) / 1_000));
            }
            if self.when(seen).is_none() {
                return (State::Unknown, "not heard yet since this reader began".to_owned());
            }
        }
        let stalled = heartbeat.filter(|_| !has_left).and_then(|heartbeat| {
            heartbeat.stalled.iter().find(|stalled| {
                !self.sources.iter().any(|((host, _), source)| {
                    let is_active = source.row.state == SourceState::Active;
                    **host == *id && is_active && source.row.path == stalled.path
                })
            })
        });
        if let Some(stalled) = stalled {
            return (State::Stalled, format!("{}: {}", stalled.path, stalled.reason));
        }
        let expected = self.expect.iter().find(|expected| *expected.host == *id || expected.host == host.name);
        if let Some(interval) = expected.and_then(|expected| expected.interval) {
            let since = host.advanced.map_or(self.resumed_ms(), |advanced| self.at_latest(advanced));
            let quiet_ms = as_of - since;
            if quiet_ms > interval.as_millis() as i64 {
                return (State::Quiet, format!("nothing new for {} s", quiet_ms / 1_000));
            }
        }
        (State::Okay, String::new())
    }

    fn judge_source(
        &self,
        host: &Arc<str>,
        source: SourceId,
        facts: &Source,
        host_state: State,
        as_of: ClockMs,
    ) -> SourceVerdict {
        let row = &facts.row;
        let accounted = self.accounted(source, row);
        let holes = accounted.holes(0..facts.proven.min(row.acknowledged));
        let waiting: u64 =
            accounted.holes(facts.proven.min(row.acknowledged)..row.acknowledged).iter().map(length).sum();
        let missing = holes.iter().map(length).sum();
        let [mut indexed, mut dead_lettered, mut skipped, mut merged] = [const { Vec::new() }; 4];
        let (mut num_duplicates, mut num_dead_letters) = (0, 0);
        for finished in self.finished(source) {
            indexed.extend(finished.row.indexed.iter());
            dead_lettered.extend(finished.row.dead_lettered.iter());
            skipped.extend(finished.row.skipped.iter());
            merged.extend(finished.row.merged.iter());
            num_duplicates += finished.row.num_duplicates;
            num_dead_letters += finished.row.num_dead_letters;
        }
        let (state, detail) = self.state_of_source(host, facts, host_state, missing, &holes, as_of);
        let late_ms = facts.waiting.map_or(0, |waiting| as_of - waiting.since_ms).max(0);
        SourceVerdict {
            host: Arc::clone(host),
            source,
            state,
            detail,
            indexed: num_bytes(indexed),
            dead_lettered: num_bytes(dead_lettered),
            skipped: num_bytes(skipped),
            merged: num_bytes(merged),
            waiting,
            late_ms,
            given_up: row.gaps.iter().filter(|gap| gap.is_loss()).map(|gap| gap.end - gap.start).sum(),
            missing,
            holes,
            num_duplicates,
            num_dead_letters,
        }
    }

    fn state_of_source(
        &self,
        host: &Arc<str>,
        facts: &Source,
        host_state: State,
        missing: u64,
        holes: &[Range<u64>],
        as_of: ClockMs,
    ) -> (State, String) {
        if let Some(first) = holes.first() {
            let more = if holes.len() > 1 { format!(" and {} more", holes.len() - 1) } else { String::new() };
            return (State::Gap, format!("{missing} bytes are nowhere: {}..{}{more}", first.start, first.end));
        }
        let host = self.hosts.get(host);
        let is_active = facts.row.state == SourceState::Active;
        if is_active && host_state == State::Silent {
            return (State::Silent, "its host is silent".to_owned());
        }
        let limit = interval_ms(host) * LATE_PATIENCE;
        let heartbeat = host.and_then(|host| host.heartbeat.as_ref());
        let heartbeat = heartbeat.filter(|heartbeat| is_active && heartbeat.state == HostState::Running);
        if let Some(stalled) = heartbeat.and_then(|h| h.stalled.iter().find(|stalled| stalled.path == facts.row.path)) {
            return (State::Stalled, format!("{} bytes unread: {}", stalled.unread_bytes, stalled.reason));
        }
        if let Some(waiting) = facts.waiting {
            let late_ms = as_of - waiting.since_ms.max(self.resumed_ms());
            if late_ms > limit {
                return (State::Behind, format!("not indexed for {} s up to {}", late_ms / 1_000, waiting.target));
            }
        }
        let late_ms = as_of - self.at_latest(facts.arrival).max(self.resumed_ms());
        if let Some(heartbeat) = heartbeat
            && !heartbeat.blocked.is_empty()
            && facts.row.size > facts.row.acknowledged
            && late_ms > limit
        {
            return (State::Behind, format!("its shipper cannot send: {}", heartbeat.blocked.join(", ")));
        }
        (State::Okay, String::new())
    }
}

/// At most a day, so that arithmetic with it cannot overflow.
fn interval_ms(host: Option<&Host>) -> i64 {
    const MAX_MS: u64 = 24 * 3_600_000;
    let heartbeat = host.and_then(|host| host.heartbeat.as_ref());
    heartbeat.map_or(USUAL_INTERVAL_MS, |heartbeat| heartbeat.interval_ms.min(MAX_MS) as i64)
}

fn length(range: &Range<u64>) -> u64 {
    range.end - range.start
}

fn num_bytes(ranges: Vec<Range<u64>>) -> u64 {
    ranges.into_iter().collect::<Intervals>().num_bytes()
}
