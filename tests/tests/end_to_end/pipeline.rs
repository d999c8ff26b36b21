//! The whole path: files, shipper, a real Kafka, two indexers, a real Elasticsearch. Whatever is killed or stopped on the
//! way, every line ends exactly once in the index or, counted by id, in the dead letters; and in the topic, once per key.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_tests::elasticsearch::{self, Elasticsearch};
use millrace_tests::kafka::{self, Kafka, KafkaClient};
use millrace_tests::oracle;
use millrace_tests::process::{Launch, Process};
use millrace_tests::rig::{LIMIT, Rig, Shipper};
use millrace_tests::wait;
use millrace_tests::writer::{Format, LogWriter, Traffic};
use serde_json::json;

const NUM_PARTITIONS: i32 = 6;
const PATIENCE: Duration = Duration::from_secs(90);

struct Pipeline {
    name: String,
    rig: Rig,
    kafka: KafkaClient,
    elasticsearch_url: String,
}

impl Pipeline {
    /// `dynamic` is what the index template says about fields it does not name.
    fn new(name: &str, kafka: &KafkaClient, elasticsearch: &Elasticsearch, dynamic: &str, rule: &str) -> Result<Self> {
        let mut rig = Rig::on(kafka, kafka.bootstrap(), name, NUM_PARTITIONS)?;
        rig.set("inputs.0.format", "json");
        kafka.create_topic(&format!("{name}.dlq"), 1, &[])?;
        let dir = rig.dir.join("templates");
        fs::create_dir(&dir)?;
        let keyword = json!({"type": "keyword", "ignore_above": 256});
        let template = json!({
            "index_patterns": [format!("{name}-*")],
            "priority": 600,
            "version": 1,
            "_meta": {"managed_by": "millrace"},
            "template": {
                "settings": {"number_of_replicas": 0, "number_of_shards": 1},
                "mappings": {
                    "dynamic": dynamic,
                    "properties": {
                        "@timestamp": {"type": "date"},
                        "message": {"type": "text"},
                        "status": {"type": "short"},
                        "attrs": {"type": "flattened"},
                        "id": keyword, "run": keyword, "file": keyword, "n": {"type": "long"},
                        "host": {"properties": {"name": keyword}},
                        "log": {"properties": {
                            "file": {"properties": {"path": keyword}},
                            "offset": {"type": "long"}, "source": keyword, "flags": keyword,
                        }},
                    },
                },
            },
        });
        fs::write(dir.join(format!("{name}.json")), template.to_string())?;
        let config = format!(
            "kafka: {{ brokers: [\"{}\"], topics: [\"{name}\"], group: \"{name}\" }}\n\
             elasticsearch: {{ hosts: [\"{}\"] }}\n\
             bulk: {{ max_delay: 200ms }}\n\
             templates: {{ dir: \"{}\", apply: true }}\n\
             rules: [ {{ index: \"{name}-{{@timestamp:%Y.%m.%d}}\", {rule} }} ]\n\
             dead_letter: {{ topic: \"{name}.dlq\" }}\n\
             admin: {{ listen: \"127.0.0.1:0\" }}\n",
            kafka.bootstrap(),
            elasticsearch.url(),
            dir.display(),
        );
        fs::write(rig.dir.join("indexer.yaml"), config)?;
        let kafka = KafkaClient::new(kafka.bootstrap());
        Ok(Self { name: name.to_owned(), rig, kafka, elasticsearch_url: elasticsearch.url().to_owned() })
    }

    fn indexer(&self, number: usize) -> Result<Launch> {
        let launch = Launch::indexer(&format!("indexer-{number}"), &self.rig.dir)?;
        Ok(launch.args(["run", "-c"]).arg(self.rig.dir.join("indexer.yaml")))
    }

    fn indexers(&self) -> Result<Vec<Process>> {
        (1..=2).map(|number| self.indexer(number)?.start()).collect()
    }

    fn writers(&self) -> Result<Vec<LogWriter>> {
        Ok(vec![self.rig.writer("a.log", Format::Json)?, self.rig.writer("b.log", Format::Text)?])
    }

