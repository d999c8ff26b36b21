//! The kernel's hints (inotify) that something changed. Only hints: what they miss, the periodic scan finds.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tracing::warn;

/// What the hints of one turn add up to.
#[derive(Debug, Default)]
pub struct Hints {
    /// Files that were written to.
    pub written: Vec<PathBuf>,
    /// Files or folders came, went or were renamed, or hints were lost: scan.
    pub scan: bool,
}

/// Watches on folders.
pub struct Watcher {
    inotify: OwnedFd,
    folders: HashMap<i32, PathBuf>,
    watched: BTreeMap<PathBuf, i32>,
    num_unwatched: usize,
}

impl Watcher {
    pub fn new() -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        Ok(Self { inotify, folders: HashMap::new(), watched: BTreeMap::new(), num_unwatched: 0 })
    }

    /// Readable when hints wait.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }

    /// Whether every folder asked for is watched; if not, only scans see changes.
    pub fn is_complete(&self) -> bool {
        self.num_unwatched == 0
    }

    /// Folders that could not be watched.
    pub fn num_unwatched(&self) -> usize {
        self.num_unwatched
    }

    /// Watches exactly `folders`. What cannot be watched (limit of `fs.inotify.max_user_watches`) is logged once.
    pub fn set_folders(&mut self, folders: BTreeSet<PathBuf>) {
        let was_complete = self.is_complete();
        self.num_unwatched = 0;
        let gone: Vec<_> = self.folders.iter().filter(|(_, p)| !folders.contains(*p)).map(|(wd, _)| *wd).collect();
        for wd in gone {
            if let Some(path) = self.folders.remove(&wd) {
                self.watched.remove(&path);
            }
            // The kernel has already dropped the watch of a folder that was deleted.
            let _ = inotify::remove_watch(&self.inotify, wd);
        }
        for folder in folders {
            // Adding again is idempotent and repairs a watch whose folder was replaced under the same name.
            match inotify::add_watch(&self.inotify, &folder, Self::interest()) {
                Ok(wd) => {
                    let before = self.watched.insert(folder.clone(), wd);
                    self.folders.insert(wd, folder);
                    // A link that points elsewhere now; its folder may still be watched by another name.
                    if let Some(before) = before.filter(|&before| !self.watched.values().any(|&wd| wd == before)) {
                        self.folders.remove(&before);
                        // It fails if the kernel has dropped the watch already.
                        let _ = inotify::remove_watch(&self.inotify, before);
                    }
                }
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(cause) => {
                    if was_complete && self.is_complete() {
                        warn!(folder = %folder.display(), error = %cause, "cannot watch a folder, relying on periodic scans");
                    }
                    self.num_unwatched += 1;
                }
            }
        }
    }

    fn interest() -> WatchFlags {
        WatchFlags::MODIFY
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::ATTRIB
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR
    }

    /// Takes the hints that wait, without blocking.
    pub fn take(&mut self) -> Hints {
        let mut hints = Hints::default();
        let mut buffer = [MaybeUninit::uninit(); 8192];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return hints,
                Err(cause) => {
                    warn!(error = %cause, "cannot read file system events, scanning instead");
                    hints.scan = true;
                    return hints;
                }
            };
            let flags = event.events();
            if !flags.contains(ReadFlags::MODIFY) {
                hints.scan = true;
                continue;
            }
            let name = event.file_name().map(|n| OsStr::from_bytes(n.to_bytes()));
            if let (Some(folder), Some(name)) = (self.folders.get(&event.wd()), name) {
                let path = folder.join(name);
                if hints.written.last() != Some(&path) {
                    hints.written.push(path);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;

    #[test]
    fn hints_name_the_written_file_and_ask_for_a_scan_when_names_change() {
        let root = tempfile::tempdir().unwrap();
        let mut watcher = Watcher::new().unwrap();
        watcher.set_folders(BTreeSet::from([root.path().to_owned()]));
        assert!(!watcher.take().scan);
        let path = root.path().join("a.log");
        let mut file = fs::File::create(&path).unwrap();
        assert!(watcher.take().scan);
        file.write_all(b"x\n").unwrap();
        let hints = watcher.take();
        assert_eq!((hints.written, hints.scan), (vec![path.clone()], false));
        fs::rename(&path, root.path().join("b.log")).unwrap();
        assert!(watcher.take().scan);
    }

    #[test]
    fn a_folder_replaced_under_the_same_name_is_watched_again() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("logs");
        fs::create_dir(&folder).unwrap();
        let mut watcher = Watcher::new().unwrap();
        let folders = BTreeSet::from([folder.clone()]);
        watcher.set_folders(folders.clone());
        fs::remove_dir(&folder).unwrap();
        fs::create_dir(&folder).unwrap();
        watcher.take();
        watcher.set_folders(folders);
        fs::write(folder.join("a.log"), "x").unwrap();
        assert_eq!(watcher.take().written, [folder.join("a.log")]);
    }

    #[test]
    fn a_link_that_points_elsewhere_gives_its_old_watch_back() {
        let root = tempfile::tempdir().unwrap();
        let mut watcher = Watcher::new().unwrap();
        let link = root.path().join("current");
        for version in ["v1", "v2", "v3"] {
            fs::create_dir(root.path().join(version)).unwrap();
            let _ = fs::remove_file(&link);
            std::os::unix::fs::symlink(version, &link).unwrap();
            watcher.set_folders(BTreeSet::from([link.clone(), root.path().join("v2")]));
        }
        assert_eq!(watcher.folders.len(), 2);
        watcher.take();
        fs::write(root.path().join("v1/a.log"), "x").unwrap();
        fs::write(root.path().join("v2/a.log"), "x").unwrap();
        fs::write(root.path().join("v3/a.log"), "x").unwrap();
        assert_eq!(watcher.take().written, [root.path().join("v2/a.log"), link.join("a.log")]);
    }
}
