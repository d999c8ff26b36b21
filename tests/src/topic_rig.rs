//! Shippers whose topics or brokers fail one by one: lost rights, brokers that hang, leaders that change.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::kafka::{Cluster, Kafka, KafkaClient, Options, PASSWORD, USER};
use crate::oracle;
use crate::proxy::Mode;
use crate::rig::{LIMIT, Rig, Shipper};
use crate::wait;
use crate::writer::{Format, Traffic};

/// A rig on a guarded broker, as the user of that broker. Its topic exists; it has no rights.
///
/// # Errors
///
/// If the topic cannot be made.
pub fn guarded_rig(kafka: &Kafka, addr: SocketAddr, name: &str) -> Result<Rig> {
    let mut rig = Rig::on(kafka, &addr.to_string(), name, 1)?;
    // These tests are about the rights to the topic of the records.
    rig.set("ledger", "off");
    let login = [
        ("security.protocol", "sasl_plaintext"),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", USER),
        ("sasl.password", PASSWORD),
    ];
    login.into_iter().for_each(|(name, value)| rig.set_option(name, value));
    Ok(rig)
}

/// A shipper with one input to topic A and one to topic B. The second rig is never started: it is the folder, the topic
/// and the truth of B.
pub struct TwoTopics {
    pub a: Rig,
    pub b: Rig,
}

impl TwoTopics {
    pub fn new(mut a: Rig, b: Rig) -> Self {
        let input = |rig: &Rig| json!({"id": rig.topic, "paths": [rig.path("*.log")], "topic": rig.topic});
        a.set("inputs", json!([input(&a), input(&b)]));
        a.set("kafka.topic", serde_json::Value::Null);
        // A small budget, so that B would use it up.
        a.set("limits", json!({"memory": "8MiB"}));
        Self { a, b }
    }

    /// Writes a line to A again and again: each must be delivered within 10 s, while B delivers nothing more.
    ///
    /// # Errors
    ///
    /// If A is held up, or B is not, or the process ends.
    pub fn check_a_lives(&self, shipper: &mut Shipper, time: Duration) -> Result<()> {
        let (started, pid, held_at) = (Instant::now(), shipper.pid(), self.b.num_records()?);
        let mut n = self.a.written.len() as u64;
        while started.elapsed() < time {
            self.a.append("a.log", self.a.lines("a.log", n..n + 1))?;
            n += 1;
            wait::until_true("the line in A", Duration::from_secs(10), || Ok(self.a.num_records()? == n))?;
            shipper.check_counts()?;
            std::thread::sleep(Duration::from_millis(500));
        }
        ensure!(shipper.pid() == pid && shipper.is_running(), "the shipper ended");
        ensure!(self.b.num_records()? == held_at, "B was to be held");
        let blocked = |topic: &str| shipper.metric("shipper_topic_blocked", &[&format!("topic=\"{topic}\"")]);
        ensure!((blocked(&self.a.topic)?, blocked(&self.b.topic)?) == (0.0, 1.0), "the metric names the wrong topic");
        Ok(())
    }

    /// Waits until A and B hold every line once, and the counters add up.
    ///
    /// # Errors
    ///
    /// If they do not.
    pub fn check_whole(&self, mut shipper: Shipper) -> Result<()> {
        self.b.wait_until_whole(LIMIT)?;
        self.a.wait_until_whole(LIMIT)?;
        let num_lines = (self.a.written.len() + self.b.written.len()) as f64;
        shipper.wait_metric("shipper_acked_events_total", &[], LIMIT, |acked| acked == num_lines)?;
        ensure!(shipper.check_counts()? == num_lines, "events were counted twice");
        shipper.wait_metric("shipper_topic_blocked", &[], LIMIT, |num| num == 0.0)?;
        shipper.stop()?;
        self.a.check_sent_once()
    }
}

