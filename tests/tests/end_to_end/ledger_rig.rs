//! A shipper's part of the ledger, told by the test itself: files whose records, rows and heartbeats are written through the
//! types that both programs share; and indexers that answer for them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use millrace_common::ledger::sources::{Heartbeat, HostState, SourceKey};
use millrace_common::ledger::{INDEXED, SOURCES, encode, topics};
use millrace_common::record::{RecordId, SourceId};
use millrace_tests::indexer_rig::LIMIT;
use millrace_tests::kafka::KafkaClient;
use millrace_tests::ledger::whole_row;
use millrace_tests::process::{Launch, Process};
use millrace_tests::{http, ports, scratch};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde::Serialize;
use serde_json::{Value, json};

pub const HOST: &str = "web-1";
/// Every line is so long.
pub const LINE: u64 = 20;

/// A topic with its dead letters, and files that a shipper is said to read.
pub struct LedgerRig {
    pub name: String,
    pub dir: PathBuf,
    config: PathBuf,
    num_partitions: u32,
    /// One for all that is written: making one takes longer than writing.
    producer: BaseProducer,
}

/// A file whose records go to one partition.
#[derive(Clone, Copy, Debug)]
pub struct File {
    pub source: SourceId,
    pub path: &'static str,
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_default()
}

impl LedgerRig {
    /// `elasticsearch` is an address; documents go to the index `<name>-all`.
    pub fn new(kafka: &KafkaClient, elasticsearch: &str, name: &str, num_partitions: u32) -> Result<Self> {
        kafka.create_topic(name, num_partitions as i32, &[])?;
        kafka.create_topic(&format!("{name}.dlq"), 1, &[])?;
        let mut client = rdkafka::ClientConfig::new();
        client.set("bootstrap.servers", kafka.bootstrap()).set("enable.idempotence", "true").set("linger.ms", "1");
        topics::create_missing(&client, &[SOURCES, INDEXED], name)?;
        let dir = scratch::dir(name)?;
        let config = dir.join("indexer.yaml");
        let settings = format!(
            "kafka: {{ brokers: [\"{}\"], topics: [\"{name}\"], group: \"{name}\", options: {{ session.timeout.ms: 6000 }} }}\n\
             elasticsearch: {{ hosts: [\"{elasticsearch}\"], request_timeout: 10s }}\n\
             bulk: {{ max_delay: 100ms }}\n\
             rules: [ {{ index: \"{name}-all\" }} ]\n\
             dead_letter: {{ topic: \"{name}.dlq\" }}\n",
            kafka.bootstrap(),
        );
        std::fs::write(&config, settings)?;
        Ok(Self { name: name.to_owned(), dir, config, num_partitions, producer: client.create()? })
    }

    fn put(&self, topic: &str, partition: i32, records: &[(String, String)]) -> Result<()> {
        for (key, value) in records {
            let record = BaseRecord::to(topic).partition(partition).key(key).payload(value);
            self.producer.send(record).map_err(|(error, _)| error)?;
        }
        Ok(self.producer.flush(LIMIT)?)
    }

    /// Starts an indexer. Gives the address of its admin endpoint, too.
    pub fn indexer(&self, name: &str) -> Result<(Process, String)> {
        let admin = format!("127.0.0.1:{}", ports::free()?);
        let launch = Launch::indexer(name, &self.dir)?.args(["run", "--admin-listen", &admin, "-c"]).arg(&self.config);
        Ok((launch.start()?, admin))
    }

    /// A file whose records go to this partition.
    pub fn file(&self, path: &'static str, partition: i32) -> File {
        let start = path.bytes().fold(0u64, |sum, byte| sum.wrapping_mul(31) + u64::from(byte)) << 8;
        let sources = (start..).map(SourceId::from_u64);
        let mut of_partition = sources.filter(|source| source.partition(self.num_partitions) == partition);
        File { source: of_partition.next().expect("every partition has sources"), path }
    }

