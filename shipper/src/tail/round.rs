//! The slow round over all files: growth that no hint told, unfinished lines that waited long enough, files that ended.

use std::path::Path;
use std::time::Duration;

use tracing::info;

use super::source::{Fate, Loss, Source};
use super::{Now, Tailer};
use crate::checkpoint::store::Store;
use crate::produce::Broker;
use crate::read::{FileStat, FileSystem};

/// A quiet file is looked at in one of so many rounds.
const QUIET_ROUNDS: usize = 10;
const QUIET_AFTER: Duration = Duration::from_secs(10);

impl<F: FileSystem, B: Broker, S: Store> Tailer<F, B, S> {
    /// Looks at every open file: growth that no hint told, unfinished lines that waited long enough, files that ended.
    pub fn look_around(&mut self, now: Now) {
        self.look_at(now, None);
    }

    /// The same, but at quiet files of which hints tell in one of some rounds only.
    pub fn look_by_turns(&mut self, now: Now) {
        self.turn_of_quiet = (self.turn_of_quiet + 1) % QUIET_ROUNDS;
        self.look_at(now, Some(self.turn_of_quiet));
    }

    /// What grows on a file system that tells of nothing is not quiet for some time, and is looked at as often as it grows.
    fn is_quiet(source: &Source<F::File>, now: Now) -> bool {
        let is_done = source.fate == Fate::Listed && !source.is_queued && source.is_done();
        is_done && now.mono >= source.grown_at + QUIET_AFTER
    }

    fn look_at(&mut self, now: Now, turn_of_quiet: Option<usize>) {
        self.awaits_events_until = self.awaits_events_until.filter(|until| now.mono < *until);
        for slot in 0..self.sources.len() {
            let Some(source) = self.sources[slot].as_mut() else { continue };
            if Self::is_quiet(source, now) {
                source.own = None;
                source.ledger.free_room();
                if turn_of_quiet.is_some_and(|turn| slot % QUIET_ROUNDS != turn) {
                    continue;
                }
            }
            let stat = source.file.as_ref().map(|file| self.files.stat(file));
            if matches!(stat, Some(Err(_))) {
                // What cannot be examined is not known to be read.
                continue;
            }
            if let Some(Ok(stat)) = stat {
                if stat.num_links == 0 {
                    source.fate = Fate::Deleted;
                    source.gone_at.get_or_insert(now.mono);
                }
                self.note_look(slot, stat, now);
            }
            let Some(source) = self.sources[slot].as_mut() else { continue };
            if source.retry_at.is_some_and(|at| now.mono >= at) && !source.ledger.has_failed() {
                source.retry_at = None;
                Self::enqueue(&mut self.ready, slot, source);
            }
            if source.is_held_back() {
                Self::enqueue(&mut self.ready, slot, source);
            }
            self.flush_unfinished(slot, now);
            self.close_quiet(slot, now);
            self.retire(slot, now);
        }
        self.limit_held(now);
        self.trim_absent();
        self.tell_changes(now);
        // A read may hang: what there is to read was told before.
        self.compare_growth(now);
    }

    /// Takes up what an examination of the file told: whether there is something to read.
    pub(super) fn note_look(&mut self, slot: usize, stat: FileStat, now: Now) {
        let Some(source) = self.sources[slot].as_mut() else { return };
        let look = (stat.size, stat.modified_ns);
        if look != source.last_look {
            source.last_look = look;
            source.grown_at = now.mono;
            if source.truncated_at.is_none() {
                source.size = source.size.max(stat.size);
            }
        } else if stat.size == source.read_end && !source.waits_for_source() {
            return;
        }
        Self::enqueue(&mut self.ready, slot, source);
    }

    /// Finds out whether what was seen behind the bytes that were read is a rewrite. Nothing of it is read for as long as its
    /// topic takes nothing, and it may be truncated meanwhile.
    fn compare_growth(&mut self, now: Now) {
        for slot in 0..self.sources.len() {
            let Some(source) = self.sources[slot].as_ref() else { continue };
            let Some(file) = source.file.as_ref().filter(|_| !source.may_be_copy) else { continue };
            if source.size == source.intact_size {
                continue;
            }
            let has_own = self.has_bytes(file, source.prefix, source.ahead.unwrap_or(source.guard));
            let Some(source) = self.sources[slot].as_mut() else { continue };
            match has_own {
                Ok(true) => source.note_own_until(source.size),
                Ok(false) => self.note_truncation(slot, now),
                // It is compared again in the next round, and when it is read.
                Err(_) => {}
            }
        }
    }

