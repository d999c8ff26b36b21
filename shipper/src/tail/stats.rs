//! Counts of what the tailer did. Plain numbers, published by the pipeline.

use std::collections::BTreeMap;
use std::path::PathBuf;

use millrace_common::telemetry::Delays;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub read_bytes: u64,
    pub read_events: u64,
    pub acked_events: u64,
    pub acked_bytes: u64,
    pub truncated_events: u64,
    pub invalid_utf8_events: u64,
    /// Events given up, by reason.
    pub dropped_events: BTreeMap<&'static str, u64>,
    /// Bytes of holes between lines.
    pub nul_bytes_skipped: u64,
    /// Bytes given up, by reason.
    pub lost_bytes: BTreeMap<&'static str, u64>,
    pub rotations: BTreeMap<&'static str, u64>,
    pub produce_errors: BTreeMap<String, u64>,
    pub rewinds: u64,
    /// Events that began in one file and went on in the next, and were cut in two after all: one of the files was lost
    /// before the event was acknowledged. Its lines may have been sent twice.
    pub rotation_splits: u64,
    pub corrupt_checkpoints: u64,
    /// From reading an event to its acknowledgement.
    pub ack_latency: Delays,
}

pub const LOST_REASONS: [&str; 4] = ["truncated", "deleted", "hold_limit", "too_large"];
pub const DROPPED_REASONS: [&str; 2] = ["truncated", "too_large"];
pub const ROTATIONS: [&str; 3] = ["rename", "truncate", "copytruncate"];

/// Bytes that will never be delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Milliseconds since the epoch.
    pub at_ms: i64,
    pub path: PathBuf,
    pub start: u64,
    pub end: u64,
    pub reason: &'static str,
}

impl Given {
    pub(super) const MAX_KEPT: usize = 20;
}

/// How things stand now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    pub unread_bytes: u64,
    pub inflight_bytes: u64,
    pub open_files: u64,
    pub unreadable_files: u64,
    /// Folders without a watch of the kernel, where only scans see changes.
    pub unwatched_folders: u64,
    /// Files left alone for their age.
    pub ignored_files: u64,
    pub sources: u64,
    /// The longest that a partition with outstanding records has been without an answer.
    pub oldest_unacked_seconds: u64,
    pub checkpoint_errors: u64,
    /// Why records do not flow, if they do not.
    pub blocked: Vec<&'static str>,
    /// Events read that are neither acknowledged nor dropped.
    pub pending_events: u64,
    pub topics: Vec<TopicGauges>,
    /// Bytes not read yet, by input.
    pub unread_by_input: BTreeMap<String, u64>,
}

/// How things stand with one topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicGauges {
    pub name: String,
    pub num_partitions: Option<u32>,
    pub inflight_bytes: u64,
    /// Those of the reasons that are about a topic.
    pub blocked: Vec<&'static str>,
    /// Partitions that acknowledge nothing, with their brokers.
    pub stalled: Vec<(i32, String)>,
}

pub const BLOCKED_REASONS: [&str; 6] =
    ["topic_unknown", "unacknowledged", "delivery_failed", "checkpoint", "unreadable", "ledger"];
