//! Turns what scans find into sources: recognises files under new names, resumes from the checkpoint, and starts a new
//! generation where the content is not what was read.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;

use millrace_common::record::SourceId;
use tracing::{info, warn};

use super::source::{Arrived, Fate, Rotation, Source};
use super::tally::Tally;
use super::{Now, Tailer};
use crate::checkpoint::ledger::PositionLedger;
use crate::checkpoint::row::{Guard, Print, Row};
use crate::checkpoint::store::Store;
use crate::discover::Found;
use crate::encode::own_fields::{Origin, OwnFields};
use crate::frame::assemble::Open;
use crate::produce::Broker;
use crate::read::{FileStat, FileSystem};

impl<F: FileSystem, B: Broker, S: Store> Tailer<F, B, S> {
    /// Takes up what a whole scan found. `faults` are paths that could not be examined.
    pub fn apply_scan(&mut self, found: Vec<Found>, faults: &[(PathBuf, io::Error)], now: Now) {
        let mut listed: HashMap<usize, Vec<PathBuf>> = HashMap::new();
        let mut unreadable = std::mem::take(&mut self.unreadable);
        let mut adopted = Vec::new();
        for found in found {
            let path = found.path.clone();
            let known = self.by_identity.get(&found.stat.identity).copied();
            match known.map_or_else(|| self.adopt(found, now), Ok) {
                Ok(slot) => {
                    if known.is_none() {
                        adopted.push(slot);
                    }
                    listed.entry(slot).or_default().push(path);
                }
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
                Err(cause) => {
                    if !unreadable.contains(&path) {
                        warn!(path = %path.display(), error = %cause, "cannot open the file, trying again");
                    }
                    self.unreadable.insert(path);
                }
            }
        }
        for (path, cause) in faults {
            if !unreadable.contains(path) {
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
                Some(paths) => self.note_listed(slot, paths, now),
                None => self.note_unlisted(slot, now),
            }
        }
        self.find_predecessors(&adopted);
        self.is_scanned = true;
    }

    fn note_listed(&mut self, slot: usize, mut paths: Vec<PathBuf>, now: Now) {
        let Some(source) = self.sources[slot].as_mut() else { return };
        source.last_seen_ms = now.wall_ms;
        source.fate = Fate::Listed;
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
        source.rotation.left = Some((std::mem::replace(&mut source.current_path, path.clone()), now.mono));
        self.by_path.insert(path, slot);
        self.is_dirty = true;
    }

