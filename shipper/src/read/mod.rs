//! Files as the tailer sees them, behind a trait so that a simulation can stand in. No decisions are taken here.

mod reach;

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

pub use self::reach::Reach;

/// What makes a file this file. The birth time is 0 where the file system has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    pub device: u64,
    pub inode: u64,
    pub birth_time_ns: u64,
}

impl Identity {
    /// Whether both name one file, perhaps before and after a reboot, which may change device numbers: they only decide where
    /// the file system has no birth times.
    pub fn is_same_file(&self, other: &Self) -> bool {
        self.inode == other.inode
            && self.birth_time_ns == other.birth_time_ns
            && (self.birth_time_ns != 0 || self.device == other.device)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStat {
    pub identity: Identity,
    pub size: u64,
    /// Nanoseconds since the epoch; only compared.
    pub modified_ns: i64,
    pub num_links: u64,
    pub is_regular: bool,
}

/// The operations on files that the tailer needs.
pub trait FileSystem {
    type File;

    /// Fails if the path leads, through links, to a file outside of `reach`.
    fn open(&self, path: &Path, reach: &Reach) -> io::Result<Self::File>;
    fn stat_path(&self, path: &Path) -> io::Result<FileStat>;
    fn stat(&self, file: &Self::File) -> io::Result<FileStat>;
    /// Reads up to `buffer.len()` bytes at `position`; fewer only at the end of the file, where 0 is returned.
    fn read_at(&self, file: &Self::File, buffer: &mut [u8], position: u64) -> io::Result<usize>;
    /// The share of the file's disk that is free, in hundredths.
    fn free_percent(&self, file: &Self::File) -> io::Result<f64>;
}

/// The real file system.
pub struct Disk;

/// Opens a file for reading, wherever links lead.
pub fn open(path: &Path) -> io::Result<File> {
    // Without O_NONBLOCK, a FIFO would block the open until it has a writer.
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC | rustix::fs::OFlags::NOCTTY;
    std::fs::OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)
}

impl FileSystem for Disk {
    type File = File;

    fn open(&self, path: &Path, reach: &Reach) -> io::Result<File> {
        let file = open(path)?;
        reach.check_open(&file)?;
        Ok(file)
    }

    fn stat_path(&self, path: &Path) -> io::Result<FileStat> {
        std::fs::metadata(path).map(|m| file_stat(&m))
    }

    fn stat(&self, file: &File) -> io::Result<FileStat> {
        file.metadata().map(|m| file_stat(&m))
    }

    fn read_at(&self, file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read_at(&mut buffer[filled..], position + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // What was read before the fault is good; the fault comes again at its own position.
                Err(_) if filled > 0 => break,
                Err(e) => return Err(e),
            }
        }
        Ok(filled)
    }

    fn free_percent(&self, file: &File) -> io::Result<f64> {
        let disk = rustix::fs::fstatvfs(file)?;
        // What only root may use is as good as used.
        Ok(disk.f_bavail as f64 * 100.0 / disk.f_blocks.max(1) as f64)
    }
}

fn file_stat(metadata: &std::fs::Metadata) -> FileStat {
    let birth_time = metadata.created().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
    FileStat {
        identity: Identity {
            device: metadata.dev(),
            inode: metadata.ino(),
            birth_time_ns: birth_time.map_or(0, |t| t.as_nanos() as u64),
        },
        size: metadata.len(),
        modified_ns: metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec()),
        num_links: metadata.nlink(),
        is_regular: metadata.is_file(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_decides_only_without_a_birth_time() {
        let identity = |device, inode, birth_time_ns| Identity { device, inode, birth_time_ns };
        for (a, b, expected) in [
            (identity(1, 7, 8), identity(2, 7, 8), true),
            (identity(1, 7, 8), identity(1, 7, 9), false),
            (identity(1, 7, 8), identity(1, 6, 8), false),
            (identity(1, 7, 0), identity(1, 7, 0), true),
            (identity(1, 7, 0), identity(2, 7, 0), false),
        ] {
            assert_eq!(a.is_same_file(&b), expected, "{a:?} {b:?}");
        }
    }
}
