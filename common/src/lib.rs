//! Words that both programs speak: record ids, JSON text, configuration, Kafka client options, telemetry, signals.

pub mod json;
pub mod record;
pub mod config;
pub mod telemetry;
pub mod kafka;
pub mod retry;
pub mod shutdown;
pub mod reload;
pub mod exit;
pub mod build_info;
pub mod manual;
pub mod dumps;
pub mod ledger;
pub mod terminal;
pub mod online;
