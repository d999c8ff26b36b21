//! What each topic takes: its share of what may be on its way, who waits for it, and where its answers stay away. Pure.
//!
//! A topic that takes nothing must not stop the others. With several topics, each may have on its way as much as is
//! still free after it, so that one that does not answer holds half of the budget at most, a second one a quarter.

use std::collections::BTreeSet;
use std::time::Duration;

/// Bytes and number of records on their way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    pub bytes: u64,
    pub records: u64,
}

/// One partition of a topic.
#[derive(Clone, Copy, Debug, Default)]
struct Lane {
    num_outstanding: u64,
    bytes: u64,
    /// When an answer last arrived, or the first of the outstanding records was sent.
    answered_at: Duration,
    is_told: bool,
}

#[derive(Debug, Default)]
struct Topic {
    load: Load,
    lanes: Vec<Lane>,
    /// Sources with something to read that wait for this topic, and the partitions that they need.
    held: Vec<(usize, Option<i32>)>,
    /// Sources whose records were refused or failed, until one of them is acknowledged again.
    failing: BTreeSet<usize>,
}

/// A partition that begins or ceases to leave its records without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    pub topic: usize,
    pub partition: i32,
    /// How long nothing has been answered, or `None` if answers arrive again.
    pub waited: Option<Duration>,
}

#[derive(Debug)]
pub struct Topics {
    topics: Vec<Topic>,
    total: Load,
    max: Load,
    /// Bytes on their way in one partition.
    max_lane: u64,
}

impl Topics {
    /// A partition without an answer for longer is worth telling.
    pub const PATIENCE: Duration = Duration::from_secs(10);

    pub fn new(num_topics: usize, max: Load, max_lane: u64) -> Self {
        Self { topics: (0..num_topics).map(|_| Topic::default()).collect(), total: Load::default(), max, max_lane }
    }

    pub fn indices(&self) -> std::ops::Range<usize> {
        0..self.topics.len()
    }

    pub fn inflight_bytes(&self) -> u64 {
        self.total.bytes
    }

    pub fn load(&self, topic: usize) -> Load {
        self.topics[topic].load
    }

    /// Whether the only topic has used the budget up. It is asked between windows, which keeps them whole.
    pub fn is_full(&self) -> bool {
        self.topics.len() == 1 && self.total.bytes >= self.max.bytes
    }

    /// Whether the partition has as much on its way as it may. It is asked between windows, which keeps them whole.
    pub fn is_lane_full(&self, topic: usize, partition: i32) -> bool {
        self.topics[topic].lanes.get(partition.max(0) as usize).is_some_and(|lane| lane.bytes >= self.max_lane)
    }

    /// Whether one of several topics may have one more record on its way. One with nothing under way always may.
    pub fn has_room(&self, topic: usize) -> bool {
        self.topics.len() == 1 || self.fits(topic, 1)
    }

    fn fits(&self, topic: usize, times: u64) -> bool {
        let load = self.topics[topic].load;
        let free = |max: u64, total: u64| max.saturating_sub(total);
        load.records == 0
            || (load.bytes * times < free(self.max.bytes, self.total.bytes)
                && load.records * times < free(self.max.records, self.total.records))
    }

    pub fn sent(&mut self, topic: usize, partition: i32, num_bytes: u32, now: Duration) {
        let lane = self.lane(topic, partition);
        if lane.num_outstanding == 0 {
            lane.answered_at = now;
        }
        lane.num_outstanding += 1;
        lane.bytes += u64::from(num_bytes);
        for load in [&mut self.topics[topic].load, &mut self.total] {
            load.bytes += u64::from(num_bytes);
            load.records += 1;
        }
    }

    pub fn settled(&mut self, topic: usize, partition: i32, num_bytes: u32, now: Duration) {
        let lane = self.lane(topic, partition);
        lane.answered_at = now;
        lane.num_outstanding -= 1;
        lane.bytes -= u64::from(num_bytes);
        for load in [&mut self.topics[topic].load, &mut self.total] {
            load.bytes -= u64::from(num_bytes);
            load.records -= 1;
        }
    }