    /// The id of a line of a file.
    pub fn id(file: File, number: u64) -> RecordId {
        RecordId::of(file.source, number * LINE, format!("line {number:014}\n").as_bytes())
    }

    /// Sends these lines of a file.
    pub fn send(&self, file: File, lines: Range<u64>) -> Result<()> {
        self.send_with(file, lines, "")
    }

    /// [`LedgerRig::send`] with more fields, each with a comma before it.
    pub fn send_with(&self, file: File, lines: Range<u64>, fields: &str) -> Result<()> {
        let record = |number: u64| {
            let (source, path, offset) = (file.source, file.path, number * LINE);
            let value = format!(
                r#"{{"message":"line {number}","log":{{"file":{{"path":"{path}"}},"offset":{offset},"source":"{source}"}}{fields}}}"#
            );
            (Self::id(file, number).to_string(), value)
        };
        let records: Vec<(String, String)> = lines.map(record).collect();
        let partition = file.source.partition(self.num_partitions);
        self.put(&self.name, partition, &records)
    }

    fn tell(&self, key: &impl Serialize, value: &impl Serialize) -> Result<()> {
        self.put(SOURCES, 0, &[(text(encode(key)), text(encode(value)))])
    }

    /// Says that the file is acknowledged up to this line.
    pub fn report(&self, file: File, acknowledged: u64) -> Result<()> {
        let row = whole_row(HOST, &self.name, file.path, acknowledged * LINE);
        self.tell(&SourceKey::Source(self.host(), file.source), &row)
    }

    /// The id of the host, of which every test has one of its own.
    pub fn host(&self) -> String {
        format!("{}-host", self.name)
    }

    /// A sign of life.
    pub fn beat(&self, interval_ms: u64, state: HostState) -> Result<()> {
        let heartbeat = Heartbeat {
            version: 1,
            host_name: HOST.into(),
            program: "0.1.0".into(),
            interval_ms,
            at_ms: 0,
            started_ms: 0,
            state,
            topics: vec![self.name.clone()],
            num_sources: 1,
            acked_events: 0,
            unread_bytes: 0,
            blocked: Vec::new(),
            stalled: Vec::new(),
        };
        self.tell(&SourceKey::Host((self.host(),)), &heartbeat)
    }

    /// Runs a command of the indexer on the rig's settings. Gives its exit code and what it printed.
    pub fn command(&self, args: &[&str]) -> Result<(i32, String)> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = format!("{}-{}", args[0], NUMBER.fetch_add(1, Ordering::Relaxed));
        let launch = Launch::indexer(&name, &self.dir)?.args(&args[..1]).arg("-c").arg(&self.config);
        let mut process = launch.args(&args[1..]).env("INDEXER_ADMIN_LISTEN", "127.0.0.1:0").start()?;
        let code = process.wait(LIMIT * 2)?;
        Ok((code, process.output()))
    }

    /// `indexer audit --json`. Gives its exit code, the files by their paths, and the total.
    pub fn audit(&self, args: &[&str]) -> Result<(i32, BTreeMap<String, Value>, Value)> {
        let (code, output) = self.command(&[&["audit", "--json"], args].concat())?;
        let start = output.find("{\n").with_context(|| format!("no JSON in {output}"))?;
        let report: Value = serde_json::from_str(&output[start..]).with_context(|| output.clone())?;
        let sources = report["sources"].as_array().cloned().unwrap_or_default();
        ensure!(report["whole"] == json!(code == 0), "{code}: {report}");
        let by_path =
            sources.into_iter().map(|source| (source["path"].as_str().unwrap_or_default().to_owned(), source));
        Ok((code, by_path.collect(), report["total"].clone()))
    }
}

/// What `/pipeline` answers.
pub fn pipeline(admin: &str) -> Result<(u16, Value)> {
    let reply = http::get(&format!("http://{admin}/pipeline"))?;
    Ok((reply.status, serde_json::from_str(&reply.body)?))
}
