//! Topics in memory that acknowledge late, refuse, hang, and forget to say that they wrote.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use rdkafka::types::RDKafkaErrorCode;

use super::ledger::Rows;
use super::random::Random;
use crate::produce::{Broker, Delivery, Outgoing, Refused};

pub struct Message {
    pub topic: usize,
    pub partition: i32,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    pub timestamp_ms: i64,
}

pub const NUM_TOPICS: usize = 2;

/// What outlives the process.
pub struct Topics {
    pub log: Vec<Message>,
    pub num_partitions: [Option<u32>; NUM_TOPICS],
    /// Answers nothing, while the other topic goes on.
    pub is_hung: [bool; NUM_TOPICS],
    /// Ids of the records that the producer of this process life took.
    pub taken: BTreeSet<Vec<u8>>,
    pub random: Random,
    pub is_healthy: bool,
}

struct Queued {
    message: Message,
    token: usize,
}

/// The producer of one process life.
pub struct Producer {
    topics: Rc<RefCell<Topics>>,
    rows: Rc<RefCell<Rows>>,
    queues: BTreeMap<(usize, i32), VecDeque<Queued>>,
    /// Not under way before the next dispatch. Of one partition.
    waiting: VecDeque<Queued>,
    failed: Vec<Delivery>,
}

pub const CAPACITY: usize = 8;
const MAX_WAITING: usize = 3;

impl Producer {
    pub fn new(topics: Rc<RefCell<Topics>>, rows: Rc<RefCell<Rows>>) -> Self {
        topics.borrow_mut().taken.clear();
        Self { topics, rows, queues: BTreeMap::new(), waiting: VecDeque::new(), failed: Vec::new() }
    }

    fn has_room(&self) -> bool {
        self.queues.values().map(VecDeque::len).sum::<usize>() < CAPACITY
    }
}

impl Drop for Producer {
    /// The process is killed: of what was under way, the topic gets some.
    fn drop(&mut self) {
        let mut topics = self.topics.borrow_mut();
        for queue in std::mem::take(&mut self.queues).into_values() {
            let arrived = topics.random.below(queue.len() as u64 + 1) as usize;
            topics.log.extend(queue.into_iter().take(arrived).map(|queued| queued.message));
        }
    }
}

impl Broker for Producer {
    fn num_partitions(&self, topic: usize) -> Option<u32> {
        self.topics.borrow().num_partitions[topic]
    }

    fn send(&mut self, record: Outgoing<'_>) -> Result<(), Refused> {
        let lane = |message: &Message| (message.topic, message.partition);
        let is_another = |queued: &Queued| lane(&queued.message) != (record.topic, record.partition);
        if self.waiting.len() >= MAX_WAITING || self.waiting.front().is_some_and(is_another) {
            self.dispatch();
        }
        if !self.waiting.is_empty() && !self.has_room() {
            return Err(Refused::Full);
        }
        let mut topics = self.topics.borrow_mut();
        if !topics.is_healthy && topics.random.chance(1) {
            return Err(Refused::Error(RDKafkaErrorCode::UnknownTopic));
        }
        self.rows.borrow_mut().note_produced(record.key);
        topics.taken.insert(record.key.to_vec());
        let message = Message {
            topic: record.topic,
            partition: record.partition,
            key: record.key.to_vec(),
            value: record.value.unwrap_or_default().to_vec(),
            timestamp_ms: record.timestamp_ms,
        };
        self.waiting.push_back(Queued { message, token: record.token });
        Ok(())
    }

    fn dispatch(&mut self) {
        while self.has_room()
            && let Some(queued) = self.waiting.pop_front()
        {
            let mut topics = self.topics.borrow_mut();
            if !topics.is_healthy && topics.random.chance(1) {
                let error = Some(RDKafkaErrorCode::UnknownTopic);
                let refused = std::iter::once(queued).chain(self.waiting.drain(..));
                let failed = |Queued { message, token }| Delivery { token, timestamp_ms: message.timestamp_ms, error };
                self.failed.extend(refused.map(failed));
                return;
            }
            let lane = (queued.message.topic, queued.message.partition);
            self.queues.entry(lane).or_default().push_back(queued);
        }
    }

    fn poll(&mut self, _wait: Duration, deliveries: &mut Vec<Delivery>) {
        deliveries.append(&mut self.failed);
        let mut topics = self.topics.borrow_mut();
        for (&(topic, _), queue) in &mut self.queues {
            let answered = match topics.is_hung[topic] {
                true => 0,
                false if topics.is_healthy => queue.len(),
                false => topics.random.below(queue.len() as u64 + 1) as usize,
            };
            for Queued { message, token } in queue.drain(..answered) {
                let fate = if topics.is_healthy { 0 } else { topics.random.below(100) };
                // 95: not written, 97: written, but nobody will ever know.
                let error = (fate >= 95).then_some(RDKafkaErrorCode::RequestTimedOut);
                let timestamp_ms = message.timestamp_ms;
                if !(95..97).contains(&fate) {
                    topics.log.push(message);
                }
                deliveries.push(Delivery { token, timestamp_ms, error });
            }
        }
    }
}
