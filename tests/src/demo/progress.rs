//! What is where at one moment.

use crate::elasticsearch::Elasticsearch;
use crate::http;
use crate::kafka::Kafka;

use super::program::Program;
use super::setup::{GROUP, INDICES, TOPIC};

/// A counter of a program that begins at 0 whenever the program is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counter {
    /// Of earlier starts.
    before: f64,
    last: f64,
}

impl Counter {
    fn read(&mut self, value: f64) {
        if value < self.last {
            self.before += self.last;
        }
        self.last = value;
    }

    /// The sum over all starts. What was counted in the last moment before a kill is not in it.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of events")]
    pub fn total(self) -> u64 {
        (self.before + self.last) as u64
    }
}

/// Counts and memory, as far as they could be read.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Records in Kafka, resent ones included.
    pub shipped: i64,
    /// Documents in the index; the last known number while Elasticsearch is down.
    pub indexed: u64,
    /// Records in Kafka that the indexers have not finished.
    pub lag: i64,
    pub refused: u64,
    pub dead_lettered: u64,
    /// Resident bytes of shipper, both indexers, Kafka and Elasticsearch; `None` while one does not run.
    pub memory: [Option<u64>; 5],
    pub is_elasticsearch_up: bool,
}

/// Reads samples, remembering what restarts make forget.
#[derive(Default)]
pub struct Sampler {
    last: Sample,
    refused: [Counter; 3],
    dead_lettered: [Counter; 3],
    num_samples: u32,
}

impl Sampler {
    /// Reads everything once. What does not answer keeps its last value.
    pub fn sample(&mut self, kafka: &Kafka, node: &Elasticsearch, programs: &mut [Program; 3]) -> Sample {
        for (at, program) in programs.iter_mut().enumerate() {
            self.last.memory[at] = program.look();
            if let Some(text) = program.metrics() {
                let documents = |result| http::metric(&text, "indexer_documents_total", &[result]).unwrap_or(0.0);
                self.refused[at].read(documents("result=\"duplicate\""));
                self.dead_lettered[at].read(documents("result=\"dead_lettered\""));
            }
        }
        self.last.memory[3] = kafka.with_process(|process| process.group_rss_bytes()).ok();
        self.last.memory[4] = node.with_process(|process| process.group_rss_bytes()).ok();
        self.last.refused = self.refused.iter().map(|counter| counter.total()).sum();
        self.last.dead_lettered = self.dead_lettered.iter().map(|counter| counter.total()).sum();
        if let Ok(ends) = kafka.end_offsets(TOPIC) {
            self.last.shipped = ends.values().sum();
        }
        if let Ok(lag) = kafka.lag(GROUP, TOPIC) {
            self.last.lag = lag;
        }
        // A count needs a refresh, which costs the node more than the rest of the sample.
        if self.num_samples.is_multiple_of(2) {
            let count = node.with_process(|_| node.is_ready().then(|| node.count(INDICES).ok()).flatten());
            let count = count.ok().flatten();
            self.last.is_elasticsearch_up = count.is_some();
            self.last.indexed = count.unwrap_or(self.last.indexed);
        }
        self.num_samples += 1;
        self.last.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counter_goes_on_over_a_restart() {
        let mut counter = Counter::default();
        for value in [3.0, 10.0, 0.0, 4.0, 2.0] {
            counter.read(value);
        }
        assert_eq!(counter.total(), 16);
    }
}
