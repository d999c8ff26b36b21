//! Judged against servers whose best setting is known, in virtual time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;

const TOOK: f64 = 0.1;
const MAX: usize = 8;

/// How long a request takes, in seconds, that arrives as the `n`th of those on their way; `None` is push-back.
type Server = fn(usize) -> Option<f64>;

/// Requests queue past 4, and are refused past 6.
fn queues(n: usize) -> Option<f64> {
    (n <= 6).then(|| TOOK * (n as f64 / 4.0).max(1.0))
}

/// Past 4 everything gets slower than the queue alone would make it.
fn thrashes(n: usize) -> Option<f64> {
    Some(TOOK * (n as f64 / 4.0).max(1.0).powi(2))
}

/// Push-back is the only sign, past 5.
fn refuses(n: usize) -> Option<f64> {
    (n <= 5).then_some(TOOK)
}

/// No knee: each one more brings a little less.
fn bends(n: usize) -> Option<f64> {
    Some(TOOK * (n as f64 + 2.0) / 3.0)
}

/// Always room for more.
fn scales(_: usize) -> Option<f64> {
    Some(TOOK)
}

fn one_at_a_time(n: usize) -> Option<f64> {
    Some(TOOK * n as f64)
}

/// Runs a client against a server of which there is always more to ask. Returns the requests answered between two times, in
/// seconds. A request pushed back is sent again, and costs its place for the time of a refusal.
fn run(server: impl Fn(f64, usize) -> Option<f64>, mut client: Client, from: f64, to: f64) -> (usize, Client) {
    let start = Instant::now();
    let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
    // Ends of requests in microseconds, and whether they were answered.
    let mut on_their_way: BinaryHeap<Reverse<(u64, bool, u64)>> = BinaryHeap::new();
    let (mut now, mut num_answered, mut random) = (0.0, 0, 7_u64);
    while now < to {
        while on_their_way.len() < client.limit() {
            let answer = server(now, on_their_way.len() + 1);
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // A tenth more or less, as real servers have it.
            let noise = 0.9 + (random >> 40) as f64 / (1_u64 << 24) as f64 * 0.2;
            let took = answer.map_or(TOOK / 10.0, |took| took * noise);
            on_their_way.push(Reverse((((now + took) * 1e6) as u64, answer.is_some(), (took * 1e6) as u64)));
        }
        let Some(Reverse((end, is_answered, took))) = on_their_way.pop() else { break };
        now = end as f64 / 1e6;
        if is_answered {
            num_answered += usize::from(now >= from);
            let was_full = on_their_way.len() + 1 >= client.limit();
            client.succeeded(Duration::from_micros(took), was_full);
        } else {
            client.pushed_back(at(now));
        }
    }
    (num_answered, client)
}

enum Client {
    Adapts(Concurrency),
    Fixed(usize),
}

impl Client {
    fn limit(&self) -> usize {
        match self {
            Self::Adapts(concurrency) => concurrency.limit(),
            Self::Fixed(limit) => *limit,
        }
    }

    fn succeeded(&mut self, took: Duration, was_full: bool) {
        if let Self::Adapts(concurrency) = self {
            concurrency.succeeded(took, 1_000_000, was_full);
        }
    }

    fn pushed_back(&mut self, now: Instant) {
        if let Self::Adapts(concurrency) = self {
            concurrency.pushed_back(now);
        }
    }
}

fn check(server: Server) {
    let fixed = (1..=MAX).map(|limit| run(|_, n| server(n), Client::Fixed(limit), 30.0, 60.0).0);
    let best = fixed.max().unwrap();
    let (found, client) = run(|_, n| server(n), Client::Adapts(Concurrency::new(MAX)), 30.0, 60.0);
    let share = found as f64 / best as f64;
    assert!(share >= 0.9, "{found} of {best} with the limit at {}", client.limit());
}

#[test]
fn within_half_a_minute_it_brings_nine_tenths_of_the_best_fixed_setting() {
    for server in [queues, thrashes, refuses, bends, scales, one_at_a_time] {
        check(server);
    }
}

#[test]
fn it_backs_off_when_the_server_does_and_comes_back() {
    let server = |now: f64, n: usize| if (20.0..40.0).contains(&now) { thrashes(4 * n) } else { thrashes(n) };
    let adapting = || Client::Adapts(Concurrency::new(MAX));
    assert!(run(server, adapting(), 0.0, 19.0).1.limit() >= 4);
    assert!(run(server, adapting(), 0.0, 30.0).1.limit() <= 2);
    assert!(run(server, adapting(), 0.0, 70.0).1.limit() >= 4);
}

#[test]
fn it_does_not_grow_unless_needed() {
    let mut concurrency = Concurrency::new(MAX);
    (0..100).for_each(|_| concurrency.succeeded(Duration::from_secs(1), 1, false));
    assert_eq!(concurrency.limit(), 2);
}

#[test]
fn push_back_cuts_once_per_round_trip_and_never_below_one() {
    let took = Duration::from_millis(100);
    let mut concurrency = Concurrency::new(MAX);
    (0..1_000).for_each(|_| concurrency.succeeded(took, 1, true));
    assert_eq!(concurrency.limit(), MAX);
    let now = Instant::now();
    (0..5).for_each(|_| concurrency.pushed_back(now));
    assert_eq!(concurrency.limit(), 5);
    (1..50).for_each(|i| concurrency.pushed_back(now + took * 2 * i));
    assert_eq!(concurrency.limit(), 1);
}
