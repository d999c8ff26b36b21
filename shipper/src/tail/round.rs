//! The slow round over all files: growth that no hint told, unfinished lines that waited long enough, files that ended.

use std::time::Duration;

use tracing::info;

use super::source::Fate;
use super::{Now, Tailer};
use crate::checkpoint::store::Store;
use crate::encode::Format;
use crate::produce::Broker;
use crate::read::FileSystem;

impl<F: FileSystem, B: Broker, S: Store> Tailer<F, B, S> {
    /// Looks at every open file: growth that no hint told, unfinished lines that waited long enough, files that ended.
    pub fn look_around(&mut self, now: Now) {
        for slot in 0..self.sources.len() {
            let Some(source) = self.sources[slot].as_mut() else { continue };
            if let Some(Ok(stat)) = source.file.as_ref().map(|file| self.files.stat(file)) {
                if stat.num_links == 0 && source.fate != Fate::Replaced {
                    source.fate = Fate::Deleted;
                }
                let look = (stat.size, stat.modified_ns);
                if look != source.last_look {
                    source.last_look = look;
                    source.size = source.size.max(stat.size);
                    source.grown_at = now.mono;
                    Self::enqueue(&mut self.ready, slot, source);
                } else if stat.size > source.read_end {
                    Self::enqueue(&mut self.ready, slot, source);
                }
            }
            if source.retry_at.is_some_and(|at| now.mono >= at) && !source.ledger.has_failed() {
                source.retry_at = None;
                Self::enqueue(&mut self.ready, slot, source);
            }
            self.flush_unfinished(slot, now);
            self.retire(slot, now);
        }
        self.trim_absent();
    }

    /// Ends an unfinished last line by a noted boundary once it waited long enough.
    fn flush_unfinished(&mut self, slot: usize, now: Now) {
        let Some(source) = self.sources[slot].as_mut() else { return };
        let Some(end) = source.unfinished else { return };
        let is_text = self.settings.inputs[source.input].format == Format::Text;
        let patience = match source.fate {
            _ if self.is_flushing => Duration::ZERO,
            // It was renamed to a name that a pattern matches too.
            Fate::Listed if source.current_path != source.path => self.settings.rotate_wait,
            Fate::Listed if is_text => self.settings.partial_after,
            Fate::Listed => return,
            Fate::Unlisted | Fate::Deleted | Fate::Replaced => self.settings.rotate_wait,
        };
        if source.is_queued || source.waits_for.is_some() || now.mono < source.grown_at + patience {
            return;
        }
        source.unfinished = None;
        source.boundaries.push(end);
        source.boundaries.sort_unstable();
        source.boundaries.dedup();
        self.wait_for_save(slot);
    }

    /// Lets go of a file that ended: nobody can write to it, or nobody did for long.
    fn retire(&mut self, slot: usize, now: Now) {
        let Some(source) = self.sources[slot].as_mut() else { return };
        let patience = match source.fate {
            Fate::Listed | Fate::Replaced => return,
            Fate::Deleted => self.settings.rotate_wait,
            Fate::Unlisted => self.settings.close_unlisted,
        };
        let is_read = !source.is_queued && source.unfinished.is_none() && source.is_settled();
        if !is_read || source.retry_at.is_some() || now.mono < source.grown_at + patience {
            return;
        }
        let mut source = match self.remove(slot) {
            Some(source) => source,
            None => return,
        };
        self.is_dirty = true;
        if source.fate == Fate::Unlisted {
            self.absent.push(source.row(&self.settings.inputs[source.input].id));
        }
        info!(path = %source.path.display(), source = %source.id, size = source.size, fate = ?source.fate, "file finished");
    }

    fn trim_absent(&mut self) {
        let excess = self.absent.len().saturating_sub(self.settings.max_absent);
        if excess > 0 {
            self.absent.sort_by_key(|row| row.last_seen_ms);
            self.absent.drain(..excess);
            self.is_dirty = true;
        }
    }
}
