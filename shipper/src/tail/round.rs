//! The slow round over all files: growth that no hint told, unfinished lines that waited long enough, files that ended.

use std::time::Duration;

use tracing::info;

use super::source::Fate;
use super::{Now, Tailer};
use crate::checkpoint::store::Store;
use crate::produce::Broker;
use crate::read::FileSystem;

impl<F: FileSystem, B: Broker, S: Store> Tailer<F, B, S> {
    /// Looks at every open file: growth that no hint told, unfinished lines that waited long enough, files that ended.
    pub fn look_around(&mut self, now: Now) {
        self.awaits_events_until = self.awaits_events_until.filter(|until| now.mono < *until);
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
                } else if stat.size > source.read_end || source.waits_for_source() {
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
        if source.is_queued || source.waits_for.is_some() || now.mono < source.grown_at + patience {
            return;
        }
        self.end_at(slot, end);
    }

    /// Lets go of a file that ended: nobody can write to it, or nobody did for long.
    fn retire(&mut self, slot: usize, now: Now) {
        let Some(source) = self.sources[slot].as_mut() else { return };
        let patience = match source.fate {
            Fate::Listed | Fate::Replaced => return,
            Fate::Deleted => self.settings.rotate_wait,
            Fate::Unlisted => self.settings.close_unlisted,
        };
        let is_read =
            !source.is_queued && source.unfinished.is_none() && source.waiting.is_none() && source.is_settled();
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
