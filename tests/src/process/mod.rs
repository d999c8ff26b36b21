//! Child processes that never outlive the one that started them.

mod launch;
mod spawn;

use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};

pub use launch::{Launch, Lifetime, built};

use crate::wait;

/// How long the end of a process is waited for after SIGKILL.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// A running child. Dropping it kills it with -9, unless it is detached.
pub struct Process {
    name: String,
    log: PathBuf,
    lifetime: Lifetime,
    child: Child,
    ended: Option<ExitStatus>,
}

impl Process {
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns everything it has printed, over all its starts.
    pub fn output(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.poll(), Ok(None))
    }

    fn poll(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        Ok(self.ended)
    }

    /// Sends `signal` to the process itself.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        ensure!(self.is_running(), "{} is not running", self.name);
        let pid = Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Kills it and all it has started with SIGKILL, and waits for its end, unless that takes more than [`KILL_LIMIT`].
    ///
    /// # Errors
    ///
    /// If it had ended by itself before.
    pub fn kill9(&mut self) -> Result<()> {
        if let Some(status) = self.poll()? {
            bail!("{} ended by itself ({status}):\n{}", self.name, self.log_tail());
        }
        self.kill_group();
        Ok(())
    }

    fn kill_group(&mut self) {
        let pid = Pid::from_child(&self.child);
        // Fails only if the whole group is gone, which is what is wanted.
        let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        if has_ended_within(pid, KILL_LIMIT) {
            self.ended = self.child.wait().ok();
        }
    }

    /// Sends SIGTERM and returns the exit code, or 128 + the signal that ended it.
    ///
    /// # Errors
    ///
    /// If it had ended before, or does not end within `limit`; it is then killed.
    pub fn terminate(&mut self, limit: Duration) -> Result<i32> {
        if let Some(status) = self.poll()? {
            bail!("{} ended by itself ({status}):\n{}", self.name, self.log_tail());
        }
        self.signal(Signal::TERM)?;
        self.wait(limit)
    }

    /// Stops it by SIGTERM.
    ///
    /// # Errors
    ///
    /// As [`Process::terminate`], or with the end of its log if it does not end with code 0.
    pub fn stop_within(&mut self, limit: Duration) -> Result<()> {
        let code = self.terminate(limit)?;
        ensure!(code == 0, "{} ended with {code}: {}", self.name, self.log_tail());
        Ok(())
    }

    /// Waits for its end and returns the exit code, or 128 + the signal that ended it.
    ///
    /// # Errors
    ///
    /// If it does not end within `limit`; it is then killed.
    pub fn wait(&mut self, limit: Duration) -> Result<i32> {
        let what = format!("the end of {}", self.name);
        match wait::until(&what, limit, || Ok(self.poll()?)) {
            Ok(status) => Ok(exit_code(status)),
            Err(error) => {
                self.kill_group();
                Err(error.context(self.log_tail()))
            }
        }
    }

    /// Fails with the end of its log if it has ended.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn ensure_running(&mut self) -> Result<()> {
        match self.poll()? {
            None => Ok(()),
            Some(status) => bail!("{} ended by itself ({status}):\n{}", self.name, self.log_tail()),
        }
    }

    /// Resident memory in bytes, now.
    pub fn rss_bytes(&self) -> Option<u64> {
        status_kib(self.pid(), "VmRSS:").map(|kib| kib * 1024)
    }

    /// The largest resident memory so far, in bytes.
    pub fn peak_rss_bytes(&self) -> Option<u64> {
        status_kib(self.pid(), "VmHWM:").map(|kib| kib * 1024)
    }

    /// Resident memory in bytes of the process and all it has started, now.
    pub fn group_rss_bytes(&self) -> u64 {
        members(self.pid()).filter_map(|pid| status_kib(pid, "VmRSS:")).sum::<u64>() * 1024
    }

    /// CPU time used so far by the process and all it has started, as far as they run, user and system.
    pub fn group_cpu_time(&self) -> Duration {
        members(self.pid()).filter_map(cpu_time).sum()
    }

    /// CPU time used so far by all its threads, user and system.
    pub fn cpu_time(&self) -> Option<Duration> {
        cpu_time(self.pid())
    }

    /// The last lines of its output, for a message.
    pub fn log_tail(&self) -> String {
        format!("--- end of the log of {}:\n{}\n---", self.name, last_lines(&self.output()))
    }
}

/// As much of a log as a message takes.
pub fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

/// CPU time used so far by all threads of a process, user and system; also of one that ended and was not waited for.
pub fn cpu_time(pid: u32) -> Option<Duration> {
    cpu_time_of(&stat_after_name(format!("/proc/{pid}"))?)
}

/// CPU time used so far by those threads of a process that `is_wanted` says by their name, of which Linux keeps 15 bytes.
pub fn thread_cpu_time(pid: u32, is_wanted: impl Fn(&str) -> bool) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten().map(|entry| entry.path());
    let named =
        threads.filter(|path| fs::read_to_string(path.join("comm")).is_ok_and(|name| is_wanted(name.trim_end())));
    named.filter_map(|path| cpu_time_of(&stat_after_name(path)?)).sum()
}

/// Of what [`stat_after_name`] returns.
fn cpu_time_of(stat: &str) -> Option<Duration> {
    let fields: Vec<&str> = stat.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    // USER_HZ, 100 on every Linux that Rust's standard library supports.
    Some(Duration::from_millis(ticks * 10))
}

fn members(group: u32) -> impl Iterator<Item = u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(move |pid| process_group(*pid) == Some(group))
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.lifetime == Lifetime::Detached {
            return;
        }
        if std::thread::panicking() {
            eprintln!("{}", self.log_tail());
        }
        if self.is_running() {
            self.kill_group();
        }
    }
}

/// Waits for the end of a process. One that hangs in the kernel outlives SIGKILL until what it waits for is gone, which may be
/// up to the test that kills it.
fn has_ended_within(pid: Pid, limit: Duration) -> bool {
    let Ok(handle) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { return true };
    let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: 0 };
    let mut ended = [PollFd::new(&handle, PollFlags::IN)];
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut ended, Some(&limit))).is_ok_and(|num| num > 0)
}

fn exit_code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

/// A field of `/proc/<pid>/status`, such as `VmRSS:`.
pub(crate) fn status_kib(pid: u32, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// The fields of `stat` of a process or thread after the name in brackets, which may hold blanks.
fn stat_after_name(of: impl AsRef<Path>) -> Option<String> {
    let stat = fs::read_to_string(of.as_ref().join("stat")).ok()?;
    Some(stat.rsplit_once(')')?.1.to_owned())
}

fn process_group(pid: u32) -> Option<u32> {
    stat_after_name(format!("/proc/{pid}"))?.split_whitespace().nth(2)?.parse().ok()
}
