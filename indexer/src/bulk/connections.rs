//! How long the connections of a host's pool have been idle. Pure.
//!
//! The pool does not tell, but hands out the connection that came back last. So the one that a request takes while `n` others
//! are on their way is the one that came back when `n` were left: a burst after a trickle meets connections that the trickle
//! never used.

use std::time::{Duration, Instant};

/// A connection that was not used for this long may be dead without a word.
const IDLE: Duration = Duration::from_secs(8);

#[derive(Debug, Default)]
pub struct Connections {
    /// By the number of others that were on their way then.
    came_back: Vec<Instant>,
    num_used: usize,
    pool: u64,
}

/// A connection in use, and which pool it is from.
#[derive(Debug)]
pub struct Taken(u64);

impl Connections {
    /// Whether the next request finds a connection that was used lately, or needs a new one beside those in use.
    pub fn are_fresh(&self, now: Instant) -> bool {
        let next = self.came_back.get(self.num_used);
        next.map_or(self.num_used > 0, |at| now.saturating_duration_since(*at) < IDLE)
    }

    pub fn take(&mut self) -> Taken {
        self.num_used += 1;
        Taken(self.pool)
    }

    /// The reply was read to its end. A connection that failed does not come back: its pool is left.
    pub fn put_back(&mut self, taken: Taken, now: Instant) {
        if taken.0 != self.pool {
            return;
        }
        self.num_used = self.num_used.saturating_sub(1);
        let len = self.came_back.len().max(self.num_used + 1);
        self.came_back.resize(len, now);
        self.came_back[self.num_used] = now;
    }

    /// A new pool: connections of the one before do not come back to it.
    pub fn begin_anew(&mut self) {
        *self = Self { pool: self.pool + 1, ..Self::default() };
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "some instant to count from")]
mod tests {
    use super::*;

    #[test]
    fn b19_a_burst_after_a_trickle_trusts_no_old_connection() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut connections = Connections::default();
        assert!(!connections.are_fresh(at(0)), "nothing is known of a new pool");
        let burst: Vec<Taken> = (0..3).map(|_| connections.take()).collect();
        burst.into_iter().for_each(|taken| connections.put_back(taken, at(1)));
        for second in 2..20 {
            assert!(connections.are_fresh(at(second)));
            let taken = connections.take();
            connections.put_back(taken, at(second));
        }
        let first = connections.take();
        assert!(!connections.are_fresh(at(20)), "the second connection was idle for 19 s");
        connections.begin_anew();
        connections.put_back(first, at(20));
        assert!(!connections.are_fresh(at(20)), "it belongs to the pool before");
        let second = connections.take();
        assert!(connections.are_fresh(at(20)), "one more is made beside it");
        connections.put_back(second, at(20));
        assert!(connections.are_fresh(at(27)) && !connections.are_fresh(at(29)));
    }
}
