//! What happens when a topic, a right to it, or one broker of several fails. Each test is named after its row of the failure
//! catalogue; times are scaled down by the factors that stand there, see `heavy_shipper` for some at full length.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use millrace_common::ledger::SOURCES;
use millrace_tests::kafka::{Cluster, Kafka, KafkaClient, Options};
use millrace_tests::proxy::Mode;
use millrace_tests::rig::{LIMIT, Rig, Shipper};
use millrace_tests::topic_rig::{self, TwoTopics, guarded_rig};
use millrace_tests::wait;
use millrace_tests::while_used::WhileUsed;
use serde_json::json;

/// The broker with an authorizer that these tests share while one of them runs, and the way in for its user.
fn guarded() -> Result<Arc<(Kafka, SocketAddr)>> {
    static GUARDED: WhileUsed<(Kafka, SocketAddr)> = WhileUsed::new();
    GUARDED.get(|| Kafka::start_guarded(&Options::default()))
}

/// Two brokers behind proxies, started anew: a broker that hung may take its time.
fn two_brokers() -> Result<Cluster> {
    Cluster::start(2, &Options { heap_mib: 256, ..Options::default() })
}

fn wait_acknowledged(shipper: &mut Shipper, num: f64) -> Result<()> {
    shipper.wait_metric("shipper_acked_events_total", &[], LIMIT, |acked| acked == num).map(|_| ())
}

/// The right to write is taken away and given back after 15 s (a quarter of the row's minute).
fn right_is_taken_and_given_back(name: &str, is_described: bool) -> Result<()> {
    const AWAY: Duration = Duration::from_secs(15);
    let guarded = guarded()?;
    let (kafka, addr) = &*guarded;
    let rig = guarded_rig(kafka, *addr, name)?;
    kafka.allow("Write", name)?;
    if is_described {
        kafka.allow("Describe", name)?;
    }
    let mut shipper = rig.start()?;
    rig.append("app.log", rig.lines("app.log", 0..1000))?;
    wait_acknowledged(&mut shipper, 1000.0)?;
    let delivered = std::fs::metadata(rig.path("app.log"))?.len();
    let told = |shipper: &Shipper| shipper.log().lines().filter(|l| l.contains("WARN") || l.contains("ERROR")).count();
    let before = told(&shipper);
    kafka.forbid("Write", name)?;
    rig.append("app.log", rig.lines("app.log", 1000..2000))?;
    shipper.wait_blocked("delivery_failed")?;
    let (cpu, started) = (shipper.cpu_time().context("it runs")?, Instant::now());
    while started.elapsed() < AWAY {
        let status = shipper.status()?;
        assert_eq!(status["sources"][0]["acknowledged"].as_u64(), Some(delivered), "{status}");
        assert_eq!(status["topics"][0]["blocked"], json!(["delivery_failed"]), "{status}");
        assert_eq!(shipper.check_counts()?, 2000.0);
        std::thread::sleep(Duration::from_secs(1));
    }
    let cpu = shipper.cpu_time().context("it runs")? - cpu;
    assert!(cpu < started.elapsed() / 10, "{cpu:?} of CPU in {:?}", started.elapsed());
    assert_eq!(rig.num_records()?, 1000);
    // One about the records; without the right to see the topic, one about that.
    let told = told(&shipper) - before;
    assert!(told <= if is_described { 1 } else { 2 }, "{told} lines\n{}", shipper.log_tail());
    assert!(shipper.num_logged("records are not delivered") == 1, "{}", shipper.log_tail());
    kafka.allow("Write", name)?;
    rig.wait_until_whole(LIMIT)?;
    wait_acknowledged(&mut shipper, 2000.0)?;
    assert_eq!(shipper.check_counts()?, 2000.0);
    shipper.stop()?;
    rig.check_sent_once()
}

#[test]
fn p11_right_to_write_is_taken_and_given_back() -> Result<()> {
    right_is_taken_and_given_back("p11", false)
}

#[test]
fn p11_right_to_write_is_taken_while_the_topic_is_still_seen() -> Result<()> {
    right_is_taken_and_given_back("p11-described", true)
}

#[test]
fn p11_without_any_right_at_the_start_it_waits_at_rest() -> Result<()> {
    // A broker of its own: a right to any topic is enough to be given a producer id.
    let (kafka, addr) = Kafka::start_guarded(&Options::default())?;
    let rig = guarded_rig(&kafka, addr, "p11-start")?;
    kafka.allow("Describe", "p11-start")?;
    rig.append("app.log", rig.lines("app.log", 0..1000))?;
    let mut shipper = rig.start()?;
    shipper.wait_blocked("delivery_failed")?;
    let (cpu, started, logged) =
        (shipper.cpu_time().context("it runs")?, Instant::now(), shipper.log().lines().count());
    std::thread::sleep(Duration::from_secs(15));
    let cpu = shipper.cpu_time().context("it runs")? - cpu;
    assert!(cpu < started.elapsed() / 10, "{cpu:?} of CPU in {:?}", started.elapsed());
    let logged = shipper.log().lines().count() - logged;
    // Two, of the client, in ten seconds; and one about the records.
    assert!(logged <= 5, "{logged} lines:\n{}", shipper.log_tail());
    kafka.allow("Write", "p11-start")?;
    rig.wait_until_whole(LIMIT)?;
    wait_acknowledged(&mut shipper, 1000.0)?;
    assert_eq!(shipper.check_counts()?, 1000.0);
    shipper.stop()?;
    rig.check_sent_once()
}

