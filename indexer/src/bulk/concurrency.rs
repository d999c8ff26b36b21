//! How many bulk requests are on their way at a time. Pure.
//!
//! One more is tried as long as that brings more bytes through, and given up where it does not or where Elasticsearch pushes
//! back; each failed try makes the next one rarer. A server that turns slow, or pushes back by itself, gets a third less.
//! Bytes a second are compared and not durations: batches differ in size.

use std::time::{Duration, Instant};

/// Share of the greatest possible gain that one more request must bring. Small, since of a smooth curve most is to be had.
const GAIN: f64 = 0.1;
const CUT: f64 = 0.7;
/// A server that takes this many times less than before has turned slow.
const SLOWED: f64 = 2.0;
/// Windows between tries after one that failed: at first, and at most.
const PATIENCE: (u32, u32) = (4, 32);

#[derive(Clone, Debug)]
pub struct Concurrency {
    limit: usize,
    max: usize,
    window: Window,
    /// Bytes a second at the limit.
    rate: Option<f64>,
    /// One more than before is being tried; `rate` is that of before.
    is_trying: bool,
    /// Windows to go until the next try.
    wait: u32,
    patience: u32,
    last_cut: Option<Instant>,
    /// Smoothed duration of requests, in seconds.
    took: f64,
}

/// What came through at one limit.
#[derive(Clone, Debug, Default)]
struct Window {
    /// Replies to requests that were sent at the limit before.
    num_skipped: usize,
    num: usize,
    bytes: f64,
    seconds: f64,
}

impl Concurrency {
    /// `max` must not be 0.
    pub fn new(max: usize) -> Self {
        let max = max.max(1);
        Self {
            limit: max.min(2),
            max,
            window: Window::default(),
            rate: None,
            is_trying: false,
            wait: 0,
            patience: PATIENCE.0,
            last_cut: None,
            took: 0.0,
        }
    }

    /// Requests that may be on their way at a time: at least 1.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// A request of so many bytes was answered without push-back. `was_full`: every place was taken while it was on its way.
    pub fn succeeded(&mut self, took: Duration, num_bytes: usize, was_full: bool) {
        let took = took.as_secs_f64().max(1e-6);
        self.took = if self.took == 0.0 { took } else { self.took + (took - self.took) / 4.0 };
        if !was_full {
            return;
        }
        if self.window.num_skipped > 0 {
            self.window.num_skipped -= 1;
            return;
        }
        self.window.num += 1;
        self.window.bytes += num_bytes as f64;
        self.window.seconds += took;
        if self.window.num >= 2 * self.limit + 2 {
            let rate = self.limit as f64 * self.window.bytes / self.window.seconds;
            self.window = Window::default();
            self.judge(rate);
        }
    }

    fn judge(&mut self, rate: f64) {
        match self.rate {
            Some(before) if self.is_trying => {
                self.is_trying = false;
                let below = (self.limit - 1).max(1) as f64;
                if rate < before * (1.0 + GAIN / below) {
                    return self.give_up_try();
                }
                self.patience = PATIENCE.0;
            }
            Some(before) if rate * SLOWED < before => return self.cut(),
            _ => {}
        }
        self.rate = Some(rate);
        match self.wait.checked_sub(1) {
            Some(wait) => self.wait = wait,
            None if self.limit < self.max => {
                self.is_trying = true;
                self.set(self.limit + 1);
            }
            None => {}
        }
    }

    fn set(&mut self, limit: usize) {
        self.window = Window { num_skipped: self.limit.max(limit), ..Window::default() };
        self.limit = limit;
    }

    fn give_up_try(&mut self) {
        self.is_trying = false;
        self.wait = self.patience;
        self.patience = (self.patience * 2).min(PATIENCE.1);
        self.set((self.limit - 1).max(1));
    }

    fn cut(&mut self) {
        self.is_trying = false;
        self.rate = None;
        self.wait = PATIENCE.0;
        self.set(((self.limit as f64 * CUT) as usize).max(1));
    }

    /// Elasticsearch pushed back, was overloaded or did not answer in time. Counts once per round trip: the replies to requests
    /// that were sent together say the same thing.
    pub fn pushed_back(&mut self, now: Instant) {
        let pause = Duration::from_secs_f64(self.took.clamp(0.1, 30.0));
        if self.last_cut.is_some_and(|cut| now.duration_since(cut) < pause) {
            return;
        }
        self.last_cut = Some(now);
        if self.is_trying { self.give_up_try() } else { self.cut() }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "some instant to count from")]
mod tests;
