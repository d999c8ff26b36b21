//! The turns of the tailing thread.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use millrace_common::shutdown::Signals;
use rustix::event::{PollFd, PollFlags, Timespec};
use tracing::warn;

use super::{Ended, Tail, Until, Waker};
use crate::clock::Clock;
use crate::config::Config;
use crate::discover::scan::{self, Patterns};
use crate::discover::watch::Watcher;
use crate::ledger::desk::{Desk, Whole};
use crate::memory::{self, GiveBacks};
use crate::status::Board;
use crate::tail::Now;
use crate::tail::stats::Gauges;

pub(super) struct Loop {
    pub(super) tailer: Tail,
    pub(super) watcher: Watcher,
    pub(super) waker: Waker,
    pub(super) signals: Signals,
    pub(super) board: Arc<Board>,
    pub(super) desk: Arc<Desk>,
    pub(super) clock: Clock,
    pub(super) config: Config,
    pub(super) until: Until,
    /// See [`scan::Scan::links`].
    pub(super) links: HashMap<PathBuf, PathBuf>,
    pub(super) scan_took: Duration,
    pub(super) warned_of_files: u64,
    pub(super) give_backs: GiveBacks,
}

impl Loop {
    const LOOK_EVERY: Duration = Duration::from_secs(1);
    const SCAN_EVERY_UNWATCHED: Duration = Duration::from_secs(1);
    /// A burst of renames asks for one scan, not for many.
    const MIN_SCAN_PAUSE: Duration = Duration::from_millis(20);
    /// Of the time, a tenth may go into scans that hints ask for.
    const SCAN_SHARE: u32 = 10;
    pub(super) const ACK_WAIT: Duration = Duration::from_millis(5);
    /// How soon to try again what waits for something that wakes nobody: a pause after a failure, partitions that are not known.
    const RETRY_EVERY: Duration = Duration::from_millis(50);
    /// Less is in the noise of what the libraries take.
    const FEW_FILES: u64 = 500;

    pub(super) fn run(mut self) -> Result<Ended> {
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
            if self.signals.is_restarting() {
                return Ok(Ended::Restart(Box::new(self.hand_over()?)));
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
                match self.watcher.is_complete() {
                    true => self.tailer.look_by_turns(now),
                    false => self.tailer.look_around(now),
                }
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
            self.give_back_memory(now);
            let next_scan = if wants_scan { self.scan_pause() } else { every };
            let due = (looked_at + Self::LOOK_EVERY).min(scanned_at.unwrap_or_default() + next_scan);
            self.rest(due);
        }
        Ok(Ended::Exit(self.finish()))
    }

    fn scan_pause(&self) -> Duration {
        Self::MIN_SCAN_PAUSE.max(self.scan_took * Self::SCAN_SHARE)
    }

    pub(super) fn publish(&mut self, now: Now) {
        let unwatched_folders = self.watcher.num_unwatched() as u64;
        let gauges = Gauges { unwatched_folders, ..self.gauges(now) };
        self.warn_of_memory(gauges.sources);
        self.desk.publish(Whole {
            num_sources: gauges.sources,
            acked_events: self.tailer.stats().acked_events,
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

    pub(super) fn gauges(&self, now: Now) -> Gauges {
        let mut gauges = self.tailer.gauges(now);
        gauges.blocked.extend(self.desk.fault().is_some().then_some("ledger"));
        gauges
    }

    pub(super) fn turn(&mut self, now: Now, wait: Duration) -> bool {
        self.board.turned();
        if self.board.wants_status() {
            let status = self.status(now);
            self.publish(now);
            self.board.answer(status);
        }
        self.tailer.turn(now, wait)
    }

    fn give_back_memory(&mut self, now: Now) {
        let is_at_rest = self.tailer.is_idle() && !self.tailer.has_outstanding();
        if is_at_rest && self.give_backs.is_time(now.mono) {
            memory::give_back();
        }
    }

    /// Sleeps until something may have changed, at most until `due`.
    fn rest(&mut self, due: Duration) {
        let mut pause = due.saturating_sub(self.clock.now().mono);
        if !self.tailer.is_idle() {
            pause = pause.min(Self::RETRY_EVERY);
        }
        let watch = self.watcher.as_fd();
        let mut fds =
            [PollFd::new(&watch, PollFlags::IN), PollFd::from_borrowed_fd(self.waker.0.as_fd(), PollFlags::IN)];
        let timeout = Timespec { tv_sec: pause.as_secs() as i64, tv_nsec: i64::from(pause.subsec_nanos()) };
        // An interrupted or failed poll is a short sleep at worst.
        let _ = rustix::event::poll(&mut fds, Some(&timeout));
        self.waker.clear();
    }

    pub(super) fn scan(&mut self, now: Now) {
        let patterns: &[Patterns] = &self.config.patterns;
        let scan = scan::scan(patterns);
        self.watcher.set_folders(scan.folders);
        self.links = scan.links;
        self.tailer.apply_scan(scan.found, &scan.faults, now);
        self.board.scanned();
    }
}
