//! What a process took, from its start to its end.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::process::{cpu_time, last_lines, status_kib};

/// What one run took.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    pub wall: Duration,
    /// Of user and system, all threads.
    pub cpu: Duration,
    /// The most memory it had resident.
    pub peak_rss_bytes: u64,
}

impl Usage {
    /// What it took more than a smaller run.
    pub fn beyond(&self, smaller: &Self) -> Self {
        Self {
            wall: self.wall.saturating_sub(smaller.wall),
            cpu: self.cpu.saturating_sub(smaller.cpu),
            peak_rss_bytes: self.peak_rss_bytes,
        }
    }
}

/// A program at one task, run after run.
pub struct Side<'a> {
    pub name: String,
    /// Records of one run.
    pub num: u64,
    pub runs: Vec<Usage>,
    run: Box<dyn FnMut() -> Result<Usage> + 'a>,
}

impl<'a> Side<'a> {
    pub fn new(name: impl Into<String>, num: u64, run: impl FnMut() -> Result<Usage> + 'a) -> Self {
        Self { name: name.into(), num, runs: Vec::new(), run: Box::new(run) }
    }

    /// One run; what it took is not added to `runs`.
    ///
    /// # Errors
    ///
    /// That of the run.
    pub fn run_once(&mut self) -> Result<Usage> {
        (self.run)().with_context(|| self.name.clone())
    }
}

/// Runs all in turns, so that whatever else the machine does falls on all. The first turn fills caches and compiles the servers: it is
/// not counted.
///
/// # Errors
///
/// The first of a run.
pub fn in_turns(num_runs: usize, sides: &mut [Side<'_>]) -> Result<()> {
    for turn in 0..=num_runs {
        for side in &mut *sides {
            let usage = side.run_once()?;
            if turn > 0 {
                side.runs.push(usage);
            }
        }
    }
    Ok(())
}

const SAMPLE: Duration = Duration::from_millis(5);

/// A process that is measured. Killed if it is dropped before it ended.
pub struct Measured {
    child: Child,
    started: Instant,
    peak_rss_bytes: u64,
    name: String,
}

impl Drop for Measured {
    fn drop(&mut self) {
        // It has ended if all went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Measured {
    /// Starts it; what it prints goes to `log`.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn start(mut command: Command, log: &Path) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let log = fs::File::create(log)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let started = Instant::now();
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { child, started, peak_rss_bytes: 0, name })
    }

    /// Looks at its memory; the peak is known as of the last look.
    pub fn look(&mut self) {
        let kib = status_kib(self.child.id(), "VmHWM:").unwrap_or(0);
        self.peak_rss_bytes = self.peak_rss_bytes.max(kib << 10);
    }

    /// Since its start.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Ends it by SIGTERM, and waits for its end.
    ///
    /// # Errors
    ///
    /// If it fails.
    pub fn stop(mut self) -> Result<Usage> {
        // The kernel keeps the peak.
        self.look();
        kill_process(self.process()?, Signal::TERM)?;
        self.finish()
    }

    fn process(&self) -> Result<Pid> {
        Pid::from_raw(self.child.id().try_into()?).context("a process id")
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// If it fails.
    pub fn finish(mut self) -> Result<Usage> {
        let pid = self.process()?;
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        while waitid(WaitId::Pid(pid), options)?.is_none() {
            self.look();
            thread::sleep(SAMPLE);
        }
        // It is not reaped yet, so the kernel still tells.
        let (wall, cpu) = (self.started.elapsed(), cpu_time(self.child.id()).context("its CPU time")?);
        let status = self.child.wait()?;
        ensure!(status.success(), "{} ended with {status}", self.name);
        Ok(Usage { wall, cpu, peak_rss_bytes: self.peak_rss_bytes })
    }
}

/// Runs a command to its end.
///
/// # Errors
///
/// If it fails.
pub fn run(command: Command, log: &Path) -> Result<Usage> {
    Measured::start(command, log)?.finish().with_context(|| tail(log))
}

/// The last lines of a log, for a message.
pub fn tail(log: &Path) -> String {
    last_lines(&fs::read_to_string(log).unwrap_or_default())
}

/// Whether a program is on the path.
pub fn is_installed(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).stdout(Stdio::null()).status();
    found.is_ok_and(|status| status.success())
}
