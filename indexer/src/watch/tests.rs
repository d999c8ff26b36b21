use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use millrace_common::ledger::indexed::{IndexedKey, IndexedRow};
use millrace_common::ledger::reader::Fact;
use millrace_common::ledger::sources::{Gap, Heartbeat, HostState, Opaque, SourceKey, SourceRow, SourceState, Stalled};
use millrace_common::ledger::{INDEXED, Intervals, SOURCES, encode};
use millrace_common::record::SourceId;
use serde::Serialize;

use super::judge::{SourceVerdict, State, Verdicts};
use super::report;
use super::view::{ClockMs, View};
use crate::config::Expect;

const SOURCE: SourceId = SourceId::from_u64(7);
const SECOND: i64 = 1_000;
/// The broker's clock is far from the reader's.
const BROKER: i64 = 1_795_000_000_000;

/// A view with the reader's clock and a topic of one partition.
struct Rig {
    view: View,
    now: ClockMs,
    end: i64,
    committed: i64,
}

fn row(acknowledged: u64) -> SourceRow {
    SourceRow {
        version: 1,
        host_name: "web-1".into(),
        input: "app".into(),
        topic: "logs".into(),
        path: "/a.log".into(),
        inode: 1,
        birth_time_ns: 2,
        generation: 0,
        size: acknowledged,
        read: acknowledged,
        acknowledged,
        gaps: Vec::new(),
        state: SourceState::Active,
        at_ms: 0,
        checkpoint: Opaque::default(),
    }
}

fn heartbeat() -> Heartbeat {
    Heartbeat {
        version: 1,
        host_name: "web-1".into(),
        program: "0.1.0".into(),
        interval_ms: 10_000,
        at_ms: 0,
        started_ms: 0,
        state: HostState::Running,
        topics: vec!["logs".into()],
        num_sources: 1,
        acked_events: 0,
        unread_bytes: 0,
        blocked: Vec::new(),
        stalled: Vec::new(),
    }
}

fn indexed(ranges: &[(u64, u64)]) -> IndexedRow {
    IndexedRow { indexed: Intervals::from(ranges.to_vec()), ..IndexedRow::default() }
}

impl Rig {
    fn expecting(expect: &[Expect]) -> Self {
        Self { view: View::new("g", &["logs".into()], expect), now: 0, end: 0, committed: 0 }
    }

    /// A view that has read all there was, which was nothing.
    fn new() -> Self {
        let mut rig = Self::expecting(&[]);
        rig.round();
        rig
    }

    fn fact(&mut self, topic: &str, key: &impl Serialize, value: Option<Vec<u8>>, age_ms: i64) {
        let broker_ms = BROKER + self.now - age_ms;
        let fact = Fact { topic: topic.into(), offset: 0, broker_ms, key: encode(key), value };
        self.view.take(&fact, self.now);
        assert_eq!(self.view.num_unreadable, 0);
    }

    fn beat(&mut self, heartbeat: &Heartbeat) {
        self.fact(SOURCES, &SourceKey::Host(("h".into(),)), Some(encode(heartbeat)), 0);
    }

    fn source(&mut self, row: &SourceRow) {
        self.fact(SOURCES, &SourceKey::Source("h".into(), SOURCE), Some(encode(row)), 0);
    }

    fn finish(&mut self, writer: &str, row: Option<IndexedRow>) {
        let key =
            IndexedKey { group: "g".into(), topic: "logs".into(), partition: 0, source: SOURCE, writer: writer.into() };
        self.fact(INDEXED, &key, row.map(|row| encode(&row)), 0);
    }

    /// A round of reading: one proof begins, and the one before ends if the group is there.
    fn round(&mut self) {
        let begin = self.now;
        let ends: BTreeMap<i32, Range<i64>> = BTreeMap::from([(0, 0..self.end)]);
        let wanted = self.view.begin_proofs();
        self.view.note_committed("logs", &BTreeMap::from([(0, self.committed)]), &ends);
        if !wanted.is_empty() {
            self.view.note_ends("logs", Some(ends));
        }
        self.view.note_synced(begin);
    }

