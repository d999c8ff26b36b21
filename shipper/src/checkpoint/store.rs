//! The checkpoint on disk, and the folder that holds it.
//!
//! A save is written aside, synced, renamed over the current file, and the folder is synced (POSIX rename is atomic, but
//! only a synced folder survives a power cut). The generation before is kept as `checkpoint.old`.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fs::FlockOperation;
use tracing::{error, info, warn};

use super::row::{self, Row};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot create the data folder `{}`", path.display())]
    Create {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error("the data folder `{}` is used by process {owner}: stop it, or give each shipper its own --data-dir", path.display())]
    Locked { path: PathBuf, owner: String },
    #[error("cannot use `{}`", path.display())]
    File {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
}

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |cause| StoreError::File { path, cause }
}

/// The data folder, locked for this process.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
    /// Saves that failed, over all stores of this folder.
    failures: Arc<AtomicU64>,
}

/// What was found at start.
#[derive(Debug, Default)]
pub struct Loaded {
    pub rows: Vec<Row>,
    /// Checkpoints that could not be read and were set aside.
    pub num_corrupt: u64,
    /// There is none that can be read.
    pub is_missing: bool,
}

impl DataDir {
    /// Creates the folder if needed and locks it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(path).map_err(|cause| StoreError::Create { path: path.to_owned(), cause })?;
        let lock_path = path.join("lock");
        let mut lock = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(file_error(&lock_path))?;
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut owner = String::new();
            lock.read_to_string(&mut owner).map_err(file_error(&lock_path))?;
            return Err(StoreError::Locked { path: path.to_owned(), owner: owner.trim().to_owned() });
        }
        lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(file_error(&lock_path))?;
        Ok(Self { path: path.to_owned(), _lock: lock, failures: Arc::default() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The host id stored at first start, or `fresh()` stored now.
    pub fn host_id(&self, fresh: impl FnOnce() -> String) -> Result<String, StoreError> {
        let path = self.path.join("host-id");
        match fs::read_to_string(&path) {
            Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
            Ok(_) => {}
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => return Err(file_error(&path)(cause)),
        }
        let id = fresh();
        replace(&path, format!("{id}\n").as_bytes()).map_err(file_error(&path))?;
        Ok(id)
    }

    /// Reads the newest checkpoint that is whole. Damaged ones are renamed, so that a person can look at them.
    pub fn load(&self) -> Result<Loaded, StoreError> {
        let mut loaded = Loaded { is_missing: true, ..Loaded::default() };
        for name in [CURRENT, OLD] {
            let path = self.path.join(name);
            let text = match fs::read(&path) {
                Ok(text) => text,
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => continue,
                Err(cause) => return Err(file_error(&path)(cause)),
            };
            match row::from_text(&text) {
                Ok(rows) => {
                    loaded.rows = rows;
                    loaded.is_missing = false;
                    break;
                }
                Err(fault) => {
                    loaded.num_corrupt += 1;
                    let aside = self.aside();
                    error!(
                        file = %path.display(), fault = %fault, moved_to = %aside.display(),
                        "checkpoint cannot be read, falling back to the one before"
                    );
                    fs::rename(&path, &aside).map_err(file_error(&aside))?;
                }
            }
        }
        Ok(loaded)
    }

    fn aside(&self) -> PathBuf {
        let names = (1..).map(|n| self.path.join(format!("{CURRENT}.corrupt-{n}")));
        names.into_iter().find(|p| !p.exists()).unwrap_or_else(|| self.path.join("checkpoint.corrupt"))
    }

    /// Replaces the checkpoint; the one before is kept beside it.
    pub fn save(&self, rows: &[Row]) -> io::Result<()> {
        let (current, old, link) = (self.path.join(CURRENT), self.path.join(OLD), self.path.join("checkpoint.link"));
        let aside = write_aside(&current, |file| {
            let mut file = BufWriter::new(file);
            row::write(rows, &mut file)?;
            file.flush()
        })?;
        // Only now: a disk without room must not cost the generation before.
        remove_if_there(&link)?;
        match fs::hard_link(&current, &link) {
            Ok(()) => fs::rename(&link, &old)?,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => return Err(cause),
        }
        put_in_place(&aside, &current)
    }
}

/// Reads the newest checkpoint of a folder that another process may use, and changes nothing. Empty without one.
pub fn read_checkpoint(dir: &Path) -> Result<Vec<Row>, StoreError> {
    fs::metadata(dir).map_err(file_error(dir))?;
    for name in [CURRENT, OLD] {
        let path = dir.join(name);
        match fs::read(&path) {
            Ok(text) => match row::from_text(&text) {
                Ok(rows) => return Ok(rows),
                Err(fault) => warn!(file = %path.display(), %fault, "checkpoint cannot be read, trying the one before"),
            },
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => return Err(file_error(&path)(cause)),
        }
    }
    Ok(Vec::new())
}

/// The process that has the folder locked, if one has.
pub fn owner(dir: &Path) -> Result<Option<String>, StoreError> {
    let path = dir.join("lock");
    let mut lock = match File::open(&path) {
        Ok(lock) => lock,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(file_error(&path)(cause)),
    };
    if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared).is_ok() {
        return Ok(None);
    }
    let mut owner = String::new();
    lock.read_to_string(&mut owner).map_err(file_error(&path))?;
    Ok(Some(owner.trim().to_owned()))
}

