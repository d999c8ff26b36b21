//! How many bulk requests are on their way at a time. Pure.
//!
//! Additive growth while Elasticsearch answers as fast as before and every place is used, multiplicative cut when it
//! pushes back. One cut per round trip: the replies to requests that were sent together say the same thing.

use std::time::{Duration, Instant};

#[derive(Clone, Debug)]
pub struct Concurrency {
    limit: f64,
    max: f64,
    /// Smoothed seconds per request: over the last few, and over many.
    recent: f64,
    usual: f64,
    last_cut: Option<Instant>,
}

const CUT: f64 = 0.7;
/// Growth stops where requests take this many times as long as they used to.
const SLOWED: f64 = 2.0;

impl Concurrency {
    /// `max` must not be 0.
    pub fn new(max: usize) -> Self {
        let max = max.max(1) as f64;
        Self { limit: max.min(2.0), max, recent: 0.0, usual: 0.0, last_cut: None }
    }

    /// Requests that may be on their way at a time: at least 1.
    pub fn limit(&self) -> usize {
        self.limit as usize
    }

    /// A request was answered without push-back. `was_full`: every place was taken while it was on its way.
    pub fn succeeded(&mut self, took: Duration, was_full: bool) {
        let took = took.as_secs_f64();
        if self.usual == 0.0 {
            (self.recent, self.usual) = (took, took);
        }
        self.recent += (took - self.recent) / 4.0;
        self.usual += (took - self.usual) / 64.0;
        if was_full && self.recent <= self.usual * SLOWED {
            self.limit = (self.limit + 1.0 / self.limit).min(self.max);
        }
    }

    /// Elasticsearch pushed back, was overloaded or did not answer in time.
    pub fn pushed_back(&mut self, now: Instant) {
        let pause = Duration::from_secs_f64(self.recent.clamp(0.1, 30.0));
        if self.last_cut.is_some_and(|cut| now.duration_since(cut) < pause) {
            return;
        }
        self.last_cut = Some(now);
        self.limit = (self.limit * CUT).max(1.0);
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "some instant to count from")]
mod tests {
    use super::*;

    const TOOK: Duration = Duration::from_millis(100);

    #[test]
    fn it_grows_to_the_maximum_while_all_is_well() {
        let mut concurrency = Concurrency::new(8);
        (0..100).for_each(|_| concurrency.succeeded(TOOK, true));
        assert_eq!(concurrency.limit(), 8);
    }

    #[test]
    fn it_does_not_grow_unless_needed_or_when_requests_slow_down() {
        let mut concurrency = Concurrency::new(8);
        (0..100).for_each(|_| concurrency.succeeded(TOOK, false));
        assert_eq!(concurrency.limit(), 2);
        (0..10).for_each(|_| concurrency.succeeded(TOOK * 20, true));
        assert_eq!(concurrency.limit(), 2);
    }

    #[test]
    fn push_back_cuts_once_per_round_trip_and_never_below_one() {
        let mut concurrency = Concurrency::new(8);
        (0..100).for_each(|_| concurrency.succeeded(TOOK, true));
        let now = Instant::now();
        (0..5).for_each(|_| concurrency.pushed_back(now));
        assert_eq!(concurrency.limit(), 5);
        (1..50).for_each(|i| concurrency.pushed_back(now + TOOK * 2 * i));
        assert_eq!(concurrency.limit(), 1);
    }
}
