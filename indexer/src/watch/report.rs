//! The verdicts as JSON: a part of `/status`, all of `/pipeline`, and gauges. Pure.
//!
//! `/status` gets these fields. Names, types and meanings stay; fields may be added.
//!
//! ```text
//! "pipeline": { "status": "OKAY" | "ERROR" | "UNKNOWN", "reason": null | "why it is UNKNOWN" },
//! "states":   { "OKAY": 12, "GAP": 0, … },               number of sources in each state, all eight always there
//! "hosts":    [ { "host": "id", "name": "web-1", "state": "OKAY", "detail": "", "seen_ms_ago": 1200 | null,
//!                 "num_sources": 3, "num_sources_known": 3 | null, "program": "0.1.0" | null, "stopped": false,
//!                 "unread_bytes": 0, "blocked": ["…"], "started_ms": 1795435200000 | null,
//!                 "acknowledged_bytes": 10, "indexed_bytes": 10,         sums over its sources
//!                 "late_ms": 0,                                          the worst of its sources
//!                 "events_per_second": 12.5 | null } ],                  between its last two heartbeats
//! "sources":  [ { "host": "id", "host_name": "web-1", "source": "0123456789abcdef", "path": "/a.log", "input": "app",
//!                 "topic": "logs", "state": "OKAY", "detail": "", "finished": false,
//!                 "size": 10, "read": 10, "acknowledged": 10,                       bytes, as its shipper told last
//!                 "indexed": 10, "dead_lettered": 0, "skipped": 0, "merged": 0,     bytes finished by the group
//!                 "waiting": 0, "late_ms": 0, "given_up": 0, "missing": 0,
//!                 "duplicates": 0, "dead_letters": 0,                               records
//!                 "holes": [[3, 7], …] } ],                                         at most 10, of the missing bytes
//! "left_out": { "hosts": 0, "sources": 0 }
//! ```
//!
//! At most [`MAX_ROWS`] hosts and sources are listed, the worst first, then by name; `left_out` counts the others. With
//! `ledger: off` the status is `UNKNOWN` and the lists are empty.

use serde_json::{Value, json};

use super::judge::{HostVerdict, SourceVerdict, State, Verdicts};
use super::view::View;

/// Hosts and sources that are listed.
pub const MAX_ROWS: usize = 1_000;
/// Troubles that `/pipeline` lists.
const MAX_TROUBLES: usize = 100;
const MAX_HOLES: usize = 10;

/// `OKAY`, `ERROR` or `UNKNOWN`, and why it is the last.
pub fn overall(verdicts: &Verdicts) -> (&'static str, Option<&'static str>) {
    let is_well = |state: State| matches!(state, State::Okay | State::Unknown);
    if let Some(reason) = verdicts.unknown {
        return ("UNKNOWN", Some(reason));
    }
    let hosts_are_well = verdicts.hosts.iter().all(|host| is_well(host.state));
    if !hosts_are_well || !verdicts.sources.iter().all(|source| is_well(source.state)) {
        return ("ERROR", None);
    }
    if verdicts.hosts.iter().any(|host| host.state == State::Unknown) {
        return ("UNKNOWN", Some("not all hosts were heard yet since this reader began"));
    }
    ("OKAY", None)
}

/// What `/pipeline` answers, and whether that is good.
pub fn pipeline(view: &View, verdicts: &Verdicts) -> (bool, Value) {
    let (status, reason) = overall(verdicts);
    if status == "OKAY" {
        return (true, json!({ "status": status }));
    }
    let is_bad = |state: State| state > State::Unknown;
    let hosts = verdicts.hosts.iter().filter(|host| is_bad(host.state)).map(|host| {
        let fact =
            json!({ "host": &*host.id, "host_name": host.name, "state": host.state.as_str(), "detail": host.detail });
        (host.state, fact)
    });
    // A silent host is told once.
    let sources = verdicts.sources.iter().filter(|source| is_bad(source.state) && source.state != State::Silent);
    let sources = sources.filter_map(|source| {
        let row = &view.sources.get(&(source.host.clone(), source.source))?.row;
        let fact = json!({
            "host": &*source.host, "host_name": row.host_name, "source": source.source, "path": row.path,
            "state": source.state.as_str(), "detail": source.detail,
        });
        Some((source.state, fact))
    });
    let mut troubles: Vec<(State, Value)> =
        if verdicts.unknown.is_none() { hosts.chain(sources).collect() } else { Vec::new() };
    troubles.sort_by_key(|(state, _)| std::cmp::Reverse(*state));
    let num_left_out = troubles.len().saturating_sub(MAX_TROUBLES);
    let listed: Vec<Value> = troubles.into_iter().take(MAX_TROUBLES).map(|(_, fact)| fact).collect();
    (false, json!({ "status": status, "reason": reason, "sources": listed, "left_out": num_left_out }))
}

