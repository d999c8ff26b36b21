//! The indexer's rows of the failure catalogue that take minutes: `make test-heavy`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
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

/// Records as a shipper's, of about 300 bytes, one of `large_every` with 900 KB.
fn backlog(rig: &IndexerRig, num: usize, large_every: usize) -> Result<()> {
    let filler = "x".repeat(900_000);
    let record = |n: usize| {
        let message = if n % large_every == large_every - 1 {
            filler.as_str()
        } else {
            "GET /a/path?of=usual&length=1 HTTP/1.1 200"
        };
        format!(
            r#"{{"n":{n},"@timestamp":"2026-11-23T06:30:17.123Z","host":{{"name":"web-1"}},"service":{{"name":"a"}},"log":{{"file":{{"path":"/var/log/app.log"}},"offset":{n},"source":"3f5ac0de"}},"trace":{{"id":"{:032x}"}},"message":"{message}"}}"#,
            n * 7_919
        )
    };
    for chunk in (0..num).collect::<Vec<_>>().chunks(20_000) {
        let records: Vec<String> = chunk.iter().map(|&n| record(n)).collect();
        rig.kafka.produce(&rig.name, None, records.iter().map(|value| (&value[5..12], value.as_str())))?;
    }
    Ok(())
}

/// The backlog is many times what may be in memory, the server slow, and the limits are the default ones.
#[test]
fn c14_memory_is_bounded_over_a_large_backlog() -> Result<()> {
    const NUM: usize = 1_000_000;
    let mut rig = IndexerRig::new("c14", 12, "")?;
    rig.reconfigure("max_delay: 100ms, index_wait: 3s, ", "")?;
    rig.fake.keep_only_ids();
    rig.fake.script(|_| Answer::After(Duration::from_millis(50), Box::new(Answer::Index)));
    backlog(&rig, NUM, 2_000)?;
    rig.start()?;
    let started = Instant::now();
    let mut peak = 0;
    wait::until_true("all documents", Duration::from_secs(600), || {
        peak = rig.indexer.as_ref().and_then(|indexer| indexer.peak_rss_bytes()).context("it ended")?;
        Ok(rig.fake.num_documents() >= NUM)
    })?;
    println!("{NUM} documents in {:?}, peak RSS {} KiB", started.elapsed(), peak >> 10);
    ensure!(peak <= 96 << 20, "{} KiB", peak >> 10);
    rig.kafka.wait_no_lag(&rig.name, &rig.name, LIMIT)
}
