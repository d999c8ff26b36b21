//! Which batch goes out next, and when. Pure: `now` comes in.
//!
//! New batches wait in order. Items to be sent again wait for their time and are sent together. After a request that
//! failed as a whole, the gate lets one request at a time through, later and later, until one succeeds.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use millrace_common::retry::Delays;

use super::batch::Batch;

/// A batch and its history.
#[derive(Debug)]
pub struct Queued {
    pub batch: Batch,
    /// Sent as it is: a part of a refused request, or one whose outcome is unknown.
    pub is_fixed: bool,
}

/// A batch that may go out now.
#[derive(Debug)]
pub struct Departure {
    pub queued: Queued,
    /// To be handed back to [`Schedule::failed`].
    pub passed: Passed,
}

/// When a request passed the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed(u64);

#[derive(Debug)]
pub struct Schedule {
    ready: VecDeque<Queued>,
    delayed: Vec<(Instant, Queued)>,
    in_flight: usize,
    /// While requests are on their way: the last time that one went out to an idle server, or came back.
    heard: Option<Instant>,
    /// Retried items are sent together up to this size.
    max_bytes: usize,
    max_documents: usize,
    gate: Gate,
    item_delay: (Duration, Duration),
}

#[derive(Debug)]
struct Gate {
    closed_until: Option<Instant>,
    delays: Delays,
    /// Counts the closings, so that the other requests that were on their way do not close it again.
    closings: u64,
}

impl Schedule {
    /// First delay after a request that failed as a whole.
    const WHOLE: Duration = Duration::from_millis(500);
    /// First delay and cap for items sent again.
    const ITEMS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

    /// Attempts are at most `max_backoff` apart.
    pub fn new(max_bytes: usize, max_documents: usize, max_backoff: Duration) -> Self {
        let gate = Gate { closed_until: None, delays: Delays::new(Self::WHOLE, max_backoff), closings: 0 };
        Self {
            ready: VecDeque::new(),
            delayed: Vec::new(),
            in_flight: 0,
            heard: None,
            max_bytes,
            max_documents,
            gate,
            item_delay: (Self::ITEMS.0, Self::ITEMS.1.min(max_backoff)),
        }
    }

    /// A new batch.
    pub fn push(&mut self, batch: Batch) {
        self.ready.push_back(Queued { batch, is_fixed: false });
    }

    /// Parts of a refused request, before all else.
    pub fn push_parts(&mut self, parts: [Batch; 2]) {
        for batch in parts.into_iter().rev() {
            self.ready.push_front(Queued { batch, is_fixed: true });
        }
    }

    /// Items to be sent again, not before `due`.
    pub fn push_delayed(&mut self, batch: Batch, due: Instant) {
        self.delayed.push((due, Queued { batch, is_fixed: false }));
    }

    /// A request to be sent again byte for byte, not before `due`.
    pub fn push_again(&mut self, batch: Batch, due: Instant) {
        self.delayed.push((due, Queued { batch, is_fixed: true }));
    }

    /// When an item that was sent `attempts` times may be sent again: capped, jittered, not before `retry_after`.
    pub fn item_delay(&self, attempts: u16, retry_after: Option<Duration>) -> Duration {
        let (first, cap) = self.item_delay;
        let first = first.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(cap);
        Delays::new(first, cap).next_delay_at_least(retry_after)
    }

    /// The next batch to send, if one may go out now. `limit` is how many may be on their way at a time.
    pub fn next(&mut self, now: Instant, limit: usize) -> Option<Departure> {
        let limit = match self.gate.closed_until {
            Some(until) if now < until => return None,
            Some(_) => 1,
            None => limit,
        };
        if self.in_flight >= limit {
            return None;
        }
        let queued = self.take_delayed(now).or_else(|| self.ready.pop_front())?;
        self.in_flight += 1;
        self.heard.get_or_insert(now);
        Some(Departure { queued, passed: Passed(self.gate.closings) })
    }

