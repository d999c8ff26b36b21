//! Dead letters on their way: sent, and sent again when refused.

#![expect(clippy::disallowed_methods, reason = "an edge module: letters carry the time of day")]

use std::time::{Duration, Instant};

use millrace_common::retry::Delays;

use crate::dead_letter::{DeadLetters, Delivered, Letter};

/// The owner's side of the dead letter topic.
pub struct Letters {
    topic: DeadLetters,
    /// Refused ones, sent again together.
    refused: Vec<Letter>,
    retry_at: Instant,
    delays: Delays,
    trouble: Option<String>,
}

impl Letters {
    pub fn new(topic: DeadLetters, now: Instant) -> Self {
        let delays = Delays::new(Duration::from_millis(500), Duration::from_secs(15));
        Self { topic, refused: Vec::new(), retry_at: now, delays, trouble: None }
    }

    pub fn send(&mut self, letter: Letter, now: Instant) {
        let timestamp = jiff::Timestamp::now();
        if let Err(refused) = self.topic.send(letter, &format!("{timestamp:.3}")) {
            self.refuse(refused, now);
        }
    }

    /// Takes acknowledgements and sends again what is due. Returns the letters that the topic has.
    pub fn turn(&mut self, now: Instant) -> Vec<Letter> {
        let mut acknowledged = Vec::new();
        while let Some(delivered) = self.topic.delivered() {
            if delivered.result.is_err() {
                self.refuse(delivered, now);
                continue;
            }
            self.delays.reset();
            if self.trouble.take().is_some() {
                tracing::info!("the dead letter topic takes letters again");
            }
            acknowledged.push(delivered.letter);
        }
        if !self.refused.is_empty() && now >= self.retry_at {
            for letter in std::mem::take(&mut self.refused) {
                self.send(letter, now);
            }
        }
        acknowledged
    }

    fn refuse(&mut self, delivered: Delivered, now: Instant) {
        let Delivered { letter, result } = delivered;
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

    /// Why letters are held, if they are.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// When refused letters are sent again.
    pub fn due(&self) -> Option<Instant> {
        (!self.refused.is_empty()).then_some(self.retry_at)
    }

    pub fn close(self) {
        self.topic.close();
    }
}