    /// Lets time pass, with heartbeats and rounds.
    fn pass(&mut self, seconds: i64, heartbeat: Option<&Heartbeat>) {
        for second in 1..=seconds {
            self.now += SECOND;
            if let Some(heartbeat) = heartbeat.filter(|_| second % 10 == 0) {
                self.beat(heartbeat);
            }
            if second % 2 == 0 {
                self.round();
            }
        }
    }

    fn verdicts(&self) -> Verdicts {
        self.view.judge(self.now)
    }

    #[track_caller]
    fn check(&self, host: State, source: State) -> SourceVerdict {
        let verdicts = self.verdicts();
        assert_eq!(verdicts.unknown, None);
        assert_eq!(verdicts.hosts[0].state, host, "{:?}", verdicts.hosts[0]);
        assert_eq!(verdicts.sources[0].state, source, "{:?}", verdicts.sources[0]);
        verdicts.sources[0].clone()
    }

    #[track_caller]
    fn check_host(&self, state: State) {
        assert_eq!(self.verdicts().hosts[0].state, state, "{:?}", self.verdicts().hosts);
    }
}

/// A host with a file of which 100 bytes are acknowledged.
fn with_source() -> Rig {
    let mut rig = Rig::new();
    rig.beat(&heartbeat());
    rig.source(&row(100));
    rig.end = 10;
    rig
}

#[test]
fn all_that_was_acknowledged_and_indexed_is_okay() {
    let mut rig = with_source();
    rig.finish("w", Some(indexed(&[(0, 100)])));
    rig.committed = 10;
    rig.pass(60, Some(&heartbeat()));
    let source = rig.check(State::Okay, State::Okay);
    assert_eq!((source.indexed, source.waiting, source.missing), (100, 0, 0));
    assert!(report::pipeline(&rig.view, &rig.verdicts()).0);
}

#[test]
fn a_hole_is_waiting_until_the_group_is_past_the_end_at_the_report_and_then_a_gap() {
    let mut rig = with_source();
    rig.finish("w", Some(indexed(&[(0, 40), (60, 100)])));
    rig.committed = 9;
    rig.pass(20, Some(&heartbeat()));
    assert_eq!(rig.check(State::Okay, State::Okay).waiting, 20);
    rig.committed = 10;
    rig.pass(6, None);
    let source = rig.check(State::Gap, State::Gap);
    assert_eq!((source.missing, source.holes.first()), (20, Some(&(40..60))));
    let (is_well, answer) = report::pipeline(&rig.view, &rig.verdicts());
    assert!(!is_well && answer["status"] == "ERROR" && answer["sources"].to_string().contains("40..60"), "{answer}");
    rig.finish("w2", Some(indexed(&[(40, 60)])));
    rig.check(State::Okay, State::Okay);
}

#[test]
fn what_is_acknowledged_after_the_look_at_the_ends_is_not_missed_yet() {
    let mut rig = with_source();
    rig.finish("w", Some(indexed(&[(0, 100)])));
    rig.committed = 10;
    rig.pass(10, Some(&heartbeat()));
    // A proof begins, and what is reported then stands behind the ends that it looked at.
    rig.round();
    rig.source(&row(200));
    rig.round();
    rig.check(State::Okay, State::Okay);
    rig.end = 20;
    rig.pass(20, Some(&heartbeat()));
    assert_eq!(rig.check(State::Okay, State::Okay).waiting, 100);
    rig.committed = 20;
    rig.pass(6, None);
    assert_eq!(rig.check(State::Gap, State::Gap).missing, 100);
}

#[test]
fn records_that_the_log_lost_before_they_were_read_are_a_gap() {
    let mut rig = with_source();
    let begins = BTreeMap::from([(0, 10..10)]);
    // The first proof on its way knew of nothing.
    for _ in 0..3 {
        let wanted = rig.view.begin_proofs();
        rig.view.note_committed("logs", &BTreeMap::new(), &begins);
        if !wanted.is_empty() {
            rig.view.note_ends("logs", Some(begins.clone()));
        }
        rig.view.note_synced(rig.now);
    }
    assert_eq!(rig.check(State::Gap, State::Gap).holes.first(), Some(&(0..100)));
}

