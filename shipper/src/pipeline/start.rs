//! Makes a pipeline of the settings.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tracing::info;

use super::turns::Loop;
use super::{Ended, Left, Process, clients};
use crate::checkpoint::store::{DataDir, DiskStore, StoreError};
use crate::clock::Clock;
use crate::config::{Config, Ledger};
use crate::discover::watch::Watcher;
use crate::ledger;
use crate::ledger::desk::Desk;
use crate::memory::GiveBacks;
use crate::read::Disk;
use crate::tail::Tailer;

impl Process {
    /// Runs one pipeline, from its start to its end.
    pub(super) fn run(&self, config: Config, Left { dir, legacy }: Left) -> Result<Ended> {
        let mut loaded = dir.load()?;
        let host_name = host_name(&config);
        let host_id = host_id(&config, &dir, &host_name)?;
        let desk = Arc::new(Desk::new(config.ledger == Ledger::On));
        self.board.set_desk(Arc::clone(&desk));
        let mut ledger = clients::ledger_settings(&config, &self.log, &host_id, &host_name)?;
        if loaded.is_missing && legacy.is_none() && config.ledger == Ledger::On {
            let recovered = clients::recover(&config, &host_id, &self.signals, &self.board)?;
            if self.signals.is_restarting() {
                return Ok(Ended::Restart(Box::new(Left { dir, legacy })));
            }
            (loaded.rows, ledger.finished) = (recovered.rows, recovered.finished);
        }
        let wake = {
            let waker = self.waker.clone();
            move || waker.wake()
        };
        let (broker, max_inflight_records) = clients::start_producer(&config, &self.log, Arc::new(wake.clone()))?;
        ledger::service::start(ledger, Arc::clone(&desk), wake.clone()).context("cannot start the ledger's threads")?;
        let store = DiskStore::start(dir, wake).context("cannot start the checkpoint thread")?;
        info!(
            host.id = host_id,
            host.name = host_name,
            topics = config.topics.join(","),
            sources = loaded.rows.len(),
            "shipper started"
        );
        let open_files = config.open_files.unwrap_or(self.open_files);
        let settings = config.tail_settings(host_id, host_name, open_files, max_inflight_records);
        let announcer = Box::new(Arc::clone(&desk));
        let mut tailer = Tailer::new(settings, Disk, broker, store, announcer, loaded.rows);
        let clock = Clock::start();
        if let Some(legacy) = legacy {
            tailer.inherit(legacy, |input, path| config.patterns[input].matches(path), clock.now());
        }
        tailer.note_corrupt(loaded.num_corrupt);
        let watcher =
            Watcher::new().context("cannot create an inotify instance; raise fs.inotify.max_user_instances")?;
        Loop {
            tailer,
            watcher,
            waker: self.waker.clone(),
            signals: self.signals.clone(),
            board: Arc::clone(&self.board),
            desk,
            clock,
            config,
            until: self.until,
            links: HashMap::new(),
            scan_took: Duration::ZERO,
            warned_of_files: 0,
            give_backs: GiveBacks::default(),
        }
        .run()
    }
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
