//! The indexer's rows of the failure catalogue that take minutes: `make test-heavy`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use millrace_common::record::{RecordId, SourceId};
use millrace_tests::fake_elasticsearch::Answer;
use millrace_tests::indexer_rig::{IndexerRig, LIMIT};
use millrace_tests::proxy::{Mode, Proxy};
use millrace_tests::wait;

/// Points the rig's indexer at a proxy before its server.
fn proxied(rig: &mut IndexerRig) -> Result<Proxy> {
    let proxy = Proxy::start(rig.fake.address())?;
    rig.launch = rig.launch.clone().env("INDEXER_ELASTICSEARCH", format!("http://{}", proxy.addr()));
    Ok(proxy)
}

/// Ten minutes in the row; a tenth here, as the session timeout and the poll interval are a tenth of the usual ones.
#[test]
fn c08_a_black_hole_longer_than_every_timeout_of_the_group_leaves_it_whole() -> Result<()> {
    let options = "session.timeout.ms: 6000, heartbeat.interval.ms: 1000, max.poll.interval.ms: 10000";
    let mut rig = IndexerRig::with_options("c08", 4, "max_documents: 100", options)?;
    let proxy = proxied(&mut rig)?;
    rig.start()?;
    rig.produce(0..5_000, "a")?;
    rig.wait_documents(1_000)?;
    proxy.set(Mode::BlackHole)?;
    rig.produce(5_000..20_000, "a")?;
    rig.wait_blocked("")?;
    let until = Instant::now() + Duration::from_secs(60);
    while Instant::now() < until {
        ensure!(rig.is_live()?, "the loop does not turn");
        ensure!(rig.ready()?.0 == 503, "it says that it is ready");
        std::thread::sleep(Duration::from_secs(1));
    }
    proxy.set(Mode::Pass)?;
    rig.kafka.wait_no_lag(&rig.name, &rig.name, Duration::from_secs(30))?;
    assert_eq!(rig.metric("indexer_rebalances_total", &[])?, 1.0, "it left its group");
    rig.judge(20_000, &[])
}

/// Records of about 300 bytes. A shipper's carry their ids as keys; another producer's do not, and of those one in 2,000 has
/// 900 KB.
fn backlog(rig: &IndexerRig, num: usize, is_shippers: bool) -> Result<()> {
    let filler = "x".repeat(900_000);
    let record = |n: usize| {
        let is_large = !is_shippers && n % 2_000 == 1_999;
        let message = if is_large { filler.as_str() } else { "GET /a/path?of=usual&length=1 HTTP/1.1 200" };
        let key =
            if is_shippers { RecordId::of(SourceId::from_u64(7), n as u64, &[0; 1]).encode().to_vec() } else { vec![] };
        let value = format!(
            r#"{{"n":{n},"@timestamp":"2026-11-23T06:30:17.123Z","host":{{"name":"web-1"}},"service":{{"name":"a"}},"log":{{"file":{{"path":"/var/log/app.log"}},"offset":{n},"source":"3f5ac0de"}},"trace":{{"id":"{:032x}"}},"message":"{message}"}}"#,
            n * 7_919
        );
        Ok((String::from_utf8(key)?, value))
    };
    let partitions = rig.kafka.partitions(&rig.name)?.len();
    for (chunk, first) in (0..num).step_by(5_000).enumerate() {
        let records: Vec<(String, String)> = (first..(first + 5_000).min(num)).map(record).collect::<Result<_>>()?;
        let partition = Some((chunk % partitions) as i32);
        rig.kafka.produce(&rig.name, partition, records.iter().map(|(key, value)| (key.as_str(), value.as_str())))?;
    }
    Ok(())
}

/// The peak of an indexer that works through a backlog of several times the bound of its memory, at the default limits, before
/// a server that is slow.
fn peak_over_backlog(name: &str, is_shippers: bool) -> Result<u64> {
    const NUM: usize = 600_000;
    let mut rig = IndexerRig::new(name, 12, "")?;
    rig.reconfigure("max_delay: 100ms, index_wait: 3s, ", "")?;
    rig.fake.keep_only_ids();
    rig.fake.script(|_| Answer::After(Duration::from_millis(50), Box::new(Answer::Index)));
    backlog(&rig, NUM, is_shippers)?;
    rig.start()?;
    let started = Instant::now();
    let mut peak = 0;
    wait::until_true("all documents", Duration::from_secs(600), || {
        peak = rig.indexer.as_ref().and_then(|indexer| indexer.peak_rss_bytes()).context("it ended")?;
        Ok(rig.fake.num_documents() >= NUM)
    })?;
    println!("{name}: {NUM} documents in {:?}, peak RSS {} KiB", started.elapsed(), peak >> 10);
    rig.kafka.wait_no_lag(&rig.name, &rig.name, LIMIT)?;
    Ok(peak)
}

