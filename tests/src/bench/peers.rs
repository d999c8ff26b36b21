//! Other log collectors at the same two tasks, on their defaults but for acks, idempotence and compression: rsyslog where Debian
//! installs it, and others whose programs are named by `BENCH_FLUENT_BIT`, `BENCH_VECTOR` and `BENCH_FILEBEAT`.

use std::env;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::measure::{self, Measured, Usage};
use super::out::{self, PATIENCE};
use crate::fake_elasticsearch::FakeElasticsearch;
use crate::kafka::Kafka;
use crate::wait;

/// From a file to a topic.
struct Ship<'a> {
    file: &'a Path,
    brokers: &'a str,
    topic: &'a str,
    /// For what it keeps.
    dir: &'a Path,
}

/// From a topic to a bulk server.
struct Index<'a> {
    brokers: &'a str,
    topic: &'a str,
    group: &'a str,
    server: SocketAddr,
    dir: &'a Path,
}

/// How a collector is told what to do.
struct Kind {
    name: &'static str,
    /// Of its folder.
    id: &'static str,
    /// Names its program.
    variable: &'static str,
    /// Taken if it is there and the variable is not set.
    usual_program: Option<&'static str>,
    config_file: &'static str,
    /// `CONFIG` stands for the path of the file, `DIR` for a folder of its own.
    args: &'static [&'static str],
    ship: fn(&Ship<'_>) -> String,
    index: fn(&Index<'_>) -> String,
}

const KINDS: [Kind; 4] = [
    Kind {
        name: "rsyslog",
        id: "rsyslog",
        variable: "BENCH_RSYSLOG",
        usual_program: Some("/usr/sbin/rsyslogd"),
        config_file: "rsyslog.conf",
        args: &["-n", "-f", "CONFIG", "-i", "DIR/rsyslogd.pid"],
        ship: rsyslog_ship,
        index: rsyslog_index,
    },
    Kind {
        name: "Fluent Bit",
        id: "fluent-bit",
        variable: "BENCH_FLUENT_BIT",
        usual_program: None,
        config_file: "fluent-bit.conf",
        args: &["-c", "CONFIG"],
        ship: fluent_bit_ship,
        index: fluent_bit_index,
    },
    Kind {
        name: "Vector",
        id: "vector",
        variable: "BENCH_VECTOR",
        usual_program: None,
        config_file: "vector.json",
        args: &["--config", "CONFIG"],
        ship: vector_ship,
        index: vector_index,
    },
    Kind {
        name: "Filebeat",
        id: "filebeat",
        variable: "BENCH_FILEBEAT",
        usual_program: None,
        config_file: "filebeat.yml",
        args: &["-e", "-c", "CONFIG", "--path.home", "DIR", "--path.data", "DIR/data"],
        ship: filebeat_ship,
        index: filebeat_index,
    },
];

/// A collector that is there.
pub(super) struct Peer {
    kind: &'static Kind,
    program: PathBuf,
}

impl Peer {
    /// All that are there.
    ///
    /// # Errors
    ///
    /// If a variable names no program.
    pub(super) fn all() -> Result<Vec<Self>> {
        let mut peers = Vec::new();
        for kind in &KINDS {
            let program = match env::var_os(kind.variable).filter(|path| !path.is_empty()).map(PathBuf::from) {
                Some(path) => {
                    ensure!(path.is_file(), "{}={} is no file", kind.variable, path.display());
                    Some(path)
                }
                None => kind.usual_program.map(PathBuf::from).filter(|path| path.is_file()),
            };
            peers.extend(program.map(|program| Self { kind, program }));
        }
        Ok(peers)
    }

    pub(super) fn name(&self) -> &'static str {
        self.kind.name
    }

    /// Until the lines of `file` are in the topic, which is there and empty.
    ///
    /// # Errors
    ///
    /// If they do not get there.
    pub(super) fn ship(&self, kafka: &Kafka, file: &Path, topic: &str, num: u64, dir: &Path) -> Result<Usage> {
        let dir = &self.folder(dir)?;
        let config = (self.kind.ship)(&Ship { file, brokers: kafka.bootstrap(), topic, dir });
        self.run(dir, &config, || Ok(kafka.end_offsets(topic)?.values().sum::<i64>() as u64 >= num))
    }

    /// Until all documents of the topic were counted.
    ///
    /// # Errors
    ///
    /// If they do not get there.
    pub(super) fn index(
        &self,
        kafka: &Kafka,
        topic: &str,
        server: &FakeElasticsearch,
        num: u64,
        dir: &Path,
    ) -> Result<Usage> {
        let dir = &self.folder(dir)?;
        let (brokers, group) = (kafka.bootstrap(), &out::new_group());
        let config = (self.kind.index)(&Index { brokers, topic, group, server: server.address(), dir });
        // What Filebeat asks before it sends.
        let about = json!({"version": {"number": "8.19.7"}, "tagline": "You Know, for Search"});
        server.answer("GET ", Some((200, about)));
        server.answer(
            "GET _license",
            Some((200, json!({"license": {"type": "basic", "mode": "basic", "status": "active"}}))),
        );
        server.only_count(Duration::ZERO);
        let usage = self.run(dir, &config, || Ok(server.counted().num >= num))?;
        let (first, last) = server.counted().times.context("the time it took")?;
        Ok(Usage { wall: last - first, ..usage })
    }

    /// Empty, so that nothing is known of the run before.
    fn folder(&self, dir: &Path) -> Result<PathBuf> {
        let dir = dir.join(self.kind.id);
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    fn run(&self, dir: &Path, config: &str, mut is_done: impl FnMut() -> Result<bool>) -> Result<Usage> {
        let path = dir.join(self.kind.config_file);
        fs::write(&path, config)?;
        let [path, folder] = [&path, dir].map(|path| path.to_string_lossy());
        let args = self.kind.args.iter().map(|arg| arg.replace("CONFIG", &path).replace("DIR", &folder));
        let mut command = Command::new(&self.program);
        command.args(args);
        let log = dir.join("log");
        let mut measured = Measured::start(command, &log)?;
        let what = format!("{} to bring everything", self.name());
        let tail = || measure::tail(&log);
        wait::until_true(&what, PATIENCE, || {
            measured.look();
            is_done()
        })
        .with_context(tail)?;
        let wall = measured.elapsed();
        Ok(Usage { wall, ..measured.stop().with_context(tail)? })
    }
}

fn rsyslog_ship(ship: &Ship<'_>) -> String {
    let Ship { file, brokers, topic, dir } = ship;
    let (file, dir) = (file.display(), dir.display());
    format!(
        r#"global(workDirectory="{dir}")
module(load="imfile")
module(load="omkafka")
template(name="line" type="list" option.jsonf="on") {{
    property(outname="@timestamp" name="timegenerated" dateFormat="rfc3339" format="jsonf")
    property(outname="host" name="hostname" format="jsonf")
    property(outname="path" name="$!metadata!filename" format="jsonf")
    property(outname="offset" name="$!metadata!fileoffset" format="jsonf")
    property(outname="message" name="msg" format="jsonf")
}}
input(type="imfile" File="{file}" Tag="app" addMetadata="on")
action(type="omkafka" broker=["{brokers}"] topic="{topic}" template="line"
    confParam=["acks=all", "enable.idempotence=true", "compression.codec=lz4"])
"#
    )
}

fn rsyslog_index(index: &Index<'_>) -> String {
    let Index { brokers, topic, group, server, dir } = index;
    let dir = dir.display();
    format!(
        r#"global(workDirectory="{dir}" maxMessageSize="64k")
module(load="imkafka")
module(load="omelasticsearch")
template(name="value" type="string" string="%msg%")
input(type="imkafka" broker=["{brokers}"] topic="{topic}" consumergroup="{group}" confParam=["auto.offset.reset=earliest"])
action(type="omelasticsearch" server="http://{server}" bulkmode="on" searchIndex="bench-logs" searchType="" template="value")
"#
    )
}

fn fluent_bit_ship(ship: &Ship<'_>) -> String {
    let Ship { file, brokers, topic, dir } = ship;
    let (file, dir) = (file.display(), dir.display());
    format!(
        "[INPUT]
    name tail
    path {file}
    read_from_head on
    db {dir}/tail.db
[OUTPUT]
    name kafka
    match *
    brokers {brokers}
    topics {topic}
    rdkafka.acks all
    rdkafka.enable.idempotence true
    rdkafka.compression.codec lz4
"
    )
}

fn fluent_bit_index(index: &Index<'_>) -> String {
    let Index { brokers, topic, group, server, .. } = index;
    let (host, port) = (server.ip(), server.port());
    format!(
        "[INPUT]
    name kafka
    brokers {brokers}
    topics {topic}
    group_id {group}
    format json
    rdkafka.auto.offset.reset earliest
[OUTPUT]
    name es
    match *
    host {host}
    port {port}
    index bench-logs
    suppress_type_name on
"
    )
}

fn vector_ship(ship: &Ship<'_>) -> String {
    let kafka = json!({
        "type": "kafka",
        "inputs": ["file"],
        "bootstrap_servers": ship.brokers,
        "topic": ship.topic,
        "compression": "lz4",
        "encoding": {"codec": "json"},
        "librdkafka_options": {"acks": "all", "enable.idempotence": "true"},
    });
    let file = json!({"type": "file", "include": [ship.file], "read_from": "beginning"});
    json!({"data_dir": ship.dir, "sources": {"file": file}, "sinks": {"kafka": kafka}}).to_string()
}

fn vector_index(index: &Index<'_>) -> String {
    let kafka = json!({
        "type": "kafka",
        "bootstrap_servers": index.brokers,
        "topics": [index.topic],
        "group_id": index.group,
        "auto_offset_reset": "earliest",
        "decoding": {"codec": "json"},
    });
    let elasticsearch = json!({
        "type": "elasticsearch",
        "inputs": ["kafka"],
        "endpoints": [format!("http://{}", index.server)],
        "api_version": "v8",
        "bulk": {"action": "create", "index": "bench-logs"},
        "healthcheck": {"enabled": false},
    });
    json!({"data_dir": index.dir, "sources": {"kafka": kafka}, "sinks": {"elasticsearch": elasticsearch}}).to_string()
}

/// The newest protocol that a client of Kafka 2 knows; brokers of Kafka 4 take none before it.
const FILEBEAT_KAFKA_VERSION: &str = "2.1.0";

fn filebeat_ship(ship: &Ship<'_>) -> String {
    json!({
        "filebeat.inputs": [{"type": "filestream", "id": "app", "paths": [ship.file]}],
        "output.kafka": {
            "hosts": [ship.brokers],
            "topic": ship.topic,
            "required_acks": -1,
            "compression": "lz4",
            "version": FILEBEAT_KAFKA_VERSION,
        },
    })
    .to_string()
}

fn filebeat_index(index: &Index<'_>) -> String {
    json!({
        "filebeat.inputs": [{
            "type": "kafka",
            "hosts": [index.brokers],
            "topics": [index.topic],
            "group_id": index.group,
            "initial_offset": "oldest",
            "version": FILEBEAT_KAFKA_VERSION,
        }],
        "output.elasticsearch": {"hosts": [format!("http://{}", index.server)], "index": "bench-logs"},
        "setup.template.enabled": false,
        "setup.ilm.enabled": false,
    })
    .to_string()
}