    fn lane(&mut self, topic: usize, partition: i32) -> &mut Lane {
        let (lanes, at) = (&mut self.topics[topic].lanes, partition.max(0) as usize);
        if lanes.len() <= at {
            lanes.resize_with(at + 1, Lane::default);
        }
        &mut lanes[at]
    }

    /// Lets a source wait until [`Self::wake`].
    pub fn hold(&mut self, topic: usize, slot: usize, partition: Option<i32>) {
        self.topics[topic].held.push((slot, partition));
    }

    pub fn is_any_held(&self) -> bool {
        self.topics.iter().any(|topic| !topic.held.is_empty())
    }

    /// The sources whose partition has room, if the topic has for more than the next record.
    pub fn wake(&mut self, topic: usize) -> Vec<usize> {
        // A single topic has room as long as there is some at all, which is asked elsewhere.
        if self.topics.len() > 1 && !self.fits(topic, 2) {
            return Vec::new();
        }
        let held = std::mem::take(&mut self.topics[topic].held);
        let is_full = |&(_, partition): &(usize, Option<i32>)| partition.is_some_and(|at| self.is_lane_full(topic, at));
        let (waiting, woken): (Vec<_>, Vec<_>) = held.into_iter().partition(is_full);
        self.topics[topic].held = waiting;
        woken.into_iter().map(|(slot, _)| slot).collect()
    }

    /// Notes that a record of the source failed. Returns whether it is the first of its topic.
    pub fn failed(&mut self, topic: usize, slot: usize) -> bool {
        let failing = &mut self.topics[topic].failing;
        failing.insert(slot) && failing.len() == 1
    }

    /// Notes that a source delivers. Returns whether it was the last of its topic that did not.
    pub fn delivers(&mut self, topic: usize, slot: usize) -> bool {
        let failing = &mut self.topics[topic].failing;
        failing.remove(&slot) && failing.is_empty()
    }

    pub fn is_failing(&self, topic: usize) -> bool {
        !self.topics[topic].failing.is_empty()
    }

    pub fn forget(&mut self, topic: usize, slot: usize) {
        self.topics[topic].failing.remove(&slot);
        self.topics[topic].held.retain(|&(held, _)| held != slot);
    }

    pub fn release_all(&mut self) {
        self.topics.iter_mut().for_each(|topic| topic.held.clear());
    }

    /// What has changed since the last call.
    pub fn stalls(&mut self, now: Duration) -> Vec<Stall> {
        let mut changes = Vec::new();
        for (at, topic) in self.topics.iter_mut().enumerate() {
            for (partition, lane) in topic.lanes.iter_mut().enumerate() {
                let waited = lane.waited(now).filter(|waited| *waited > Self::PATIENCE);
                if waited.is_some() != lane.is_told {
                    lane.is_told = waited.is_some();
                    changes.push(Stall { topic: at, partition: partition as i32, waited });
                }
            }
        }
        changes
    }

    /// The partitions told to be without an answer.
    pub fn stalled(&self, topic: usize) -> impl Iterator<Item = i32> {
        let lanes = self.topics[topic].lanes.iter().enumerate();
        lanes.filter(|(_, lane)| lane.is_told).map(|(partition, _)| partition as i32)
    }

    /// The longest that any partition has been without an answer.
    pub fn waited(&self, now: Duration) -> Duration {
        let lanes = self.topics.iter().flat_map(|topic| &topic.lanes);
        lanes.filter_map(|lane| lane.waited(now)).max().unwrap_or_default()
    }
}