#[test]
fn c14_memory_is_bounded_over_a_backlog_of_a_shipper() -> Result<()> {
    let peak = peak_over_backlog("c14", true)?;
    ensure!(peak <= 96 << 20, "{} KiB", peak >> 10);
    Ok(())
}

/// Without ids of ours each record is kept beside its document, byte for byte, until it is done.
#[test]
fn c14_memory_is_bounded_over_a_backlog_of_another_producer_with_large_records() -> Result<()> {
    let peak = peak_over_backlog("c14-foreign", false)?;
    // The row's cap, and the default of `limits.memory`.
    ensure!(peak <= 256 << 20, "{} KiB", peak >> 10);
    Ok(())
}

/// Thirty seconds between records in the row; here a little more than the ten after which the connection is forgotten.
#[test]
fn b19_a_record_after_a_pause_finds_a_connection_that_works() -> Result<()> {
    let mut rig = IndexerRig::new("b19", 1, "")?;
    let proxy = proxied(&mut rig)?;
    proxy.set(Mode::ForgetIdle(Duration::from_secs(10)))?;
    rig.start()?;
    for n in 0..6 {
        std::thread::sleep(Duration::from_secs(12));
        let produced = Instant::now();
        rig.produce(n..n + 1, "a")?;
        rig.wait_documents(n + 1)?;
        ensure!(produced.elapsed() < Duration::from_secs(5), "record {n} took {:?}", produced.elapsed());
    }
    rig.judge(6, &[])
}

/// The trickle keeps one connection of four alive.
#[test]
fn b19_a_burst_after_a_trickle_finds_connections_that_work() -> Result<()> {
    let mut rig = IndexerRig::new("b19-burst", 4, "max_documents: 100, max_in_flight: 4")?;
    rig.reconfigure("request_timeout: 5s", "request_timeout: 60s")?;
    let proxy = proxied(&mut rig)?;
    rig.fake.script(|_| Answer::After(Duration::from_millis(100), Box::new(Answer::Index)));
    proxy.set(Mode::ForgetIdle(Duration::from_secs(10)))?;
    rig.start()?;
    rig.produce(0..10_000, "a")?;
    rig.wait_documents(10_000)?;
    ensure!(rig.fake.bulks().iter().any(|bulk| bulk.num_running > 1), "there never was more than one connection");
    for n in 10_000..10_015 {
        std::thread::sleep(Duration::from_secs(1));
        rig.produce(n..n + 1, "a")?;
    }
    let burst = Instant::now();
    rig.produce(10_015..20_000, "a")?;
    rig.wait_documents(20_000)?;
    ensure!(burst.elapsed() < Duration::from_secs(20), "{:?}", burst.elapsed());
    rig.judge(20_000, &[])
}

/// Fifteen minutes at the default `max_backoff` in the row; a fifteenth of both here.
#[test]
fn b22_a_long_outage_drops_nothing_and_sees_few_attempts() -> Result<()> {
    let mut rig = IndexerRig::new("b22", 2, "max_backoff: 1667ms")?;
    rig.start()?;
    rig.produce(0..5_000, "a")?;
    rig.wait_documents(5_000)?;
    rig.fake.close_port()?;
    rig.produce(5_000..10_000, "a")?;
    std::thread::sleep(Duration::from_secs(60));
    let num = rig.metric("indexer_bulk_requests_total", &["code=\"error\""])?;
    ensure!((30.0..=60.0).contains(&num), "{num} attempts");
    rig.fake.open_port()?;
    assert_eq!(rig.num_letters()?, 0);
    rig.judge(10_000, &[])
}

