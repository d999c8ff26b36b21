//! Runs the tailer: threads, clocks, waiting, and the order of shutdown.

mod clients;
mod show;

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use millrace_common::exit::Exit;
use millrace_common::kafka::Log;
use millrace_common::shutdown::Signals;
use millrace_common::telemetry::admin::{self, AdminOptions};
use millrace_common::telemetry::metrics::MetricsHandle;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::process::{Resource, Rlimit};
use tracing::{info, warn};

use crate::checkpoint::store::{DataDir, DiskStore, StoreError};
use crate::clock::Clock;
use crate::config::{Config, Drain, Ledger, Partial};
use crate::discover::scan::{self, Patterns};
use crate::discover::watch::Watcher;
use crate::ledger;
use crate::ledger::desk::{Desk, Whole};
use crate::produce::kafka::KafkaBroker;
use crate::read::Disk;
use crate::status::Board;
use crate::tail::stats::Gauges;
use crate::tail::{Now, Tailer};

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

/// Runs until a signal, or until the files are read.
pub fn run(config: Config, until: Until, metrics: MetricsHandle) -> Result<Exit> {
    let allowed = allow_open_files();
    let open_files = config.open_files.unwrap_or(allowed);
    let dir = DataDir::open(&config.data_dir)?;
    let mut loaded = dir.load()?;
    let host_name = host_name(&config);
    let host_id = host_id(&config, &dir, &host_name)?;
    let waker = Waker::new().context("cannot create an eventfd")?;
    let wake = {
        let waker = waker.clone();
        move || waker.wake()
    };
    let signals = Signals::install(wake.clone()).context("cannot install signal handlers")?;
    let desk = Arc::new(Desk::new(config.ledger == Ledger::On));
    let board = Arc::new(Board::new(Arc::clone(&desk), wake.clone()));
    let options = AdminOptions { listen: config.listen.clone(), program: "shipper" };
    let _admin = admin::spawn(options, Arc::clone(&board) as Arc<_>, metrics, axum::Router::new())?;
    let log = Arc::new(Log::new());
    let mut ledger = clients::ledger_settings(&config, &log, &host_id, &host_name)?;
    if loaded.is_missing && config.ledger == Ledger::On {
        let recovered = clients::recover(&config, &host_id, &signals, &board)?;
        (loaded.rows, ledger.finished) = (recovered.rows, recovered.finished);
    }
    let (broker, max_inflight_records) = clients::start_producer(&config, &log)?;
    ledger::service::start(ledger, Arc::clone(&desk), wake.clone()).context("cannot start the ledger's threads")?;
    let store = DiskStore::start(dir, wake).context("cannot start the checkpoint thread")?;
    info!(
        host.id = host_id,
        host.name = host_name,
        topics = config.topics.join(","),
        sources = loaded.rows.len(),
        "shipper started"
    );
    let settings = config.tail_settings(host_id, host_name, open_files, max_inflight_records);
    let announcer = Box::new(Arc::clone(&desk));
    let mut tailer = Tailer::new(settings, Disk, broker, store, announcer, loaded.rows);
    tailer.note_corrupt(loaded.num_corrupt);
    let watcher = Watcher::new().context("cannot create an inotify instance; raise fs.inotify.max_user_instances")?;
    Loop {
        tailer,
        watcher,
        waker,
        signals,
        board,
        desk,
        clock: Clock::start(),
        config,
        until,
        links: HashMap::new(),
        scan_took: Duration::ZERO,
        warned_of_files: 0,
        acked_events: 0,
        ack_pause: Loop::MIN_ACK_PAUSE,
    }
    .run()
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

/// `host.name` of the records: the setting, or what the system calls itself.
pub(crate) fn host_name(config: &Config) -> String {
    let of_system = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    config.host_name.clone().unwrap_or_else(of_system)
}

fn host_id(config: &Config, dir: &DataDir, host_name: &str) -> Result<String, StoreError> {
    if let Some(id) = &config.host_id {
        return Ok(id.clone());
    }
    dir.host_id(|| {
        // Without a machine id (some containers), the host name alone tells hosts apart.
        let machine_id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
        format!("{}-{host_name}", machine_id.trim()).trim_start_matches('-').to_owned()
    })
}

struct Loop {
    tailer: Tail,
    watcher: Watcher,
    waker: Waker,
    signals: Signals,
    board: Arc<Board>,
    desk: Arc<Desk>,
    clock: Clock,
    config: Config,
    until: Until,
    /// See [`scan::Scan::links`].
    links: HashMap<PathBuf, PathBuf>,
    scan_took: Duration,
    warned_of_files: u64,
    acked_events: u64,
    ack_pause: Duration,
}

impl Loop {
    const LOOK_EVERY: Duration = Duration::from_secs(1);
    const SCAN_EVERY_UNWATCHED: Duration = Duration::from_secs(1);
    /// A burst of renames asks for one scan, not for many.
    const MIN_SCAN_PAUSE: Duration = Duration::from_millis(20);
    /// Of the time, a tenth may go into scans that hints ask for.
    const SCAN_SHARE: u32 = 10;
    const ACK_WAIT: Duration = Duration::from_millis(5);
    const MIN_ACK_PAUSE: Duration = Duration::from_millis(1);
    const MAX_ACK_PAUSE: Duration = Duration::from_millis(50);
    /// Less is in the noise of what the libraries take.
    const FEW_FILES: u64 = 500;
    const MIN_GOODBYE: Duration = Duration::from_secs(1);

    fn run(mut self) -> Result<Exit> {
        if self.until == Until::Eof {
            self.tailer.flush_at_end();
        }
        let mut scanned_at: Option<Duration> = None;
        let mut looked_at = Duration::ZERO;
        let mut wants_scan = true;
        loop {
            let now = self.clock.now();
            if self.signals.is_draining() {
                break;
            }
            if self.signals.take_reload() {
                warn!("a reload needs a restart for now: the settings stay as they are");
            }
            let hints = self.watcher.take();
            wants_scan |= hints.scan;
            for path in hints.written {
                self.tailer.written(self.links.get(&path).unwrap_or(&path), now);
            }
            let every = if self.watcher.is_complete() { self.config.rescan } else { Self::SCAN_EVERY_UNWATCHED };
            let age = scanned_at.map_or(Duration::MAX, |at| now.mono - at);
            if age >= every || (wants_scan && age >= self.scan_pause()) {
                self.scan(now);
                let ended = self.clock.now().mono;
                self.scan_took = ended - now.mono;
                scanned_at = Some(ended);
                wants_scan = false;
            }
            if now.mono >= looked_at + Self::LOOK_EVERY || looked_at == Duration::ZERO {
                self.tailer.look_around(now);
                self.publish(now);
                looked_at = now.mono.max(Duration::from_nanos(1));
            }
            let has_more = self.turn(now, Duration::ZERO);
            wants_scan |= self.tailer.take_wants_scan();
            if self.until == Until::Eof && self.tailer.is_drained() {
                break;
            }
            if has_more {
                continue;
            }
            let next_scan = if wants_scan { self.scan_pause() } else { every };
            let due = (looked_at + Self::LOOK_EVERY).min(scanned_at.unwrap_or_default() + next_scan);
            self.rest(due);
        }
        self.finish()
    }

    fn scan_pause(&self) -> Duration {
        Self::MIN_SCAN_PAUSE.max(self.scan_took * Self::SCAN_SHARE)
    }

    fn publish(&mut self, now: Now) {
        let unwatched_folders = self.watcher.num_unwatched() as u64;
        let gauges = Gauges { unwatched_folders, ..self.gauges(now) };
        self.warn_of_memory(gauges.sources);
        self.desk.publish(Whole {
            num_sources: gauges.sources,
            unread_bytes: gauges.unread_bytes,
            blocked: gauges.blocked.clone(),
            turn: 0,
        });
        self.board.publish(self.tailer.stats(), gauges);
    }

    /// Says once, and again when there are twice as many, that the files alone need more than is allowed.
    fn warn_of_memory(&mut self, num_files: u64) {
        let needed = Config::memory_for(num_files);
        if needed > self.config.memory && num_files >= self.warned_of_files * 2 && num_files > Self::FEW_FILES {
            self.warned_of_files = num_files;
            warn!(
                files = num_files,
                "so many files need more memory than limits.memory allows: raise it to {} MiB",
                needed.div_ceil(1 << 20)
            );
        }
    }

    fn gauges(&self, now: Now) -> Gauges {
        let mut gauges = self.tailer.gauges(now);
        gauges.blocked.extend(self.desk.fault().is_some().then_some("ledger"));
        gauges
    }

    fn turn(&mut self, now: Now, wait: Duration) -> bool {
        self.board.turned();
        if self.board.wants_status() {
            let status = self.status(now);
            self.publish(now);
            self.board.answer(status);
        }
        self.tailer.turn(now, wait)
    }

    /// Sleeps until something may have changed, at most until `due`.
    fn rest(&mut self, due: Duration) {
        let mut pause = due.saturating_sub(self.clock.now().mono);
        pause = pause.min(self.ack_pause().unwrap_or(pause));
        let watch = self.watcher.as_fd();
        let mut fds =
            [PollFd::new(&watch, PollFlags::IN), PollFd::from_borrowed_fd(self.waker.0.as_fd(), PollFlags::IN)];
        let timeout = Timespec { tv_sec: pause.as_secs() as i64, tv_nsec: i64::from(pause.subsec_nanos()) };
        // An interrupted or failed poll is a short sleep at worst.
        let _ = rustix::event::poll(&mut fds, Some(&timeout));
        self.waker.clear();
    }

    /// How soon to ask for acknowledgements, if some are due: the client does not tell of them by itself. The longer
    /// none come, the more rarely, so that a broker that is away costs nothing.
    fn ack_pause(&mut self) -> Option<Duration> {
        let acked = self.tailer.stats().acked_events;
        let is_due = self.tailer.has_outstanding() || !self.tailer.is_idle();
        if !is_due || acked != self.acked_events {
            (self.acked_events, self.ack_pause) = (acked, Self::MIN_ACK_PAUSE);
        } else {
            self.ack_pause = (self.ack_pause * 2).min(Self::MAX_ACK_PAUSE);
        }
        is_due.then_some(self.ack_pause)
    }

    fn scan(&mut self, now: Now) {
        let patterns: &[Patterns] = &self.config.patterns;
        let scan = scan::scan(patterns);
        self.watcher.set_folders(scan.folders);
        self.links = scan.links;
        self.tailer.apply_scan(scan.found, &scan.faults, now);
        self.board.scanned();
    }

    /// Delivers what there is, saves, and says what is left.
    fn finish(mut self) -> Result<Exit> {
        self.board.draining();
        let begun = self.clock.now().mono;
        let deadline = begun + self.config.deadline;
        // The save of the last positions needs a moment of its own.
        let reading_ends = begun + self.config.deadline.mul_f64(0.9);
        if self.config.drain == Drain::Eof && self.until == Until::Signal {
            self.scan(self.clock.now());
            self.tailer.look_around(self.clock.now());
            self.tailer.await_events(self.clock.now());
        }
        if self.config.partial == Partial::Send {
            self.tailer.flush_at_end();
            self.tailer.look_around(self.clock.now());
        }
        let is_reading = self.config.drain == Drain::Eof || self.until == Until::Eof;
        if !is_reading {
            self.tailer.stop_reading();
        }
        let mut looked_at = begun;
        while !self.tailer.is_drained() && self.clock.now().mono < reading_ends {
            let now = self.clock.now();
            if now.mono >= looked_at + Duration::from_millis(200) {
                if is_reading && self.tailer.take_wants_scan() {
                    self.scan(now);
                }
                self.tailer.look_around(now);
                looked_at = now.mono;
            }
            if !self.turn(now, Duration::ZERO) {
                self.tailer.turn(now, Self::ACK_WAIT);
            }
        }
        let is_clean = self.tailer.is_drained();
        self.tailer.stop_reading();
        let mut version = None;
        while self.clock.now().mono < deadline {
            let now = self.clock.now();
            match version {
                None if self.tailer.can_save() => version = Some(self.tailer.save_for_end(now)),
                Some(version) if self.tailer.is_saved(version) => break,
                _ => {}
            }
            self.tailer.turn(now, Self::ACK_WAIT);
        }
        let is_saved = version.is_some_and(|version| self.tailer.is_saved(version));
        self.tailer.tell_last(self.clock.now());
        self.publish(self.clock.now());
        let rest = deadline.saturating_sub(self.clock.now().mono);
        if !self.desk.stop(rest.max(Self::MIN_GOODBYE)) {
            warn!("the ledger did not take the last word; others will take the stop for an outage");
        }
        let now = self.clock.now();
        let (gauges, stats) = (self.tailer.gauges(now), self.tailer.stats());
        let took = now.mono - begun;
        if gauges.unreadable_files > 0 {
            warn!(num = gauges.unreadable_files, "files that match could not be read");
        }
        if is_clean && is_saved {
            info!(events = stats.read_events, acked = stats.acked_events, ?took, "all delivered, stopped");
            return Ok(Exit::Clean);
        }
        warn!(
            unread_bytes = gauges.unread_bytes,
            unacknowledged_events = gauges.pending_events,
            saved = is_saved,
            ?took,
            "stopped at the deadline; the next start goes on from the first unacknowledged byte"
        );
        Ok(Exit::Unacknowledged)
    }
}
