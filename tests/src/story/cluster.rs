//! Ten hosts with a shipper and an application each, two indexers, their servers, and Prometheus.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use millrace_common::ledger::sources::SourceKey;
use millrace_common::ledger::{SOURCES, encode};
use millrace_common::record::{RecordId, SourceId};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::elasticsearch::{self, Elasticsearch};
use crate::hanging_files::HangingFiles;
use crate::kafka::{self, Kafka};
use crate::ledger::whole_row;
use crate::process::{Launch, Process};
use crate::prometheus::{Prometheus, alerts_that_wait};
use crate::proxy::Proxy;
use crate::{ports, scratch, servers};

pub const NUM_HOSTS: usize = 10;
const TOPIC: &str = "logs";
const DEAD_LETTERS: &str = "logs.dlq";
const STOP_LIMIT: Duration = Duration::from_secs(40);

/// Everything that runs.
pub struct Cluster {
    pub dir: PathBuf,
    pub hosts: Vec<Host>,
    pub indexers: Vec<Process>,
    /// Addresses of the indexers' admin endpoints.
    pub admins: Vec<String>,
    pub prometheus: Prometheus,
    /// Between the indexers and Elasticsearch.
    pub proxy: Proxy,
    /// The folder that the host of this number logs to.
    pub hanging: HangingFiles,
    kafka: Kafka,
    _elasticsearch: Elasticsearch,
    is_over: Arc<AtomicBool>,
    writer: Option<JoinHandle<Result<()>>>,
}

pub struct Host {
    pub name: String,
    launch: Launch,
    shipper: Process,
}

impl Host {
    pub fn kill(&mut self) -> Result<()> {
        self.shipper.kill9()
    }

    pub fn start_again(&mut self) -> Result<()> {
        self.shipper = self.launch.start()?;
        Ok(())
    }
}

impl Cluster {
    /// Starts all of it. The host with the index `hanging` logs into a file system whose reads can hang.
    ///
    /// # Errors
    ///
    /// If something does not start.
    pub fn start(hanging: usize) -> Result<Self> {
        let dir = scratch::dir("monitoring")?;
        let (kafka, node) = std::thread::scope(|scope| -> Result<_> {
            let kafka = scope.spawn(|| Kafka::start(&kafka::Options::default()));
            let node = Elasticsearch::start(&elasticsearch::Options::default())?;
            Ok((kafka.join().map_err(|_| anyhow::anyhow!("starting Kafka panicked"))??, node))
        })?;
        kafka.create_topic(TOPIC, 4, &[])?;
        kafka.create_topic(DEAD_LETTERS, 1, &[])?;
        let proxy = Proxy::start(node.url().trim_start_matches("http://").parse()?)?;
        let logs = |host: usize| dir.join(format!("host-{}/logs", host + 1));
        (0..NUM_HOSTS).try_for_each(|host| fs::create_dir_all(logs(host)))?;
        let hanging_files = HangingFiles::mount(&logs(hanging)).context("the stalled tail needs root and /dev/fuse")?;

        let mut targets = Vec::new();
        let mut hosts = Vec::new();
        for host in 0..NUM_HOSTS {
            let name = format!("host-{}", host + 1);
            let admin = format!("127.0.0.1:{}", ports::free()?);
            let dir = dir.join(&name);
            let config = format!(
                "host: {{ id: {name}, name: {name} }}\n\
                 inputs: [ {{ id: app, paths: [\"{}/*.log\"] }} ]\n\
                 kafka: {{ brokers: [\"{}\"], topic: {TOPIC} }}\n\
                 data_dir: {}\n\
                 admin: {{ listen: \"{admin}\" }}\n",
                logs(host).display(),
                kafka.bootstrap(),
                dir.join("state").display(),
            );
            fs::write(dir.join("shipper.yaml"), config)?;
            let launch = Launch::shipper("shipper", &dir)?.args(["run", "--config"]).arg(dir.join("shipper.yaml"));
            hosts.push(Host { shipper: launch.start()?, name, launch });
            targets.push(("shipper", admin));
        }

        let config = dir.join("indexer.yaml");
        fs::write(
            &config,
            format!(
                "kafka: {{ brokers: [\"{}\"], topics: [{TOPIC}], group: indexer }}\n\
                 elasticsearch: {{ hosts: [\"http://{}\"], request_timeout: 10s }}\n\
                 templates: {{ dir: \"{}\", apply: true }}\n\
                 rules: [ {{ index: \"applogs-{{@timestamp:%Y.%m.%d}}\", unmapped: fold, fold_into: attrs }} ]\n\
                 dead_letter: {{ topic: {DEAD_LETTERS} }}\n",
                kafka.bootstrap(),
                proxy.addr(),
                servers::checkout().join("templates").display(),
            ),
        )?;
        let mut indexers = Vec::new();
        let mut admins = Vec::new();
        for number in 1..=2 {
            let admin = format!("127.0.0.1:{}", ports::free()?);
            let launch = Launch::indexer(&format!("indexer-{number}"), &dir)?;
            indexers.push(launch.args(["run", "--admin-listen", &admin, "-c"]).arg(&config).start()?);
            targets.push(("indexer", admin.clone()));
            admins.push(admin);
        }
        let rules = dir.join("alerts.yml");
        // They wait five seconds at most, and ask for a lag of 20 seconds, not of five minutes.
        fs::write(&rules, alerts_that_wait("5s")?.replace("indexer_lag_seconds) > 300", "indexer_lag_seconds) > 20"))?;
        let targets: Vec<_> = targets.iter().map(|(job, address)| (*job, address.as_str())).collect();
        let prometheus = Prometheus::start("prometheus", &targets, &rules)?;
        let is_over = Arc::new(AtomicBool::new(false));
        let mut cluster = Self {
            dir,
            hosts,
            indexers,
            admins,
            prometheus,
            proxy,
            hanging: hanging_files,
            kafka,
            _elasticsearch: node,
            is_over,
            writer: None,
        };
        cluster.write_logs(hanging)?;
        Ok(cluster)
    }