#[test]
fn p13_broker_that_hangs_is_named_with_its_partition() -> Result<()> {
    let cluster = two_brokers()?;
    let client: &KafkaClient = &cluster.brokers[0];
    client.create_topic_on("p13", &[vec![2]], &[])?;
    // On the hung broker the ledger would hold the file before any record of it is sent.
    client.create_topic_on(SOURCES, &[vec![1]], &[("cleanup.policy", "compact")])?;
    // Only the first broker is told.
    let rig = Rig::without_topic(client, &cluster.bootstrap()[0], "p13")?;
    cluster.proxies[1].set(Mode::BlackHole)?;
    let mut shipper = rig.start()?;
    let started = Instant::now();
    rig.append("app.log", rig.lines("app.log", 0..1000))?;
    let broker = format!("{}/2", cluster.bootstrap()[1]);
    let is_about = |line: &str| line.contains("ERROR") && line.contains(&broker) && line.contains("partitions=[0]");
    wait::until_true("an error that names the broker and the partition", Duration::from_secs(60), || {
        Ok(shipper.log().lines().any(is_about))
    })
    .with_context(|| shipper.log_tail())?;
    println!("named after {:?}", started.elapsed());
    shipper.wait_blocked("unacknowledged")?;
    let status = shipper.status()?;
    assert_eq!(status["topics"][0]["stalled"], json!([{"partition": 0, "broker": broker}]), "{status}");
    assert_eq!((rig.num_records()?, shipper.metric("shipper_pending_events", &[])?), (0, 1000.0));
    cluster.proxies[1].set(Mode::Pass)?;
    rig.wait_until_whole(LIMIT)?;
    shipper.wait_metric("shipper_blocked", &[], LIMIT, |num| num == 0.0)?;
    shipper.stop()?;
    rig.check_sent_once()
}

#[test]
fn p14_leaders_change_and_replies_are_cut_off() -> Result<()> {
    // 3 elections instead of 120, one producer instead of four.
    let num_repeated = topic_rig::p14_elections("p14", 1, 3, Duration::from_secs(1))?;
    println!("{num_repeated} records came more than once");
    Ok(())
}

#[test]
fn p19_topic_without_the_right_to_write_holds_only_its_own_files() -> Result<()> {
    let guarded = guarded()?;
    let (kafka, addr) = &*guarded;
    // 15 s instead of 5 min.
    topic_rig::p19_without_rights(kafka, *addr, "p19", Duration::from_secs(15))
}

#[test]
fn p19_topic_whose_broker_hangs_leaves_room_for_the_other() -> Result<()> {
    let cluster = two_brokers()?;
    let client: &KafkaClient = &cluster.brokers[0];
    client.create_topic_on("p19-hang-a", &[vec![1]], &[])?;
    client.create_topic_on("p19-hang-b", &[vec![2]], &[])?;
    let rig = |name| Rig::without_topic(client, &cluster.bootstrap()[0], name);
    let rigs = TwoTopics::new(rig("p19-hang-a")?, rig("p19-hang-b")?);
    let mut shipper = rigs.a.start()?;
    rigs.a.append("a.log", rigs.a.lines("a.log", 0..1000))?;
    rigs.b.append("b.log", rigs.b.lines("b.log", 0..1000))?;
    wait_acknowledged(&mut shipper, 2000.0)?;
    cluster.proxies[1].set(Mode::BlackHole)?;
    // Several times what may be on its way.
    rigs.b.append("b.log", rigs.b.lines("b.log", 1000..50_000))?;
    shipper.wait_blocked("unacknowledged")?;
    rigs.check_a_lives(&mut shipper, Duration::from_secs(10))?;
    let status = shipper.status()?;
    let held = status["topics"][1]["inflight_bytes"].as_u64().context("a number")?;
    // Of a budget of 2 MiB, and one record more.
    ensure!((500_000..(1 << 20) + 1000).contains(&held), "{held} bytes are held");
    cluster.proxies[1].set(Mode::Pass)?;
    rigs.check_whole(shipper)
}

#[test]
fn o02_cut_lines_are_counted_and_told() -> Result<()> {
    let mut rig = Rig::new("o02", 1)?;
    rig.set("limits", json!({"max_record": "4KiB"}));
    rig.append("other.log", rig.lines("other.log", 0..10))?;
    for n in 0..100 {
        let filler = if n % 13 == 0 && n < 91 { 10_000 } else { 10 };
        rig.append("app.log", rig.lines_of("app.log", n..n + 1, |id| format!("{id} {}", "x".repeat(filler))))?;
    }
    let mut shipper = rig.start()?;
    rig.wait_for_records(110)?;
    wait_acknowledged(&mut shipper, 110.0)?;
    assert_eq!(shipper.metric("shipper_truncated_events_total", &[])?, 7.0);
    assert_eq!(shipper.check_counts()?, 110.0);
    let told: Vec<_> = shipper.log().lines().filter(|l| l.contains("cut to")).map(str::to_owned).collect();
    let path = rig.path("app.log");
    ensure!(told.len() == 1 && told[0].contains(&*path.to_string_lossy()), "{told:?}");
    shipper.stop()?;
    assert_eq!(rig.verdict()?.altered.len(), 7);
    Ok(())
}

#[test]
fn o16_a_topic_taken_from_a_field_is_refused_at_the_start() -> Result<()> {
    let kafka = Kafka::shared()?;
    let mut rig = Rig::without_topic(kafka, kafka.bootstrap(), "o16")?;
    rig.set("inputs.0.topic", "logs-%{missing}");
    let mut shipper = rig.start()?;
    assert_eq!(shipper.wait(LIMIT)?, 78);
    let log = shipper.log();
    ensure!(
        log.contains("inputs[0].topic: `logs-%{missing}`") && log.contains("no topic is taken from a field"),
        "{log}"
    );
    Ok(())
}
