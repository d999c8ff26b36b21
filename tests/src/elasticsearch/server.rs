//! Starting, stopping, killing and restarting a node.

use std::fmt::Write as _;
use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::ElasticsearchClient;
use crate::http::Access;
use crate::process::{Launch, Lifetime, Process};
use crate::{lock, ports, scratch, servers, wait};

const START_LIMIT: Duration = Duration::from_secs(300);
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// How to run a node.
#[derive(Clone)]
pub struct Options {
    /// As `scripts/servers` takes it: `elasticsearch`, `elasticsearch:9.2.0`, `opensearch:2.19.0`.
    pub server: String,
    /// Where its settings, data and logs go; a new temporary folder if `None`. When we are root,
    /// user 65534 must be able to reach it.
    pub dir: Option<PathBuf>,
    /// The port for clients; a free one if `None`.
    pub port: Option<u16>,
    /// Its Java heap, in MiB.
    pub heap_mib: u32,
    /// Settings on top of the harness's own, as in `elasticsearch.yml`.
    pub settings: Vec<(String, String)>,
    /// How the harness speaks to it, if TLS and a login are set up by `settings`.
    pub access: Option<Access>,
    pub lifetime: Lifetime,
    /// See [`crate::kafka::Options::is_brief`].
    pub is_brief: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            server: "elasticsearch".to_owned(),
            dir: None,
            port: None,
            heap_mib: 512,
            settings: Vec::new(),
            access: None,
            lifetime: Lifetime::WithParent,
            is_brief: true,
        }
    }
}

/// A node of our own, a cluster by itself, without security. An [`ElasticsearchClient`] by `Deref`.
pub struct Elasticsearch {
    client: ElasticsearchClient,
    launch: Launch,
    /// `None` while stopped.
    process: Mutex<Option<Process>>,
}

impl Elasticsearch {
    /// The node that all tests of one test binary share, each with index names of its own.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn shared() -> Result<&'static Self> {
        static SHARED: OnceLock<Result<Elasticsearch, String>> = OnceLock::new();
        SHARED
            .get_or_init(|| Self::start(&Options::default()).map_err(|error| format!("{error:#}")))
            .as_ref()
            .map_err(|error| anyhow::anyhow!("the shared Elasticsearch did not start: {error}"))
    }

    /// Starts a node and waits until it answers.
    ///
    /// # Errors
    ///
    /// If it does not start.
    pub fn start(options: &Options) -> Result<Self> {
        let home = servers::home(&options.server)?;
        let java = servers::java_home(java_needed(&options.server))?;
        let dir = match &options.dir {
            Some(dir) => dir.clone(),
            None => scratch::dir("elasticsearch")?,
        };
        let port = options.port.map_or_else(ports::free, Ok)?;
        let product = options.server.split(':').next().unwrap_or_default();
        write_config(&home, &dir, product, &settings(options, &dir, port)?)?;
        servers::hand_over(&dir)?;

        let heap = options.heap_mib;
        let compiler = if options.is_brief { " -XX:TieredStopAtLevel=1" } else { "" };
        let prefix = if product == "opensearch" { "OPENSEARCH" } else { "ES" };
        let config_dir = format!("{prefix}_PATH_CONF");
        let launch = Launch::program(product, home.join("bin").join(product), &dir.join("out.log"))
            .env("HOME", &dir)
            .env(format!("{prefix}_JAVA_HOME"), &java)
            .env(format!("{prefix}_TMPDIR"), dir.join("tmp"))
            .env(config_dir, dir.join("config"))
            .env(format!("{prefix}_JAVA_OPTS"), format!("-Xms{heap}m -Xmx{heap}m{compiler}"))
            // The launcher lives for a second: the first compiler will do.
            .env("CLI_JAVA_OPTS", "-XX:TieredStopAtLevel=1")
            .dir(&dir)
            .user(servers::are_root().then_some(servers::UNPRIVILEGED_USER))
            .lifetime(options.lifetime);
        let node = Self {
            client: match &options.access {
                None => ElasticsearchClient::new(&format!("http://127.0.0.1:{port}")),
                Some(access) => ElasticsearchClient::with_access(&format!("https://127.0.0.1:{port}"), access.clone()),
            },
            launch,
            process: Mutex::new(None),
        };
        node.start_again()?;
        Ok(node)
    }

    /// Starts it again after [`Elasticsearch::stop`] or [`Elasticsearch::kill9`], on the same port
    /// and data, and waits until it answers.
    ///
    /// # Errors
    ///
    /// If it runs already or does not start.
    pub fn start_again(&self) -> Result<()> {
        self.begin_start()?;
        self.finish_start()
    }

    /// Starts it without waiting.
    ///
    /// # Errors
    ///
    /// If it runs already.
    pub fn begin_start(&self) -> Result<()> {
        let mut slot = self.slot();
        ensure!(slot.is_none(), "elasticsearch runs already");
        *slot = Some(self.launch.start()?);
        Ok(())
    }

    /// Waits until it answers.
    ///
    /// # Errors
    ///
    /// If it ends, or does not answer in time.
    pub fn finish_start(&self) -> Result<()> {
        let what = format!("Elasticsearch on {}", self.client.url());
        let waited = wait::until_true(&what, START_LIMIT, || {
            self.with_process(Process::ensure_running)??;
            Ok(self.client.is_ready())
        });
        if let Err(error) = waited {
            let mut process = self.take()?;
            // A detached one would stay for ever. It may have ended by itself: that is the error.
            let _ = process.kill9();
            return Err(error.context(process.log_tail()));
        }
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

    /// The process id of the node's launcher, which leads its process group, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.slot().as_ref().map(Process::pid)
    }

    /// Calls `look` with the process.
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub fn with_process<T>(&self, look: impl FnOnce(&mut Process) -> T) -> Result<T> {
        self.slot().as_mut().map(look).context("elasticsearch is stopped")
    }

    fn take(&self) -> Result<Process> {
        self.slot().take().context("elasticsearch is stopped already")
    }

    fn slot(&self) -> MutexGuard<'_, Option<Process>> {
        lock(&self.process)
    }
}

