//! What a hundred rules cost beside one, with the same topics and load; and what takes half a minute to be noticed: `make test-heavy`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use millrace_tests::fake_elasticsearch::Answer;
use millrace_tests::indexer_rig::number;
use millrace_tests::lanes::Lanes;
use millrace_tests::rig::Rig;
use millrace_tests::wait;
use serde_json::{Value, json};

const RECORDS: usize = 1_000_000;
const ROUNDS: usize = 2;
const LIMIT: Duration = Duration::from_secs(300);

const TOPICS: usize = 100;

/// Topics that share the load, and their indexer.
struct Side {
    lanes: Lanes,
    names: Vec<String>,
    num: usize,
}

/// What a run over a backlog took, from the start of the process.
#[derive(Clone, Copy, Debug)]
struct Cost {
    cpu_seconds: f64,
    num_requests: f64,
    peak_kib: u64,
}

impl Side {
    /// A rule, a template and an index for each topic, or one for all.
    fn new(name: &str, is_each: bool) -> Result<Self> {
        let names: Vec<String> = (0..TOPICS).map(|n| format!("lane-{n}")).collect();
        let all: Vec<&str> = names.iter().map(String::as_str).collect();
        let lanes = if is_each { Lanes::new(name, &all, "", "")? } else { Lanes::of_one_rule(name, &all)? };
        lanes.rig.reconfigure("max_delay: 100ms", "max_delay: 1s")?;
        names.iter().try_for_each(|name| lanes.create(name))?;
        lanes.rig.fake.only_count(Duration::ZERO);
        Ok(Self { lanes, names, num: 0 })
    }

    /// What it has taken so far.
    fn cost(&self) -> Result<Cost> {
        let indexer = self.lanes.rig.indexer.as_ref().context("it runs")?;
        let (cpu, peak) = (indexer.cpu_time().context("it runs")?, indexer.peak_rss_bytes().context("it runs")?);
        let num_requests = self.lanes.rig.metric("indexer_bulk_requests_total", &[])?;
        Ok(Cost { cpu_seconds: cpu.as_secs_f64(), num_requests, peak_kib: peak >> 10 })
    }

    /// Starts and stops it without a record.
    fn idle(&mut self) -> Result<Cost> {
        self.lanes.rig.start()?;
        self.lanes.rig.wait_ready(LIMIT)?;
        let cost = self.cost()?;
        self.stop()?;
        Ok(cost)
    }

    fn stop(&mut self) -> Result<()> {
        self.lanes.rig.indexer.take().context("it runs")?.stop_within(LIMIT)
    }

    /// Starts it before a backlog, dealt out evenly, and stops it at the end.
    fn run(&mut self) -> Result<Cost> {
        let each = RECORDS / self.names.len();
        for name in &self.names {
            self.lanes.produce(
                name,
                0..each,
                &"a line of usual length, of which there are many in a log ".repeat(4),
            )?;
        }
        self.num += RECORDS;
        self.lanes.rig.start()?;
        wait::until_true("all documents", LIMIT, || Ok(self.lanes.rig.fake.counted().num >= self.num as u64))?;
        let cost = self.cost()?;
        self.stop()?;
        Ok(cost)
    }
}

fn least(costs: &[Cost], of: impl Fn(&Cost) -> f64) -> f64 {
    costs.iter().map(of).fold(f64::INFINITY, f64::min)
}

/// Both sides run in turn, so that what else the machine does meets both. Of the runs the cheapest counts, without its start.
#[test]
fn a_hundred_rules_cost_no_more_than_one() -> Result<()> {
    let mut sides = [Side::new("rules-1", false)?, Side::new("rules-100", true)?];
    let idle = [sides[0].idle()?, sides[1].idle()?];
    let mut costs: [Vec<Cost>; 2] = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (side, costs) in sides.iter_mut().zip(&mut costs) {
            costs.push(side.run()?);
        }
    }
    println!("{costs:?}; without records: {idle:?}");
    let cpu = |at: usize| least(&costs[at], |cost| cost.cpu_seconds) - idle[at].cpu_seconds;
    let requests = |at: usize| least(&costs[at], |cost| cost.num_requests);
    let (cpu, requests) = (cpu(1) / cpu(0), requests(1) / requests(0));
    println!("a hundred to one: CPU {cpu:.2}, requests {requests:.2}");
    // The rule of a record is found once for each partition. The rest is for what else the machine does.
    ensure!(cpu <= 1.15, "{cpu} times the CPU time");
    ensure!(requests <= 1.25, "{requests} times the requests");
    ensure!(idle[1].peak_kib <= idle[0].peak_kib + (16 << 10), "{idle:?}");
    // A fetch brings at least one batch of each partition, of up to 1 MB; the default of `limits.memory` holds all the same.
    ensure!(costs[1].iter().all(|cost| cost.peak_kib <= 256 << 10), "{costs:?}");
    Ok(())
}

