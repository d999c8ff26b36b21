//! Takes up what scans find: recognises files under new names, and opens those that no source stands for.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;

use tracing::{info, warn};

use super::begin::Opened;
use super::source::{Fate, Loss};
use super::{Now, Tailer};
use crate::checkpoint::store::Store;
use crate::discover::Found;
use crate::produce::Broker;
use crate::read::{FileStat, FileSystem};

/// A file as a scan found it, under all its names.
struct Listing {
    stat: FileStat,
    paths: Vec<PathBuf>,
}

impl<F: FileSystem, B: Broker, S: Store> Tailer<F, B, S> {
    /// Takes up what a whole scan found. `faults` are paths that could not be examined.
    pub fn apply_scan(&mut self, found: Vec<Found>, faults: &[(PathBuf, io::Error)], now: Now) {
        let mut listed: HashMap<usize, Listing> = HashMap::new();
        let mut unreadable = std::mem::take(&mut self.unreadable);
        self.num_ignored = 0;
        let mut adopted = Vec::new();
        // Paths of files that are new and no source stands for yet.
        let mut missed = Vec::new();
        for found in found {
            let (path, stat) = (found.path.clone(), found.stat);
            let known = self.source_of(&found);
            if known.is_none() && self.is_ignored(&found, now) {
                self.num_ignored += 1;
                continue;
            }
            match known.map_or_else(|| self.adopt(found, now), Ok) {
                Ok(slot) => {
                    if known.is_none() {
                        adopted.push(slot);
                        if self.sources[slot].as_ref().is_some_and(|source| source.identity != stat.identity) {
                            missed.push(path.clone());
                        }
                    }
                    listed.entry(slot).or_insert_with(|| Listing { stat, paths: Vec::new() }).paths.push(path);
                }
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => missed.push(path),
                Err(cause) => {
                    if !unreadable.contains(&path) {
                        missed.push(path.clone());
                        warn!(path = %path.display(), error = %cause, "cannot open the file, trying again");
                    }
                    self.unreadable.insert(path);
                }
            }
        }
        for (path, cause) in faults {
            if !unreadable.contains(path) {
                missed.push(path.clone());
                warn!(path = %path.display(), error = %cause, "cannot examine the path, trying again");
            }
            self.unreadable.insert(path.clone());
        }
        unreadable.retain(|path| !self.unreadable.contains(path));
        for path in unreadable {
            info!(path = %path.display(), "no longer unreadable");
        }
        for slot in 0..self.sources.len() {
            match listed.remove(&slot) {
                Some(listing) => self.note_listed(slot, listing, now),
                None => self.note_unlisted(slot, now),
            }
        }
        self.find_predecessors(&adopted, &missed);
        // Only now: they give slots away.
        self.settle_truncated(now);
        self.settle_rewritten(now);
        self.is_scanned = true;
    }

    /// The source that stands for the file.
    fn source_of(&mut self, found: &Found) -> Option<usize> {
        let slot = self.by_identity.get(&found.stat.identity).copied()?;
        let source = self.sources[slot].as_ref()?;
        // While no descriptor held it, its number may have been given to another file: only birth times tell.
        let is_other = source.is_closed && source.identity.birth_time_ns == 0 && source.input != found.input;
        if is_other {
            self.give_up(slot, Loss::Deleted);
        }
        (!is_other).then_some(slot)
    }

    /// Whether the file is too old to begin with. A file that is known is read on, however old.
    fn is_ignored(&self, found: &Found, now: Now) -> bool {
        let Some(limit) = self.settings.inputs[found.input].ignore_older else { return false };
        let age_ms = now.wall_ms.saturating_sub(found.stat.modified_ns.div_euclid(1_000_000));
        age_ms > i64::try_from(limit.as_millis()).unwrap_or(i64::MAX) && self.row_of(&found.stat).is_none()
    }

    fn note_listed(&mut self, slot: usize, Listing { stat, mut paths }: Listing, now: Now) {
        let Some(source) = self.sources[slot].as_mut() else { return };
        source.last_seen_ms = now.wall_ms;
        source.fate = Fate::Listed;
        source.gone_at = None;
        if source.is_closed {
            self.note_look(slot, stat, now);
        }
        let Some(source) = self.sources[slot].as_mut() else { return };
        // Of several names (hard links, symlinks) the first one counts, then the one in use.
        paths.sort();
        let path = match paths.contains(&source.path) {
            true => source.path.clone(),
            false if paths.contains(&source.current_path) => source.current_path.clone(),
            false => paths.swap_remove(0),
        };
        if path == source.current_path {
            self.by_path.insert(path, slot);
            return;
        }
        *self.stats.rotations.entry("rename").or_default() += 1;
        info!(from = %source.current_path.display(), to = %path.display(), source = %source.id, "file renamed");
        if self.by_path.get(&source.current_path) == Some(&slot) {
            self.by_path.remove(&source.current_path);
        }
        source.told = None;
        source.rotation.left = Some((std::mem::replace(&mut source.current_path, path.clone()), now.mono));
        self.by_path.insert(path, slot);
        self.is_dirty = true;
    }

    fn note_unlisted(&mut self, slot: usize, now: Now) {
        let Some(source) = self.sources[slot].as_mut() else { return };
        if source.fate == Fate::Listed {
            source.fate = Fate::Unlisted;
            source.gone_at = Some(now.mono);
            source.grown_at = now.mono;
            source.rotation.left = Some((source.current_path.clone(), now.mono));
            if self.by_path.get(&source.current_path) == Some(&slot) {
                self.by_path.remove(&source.current_path);
            }
            Self::enqueue(&mut self.ready, slot, source);
        }
    }

    /// Opens a file that no source stands for, and returns its slot.
    fn adopt(&mut self, found: Found, now: Now) -> io::Result<usize> {
        while !self.has_room() && self.close_one(true) {}
        let stays_open = self.has_room();
        if !stays_open && !self.may_close_one() {
            return Err(io::Error::other("limits.open_files is reached by files that were deleted and not yet read"));
        }
        let file = self.files.open(&found.path, &self.settings.inputs[found.input].reach)?;
        // What was opened may be another file than what was scanned.
        let stat = self.files.stat(&file)?;
        if !stat.is_regular {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        if let Some(&slot) = self.by_identity.get(&stat.identity) {
            return Ok(slot);
        }
        let opened = Opened { input: found.input, path: found.path, file, stat };
        let mut source = self.begin(opened, now)?;
        if !stays_open {
            source.close();
        }
        info!(path = %source.path.display(), source = %source.id, position = source.covered, size = stat.size, "tailing");
        let slot = self.insert(source);
        if let Some(source) = self.sources[slot].as_mut() {
            Self::enqueue(&mut self.ready, slot, source);
        }
        Ok(slot)
    }
}