    /// Stops the programs once all is delivered, and judges what is in the topic, the index and the dead letters.
    fn finish(&self, mut shipper: Shipper, indexers: Vec<Process>, elasticsearch: &Elasticsearch) -> Result<()> {
        ensure!(elasticsearch.url() == self.elasticsearch_url, "another node than the one that was written to");
        self.rig.wait_until_whole(PATIENCE)?;
        let logs = || indexers.iter().map(Process::log_tail).collect::<String>();
        self.kafka.wait_no_lag(&self.name, &self.name, PATIENCE).with_context(logs)?;
        ensure!(shipper.terminate(LIMIT)? == 0, "the shipper did not stop cleanly");
        for mut indexer in indexers {
            ensure!(indexer.terminate(LIMIT)? == 0, "an indexer did not stop cleanly");
        }
        let pattern = format!("{}-*", self.name);
        elasticsearch.refresh(&pattern)?;
        let documents = elasticsearch.all_documents(&pattern)?;
        let letters = self.kafka.read_topic(&format!("{}.dlq", self.name))?;
        let mut seen = oracle::in_index(&documents);
        seen.extend(oracle::in_dead_letters(&letters)?);
        oracle::judge(&self.rig.written, &seen).check().context("in the index")?;
        self.rig.verdict()?.check().context("in the topic")
    }
}

#[test]
fn text_and_json_under_load_with_rotation() -> Result<()> {
    let (kafka, elasticsearch) = (Kafka::shared()?, Elasticsearch::shared()?);
    let pipeline = Pipeline::new("rotating", kafka, elasticsearch, "false", "unmapped: fold, fold_into: attrs")?;
    let shipper = pipeline.rig.start()?;
    let indexers = pipeline.indexers()?;
    let traffic = Traffic::start(pipeline.writers()?, 5000, 4000);
    std::thread::sleep(Duration::from_secs(8));
    traffic.stop()?;
    pipeline.finish(shipper, indexers, elasticsearch)
}

#[test]
fn shipper_killed_twenty_times_while_writing_and_rotating() -> Result<()> {
    let (kafka, elasticsearch) = (Kafka::shared()?, Elasticsearch::shared()?);
    let pipeline = Pipeline::new("shipper-killed", kafka, elasticsearch, "false", "unmapped: keep")?;
    let indexers = pipeline.indexers()?;
    let traffic = Traffic::start(pipeline.writers()?, 1000, 700);
    for round in 0..20 {
        let mut shipper = pipeline.rig.start()?;
        std::thread::sleep(Duration::from_millis(200 + 41 * round));
        shipper.kill9()?;
    }
    let shipper = pipeline.rig.start()?;
    traffic.stop()?;
    pipeline.finish(shipper, indexers, elasticsearch)
}

#[test]
fn indexer_killed_twenty_times_with_two_instances_and_rebalances() -> Result<()> {
    let (kafka, elasticsearch) = (Kafka::shared()?, Elasticsearch::shared()?);
    let pipeline = Pipeline::new("indexer-killed", kafka, elasticsearch, "false", "unmapped: fold, fold_into: attrs")?;
    let shipper = pipeline.rig.start()?;
    let traffic = Traffic::start(pipeline.writers()?, 1500, 5000);
    let mut indexers = pipeline.indexers()?;
    for round in 0..20 {
        std::thread::sleep(Duration::from_millis(700 + 53 * round));
        let victim = (round % 2) as usize;
        indexers[victim].kill9()?;
        indexers[victim] = pipeline.indexer(victim + 1)?.start()?;
    }
    traffic.stop()?;
    pipeline.finish(shipper, indexers, elasticsearch)
}

#[test]
fn elasticsearch_killed_and_down_for_a_while() -> Result<()> {
    let kafka = Kafka::shared()?;
    let elasticsearch = Elasticsearch::start(&elasticsearch::Options::default())?;
    let pipeline = Pipeline::new("node-down", kafka, &elasticsearch, "false", "unmapped: keep")?;
    let shipper = pipeline.rig.start()?;
    let indexers = pipeline.indexers()?;
    let traffic = Traffic::start(pipeline.writers()?, 1000, 3000);
    // A shard that is being made answers 503.
    let is_begun = || Ok(elasticsearch.count("node-down-*").is_ok_and(|count| count > 0));
    wait::until_true("some documents are indexed", LIMIT, is_begun)?;
    elasticsearch.kill9()?;
    std::thread::sleep(Duration::from_secs(5));
    elasticsearch.start_again()?;
    std::thread::sleep(Duration::from_secs(2));
    traffic.stop()?;
    pipeline.finish(shipper, indexers, &elasticsearch)
}

