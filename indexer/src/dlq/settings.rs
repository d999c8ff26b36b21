//! What `dlq` needs of the settings of a run.

use millrace_common::config::{self, Draft, Environment, Faults, Setting};
use millrace_common::exit::Exit;
use millrace_common::kafka::{self, Options, Role};

use super::args::Connection;
use crate::config::Raw;

/// Where the dead letters are, checked.
#[derive(Debug)]
pub struct Dlq {
    pub brokers: Vec<String>,
    /// Of the group only the name is used, which the cluster's rules of access may ask for. It is not joined.
    pub group: String,
    /// Options of the consumer.
    pub options: Options,
    pub topic: String,
    /// Bound in bytes for records in memory.
    pub memory: u64,
}

impl Connection {
    /// Reads and checks file and flags.
    ///
    /// # Errors
    /// What is wrong, for people, and the exit code.
    pub(super) fn load(&self) -> Result<Dlq, (String, Exit)> {
        let (name, text) = match &self.config {
            None if self.brokers.is_empty() => {
                let words = "missing: --brokers; give it, or a file with --config (see --help)";
                return Err((words.to_owned(), Exit::Usage));
            }
            None => ("command line".to_owned(), String::new()),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| (format!("cannot read `{}`: {error}", path.display()), Exit::from_io(&error)))?;
                (path.display().to_string(), text)
            }
        };
        let env = |name: &str| std::env::var(name).ok();
        load(&name, &text, &self.flags(), &env).map_err(|faults| (faults.to_string(), Exit::Config))
    }

    fn flags(&self) -> Vec<Setting> {
        let mut settings = Vec::new();
        if !self.brokers.is_empty() {
            settings.push(Setting::list("--brokers", "kafka.brokers", self.brokers.iter().cloned()));
        }
        if let Some(topic) = &self.dead_letter_topic {
            settings.push(Setting::one("--dead-letter-topic", "dead_letter.topic", topic.clone()));
        }
        settings
    }
}

fn load(name: &str, text: &str, flags: &[Setting], env: Environment<'_>) -> Result<Dlq, Faults> {
    // A run needs these, and may have them from elsewhere than the file; here they have no use.
    let mut settings = vec![
        Setting::list("", "kafka.topics", ["unused"]),
        Setting::list("", "elasticsearch.hosts", ["http://unused"]),
    ];
    settings.extend_from_slice(flags);
    let Draft { value, mut faults, .. } = config::draft::<Raw>(name, text, &settings, env);
    let checked = value.map(|raw| {
        for fault in kafka::check(Role::Consumer, &raw.kafka.brokers, &raw.kafka.options) {
            faults.at(&format!("kafka.{}", fault.path)).add(fault.what, fault.remedy);
        }
        if raw.dead_letter.topic.is_empty() {
            faults.at("dead_letter.topic").add("is empty", "name the topic of the dead letters");
        }
        Dlq {
            brokers: raw.kafka.brokers,
            group: raw.kafka.group,
            options: raw.kafka.options,
            topic: raw.dead_letter.topic,
            memory: raw.limits.memory.bytes(),
        }
    });
    faults.finish(checked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_alone_suffice() {
        let brokers = [Setting::list("--brokers", "kafka.brokers", ["k:9092"])];
        let settings = load("command line", "", &brokers, &|_| None).unwrap();
        assert_eq!((settings.topic.as_str(), settings.memory), ("logs.dlq", 256 << 20));
    }

    #[test]
    fn the_file_of_a_run_serves_and_flags_win() {
        let file = "kafka: { brokers: [\"k:9092\"], options: { client.rack: r1 } }\nelasticsearch: { hosts: [] }\n\
                    dead_letter: { topic: a.dlq }\n";
        let settings = load("indexer.yaml", file, &[], &|_| None).unwrap();
        assert_eq!((settings.topic.as_str(), settings.options.iter().count()), ("a.dlq", 1));
        let flag = [Setting::one("--dead-letter-topic", "dead_letter.topic", "b.dlq")];
        assert_eq!(load("indexer.yaml", file, &flag, &|_| None).unwrap().topic, "b.dlq");
    }

    #[test]
    fn faults_of_what_is_used_are_told() {
        let file = "kafka: { brokers: [\"k 1\"], options: { group.id: x } }\ndead_leter: { topic: a }\n";
        let words = load("indexer.yaml", file, &[], &|_| None).unwrap_err().to_string();
        for part in ["kafka.brokers[0]", "group.id", "dead_leter"] {
            assert!(words.contains(part), "{part} missing in:\n{words}");
        }
    }
}