    fn note_unlisted(&mut self, slot: usize, now: Now) {
        let Some(source) = self.sources[slot].as_mut() else { return };
        if source.fate == Fate::Listed {
            source.fate = Fate::Unlisted;
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
        let file = self.files.open(&found.path)?;
        // What was opened may be another file than what was scanned.
        let stat = self.files.stat(&file)?;
        if !stat.is_regular {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        if let Some(&slot) = self.by_identity.get(&stat.identity) {
            return Ok(slot);
        }
        let source = match self.row_of(&stat) {
            Some(at) => {
                let source = self.resume(self.absent[at].clone(), found, file, stat, now)?;
                // Only now: a fault while reading must not cost the position.
                self.absent.swap_remove(at);
                source
            }
            None => self.fresh(found.input, found.path, file, stat, 0, now),
        };
        info!(path = %source.path.display(), source = %source.id, position = source.covered, size = stat.size, "tailing");
        let slot = self.insert(source);
        if let Some(source) = self.sources[slot].as_mut() {
            Self::enqueue(&mut self.ready, slot, source);
        }
        Ok(slot)
    }

    /// The checkpoint's row of this file. Device numbers may change with a reboot, so they only decide where the file
    /// system has no birth times.
    fn row_of(&self, stat: &FileStat) -> Option<usize> {
        let identity = stat.identity;
        let is_same = |row: &Row| {
            row.identity.inode == identity.inode
                && row.identity.birth_time_ns == identity.birth_time_ns
                && (identity.birth_time_ns != 0 || row.identity.device == identity.device)
        };
        let exact = self.absent.iter().position(|row| row.identity == identity);
        exact.or_else(|| self.absent.iter().position(is_same))
    }

    fn resume(
        &mut self,
        row: Row,
        found: Found,
        file: F::File,
        stat: FileStat,
        now: Now,
    ) -> io::Result<Source<F::File>> {
        if !self.has_content_of(&row, &file, stat.size)? {
            info!(path = %found.path.display(), source = %row.source, "the file was rewritten while nobody looked, reading it as a new one");
            self.lost("truncated", &found.path, row.acknowledged, row.size);
            *self.stats.rotations.entry("truncate").or_default() += 1;
            return Ok(self.fresh(found.input, found.path, file, stat, row.generation + 1, now));
        }
        let length = (Guard::MAX_LENGTH as u64).min(row.acknowledged);
        let mut before = vec![0; length as usize];
        let num_read = self.files.read_at(&file, &mut before, row.acknowledged - length)?;
        let mut source = self.fresh(found.input, PathBuf::from(&row.path), file, stat, row.generation, now);
        source.current_path = found.path;
        source.covered = row.acknowledged;
        source.covered_at_save = row.acknowledged;
        source.ledger = PositionLedger::new(row.acknowledged, row.open);
        source.open = row.open;
        source.rotation.carry = row.carry.map(|carry| Arrived { carry, sequence: None });
        source.rotation.carried = row.carried;
        source.guard = Guard::new(row.acknowledged, &before[..num_read]);
        source.ahead = (row.guard.position > row.acknowledged).then_some(row.guard);
        source.prefix = row.prefix;
        source.hours = row.hours;
        source.boundaries = row.boundaries;
        source.horizon = row.horizon;
        source.saving_horizon = row.horizon;
        source.next_horizon = row.horizon;
        source.stamped_until = row.horizon;
        source.size = row.size.max(stat.size);
        Ok(source)
    }

    /// Whether the file still begins with what was read of it, and has the same bytes before the last position.
    fn has_content_of(&self, row: &Row, file: &F::File, size: u64) -> io::Result<bool> {
        if size < row.acknowledged || size < row.guard.position {
            return Ok(false);
        }
        let mut bytes = vec![0; Print::MAX_LENGTH];
        let num_read = self.files.read_at(file, &mut bytes[..row.prefix.length as usize], 0)?;
        if !row.prefix.matches(&bytes[..num_read]) {
            return Ok(false);
        }
        let num_read = self.files.read_at(file, &mut bytes[..row.guard.length as usize], row.guard.start())?;
        Ok(row.guard.matches(&bytes[..num_read]))
    }

    fn fresh(
        &self,
        input: usize,
        path: PathBuf,
        file: F::File,
        stat: FileStat,
        generation: u32,
        now: Now,
    ) -> Source<F::File> {
        let settings = &self.settings;
        let identity = stat.identity;
        let id = SourceId::derive(&settings.host_id, identity.inode, identity.birth_time_ns, generation);
        let shown = path.to_string_lossy();
        let origin = Origin { host_name: &settings.host_name, path: &shown, source: id };
        let fields = &settings.inputs[input].fields;
        if !fields.fit(&shown) {
            warn!(path = %path.display(), "the path fits neither `path_fields` nor the names of Kubernetes, no fields from it");
        }
        let own = OwnFields::new(origin, &fields.at(&shown)).expect("fields are checked with the configuration");
        Source {
            id,
            input,
            current_path: path.clone(),
            path,
            identity,
            generation,
            file: Some(file),
            fate: Fate::Listed,
            covered: 0,
            open: Open::default(),
            waiting: None,
            wants_reach: false,
            rotation: Rotation::default(),
            size: stat.size,
            last_look: (stat.size, stat.modified_ns),
            read_end: 0,
            ledger: PositionLedger::new(0, Open::default()),
            prefix: Print::of(b""),
            guard: Guard::new(0, b""),
            ahead: None,
            hours: Vec::new(),
            boundaries: Vec::new(),
            horizon: 0,
            saving_horizon: 0,
            next_horizon: 0,
            covered_at_save: 0,
            stamped_until: 0,
            long: None,
            hole: None,
            hole_size: None,
            unfinished: None,
            own,
            partition: None,
            max_record: settings.max_record,
            tally: Tally::default(),
            grown_at: now.mono,
            last_seen_ms: now.wall_ms,
            is_queued: false,
            waits_for: None,
            delays: Self::delays(id.as_u64()),
            retry_at: None,
        }
    }

    /// The file has other bytes than were read of it: it was truncated or rewritten. What was not yet read is gone; the
    /// file goes on as a new source, while outstanding records of the old one are awaited.
    pub(super) fn replace_generation(&mut self, slot: usize, now: Now) {
        let Some(old) = self.sources[slot].as_mut() else { return };
        let Some(file) = old.file.take() else { return };
        let stat = match self.files.stat(&file) {
            Ok(stat) => stat,
            Err(cause) => {
                warn!(path = %old.path.display(), error = %cause, "cannot examine the file, trying again");
                old.file = Some(file);
                old.retry_at = Some(now.mono + old.delays.next_delay());
                return;
            }
        };
        let (input, path, current_path) = (old.input, old.path.clone(), old.current_path.clone());
        let (generation, fate) = (old.generation + 1, old.fate);
        info!(path = %current_path.display(), source = %old.id, position = old.covered, size = stat.size, "file truncated or rewritten, reading it from the start");
        old.fate = Fate::Replaced;
        old.is_queued = false;
        let is_over = old.ledger.num_outstanding() == 0;
        *self.stats.rotations.entry("truncate").or_default() += 1;
        let mut source = self.fresh(input, path, file, stat, generation, now);
        source.current_path = current_path;
        source.fate = fate;
        if is_over {
            self.end_replaced(slot);
        }
        let slot = self.insert(source);
        if let Some(source) = self.sources[slot].as_mut() {
            Self::enqueue(&mut self.ready, slot, source);
        }
    }

    /// The last record of a replaced generation was settled: what it did not deliver is lost.
    pub(super) fn end_replaced(&mut self, slot: usize) {
        if let Some(source) = self.remove(slot) {
            self.lost("truncated", &source.current_path, source.ledger.acknowledged(), source.size);
        }
    }
}