impl Lane {
    fn waited(&self, now: Duration) -> Option<Duration> {
        (self.num_outstanding > 0).then(|| now.saturating_sub(self.answered_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);
    const MAX: Load = Load { bytes: 8000, records: 1000 };

    /// Sends records of 10 bytes for as long as there is room.
    fn fill(topics: &mut Topics, topic: usize) -> u64 {
        while topics.has_room(topic) && topics.load(topic).bytes < 10 * MAX.bytes {
            topics.sent(topic, 0, 10, NOW);
        }
        topics.load(topic).bytes
    }

    #[test]
    fn topics_that_do_not_answer_leave_room_for_the_others() {
        let mut topics = Topics::new(4, MAX, u64::MAX);
        assert_eq!([0, 1, 2, 3].map(|topic| fill(&mut topics, topic)), [4000, 2000, 1000, 500]);
        topics.settled(3, 0, 10, NOW);
        assert!(topics.wake(3).is_empty(), "one record is not worth a reading");
        (0..24).for_each(|_| topics.settled(3, 0, 10, NOW));
        topics.hold(3, 7, None);
        assert_eq!(topics.wake(3), [7]);
        assert!(!topics.is_full());
    }

    #[test]
    fn one_topic_may_use_all() {
        let mut topics = Topics::new(1, MAX, u64::MAX);
        (0..799).for_each(|_| topics.sent(0, 0, 10, NOW));
        assert!(!topics.is_full() && topics.has_room(0));
        topics.sent(0, 0, 10, NOW);
        assert!(topics.is_full());
    }

    #[test]
    fn a_full_partition_holds_only_its_own_sources() {
        let mut topics = Topics::new(1, MAX, 100);
        (0..10).for_each(|_| topics.sent(0, 2, 10, NOW));
        assert!(topics.is_lane_full(0, 2) && !topics.is_lane_full(0, 1) && !topics.is_full());
        topics.hold(0, 5, Some(2));
        topics.hold(0, 6, Some(1));
        assert_eq!(topics.wake(0), [6]);
        assert!(topics.wake(0).is_empty() && topics.is_any_held());
        topics.settled(0, 2, 10, NOW);
        assert_eq!(topics.wake(0), [5]);
        assert!(!topics.is_any_held());
    }

    #[test]
    fn large_records_cannot_lock_a_topic_out() {
        let mut topics = Topics::new(3, MAX, u64::MAX);
        topics.sent(0, 0, 6000, NOW);
        topics.sent(1, 0, 6000, NOW);
        assert!(topics.has_room(2), "nothing of it is under way");
        topics.sent(2, 0, 10, NOW);
        assert!(!topics.has_room(2));
    }

    #[test]
    fn the_number_of_records_is_shared_too() {
        let mut topics = Topics::new(2, Load { bytes: u64::MAX, records: 100 }, u64::MAX);
        assert_eq!(fill(&mut topics, 0), 500);
        assert_eq!(fill(&mut topics, 1), 250);
    }

    #[test]
    fn a_partition_without_answers_is_told_once_among_others_that_flow() {
        let mut topics = Topics::new(1, MAX, u64::MAX);
        topics.sent(0, 0, 10, NOW);
        topics.sent(0, 3, 10, NOW);
        let later = NOW + Duration::from_secs(9);
        topics.settled(0, 0, 10, later);
        topics.sent(0, 0, 10, later);
        assert_eq!(topics.stalls(later), []);
        let late = NOW + Duration::from_secs(11);
        let stall = Stall { topic: 0, partition: 3, waited: Some(Duration::from_secs(11)) };
        assert_eq!(topics.stalls(late), [stall]);
        assert_eq!((topics.stalls(late), topics.stalled(0).collect::<Vec<_>>()), (vec![], vec![3]));
        topics.settled(0, 3, 10, late);
        assert_eq!(topics.stalls(late), [Stall { waited: None, ..stall }]);
        assert_eq!(topics.waited(late), Duration::from_secs(2));
    }

    #[test]
    fn a_topic_fails_with_its_first_source_and_delivers_with_its_last() {
        let mut topics = Topics::new(2, MAX, u64::MAX);
        assert!(topics.failed(0, 1) && !topics.failed(0, 1) && !topics.failed(0, 2) && topics.failed(1, 3));
        assert!(!topics.delivers(0, 1) && topics.is_failing(0) && topics.delivers(0, 2) && !topics.delivers(0, 2));
        topics.forget(1, 3);
        assert!(!topics.is_failing(0) && !topics.is_failing(1));
    }
}