#[test]
fn dead_letters_skips_and_what_the_shipper_gave_up_are_no_holes() {
    let mut rig = with_source();
    let gap = |start, end, reason: &str| Gap { start, end, reason: reason.into() };
    rig.source(&SourceRow { gaps: vec![gap(50, 60, "truncated"), gap(60, 70, "excluded")], ..row(100) });
    let dead = Intervals::from(vec![(20, 40)]);
    let skipped = Intervals::from(vec![(40, 50)]);
    let merged = Intervals::from(vec![(70, 80)]);
    let facts = IndexedRow { dead_lettered: dead, skipped, merged, ..indexed(&[(0, 20), (80, 100)]) };
    rig.finish("w", Some(facts));
    rig.committed = 10;
    rig.pass(60, Some(&heartbeat()));
    let source = rig.check(State::Okay, State::Okay);
    assert_eq!((source.indexed, source.dead_lettered, source.skipped, source.merged), (40, 20, 10, 10));
    assert_eq!(source.given_up, 10);
}

#[test]
fn a_host_without_heartbeats_is_silent_within_a_minute_and_well_again_with_the_next() {
    let mut rig = with_source();
    rig.finish("w", Some(indexed(&[(0, 100)])));
    rig.committed = 10;
    rig.pass(44, None);
    rig.check(State::Okay, State::Okay);
    rig.pass(10, None);
    rig.check(State::Silent, State::Silent);
    let (_, answer) = report::pipeline(&rig.view, &rig.verdicts());
    assert_eq!(answer["sources"].as_array().map(Vec::len), Some(1), "told once: {answer}");
    rig.beat(&heartbeat());
    rig.round();
    rig.check(State::Okay, State::Okay);
}

#[test]
fn a_short_heartbeat_makes_silence_short() {
    let mut rig = Rig::new();
    rig.beat(&Heartbeat { interval_ms: 1_000, ..heartbeat() });
    rig.pass(8, None);
    rig.check_host(State::Silent);
}

#[test]
fn a_goodbye_and_a_file_that_ended_are_no_alarm() {
    let mut rig = with_source();
    rig.finish("w", Some(indexed(&[(0, 100)])));
    rig.committed = 10;
    let stalled = vec![Stalled { path: "/a.log".into(), since_ms: 0, unread_bytes: 5, reason: "stands still".into() }];
    rig.beat(&Heartbeat { state: HostState::Stopped, stalled: stalled.clone(), ..heartbeat() });
    rig.pass(600, None);
    rig.check(State::Okay, State::Okay);
    rig.source(&SourceRow { state: SourceState::Finished, ..row(100) });
    rig.beat(&heartbeat());
    rig.pass(100, None);
    rig.check(State::Silent, State::Okay);
}

#[test]
fn a_file_that_stands_still_is_stalled_by_name() {
    let mut rig = with_source();
    rig.finish("w", Some(indexed(&[(0, 100)])));
    let stalled =
        |path: &str| vec![Stalled { path: path.into(), since_ms: 0, unread_bytes: 5, reason: "stands still".into() }];
    rig.beat(&Heartbeat { stalled: stalled("/a.log"), ..heartbeat() });
    rig.check(State::Stalled, State::Stalled);
    // One that was never opened has no row.
    rig.beat(&Heartbeat { stalled: stalled("/b.log"), ..heartbeat() });
    rig.check(State::Stalled, State::Okay);
    assert!(rig.verdicts().hosts[0].detail.starts_with("/b.log"));
    rig.beat(&heartbeat());
    rig.check(State::Okay, State::Okay);
}

#[test]
fn a_group_that_does_not_come_along_is_behind_within_a_minute_and_a_slow_bulk_is_not() {
    let mut rig = with_source();
    rig.pass(35, Some(&heartbeat()));
    rig.check(State::Okay, State::Okay);
    rig.pass(10, Some(&heartbeat()));
    rig.check(State::Behind, State::Behind);
    rig.finish("w", Some(indexed(&[(0, 100)])));
    rig.committed = 10;
    rig.round();
    rig.check(State::Okay, State::Okay);
}

#[test]
fn a_group_that_is_always_a_little_late_is_not_behind() {
    let mut rig = with_source();
    for at in 1..100 {
        rig.source(&row(100 * at + 100));
        rig.finish("w", Some(indexed(&[(0, 100 * at)])));
        rig.pass(2, Some(&heartbeat()));
        rig.beat(&heartbeat());
    }
    rig.check(State::Okay, State::Okay);
}

