//! Runs the tailer: threads, clocks, waiting, the order of shutdown, and one pipeline after another as the settings change.

pub(crate) mod clients;
mod finish;
mod show;
mod start;
mod turns;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::{Context, Result};
use millrace_common::exit::Exit;
use millrace_common::kafka::Log;
use millrace_common::reload::{self, Loaded, Reloads, Rules};
use millrace_common::shutdown::Signals;
use millrace_common::telemetry::admin::{AdminOptions, Endpoint};
use millrace_common::telemetry::metrics::MetricsHandle;
use rustix::event::EventfdFlags;
use rustix::process::{Resource, Rlimit};

use crate::checkpoint::store::{DataDir, DiskStore};
use crate::config::{Config, FIXED};
use crate::produce::kafka::KafkaBroker;
use crate::read::Disk;
use crate::status::Board;
use crate::tail::Tailer;
use crate::tail::legacy::Legacy;
pub(crate) use clients::told;
pub(crate) use start::host_name;

/// When to stop by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    Signal,
    /// Every file was read to its end and acknowledged.
    Eof,
}

/// Wakes the tailing thread out of its sleep.
#[derive(Clone)]
struct Waker(Arc<OwnedFd>);

impl Waker {
    fn new() -> std::io::Result<Self> {
        Ok(Self(Arc::new(rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?)))
    }

    fn wake(&self) {
        // It can only fail if the counter is full, and then the thread is awake.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    fn clear(&self) {
        // Nothing to clear is fine.
        let _ = rustix::io::read(&self.0, &mut [0u8; 8]);
    }
}

type Tail = Tailer<Disk, KafkaBroker, DiskStore>;

/// What goes on while one pipeline makes way for the next.
struct Process {
    signals: Signals,
    waker: Waker,
    board: Arc<Board>,
    log: Arc<Log>,
    /// Files that may be open at the same time.
    open_files: usize,
    until: Until,
}

/// What a pipeline leaves to the next one.
struct Left {
    dir: DataDir,
    /// `None` if it had not begun.
    legacy: Option<Legacy<File>>,
}

enum Ended {
    Exit(Exit),
    Restart(Box<Left>),
}

/// How the configuration is loaded anew: `load` does it as at the start.
pub fn rules(
    file: Option<std::path::PathBuf>,
    load: impl Fn() -> Result<Config, String> + Send + 'static,
) -> Rules<Config> {
    let prove = |config: &Config| clients::prove(config).map_err(|error| format!("{error:#}"));
    Rules { program: "shipper", file, load: Box::new(load), prove: Box::new(prove), fixed: FIXED }
}

/// Runs until a signal, or until the files are read.
pub fn run(loaded: Loaded<Config>, rules: Rules<Config>, until: Until, metrics: &MetricsHandle) -> Result<Exit> {
    let open_files = allow_open_files();
    let dir = DataDir::open(&loaded.config.data_dir)?;
    let waker = Waker::new().context("cannot create an eventfd")?;
    let wake = {
        let waker = waker.clone();
        move || waker.wake()
    };
    let (looker, woken) = reload::waker();
    let signals = Signals::install(looker.after(wake.clone())).context("cannot install signal handlers")?;
    let board = Arc::new(Board::new(wake.clone()));
    let reloads = Reloads::start(rules, &loaded, &signals, woken, wake).context("cannot start a thread")?;
    let process = Process { signals, waker, board, log: Arc::new(Log::new()), open_files, until };
    let (mut config, mut left, mut endpoint) = (loaded.config, Left { dir, legacy: None }, Endpoint::default());
    loop {
        let options = AdminOptions { listen: config.listen.clone(), program: "shipper" };
        endpoint.listen(options, Arc::clone(&process.board) as Arc<_>, metrics, axum::Router::new())?;
        left = match process.run(config, left)? {
            Ended::Exit(exit) => return Ok(exit),
            Ended::Restart(left) => *left,
        };
        config = reloads.take().context("there is no configuration to go on with")?;
    }
}

/// Raises the soft limit on descriptors to the hard one, and returns how many of them files may take: the rest is for
/// brokers, scrapers and the state.
fn allow_open_files() -> usize {
    const RESERVE: u64 = 512;
    const ENOUGH: u64 = 4096;
    let allowed = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: allowed.maximum, maximum: allowed.maximum };
    let current = match rustix::process::setrlimit(Resource::Nofile, raised) {
        Ok(()) => allowed.maximum,
        Err(_) => allowed.current,
    };
    current.map_or(ENOUGH, |limit| (limit - RESERVE.min(limit / 2)).min(ENOUGH)) as usize
}
