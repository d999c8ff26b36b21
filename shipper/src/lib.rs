//! Tails files and produces one JSON record per event to Kafka.
//!
//! ```text
//! discover -> read -> frame -> encode -> produce
//!                 ^                         |
//!                 +------ checkpoint <------+   acknowledgements, the only thing that flows back
//! ```
//!
//! `tail` drives the stages on one thread and owns every source; `pipeline` gives it a clock, files, a broker and a disk.

pub mod config;
pub mod discover;
pub mod read;
pub mod frame;
pub mod encode;
pub mod produce;
pub mod checkpoint;
pub mod clock;
pub mod memory;
pub mod ledger;
pub mod tail;
pub mod pipeline;
mod meters;
pub mod status;
pub mod inspect;
pub mod online;
