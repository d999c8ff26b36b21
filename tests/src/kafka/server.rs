//! Starting, stopping, killing and restarting a broker.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::KafkaClient;
use super::tools::Java;
use crate::process::{Launch, Lifetime, Process};
use crate::proxy::Proxy;
use crate::{lock, ports, scratch, wait};

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
    /// Ways in besides the harness's own.
    pub entrances: Vec<Entrance>,
    /// Users of SCRAM, as its storage tool wants them: `SCRAM-SHA-256=[name=app,password=secret]`.
    pub scram: Vec<String>,
    /// Properties of its JVM, as `name=value`.
    pub properties: Vec<String>,
    pub lifetime: Lifetime,
    /// It lives for a test: the first compiler of the JVM will do, the second takes a core for minutes.
    pub is_brief: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            dir: None,
            port: None,
            heap_mib: 384,
            settings: Vec::new(),
            entrances: Vec::new(),
            scram: Vec::new(),
            properties: Vec::new(),
            lifetime: Lifetime::WithParent,
            is_brief: true,
        }
    }
}

/// A broker of our own: one process that is also its controller. A [`KafkaClient`] by `Deref`.
pub struct Kafka {
    client: KafkaClient,
    launch: Launch,
    java: Java,
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
        Self::start_member(options, &Member::alone()?)
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
        Ok((Self::start(&options.with_entrance(Entrance::plain(behind, proxy.addr())))?, proxy))
    }

    /// Starts a broker with an authorizer, and returns an address for its user [`USER`], who may do what
    /// [`Kafka::allow`] says; the harness itself may do everything.
    ///
    /// # Errors
    ///
    /// If it does not start.
    pub fn start_guarded(options: &Options) -> Result<(Self, SocketAddr)> {
        let addr = SocketAddr::from(([127, 0, 0, 1], ports::free()?));
        let login = "org.apache.kafka.common.security.plain.PlainLoginModule";
        let mut options = options.with_entrance(Entrance { protocol: "SASL_PLAINTEXT", ..Entrance::plain(addr, addr) });
        options.settings.extend(
            [
                ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
                ("super.users", "User:ANONYMOUS"),
                ("listener.name.entrance.sasl.enabled.mechanisms", "PLAIN"),
                (
                    "listener.name.entrance.plain.sasl.jaas.config",
                    &format!("{login} required user_{USER}=\"{PASSWORD}\";"),
                ),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        Ok((Self::start(&options)?, addr))
    }

    pub(super) fn start_member(options: &Options, member: &Member) -> Result<Self> {
        let java = Java::find()?;
        let dir = match &options.dir {
            Some(dir) => dir.clone(),
            None => scratch::dir("kafka")?,
        };
        fs::create_dir_all(&dir)?;
        let port = options.port.map_or_else(ports::free, Ok)?;
        let properties = dir.join("server.properties");
        fs::write(&properties, settings(options, &dir, port, member)?)?;
        if !dir.join("data/meta.properties").exists() {
            format_storage(&java, &properties, &options.scram)?;
        }
        let launch = Launch::program("kafka", &java.program, &dir.join("kafka.log"))
            .arg(format!("-Xms{0}m", options.heap_mib.min(128)))
            .arg(format!("-Xmx{}m", options.heap_mib))
            .args(options.is_brief.then_some("-XX:TieredStopAtLevel=1"))
            .args(["-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.showDateTime=true"])
            .args(options.properties.iter().map(|property| format!("-D{property}")))
            .args(["-cp", &java.class_path, "kafka.Kafka"])
            .arg(&properties)
            .dir(&dir)
            .lifetime(options.lifetime);
        let client = KafkaClient::new(&format!("127.0.0.1:{port}"));
        let kafka = Self { client, launch, java, process: Mutex::new(None) };
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

    /// Lets [`USER`] do something to a topic, such as `Write`.
    ///
    /// # Errors
    ///
    /// If the broker refuses.
    pub fn allow(&self, operation: &str, topic: &str) -> Result<()> {
        self.change_acls(&["--add"], operation, topic)
    }

    /// Takes back what [`Kafka::allow`] gave.
    ///
    /// # Errors
    ///
    /// If the broker refuses.
    pub fn forbid(&self, operation: &str, topic: &str) -> Result<()> {
        self.change_acls(&["--remove", "--force"], operation, topic)
    }

    fn change_acls(&self, how: &[&str], operation: &str, topic: &str) -> Result<()> {
        let principal = format!("User:{USER}");
        let what = ["--allow-principal", &principal, "--operation", operation, "--topic", topic];
        self.tool("org.apache.kafka.tools.AclCommand", &[how, &what].concat()).map(|_| ())
    }

    /// Runs one of Kafka's own tools on this broker and returns what it prints.
    ///
    /// # Errors
    ///
    /// If it fails.
    pub fn tool(&self, class: &str, args: &[&str]) -> Result<String> {
        self.java.run(class, &[&["--bootstrap-server", self.client.bootstrap()], args].concat())
    }

    fn take(&self) -> Result<Process> {
        self.slot().take().context("kafka is stopped already")
    }

    fn slot(&self) -> MutexGuard<'_, Option<Process>> {
        lock(&self.process)
    }
}

impl Deref for Kafka {
    type Target = KafkaClient;

    fn deref(&self) -> &KafkaClient {
        &self.client
    }
}

/// The user of a guarded entrance, and its password.
pub const USER: &str = "app";
pub const PASSWORD: &str = "app-secret";

/// A way in besides the harness's own: a listener of the broker.
#[derive(Clone, Debug)]
pub struct Entrance {
    /// In capitals; the settings of `TLS` begin with `listener.name.tls.`.
    pub name: String,
    /// `PLAINTEXT`, `SSL`, `SASL_SSL` …
    pub protocol: &'static str,
    pub listens: SocketAddr,
    /// What the broker tells its clients to connect to.
    pub advertised: SocketAddr,
}

impl Entrance {
    /// Without TLS or a login.
    pub fn plain(listens: SocketAddr, advertised: SocketAddr) -> Self {
        Self { name: "ENTRANCE".to_owned(), protocol: "PLAINTEXT", listens, advertised }
    }
}

impl Options {
    /// The same with one more way in.
    pub fn with_entrance(&self, entrance: Entrance) -> Self {
        let mut options = self.clone();
        options.entrances.push(entrance);
        options
    }
}

/// The place of a broker in its cluster.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub node_id: usize,
    /// The controllers' ports: broker `n` stands at `n - 1`.
    pub controllers: Vec<u16>,
}

