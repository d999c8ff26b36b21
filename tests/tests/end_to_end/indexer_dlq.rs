//! The way back from the dead letters: `indexer dlq` on a real broker, and a real Elasticsearch where a template is mended.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_tests::elasticsearch::Elasticsearch;
use millrace_tests::fake_elasticsearch::Answer;
use millrace_tests::indexer_rig::{IndexerRig, LIMIT, number};
use millrace_tests::kafka::{self, Kafka};
use millrace_tests::process::Launch;
use millrace_tests::{scratch, wait};
use serde_json::{Value, json};

/// Runs `indexer dlq …` to its end. Gives its exit code and what it printed.
fn dlq(dir: &Path, args: &[&str]) -> Result<(i32, String)> {
    static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let name = format!("dlq-{}", NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    let mut process = Launch::indexer(&name, dir)?.arg("dlq").args(args).start()?;
    let code = process.wait(LIMIT)?;
    Ok((code, process.output()))
}

struct Mended {
    name: &'static str,
    dir: PathBuf,
    config: PathBuf,
    kafka: &'static Kafka,
}

impl Mended {
    fn new(name: &'static str, elasticsearch: &Elasticsearch) -> Result<Self> {
        let kafka = Kafka::shared()?;
        kafka.create_topic(name, 2, &[])?;
        kafka.create_topic(&format!("{name}.dlq"), 3, &[])?;
        let dir = scratch::dir(name)?;
        fs::create_dir(dir.join("templates"))?;
        let config = format!(
            "kafka: {{ brokers: [\"{}\"], topics: [\"{name}\"], group: \"{name}\" }}\n\
             elasticsearch: {{ hosts: [\"{}\"], request_timeout: 10s }}\n\
             bulk: {{ max_delay: 100ms }}\n\
             templates: {{ dir: \"{}\", apply: true }}\n\
             rules: [ {{ index: \"{name}-{{service.name}}-{{@timestamp:%Y.%m.%d}}\", on_conflict: reject }} ]\n\
             dead_letter: {{ topic: \"{name}.dlq\" }}\n\
             admin: {{ listen: \"127.0.0.1:0\" }}\n",
            kafka.bootstrap(),
            elasticsearch.url(),
            dir.join("templates").display(),
        );
        let path = dir.join("indexer.yaml");
        fs::write(&path, config)?;
        Ok(Self { name, dir, config: path, kafka })
    }

    fn write_template(&self, version: u32, status: &Value, when: &Value) -> Result<()> {
        let template = json!({
            "index_patterns": [format!("{}-*", self.name)],
            "priority": 600,
            "version": version,
            "_meta": {"managed_by": "millrace"},
            "template": {
                "settings": {"number_of_replicas": 0, "number_of_shards": 1},
                "mappings": {"dynamic": "false", "properties": {
                    "@timestamp": {"type": "date"}, "status": status, "when": when,
                }},
            },
        });
        Ok(fs::write(self.dir.join(format!("templates/{}.json", self.name)), template.to_string())?)
    }

    /// Lets an indexer run until it has finished the topic.
    fn index_all(&self, name: &str) -> Result<()> {
        let mut indexer = Launch::indexer(name, &self.dir)?.args(["run", "-c"]).arg(&self.config).start()?;
        self.kafka.wait_no_lag(self.name, self.name, LIMIT)?;
        ensure!(indexer.terminate(LIMIT)? == 0, "{}", indexer.log_tail());
        Ok(())
    }

    fn dlq(&self, args: &[&str]) -> Result<(i32, String)> {
        let config = self.config.to_str().context("a path that is not UTF-8")?;
        dlq(&self.dir, &[args, &["-c", config]].concat())
    }

    fn letters(&self) -> Result<Vec<kafka::Record>> {
        self.kafka.read_topic(&format!("{}.dlq", self.name))
    }
}

#[test]
fn m22_dead_letters_come_back_after_the_template_is_mended() -> Result<()> {
    let elasticsearch = Elasticsearch::shared()?;
    let rig = Mended::new("m22", elasticsearch)?;
    rig.write_template(1, &json!({"type": "short"}), &json!({"type": "date"}))?;
    // Spelled as no serializer would, and without a time of their own: neither bytes nor the name of the index may change.
    let bad = |n: usize| match n % 2 {
        0 => format!("{{ \"n\": {n}.0, \"service\":{{\"name\":\"bad\"}},\t\"when\":\"{:02}.11.2026\" }}", n % 28 + 1),
        _ => format!(
            "{{\"n\":{n}e0,\"service\" : {{\"name\":\"bad\"}},\"status\":\"n/a\\u00e9\",\"status\":\"n/a {n}\"}}"
        ),
    };
    let mut records: Vec<(String, String)> = (0..50).map(|n| (format!("key {n}"), bad(n))).collect();
    records.extend((50..250).map(|n| (String::new(), format!("{{\"n\":{n},\"service\":{{\"name\":\"good\"}}}}"))));
    rig.kafka.produce(rig.name, None, records.iter().map(|(key, value)| (key.as_str(), value.as_str())))?;
    let originals = rig.kafka.read_topic(rig.name)?;
    rig.index_all("indexer-1")?;
    let letters = rig.letters()?;
    let ids: BTreeSet<String> =
        letters.iter().map(|letter| letter.header("millrace.id").context("no id")).collect::<Result<_>>()?;
    assert_eq!(ids.len(), 50);
    for letter in &letters {
        let offset: i64 = letter.header("dlq.offset").context("no offset")?.parse()?;
        let partition: i32 = letter.header("dlq.partition").context("no partition")?.parse()?;
        let original = originals.iter().find(|record| (record.partition, record.offset) == (partition, offset));
        let original = original.context("the letter names no record")?;
        assert_eq!((&letter.key, &letter.value), (&original.key, &original.value));
    }

    let (code, listed) = rig.dlq(&["list", "--json", "--values"])?;
    assert_eq!((code, listed.lines().count()), (0, 50), "{listed}");
    for line in listed.lines() {
        let line: Value = serde_json::from_str(line)?;
        ensure!(ids.contains(line["id"].as_str().context("no id")?), "{line}");
        ensure!(records.iter().any(|(_, value)| line["value"] == json!(value)), "{line}");
    }
    let (_, when) = rig.dlq(&["list", "--field", "when", "--since", "1h"])?;
    assert_eq!(when.lines().count(), 25, "{when}");
    assert_eq!(rig.dlq(&["list", "--until", "1h"])?, (0, String::new()));
    let (_, top) = rig.dlq(&["top"])?;
    ensure!(top.contains("50 letters") && top.contains("status") && top.contains("when"), "{top}");
    let (code, dry) = rig.dlq(&["replay", "--dry-run", "--limit", "7"])?;
    ensure!(code == 0 && dry.contains("7 letters") && dry.contains("would be sent to `m22`"), "{dry}");
    assert_eq!(rig.kafka.read_topic(rig.name)?.len(), 250, "a dry run sends nothing");

    let mended = json!({"type": "date", "format": "dd.MM.yyyy"});
    rig.write_template(2, &json!({"type": "keyword"}), &mended)?;
    for round in 1..=2 {
        let (code, words) = rig.dlq(&["replay"])?;
        ensure!(!words.contains("trouble"), "nothing is wrong: {words}");
        ensure!(code == 0 && words.contains("50 of 50 acknowledged"), "{code}: {words}");
        rig.index_all(&format!("indexer-mended-{round}"))?;
        elasticsearch.refresh("m22-*")?;
        let documents = elasticsearch.all_documents("m22-*")?;
        assert_eq!(documents.len(), 250, "after replay {round}");
        let bad = documents.iter().filter(|document| document.index.starts_with("m22-bad"));
        assert_eq!(bad.map(|document| document.id.clone()).collect::<BTreeSet<_>>(), ids);
    }
    assert_eq!(rig.letters()?.len(), letters.len(), "letters are left in the topic, and none came back");

    let mut replayed: BTreeMap<String, Vec<kafka::Record>> = BTreeMap::new();
    for record in rig.kafka.read_topic(rig.name)?.into_iter().filter(|record| !originals.contains(record)) {
        replayed.entry(record.header("millrace.id").context("no id")?).or_default().push(record);
    }
    assert_eq!(replayed.keys().cloned().collect::<BTreeSet<_>>(), ids);
    for letter in &letters {
        let twice = &replayed[&letter.header("millrace.id").context("no id")?];
        assert_eq!(twice.len(), 2);
        for record in twice {
            assert_eq!((&record.key, &record.value), (&letter.key, &letter.value));
            assert_eq!(record.timestamp, twice[0].timestamp, "else a second replay could name another index");
        }
    }
    Ok(())
}

#[test]
fn o23_a_letter_names_its_source() -> Result<()> {
    let mut rig = IndexerRig::new("o23", 2, "")?;
    rig.fake.script(|bulk| {
        Answer::items(bulk, |item| {
            let reason = "failed to parse field [n] of type [date]. Preview of field's value: 'secret'";
            number(&item.document).is_ok_and(|n| n < 3).then_some((400, "document_parsing_exception", reason))
        })
    });
    let record = |n: usize| {
        format!(
            r#"{{"n":{n},"service":{{"name":"a"}},"message":"secret {n}","log":{{"file":{{"path":"/var/log/shop.log"}},"offset":{}}}}}"#,
            n * 100
        )
    };
    let records: Vec<String> = (0..20).map(record).collect();
    rig.kafka.produce(&rig.name, None, records.iter().map(|value| ("", value.as_str())))?;
    rig.produce(20..40, "a")?;
    rig.start()?;
    wait::until_true("the dead letters", LIMIT, || Ok(rig.num_letters()? == 3))?;
    let topic = format!("{}.dlq", rig.name);
    let originals = rig.kafka.read_topic(&rig.name)?;
    let log = || rig.indexer.as_ref().map(|indexer| indexer.output()).unwrap_or_default();
    wait::until_true("three lines in the log", Duration::from_secs(10), || {
        Ok(log().matches("record went to the dead letters").count() == 3)
    })?;
    let log = log();
    ensure!(!log.contains("secret"), "what a document says is not for the log: {log}");
    let brokers = rig.kafka.bootstrap();
    let dir = scratch::dir("o23")?;
    let (code, listed) = dlq(&dir, &["list", "--brokers", brokers, "--dead-letter-topic", &topic])?;
    assert_eq!(code, 0, "{listed}");
    for letter in rig.kafka.read_topic(&topic)? {
        let header = |name: &str| letter.header(name).with_context(|| name.to_owned());
        assert_eq!((header("dlq.topic")?, header("dlq.status")?), (rig.name.clone(), "400".into()));
        assert_eq!(header("dlq.error.type")?, "document_parsing_exception");
        ensure!(header("dlq.error.message")?.contains("failed to parse field"));
        let (partition, offset) = (header("dlq.partition")?, header("dlq.offset")?);
        let original = originals.iter().find(|record| {
            (record.partition.to_string(), record.offset.to_string()) == (partition.clone(), offset.clone())
        });
        assert_eq!(original.context("no such record")?.value, letter.value);
        let value: Value = serde_json::from_str(&letter.text())?;
        let position = value["log"]["offset"].as_u64().context("no position")?;
        let place = format!("{}/{partition}/{offset}", rig.name);
        let line = listed.lines().find(|line| line.contains(&place)).context("not listed")?;
        ensure!(line.contains(&header("millrace.id")?) && line.contains("refused"), "{line}");
        let words = [
            format!("topic=\"{}\"", rig.name),
            format!("partition={partition} offset={offset} "),
            format!("file=\"/var/log/shop.log\" position={position} "),
            "status=400".into(),
            "document_parsing_exception".into(),
            "refused".into(),
        ];
        let told = log.lines().any(|line| words.iter().all(|word| line.contains(word)));
        ensure!(told, "no line with {words:?} in {log}");
    }
    rig.judge(40, &[0, 1, 2])
}

#[test]
fn b26_a_letter_in_parts_comes_back_whole() -> Result<()> {
    let mut rig = IndexerRig::new("parts-back", 1, "")?;
    let letters = format!("{}.dlq", rig.name);
    rig.kafka.delete_topic(&letters)?;
    rig.kafka.create_topic(&letters, 1, &[("max.message.bytes", "4096")])?;
    let mut random = 7_u64;
    let mut noise = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{random:016x}")
    };
    let bad: Vec<String> =
        (0..3).map(|_| format!("{{\"message\":\"{}", (0..900).map(|_| noise()).collect::<String>())).collect();
    rig.kafka.produce(&rig.name, None, bad.iter().map(|value| ("k", value.as_str())))?;
    rig.start()?;
    rig.kafka.wait_no_lag(&rig.name, &rig.name, LIMIT)?;
    ensure!(rig.num_letters()? > 6, "the letters were not parked in parts");
    ensure!(rig.indexer.take().context("started above")?.terminate(LIMIT)? == 0);
    let dir = scratch::dir("parts-back")?;
    let place = ["--brokers", rig.kafka.bootstrap(), "--dead-letter-topic", &letters];
    let (code, words) = dlq(&dir, &[&["replay", "--reason", "not_json"][..], &place].concat())?;
    ensure!(code == 0 && words.contains("3 of 3 acknowledged"), "{code}: {words}");
    let back: Vec<kafka::Record> =
        rig.kafka.read_topic(&rig.name)?.into_iter().filter(|record| record.header("millrace.id").is_some()).collect();
    assert_eq!(back.len(), 3);
    ensure!(back.iter().all(|record| bad.contains(&record.text()) && record.key_text() == "k"));
    Ok(())
}