    /// Every host's application writes ten lines a second.
    fn write_logs(&mut self, hanging: usize) -> Result<()> {
        let files = (0..NUM_HOSTS).filter(|host| *host != hanging);
        let files = files.map(|host| File::create(self.dir.join(format!("host-{}/logs/app.log", host + 1))));
        let mut files = files.collect::<Result<Vec<_>, _>>()?;
        let (hanging, is_over) = (self.hanging.writer(), Arc::clone(&self.is_over));
        self.writer = Some(std::thread::spawn(move || {
            let mut number = 0_u64;
            while !is_over.load(Ordering::Relaxed) {
                number += 1;
                let line = format!("request {number} answered in {} ms\n", number * 7 % 90);
                files.iter_mut().try_for_each(|file| file.write_all(line.as_bytes()))?;
                hanging.append("app.log", &line);
                std::thread::sleep(Duration::from_millis(100));
            }
            Ok(())
        }));
        Ok(())
    }

    /// What a command of the indexer prints, and its exit code.
    ///
    /// # Errors
    ///
    /// If it does not end.
    pub fn indexer_command(&self, args: &[&str]) -> Result<(i32, String)> {
        let launch = Launch::indexer(&format!("{}-{}", args[0], ports::free()?), &self.dir)?;
        let config = self.dir.join("indexer.yaml");
        let launch = launch.args(&args[..1]).arg("-c").arg(config).args(&args[1..]);
        let mut process = launch.env("INDEXER_ADMIN_LISTEN", "127.0.0.1:0").start()?;
        let code = process.wait(Duration::from_secs(120))?;
        Ok((code, process.output()))
    }

    /// Stops the programs as a person would. The servers go with this value.
    ///
    /// # Errors
    ///
    /// If one of them does not end, or not with 0.
    pub fn stop(mut self) -> Result<()> {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(writer) = self.writer.take() {
            writer.join().map_err(|_| anyhow::anyhow!("the applications panicked"))??;
        }
        for process in self.hosts.iter_mut().map(|host| &mut host.shipper).chain(&mut self.indexers) {
            process.stop_within(STOP_LIMIT)?;
        }
        Ok(())
    }
}

/// A file that a shipper says to have sent, and has not: what a shipper with a fault in it would say.
pub struct Skipped {
    pub path: String,
    host: String,
    source: SourceId,
    producer: BaseProducer,
}

const SKIPPED: &[u8] = b"a line that its shipper skipped\n";

impl Skipped {
    /// Says so in the ledger, in the name of a host.
    ///
    /// # Errors
    ///
    /// If Kafka does not take it.
    pub fn tell(cluster: &Cluster, host: &Host) -> Result<Self> {
        let mut client = rdkafka::ClientConfig::new();
        client.set("bootstrap.servers", cluster.kafka.bootstrap()).set("linger.ms", "1");
        let path = cluster.dir.join(&host.name).join("logs/skipped.log").display().to_string();
        let source = SourceId::derive(&host.name, 7, 7, 0);
        let skipped = Self { path, host: host.name.clone(), source, producer: client.create()? };
        let row = whole_row(&host.name, TOPIC, &skipped.path, SKIPPED.len() as u64);
        skipped.put(SOURCES, 0, &encode(&SourceKey::Source(skipped.host.clone(), source)), &encode(&row))?;
        Ok(skipped)
    }

    /// Sends it after all.
    ///
    /// # Errors
    ///
    /// If Kafka does not take it.
    pub fn send(&self) -> Result<()> {
        let id = RecordId::of(self.source, 0, SKIPPED).to_string();
        let value = serde_json::json!({
            "@timestamp": "2026-01-01T00:00:00.000Z", "message": "a line that its shipper skipped",
            "log": {"file": {"path": self.path}, "offset": 0, "source": self.source.to_string()}, "host": {"name": self.host},
        });
        self.put(TOPIC, self.source.partition(4), id.as_bytes(), value.to_string().as_bytes())
    }

    fn put(&self, topic: &str, partition: i32, key: &[u8], value: &[u8]) -> Result<()> {
        let record = BaseRecord::to(topic).partition(partition).key(key).payload(value);
        self.producer.send(record).map_err(|(error, _)| error)?;
        Ok(self.producer.flush(Duration::from_secs(10))?)
    }
}

/// Where pictures and logs go for a person to look at.
///
/// # Errors
///
/// If the folder cannot be made.
pub fn pictures() -> Result<PathBuf> {
    let dir: &Path = &servers::checkout().join(".run/monitoring");
    fs::create_dir_all(dir)?;
    Ok(dir.to_owned())
}