#[test]
fn broker_killed_and_restarted() -> Result<()> {
    let kafka = Kafka::start(&kafka::Options::default())?;
    let elasticsearch = Elasticsearch::shared()?;
    let pipeline = Pipeline::new("broker-down", &kafka, elasticsearch, "false", "unmapped: keep")?;
    let shipper = pipeline.rig.start()?;
    let indexers = pipeline.indexers()?;
    let traffic = Traffic::start(pipeline.writers()?, 1000, 3000);
    for _ in 0..2 {
        std::thread::sleep(Duration::from_secs(3));
        kafka.stop()?;
        std::thread::sleep(Duration::from_secs(2));
        kafka.start_again()?;
    }
    std::thread::sleep(Duration::from_secs(3));
    traffic.stop()?;
    pipeline.finish(shipper, indexers, elasticsearch)
}

/// One line in twenty cannot become a document: a wrong type, a field that a strict mapping does not know, or (from
/// another producer) no JSON at all.
#[test]
fn five_percent_bad_documents_end_in_the_dead_letters_with_their_reason() -> Result<()> {
    let (kafka, elasticsearch) = (Kafka::shared()?, Elasticsearch::shared()?);
    let pipeline = Pipeline::new("five-percent", kafka, elasticsearch, "strict", "on_conflict: reject")?;
    let shipper = pipeline.rig.start()?;
    let indexers = pipeline.indexers()?;
    let template = |id: &millrace_tests::writer::LineId| match id.n % 40 {
        7 => format!(r#"{{"id":"{id}","status":"no number {}"}}"#, id.n),
        27 => format!(r#"{{"id":"{id}","unknown":{}}}"#, id.n),
        _ => format!(r#"{{"id":"{id}","status":{}}}"#, 200 + id.n % 300),
    };
    let mut log = LogWriter::with_template(&pipeline.rig.written, &pipeline.rig.path("a.log"), Box::new(template))?;
    log.write(4000)?;
    let not_json: Vec<String> = (0..50).map(|n| format!("{{\"not\": json {n}")).collect();
    kafka.produce(&pipeline.name, None, not_json.iter().map(|value| ("", value.as_str())))?;
    // A letter can be parked twice (at least once); its id tells.
    let letters_by_id = || -> Result<BTreeMap<String, kafka::Record>> {
        let with_id =
            |letter: kafka::Record| Ok((letter.header("millrace.id").context("a letter without id")?, letter));
        kafka.read_topic("five-percent.dlq")?.into_iter().map(with_id).collect()
    };
    wait::until_true("200 lines and 50 foreign records are parked", PATIENCE, || Ok(letters_by_id()?.len() >= 250))?;
    kafka.wait_no_lag(&pipeline.name, &pipeline.name, PATIENCE)?;

    let letters: Vec<_> = letters_by_id()?.into_values().collect();
    let with = |field: Option<&str>| -> usize {
        letters.iter().filter(|letter| letter.header("dlq.field").as_deref() == field).count()
    };
    assert_eq!((with(Some("status")), with(Some("unknown")), with(None)), (100, 100, 50), "by field");
    let records = kafka.read_topic("five-percent")?;
    for letter in &letters {
        let reason = letter.header("dlq.reason").context("a letter without reason")?;
        let text = letter.text();
        assert_eq!(letter.header("dlq.topic").as_deref(), Some("five-percent"));
        assert_eq!(original(&records, letter)?, text, "the original bytes, {reason}");
    }
    let mut shipper = shipper;
    ensure!(shipper.terminate(LIMIT)? == 0);
    for mut indexer in indexers {
        ensure!(indexer.terminate(LIMIT)? == 0);
    }
    elasticsearch.refresh("five-percent-*")?;
    let mut seen = oracle::in_index(&elasticsearch.all_documents("five-percent-*")?);
    assert_eq!(seen.len(), 3800);
    let ours: Vec<_> = letters.into_iter().filter(|letter| letter.header("dlq.field").is_some()).collect();
    seen.extend(oracle::in_dead_letters(&ours)?);
    oracle::judge(&pipeline.rig.written, &seen).check()
}

/// The text of the record that a letter says it was.
fn original(records: &[kafka::Record], letter: &kafka::Record) -> Result<String> {
    let number = |name: &str| -> Result<i64> { Ok(letter.header(name).context(name.to_owned())?.parse()?) };
    let (partition, offset) = (number("dlq.partition")?, number("dlq.offset")?);
    let found = records.iter().find(|r| i64::from(r.partition) == partition && r.offset == offset);
    Ok(found.context("no such record")?.text())
}
