//! The indexer against a scripted server that does not answer: of a document that never is, and of an outage.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use millrace_tests::fake_elasticsearch::{Answer, Bulk};
use millrace_tests::indexer_rig::{IndexerRig, LIMIT, number};
use millrace_tests::wait;

/// In place of a minute.
const REQUEST_TIMEOUT: Duration = Duration::from_millis(1_000);

/// Longer than a test.
fn never() -> Answer {
    Answer::After(Duration::from_secs(3600), Box::new(Answer::Index))
}

fn rig(name: &str) -> Result<IndexerRig> {
    let rig = IndexerRig::new(name, 4, "max_documents: 32")?;
    rig.reconfigure("request_timeout: 5s", &format!("request_timeout: {}ms", REQUEST_TIMEOUT.as_millis()))?;
    Ok(rig)
}

fn numbers(bulk: &Bulk) -> Result<BTreeSet<u64>> {
    bulk.items.iter().map(|item| number(&item.document)).collect()
}

#[test]
fn whole_a_document_that_is_never_answered_goes_to_the_dead_letters_alone() -> Result<()> {
    const CULPRIT: usize = 500;
    let mut rig = rig("unanswered")?;
    rig.fake.script(|bulk| match numbers(bulk).is_ok_and(|numbers| numbers.contains(&(CULPRIT as u64))) {
        true => never(),
        false => Answer::Index,
    });
    rig.produce(0..1_001, "a")?;
    rig.start()?;
    // Others must be answered meanwhile, or it may be an outage.
    let mut num = 1_001;
    wait::until_true("the dead letter", LIMIT, || {
        rig.produce(num..num + 1, "a")?;
        num += 1;
        Ok(rig.num_letters()? == 1)
    })?;
    let letter = rig.kafka.read_topic(&format!("{}.dlq", rig.name))?.remove(0);
    assert_eq!(letter.header("dlq.reason").as_deref(), Some("no_answer"));
    assert_eq!(letter.header("dlq.status"), None);
    ensure!(letter.header("dlq.error.message").is_some_and(|words| words.contains("hot_threads")), "{letter:?}");
    wait::until_true("it to be counted", LIMIT, || {
        Ok(rig.metric("indexer_dead_letters_total", &["reason=\"no_answer\""])? == 1.0)
    })?;
    let bulks = rig.fake.bulks();
    let with_it = bulks.iter().filter(|bulk| numbers(bulk).is_ok_and(|numbers| numbers.contains(&(CULPRIT as u64))));
    let num_alone = with_it.clone().filter(|bulk| bulk.items.len() == 1).count();
    ensure!(num_alone >= 5, "given up after {num_alone} requests of its own");
    // Of at most 32 documents: 2, then one for each halving, and 5 alone; more where an answer to another came too late.
    let num_with_it = with_it.count();
    ensure!(num_with_it <= 20, "{num_with_it} requests with it");
    rig.judge(num, &[CULPRIT])
}

#[test]
fn whole_an_outage_of_many_timeouts_splits_nothing_and_gives_up_nothing() -> Result<()> {
    let mut rig = rig("black-hole")?;
    rig.reconfigure("bulk: {", "bulk: { max_backoff: 500ms,")?;
    rig.produce(0..100, "a")?;
    rig.start()?;
    rig.wait_documents(100)?;
    let num_before = rig.fake.bulks().len();
    // Two outages, with one answer between.
    let mut num_held = 0..9;
    rig.fake.script(move |_| match num_held.next() {
        None | Some(4) => Answer::Index,
        Some(_) => never(),
    });
    rig.produce(100..140, "a")?;
    rig.wait_documents(140)?;
    rig.kafka.wait_no_lag(&rig.name, &rig.name, LIMIT)?;
    let all: Vec<BTreeSet<u64>> = rig.fake.bulks()[num_before..].iter().map(numbers).collect::<Result<_>>()?;
    for (at, numbers) in all.iter().enumerate() {
        let is_part = |other: &BTreeSet<u64>| other != numbers && !other.is_disjoint(numbers);
        ensure!(!all[..at].iter().any(is_part), "a request was sent in parts");
    }
    let most = all.iter().map(|numbers| all.iter().filter(|other| *other == numbers).count()).max();
    ensure!(most >= Some(4), "{most:?} times the same request: there was no outage");
    rig.judge(140, &[])
}