    fn take_delayed(&mut self, now: Instant) -> Option<Queued> {
        let is_due = |(due, _): &(Instant, Queued)| *due <= now;
        let at = self.delayed.iter().position(is_due)?;
        let (_, first) = self.delayed.remove(at);
        if first.is_fixed {
            return Some(first);
        }
        let (mut bytes, mut documents) = (first.batch.body.len(), first.batch.items.len());
        let mut together = vec![first.batch];
        let mut at = 0;
        while at < self.delayed.len() {
            let (due, queued) = &self.delayed[at];
            let fits = bytes + queued.batch.body.len() <= self.max_bytes
                && documents + queued.batch.items.len() <= self.max_documents;
            if *due > now || queued.is_fixed || !fits {
                at += 1;
                continue;
            }
            let (_, queued) = self.delayed.remove(at);
            bytes += queued.batch.body.len();
            documents += queued.batch.items.len();
            together.push(queued.batch);
        }
        let batch = if together.len() == 1 { together.pop()? } else { Batch::merge(&together) };
        Some(Queued { batch, is_fixed: false })
    }

    fn came_back(&mut self, now: Instant) {
        self.in_flight -= 1;
        self.heard = (self.in_flight > 0).then_some(now);
    }

    /// For how long requests have been on their way without a word about any of them.
    pub fn silent_for(&self, now: Instant) -> Duration {
        self.heard.map_or(Duration::ZERO, |heard| now.saturating_duration_since(heard))
    }

    /// A request was answered by Elasticsearch about its items: the gate opens.
    pub fn succeeded(&mut self, now: Instant) {
        self.came_back(now);
        self.gate.closed_until = None;
        self.gate.delays.reset();
    }

    /// A request was refused for what it contains: nothing is wrong with Elasticsearch.
    pub fn refused(&mut self, now: Instant) {
        self.came_back(now);
    }

    /// A request failed as a whole: the gate closes. Returns when the next may go out.
    pub fn failed(&mut self, passed: Passed, now: Instant, retry_after: Option<Duration>) -> Instant {
        self.came_back(now);
        let at_least = retry_after.map(|after| now + after);
        if passed.0 == self.gate.closings {
            self.gate.closings += 1;
            self.gate.closed_until = Some(now + self.gate.delays.next_delay());
        }
        self.gate.closed_until = self.gate.closed_until.max(at_least);
        self.gate.closed_until.unwrap_or(now)
    }

    /// Whether the last request failed as a whole.
    pub fn is_held(&self) -> bool {
        self.gate.closed_until.is_some()
    }

    /// Batches that wait to be sent for the first time.
    pub fn num_ready(&self) -> usize {
        self.ready.len()
    }

    pub fn num_in_flight(&self) -> usize {
        self.in_flight
    }

    pub fn is_empty(&self) -> bool {
        self.in_flight == 0 && self.ready.is_empty() && self.delayed.is_empty()
    }

    /// When [`Schedule::next`] may have something that it does not have now, unless a reply comes first.
    pub fn due(&self, now: Instant, limit: usize) -> Option<Instant> {
        if self.in_flight >= if self.is_held() { 1 } else { limit } {
            return None;
        }
        let first = self.delayed.iter().map(|(due, _)| *due).min();
        let first = if self.ready.is_empty() { first } else { Some(now) };
        first.map(|first| self.gate.closed_until.map_or(first, |until| first.max(until)))
    }

    /// Requests are merged up to this size from now on.
    pub fn limit_bytes(&mut self, max_bytes: usize) {
        self.max_bytes = self.max_bytes.min(max_bytes);
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "some instant to count from")]
mod tests {
    use super::*;
    use crate::bulk::batch::{Builder, Keep, Limits, Owner, Settles};

    fn batch(num_items: u64) -> Batch {
        let limits = Limits { max_bytes: 1 << 20, max_documents: 1 << 20, max_delay: Duration::ZERO };
        let mut builder = Builder::new(limits);
        for i in 0..num_items {
            let draft = builder.begin("logs", Some(b"1"));
            builder.body().extend_from_slice(b"{}");
            let settles = Settles::new(Owner { slot: 0, epoch: 0 }, i, 0, 0);
            builder.finish(draft, settles, Keep::Nothing, Instant::now());
        }
        builder.cut().unwrap()
    }

    const MAX_BACKOFF: Duration = Duration::from_secs(25);

    fn schedule() -> (Schedule, Instant) {
        (Schedule::new(1 << 20, 100, MAX_BACKOFF), Instant::now())
    }

    #[test]
    fn batches_go_out_in_order_up_to_the_limit() {
        let (mut schedule, now) = schedule();
        (1..=3).for_each(|n| schedule.push(batch(n)));
        assert_eq!(schedule.next(now, 2).unwrap().queued.batch.items.len(), 1);
        assert_eq!(schedule.next(now, 2).unwrap().queued.batch.items.len(), 2);
        assert!(schedule.next(now, 2).is_none());
        schedule.succeeded(now);
        assert_eq!(schedule.next(now, 2).unwrap().queued.batch.items.len(), 3);
    }

