//! What a running program tells: logs, metrics, and the admin endpoint that serves them.

pub mod logs;
pub mod metrics;
pub mod gauges;
pub mod admin;

pub use gauges::Gauges;
pub use logs::LogFormat;
