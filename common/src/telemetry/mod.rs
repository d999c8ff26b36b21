//! What a running program tells: logs, metrics, and the admin endpoint that serves them.

pub mod logs;
pub mod metrics;
pub mod delays;
pub mod gauges;
mod process;
pub mod admin;

pub use delays::Delays;
pub use gauges::Gauges;
pub use logs::LogFormat;