const CURRENT: &str = "checkpoint";
const OLD: &str = "checkpoint.old";

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause),
        _ => Ok(()),
    }
}

/// Replaces a file at once or not at all.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    put_in_place(&write_aside(path, |file| file.write_all(text))?, path)
}

fn write_aside(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<PathBuf> {
    let aside = path.with_extension("new");
    let mut file = File::create(&aside)?;
    write(&mut file)?;
    file.sync_all()?;
    Ok(aside)
}

fn put_in_place(aside: &Path, path: &Path) -> io::Result<()> {
    fs::rename(aside, path)?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// The operations on durable state that the tailer needs. Saves are numbered by the caller, ascending.
pub trait Store {
    /// Whether a save can be taken now; one is under way at most.
    fn is_ready(&self) -> bool;
    /// Starts to save all rows as number `version`.
    fn save(&mut self, version: u64, rows: Vec<Row>);
    /// The highest version that is durable.
    fn durable(&self) -> u64;
    /// Saves that failed so far in this process (full disk, I/O fault). The newest version is tried again until it succeeds.
    fn num_failures(&self) -> u64;
}

struct Progress {
    durable: AtomicU64,
    submitted: AtomicU64,
    failures: Arc<AtomicU64>,
}

/// Saves on a thread of its own, so that reading does not wait for the disk.
pub struct DiskStore {
    requests: Option<SyncSender<(u64, Vec<Row>)>>,
    progress: Arc<Progress>,
    thread: Option<JoinHandle<DataDir>>,
}

impl DiskStore {
    /// `wake` is called after each save.
    pub fn start(dir: DataDir, wake: impl Fn() + Send + 'static) -> io::Result<Self> {
        let (requests, inbox) = mpsc::sync_channel(1);
        let progress = Arc::new(Progress {
            durable: AtomicU64::new(0),
            submitted: AtomicU64::new(0),
            failures: Arc::clone(&dir.failures),
        });
        let shared = Arc::clone(&progress);
        let run = move || {
            write_all(&dir, &inbox, &shared, &wake);
            dir
        };
        let thread = std::thread::Builder::new().name("checkpoint".into()).spawn(run)?;
        Ok(Self { requests: Some(requests), progress, thread: Some(thread) })
    }

    /// Ends the thread and gives the folder back, still locked. `None` if the thread panicked.
    pub fn close(mut self) -> Option<DataDir> {
        self.requests = None;
        self.thread.take()?.join().ok()
    }
}

fn write_all(dir: &DataDir, inbox: &Receiver<(u64, Vec<Row>)>, progress: &Progress, wake: &dyn Fn()) {
    const RETRY: Duration = Duration::from_secs(1);
    let mut failing = false;
    while let Ok((version, rows)) = inbox.recv() {
        loop {
            match dir.save(&rows) {
                Ok(()) => break,
                Err(cause) => {
                    progress.failures.fetch_add(1, Ordering::Relaxed);
                    if !failing {
                        error!(folder = %dir.path.display(), error = %cause, "cannot save the checkpoint, trying again");
                    }
                    failing = true;
                    // A newer request replaces this one, and a closed inbox ends the attempts.
                    match inbox.recv_timeout(RETRY) {
                        Err(mpsc::RecvTimeoutError::Disconnected) => {
                            warn!("stopped with a checkpoint that could not be saved");
                            return;
                        }
                        Err(mpsc::RecvTimeoutError::Timeout) | Ok(_) => {}
                    }
                }
            }
        }
        if std::mem::take(&mut failing) {
            info!("checkpoint saved again");
        }
        progress.durable.store(version, Ordering::Release);
        wake();
    }
}

impl Store for DiskStore {
    fn is_ready(&self) -> bool {
        self.progress.submitted.load(Ordering::Relaxed) == self.progress.durable.load(Ordering::Acquire)
    }

    fn save(&mut self, version: u64, rows: Vec<Row>) {
        let Some(requests) = &self.requests else { return };
        match requests.try_send((version, rows)) {
            Ok(()) => self.progress.submitted.store(version, Ordering::Relaxed),
            // Not ready, or the thread is gone: the caller sees `is_ready` stay false and asks again.
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }

    fn durable(&self) -> u64 {
        self.progress.durable.load(Ordering::Acquire)
    }

    fn num_failures(&self) -> u64 {
        self.progress.failures.load(Ordering::Relaxed)
    }
}

impl Drop for DiskStore {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the checkpoint thread panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(num: usize) -> Vec<Row> {
        use crate::checkpoint::row::{Guard, Print};
        let identity = crate::read::Identity { device: 1, inode: 2, birth_time_ns: 3 };
        let row = Row {
            open: [0; 2],
            carry: None,
            carried: None,
            source: millrace_common::record::SourceId::from_u64(1),
            input: "app".into(),
            path: "/a".into(),
            current_path: "/a".into(),
            identity,
            generation: 0,
            size: 0,
            acknowledged: num as u64,
            gaps: crate::checkpoint::gaps::Gaps::default(),
            horizon: 0,
            prefix: Print::default(),
            guard: Guard::default(),
            hours: vec![],
            boundaries: vec![],
            last_seen_ms: 0,
        };
        vec![row; num]
    }

    #[test]
    fn a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::open(folder.path()).unwrap();
        dir.save(&rows(1)).unwrap();
        dir.save(&rows(2)).unwrap();
        assert_eq!(dir.load().unwrap().rows, rows(2));
        fs::write(folder.path().join(CURRENT), b"\0\0\0\0").unwrap();
        let loaded = dir.load().unwrap();
        assert_eq!((loaded.rows, loaded.num_corrupt), (rows(1), 1));
        assert!(folder.path().join("checkpoint.corrupt-1").exists());
        dir.save(&rows(3)).unwrap();
        assert_eq!(dir.load().unwrap().rows, rows(3));
    }

    #[test]
    fn a_second_process_is_refused_and_told_the_owner() {
        let folder = tempfile::tempdir().unwrap();
        let _first = DataDir::open(folder.path()).unwrap();
        let second = DataDir::open(folder.path()).unwrap_err().to_string();
        assert!(second.contains(&format!("process {}", std::process::id())), "{second}");
    }

    #[test]
    fn the_host_id_is_stored_once() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::open(folder.path()).unwrap();
        assert_eq!(dir.host_id(|| "first".into()).unwrap(), "first");
        assert_eq!(dir.host_id(|| "second".into()).unwrap(), "first");
    }

    #[test]
    fn a_save_is_durable_once_it_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let (done, saved) = mpsc::sync_channel(1);
        let dir = DataDir::open(folder.path()).unwrap();
        let mut store = DiskStore::start(dir, move || done.send(()).unwrap()).unwrap();
        assert!(store.is_ready());
        store.save(7, rows(2));
        saved.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(store.durable(), 7);
        let dir = store.close().unwrap();
        assert!(DataDir::open(folder.path()).is_err(), "it is locked all the time");
        assert_eq!(dir.load().unwrap().rows, rows(2));
        drop(dir);
        assert_eq!(DataDir::open(folder.path()).unwrap().load().unwrap().rows, rows(2));
    }
}
