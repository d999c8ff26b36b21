//! Metrics of the hot path: handles kept, so that counting does not look names up.

use std::collections::BTreeMap;

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use crate::map::{ActionKind, Actions};
use crate::reject::Reason;

/// Those to be expected: each is there from the start, so that its first one is an increase.
const REQUEST_CODES: [&str; 12] =
    ["200", "400", "401", "403", "413", "429", "500", "502", "503", "504", "error", "malformed"];
const ITEM_STATUSES: [&str; 8] = ["401", "403", "404", "429", "500", "502", "503", "504"];

pub struct Meters {
    pub consumed: Counter,
    pub created: Counter,
    pub duplicate: Counter,
    pub rejected: Counter,
    pub dead_lettered: Counter,
    pub skipped: Counter,
    pub skipped_null: Counter,
    pub skipped_expired: Counter,
    pub by_kafka_time: Counter,
    pub planned_anew: Counter,
    pub lost: Counter,
    pub rebalances: Counter,
    pub bulk_seconds: Histogram,
    pub bulk_bytes: Histogram,
    pub bulk_inflight: Gauge,
    pub concurrency_limit: Gauge,
    pub partitions_assigned: Gauge,
    pub partitions_paused: Gauge,
    pub unfinished_bytes: Gauge,
    pub parked_bytes: Gauge,
    /// Of the index where it is highest.
    pub field_budget_used: Gauge,
    actions: Vec<(ActionKind, Counter)>,
    /// Letters that the topic has, by reason: metrics cannot be read back.
    pub num_letters: BTreeMap<&'static str, u64>,
}

impl Meters {
    /// Registers all series, so that they are there with 0 before anything happens.
    pub fn new() -> Self {
        describe();
        for code in REQUEST_CODES {
            counter!("indexer_bulk_requests_total", "code" => code).increment(0);
        }
        for status in ITEM_STATUSES {
            counter!("indexer_item_retries_total", "status" => status).increment(0);
        }
        for reason in Reason::all() {
            counter!("indexer_dead_letters_total", "reason" => reason.as_str()).increment(0);
        }
        let documents = |result: &'static str| counter!("indexer_documents_total", "result" => result);
        let action = |kind: ActionKind| (kind, counter!("indexer_mapping_actions_total", "action" => kind.as_str()));
        Self {
            consumed: counter!("indexer_consumed_records_total"),
            created: documents("created"),
            duplicate: documents("duplicate"),
            rejected: documents("rejected"),
            dead_lettered: documents("dead_lettered"),
            skipped: documents("skipped"),
            skipped_null: counter!("indexer_skipped_records_total", "reason" => "null"),
            skipped_expired: counter!("indexer_skipped_records_total", "reason" => "expired"),
            by_kafka_time: counter!("indexer_documents_by_kafka_time_total"),
            planned_anew: counter!("indexer_documents_planned_anew_total"),
            lost: counter!("indexer_lost_records_total"),
            rebalances: counter!("indexer_rebalances_total"),
            bulk_seconds: histogram!("indexer_bulk_seconds"),
            bulk_bytes: histogram!("indexer_bulk_bytes"),
            bulk_inflight: gauge!("indexer_bulk_inflight"),
            concurrency_limit: gauge!("indexer_concurrency_limit"),
            partitions_assigned: gauge!("indexer_partitions_assigned"),
            partitions_paused: gauge!("indexer_partitions_paused"),
            unfinished_bytes: gauge!("indexer_unfinished_bytes"),
            parked_bytes: gauge!("indexer_parked_bytes"),
            field_budget_used: gauge!("indexer_field_budget_used"),
            actions: ActionKind::ALL.into_iter().map(action).collect(),
            num_letters: BTreeMap::new(),
        }
    }

    /// Adds what the rules did, and clears it.
    pub fn count_actions(&self, actions: &mut Actions) {
        if actions.is_empty() {
            return;
        }
        for (kind, counter) in &self.actions {
            counter.increment(actions.count(*kind));
        }
        actions.clear();
    }

    pub fn count_request(&self, code: &str) {
        counter!("indexer_bulk_requests_total", "code" => code.to_owned()).increment(1);
    }

    pub fn count_item_retry(&self, status: u16) {
        counter!("indexer_item_retries_total", "status" => status.to_string()).increment(1);
    }

    pub fn count_dead_letter(&mut self, reason: &'static str) {
        *self.num_letters.entry(reason).or_default() += 1;
        counter!("indexer_dead_letters_total", "reason" => reason).increment(1);
    }
}

fn describe() {
    describe_counter!("indexer_consumed_records_total", "Records taken from Kafka.");
    describe_counter!(
        "indexer_documents_total",
        "Documents by what became of them; skipped: records finished without one."
    );
    describe_counter!("indexer_skipped_records_total", "Records finished without a document, by why.");
    describe_counter!("indexer_documents_by_kafka_time_total", "Documents whose own time could not name their index.");
    describe_counter!("indexer_documents_planned_anew_total", "Refused documents written again by a newer mapping.");
    describe_counter!("indexer_lost_records_total", "Records that retention took before they were read.");
    describe_counter!("indexer_rebalances_total", "Assignments and revocations.");
    describe_counter!("indexer_bulk_requests_total", "Bulk requests by status, `error` without a reply, `malformed`.");
    describe_counter!("indexer_item_retries_total", "Items sent again, by the status that was answered.");
    describe_counter!("indexer_dead_letters_total", "Acknowledged dead letters by reason.");
    describe_counter!("indexer_mapping_actions_total", "What the rules did to documents.");
    describe_histogram!("indexer_bulk_seconds", "Duration of bulk requests.");
    describe_histogram!("indexer_bulk_bytes", "Size of bulk requests.");
    describe_gauge!("indexer_bulk_inflight", "Bulk requests on their way.");
    describe_gauge!("indexer_concurrency_limit", "Bulk requests that may be on their way at a time.");
    describe_gauge!("indexer_partitions_assigned", "Partitions that are ours.");
    describe_gauge!("indexer_partitions_paused", "Partitions that wait for room.");
    describe_gauge!("indexer_unfinished_bytes", "Bytes taken and unfinished.");
    describe_gauge!("indexer_parked_bytes", "Bytes of documents that wait for blocked indices.");
    describe_gauge!("indexer_field_budget_used", "Used share of the field budget, of the index where it is highest.");
}
