//! The shipper's counters. The tailer counts in plain numbers, which are shown at each scrape.

use std::collections::BTreeMap;

use metrics::{SharedString, counter, describe_counter, describe_gauge, gauge};

use crate::tail::stats::{DROPPED_REASONS, Gauges, LOST_REASONS, ROTATIONS, Stats};

/// Errors of librdkafka to be expected: each is there from the start, so that its first one is an increase.
const PRODUCE_ERRORS: [&str; 6] = [
    "MessageSizeTooLarge",
    "NotEnoughReplicas",
    "RequestTimedOut",
    "TopicAuthorizationFailed",
    "UnknownTopic",
    "UnknownTopicOrPartition",
];

/// Describes all counters.
pub fn describe() {
    for (name, help) in [
        ("shipper_read_bytes_total", "Bytes read from files."),
        ("shipper_read_events_total", "Events read and handed on."),
        ("shipper_acked_events_total", "Events that Kafka acknowledged."),
        ("shipper_acked_bytes_total", "Bytes of files that Kafka acknowledged."),
        ("shipper_truncated_events_total", "Events cut to limits.max_record."),
        ("shipper_invalid_utf8_events_total", "Events with bytes that are no UTF-8."),
        ("shipper_nul_bytes_skipped_total", "Bytes of holes that were skipped."),
        ("shipper_rewinds_total", "Returns of a file to what was not acknowledged."),
        ("shipper_rotation_splits_total", "Events that a rotation cut in two."),
        ("shipper_checkpoint_corrupt_total", "Checkpoints that could not be read."),
        ("shipper_checkpoint_errors_total", "Checkpoints that could not be saved."),
        ("shipper_lost_bytes_total", "Bytes that will never be delivered."),
        ("shipper_dropped_events_total", "Events that will never be delivered."),
        ("shipper_rotations_total", "Rotations that were seen."),
        ("shipper_produce_errors_total", "Records that Kafka or its client refused, by librdkafka's error."),
    ] {
        describe_counter!(name, help);
    }
    describe_gauge!("shipper_pending_events", "Events read that are neither acknowledged nor dropped.");
}

/// Brings the counters up to date.
pub fn show(stats: &Stats, gauges: &Gauges) {
    for (name, value) in [
        ("shipper_read_bytes_total", stats.read_bytes),
        ("shipper_read_events_total", stats.read_events),
        ("shipper_acked_events_total", stats.acked_events),
        ("shipper_acked_bytes_total", stats.acked_bytes),
        ("shipper_truncated_events_total", stats.truncated_events),
        ("shipper_invalid_utf8_events_total", stats.invalid_utf8_events),
        ("shipper_nul_bytes_skipped_total", stats.nul_bytes_skipped),
        ("shipper_rewinds_total", stats.rewinds),
        ("shipper_rotation_splits_total", stats.rotation_splits),
        ("shipper_checkpoint_corrupt_total", stats.corrupt_checkpoints),
        ("shipper_checkpoint_errors_total", gauges.checkpoint_errors),
    ] {
        counter!(name).absolute(value);
    }
    // With the counters, so that read = acknowledged + pending + dropped at every scrape.
    gauge!("shipper_pending_events").set(gauges.pending_events as f64);
    show_by("shipper_lost_bytes_total", "reason", &LOST_REASONS, &stats.lost_bytes);
    show_by("shipper_dropped_events_total", "reason", &DROPPED_REASONS, &stats.dropped_events);
    show_by("shipper_rotations_total", "kind", &ROTATIONS, &stats.rotations);
    show_by("shipper_produce_errors_total", "code", &PRODUCE_ERRORS, &stats.produce_errors);
}

/// Shows counts by label. Those of `usual` are there with 0 before anything happens.
fn show_by<L: Clone + Into<SharedString>>(
    name: &'static str,
    label: &'static str,
    usual: &[&'static str],
    counts: &BTreeMap<L, u64>,
) {
    for value in usual {
        counter!(name, label => *value).absolute(0);
    }
    for (value, count) in counts {
        counter!(name, label => value.clone()).absolute(*count);
    }
}
