//! Kafka and Elasticsearch as Java processes that outlive the program that starts them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal};

use crate::elasticsearch::{self, Elasticsearch, ElasticsearchClient};
use crate::kafka::{self, Kafka, KafkaClient};
use crate::process::Lifetime;
use crate::{servers, wait};

const STOP_LIMIT: Duration = Duration::from_secs(45);

/// Where the stack is and on which ports.
#[derive(Clone, Debug)]
pub struct Stack {
    /// Data, logs and process ids.
    pub dir: PathBuf,
    pub kafka_port: u16,
    pub elasticsearch_port: u16,
}

impl Stack {
    /// Starts what does not run yet, both at once, and waits until both answer.
    ///
    /// # Errors
    ///
    /// If a port is taken by something else, or a server does not start.
    pub fn up(&self) -> Result<()> {
        fs::create_dir_all(&self.dir).with_context(|| format!("cannot make {}", self.dir.display()))?;
        std::thread::scope(|scope| {
            let kafka = scope.spawn(|| self.up_kafka());
            self.up_elasticsearch()?;
            kafka.join().map_err(|_| anyhow::anyhow!("starting Kafka panicked"))?
        })
    }

    /// A client of the stack's Kafka.
    pub fn kafka(&self) -> KafkaClient {
        KafkaClient::new(&format!("127.0.0.1:{}", self.kafka_port))
    }

    /// A client of the stack's Elasticsearch.
    pub fn elasticsearch(&self) -> ElasticsearchClient {
        ElasticsearchClient::new(&format!("http://127.0.0.1:{}", self.elasticsearch_port))
    }

    fn up_kafka(&self) -> Result<()> {
        if PidFile::read(&self.pid_file("kafka")).is_some() {
            let what = format!("the running Kafka to answer on port {}", self.kafka_port);
            return wait::until_true(&what, STOP_LIMIT, || self.kafka().is_ready());
        }
        ensure_free(self.kafka_port, "KAFKA_PORT")?;
        let kafka = Kafka::start(&kafka::Options {
            dir: Some(self.dir.join("kafka")),
            port: Some(self.kafka_port),
            lifetime: Lifetime::Detached,
            is_brief: false,
            ..kafka::Options::default()
        })?;
        PidFile::of(kafka.pid().context("Kafka has ended")?)?.write(&self.pid_file("kafka"))
    }

    fn up_elasticsearch(&self) -> Result<()> {
        if PidFile::read(&self.pid_file("elasticsearch")).is_some() {
            return self.elasticsearch().wait_ready(STOP_LIMIT);
        }
        ensure_free(self.elasticsearch_port, "ELASTICSEARCH_PORT")?;
        let node = Elasticsearch::start(&elasticsearch::Options {
            dir: Some(servers::dir_for_unprivileged(&self.dir.join("elasticsearch"))?),
            port: Some(self.elasticsearch_port),
            lifetime: Lifetime::Detached,
            is_brief: false,
            ..elasticsearch::Options::default()
        })?;
        PidFile::of(node.pid().context("Elasticsearch has ended")?)?.write(&self.pid_file("elasticsearch"))
    }

    fn pid_file(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.pid"))
    }
}

fn ensure_free(port: u16, variable: &str) -> Result<()> {
    if std::net::TcpListener::bind(("127.0.0.1", port)).is_err() {
        bail!("port {port} is taken by another program: stop that, or set {variable} to a free port");
    }
    Ok(())
}

/// Stops every process that has its id on file in a folder, the servers last, and returns their names.
///
/// # Errors
///
/// If a process does not end.
pub fn stop_all(dir: &Path) -> Result<Vec<String>> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "pid"));
    // Programs first: they want to hand over what they hold.
    files.sort_by_key(|file| (file.ends_with("elasticsearch.pid") || file.ends_with("kafka.pid"), file.clone()));
    let mut stopped = Vec::new();
    for file in files {
        if let Some(pid) = PidFile::read(&file) {
            let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            pid.stop().with_context(|| format!("cannot stop {name}"))?;
            stopped.push(name);
        }
        fs::remove_file(&file)?;
    }
    Ok(stopped)
}

/// A process that can be told from a later one with the same number, by its start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PidFile {
    pid: Pid,
    /// Clock ticks since boot.
    started: u64,
}

impl PidFile {
    /// Describes a running process.
    ///
    /// # Errors
    ///
    /// If there is none with this number.
    pub fn of(pid: u32) -> Result<Self> {
        let pid = Pid::from_raw(pid.cast_signed()).context("0 is no process")?;
        let started = started(pid).with_context(|| format!("there is no process {pid}"))?;
        Ok(Self { pid, started })
    }

    /// Writes it down.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn write(self, file: &Path) -> Result<()> {
        fs::write(file, format!("{} {}\n", self.pid, self.started))
            .with_context(|| format!("cannot write {}", file.display()))
    }

    /// Returns the process of a file if it still runs.
    pub fn read(file: &Path) -> Option<Self> {
        let text = fs::read_to_string(file).ok()?;
        let (pid, written) = text.trim_end().split_once(' ')?;
        let pid = Pid::from_raw(pid.parse().ok()?)?;
        let written: u64 = written.parse().ok()?;
        (started(pid) == Some(written)).then_some(Self { pid, started: written })
    }

    /// Ends it with SIGTERM, or after a while its whole process group with SIGKILL.
    ///
    /// # Errors
    ///
    /// If it may not be signalled.
    pub fn stop(self) -> Result<()> {
        rustix::process::kill_process(self.pid, Signal::TERM)?;
        let gone = wait::until_true("its end", STOP_LIMIT, || Ok(started(self.pid) != Some(self.started)));
        if gone.is_err() {
            rustix::process::kill_process_group(self.pid, Signal::KILL)?;
        }
        Ok(())
    }
}

/// The start time of a process that has not ended, in clock ticks since boot.
fn started(pid: Pid) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    // A zombie has ended; only its parent has not looked yet.
    (*fields.first()? != "Z").then_some(())?;
    fields.get(19)?.parse().ok()
}

/// A name that no other call gives, for a folder.
pub(crate) fn unique() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}-{}", std::process::id(), now.as_nanos())
}
