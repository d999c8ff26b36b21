//! A topic in memory that acknowledges late, refuses, and forgets to say that it wrote.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use rdkafka::types::RDKafkaErrorCode;

use super::random::Random;
use crate::produce::{Broker, Delivery, Outgoing, Refused};

pub struct Message {
    pub partition: i32,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    pub timestamp_ms: i64,
}

/// What outlives the process.
pub struct Topic {
    pub log: Vec<Message>,
    pub num_partitions: Option<u32>,
    pub random: Random,
    pub is_healthy: bool,
}

struct Queued {
    message: Message,
    token: usize,
}

/// The producer of one process life.
pub struct Producer {
    topic: Rc<RefCell<Topic>>,
    queues: BTreeMap<i32, VecDeque<Queued>>,
}

const CAPACITY: usize = 8;

impl Producer {
    pub fn new(topic: Rc<RefCell<Topic>>) -> Self {
        Self { topic, queues: BTreeMap::new() }
    }
}

impl Drop for Producer {
    /// The process is killed: of what was under way, the topic gets some.
    fn drop(&mut self) {
        let mut topic = self.topic.borrow_mut();
        for queue in std::mem::take(&mut self.queues).into_values() {
            let arrived = topic.random.below(queue.len() as u64 + 1) as usize;
            topic.log.extend(queue.into_iter().take(arrived).map(|queued| queued.message));
        }
    }
}

impl Broker for Producer {
    fn num_partitions(&self) -> Option<u32> {
        self.topic.borrow().num_partitions
    }

    fn send(&mut self, record: Outgoing<'_>) -> Result<(), Refused> {
        let mut topic = self.topic.borrow_mut();
        if self.queues.values().map(VecDeque::len).sum::<usize>() >= CAPACITY {
            return Err(Refused::Full);
        }
        if !topic.is_healthy && topic.random.chance(1) {
            return Err(Refused::Error(RDKafkaErrorCode::UnknownTopic));
        }
        let message = Message {
            partition: record.partition,
            key: record.key.to_vec(),
            value: record.value.to_vec(),
            timestamp_ms: record.timestamp_ms,
        };
        self.queues.entry(record.partition).or_default().push_back(Queued { message, token: record.token });
        Ok(())
    }

    fn poll(&mut self, _wait: Duration, deliveries: &mut Vec<Delivery>) {
        let mut topic = self.topic.borrow_mut();
        for queue in self.queues.values_mut() {
            let answered =
                if topic.is_healthy { queue.len() } else { topic.random.below(queue.len() as u64 + 1) as usize };
            for Queued { message, token } in queue.drain(..answered) {
                let fate = if topic.is_healthy { 0 } else { topic.random.below(100) };
                // 95: not written, 97: written, but nobody will ever know.
                let error = (fate >= 95).then_some(RDKafkaErrorCode::RequestTimedOut);
                if !(95..97).contains(&fate) {
                    topic.log.push(message);
                }
                deliveries.push(Delivery { token, error });
            }
        }
    }
}
