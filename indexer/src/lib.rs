//! `indexer`: reads records from Kafka, fits them to the rules of index templates, and writes bulk batches.
//!
//! ```text
//! consume -> decode -> route -> map -> bulk -> commit
//!               \________\______\______\-> dead_letter -> commit
//! ```

pub mod cli;
pub mod config;
pub mod reject;

pub mod consume;
pub mod decode;
pub mod route;
pub mod map;
pub mod bulk;
pub mod templates;
pub mod dead_letter;
pub mod commit;

pub mod watch;
pub mod health;
pub mod pages;
pub mod pipeline;
pub mod dlq;
pub mod preview;
pub mod retention;
pub mod status;
pub mod audit;
pub mod online;
