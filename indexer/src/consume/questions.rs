//! Questions to the broker that take a round trip or, when it is away, a timeout: asked on a thread of their own, so that the
//! owner never stops polling.

#![expect(
    clippy::disallowed_methods,
    reason = "an edge module: few questions are ever open, as stated where the channels are made"
)]

use std::ops::Range;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use millrace_common::kafka::cut_off::Suspicion;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::retention::{self, Retentions};
use super::source::{Source, TopicPartition};
use crate::bulk::batch::Owner;
use crate::commit::committer::Offsets;

const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub enum Question {
    /// Where the group stands.
    Committed(Vec<TopicPartition>),
    /// Offsets that were skipped: did retention take them?
    Gap { owner: Owner, partition: TopicPartition, offsets: Range<i64> },
    /// Commits offsets. (An asynchronous commit of this client tells its outcome to nobody.)
    Commit(Offsets),
    /// Where partitions begin and end.
    Ends(Vec<(Owner, TopicPartition)>),
    /// Which of these topics are not there.
    Missing(Vec<String>),
    /// How long these topics keep records.
    Retention(Vec<String>),
}

#[derive(Debug)]
pub enum Answer {
    Committed {
        partitions: Vec<TopicPartition>,
        result: Result<Vec<Option<i64>>, KafkaError>,
    },
    /// `log_start`: the first offset that the broker still has.
    Gap {
        owner: Owner,
        partition: TopicPartition,
        offsets: Range<i64>,
        log_start: Result<i64, KafkaError>,
    },
    Commit {
        offsets: Offsets,
        result: Result<(), KafkaError>,
    },
    /// Partitions about which the broker said nothing are left out.
    Ends(Vec<(Owner, Range<i64>)>),
    Missing(Result<Vec<String>, KafkaError>),
    Retention(Retentions),
    /// The consumer lost its brokers for good, while they answer others.
    CutOff,
}

impl Answer {
    /// Whether a broker gave it.
    pub fn is_from_broker(&self) -> bool {
        match self {
            Self::Committed { result, .. } => result.is_ok(),
            Self::Gap { log_start, .. } => log_start.is_ok(),
            Self::Commit { result, .. } => result.is_ok(),
            Self::Ends(ends) => !ends.is_empty(),
            Self::Missing(missing) => missing.is_ok(),
            // It came over another connection.
            Self::Retention(_) | Self::CutOff => false,
        }
    }
}

/// The owner's end. The thread ends when this is dropped.
pub struct Questions {
    questions: mpsc::Sender<Question>,
    answers: mpsc::Receiver<Answer>,
}

impl Questions {
    /// Starts a thread of this name. `wake` is called after each answer.
    pub fn start(name: &str, source: Source, wake: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        // Few are ever open: one for each rebalance, one for each gap and second, one for each tick.
        let (questions, asked) = mpsc::channel();
        let (sender, answers) = mpsc::channel();
        thread::Builder::new().name(name.into()).spawn(move || {
            let mut suspicion = Suspicion::default();
            while let Ok(question) = asked.recv() {
                let topic = match &question {
                    Question::Missing(topics) => topics.first().cloned(),
                    _ => None,
                };
                let answer = answer(&source, question);
                let has_answered = answer.is_from_broker();
                // Without a topic there is nothing to compare, and nothing may be asked at all.
                let is_suspicious = (has_answered || topic.is_some()) && suspicion.note(has_answered, Instant::now());
                if sender.send(answer).is_err() {
                    return;
                }
                let is_cut_off = is_suspicious && topic.is_some_and(|topic| source.is_cut_off(&topic));
                if is_cut_off && sender.send(Answer::CutOff).is_err() {
                    return;
                }
                wake();
            }
        })?;
        Ok(Self { questions, answers })
    }

    pub fn ask(&self, question: Question) {
        // The thread ends only after this sender.
        let _ = self.questions.send(question);
    }

    pub fn answer(&self) -> Option<Answer> {
        self.answers.try_recv().ok()
    }
}

fn answer(source: &Source, question: Question) -> Answer {
    let consumer = source.consumer();
    match question {
        Question::Committed(partitions) => {
            let result = committed(source, &partitions);
            Answer::Committed { partitions, result }
        }
        Question::Gap { owner, partition, offsets } => {
            let log_start = consumer.fetch_watermarks(&partition.0, partition.1, PATIENCE).map(|(low, _)| low);
            Answer::Gap { owner, partition, offsets, log_start }
        }
        Question::Commit(offsets) => {
            let result = commit(source, &offsets);
            Answer::Commit { offsets, result }
        }
        Question::Ends(partitions) => {
            let started = Instant::now();
            let ends = |(owner, (topic, partition)): (Owner, TopicPartition)| {
                // A broker that hangs is not asked for each of its partitions.
                let patience = PATIENCE.checked_sub(started.elapsed())?.min(Duration::from_secs(2));
                let (low, high) = consumer.fetch_watermarks(&topic, partition, patience).ok()?;
                Some((owner, low..high))
            };
            Answer::Ends(partitions.into_iter().filter_map(ends).collect())
        }
        Question::Missing(topics) => {
            let missing = |topic: &String| -> Result<bool, KafkaError> {
                let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
                Ok(metadata.topics().iter().all(|found| found.partitions().is_empty()))
            };
            let mut found = Vec::new();
            for topic in topics {
                match missing(&topic) {
                    Ok(true) => found.push(topic),
                    Ok(false) => {}
                    Err(error) => return Answer::Missing(Err(error)),
                }
            }
            Answer::Missing(Ok(found))
        }
        Question::Retention(topics) => Answer::Retention(retention::ask(source.config(), &topics)),
    }
}

fn commit(source: &Source, offsets: &Offsets) -> Result<(), KafkaError> {
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for ((topic, partition), offset) in offsets {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
    }
    source.consumer().commit(&list, CommitMode::Sync)?;
    // The whole may succeed where a partition did not.
    list.elements().iter().try_for_each(|element| element.error())
}

fn committed(source: &Source, partitions: &[TopicPartition]) -> Result<Vec<Option<i64>>, KafkaError> {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for (topic, partition) in partitions {
        list.add_partition(topic, *partition);
    }
    let list = source.consumer().committed_offsets(list, PATIENCE)?;
    let offset = |(topic, partition): &TopicPartition| {
        let element = list.find_partition(topic, *partition);
        element.map_or(Ok(None), |element| {
            element.error()?;
            Ok(if let Offset::Offset(offset) = element.offset() { Some(offset) } else { None })
        })
    };
    partitions.iter().map(offset).collect()
}