#[test]
fn a_replay_that_cannot_reach_its_topic_does_not_end_with_0() -> Result<()> {
    let mut rig = IndexerRig::new("gone", 1, "")?;
    let letters = format!("{}.dlq", rig.name);
    rig.kafka.produce(&rig.name, None, [("", "{"), ("", "[")])?;
    rig.start()?;
    rig.kafka.wait_no_lag(&rig.name, &rig.name, LIMIT)?;
    ensure!(rig.indexer.take().context("started above")?.terminate(LIMIT)? == 0);
    rig.kafka.delete_topic(&rig.name)?;
    let dir = scratch::dir("gone")?;
    let brokers = ["--brokers", rig.kafka.bootstrap()];
    let (code, words) = dlq(&dir, &[&["replay", "--dead-letter-topic", &letters][..], &brokers].concat())?;
    ensure!(code == 75 && words.contains("is not there"), "{code}: {words}");
    let (code, words) = dlq(&dir, &[&["list", "--dead-letter-topic", "indexer-nowhere"][..], &brokers].concat())?;
    ensure!(code == 78 && words.contains("there is no topic `indexer-nowhere`"), "{code}: {words}");
    let (code, words) = dlq(&dir, &["list", "--brokers", "127.0.0.1:1"])?;
    ensure!(code == 69 && words.contains("does not answer"), "{code}: {words}");
    assert_eq!(dlq(&dir, &["list"])?.0, 64);
    Ok(())
}
