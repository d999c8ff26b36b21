//! The demo's servers, settings and programs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::apps;
use super::machine::MachineLog;
use crate::elasticsearch::{self, Elasticsearch};
use crate::kafka::{self, Kafka};
use crate::stack::Stack;
use crate::{ports, servers};

pub const TOPIC: &str = "logs";
pub const DEAD_LETTERS: &str = "logs.dlq";
pub const GROUP: &str = "indexer";
/// All indices of the demo.
pub const INDICES: &str = "applogs-*";

/// Folders and ports. All is below one folder, so that nothing of the demo is anywhere else.
pub struct Place {
    pub dir: PathBuf,
    pub stack: Stack,
    pub shipper_port: u16,
    pub indexer_ports: [u16; 2],
}

impl Place {
    /// Takes a folder for a new demo: what runs there is stopped, and all of it removed.
    ///
    /// # Errors
    ///
    /// If what runs there cannot be stopped, or the folder cannot be emptied.
    pub fn prepare(dir: &Path) -> Result<Self> {
        let place = Self {
            dir: dir.to_owned(),
            stack: Stack {
                dir: dir.to_owned(),
                kafka_port: usual_or_free(9092)?,
                elasticsearch_port: usual_or_free(9200)?,
            },
            shipper_port: usual_or_free(9640)?,
            indexer_ports: [usual_or_free(9641)?, usual_or_free(9642)?],
        };
        for sub in ["logs", "state"] {
            fs::create_dir_all(place.dir.join(sub))?;
        }
        Ok(place)
    }

    pub fn log_file(&self, name: &str) -> PathBuf {
        self.dir.join("logs").join(name)
    }

    /// A path for people: below the folder they are in, if it is.
    pub fn shown(&self, path: &Path) -> String {
        let here = std::env::current_dir().unwrap_or_default();
        path.strip_prefix(here).unwrap_or(path).display().to_string()
    }
}

/// The port that the documentation names, or another one if something listens there.
fn usual_or_free(port: u16) -> Result<u16> {
    match std::net::TcpListener::bind(("127.0.0.1", port)) {
        Ok(_) => Ok(port),
        Err(_) => ports::free(),
    }
}

/// Stops and removes what an earlier demo left.
///
/// # Errors
///
/// If a process does not stop or a file cannot be removed.
pub fn clear(dir: &Path) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    crate::stack::stop_all(dir)?;
    // Where root's servers keep their data elsewhere, this is a link to there.
    let data = dir.join("elasticsearch");
    if data.is_symlink()
        && let Ok(elsewhere) = fs::canonicalize(&data)
    {
        fs::remove_dir_all(elsewhere)?;
    }
    fs::remove_dir_all(dir).with_context(|| format!("cannot clear {}", dir.display()))
}

/// Starts both servers at once and makes the topics.
///
/// # Errors
///
/// If one of them does not start.
pub fn start_servers(place: &Place) -> Result<(Kafka, Elasticsearch)> {
    let kafka = || -> Result<Kafka> {
        let kafka = Kafka::start(&kafka::Options {
            dir: Some(place.dir.join("kafka")),
            port: Some(place.stack.kafka_port),
            ..kafka::Options::default()
        })?;
        kafka.create_topic(TOPIC, 4, &[])?;
        kafka.create_topic(DEAD_LETTERS, 1, &[])?;
        Ok(kafka)
    };
    std::thread::scope(|scope| {
        let kafka = scope.spawn(kafka);
        let node = Elasticsearch::start(&elasticsearch::Options {
            dir: Some(servers::dir_for_unprivileged(&place.dir.join("elasticsearch"))?),
            port: Some(place.stack.elasticsearch_port),
            ..elasticsearch::Options::default()
        })?;
        let kafka = kafka.join().map_err(|_| anyhow::anyhow!("starting Kafka panicked"))??;
        Ok((kafka, node))
    })
}

/// Writes the settings that a user would write.
///
/// # Errors
///
/// If a file cannot be written.
pub fn write_settings(place: &Place, logs: &[MachineLog]) -> Result<()> {
    let apps = ["web.log", "worker.log"].map(|name| apps::pattern(&place.log_file(name)).display().to_string());
    let machine: Vec<String> = logs.iter().map(|log| format!("      - {}\n", log.path.display())).collect();
    let machine = if machine.is_empty() {
        String::new()
    } else {
        let paths = machine.concat();
        format!("  - id: machine\n    paths:\n{paths}    fields: {{ service.name: machine }}\n")
    };
    let shipper = format!(
        "inputs:
  - id: web
    paths: [\"{web}\"]
    format: json
    fields: {{ service.name: web }}
  - id: worker
    paths: [\"{worker}\"]
    fields: {{ service.name: worker }}
{machine}kafka:
  brokers: [\"127.0.0.1:{kafka}\"]
  topic: {TOPIC}
data_dir: {state}
admin: {{ listen: \"127.0.0.1:{admin}\" }}
",
        web = apps[0],
        worker = apps[1],
        kafka = place.stack.kafka_port,
        state = place.dir.join("state").display(),
        admin = place.shipper_port,
    );
    fs::write(place.dir.join("shipper.yaml"), shipper)?;
    let indexer = format!(
        "kafka:
  brokers: [\"127.0.0.1:{kafka}\"]
  topics: [{TOPIC}]
  group: {GROUP}
elasticsearch: {{ hosts: [\"http://127.0.0.1:{elasticsearch}\"] }}
templates: {{ dir: {templates}, apply: true }}
rules:
  - topics: [{TOPIC}]
    index: \"applogs-{{service.name}}-{{@timestamp:%Y.%m.%d}}\"
    unmapped: fold
    fold_into: attrs
dead_letter: {{ topic: {DEAD_LETTERS} }}
admin: {{ listen: \"127.0.0.1:${{ADMIN_PORT}}\" }}
",
        kafka = place.stack.kafka_port,
        elasticsearch = place.stack.elasticsearch_port,
        templates = servers::checkout().join("templates").display(),
    );
    fs::write(place.dir.join("indexer.yaml"), indexer)?;
    Ok(())
}
