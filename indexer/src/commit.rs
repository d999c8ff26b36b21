//! What may be committed ([`ledger`]), what it holds of each source ([`rows`]) and telling Kafka ([`publisher`], [`committer`]).

pub mod committer;
pub mod ledger;
pub mod publisher;
pub mod rows;
