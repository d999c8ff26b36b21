//! Descriptors are bounded. A file that was read is closed when others need its descriptor or it was quiet for long, and
//! opened again when it grows.

use std::io;
use std::time::Duration;

use super::source::Fate;
use super::{Now, Tailer};
use crate::checkpoint::store::Store;
use crate::produce::Broker;
use crate::read::FileSystem;

/// How soon a closed file that is not where it was is looked for again. A scan tells its new name, or that it is gone.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// So many of the longest open files are looked at for one that was read. One that was not goes to the end of the queue when
/// it is opened again.
const MAX_LOOKS: usize = 16;

impl<F: FileSystem, B: Broker, S: Store> Tailer<F, B, S> {
    /// Opens the file of a source if it was closed. Returns whether it is open.
    pub(super) fn open_again(&mut self, slot: usize, now: Now) -> bool {
        let Some(source) = self.sources[slot].as_ref() else { return false };
        if source.file.is_some() || !source.is_closed {
            return source.file.is_some();
        }
        let (path, input) = (source.current_path.clone(), source.input);
        let opened = match self.make_room() {
            true => {
                let file = self.files.open(&path, &self.settings.inputs[input].reach);
                file.and_then(|file| Ok((self.files.stat(&file)?, file)))
            }
            false => Err(io::ErrorKind::NotFound.into()),
        };
        let Some(source) = self.sources[slot].as_mut() else { return false };
        match opened {
            Ok((stat, file)) if stat.identity == source.identity => {
                source.file = Some(file);
                source.is_closed = false;
                self.opened.push_back(slot);
                return true;
            }
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                self.read_failed(slot, &cause, now);
            }
            _ => {
                source.retry_at = Some(now.mono + LOOK_AGAIN);
                self.wants_scan = true;
            }
        }
        false
    }

    /// Sees to it that one more file may be opened. False if all that are open must stay so.
    fn make_room(&mut self) -> bool {
        while !self.has_room() && (self.close_one(true) || self.close_one(false)) {}
        self.has_room()
    }

    /// Whether one more file may be opened.
    pub(super) fn has_room(&self) -> bool {
        self.opened.len() < self.settings.open_files
    }

    /// Closes the longest open file, or (`needs_done`) one of the longest open that was read. False if there is none that
    /// may be closed.
    pub(super) fn close_one(&mut self, needs_done: bool) -> bool {
        let num_looks = if needs_done { MAX_LOOKS } else { usize::MAX };
        let mut slots = self.opened.iter().take(num_looks);
        let Some(at) = slots.position(|&slot| self.may_close(slot, needs_done)) else { return false };
        if let Some(source) = self.opened.remove(at).and_then(|slot| self.sources[slot].as_mut()) {
            source.close();
        }
        true
    }

    pub(super) fn may_close_one(&self) -> bool {
        self.opened.iter().any(|&slot| self.may_close(slot, false))
    }

    fn may_close(&self, slot: usize, needs_done: bool) -> bool {
        let Some(source) = self.sources[slot].as_ref() else { return false };
        // What lies under its name now may be another file.
        source.fate == Fate::Listed
            && if needs_done { source.is_done() && !source.is_queued } else { !source.is_carrying() }
            && self.files.stat_path(&source.current_path).is_ok_and(|stat| stat.identity == source.identity)
    }

    /// Whether a file that was closed has not changed since. One that has is read on. An open one is looked at anyway.
    pub(super) fn is_as_left(&mut self, slot: usize, now: Now) -> bool {
        if self.sources[slot].as_ref().is_none_or(|source| !source.is_closed) {
            return true;
        }
        if !self.open_again(slot, now) {
            return false;
        }
        let file = self.sources[slot].as_ref().and_then(|source| source.file.as_ref());
        let Some(Ok(stat)) = file.map(|file| self.files.stat(file)) else { return false };
        self.note_look(slot, stat, now);
        self.sources[slot].as_ref().is_some_and(|source| !source.is_queued)
    }

    /// Closes a file that is read and was quiet for long.
    pub(super) fn close_quiet(&mut self, slot: usize, now: Now) {
        let Some(source) = self.sources[slot].as_mut() else { return };
        let is_quiet = now.mono >= source.grown_at + self.settings.close_idle;
        if is_quiet && source.file.is_some() && source.fate == Fate::Listed && source.is_done() && !source.is_queued {
            source.close();
            self.opened.retain(|&s| s != slot);
        }
    }
}