#[test]
fn a_shipper_that_cannot_send_is_behind() {
    let mut rig = with_source();
    rig.finish("w", Some(indexed(&[(0, 100)])));
    rig.committed = 10;
    rig.source(&SourceRow { size: 500, ..row(100) });
    rig.pass(100, Some(&heartbeat()));
    rig.check(State::Okay, State::Okay);
    rig.pass(20, Some(&Heartbeat { blocked: vec!["topic_missing".into()], ..heartbeat() }));
    rig.check(State::Behind, State::Behind);
}

#[test]
fn hosts_that_are_expected_are_absent_or_quiet() {
    let expect = |host: &str, interval| Expect { host: host.into(), interval };
    let mut rig = Rig::expecting(&[expect("web-1", Some(Duration::from_secs(300))), expect("web-2", None)]);
    rig.round();
    let states = |rig: &Rig| -> Vec<_> { rig.verdicts().hosts.iter().map(|host| host.state).collect() };
    assert_eq!(states(&rig), [State::Absent, State::Absent]);
    rig.beat(&heartbeat());
    rig.source(&row(100));
    rig.finish("w", Some(indexed(&[(0, 100)])));
    rig.pass(290, Some(&heartbeat()));
    assert_eq!(states(&rig), [State::Okay, State::Absent]);
    // The row is written again, and nothing new was acknowledged.
    rig.source(&row(100));
    rig.pass(20, Some(&heartbeat()));
    assert_eq!(states(&rig), [State::Quiet, State::Absent]);
    rig.source(&row(101));
    rig.round();
    assert_eq!(states(&rig), [State::Okay, State::Absent]);
}

#[test]
fn nothing_is_known_before_all_was_read_and_while_nothing_can_be_read() {
    let mut rig = Rig::expecting(&[]);
    rig.beat(&heartbeat());
    assert!(rig.verdicts().unknown.is_some());
    rig.round();
    assert!(rig.verdicts().unknown.is_none());
    // Kafka is away for ten minutes: nothing is heard, and nothing is late when it is back.
    rig.now += 600 * SECOND;
    assert!(rig.verdicts().unknown.is_some());
    let (is_well, answer) = report::pipeline(&rig.view, &rig.verdicts());
    assert!(!is_well && answer["status"] == "UNKNOWN", "{answer}");
    rig.beat(&heartbeat());
    rig.round();
    rig.check_host(State::Okay);
}

#[test]
fn after_an_outage_everything_late_gets_its_time_anew() {
    let mut rig = with_source();
    rig.round();
    rig.now += 600 * SECOND;
    rig.round();
    rig.check(State::Okay, State::Okay);
    rig.pass(60, None);
    rig.check(State::Silent, State::Silent);
}

#[test]
fn a_host_that_was_gone_before_the_reader_came_is_silent_by_the_time_of_the_broker() {
    let mut rig = Rig::expecting(&[]);
    let beat = |rig: &mut Rig, id: &str, age_ms| {
        rig.fact(SOURCES, &SourceKey::Host((id.into(),)), Some(encode(&heartbeat())), age_ms);
    };
    beat(&mut rig, "dead", 3 * 86_400 * SECOND);
    beat(&mut rig, "lives", 5 * SECOND);
    rig.round();
    let states = |rig: &Rig| -> Vec<_> { rig.verdicts().hosts.iter().map(|host| host.state).collect() };
    // How long ago the last one was nobody knows until something comes.
    assert_eq!(states(&rig), [State::Silent, State::Unknown]);
    rig.now += 5 * SECOND;
    beat(&mut rig, "lives", 0);
    rig.round();
    assert_eq!(states(&rig), [State::Silent, State::Okay]);
}

#[test]
fn a_pipeline_of_which_nothing_is_heard_turns_from_unknown_to_silent() {
    let mut rig = Rig::expecting(&[]);
    rig.beat(&heartbeat());
    rig.round();
    rig.check_host(State::Unknown);
    assert!(!report::pipeline(&rig.view, &rig.verdicts()).0);
    rig.pass(60, None);
    rig.check_host(State::Silent);
}

