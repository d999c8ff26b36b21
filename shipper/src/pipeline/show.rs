//! `/status`, for people and `shipper status`.

use serde_json::{Value, json};

use super::turns::Loop;
use crate::tail::Now;
use crate::tail::stats::Given;

impl Loop {
    pub(super) fn status(&self, now: Now) -> Value {
        let gauges = self.gauges(now);
        let sources: Vec<_> = self
            .tailer
            .rows()
            .map(|source| {
                let acknowledged = source.ledger.acknowledged();
                json!({
                    "source": source.id, "input": self.tailer.input_id(source.input),
                    "path": source.current_path.to_string_lossy(), "fate": source.fate.name(), "state": source.state(),
                    "size": source.size, "read": source.covered, "acknowledged": acknowledged,
                    "behind": source.size.saturating_sub(acknowledged), "generation": source.generation,
                    "device": source.identity.device, "inode": source.identity.inode,
                    "birth_time_ns": source.identity.birth_time_ns, "open": source.file.is_some(),
                    "outstanding": source.ledger.num_outstanding(), "pending": source.tally.num_pending(),
                    "topic": self.tailer.topic(source.input), "partition": source.partition,
                    "announced": source.is_announced,
                })
            })
            .collect();
        let topics: Vec<_> = gauges
            .topics
            .iter()
            .map(|topic| {
                let stalled: Vec<_> =
                    topic.stalled.iter().map(|(at, broker)| json!({"partition": at, "broker": broker})).collect();
                json!({
                    "topic": topic.name, "partitions": topic.num_partitions, "inflight_bytes": topic.inflight_bytes,
                    "blocked": topic.blocked, "stalled": stalled,
                })
            })
            .collect();
        let given_up: Vec<_> = self
            .tailer
            .given_up()
            .map(|Given { at_ms, path, start, end, reason }| {
                json!({"at_ms": at_ms, "path": path.to_string_lossy(), "start": start, "end": end, "reason": reason})
            })
            .collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"), "pid": std::process::id(), "data_dir": self.config.data_dir,
            "blocked": gauges.blocked, "topics": topics, "ledger": self.desk.status(),
            "unread_bytes": gauges.unread_bytes, "inflight_bytes": gauges.inflight_bytes,
            "open_files": gauges.open_files, "ignored_files": gauges.ignored_files,
            "lost_bytes": self.tailer.stats().lost_bytes, "last_given_up": given_up, "sources": sources,
        })
    }
}
