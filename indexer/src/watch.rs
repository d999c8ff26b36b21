//! The whole pipeline, as any instance sees it: what shippers say they sent, held against what the group finished.
//!
//! ```text
//! millrace.sources ─┐
//! millrace.indexed ─┼─> reading (round by round) ─> view (facts) ─> judge (states) ─> report (JSON)
//! offsets          ─┘
//! ```
//!
//! `view` and `judge` are pure: time is an argument, in milliseconds on the reader's own clock, which is never compared with
//! that of another machine.

pub mod history;
pub mod judge;
pub mod reading;
pub mod report;
pub mod thread;
pub mod view;

#[cfg(test)]
mod tests;
