//! From one tailer to the next of the same process, which has other settings.
//!
//! Positions go by the checkpoint, as over a restart. What a restart could lose or count anew goes by memory: open files that
//! were deleted or renamed out of the patterns meanwhile, and the counters.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};

use millrace_common::record::SourceId;
use tracing::warn;

use super::begin::Opened;
use super::stats::{Given, Stats};
use super::tally::Tally;
use super::{Now, Tailer};
use crate::checkpoint::store::Store;
use crate::produce::Broker;
use crate::read::FileSystem;

/// An open file.
pub struct Kept<T> {
    input: String,
    /// Where it was first found, and last.
    path: PathBuf,
    current_path: PathBuf,
    file: T,
}

/// What one tailer leaves to the next.
pub struct Legacy<T> {
    files: Vec<Kept<T>>,
    tallies: HashMap<SourceId, Tally>,
    stats: Stats,
    given: VecDeque<Given>,
}

impl<F: FileSystem, B: Broker, S: Store> Tailer<F, B, S> {
    /// As [`Self::stop_reading`], but leaves the files open.
    pub fn leave_files(&mut self) -> Vec<Kept<F::File>> {
        let mut kept = Vec::new();
        for source in self.sources.iter_mut().flatten().filter(|source| !source.is_given_up()) {
            let Some(file) = source.file.take() else { continue };
            let input = self.settings.inputs[source.input].id.clone();
            kept.push(Kept { input, path: source.path.clone(), current_path: source.current_path.clone(), file });
        }
        self.stop_reading();
        kept
    }

    /// Ends, after the last save.
    pub fn into_legacy(self, files: Vec<Kept<F::File>>) -> (Legacy<F::File>, B, S) {
        let Self { sources, inherited: mut tallies, stats, given, broker, store, .. } = self;
        tallies.extend(sources.into_iter().flatten().map(|source| (source.id, source.tally)));
        (Legacy { files, tallies, stats, given }, broker, store)
    }

    /// Goes on with what another one left, before the first scan. A file is taken over if `is_ours` says so of its input (by
    /// place) and the path where it was first found.
    pub fn inherit(&mut self, legacy: Legacy<F::File>, is_ours: impl Fn(usize, &Path) -> bool, now: Now) {
        let Legacy { files, tallies, stats, given } = legacy;
        (self.stats, self.given, self.inherited) = (stats, given, tallies);
        for Kept { input, path, current_path, file } in files {
            let input = self.settings.inputs.iter().position(|known| known.id == input);
            let Some(input) = input.filter(|&input| is_ours(input, &path)) else { continue };
            let stat = self.files.stat(&file);
            let begin = |stat| self.begin(Opened { input, path: current_path.clone(), file, stat }, now);
            match stat.and_then(begin) {
                Ok(source) => {
                    let slot = self.insert(source);
                    if let Some(source) = self.sources[slot].as_mut() {
                        Self::enqueue(&mut self.ready, slot, source);
                    }
                }
                Err(cause) => {
                    warn!(path = %current_path.display(), error = %cause, "cannot read the file on, looking for it again");
                }
            }
        }
    }
}
