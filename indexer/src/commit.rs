//! What may be committed ([`ledger`]) and telling Kafka ([`committer`]).

pub mod committer;
pub mod ledger;