#[test]
fn a_rebalance_with_its_folds_and_removals_hides_nothing() {
    let mut rig = with_source();
    rig.finish("w1", Some(indexed(&[(0, 50)])));
    rig.committed = 5;
    rig.pass(10, Some(&heartbeat()));
    rig.finish("w2", Some(indexed(&[(50, 100)])));
    rig.committed = 10;
    rig.pass(10, Some(&heartbeat()));
    rig.check(State::Okay, State::Okay);
    rig.finish("w2", Some(indexed(&[(0, 100)])));
    rig.finish("w1", None);
    rig.pass(10, Some(&heartbeat()));
    assert_eq!(rig.check(State::Okay, State::Okay).indexed, 100);
    // One that was thought dead writes once more.
    rig.finish("w1", Some(indexed(&[(0, 60)])));
    let left = rig.view.left_by_others("logs", 0, "w2");
    assert_eq!(left.iter().map(|(key, _)| key.writer.as_str()).collect::<Vec<_>>(), ["w1"]);
}

#[test]
fn rows_are_forgotten_only_when_no_shipper_knows_the_source_and_nothing_comes_of_it() {
    let mut rig = with_source();
    rig.finish("w", Some(indexed(&[(0, 100)])));
    rig.pass(100, Some(&heartbeat()));
    assert!(rig.view.forgotten(50 * SECOND).is_empty());
    rig.fact(SOURCES, &SourceKey::Source("h".into(), SOURCE), None, 0);
    assert_eq!(rig.view.forgotten(50 * SECOND).len(), 1);
    assert!(rig.view.forgotten(500 * SECOND).is_empty());
}

#[test]
fn a_forgotten_host_is_gone_with_its_files() {
    let mut rig = with_source();
    rig.fact(SOURCES, &SourceKey::Source("h".into(), SOURCE), None, 0);
    rig.fact(SOURCES, &SourceKey::Host(("h".into(),)), None, 0);
    rig.pass(100, None);
    let verdicts = rig.verdicts();
    assert!(verdicts.hosts.is_empty() && verdicts.sources.is_empty());
    assert!(report::pipeline(&rig.view, &verdicts).0);
}

#[test]
fn the_status_is_bounded_and_the_worst_come_first() {
    let mut rig = Rig::new();
    for n in 0..1_500 {
        let key = SourceKey::Source("h".into(), SourceId::from_u64(n));
        rig.fact(SOURCES, &key, Some(encode(&row(0))), 0);
    }
    rig.source(&row(100));
    rig.beat(&heartbeat());
    rig.pass(4, None);
    rig.round();
    let status = report::status(&rig.view, &rig.verdicts());
    assert_eq!(status["sources"].as_array().map(Vec::len), Some(report::MAX_ROWS));
    assert_eq!((&status["sources"][0]["state"], &status["left_out"]["sources"]), (&"GAP".into(), &500.into()));
    assert_eq!((&status["states"]["GAP"], &status["states"]["OKAY"]), (&1.into(), &1_499.into()));
    assert_eq!(status["hosts"][0]["acknowledged_bytes"], 100);
}

#[test]
fn hosts_of_other_pipelines_are_not_ours_unless_expected() {
    let mut rig = Rig::new();
    rig.beat(&Heartbeat { topics: vec!["others".into()], ..heartbeat() });
    rig.round();
    assert!(rig.verdicts().hosts.is_empty());
    rig.beat(&Heartbeat { topics: Vec::new(), ..heartbeat() });
    rig.round();
    assert_eq!(rig.verdicts().hosts.len(), 1, "an older version does not say");
    rig.beat(&Heartbeat { topics: vec!["others".into()], ..heartbeat() });
    rig.view.expect = vec![Expect { host: "web-1".into(), interval: None }];
    rig.round();
    assert_eq!(rig.verdicts().hosts.len(), 1);
}

#[test]
fn the_rate_is_between_two_heartbeats_of_one_process() {
    let mut rig = Rig::expecting(&[]);
    let rate = |rig: &Rig| rig.view.hosts.values().next().and_then(|host| host.events_per_second);
    rig.beat(&Heartbeat { at_ms: 1_000, acked_events: 100, ..heartbeat() });
    assert_eq!(rate(&rig), None);
    rig.beat(&Heartbeat { at_ms: 6_000, acked_events: 150, ..heartbeat() });
    assert_eq!(rate(&rig), Some(10.0));
    rig.beat(&Heartbeat { at_ms: 9_000, acked_events: 3, started_ms: 8_000, ..heartbeat() });
    assert_eq!(rate(&rig), None);
}
