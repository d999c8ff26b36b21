//! Which batch goes out next, and when. Pure: `now` comes in.
//!
//! New batches wait in order. Items to be sent again wait for their time and are sent together. After a request that
//! failed as a whole, the gate lets one request at a time through, later and later, until one succeeds.
//!
//! A batch that was not answered when last sent may never be: a suspect. Suspects take at most half of the places. Any other
//! batch finds one beside them, and tries a closed gate before them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use millrace_common::retry::Delays;

use super::batch::Batch;
use super::unanswered::Weight;

/// A batch and its history.
#[derive(Debug)]
pub struct Queued {
    pub batch: Batch,
    /// Sent as it is: a part of a refused request, or one whose outcome is unknown.
    pub is_fixed: bool,
    /// It, or the batch that it is a part of, was not answered when last sent.
    pub unanswered: Option<Weight>,
}

impl Queued {
    fn new(batch: Batch, is_fixed: bool) -> Self {
        Self { batch, is_fixed, unanswered: None }
    }

    fn is_suspect(&self) -> bool {
        self.unanswered.is_some()
    }
}

/// A batch that may go out now.
#[derive(Debug)]
pub struct Departure {
    pub queued: Queued,
    /// To be handed back with what became of it.
    pub passed: Passed,
}

/// How a request passed the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Greater than that of every request that set out before.
    pub number: u64,
    pub unanswered: Option<Weight>,
    closings: u64,
}

