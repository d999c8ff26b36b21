//! What the end-to-end tests and the demo stand on: real servers, the project's programs as child
//! processes, a faulty network, and an oracle that knows every line written.
//!
//! ```text
//! writer -> (shipper -> kafka -> indexer -> elasticsearch) -> oracle
//!             process    kafka    process    elasticsearch
//! ```

use std::sync::{Mutex, MutexGuard, PoisonError};

pub mod differential;
pub mod elasticsearch;
pub mod fake_elasticsearch;
pub mod footprint;
pub mod hanging_files;
pub mod http;
pub mod indexer_rig;
pub mod kafka;
pub mod lanes;
pub mod ledger;
pub mod mapping_rig;
pub mod oracle;
pub mod ports;
pub mod process;
pub mod prometheus;
pub mod proxy;
pub mod rig;
pub mod scratch;
pub mod servers;
pub mod stack;
pub mod topic_rig;
pub mod unit;
pub mod while_used;
pub mod bench;
pub mod browser;
pub mod certificates;
pub mod tokens;
pub mod storm;
pub mod story;
pub mod demo;
pub mod wait;
mod wire;
pub mod writer;

/// What a thread that panicked left is looked at, too: the panic itself fails the test.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
