//! Lets the broker come to its pace: while its code is compiled, the compiler takes up to half a core from whatever is measured.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::workload::Workload;
use super::{Plan, kcat_producer, measure, out};
use crate::kafka::Kafka;
use crate::process::thread_cpu_time;
use crate::scratch;

/// Of a core, while records go in and out: more says that the compiler is not done.
const MAX_SHARE: f64 = 0.05;
const MAX_ROUNDS: usize = 20;
/// Threads of HotSpot that compile begin like this.
const COMPILERS: [&str; 2] = ["C1 Compiler", "C2 Compiler"];

/// Writes and reads records until the broker's compiler has next to nothing to do.
///
/// # Errors
///
/// If that does not come.
pub(super) fn broker(plan: &Plan, kafka: &Kafka) -> Result<()> {
    const TOPIC: &str = "bench-warm";
    let dir = scratch::dir("bench-warm")?;
    let files = Workload::named("json lines").write(dir.join("logs"), 1, plan.num_records)?;
    until_compiled(kafka, || {
        kafka.create_topic(TOPIC, out::NUM_PARTITIONS, &[])?;
        let mut write = Command::new("kcat");
        write.args(kcat_producer(kafka, TOPIC)).arg("-l").arg(files.dir.join("0.log"));
        measure::run(write, &dir.join("kcat.log"))?;
        out::read(kafka, TOPIC, &dir)?;
        kafka.delete_topic(TOPIC)
    })?;
    Ok(fs::remove_dir_all(&dir)?)
}

/// Repeats `work` until the broker's compiler has next to nothing to do meanwhile.
///
/// # Errors
///
/// That of `work`, or if it does not come to that.
pub(super) fn until_compiled(kafka: &Kafka, mut work: impl FnMut() -> Result<()>) -> Result<()> {
    for _ in 0..MAX_ROUNDS {
        let (before, started) = (compiler_time(kafka)?, Instant::now());
        work()?;
        let compiled = compiler_time(kafka)? - before;
        if compiled.as_secs_f64() < MAX_SHARE * started.elapsed().as_secs_f64() {
            return Ok(());
        }
    }
    bail!("the broker's compiler still takes more than {MAX_SHARE} of a core after {MAX_ROUNDS} rounds")
}

fn compiler_time(kafka: &Kafka) -> Result<Duration> {
    let broker = kafka.pid().context("the broker does not run")?;
    Ok(thread_cpu_time(broker, |name| COMPILERS.iter().any(|compiler| name.starts_with(compiler))))
}
