//! The indexer as a member of its group: rebalances, long outages, topics that come and go, partitions that must wait.
//! Real broker, scripted Elasticsearch.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use millrace_tests::fake_elasticsearch::Answer;
use millrace_tests::indexer_rig::{IndexerRig, LIMIT, number};
use millrace_tests::process::Process;
use millrace_tests::wait;

/// Looks at the committed offsets until told to stop. Fails if one goes back.
fn watch_commits(rig: &IndexerRig, is_over: &AtomicBool) -> Result<usize> {
    let mut last: BTreeMap<i32, i64> = BTreeMap::new();
    let mut num_looks = 0;
    while !is_over.load(Ordering::SeqCst) {
        for (partition, offset) in rig.kafka.committed(&rig.name, &rig.name)? {
            let before = last.insert(partition, offset).unwrap_or(offset);
            ensure!(offset >= before, "partition {partition} went back from {before} to {offset}");
        }
        num_looks += 1;
        thread::sleep(Duration::from_millis(200));
    }
    Ok(num_looks)
}

#[test]
fn c01_c02_members_come_and_go_without_loss_doubles_or_commits_that_go_back() -> Result<()> {
    /// Documents between two changes of the group.
    const STEP: usize = 4_000;
    /// Records that are waiting all the while.
    const BACKLOG: usize = 10_000;
    let mut rig = IndexerRig::new("c01", 12, "max_documents: 200")?;
    rig.fake.script(|bulk| match bulk.number % 5 {
        0 => Answer::After(Duration::from_secs(1), Box::new(Answer::Index)),
        _ => Answer::After(Duration::from_millis(20), Box::new(Answer::Index)),
    });
    rig.start()?;
    let num_produced = Cell::new(0);
    let until = |what: &str, is_met: &dyn Fn() -> bool| {
        wait::until_true(what, LIMIT, || {
            while num_produced.get() < rig.fake.num_documents() + BACKLOG {
                rig.produce(num_produced.get()..num_produced.get() + STEP, "a")?;
                num_produced.set(num_produced.get() + STEP);
            }
            Ok(is_met())
        })
    };
    let go_on = || {
        let goal = rig.fake.num_documents() + STEP;
        until("more documents", &|| rig.fake.num_documents() >= goal)
    };
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| -> Result<()> {
        let watcher = scope.spawn(|| watch_commits(&rig, &is_over));
        let come_and_go = || -> Result<()> {
            let mut others: Vec<Process> = Vec::new();
            for name in ["second", "third", "fourth"] {
                go_on()?;
                let other = rig.start_another(name)?;
                until("partitions for it", &|| other.output().contains("partitions assigned"))?;
                others.push(other);
            }
            while let Some(mut other) = others.pop() {
                go_on()?;
                ensure!(other.terminate(LIMIT)? == 0, "a member did not stop cleanly");
            }
            rig.wait_documents(num_produced.get())?;
            rig.kafka.wait_no_lag(&rig.name, &rig.name, LIMIT)
        };
        let result = come_and_go();
        is_over.store(true, Ordering::SeqCst);
        let num_looks = watcher.join().map_err(|_| anyhow::anyhow!("the watcher panicked"))??;
        ensure!(num_looks > 10, "only {num_looks} looks");
        result
    })?;
    rig.judge(num_produced.get(), &[])
}

#[test]
fn c07_an_outage_longer_than_the_poll_interval_does_not_cost_the_membership() -> Result<()> {
    let options = "session.timeout.ms: 6000, heartbeat.interval.ms: 1000, max.poll.interval.ms: 10000";
    let mut rig = IndexerRig::with_options("c07", 4, "max_documents: 100", options)?;
    let started = Instant::now();
    rig.fake.script(move |_| match started.elapsed().as_secs() {
        0..25 => Answer::refuse(503),
        _ => Answer::Index,
    });
    rig.produce(0..20_000, "a")?;
    rig.start()?;
    wait::until_true("readiness to fail", LIMIT, || Ok(rig.ready().is_ok_and(|(status, _)| status == 503)))?;
    rig.wait_documents(20_000)?;
    assert_eq!(rig.metric("indexer_rebalances_total", &[])?, 1.0, "it left its group");
    rig.judge(20_000, &[])
}

