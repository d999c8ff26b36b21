//! Child processes that never outlive the one that started them.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal};

use crate::wait;

/// How long a child lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// It dies with this process, however that ends.
    WithParent,
    /// It goes on when this process ends, until something stops it by its process id.
    Detached,
}

/// What to start: a program with its arguments, environment, log file and lifetime.
#[derive(Clone, Debug)]
pub struct Launch {
    name: String,
    program: OsString,
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    dir: Option<PathBuf>,
    log: PathBuf,
    user: Option<u32>,
    lifetime: Lifetime,
}

impl Launch {
    /// Starts any program; `name` stands in messages, and its output is appended to `log`.
    pub fn program(name: &str, program: impl AsRef<OsStr>, log: &Path) -> Self {
        Self {
            name: name.to_owned(),
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            envs: Vec::new(),
            dir: None,
            log: log.to_owned(),
            user: None,
            lifetime: Lifetime::WithParent,
        }
    }

    /// Starts one of the project's own programs, with its log in `<dir>/<name>.log`.
    ///
    /// # Errors
    ///
    /// If the program is not built.
    pub fn binary(binary: &str, name: &str, dir: &Path) -> Result<Self> {
        let path = built(binary)?;
        Ok(Self::program(name, path, &dir.join(format!("{name}.log"))))
    }

    /// `shipper` with the name `name`, logging to `<dir>/<name>.log`.
    ///
    /// # Errors
    ///
    /// If the program is not built.
    pub fn shipper(name: &str, dir: &Path) -> Result<Self> {
        Self::binary("shipper", name, dir)
    }

    /// `indexer` with the name `name`, logging to `<dir>/<name>.log`.
    ///
    /// # Errors
    ///
    /// If the program is not built.
    pub fn indexer(name: &str, dir: &Path) -> Result<Self> {
        Self::binary("indexer", name, dir)
    }

    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.envs.push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sets the working folder.
    #[must_use]
    pub fn dir(mut self, dir: &Path) -> Self {
        self.dir = Some(dir.to_owned());
        self
    }

    /// Runs it as this user and group; only root can.
    #[must_use]
    pub fn user(mut self, user: Option<u32>) -> Self {
        self.user = user;
        self
    }

    #[must_use]
    pub fn lifetime(mut self, lifetime: Lifetime) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Starts it. May be called again after the process has ended.
    ///
    /// # Errors
    ///
    /// If the program or its log file cannot be opened.
    pub fn start(&self) -> Result<Process> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("cannot open {}", self.log.display()))?;
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .envs(self.envs.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A group of its own: Ctrl-C reaches us alone, and a signal to the group reaches
            // what the child itself started.
            .process_group(0);
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        if self.lifetime == Lifetime::WithParent {
            die_with_parent(&mut command);
        }
        let child = spawn(command).with_context(|| format!("cannot start {} ({:?})", self.name, self.program))?;
        Ok(Process { name: self.name.clone(), log: self.log.clone(), lifetime: self.lifetime, ended: None, child })
    }
}

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

    /// Kills it and all it has started with SIGKILL, and waits for its end.
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
        self.ended = self.child.wait().ok();
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

    /// CPU time used so far by all its threads, user and system.
    pub fn cpu_time(&self) -> Option<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).ok()?;
        // The name in brackets may hold blanks; the fields after it do not.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
        // USER_HZ, 100 on every Linux that Rust's standard library supports.
        Some(Duration::from_millis(ticks * 10))
    }

    /// The last lines of its output, for a message.
    pub fn log_tail(&self) -> String {
        let output = self.output();
        let lines: Vec<&str> = output.lines().collect();
        let tail = lines[lines.len().saturating_sub(30)..].join("\n");
        format!("--- end of the log of {}:\n{tail}\n---", self.name)
    }
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

/// Returns the path of one of the workspace's programs, built with the same profile as this one.
///
/// # Errors
///
/// If it is not there.
pub fn built(binary: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find this program's own path")?;
    // A test runs from target/<profile>/deps, a program from target/<profile>.
    let path = own.ancestors().skip(1).take(2).map(|dir| dir.join(binary)).find(|path| path.is_file());
    path.with_context(|| format!("`{binary}` is not built: run `cargo build -p millrace-{binary}` first"))
}

fn exit_code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

fn status_kib(pid: u32, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn die_with_parent(command: &mut Command) {
    let parent = std::process::id();
    let set = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the call above.
        let now = rustix::process::getppid().map(Pid::as_raw_nonzero);
        if now.map(|pid| pid.get().cast_unsigned()) != Some(parent) {
            return Err(io::Error::from(rustix::io::Errno::SRCH));
        }
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; these are two system
    // calls and the making of an error from a number, without memory allocation.
    unsafe {
        command.pre_exec(set);
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// Spawns on a thread that lives as long as this process: the death signal is tied to the thread
/// that forked, and a test's own thread ends with the test.
fn spawn(mut command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            for job in jobs {
                job();
            }
        });
        sender
    });
    let (reply, child) = mpsc::channel();
    let job: Job = Box::new(move || {
        // The asker waits below, so it is there.
        let _ = reply.send(command.spawn());
    });
    let gone = |_| io::Error::other("the thread that starts processes is gone");
    spawner.send(job).map_err(|error| gone(error.to_string()))?;
    child.recv().map_err(|error| gone(error.to_string()))?
}
