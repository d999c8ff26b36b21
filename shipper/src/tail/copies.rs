//! Truncated files, and the copies that were made of them before (`copytruncate`).
//!
//! A copy holds what was sent already, under other ids if it were read as a file of its own, and what was not yet read when
//! the original was truncated. So the source of the original goes on in the copy, and the original becomes a new
//! generation. A new file whose name extends that of a source is held back as long as it may turn out to be a copy: until
//! its bytes differ, or it was quiet for `rotate_wait` and the original still has its own.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use tracing::{info, warn};

use super::begin::Opened;
use super::source::{Fate, Loss, Source};
use super::{Now, Tailer};
use crate::checkpoint::row::{Guard, Print, Row};
use crate::checkpoint::store::Store;
use crate::produce::Broker;
use crate::read::FileSystem;

/// What cannot be looked at is waited for that many times longer than `rotate_wait`.
const PATIENCE: u32 = 10;

/// Whether the bytes of a new file are those of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Likeness {
    Other,
    Same,
    /// The original no longer has them.
    OriginalTruncated,
    /// The original cannot be looked at.
    Unknown,
}

impl<F: FileSystem, B: Broker, S: Store> Tailer<F, B, S> {
    /// Whether the next bytes of a source may be read now: they are its own, as far as can be told. Opens files to compare
    /// them.
    pub(super) fn is_own(&mut self, slot: usize, now: Now) -> bool {
        let Some(source) = self.sources[slot].as_ref() else { return false };
        if source.truncated_at.is_some() || source.retry_at.is_some() {
            return false;
        }
        if !source.may_be_copy {
            return true;
        }
        let quiet = now.mono.saturating_sub(source.grown_at);
        let is_quiet = quiet >= self.settings.rotate_wait;
        let is_waited_for = quiet >= self.settings.rotate_wait * PATIENCE;
        let mut originals = self.originals_of(&source.current_path);
        originals.retain(|&original| !self.begins_otherwise(slot, original));
        let is_compared = !self.absent.is_empty() || !originals.is_empty();
        if is_compared && !self.open_again(slot, now) {
            return false;
        }
        for original in originals {
            match self.likeness(slot, original, now) {
                Ok(Likeness::Other) => self.release_unread(original),
                Ok(Likeness::Same) if is_quiet => {}
                Ok(Likeness::Unknown) if is_waited_for => {}
                Ok(Likeness::Same | Likeness::Unknown) => return false,
                Ok(Likeness::OriginalTruncated) => {
                    self.note_truncation(original, now);
                    return false;
                }
                Err(cause) => {
                    self.read_failed(slot, &cause, now);
                    return false;
                }
            }
        }
        match self.row_of_original(slot) {
            Some((row, true)) if is_waited_for => {
                if self.resume_in(slot, &row, now).is_ok() {
                    self.forget_row(&row);
                }
                return false;
            }
            Some(_) if !is_waited_for => return false,
            // A row whose file was rewritten may still find its copy.
            _ if !self.rewritten.is_empty() => return false,
            _ => {}
        }
        if let Some(source) = self.sources[slot].as_mut() {
            // Until it is announced nothing of it is sent, and it may still turn out to be one.
            source.may_be_copy = !source.is_announced;
        }
        true
    }

    /// The row of a file that no scan has found, whose name this one extends, and whether this one has its content. A copy
    /// may still be too short to tell.
    fn row_of_original(&self, slot: usize) -> Option<(Row, bool)> {
        let source = self.sources[slot].as_ref()?;
        let file = source.file.as_ref()?;
        let mut rows = self.absent.values().flatten();
        rows.find_map(|row| {
            let is_named_so = row.prefix.length > 0 && extends(&source.current_path, Path::new(&row.current_path));
            let has_content = is_named_so && self.has_content_of(row, file, source.size).unwrap_or(false);
            (has_content || (is_named_so && source.size < row.guard.position)).then(|| (row.clone(), has_content))
        })
    }