#[test]
fn c13_a_partition_whose_index_pushes_back_does_not_hold_the_others() -> Result<()> {
    let mut rig = IndexerRig::new("c13", 4, "max_documents: 500")?;
    let started = Instant::now();
    rig.fake.script(move |bulk| {
        let pushes_back = started.elapsed() < Duration::from_secs(20);
        Answer::items(bulk, |item| {
            (pushes_back && item.index == "slow").then_some((429, "es_rejected_execution_exception", "full"))
        })
    });
    rig.produce_to(Some(0), 0..5_000, "slow")?;
    for partition in 1..4 {
        let first = partition as usize * 5_000;
        rig.produce_to(Some(partition), first..first + 5_000, "fast")?;
    }
    rig.start()?;
    rig.wait_documents(15_000)?;
    ensure!(started.elapsed() < Duration::from_secs(15), "the others waited");
    let lags = rig.kafka.committed(&rig.name, &rig.name)?;
    assert_eq!(lags.get(&0).copied().unwrap_or(0).max(0), 0, "nothing of partition 0 is finished");
    rig.judge(20_000, &[])
}

#[test]
fn c16_a_topic_made_after_the_start_is_read() -> Result<()> {
    let mut rig = IndexerRig::with_options("c16", 0, "", "")?;
    rig.start()?;
    wait::until_true("the missing topic to be told", LIMIT, || {
        Ok(rig.ready().is_ok_and(|(status, body)| status == 503 && body.contains("topic_missing")))
    })?;
    rig.kafka.create_topic(&rig.name, 3, &[])?;
    rig.produce(0..1_000, "a")?;
    rig.wait_documents(1_000)?;
    wait::until_true("readiness", LIMIT, || Ok(rig.ready().is_ok_and(|(status, _)| status == 200)))?;
    rig.judge(1_000, &[])
}

#[test]
fn a_topic_made_again_hides_no_document_behind_old_ids() -> Result<()> {
    let mut rig = IndexerRig::new("again", 1, "")?;
    rig.produce(0..500, "a")?;
    rig.start()?;
    rig.wait_documents(500)?;
    rig.kafka.wait_no_lag(&rig.name, &rig.name, LIMIT)?;
    let mut indexer = rig.indexer.take().context("started above")?;
    assert_eq!(indexer.terminate(LIMIT)?, 0);
    rig.kafka.delete_topic(&rig.name)?;
    rig.kafka.create_topic(&rig.name, 1, &[])?;
    rig.produce(500..700, "a")?;
    rig.start()?;
    rig.wait_documents(700)?;
    rig.kafka.wait_no_lag(&rig.name, &rig.name, LIMIT)?;
    let numbers: std::collections::BTreeSet<u64> =
        rig.fake.documents().values().map(|document| number(document)).collect::<Result<_>>()?;
    assert_eq!(numbers, (0..700).collect());
    Ok(())
}

#[test]
fn a_stop_with_work_on_its_way_ends_at_the_deadline_with_75_and_loses_nothing() -> Result<()> {
    let mut rig = IndexerRig::new("deadline", 1, "")?;
    rig.fake.script(|_| Answer::refuse(503));
    rig.produce(0..100, "a")?;
    rig.launch = rig.launch.env("INDEXER_SHUTDOWN_DEADLINE", "3s");
    rig.start()?;
    wait::until_true("a request", LIMIT, || Ok(!rig.fake.bulks().is_empty()))?;
    let stopping = Instant::now();
    assert_eq!(rig.indexer.take().context("started above")?.terminate(LIMIT)?, 75);
    assert!(stopping.elapsed() < Duration::from_secs(8), "{:?}", stopping.elapsed());
    rig.fake.script(|_| Answer::Index);
    rig.start()?;
    rig.judge(100, &[])
}
