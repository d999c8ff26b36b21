//! Dead letters on their way: sent, sent again when refused, and cut into parts when too large for the topic.

#![expect(clippy::disallowed_methods, reason = "an edge module: letters carry the time of day")]

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use millrace_common::retry::Delays;
use rdkafka::types::RDKafkaErrorCode;

use super::letter_log::LetterLog;
use crate::bulk::batch::Owner;
use crate::commit::ledger::Sequence;
use crate::dead_letter::{DeadLetters, Delivered, Letter};

/// Parts are not made smaller than this: a topic that takes less takes nothing.
const MIN_PART: usize = 256;

/// The owner's side of the dead letter topic.
pub struct Letters {
    topic: DeadLetters,
    /// Refused ones, sent again together.
    refused: Vec<Letter>,
    /// Letters on their way in parts.
    in_parts: HashMap<(Owner, Sequence), InParts>,
    retry_at: Instant,
    delays: Delays,
    trouble: Option<String>,
    log: LetterLog,
}

/// A letter that the topic takes only in parts.
struct InParts {
    whole: Letter,
    max: usize,
    num: u32,
    acknowledged: HashSet<u32>,
}

impl Letters {
    pub fn new(topic: DeadLetters, now: Instant) -> Self {
        let delays = Delays::new(Duration::from_millis(500), Duration::from_secs(15));
        let log = LetterLog::new(now);
        Self { topic, refused: Vec::new(), in_parts: HashMap::new(), retry_at: now, delays, trouble: None, log }
    }

    pub fn send(&mut self, letter: Letter, now: Instant) {
        let timestamp = jiff::Timestamp::now();
        if let Err(refused) = self.topic.send(letter, &format!("{timestamp:.3}")) {
            self.refuse(refused, now);
        }
    }

    /// Takes acknowledgements and sends again what is due. Returns the letters that the topic has, whole or in all parts.
    pub fn turn(&mut self, now: Instant) -> Vec<Letter> {
        let mut finished = Vec::new();
        while let Some(delivered) = self.topic.delivered() {
            if delivered.result.is_err() {
                self.refuse(delivered, now);
                continue;
            }
            self.delays.reset();
            if self.trouble.take().is_some() {
                tracing::info!("the dead letter topic takes letters again");
            }
            let letter = self.acknowledge(delivered.letter);
            letter.iter().for_each(|letter| self.log.tell(letter, now));
            finished.extend(letter);
        }
        if !self.refused.is_empty() && now >= self.retry_at {
            for letter in std::mem::take(&mut self.refused) {
                self.send(letter, now);
            }
        }
        finished
    }

    /// Gives the letter of which the topic has all now.
    fn acknowledge(&mut self, letter: Letter) -> Option<Letter> {
        let Some((number, num)) = letter.part else { return Some(letter) };
        let key = (letter.owner, letter.sequence);
        let parts = self.in_parts.get_mut(&key)?;
        // Parts of an earlier, coarser cut say nothing about this one.
        if parts.num == num {
            parts.acknowledged.insert(number);
        }
        if parts.acknowledged.len() < parts.num as usize {
            return None;
        }
        self.in_parts.remove(&key).map(|parts| parts.whole)
    }

    fn refuse(&mut self, delivered: Delivered, now: Instant) {
        let Delivered { letter, result } = delivered;
        let code = result.as_ref().err().and_then(rdkafka::error::KafkaError::rdkafka_error_code);
        let letter = match code {
            // Perhaps only its company made the request too large.
            Some(RDKafkaErrorCode::MessageSizeTooLarge) if !letter.is_alone => {
                return self.send(Letter { is_alone: true, ..letter }, now);
            }
            Some(RDKafkaErrorCode::MessageSizeTooLarge) => match self.cut(letter, now) {
                Some(letter) => letter,
                None => return,
            },
            _ => letter,
        };
        let words = result.err().map(|error| error.to_string()).unwrap_or_default();
        if self.trouble.is_none() {
            tracing::error!(
                reason = words,
                topic = letter.topic,
                partition = letter.partition,
                offset = letter.offset,
                "the dead letter topic refuses letters: their offsets are not committed until it takes them"
            );
        }
        self.trouble = Some(words);
        if self.refused.is_empty() {
            self.retry_at = now + self.delays.next_delay();
        }
        self.refused.push(letter);
    }

    /// Sends a letter that is too large in smaller parts. Gives it back if it cannot be cut any smaller.
    fn cut(&mut self, letter: Letter, now: Instant) -> Option<Letter> {
        let key = (letter.owner, letter.sequence);
        let (whole, max) = match (self.in_parts.get(&key), letter.part) {
            (Some(parts), Some((_, num))) if parts.num != num => return None,
            (Some(parts), _) => (parts.whole.clone(), parts.max / 2),
            (None, _) => {
                let max = letter.record.value.len() / 2;
                (letter.clone(), max)
            }
        };
        if max < MIN_PART {
            return Some(letter);
        }
        let parts: Vec<Letter> = whole.parts(max).collect();
        let num = parts.len() as u32;
        self.in_parts.insert(key, InParts { whole, max, num, acknowledged: HashSet::new() });
        for part in parts {
            self.send(part, now);
        }
        None
    }

    /// Why letters are held, if they are.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// When refused letters are sent again.
    pub fn due(&self) -> Option<Instant> {
        (!self.refused.is_empty()).then_some(self.retry_at)
    }

    /// Whether outcomes are to come, for which nothing wakes the owner.
    pub fn are_on_their_way(&self) -> bool {
        self.topic.is_waiting()
    }

    pub fn give_up(&self) {
        self.topic.give_up();
    }
}
