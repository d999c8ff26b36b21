//! Delays between attempts. The only module that knows the `backoff` crate, which is no longer maintained.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use backoff::backoff::Backoff;
use backoff::{ExponentialBackoff, ExponentialBackoffBuilder};

/// Growing, capped and jittered delays, for loops that wait in their own way.
///
/// The first delay is about `first`, each further one twice as long up to `cap`; each is drawn from half to all of that, so that
/// clients that failed together do not come back together.
#[derive(Debug)]
pub struct Delays {
    growing: ExponentialBackoff,
    random: u64,
    num_attempts: u32,
}

impl Delays {
    /// Delays from `first` to `cap`.
    pub fn new(first: Duration, cap: Duration) -> Self {
        let growing = ExponentialBackoffBuilder::new()
            .with_initial_interval(first.min(cap))
            .with_max_interval(cap)
            .with_multiplier(2.0)
            // The jitter is ours, so that a seed can repeat it.
            .with_randomization_factor(0.0)
            .with_max_elapsed_time(None)
            .build();
        Self { growing, random: RandomState::new().hash_one(0_u8), num_attempts: 0 }
    }

    /// The same delays for the same seed, for simulated runs.
    pub fn seeded(self, seed: u64) -> Self {
        Self { random: seed, ..self }
    }

    /// How long to wait before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        let cap = self.growing.max_interval;
        // Without an end in time there is always a next one.
        let whole = self.growing.next_backoff().unwrap_or(cap);
        self.num_attempts = self.num_attempts.saturating_add(1);
        let half = whole / 2;
        half + half.mul_f64(self.draw())
    }

    /// As [`next_delay`](Self::next_delay), but not shorter than what the server asked for (`Retry-After`), even past the cap.
    pub fn next_delay_at_least(&mut self, asked: Option<Duration>) -> Duration {
        self.next_delay().max(asked.unwrap_or_default())
    }

    /// Starts over, after a success.
    pub fn reset(&mut self) {
        self.growing.reset();
        self.num_attempts = 0;
    }

    /// The delays given out since the start or the last reset.
    pub fn num_attempts(&self) -> u32 {
        self.num_attempts
    }

    /// A number from 0 to 1 (splitmix64, <https://prng.di.unimi.it/splitmix64.c>).
    fn draw(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        mixed as f64 / u64::MAX as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn delays_grow_up_to_the_cap_and_are_jittered(seed: u64, first in 1_u64..5_000, factor in 1_u64..1_000) {
            let (first, cap) = (Duration::from_millis(first), Duration::from_millis(first * factor));
            let mut delays = Delays::new(first, cap).seeded(seed);
            let mut whole = first;
            for attempt in 1..20 {
                let delay = delays.next_delay();
                assert!(delay >= whole / 2 - Duration::from_micros(1) && delay <= whole, "{attempt}: {delay:?} of {whole:?}");
                assert_eq!(delays.num_attempts(), attempt);
                whole = (whole * 2).min(cap);
            }
            delays.reset();
            assert!(delays.next_delay() <= first);
        }
    }

    #[test]
    fn the_server_can_ask_for_more_but_not_for_less() {
        let mut delays = Delays::new(Duration::from_secs(1), Duration::from_secs(2));
        assert_eq!(delays.next_delay_at_least(Some(Duration::from_secs(60))), Duration::from_secs(60));
        assert!(delays.next_delay_at_least(Some(Duration::from_millis(1))) >= Duration::from_secs(1));
        assert!(delays.next_delay_at_least(None) <= Duration::from_secs(2));
    }

    #[test]
    fn a_seed_repeats_its_delays_and_another_does_not() {
        let run = |seed| {
            let mut delays = Delays::new(Duration::from_secs(1), Duration::from_secs(60)).seeded(seed);
            (0..8).map(|_| delays.next_delay()).collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }
}
