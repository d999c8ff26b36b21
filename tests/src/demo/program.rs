//! The programs of the project, killed and started again.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::setup::Place;
use crate::process::{Launch, Lifetime, Process};
use crate::stack::PidFile;
use crate::{http, wait};

const READY_LIMIT: Duration = Duration::from_secs(60);

/// One of the project's programs, over all its starts.
pub struct Program {
    pub name: &'static str,
    launch: Launch,
    pub process: Option<Process>,
    port: u16,
    pub num_kills: u32,
    /// The largest resident memory of any start, in bytes.
    pub peak_rss: u64,
}

impl Program {
    /// # Errors
    ///
    /// If the program is not built.
    pub fn shipper(place: &Place) -> Result<Self> {
        let launch = Launch::shipper("shipper", &place.dir)?;
        let launch = launch.args(["run", "--config"]).arg(place.dir.join("shipper.yaml"));
        Ok(Self::new("shipper", launch, place.shipper_port))
    }

    /// # Errors
    ///
    /// If the program is not built.
    pub fn indexer(place: &Place, number: usize) -> Result<Self> {
        let name = ["indexer-1", "indexer-2"][number];
        let port = place.indexer_ports[number];
        let launch = Launch::indexer(name, &place.dir)?;
        let launch = launch.args(["run", "--config"]).arg(place.dir.join("indexer.yaml"));
        Ok(Self::new(name, launch.env("ADMIN_PORT", port.to_string()), port))
    }

    fn new(name: &'static str, launch: Launch, port: u16) -> Self {
        Self { name, launch, process: None, port, num_kills: 0, peak_rss: 0 }
    }

    /// Starts it without waiting for anything.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn start(&mut self) -> Result<()> {
        self.process = Some(self.launch.start()?);
        Ok(())
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    ///
    /// If it ends, or is not ready in time.
    pub fn wait_ready(&mut self) -> Result<()> {
        let url = self.url("/readyz");
        wait::until_true(&format!("{} to be ready ({url})", self.name), READY_LIMIT, || {
            self.ensure_running()?;
            let reply = http::request_within(Duration::from_secs(2), "GET", &url, None);
            Ok(reply.is_ok_and(|reply| reply.status == 200))
        })
        .map_err(|error| error.context(self.process.as_ref().map(Process::log_tail).unwrap_or_default()))
    }

    /// Kills it with -9.
    ///
    /// # Errors
    ///
    /// If it had ended by itself.
    pub fn kill9(&mut self) -> Result<()> {
        self.look();
        let mut process = self.process.take().with_context(|| format!("{} does not run", self.name))?;
        process.kill9()?;
        self.num_kills += 1;
        Ok(())
    }

    /// Ends it with SIGTERM and returns its exit code.
    ///
    /// # Errors
    ///
    /// If it had ended by itself, or does not end in time.
    pub fn terminate(&mut self, limit: Duration) -> Result<i32> {
        self.look();
        let mut process = self.process.take().with_context(|| format!("{} does not run", self.name))?;
        process.terminate(limit)
    }

    /// Starts it so that it outlives this process, with its process id on file.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn start_detached(&self, dir: &Path) -> Result<()> {
        let process = self.launch.clone().lifetime(Lifetime::Detached).start()?;
        PidFile::of(process.pid())?.write(&dir.join(format!("{}.pid", self.name)))
    }

    /// Notes its memory and returns its resident memory now, in bytes; `None` while it does not run.
    pub fn look(&mut self) -> Option<u64> {
        let process = self.process.as_ref()?;
        self.peak_rss = self.peak_rss.max(process.peak_rss_bytes().unwrap_or(0));
        process.rss_bytes()
    }

    /// # Errors
    ///
    /// If it has ended without being asked to.
    pub fn ensure_running(&mut self) -> Result<()> {
        self.process.as_mut().map_or(Ok(()), Process::ensure_running)
    }

    /// Its metrics as text, if it answers.
    pub fn metrics(&self) -> Option<String> {
        self.process.as_ref()?;
        let reply = http::request_within(Duration::from_secs(1), "GET", &self.url("/metrics"), None).ok()?;
        (reply.status == 200).then_some(reply.body)
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}
