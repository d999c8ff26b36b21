//! More instances and more partitions: the indexer at a server that takes its time for each request, so that waiting for it is the
//! bound and not the cores, which broker and server share with all instances.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use super::Plan;
use super::measure::{self, Side};
use super::out::{Group, fill};
use super::report::{Report, Yardstick};
use crate::fake_elasticsearch::FakeElasticsearch;
use crate::kafka::Kafka;
use crate::scratch;

const PAUSE: Duration = Duration::from_millis(200);
/// Of each instance, so that none has to find out how many are worth it.
const REQUESTS: usize = 2;
const PARTITIONS: [i32; 2] = [1, 4];
/// Instances and partitions.
const CASES: [(usize, i32); 4] = [(1, 4), (2, 4), (4, 4), (4, 1)];

pub(super) fn measure(plan: &Plan, kafka: &Kafka, report: &mut Report) -> Result<()> {
    if !plan.wants("growth with instances") {
        return Ok(());
    }
    let dir = scratch::dir("bench-growth")?;
    let topic = |num_partitions: i32| format!("bench-growth-{num_partitions}");
    let mut num = 0;
    for num_partitions in PARTITIONS {
        num = fill(kafka, &dir, &topic(num_partitions), num_partitions, plan.num_records)?;
    }
    let server = FakeElasticsearch::start()?;
    let mut sides = Vec::new();
    for (num_instances, num_partitions) in CASES {
        let name = format!("instances: {num_instances}, partitions: {num_partitions}");
        let (server, dir) = (&server, &dir);
        sides.push(Side::new(name, num, move || {
            let settings = json!({"elasticsearch": {"hosts": [server.url()]}, "bulk": {"max_in_flight": REQUESTS}});
            Group { kafka, dir, topic: &topic(num_partitions), num_instances, settings }.count(server, PAUSE, num)
        }));
    }
    measure::in_turns(plan.num_runs, &mut sides)?;
    let (one, more) = sides.split_first().context("no cases")?;
    report.side(one, None)?;
    for side in more {
        report.side(side, Some(Yardstick { name: &one.name, runs: &one.runs, share: 1.0 }))?;
    }
    drop(sides);
    PARTITIONS.iter().try_for_each(|&num_partitions| kafka.delete_topic(&topic(num_partitions)))
}