#[derive(Debug)]
pub struct Schedule {
    ready: VecDeque<Queued>,
    delayed: Vec<(Instant, Queued)>,
    in_flight: usize,
    /// Of these.
    suspects_in_flight: usize,
    num_departed: u64,
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
            suspects_in_flight: 0,
            num_departed: 0,
            heard: None,
            max_bytes,
            max_documents,
            gate,
            item_delay: (Self::ITEMS.0, Self::ITEMS.1.min(max_backoff)),
        }
    }

    /// A new batch.
    pub fn push(&mut self, batch: Batch) {
        self.ready.push_back(Queued::new(batch, false));
    }

    /// Parts of a refused request, before all else.
    pub fn push_parts(&mut self, parts: [Batch; 2]) {
        for batch in parts.into_iter().rev() {
            self.ready.push_front(Queued::new(batch, true));
        }
    }

    /// Items to be sent again, not before `due`.
    pub fn push_delayed(&mut self, batch: Batch, due: Instant) {
        self.delayed.push((due, Queued::new(batch, false)));
    }

    /// A request to be sent again byte for byte, not before `due`.
    pub fn push_again(&mut self, batch: Batch, due: Instant) {
        self.delayed.push((due, Queued::new(batch, true)));
    }

    /// [`Schedule::push_again`] for a batch, or a part of one, that was not answered.
    pub fn push_unanswered(&mut self, batch: Batch, weight: Weight, due: Instant) {
        self.delayed.push((due, Queued { unanswered: Some(weight), ..Queued::new(batch, true) }));
    }

    /// When an item that was sent `attempts` times may be sent again: capped, jittered, not before `retry_after`.
    pub fn item_delay(&self, attempts: u16, retry_after: Option<Duration>) -> Duration {
        let (first, cap) = self.item_delay;
        let first = first.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(cap);
        Delays::new(first, cap).next_delay_at_least(retry_after)
    }

    /// The next batch to send, if one may go out now. `limit` is how many may be on their way at a time.
    pub fn next(&mut self, now: Instant, limit: usize) -> Option<Departure> {
        if self.gate.closed_until.is_some_and(|until| now < until) {
            return None;
        }
        let order = if self.is_held() { [false, true] } else { [true, false] };
        let queued = order.into_iter().find_map(|suspect| self.take(suspect, now, limit))?;
        self.in_flight += 1;
        self.suspects_in_flight += usize::from(queued.is_suspect());
        self.num_departed += 1;
        self.heard.get_or_insert(now);
        let (number, unanswered) = (self.num_departed, queued.unanswered);
        Some(Departure { queued, passed: Passed { number, unanswered, closings: self.gate.closings } })
    }

    /// Whether one more suspect, or one more of the others, may be on its way.
    fn has_place(&self, suspect: bool, limit: usize) -> bool {
        let limit = if self.is_held() { 1 } else { limit };
        match suspect {
            true => self.in_flight < limit && self.suspects_in_flight < limit.div_ceil(2),
            false => self.in_flight < limit.max(self.suspects_in_flight + 1),
        }
    }

    fn take(&mut self, suspect: bool, now: Instant, limit: usize) -> Option<Queued> {
        if !self.has_place(suspect, limit) {
            return None;
        }
        // Suspects wait for their time, none of them is among the ready.
        self.take_delayed(suspect, now).or_else(|| if suspect { None } else { self.ready.pop_front() })
    }

    fn take_delayed(&mut self, suspect: bool, now: Instant) -> Option<Queued> {
        let is_due = |(due, queued): &(Instant, Queued)| *due <= now && queued.is_suspect() == suspect;
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
        Some(Queued::new(batch, false))
    }

    fn came_back(&mut self, passed: Passed, now: Instant) {
        self.in_flight -= 1;
        self.suspects_in_flight -= usize::from(passed.unanswered.is_some());
        self.heard = (self.in_flight > 0).then_some(now);
    }

    /// For how long requests have been on their way without a word about any of them.
    pub fn silent_for(&self, now: Instant) -> Duration {
        self.heard.map_or(Duration::ZERO, |heard| now.saturating_duration_since(heard))
    }

    /// A request was answered by Elasticsearch about its items: the gate opens.
    pub fn succeeded(&mut self, passed: Passed, now: Instant) {
        self.came_back(passed, now);
        self.gate.closed_until = None;
        self.gate.delays.reset();
    }

    /// A request failed for what it contains: nothing is wrong with Elasticsearch.
    pub fn refused(&mut self, passed: Passed, now: Instant) {
        self.came_back(passed, now);
    }

    /// A request failed as a whole: the gate closes. Returns when the next may go out.
    pub fn failed(&mut self, passed: Passed, now: Instant, retry_after: Option<Duration>) -> Instant {
        self.came_back(passed, now);
        let at_least = retry_after.map(|after| now + after);
        if passed.closings == self.gate.closings {
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
        let [suspects, others] = [true, false].map(|suspect| self.has_place(suspect, limit));
        let may_go = |queued: &Queued| if queued.is_suspect() { suspects } else { others };
        let first = self.delayed.iter().filter(|(_, queued)| may_go(queued)).map(|(due, _)| *due).min();
        let first = if self.ready.is_empty() || !others { first } else { Some(now) };
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
        let first = schedule.next(now, 2).unwrap();
        assert_eq!(first.queued.batch.items.len(), 1);
        assert_eq!(schedule.next(now, 2).unwrap().queued.batch.items.len(), 2);
        assert!(schedule.next(now, 2).is_none());
        schedule.succeeded(first.passed, now);
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
        let fourth = schedule.next(later, 8).unwrap();
        schedule.succeeded(fourth.passed, now);
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
    fn a_suspect_leaves_a_place_to_others_and_tries_no_closed_gate_before_them() {
        let (mut schedule, now) = schedule();
        (0..3).for_each(|_| schedule.push_unanswered(batch(7), 0, now));
        let suspect = schedule.next(now, 1).unwrap();
        assert_eq!(suspect.passed.unanswered, Some(0));
        assert!(schedule.next(now, 1).is_none() && schedule.due(now, 1).is_none(), "one of them at a time");
        schedule.push(batch(1));
        assert_eq!(schedule.due(now, 1), Some(now));
        let other = schedule.next(now, 1).unwrap();
        assert_eq!(other.queued.batch.items.len(), 1, "beside a suspect, whatever the limit");
        assert!(other.passed.number > suspect.passed.number);
        assert!(schedule.next(now, 1).is_none());

        let until = schedule.failed(suspect.passed, now, None);
        schedule.refused(other.passed, now);
        schedule.push(batch(2));
        let sizes = [2, 7].map(|_| {
            let departure = schedule.next(until, 8).unwrap();
            schedule.succeeded(departure.passed, until);
            departure.queued.batch.items.len()
        });
        assert_eq!(sizes, [2, 7]);
    }

    #[test]
    fn suspects_take_half_of_the_places() {
        let (mut schedule, now) = schedule();
        (0..8).for_each(|_| schedule.push_unanswered(batch(7), 0, now));
        (0..8).for_each(|_| schedule.push(batch(1)));
        let sizes: Vec<_> = std::iter::from_fn(|| schedule.next(now, 6)).map(|d| d.queued.batch.items.len()).collect();
        assert_eq!(sizes, [7, 7, 7, 1, 1, 1]);
    }

    #[test]
    fn silence_is_counted_from_the_last_word() {
        let (mut schedule, now) = schedule();
        let at = |seconds| now + Duration::from_secs(seconds);
        (1..=2).for_each(|n| schedule.push(batch(n)));
        assert_eq!(schedule.silent_for(at(9)), Duration::ZERO);
        let [first, second] = [0, 1].map(|seconds| schedule.next(at(seconds), 8).unwrap().passed);
        assert_eq!(schedule.silent_for(at(5)), Duration::from_secs(5));
        schedule.succeeded(first, at(5));
        assert_eq!(schedule.silent_for(at(7)), Duration::from_secs(2));
        schedule.refused(second, at(8));
        assert_eq!(schedule.silent_for(at(9)), Duration::ZERO);
    }

    #[test]
    fn delays_grow_up_to_a_cap() {
        let (schedule, _) = schedule();
        assert!(schedule.item_delay(1, None) < Duration::from_secs(1));
        assert!(schedule.item_delay(u16::MAX, None) <= Duration::from_secs(20));
    }
}