    #[test]
    fn b02_items_sent_again_go_out_together_when_due() {
        let (mut schedule, now) = schedule();
        let due = now + Duration::from_secs(1);
        [10, 20, 90].into_iter().for_each(|n| schedule.push_delayed(batch(n), due));
        assert!(schedule.next(now, 8).is_none());
        assert_eq!(schedule.due(now, 8), Some(due));
        assert_eq!(schedule.next(due, 8).unwrap().queued.batch.items.len(), 30);
        assert_eq!(schedule.next(due, 8).unwrap().queued.batch.items.len(), 90);
    }

    #[test]
    fn after_a_failure_one_request_at_a_time_tries_later_and_later() {
        let (mut schedule, now) = schedule();
        (1..=4).for_each(|n| schedule.push(batch(n)));
        let first = schedule.next(now, 8).unwrap();
        let second = schedule.next(now, 8).unwrap();
        let until = schedule.failed(first.passed, now, None);
        assert!(until > now && schedule.is_held());
        assert_eq!(schedule.failed(second.passed, now, None), until, "sent before the gate closed");
        assert!(schedule.next(now, 8).is_none());
        let third = schedule.next(until, 8).unwrap();
        assert!(schedule.next(until, 8).is_none(), "one at a time");
        let later = schedule.failed(third.passed, until, None);
        assert!(later > until);
        assert!(schedule.next(later, 8).is_some());
        schedule.succeeded(now);
        assert!(!schedule.is_held());
    }

    #[test]
    fn b25_nothing_goes_out_before_retry_after() {
        let (mut schedule, now) = schedule();
        schedule.push(batch(1));
        schedule.push(batch(1));
        let departure = schedule.next(now, 8).unwrap();
        let until = schedule.failed(departure.passed, now, Some(Duration::from_secs(10)));
        assert!(until >= now + Duration::from_secs(10));
        assert!(schedule.next(until - Duration::from_millis(1), 8).is_none());
        assert!(schedule.item_delay(1, Some(Duration::from_secs(10))) >= Duration::from_secs(10));
    }

    #[test]
    fn a_request_with_an_unknown_outcome_is_sent_again_byte_for_byte() {
        let (mut schedule, now) = schedule();
        schedule.push_delayed(batch(1), now);
        schedule.push_again(batch(2), now);
        schedule.push_delayed(batch(3), now);
        let sizes = [4, 2].map(|_| schedule.next(now, 8).unwrap().queued.batch.items.len());
        assert_eq!(sizes, [4, 2]);
    }

    /// 900 s at the default `bulk.max_backoff`, in time that is only counted.
    #[test]
    fn b22_fifteen_minutes_of_outage_see_at_most_sixty_attempts() {
        let (mut schedule, start) = schedule();
        schedule.push(batch(1));
        let (mut now, mut num_attempts) = (start, 0);
        while now < start + Duration::from_secs(900) {
            let departure = schedule.next(now, 8).unwrap();
            now = schedule.failed(departure.passed, now, None);
            schedule.push_again(departure.queued.batch, now);
            num_attempts += 1;
        }
        assert!((36..=60).contains(&num_attempts), "{num_attempts}");
    }

    #[test]
    fn silence_is_counted_from_the_last_word() {
        let (mut schedule, now) = schedule();
        let at = |seconds| now + Duration::from_secs(seconds);
        (1..=2).for_each(|n| schedule.push(batch(n)));
        assert_eq!(schedule.silent_for(at(9)), Duration::ZERO);
        schedule.next(at(0), 8).unwrap();
        schedule.next(at(1), 8).unwrap();
        assert_eq!(schedule.silent_for(at(5)), Duration::from_secs(5));
        schedule.succeeded(at(5));
        assert_eq!(schedule.silent_for(at(7)), Duration::from_secs(2));
        schedule.refused(at(8));
        assert_eq!(schedule.silent_for(at(9)), Duration::ZERO);
    }

    #[test]
    fn delays_grow_up_to_a_cap() {
        let (schedule, _) = schedule();
        assert!(schedule.item_delay(1, None) < Duration::from_secs(1));
        assert!(schedule.item_delay(u16::MAX, None) <= Duration::from_secs(20));
    }
}