    /// Ends an unfinished last line by a noted boundary once it waited long enough.
    fn flush_unfinished(&mut self, slot: usize, now: Now) {
        let Some(source) = self.sources[slot].as_mut() else { return };
        let input = &self.settings.inputs[source.input];
        let is_at_its_path = source.fate == Fate::Listed && source.current_path == source.path;
        let goes_on = source.rotation.followed_by.is_some();
        let (end, patience) = match (source.waiting, source.unfinished) {
            (Some((end, waiting)), _) if !waiting.is_cut => (end, input.framing.timeout()),
            (_, Some(end)) if !is_at_its_path => (end, self.settings.rotate_wait),
            (_, Some(end)) if input.content.is_text() && input.framing.wrapping.is_none() => {
                (end, self.settings.partial_after)
            }
            (_, Some(end)) if self.is_flushing => (end, Duration::ZERO),
            (_, Some(_)) => return,
            // The rest of the line comes in the next file, once something is written to it.
            (Some((end, _)), None) if is_at_its_path || goes_on => (end, self.settings.partial_after),
            (Some((end, _)), None) => (end, self.settings.rotate_wait),
            (None, None) => return,
        };
        let patience = if self.is_flushing { Duration::ZERO } else { patience };
        // What it is about to be read for may be a truncation.
        let is_held = source.is_queued || source.waits_for.is_some() || source.retry_at.is_some();
        let is_held = is_held || source.truncated_at.is_some();
        if is_held || now.mono < source.grown_at + patience {
            return;
        }
        if self.is_as_left(slot, now) {
            self.end_at(slot, end);
        }
    }

    /// Lets go of a file that ended: nobody can write to it, or nobody did for long.
    fn retire(&mut self, slot: usize, now: Now) {
        let Some(source) = self.sources[slot].as_mut() else { return };
        let patience = match source.fate {
            Fate::Listed | Fate::GivenUp(_) => return,
            Fate::Unlisted if source.is_closed => return self.retire_closed(slot, now),
            Fate::Deleted => self.settings.rotate_wait,
            Fate::Unlisted => self.settings.close_unlisted,
        };
        let is_read =
            !source.is_queued && source.unfinished.is_none() && source.waiting.is_none() && source.is_settled();
        let is_decided = !source.is_held_back() && source.truncated_at.is_none();
        if !is_read || !is_decided || source.retry_at.is_some() || now.mono < source.grown_at + patience {
            return;
        }
        self.let_go(slot);
    }

    /// A closed file that no scan finds was deleted, or renamed to where we cannot follow.
    fn retire_closed(&mut self, slot: usize, now: Now) {
        let Some(source) = self.sources[slot].as_ref() else { return };
        // One scan can miss a file that is renamed meanwhile.
        let is_gone = source.gone_at.is_some_and(|since| now.mono >= since + self.settings.rotate_wait);
        if !is_gone || source.ledger.num_outstanding() > 0 {
            return;
        }
        match source.is_done() {
            true => self.let_go(slot),
            false => self.give_up(slot, Loss::Deleted),
        }
    }

    fn let_go(&mut self, slot: usize) {
        let Some(mut source) = self.remove(slot) else { return };
        self.is_dirty = true;
        // All of it was read: what is left makes no record.
        let reason = source.tail().map_or_else(|| "excluded".to_owned(), |tail| tail.reason);
        source.gaps.insert(source.ledger.acknowledged(), source.size, &reason);
        self.tell_end(&source);
        if source.fate == Fate::Unlisted {
            let row = source.row(&self.settings.inputs[source.input].id);
            self.absent.entry(row.identity.inode).or_default().push(row);
        }
        info!(path = %source.path.display(), source = %source.id, size = source.size, fate = ?source.fate, "file finished");
    }

    fn trim_absent(&mut self) {
        self.absent.retain(|_, rows| !rows.is_empty());
        let num_rows: usize = self.absent.values().map(Vec::len).sum();
        let excess = num_rows.saturating_sub(self.settings.max_absent);
        if excess == 0 || !self.is_scanned {
            return;
        }
        let mut rows: Vec<_> = std::mem::take(&mut self.absent).into_values().flatten().collect();
        rows.sort_by_key(|row| row.last_seen_ms);
        for mut row in rows.drain(..excess) {
            self.lost(Loss::Deleted.name(), Path::new(&row.current_path), row.acknowledged, row.size);
            row.gaps.insert(row.acknowledged, row.size, Loss::Deleted.name());
            self.tell_row_end(&row);
        }
        for row in rows {
            self.absent.entry(row.identity.inode).or_default().push(row);
        }
        self.is_dirty = true;
    }
}