/// P19: B lacks the right to be written to for `time`.
///
/// # Errors
///
/// If A is held up, or anything is lost or doubled.
pub fn p19_without_rights(kafka: &Kafka, addr: SocketAddr, name: &str, time: Duration) -> Result<()> {
    let names = [format!("{name}-a"), format!("{name}-b")];
    let rigs = TwoTopics::new(guarded_rig(kafka, addr, &names[0])?, guarded_rig(kafka, addr, &names[1])?);
    kafka.allow("Write", &names[0])?;
    rigs.b.append("b.log", rigs.b.lines("b.log", 0..50_000))?;
    rigs.a.append("a.log", rigs.a.lines("a.log", 0..1000))?;
    let mut shipper = rigs.a.start()?;
    rigs.a.wait_for_records(1000)?;
    rigs.check_a_lives(&mut shipper, time)?;
    ensure!(rigs.b.num_records()? == 0, "nothing may be written to B");
    kafka.allow("Write", &names[1])?;
    rigs.check_whole(shipper)?;
    rigs.b.check_sent_once()
}

/// P14: the leaders of all partitions change `num_rounds` times, once per `every` at most, and after each change one broker's
/// replies are cut off. `num_producers` shippers write to topics of 3 partitions with 3 replicas each. Returns how many
/// records came more than once.
///
/// # Errors
///
/// If a line is missing, torn, or there under two ids.
pub fn p14_elections(name: &str, num_producers: usize, num_rounds: usize, every: Duration) -> Result<usize> {
    let settings = [
        ("auto.leader.rebalance.enable", "true"),
        ("leader.imbalance.check.interval.seconds", "1"),
        ("leader.imbalance.per.broker.percentage", "0"),
    ];
    let settings = settings.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
    let cluster = Cluster::start(3, &Options { heap_mib: 256, settings, ..Options::default() })?;
    let replicas = |shift: usize| -> Vec<Vec<i32>> {
        (0..3).map(|partition| (0..3).map(|at| ((partition + shift + at) % 3 + 1) as i32).collect()).collect()
    };
    let mut running = Vec::new();
    for producer in 0..num_producers {
        let name = format!("{name}-{producer}");
        cluster.brokers[0].create_topic_on(&name, &replicas(0), &[("min.insync.replicas", "2")])?;
        let client: &KafkaClient = &cluster.brokers[0];
        let mut rig = Rig::without_topic(client, &cluster.bootstrap()[0], &name)?;
        rig.set("kafka.brokers", json!(cluster.bootstrap()));
        let writers = (0..6).map(|n| rig.writer(&format!("{n}.log"), Format::Text)).collect::<Result<Vec<_>>>()?;
        let shipper = rig.start()?;
        running.push((Traffic::start(writers, 300, 0), shipper, rig));
    }
    let topics: Vec<&str> = running.iter().map(|(_, _, rig)| rig.topic.as_str()).collect();
    for round in 1..=num_rounds {
        let started = Instant::now();
        cluster.elect(&topics, &replicas(round))?;
        let leaders: Vec<i32> = replicas(round).iter().map(|replicas| replicas[0]).collect();
        wait::until_true("the new leaders", LIMIT, || Ok(cluster.brokers[0].leaders(topics[0])? == leaders))?;
        // The broker gets a batch, and the client never hears of it.
        cluster.proxies[round % 3].set(Mode::CutReplies)?;
        std::thread::sleep(Duration::from_millis(300));
        cluster.set(Mode::Pass)?;
        std::thread::sleep(every.saturating_sub(started.elapsed()));
    }
    let mut num_repeated = 0;
    for (traffic, mut shipper, rig) in running {
        traffic.stop()?;
        rig.wait_until_whole(LIMIT)?;
        let num_lines = rig.written.len();
        shipper.wait_metric("shipper_acked_events_total", &[], LIMIT, |acked| acked == num_lines as f64)?;
        shipper.check_counts()?;
        shipper.stop()?;
        let records = rig.records()?;
        oracle::judge(&rig.written, &oracle::in_topic(&records)?).check()?;
        println!("{}: {num_lines} lines, {} records over {num_rounds} elections", rig.topic, records.len());
        num_repeated += records.len().checked_sub(num_lines).context("fewer records than lines")?;
    }
    Ok(num_repeated)
}
