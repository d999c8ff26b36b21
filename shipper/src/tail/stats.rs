//! Counts of what the tailer did. Plain numbers, published by the pipeline.

use std::collections::BTreeMap;
use std::path::PathBuf;

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
    pub corrupt_checkpoints: u64,
}

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
    /// Seconds since the oldest outstanding record could have been acknowledged, 0 if none is.
    pub oldest_unacked_seconds: u64,
    pub checkpoint_errors: u64,
    /// Why records do not flow, if they do not.
    pub blocked: Vec<&'static str>,
}

pub const BLOCKED_REASONS: [&str; 5] =
    ["topic_unknown", "unacknowledged", "delivery_failed", "checkpoint", "unreadable"];
