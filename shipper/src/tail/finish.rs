//! The planned end: what is left to do, and the last save.

use super::source::Source;
use super::{Now, Tailer};
use crate::checkpoint::store::Store;
use crate::produce::Broker;
use crate::read::FileSystem;

impl<F: FileSystem, B: Broker, S: Store> Tailer<F, B, S> {
    /// Sends also what is not terminated by a line end, for runs that end with the files.
    pub fn flush_at_end(&mut self) {
        self.is_flushing = true;
    }

    /// Gives events of several lines the time that makes them whole. Those of files that are still written to are left for
    /// the next start.
    pub fn await_events(&mut self, now: Now) {
        let longest = self.settings.inputs.iter().map(|input| input.framing.timeout()).max().unwrap_or_default();
        self.awaits_events_until = Some(now.mono + 2 * longest);
    }

    /// Whether every file was read to its end and everything read is acknowledged.
    pub fn is_drained(&self) -> bool {
        let is_idle = |s: &Source<F::File>| {
            let is_decided = s.truncated_at.is_none() && !s.is_held_back();
            let is_open = s.unfinished.is_some() || s.waiting.is_some();
            let is_awaited =
                self.awaits_events_until.is_some() && s.waiting.is_some_and(|(_, waiting)| !waiting.is_cut);
            let is_whole = !(is_awaited || (self.is_flushing && is_open));
            is_decided && is_whole && !s.is_queued && s.is_settled() && s.retry_at.is_none()
        };
        self.is_scanned && self.ready.is_empty() && self.rows().all(is_idle)
    }

    /// Leaves the rest of every file for the next start.
    pub fn stop_reading(&mut self) {
        self.ready.clear();
        self.opened.clear();
        self.announcing.clear();
        self.topics.release_all();
        for source in self.sources.iter_mut().flatten() {
            source.is_queued = false;
            source.file = None;
            source.is_closed = false;
            // The next start finds out again.
            source.truncated_at = None;
            source.may_be_copy = false;
            source.awaits_announcement = false;
        }
    }

    /// Whether nothing waits for a save, a pause, the producer or a topic.
    pub fn is_idle(&self) -> bool {
        self.ready.is_empty() && self.waiting.is_empty() && self.announcing.is_empty() && !self.topics.is_any_held()
    }

    pub fn can_save(&self) -> bool {
        self.store.is_ready()
    }

    /// Whether anything sent is still without an answer.
    pub fn has_outstanding(&self) -> bool {
        self.topics.inflight_bytes() > 0
    }

    /// Starts the last save of a planned end, after [`Self::stop_reading`]. [`Self::is_saved`] tells when it is durable.
    pub fn save_for_end(&mut self, now: Now) -> u64 {
        for source in self.sources.iter_mut().flatten().filter(|s| s.is_settled()) {
            // Nothing beyond was ever produced, and nothing will be: bytes written later get their own hour.
            source.horizon.end_at(source.stamped_until.max(source.covered), source.covered);
        }
        self.is_urgent = true;
        let version = self.last_save + 1;
        self.save(now);
        version
    }

    pub fn is_saved(&self, version: u64) -> bool {
        self.store.durable() >= version
    }
}
