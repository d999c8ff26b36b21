//! Everything at once for ten minutes: three indexers are killed at random, broker and Elasticsearch are killed and
//! restarted, requests and items are pushed back in storms, and one line in twenty can be no document. Every line must end
//! exactly once in the index or, by id, in the dead letters.
//!
//! `CHAOS_SECONDS` sets how long, `CHAOS_SEED` which course it takes; the seed is printed.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use millrace_tests::elasticsearch::{self, Elasticsearch};
use millrace_tests::kafka::{self, Kafka};
use millrace_tests::oracle;
use millrace_tests::process::{Launch, Process};
use millrace_tests::rig::{LIMIT, Rig};
use millrace_tests::storm::Storm;
use millrace_tests::writer::{LineId, LogWriter, Template, Traffic};
use serde_json::json;

const NAME: &str = "chaos";
const NUM_PARTITIONS: i32 = 8;
const NUM_FILES: usize = 12;
const LINES_PER_SECOND: u64 = 60;
const PATIENCE: Duration = Duration::from_secs(180);

/// The same numbers for the same seed (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

fn number(name: &str, default: u64) -> Result<u64> {
    std::env::var(name).map_or(Ok(default), |text| text.parse().with_context(|| format!("{name}={text}")))
}

/// One line in twenty is refused: by Elasticsearch for its type, or by the rule for its name.
fn line(id: &LineId) -> String {
    match id.n % 40 {
        7 => format!(r#"{{"id":"{id}","status":"no number {}"}}"#, id.n),
        27 => format!(r#"{{"id":"{id}","unknown":{}}}"#, id.n),
        _ => format!(r#"{{"id":"{id}","status":{},"message":"request {} done"}}"#, 200 + id.n % 300, id.n),
    }
}

fn write_settings(rig: &Rig, kafka: &Kafka, elasticsearch_url: &str) -> Result<()> {
    let templates = rig.dir.join("templates");
    fs::create_dir(&templates)?;
    let keyword = json!({"type": "keyword", "ignore_above": 256});
    let template = json!({
        "index_patterns": [format!("{NAME}-*")], "priority": 600, "version": 1, "_meta": {"managed_by": "millrace"},
        "template": {
            "settings": {"number_of_replicas": 0, "number_of_shards": 1},
            "mappings": {"dynamic": "strict", "properties": {
                "@timestamp": {"type": "date"}, "message": {"type": "text"}, "status": {"type": "short"}, "id": keyword,
                "host": {"properties": {"name": keyword}},
                "log": {"properties": {
                    "file": {"properties": {"path": keyword}}, "offset": {"type": "long"}, "source": keyword, "flags": keyword,
                }},
            }},
        },
    });
    fs::write(templates.join("chaos.json"), template.to_string())?;
    let config = format!(
        "kafka: {{ brokers: [\"{}\"], topics: [{NAME}], group: {NAME} }}\n\
         elasticsearch: {{ hosts: [\"{elasticsearch_url}\"], request_timeout: 10s }}\n\
         bulk: {{ max_delay: 200ms, max_backoff: 5s }}\n\
         templates: {{ dir: \"{}\", apply: true }}\n\
         rules: [ {{ index: \"{NAME}-{{@timestamp:%Y.%m.%d}}\", on_conflict: send }} ]\n\
         dead_letter: {{ topic: {NAME}.dlq }}\n\
         admin: {{ listen: \"127.0.0.1:0\" }}\n",
        kafka.bootstrap(),
        templates.display(),
    );
    Ok(fs::write(rig.dir.join("indexer.yaml"), config)?)
}

fn indexer(rig: &Rig, number: usize) -> Result<Process> {
    let launch = Launch::indexer(&format!("indexer-{number}"), &rig.dir)?;
    launch.args(["run", "-c"]).arg(rig.dir.join("indexer.yaml")).start()
}

/// Pauses for some time between the two, in steps, until told that it is over.
fn pause(random: &mut Random, from_ms: u64, to_ms: u64, is_over: &AtomicBool) -> bool {
    let until = Instant::now() + Duration::from_millis(from_ms + random.below(to_ms - from_ms));
    while Instant::now() < until && !is_over.load(Ordering::SeqCst) {
        thread::sleep(Duration::from_millis(50));
    }
    !is_over.load(Ordering::SeqCst)
}

fn kill_indexers(
    rig: &Rig,
    mut indexers: Vec<Process>,
    mut random: Random,
    is_over: &AtomicBool,
) -> Result<(Vec<Process>, u32)> {
    let mut num = 0;
    while pause(&mut random, 1_000, 7_000, is_over) {
        let victim = random.below(indexers.len() as u64) as usize;
        indexers[victim].kill9()?;
        pause(&mut random, 0, 2_000, is_over);
        indexers[victim] = indexer(rig, victim + 1)?;
        num += 1;
    }
    Ok((indexers, num))
}

fn restart_broker(kafka: &Kafka, mut random: Random, is_over: &AtomicBool) -> Result<u32> {
    let mut num = 0;
    while pause(&mut random, 25_000, 50_000, is_over) {
        // One broker alone has nobody who has what it did not sync, so it is stopped in order.
        kafka.stop()?;
        pause(&mut random, 500, 4_000, is_over);
        kafka.start_again()?;
        num += 1;
    }
    Ok(num)
}

fn kill_elasticsearch(elasticsearch: &Elasticsearch, mut random: Random, is_over: &AtomicBool) -> Result<u32> {
    let mut num = 0;
    while pause(&mut random, 35_000, 70_000, is_over) {
        elasticsearch.kill9()?;
        pause(&mut random, 500, 4_000, is_over);
        elasticsearch.start_again()?;
        num += 1;
    }
    Ok(num)
}

fn blow(storm: &Storm, mut random: Random, is_over: &AtomicBool) -> u32 {
    let mut num = 0;
    while pause(&mut random, 5_000, 20_000, is_over) {
        storm.set(true);
        pause(&mut random, 3_000, 10_000, is_over);
        storm.set(false);
        num += 1;
    }
    num
}

#[test]
fn every_line_once_whatever_is_killed_restarted_or_pushed_back() -> Result<()> {
    let seconds = number("CHAOS_SECONDS", 600)?;
    let seed = number("CHAOS_SEED", std::time::UNIX_EPOCH.elapsed()?.as_secs())?;
    println!("CHAOS_SECONDS={seconds} CHAOS_SEED={seed}");
    let random = |stream: u64| Random(seed ^ (stream << 56));
    let kafka = Kafka::start(&kafka::Options::default())?;
    let elasticsearch = Elasticsearch::start(&elasticsearch::Options::default())?;
    let storm = Storm::start(elasticsearch.url(), seed)?;
    let mut rig = Rig::on(&kafka, kafka.bootstrap(), NAME, NUM_PARTITIONS)?;
    rig.set("inputs.0.format", "json");
    kafka.create_topic(&format!("{NAME}.dlq"), 1, &[])?;
    write_settings(&rig, &kafka, &storm.url())?;
    let mut shipper = rig.start()?;
    let indexers: Vec<Process> = (1..=3).map(|number| indexer(&rig, number)).collect::<Result<_>>()?;
    let writer = |n: usize| {
        let template: Template = Box::new(line);
        LogWriter::with_template(&rig.written, &rig.path(&format!("{n}.log")), template)
    };
    let traffic = Traffic::start((0..NUM_FILES).map(writer).collect::<Result<_>>()?, LINES_PER_SECOND, 5_000);

    let is_over = AtomicBool::new(false);
    let (mut indexers, counts) = thread::scope(|scope| -> Result<_> {
        let killed = scope.spawn(|| kill_indexers(&rig, indexers, random(1), &is_over));
        let broker = scope.spawn(|| restart_broker(&kafka, random(2), &is_over));
        let node = scope.spawn(|| kill_elasticsearch(&elasticsearch, random(3), &is_over));
        let storms = scope.spawn(|| blow(&storm, random(4), &is_over));
        let until = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < until {
            thread::sleep(Duration::from_millis(200));
            let is_broken = [killed.is_finished(), broker.is_finished(), node.is_finished(), storms.is_finished()];
            if is_broken.contains(&true) {
                break;
            }
        }
        is_over.store(true, Ordering::SeqCst);
        let gone = |_| anyhow::anyhow!("a thread of the test panicked");
        let (indexers, num_killed) = killed.join().map_err(gone)??;
        let broker = broker.join().map_err(gone)??;
        let node = node.join().map_err(gone)??;
        Ok((indexers, [num_killed, broker, node, storms.join().map_err(gone)?]))
    })?;
    traffic.stop()?;
    let [num_killed, num_broker, num_node, num_storms] = counts;
    println!(
        "{} lines; {num_killed} indexers killed, broker stopped {num_broker} times, Elasticsearch killed {num_node} times, \
         {num_storms} storms pushed back {} requests and items",
        rig.written.len(),
        storm.num_refused()
    );
    let calm = Instant::now();
    rig.wait_until_whole(PATIENCE)?;
    rig.kafka.wait_no_lag(NAME, NAME, PATIENCE)?;
    println!("all settled {:?} after the last fault", calm.elapsed());
    shipper.stop()?;
    for indexer in &mut indexers {
        ensure!(indexer.terminate(LIMIT)? == 0, "an indexer did not stop cleanly");
    }
    let documents = elasticsearch.all_documents(&format!("{NAME}-*"))?;
    let letters = oracle::in_dead_letters(&kafka.read_topic(&format!("{NAME}.dlq"))?)?;
    println!("{} documents, {} dead letters by id", documents.len(), letters.len());
    let mut seen = oracle::in_index(&documents);
    let num_bad = rig.written.lines().keys().filter(|id| matches!(id.n % 40, 7 | 27)).count();
    ensure!(letters.len() == num_bad, "{} letters of {num_bad} bad lines", letters.len());
    seen.extend(letters);
    oracle::judge(&rig.written, &seen).check()
}
