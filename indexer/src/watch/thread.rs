//! The thread that keeps an instance's view, and answers its owner.

#![expect(clippy::disallowed_methods, reason = "an edge module: few questions are ever open, one for each partition")]

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use millrace_common::ledger::indexed::{IndexedKey, IndexedRow};
use millrace_common::retry::Delays;

use super::reading::{Reading, Shared, WatchError, create_topics};
use crate::bulk::batch::Owner;
use crate::config::Kafka;

/// Pause between rounds.
const INTERVAL: Duration = Duration::from_secs(2);
/// How often rows are looked for that nobody asks for, and how long nothing may have come of them.
const FORGET_INTERVAL: Duration = Duration::from_secs(600);
const FORGET_AFTER_MS: i64 = 24 * 3_600_000;

/// What the owner wants to know: the rows that other writers left of a partition.
#[derive(Debug)]
pub struct Question {
    pub owner: Owner,
    pub topic: Arc<str>,
    pub partition: i32,
    pub writer: String,
}

#[derive(Debug)]
pub enum Answer {
    Left {
        owner: Owner,
        rows: Vec<(IndexedKey, IndexedRow)>,
    },
    /// Nobody asks for these rows any more.
    Forgotten(Vec<IndexedKey>),
}

/// The owner's end. The thread ends when this is dropped.
pub struct Watch {
    questions: mpsc::Sender<Question>,
    answers: mpsc::Receiver<Answer>,
    shared: Arc<Shared>,
}

impl Watch {
    /// `wake` is called after each answer.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(kafka: Kafka, shared: Arc<Shared>, wake: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        let (questions, asked) = mpsc::channel();
        let (sender, answers) = mpsc::channel();
        let state = Arc::clone(&shared);
        thread::Builder::new().name("ledger".into()).spawn(move || {
            let mut thread = Thread { kafka, shared: state, asked, answers: sender, open: Vec::new(), wake };
            thread.run();
        })?;
        Ok(Self { questions, answers, shared })
    }

    pub fn ask(&self, question: Question) {
        // The thread ends only after this sender.
        let _ = self.questions.send(question);
    }

    pub fn answer(&self) -> Option<Answer> {
        self.answers.try_recv().ok()
    }

    /// Why the ledger's topics cannot be used, while they cannot.
    pub fn trouble(&self) -> Option<String> {
        self.shared.trouble()
    }
}

struct Thread<W> {
    kafka: Kafka,
    shared: Arc<Shared>,
    asked: mpsc::Receiver<Question>,
    answers: mpsc::Sender<Answer>,
    /// Questions that wait for a round that began after them.
    open: Vec<Question>,
    wake: W,
}

/// The owner is gone.
struct Over;

impl<W: Fn()> Thread<W> {
    fn run(&mut self) {
        if let Ok(mut reading) = self.open() {
            self.go_round(&mut reading);
            reading.close();
        }
    }

    fn go_round(&mut self, reading: &mut Reading) {
        let mut forget_at = Instant::now() + FORGET_INTERVAL;
        let mut is_reading = true;
        loop {
            if self.take_questions().is_err() {
                return;
            }
            let num_open = self.open.len();
            match reading.round(&self.shared, &self.kafka.topics) {
                Ok(()) => {
                    self.shared.note_history();
                    if self.answer(num_open).is_err() {
                        return;
                    }
                    is_reading = true;
                }
                Err(error) if is_reading => {
                    is_reading = false;
                    tracing::warn!(error = %words(&error), "the ledger cannot be read: nothing is known of the pipeline");
                }
                Err(_) => {}
            }
            if Instant::now() >= forget_at {
                forget_at = Instant::now() + FORGET_INTERVAL;
                let forgotten = self.shared.view().forgotten(FORGET_AFTER_MS);
                if !forgotten.is_empty() && self.send(Answer::Forgotten(forgotten)).is_err() {
                    return;
                }
            }
            let next = Instant::now() + INTERVAL;
            let num_waiting = self.open.len();
            while Instant::now() < next && self.open.len() == num_waiting {
                if self.take_questions().is_err() {
                    return;
                }
                if let Err(error) = reading.take(&self.shared) {
                    tracing::debug!(%error, "cannot read the ledger");
                }
            }
        }
    }

    fn open(&mut self) -> Result<Reading, Over> {
        let mut delays = Delays::new(Duration::from_secs(1), Duration::from_secs(15));
        loop {
            let opened = create_topics(&self.kafka).and_then(|()| Reading::open(&self.kafka));
            match opened {
                Ok(reading) => {
                    self.shared.note_trouble(None);
                    return Ok(reading);
                }
                Err(error) => {
                    let words = words(&error);
                    if self.shared.trouble().as_ref() != Some(&words) {
                        tracing::warn!(error = words, "the ledger cannot be used");
                    }
                    self.shared.note_trouble(Some(words));
                }
            }
            match self.asked.recv_timeout(delays.next_delay()) {
                Ok(question) => self.open.push(question),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return Err(Over),
            }
        }
    }

    fn take_questions(&mut self) -> Result<(), Over> {
        loop {
            match self.asked.try_recv() {
                Ok(question) => self.open.push(question),
                Err(mpsc::TryRecvError::Empty) => return Ok(()),
                Err(mpsc::TryRecvError::Disconnected) => return Err(Over),
            }
        }
    }

    fn answer(&mut self, num: usize) -> Result<(), Over> {
        for question in self.open.drain(..num).collect::<Vec<_>>() {
            let Question { owner, topic, partition, writer } = question;
            let rows = self.shared.view().left_by_others(&topic, partition, &writer);
            self.send(Answer::Left { owner, rows })?;
        }
        Ok(())
    }

    fn send(&self, answer: Answer) -> Result<(), Over> {
        self.answers.send(answer).map_err(|_| Over)?;
        (self.wake)();
        Ok(())
    }
}

/// An error with its causes.
fn words(error: &WatchError) -> String {
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        words.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    words
}