/// The fields of `/status`.
pub fn status(view: &View, verdicts: &Verdicts) -> Value {
    let (status, reason) = overall(verdicts);
    let mut hosts: Vec<&HostVerdict> = verdicts.hosts.iter().collect();
    hosts.sort_by(|a, b| (b.state, &a.name, &a.id).cmp(&(a.state, &b.name, &b.id)));
    let mut sources: Vec<&SourceVerdict> = verdicts.sources.iter().collect();
    let path = |source: &SourceVerdict| {
        view.sources.get(&(source.host.clone(), source.source)).map_or("", |facts| facts.row.path.as_str())
    };
    sources.sort_by(|a, b| (b.state, path(a), a.source).cmp(&(a.state, path(b), b.source)));
    let left_out = json!({
        "hosts": hosts.len().saturating_sub(MAX_ROWS),
        "sources": sources.len().saturating_sub(MAX_ROWS),
    });
    let states = State::ALL.map(|state| {
        let num = verdicts.sources.iter().filter(|source| source.state == state).count();
        (state.as_str().to_owned(), Value::from(num))
    });
    json!({
        "pipeline": { "status": status, "reason": reason },
        "states": states.into_iter().collect::<serde_json::Map<_, _>>(),
        "hosts": hosts.into_iter().take(MAX_ROWS).map(|host| host_fact(view, verdicts, host)).collect::<Vec<_>>(),
        "sources": sources.into_iter().take(MAX_ROWS).filter_map(|source| source_fact(view, source)).collect::<Vec<_>>(),
        "left_out": left_out,
    })
}

fn host_fact(view: &View, verdicts: &Verdicts, host: &HostVerdict) -> Value {
    let heartbeat = view.hosts.get(&host.id).and_then(|host| host.heartbeat.as_ref());
    // Sources are in the order of their hosts.
    let from = verdicts.sources.partition_point(|source| source.host < host.id);
    let own = verdicts.sources[from..].iter().take_while(|source| source.host == host.id);
    let (mut acknowledged, mut indexed, mut late_ms) = (0, 0, 0);
    for source in own {
        acknowledged +=
            view.sources.get(&(source.host.clone(), source.source)).map_or(0, |facts| facts.row.acknowledged);
        indexed += source.indexed;
        late_ms = late_ms.max(source.late_ms);
    }
    json!({
        "host": &*host.id, "name": host.name, "state": host.state.as_str(), "detail": host.detail,
        "seen_ms_ago": host.seen_ms_ago, "num_sources": host.num_sources,
        "num_sources_known": heartbeat.map(|heartbeat| heartbeat.num_sources),
        "program": heartbeat.map(|heartbeat| &heartbeat.program),
        "stopped": heartbeat.is_some_and(|h| h.state == millrace_common::ledger::sources::HostState::Stopped),
        "unread_bytes": heartbeat.map_or(0, |heartbeat| heartbeat.unread_bytes),
        "blocked": heartbeat.map_or(&[][..], |heartbeat| &heartbeat.blocked),
        "started_ms": heartbeat.map(|heartbeat| heartbeat.started_ms),
        "acknowledged_bytes": acknowledged, "indexed_bytes": indexed, "late_ms": late_ms,
        "events_per_second": view.hosts.get(&host.id).and_then(|host| host.events_per_second),
    })
}

/// One source as `/status` and the audit tell it.
pub fn source_fact(view: &View, source: &SourceVerdict) -> Option<Value> {
    let row = &view.sources.get(&(source.host.clone(), source.source))?.row;
    let holes: Vec<_> = source.holes.iter().take(MAX_HOLES).map(|hole| [hole.start, hole.end]).collect();
    Some(json!({
        "host": &*source.host, "host_name": row.host_name, "source": source.source, "path": row.path, "input": row.input,
        "topic": row.topic, "state": source.state.as_str(), "detail": source.detail,
        "finished": row.state == millrace_common::ledger::sources::SourceState::Finished,
        "size": row.size, "read": row.read, "acknowledged": row.acknowledged,
        "indexed": source.indexed, "dead_lettered": source.dead_lettered, "skipped": source.skipped,
        "merged": source.merged, "waiting": source.waiting, "late_ms": source.late_ms, "given_up": source.given_up, "missing": source.missing,
        "duplicates": source.num_duplicates, "dead_letters": source.num_dead_letters, "holes": holes,
    }))
}
