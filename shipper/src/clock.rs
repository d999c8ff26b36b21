//! The real clocks.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::tail::Now;

#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "an edge: the one place that reads the clocks for the threads")]
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }

    pub fn now(&self) -> Now {
        Now { wall_ms: wall_us() / 1000, mono: self.started.elapsed() }
    }
}

/// Microseconds since the epoch.
#[expect(clippy::disallowed_methods, reason = "an edge: the one place that reads the clocks for the threads")]
pub fn wall_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_micros() as i64
}
