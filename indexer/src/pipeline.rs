//! The running indexer: one thread owns the consumer, the ledgers and the batch that is being filled, and takes turns.
//!
//! Each turn takes what has come back before it takes anything new: outcomes of requests, acknowledged letters, answers of
//! the broker; then the group's wishes, then records, as far as the budgets allow; then it sends what is due. Nothing in it
//! blocks, so the group keeps its member whatever Elasticsearch does. Between turns the thread parks; every source of events
//! unparks it.

#![expect(clippy::disallowed_methods, reason = "an edge module: waiting for brokers is part of being alive")]

mod answers;
mod budget;
mod ending;
mod field_tally;
mod flow;
mod intake;
mod letter_log;
mod letters;
mod membership;
mod meters;
mod partitions;
mod publish;
mod refused;
mod report;
mod retention;
mod settle;
mod take;
mod targets;
mod unanswered;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use millrace_common::exit::Exit;
use millrace_common::kafka;
use millrace_common::shutdown::Signals;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::bulk::client::Client;
use crate::bulk::service::Service;
use crate::commit::publisher::Publisher;
use crate::config::{Config, Kafka};
use crate::consume::{self, Questions, Source};
use crate::dead_letter::DeadLetters;
use crate::health::{Health, Picture};
use crate::templates::Templates;
use crate::watch::thread::Watch;
use crate::watch::view::View;
use flow::{Flow, Parts};
use publish::Publishing;

/// Assumed while no topic is there yet.
const USUAL_PARTITIONS: usize = 12;

/// How a pipeline ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Exit(Exit),
    /// Another configuration waits.
    Restart,
}

/// Whether the clients can be made, with all the files that the settings name.
///
/// # Errors
/// Why not.
pub fn prove(config: &Config) -> anyhow::Result<()> {
    Client::new(config.elasticsearch.clone()).context("elasticsearch")?;
    probe(&config.kafka).map(|_| ())
}

/// Runs until a signal asks for the end, or for a restart. Must be called on the thread that `signals` wakes.
pub fn run(config: Config, signals: &Signals, health: &Arc<Health>) -> anyhow::Result<Ended> {
    let watched = match config.ledger {
        true => Some(health.begin(View::new(&config.kafka.group, &config.kafka.topics, &config.expect))),
        false => {
            health.do_without_ledger();
            None
        }
    };
    let Some(num_partitions) = await_brokers(&config.kafka, signals, health)? else {
        return Ok(if signals.is_draining() { Ended::Exit(Exit::Clean) } else { Ended::Restart });
    };
    let owner = thread::current();
    let wake = move || owner.unpark();
    let client = Client::new(config.elasticsearch.clone()).context("elasticsearch")?;
    let templates = Templates { set: config.templates, apply: config.apply_templates };
    let service = Service::start(client, templates, wake.clone()).context("cannot start the thread for requests")?;
    let letters = DeadLetters::new(&config.kafka, &config.dead_letter_topic)?;
    let source = Source::subscribe(&config.kafka, num_partitions, config.memory.prefetch, wake.clone())?;
    let questions =
        Questions::start("kafka-questions", source.clone(), wake.clone()).context("cannot start a thread")?;
    let commits = Questions::start("kafka-commits", source.clone(), wake.clone()).context("cannot start a thread")?;
    let publishing = match watched {
        Some(shared) => {
            let publisher = Publisher::new(&config.kafka)?;
            let watch = Watch::start(config.kafka.clone(), shared, wake).context("cannot start a thread")?;
            Some(Publishing::new(publisher, watch, Instant::now()))
        }
        None => None,
    };
    let parts = Parts {
        kafka: config.kafka,
        bulk: config.bulk,
        rules: config.rules,
        memory: config.memory,
        shutdown_deadline: config.shutdown_deadline,
        source,
        questions,
        commits,
        service,
        letters,
        publishing,
        health: Arc::clone(health),
    };
    let (ended, clients) = Flow::new(parts, Instant::now()).run(signals);
    match ended {
        Ended::Restart => kafka::retire(clients),
        // Dropping them would wait for brokers that may never answer; the process ends now.
        Ended::Exit(_) => std::mem::forget(clients),
    }
    Ok(ended)
}

/// A client that belongs to no group.
fn probe(settings: &Kafka) -> anyhow::Result<BaseConsumer<consume::Context>> {
    let mut config: ClientConfig = kafka::consumer("indexer", &settings.brokers, &settings.group, &settings.options)?;
    config.remove("group.id");
    // With our context, so that a refused login is told, and not only that nobody answers.
    kafka::create(&config, consume::Context::default()).context("cannot set up the Kafka client")
}

/// Waits until a broker answers. Returns how many partitions the topics have together; `None` if the end, or a restart, is wanted first.
fn await_brokers(settings: &Kafka, signals: &Signals, health: &Health) -> anyhow::Result<Option<usize>> {
    let probe = probe(settings)?;
    let is_wanted = || !signals.is_draining() && !signals.is_restarting();
    let mut was_told = false;
    while is_wanted() {
        health.turned(Instant::now());
        match probe.fetch_metadata(None, Duration::from_secs(3)) {
            Ok(metadata) => {
                let wanted = metadata.topics().iter().filter(|topic| settings.topics.iter().any(|t| t == topic.name()));
                let count: usize = wanted.map(|topic| topic.partitions().len()).sum();
                return Ok(Some(if count == 0 { USUAL_PARTITIONS } else { count }));
            }
            Err(error) if !was_told => {
                let brokers = settings.brokers.join(",");
                tracing::warn!(brokers, %error, "no Kafka broker answers: waiting");
                was_told = true;
            }
            Err(_) => {}
        }
        // Serves what the client has to report; an event that is no message reads as nothing.
        let until = Instant::now() + Duration::from_millis(500);
        while Instant::now() < until && is_wanted() {
            probe.poll(Duration::from_millis(50));
        }
        let trouble = probe.context().trouble().map(|words| format!("; {words}")).unwrap_or_default();
        let blocked = vec![("kafka_unreachable", format!("no broker has answered yet{trouble}"))];
        health.show(Picture { blocked, ..Picture::default() });
    }
    Ok(None)
}