impl Member {
    fn alone() -> Result<Self> {
        Ok(Self { node_id: 1, controllers: vec![ports::free()?] })
    }
}

fn settings(options: &Options, dir: &Path, port: u16, member: &Member) -> Result<String> {
    let Member { node_id, controllers } = member;
    let voters: Vec<_> = controllers.iter().zip(1..).map(|(port, id)| format!("{id}@127.0.0.1:{port}")).collect();
    let mut listeners = format!("PLAIN://127.0.0.1:{port},CONTROLLER://127.0.0.1:{}", controllers[node_id - 1]);
    let mut advertised = format!("PLAIN://127.0.0.1:{port}");
    let mut protocols = "CONTROLLER:PLAINTEXT,PLAIN:PLAINTEXT".to_owned();
    for Entrance { name, protocol, listens, advertised: front } in &options.entrances {
        write!(listeners, ",{name}://{listens}")?;
        write!(advertised, ",{name}://{front}")?;
        write!(protocols, ",{name}:{protocol}")?;
    }
    let mut text = format!(
        "process.roles=broker,controller
node.id={node_id}
controller.quorum.voters={}
listeners={listeners}
advertised.listeners={advertised}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAIN
listener.security.protocol.map={protocols}
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
metadata.max.idle.interval.ms=0
",
        voters.join(","),
        dir.join("data").display()
    );
    for (key, value) in &options.settings {
        writeln!(text, "{key}={value}")?;
    }
    Ok(text)
}

fn format_storage(java: &Java, properties: &Path, scram: &[String]) -> Result<()> {
    // 22 characters of base64, as every cluster id; no two of our clusters ever meet.
    let cluster_id = "bWlsbHJhY2UtdGVzdC1uby";
    let properties = properties.to_string_lossy();
    let mut args = vec!["format", "-t", cluster_id, "-c", &properties];
    scram.iter().for_each(|user| args.extend(["--add-scram", user]));
    java.run("kafka.tools.StorageTool", &args).map(|_| ())
}
