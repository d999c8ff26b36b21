//! Starting, stopping, killing and restarting a broker.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::KafkaClient;
use crate::process::{Launch, Lifetime, Process};
use crate::proxy::Proxy;
use crate::{ports, scratch, servers, wait};

const START_LIMIT: Duration = Duration::from_secs(90);
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// How to run a broker.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where its settings, data and log go; a new temporary folder if `None`.
    pub dir: Option<PathBuf>,
    /// The port for clients; a free one if `None`.
    pub port: Option<u16>,
    /// Its Java heap, in MiB.
    pub heap_mib: u32,
    /// Broker settings on top of the harness's own, such as
    /// `("log.retention.check.interval.ms", "500")`.
    pub settings: Vec<(String, String)>,
    pub lifetime: Lifetime,
}

impl Default for Options {
    fn default() -> Self {
        Self { dir: None, port: None, heap_mib: 384, settings: Vec::new(), lifetime: Lifetime::WithParent }
    }
}

/// A broker of our own: one process that is also its controller. A [`KafkaClient`] by `Deref`.
pub struct Kafka {
    client: KafkaClient,
    launch: Launch,
    /// `None` while stopped.
    process: Mutex<Option<Process>>,
}

impl Kafka {
    /// The broker that all tests of one test binary share, each with topics of its own.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn shared() -> Result<&'static Self> {
        static SHARED: OnceLock<Result<Kafka, String>> = OnceLock::new();
        SHARED
            .get_or_init(|| Self::start(&Options::default()).map_err(|error| format!("{error:#}")))
            .as_ref()
            .map_err(|error| anyhow::anyhow!("the shared Kafka did not start: {error}"))
    }

    /// Starts a broker and waits until it answers.
    ///
    /// # Errors
    ///
    /// If it does not start.
    pub fn start(options: &Options) -> Result<Self> {
        Self::start_advertised(options, None)
    }

    /// Starts a broker and a proxy before it. Whoever begins with the proxy's address stays
    /// behind it, for the broker gives that address to its clients; the harness itself goes
    /// straight to the broker.
    ///
    /// # Errors
    ///
    /// If one of them does not start.
    pub fn start_behind_proxy(options: &Options) -> Result<(Self, Proxy)> {
        let behind = SocketAddr::from(([127, 0, 0, 1], ports::free()?));
        let proxy = Proxy::start(behind)?;
        let kafka = Self::start_advertised(options, Some((behind, proxy.addr())))?;
        Ok((kafka, proxy))
    }

    fn start_advertised(options: &Options, proxied: Option<(SocketAddr, SocketAddr)>) -> Result<Self> {
        let home = servers::home("kafka")?;
        let java = servers::java_home(17)?.join("bin/java");
        let dir = match &options.dir {
            Some(dir) => dir.clone(),
            None => scratch::dir("kafka")?,
        };
        fs::create_dir_all(&dir)?;
        let port = options.port.map_or_else(ports::free, Ok)?;
        let class_path = format!("{}/libs/*", home.display());
        let properties = dir.join("server.properties");
        fs::write(&properties, settings(options, &dir, port, proxied)?)?;
        if !dir.join("data/meta.properties").exists() {
            format_storage(&java, &class_path, &properties)?;
        }
        let launch = Launch::program("kafka", &java, &dir.join("kafka.log"))
            .arg(format!("-Xms{0}m", options.heap_mib.min(128)))
            .arg(format!("-Xmx{}m", options.heap_mib))
            .args(["-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.showDateTime=true"])
            .args(["-cp", &class_path, "kafka.Kafka"])
            .arg(&properties)
            .dir(&dir)
            .lifetime(options.lifetime);
        let kafka = Self { client: KafkaClient::new(&format!("127.0.0.1:{port}")), launch, process: Mutex::new(None) };
        kafka.start_again()?;
        Ok(kafka)
    }

    /// Starts it again after [`Kafka::stop`] or [`Kafka::kill9`], on the same port and data.
    ///
    /// # Errors
    ///
    /// If it runs already or does not start.
    pub fn start_again(&self) -> Result<()> {
        let mut slot = self.slot();
        ensure!(slot.is_none(), "kafka runs already");
        let mut process = self.launch.start()?;
        let what = format!("Kafka on {}", self.client.bootstrap());
        let ready = wait::until_true(&what, START_LIMIT, || {
            process.ensure_running()?;
            self.client.is_ready()
        });
        if let Err(error) = ready {
            // A detached one would stay for ever. It may have ended by itself: that is the error.
            let _ = process.kill9();
            return Err(error.context(process.log_tail()));
        }
        *slot = Some(process);
        Ok(())
    }

    /// Stops it in order.
    ///
    /// # Errors
    ///
    /// If it does not run or does not end.
    pub fn stop(&self) -> Result<()> {
        self.take()?.terminate(STOP_LIMIT).map(|_| ())
    }

    /// Kills it with SIGKILL.
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub fn kill9(&self) -> Result<()> {
        self.take()?.kill9()
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.slot().as_ref().map(Process::pid)
    }

    /// Calls `look` with the process, for its memory or a signal.
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub fn with_process<T>(&self, look: impl FnOnce(&mut Process) -> T) -> Result<T> {
        self.slot().as_mut().map(look).context("kafka is stopped")
    }

    fn take(&self) -> Result<Process> {
        self.slot().take().context("kafka is stopped already")
    }

    fn slot(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deref for Kafka {
    type Target = KafkaClient;

    fn deref(&self) -> &KafkaClient {
        &self.client
    }
}

fn settings(options: &Options, dir: &Path, port: u16, proxied: Option<(SocketAddr, SocketAddr)>) -> Result<String> {
    let controller = ports::free()?;
    let mut listeners = format!("PLAIN://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}");
    let mut advertised = format!("PLAIN://127.0.0.1:{port}");
    if let Some((behind, front)) = proxied {
        write!(listeners, ",PROXIED://{behind}")?;
        write!(advertised, ",PROXIED://{front}")?;
    }
    let mut text = format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners={listeners}
advertised.listeners={advertised}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAIN
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAIN:PLAINTEXT,PROXIED:PLAINTEXT
log.dirs={}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.cleaner.dedupe.buffer.size=8388608
",
        dir.join("data").display()
    );
    for (key, value) in &options.settings {
        writeln!(text, "{key}={value}")?;
    }
    Ok(text)
}

fn format_storage(java: &Path, class_path: &str, properties: &Path) -> Result<()> {
    // 22 characters of base64, as every cluster id; no two of our clusters ever meet.
    let cluster_id = "bWlsbHJhY2UtdGVzdC1uby";
    let output = Command::new(java)
        .args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", class_path])
        .args(["kafka.tools.StorageTool", "format", "-t", cluster_id, "-c"])
        .arg(properties)
        .output()
        .context("cannot run Kafka's storage tool")?;
    ensure!(
        output.status.success(),
        "Kafka's storage tool failed: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
