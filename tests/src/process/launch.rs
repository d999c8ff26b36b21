//! What to start, and how.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::Process;
use super::spawn::{die_with_parent, spawn};

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