impl Deref for Elasticsearch {
    type Target = ElasticsearchClient;

    fn deref(&self) -> &ElasticsearchClient {
        &self.client
    }
}

fn java_needed(server: &str) -> u32 {
    let (product, version) = server.split_once(':').unwrap_or((server, "8"));
    let major = version.split('.').next().and_then(|major| major.parse().ok());
    match (product, major.unwrap_or(8)) {
        ("opensearch", 3..) | ("elasticsearch", 9..) => 21,
        _ => 17,
    }
}

fn settings(options: &Options, dir: &Path, port: u16) -> Result<String> {
    let mut text = format!(
        "cluster.name: millrace
node.name: node-1
path.data: {data}
path.logs: {logs}
network.host: 127.0.0.1
http.port: {port}
transport.port: {transport}
discovery.type: single-node
cluster.routing.allocation.disk.threshold_enabled: false
action.destructive_requires_name: false
",
        data = dir.join("data").display(),
        logs = dir.join("logs").display(),
        transport = ports::free()?,
    );
    if options.server.starts_with("elasticsearch") && options.access.is_none() {
        text.push_str("xpack.security.enabled: false\n");
    }
    for (key, value) in &options.settings {
        writeln!(text, "{key}: {value}")?;
    }
    Ok(text)
}

/// Copies the distribution's configuration folder, which the node wants to write to.
fn write_config(home: &Path, dir: &Path, product: &str, settings: &str) -> Result<()> {
    for sub in ["config", "data", "logs", "tmp"] {
        fs::create_dir_all(dir.join(sub))?;
    }
    let from = home.join("config");
    for entry in fs::read_dir(&from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let to = dir.join("config").join(entry.file_name());
        // What a test has put there, such as users, stays.
        if entry.file_type()?.is_file() && !to.exists() {
            fs::copy(entry.path(), to)?;
        }
    }
    // The log of its garbage collector would fill the folder, and nobody reads it.
    let options = fs::read_to_string(from.join("jvm.options"))?;
    let options: Vec<&str> =
        options.lines().filter(|line| !line.contains("-Xlog:gc") && !line.contains("HeapDump")).collect();
    fs::write(dir.join("config/jvm.options"), options.join("\n") + "\n")?;
    fs::write(dir.join(format!("config/{product}.yml")), settings)?;
    Ok(())
}