#[test]
fn a_trickle_of_a_hundred_topics_shares_its_requests() -> Result<()> {
    let mut side = Side::new("rules-trickle", true)?;
    let lanes = &mut side.lanes;
    lanes.rig.start()?;
    lanes.rig.wait_ready(LIMIT)?;
    let calls = lanes.rig.fake.calls();
    let num_of = |calls: &[String], call: &str| calls.iter().filter(|made| made.starts_with(call)).count();
    // Each template is asked for, put and read back, once.
    assert_eq!((num_of(&calls, "GET _index_template/"), num_of(&calls, "PUT ")), (200, 100));
    let started = Instant::now();
    for name in &side.names {
        lanes.produce(name, 0..1, "x")?;
    }
    wait::until_true("all documents", LIMIT, || Ok(lanes.rig.fake.counted().num >= 100))?;
    let (num, took) = (lanes.rig.metric("indexer_bulk_requests_total", &[])?, started.elapsed());
    println!("{num} requests in {took:?}");
    ensure!(num <= took.as_secs_f64() + 2.0, "{num} requests in {took:?} with `max_delay: 1s`");
    let calls = lanes.rig.fake.calls();
    // Is the index there, and what would it be made of. Read again after a minute.
    let refreshed = 1 + took.as_secs() as usize / 60;
    ensure!(num_of(&calls, "GET lane-") <= 100 * refreshed && num_of(&calls, "POST ") <= 100 * refreshed, "{calls:?}");
    side.stop()
}

/// CPU seconds of a shipper for the same files, under one input or under one each, without its start.
fn shipping(name: &str, is_each: bool) -> Result<f64> {
    let mut rig = Rig::new(name, 4)?;
    let input = |n: usize, pattern: &str| json!({"id": format!("input-{n}"), "paths": [rig.path(pattern)]});
    let inputs: Vec<Value> = match is_each {
        true => (0..TOPICS).map(|n| input(n, &format!("app-{n}.log"))).collect(),
        false => vec![input(0, "app-*.log")],
    };
    rig.set("inputs", inputs);
    let mut shipper = rig.start()?;
    shipper.wait_metric("shipper_acked_events_total", &[], LIMIT, |_| true)?;
    let before = shipper.cpu_time().context("it runs")?;
    let line = "a line of usual length, of which there are many in a log of an application\n";
    for n in 0..TOPICS {
        rig.append(&format!("app-{n}.log"), line.repeat(RECORDS / TOPICS))?;
    }
    shipper.wait_metric("shipper_acked_events_total", &[], LIMIT, |num| num >= RECORDS as f64)?;
    let cpu = shipper.cpu_time().context("it runs")? - before;
    shipper.stop()?;
    Ok(cpu.as_secs_f64())
}

#[test]
fn a_hundred_inputs_cost_no_more_than_one() -> Result<()> {
    let mut costs = [[0.0; ROUNDS]; 2];
    for round in 0..ROUNDS {
        for (side, costs) in costs.iter_mut().enumerate() {
            costs[round] = shipping(&format!("inputs-{side}-{round}"), side == 1)?;
        }
    }
    let [one, each] = costs.map(|costs| costs.into_iter().fold(f64::INFINITY, f64::min));
    println!("{costs:?}; a hundred to one: CPU {:.2}", each / one);
    ensure!(each <= 1.15 * one, "{costs:?}");
    Ok(())
}

/// A letter topic that is not there is told after the half minute that the client gives it.
#[test]
fn a_rule_whose_dead_letters_are_refused_holds_no_other() -> Result<()> {
    const NUM: usize = 200;
    let mut lanes = Lanes::new("rules-letters", &["bad", "well"], "", "")?;
    let letters = format!("{}.dlq", lanes.rig.name);
    lanes.rig.kafka.delete_topic(&letters)?;
    lanes.rig.fake.script(|bulk| {
        let refused = (400, "document_parsing_exception", "failed to parse field [n]");
        Answer::items(bulk, |item| (item.index == "bad").then_some(refused))
    });
    lanes.rig.fake.set_mapping("bad", json!({}));
    for lane in ["bad", "well"] {
        lanes.create(lane)?;
        lanes.produce(lane, 0..NUM, "x")?;
    }
    lanes.rig.start()?;
    wait::until_true("the refusal to be told", LIMIT, || {
        Ok(lanes.rig.ready().is_ok_and(|(status, body)| status == 503 && body.contains("dead_letter_topic")))
    })?;
    for round in 1..=5 {
        lanes.produce("well", round * 1_000..(round + 1) * 1_000, "x")?;
        lanes.wait_no_lag("well")?;
    }
    assert_eq!(lanes.lag("bad")?, NUM as i64);
    lanes.rig.kafka.create_topic(&letters, 1, &[])?;
    lanes.wait_no_lag("bad")?;
    let letters = lanes.rig.kafka.read_topic(&letters)?;
    let dead: BTreeSet<u64> = letters.iter().map(|letter| number(&letter.text())).collect::<Result<_>>()?;
    ensure!(dead == (0..NUM as u64).collect());
    Ok(())
}
