//! Examines paths on a thread of its own: on a file system that hangs, the call never returns, and only this thread waits.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millrace_common::record::SourceId;

use super::stalls::{Examination, Seen};
use crate::read::{Disk, FileSystem};

#[derive(Default)]
struct State {
    seen: HashMap<SourceId, Seen>,
    current: Option<Examination>,
    num_changes: u64,
}

/// Files are never opened here, nor read.
pub struct Examiner {
    requests: SyncSender<Vec<(SourceId, PathBuf)>>,
    state: Arc<Mutex<State>>,
}

impl Examiner {
    /// # Errors
    /// There is no thread.
    pub fn start() -> std::io::Result<Self> {
        let (requests, inbox) = mpsc::sync_channel(1);
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        // Nobody waits for its end: it may hang for ever. It ends with the channel.
        std::thread::Builder::new().name("examine".into()).spawn(move || examine_all(&inbox, &shared))?;
        Ok(Self { requests, state })
    }

    /// Has the paths examined, unless the last ones still are.
    pub fn ask(&self, paths: Vec<(SourceId, PathBuf)>) {
        // Full: asked again soon.
        let _ = self.requests.try_send(paths);
    }

    /// Grows whenever [`Self::look`] shows something else than before.
    pub fn num_changes(&self) -> u64 {
        lock(&self.state).num_changes
    }

    /// Shows what was found last of each, and what has not returned.
    pub fn look<T>(&self, show: impl FnOnce(&HashMap<SourceId, Seen>, Option<Examination>) -> T) -> T {
        let state = lock(&self.state);
        show(&state.seen, state.current.clone())
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn examine_all(inbox: &Receiver<Vec<(SourceId, PathBuf)>>, state: &Mutex<State>) {
    while let Ok(paths) = inbox.recv() {
        let mut seen = HashMap::with_capacity(paths.len());
        for (id, path) in paths {
            change(state, |state| state.current = Some(Examination { path: path.clone(), number: state.num_changes }));
            // A path without a file is no stall: the file was deleted or renamed, and its descriptor is read on.
            let found = examine(&path);
            seen.extend(found.map(|found| (id, found)));
            change(state, |state| {
                match found {
                    Some(found) => state.seen.insert(id, found),
                    None => state.seen.remove(&id),
                };
            });
        }
        change(state, |state| (state.current, state.seen) = (None, seen));
    }
}

fn change(state: &Mutex<State>, change: impl FnOnce(&mut State)) {
    let mut state = lock(state);
    change(&mut state);
    state.num_changes += 1;
}

fn examine(path: &Path) -> Option<Seen> {
    let stat = Disk.stat_path(path).ok()?;
    let identity = stat.identity;
    Some(Seen { inode: identity.inode, birth_time_ns: identity.birth_time_ns, size: stat.size })
}