    /// Sources that are listed under a name which this one extends: `app.log` for `app.log.1` and `app-20261125.log`.
    fn originals_of(&self, path: &Path) -> Vec<usize> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Vec::new() };
        let name = name.as_bytes();
        let extension = name.iter().rposition(|&b| b == b'.').filter(|&at| at > 0).unwrap_or(name.len());
        let shortened = (1..name.len()).map(|end| name[..end].to_vec());
        let cut_inside = (1..extension).map(|end| [&name[..end], &name[extension..]].concat());
        let paths = shortened.chain(cut_inside).map(|name| folder.join(OsStr::from_bytes(&name)));
        let mut slots: Vec<usize> = paths.filter_map(|path| self.by_path.get(&path).copied()).collect();
        slots.sort_unstable();
        slots.dedup();
        slots
    }

    /// Whether two files are known to begin with other bytes.
    fn begins_otherwise(&self, slot: usize, other: usize) -> bool {
        let prefix_of = |slot: usize| self.sources[slot].as_ref().map(|source| source.prefix);
        let (Some(one), Some(other)) = (prefix_of(slot), prefix_of(other)) else { return false };
        one.length == other.length && one != other
    }

    /// Compares the last bytes of a new file with those at the same place of `original`.
    fn likeness(&mut self, slot: usize, original: usize, now: Now) -> io::Result<Likeness> {
        let is_open = self.open_again(original, now) && self.open_again(slot, now);
        let (Some(copy), Some(source)) = (self.sources[slot].as_ref(), self.sources[original].as_ref()) else {
            return Ok(Likeness::Other);
        };
        if source.truncated_at.is_some() {
            return Ok(Likeness::OriginalTruncated);
        }
        let (Some(copy), Some(file), true) = (&copy.file, &source.file, is_open) else {
            return Ok(Likeness::Unknown);
        };
        let size = self.files.stat(copy)?.size;
        let length = (Guard::MAX_LENGTH as u64).min(size);
        let mut bytes = [[0; Guard::MAX_LENGTH]; 2];
        for (bytes, file) in bytes.iter_mut().zip([copy, file]) {
            self.files.read_at(file, &mut bytes[..length as usize], size - length)?;
        }
        let is_same = self.files.stat(file)?.size >= size && bytes[0] == bytes[1];
        // Looked at last: it was not truncated before it was compared.
        let is_intact = self.has_bytes(file, source.prefix, source.guard)?;
        Ok(match (is_intact, is_same) {
            (false, _) => Likeness::OriginalTruncated,
            (true, true) => Likeness::Same,
            (true, false) => Likeness::Other,
        })
    }

    /// The file has other bytes than were read of it. What becomes of it is decided after the next scan, which finds a
    /// copy if there is one.
    pub(super) fn note_truncation(&mut self, slot: usize, now: Now) {
        if let Some(source) = self.sources[slot].as_mut() {
            source.truncated_at.get_or_insert(now.mono);
            // What was seen beyond belongs to the next generation: this one cannot lose it.
            source.size = source.intact_size.max(source.covered);
            self.wants_scan = true;
        }
    }

    /// Decides what becomes of truncated files, after a scan.
    pub(super) fn settle_truncated(&mut self, now: Now) {
        for slot in 0..self.sources.len() {
            let Some(since) = self.sources[slot].as_ref().and_then(|source| source.truncated_at) else { continue };
            if !self.open_again(slot, now) {
                // It cannot be opened for now. If it is gone for good, nothing can be done with it.
                self.give_up_if_lost(slot);
                continue;
            }
            match self.copy_of(slot, now) {
                Ok(Some(copy)) => self.go_on_in(slot, copy, now),
                Ok(None) => self.start_generation(slot, now),
                Err(_) if now.mono < since + self.settings.rotate_wait * PATIENCE => self.wants_scan = true,
                Err(cause) => {
                    warn!(error = %cause, "cannot read a new file that may be the copy of a truncated one");
                    self.start_generation(slot, now);
                }
            }
        }
    }

    fn give_up_if_lost(&mut self, slot: usize) {
        if self.sources[slot].as_ref().is_some_and(|source| source.is_closed && source.fate == Fate::Unlisted) {
            self.give_up(slot, Loss::Truncated);
        }
    }

    /// The new file that has what the truncated one had.
    fn copy_of(&mut self, slot: usize, now: Now) -> io::Result<Option<usize>> {
        let Some(source) = self.sources[slot].as_ref() else { return Ok(None) };
        let (prefix, guard, ahead) = (source.prefix, source.guard, source.ahead);
        // After a rewind, what stands before the position may be bytes of the rewrite already; the guard ahead was kept.
        let guard = ahead.filter(|ahead| ahead.position > guard.position).unwrap_or(guard);
        let paths = [source.current_path.clone(), source.path.clone()];
        self.find_copy(&paths, prefix, guard, now)
    }

    /// The new file whose name extends one of `paths`, that begins with `prefix` and has the bytes of `guard`.
    fn find_copy(&mut self, paths: &[PathBuf], prefix: Print, guard: Guard, now: Now) -> io::Result<Option<usize>> {
        if prefix.length == 0 {
            return Ok(None);
        }
        let is_named_so = |copy: &Path| paths.iter().any(|path| extends(copy, path));
        let mut fault = match self.unreadable.iter().any(|path| is_named_so(path)) {
            true => Err(io::ErrorKind::PermissionDenied.into()),
            false => Ok(None),
        };
        for slot in 0..self.sources.len() {
            let Some(copy) = self.sources[slot].as_ref() else { continue };
            if !copy.may_be_copy || !is_named_so(&copy.current_path) || (copy.is_closed && copy.fate != Fate::Listed) {
                continue;
            }
            match self.has_content(slot, prefix, guard, now) {
                Ok(true) => return Ok(Some(slot)),
                Ok(false) => {}
                Err(cause) => fault = Err(cause),
            }
        }
        fault
    }

    fn has_content(&mut self, slot: usize, prefix: Print, guard: Guard, now: Now) -> io::Result<bool> {
        self.open_again(slot, now);
        let file = self.sources[slot].as_ref().and_then(|source| source.file.as_ref());
        let file = file.ok_or(io::ErrorKind::NotFound)?;
        Ok(self.files.stat(file)?.size >= guard.position && self.has_bytes(file, prefix, guard)?)
    }

    /// The source goes on in the copy of its file; the file begins a new generation.
    fn go_on_in(&mut self, slot: usize, copy: usize, now: Now) {
        let (Some(source), Some(found)) = (self.sources[slot].as_ref(), self.sources[copy].as_ref()) else { return };
        let (position, Some(file)) = (source.covered, &found.file) else { return };
        let (Ok(before), Ok(stat)) = (self.before(file, position), self.files.stat(file)) else {
            self.wants_scan = true;
            return;
        };
        let Some(original) = self.split_generation(slot, now) else { return };
        let Some(mut copy) = self.remove(copy) else { return };
        self.tell_copy(&mut copy);
        let Some(source) = self.sources[slot].as_mut() else { return };
        info!(
            path = %source.current_path.display(), copy = %copy.current_path.display(), source = %source.id, position,
            "file copied and truncated, reading on in the copy"
        );
        let lost_from = stat.size.max(position);
        let (path, size) = (source.current_path.clone(), source.size);
        self.by_identity.remove(&source.identity);
        source.identity = copy.identity;
        source.current_path = copy.current_path;
        source.file = copy.file;
        source.is_closed = copy.is_closed;
        source.fate = copy.fate;
        source.gone_at = copy.gone_at;
        source.last_look = copy.last_look;
        source.size = stat.size;
        source.intact_size = stat.size;
        // It is not sent again: what is open there stays so.
        let open = source.open;
        source.rewind_to(position, &before);
        source.open = open;
        source.ahead = source.ahead.filter(|ahead| ahead.position <= stat.size);
        source.hole_size = None;
        source.read_end = position;
        source.grown_at = now.mono;
        source.truncated_at = None;
        source.told = None;
        source.give_up_bytes(lost_from, size, Loss::Truncated.name());
        self.by_identity.insert(source.identity, slot);
        if source.fate == Fate::Listed {
            self.by_path.insert(source.current_path.clone(), slot);
        }
        if source.file.is_some() {
            self.opened.push_back(slot);
        }
        Self::enqueue(&mut self.ready, slot, source);
        *self.stats.rotations.entry("copytruncate").or_default() += 1;
        self.lost(Loss::Truncated.name(), &path, lost_from, size);
        self.begin_reading(original);
    }

    /// No copy was made: what was not yet read is gone, and the file goes on as a new source.
    fn start_generation(&mut self, slot: usize, now: Now) {
        let Some(original) = self.split_generation(slot, now) else { return };
        info!(path = %original.current_path.display(), source = %original.id, size = original.size, "file truncated or rewritten, reading it from the start");
        *self.stats.rotations.entry("truncate").or_default() += 1;
        self.give_up(slot, Loss::Truncated);
        self.begin_reading(original);
    }

    /// Takes the file from a source, for the next generation.
    fn split_generation(&mut self, slot: usize, now: Now) -> Option<Source<F::File>> {
        // To look for its copy may have taken its descriptor.
        if !self.open_again(slot, now) {
            self.wants_scan = true;
            return None;
        }
        let source = self.sources[slot].as_mut()?;
        let file = source.file.take()?;
        let stat = match self.files.stat(&file) {
            Ok(stat) => stat,
            Err(cause) => {
                warn!(path = %source.path.display(), error = %cause, "cannot examine the file, trying again");
                source.file = Some(file);
                self.wants_scan = true;
                return None;
            }
        };
        self.opened.retain(|&s| s != slot);
        let source = self.sources[slot].as_ref()?;
        let lineage = self.lineage(&stat, source.generation + 1);
        let opened = Opened { input: source.input, path: source.path.clone(), file, stat };
        let next = self.fresh(opened, lineage, now);
        Some(Source { current_path: source.current_path.clone(), fate: source.fate, gone_at: source.gone_at, ..next })
    }

    fn begin_reading(&mut self, source: Source<F::File>) {
        let slot = self.insert(source);
        if let Some(source) = self.sources[slot].as_mut() {
            Self::enqueue(&mut self.ready, slot, source);
        }
    }

    /// Rows whose file was rewritten while nobody looked: they go on in a copy, or what was not read is lost.
    pub(super) fn settle_rewritten(&mut self, now: Now) {
        for (mut row, since) in std::mem::take(&mut self.rewritten) {
            let paths = [PathBuf::from(&row.current_path), PathBuf::from(&row.path)];
            let copy = self.find_copy(&paths, row.prefix, row.guard, now);
            let resumed = copy.and_then(|copy| copy.map(|slot| self.resume_in(slot, &row, now)).transpose());
            match resumed {
                Ok(Some(())) => *self.stats.rotations.entry("copytruncate").or_default() += 1,
                Err(_) if now.mono < since + self.settings.rotate_wait * PATIENCE => {
                    self.rewritten.push((row, since));
                    self.wants_scan = true;
                }
                Ok(None) | Err(_) => {
                    *self.stats.rotations.entry("truncate").or_default() += 1;
                    self.lost(Loss::Truncated.name(), Path::new(&row.current_path), row.acknowledged, row.size);
                    row.gaps.insert(row.acknowledged, row.size, Loss::Truncated.name());
                    self.tell_row_end(&row);
                }
            }
        }
    }

    /// Turns the source of a copy into that of the row.
    fn resume_in(&mut self, slot: usize, row: &Row, now: Now) -> io::Result<()> {
        let Some(file) = self.sources[slot].as_ref().and_then(|copy| copy.file.as_ref()) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let (stat, before) = (self.files.stat(file)?, self.before(file, row.acknowledged)?);
        let Some(mut copy) = self.remove(slot) else { return Ok(()) };
        self.tell_copy(&mut copy);
        let Some(file) = copy.file.take() else { return Ok(()) };
        let path: PathBuf = copy.current_path;
        info!(path = %row.current_path, copy = %path.display(), source = %row.source, position = row.acknowledged, "file was copied and truncated, reading on in the copy");
        let opened = Opened { input: copy.input, path, file, stat };
        let mut source = self.resume(Row { size: stat.size, ..row.clone() }, &before, opened, now);
        source.give_up_bytes(stat.size, row.size, Loss::Truncated.name());
        self.lost(Loss::Truncated.name(), Path::new(&row.current_path), stat.size, row.size);
        self.begin_reading(Source { fate: copy.fate, gone_at: copy.gone_at, may_be_copy: false, ..source });
        Ok(())
    }
}

/// Whether `name` is `original` with something put to its end or before its extension.
fn extends(copy: &Path, original: &Path) -> bool {
    let (Some(name), Some(original_name)) = (copy.file_name(), original.file_name()) else { return false };
    if copy.parent() != original.parent() {
        return false;
    }
    let (name, original) = (name.as_bytes(), original_name.as_bytes());
    let extension = original.iter().rposition(|&b| b == b'.').filter(|&at| at > 0).unwrap_or(original.len());
    let (stem, extension) = original.split_at(extension);
    name.len() > original.len() && (name.starts_with(original) || (name.starts_with(stem) && name.ends_with(extension)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_named_after_its_original() {
        let check = |copy: &str, original: &str| extends(Path::new(copy), Path::new(original));
        assert!(check("/l/app.log.1", "/l/app.log"));
        assert!(check("/l/app-20261125.log", "/l/app.log"));
        assert!(check("/l/app.1", "/l/app"));
        assert!(!check("/l/app.log", "/l/app.log"));
        assert!(!check("/l/app.log", "/l/app.log.1"));
        assert!(!check("/m/app.log.1", "/l/app.log"));
        assert!(!check("/l/twin-2.log", "/l/twin-1.log"));
    }
}