/// Ten minutes in the row; a tenth here, longer than session timeout and poll interval, which are the usual ones divided.
#[test]
fn o05_a_server_killed_in_the_middle_of_a_request_costs_no_membership() -> Result<()> {
    let options = "session.timeout.ms: 6000, heartbeat.interval.ms: 1000, max.poll.interval.ms: 10000";
    let mut rig = IndexerRig::with_options("o05-killed", 2, "max_documents: 100, max_backoff: 5s", options)?;
    rig.fake.script(|_| Answer::After(Duration::from_millis(50), Box::new(Answer::Index)));
    rig.start()?;
    rig.produce(0..5_000, "a")?;
    rig.wait_documents(500)?;
    rig.fake.close_port()?;
    rig.wait_blocked("elasticsearch_unreachable")?;
    let lag = || rig.metric("indexer_lag_seconds", &[]);
    let before = lag()?;
    std::thread::sleep(Duration::from_secs(60));
    ensure!(lag()? >= before + 55.0, "the lag went from {before} to {} s in a minute", lag()?);
    ensure!(rig.ready()?.0 == 503 && rig.is_live()?);
    rig.fake.open_port()?;
    rig.kafka.wait_no_lag(&rig.name, &rig.name, Duration::from_secs(30))?;
    assert_eq!(rig.metric("indexer_rebalances_total", &[])?, 1.0, "it left its group");
    rig.judge(5_000, &[])
}

/// Documents that a server of this kind takes in a second: 4 requests at a time in 100 ms each, more wait for each other, and
/// past 6 they are refused.
fn throughput(name: &str, max_in_flight: usize, settle: Duration, measure: Duration) -> Result<f64> {
    let mut rig = IndexerRig::new(name, 4, &format!("max_documents: 50, max_in_flight: {max_in_flight}"))?;
    rig.fake.keep_only_ids();
    rig.fake.script(|bulk| match bulk.num_running {
        0..=4 => Answer::After(Duration::from_millis(100), Box::new(Answer::Index)),
        n @ 5..=6 => Answer::After(Duration::from_millis(25 * n as u64), Box::new(Answer::Index)),
        _ => Answer::refuse(429),
    });
    let seconds = (settle + measure).as_secs() as usize;
    rig.produce(0..seconds * 2_400, "a")?;
    rig.start()?;
    rig.wait_documents(1)?;
    std::thread::sleep(settle);
    let (before, started) = (rig.fake.num_documents(), Instant::now());
    std::thread::sleep(measure);
    let rate = (rig.fake.num_documents() - before) as f64 / started.elapsed().as_secs_f64();
    println!("{name}: {rate:.0} documents/s, limit {}", rig.metric("indexer_concurrency_limit", &[])?);
    Ok(rate)
}

#[test]
fn concurrency_brings_nine_tenths_of_the_best_fixed_setting() -> Result<()> {
    // At or below the knee nothing pushes back, so the limit goes to its maximum and stays: that is a fixed setting.
    let (settle, measure) = (Duration::from_secs(8), Duration::from_secs(12));
    let mut best = 0.0_f64;
    for fixed in [2, 3, 4] {
        best = best.max(throughput(&format!("knee-{fixed}"), fixed, settle, measure)?);
    }
    let found = throughput("knee-adaptive", 16, Duration::from_secs(20), Duration::from_secs(30))?;
    ensure!(found >= 0.9 * best, "{found:.0} of {best:.0} documents/s");
    Ok(())
}

/// Each request takes 100 ms and an instance sends one at a time, so that only another instance brings more.
#[test]
fn throughput_grows_with_instances_up_to_the_number_of_partitions() -> Result<()> {
    const WINDOW: Duration = Duration::from_secs(5);
    let mut rig = IndexerRig::new("instances", 4, "max_documents: 50, max_in_flight: 1")?;
    rig.fake.keep_only_ids();
    rig.fake.script(|_| Answer::After(Duration::from_millis(100), Box::new(Answer::Index)));
    for partition in 0..4 {
        let first = partition as usize * 40_000;
        rig.produce_to(Some(partition), first..first + 40_000, "a")?;
    }
    rig.start()?;
    rig.wait_documents(1)?;
    let rate = || {
        let (before, started) = (rig.fake.num_documents(), Instant::now());
        std::thread::sleep(WINDOW);
        (rig.fake.num_documents() - before) as f64 / started.elapsed().as_secs_f64()
    };
    let of_one = rate();
    ensure!((350.0..520.0).contains(&of_one), "one instance: {of_one:.0} documents/s");
    let mut others = Vec::new();
    for num in 2..=4 {
        others.push(rig.start_another(&format!("instance-{num}"))?);
        // 4 partitions are shared by 3 as 2, 1 and 1; all have requests of their own.
        let wanted = 0.85 * f64::from(num) * of_one;
        let found = wait::until(&format!("the rate of {num} instances"), Duration::from_secs(60), || {
            let found = rate();
            Ok((found >= wanted).then_some(found))
        })?;
        println!("{num} instances: {found:.0} documents/s, one: {of_one:.0}");
    }
    Ok(())
}
