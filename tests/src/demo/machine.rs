//! This machine's own log files.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::tally::Tally;

/// Enough to be real, little enough for a minute.
const MAX_BYTES: u64 = 24 * 1024 * 1024;
const MAX_FILES: usize = 12;
const MAX_DEPTH: u32 = 2;

/// One log file that was there before the demo.
#[derive(Clone, Debug)]
pub struct MachineLog {
    pub path: PathBuf,
    inode: u64,
}

/// Finds text files below `/var/log` that may be read, up to some count and size, the smallest first.
pub fn find() -> Vec<MachineLog> {
    let mut found = Vec::new();
    collect(Path::new("/var/log"), MAX_DEPTH, &mut found);
    found.sort();
    let mut room = MAX_BYTES;
    let mut logs = Vec::new();
    for (size, path, inode) in found {
        if size > room || logs.len() == MAX_FILES {
            break;
        }
        room -= size;
        logs.push(MachineLog { path, inode });
    }
    logs
}

fn collect(dir: &Path, depth: u32, found: &mut Vec<(u64, PathBuf, u64)>) {
    // What may not be read is not this machine's readable log.
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(meta) = fs::symlink_metadata(&path) else {
            continue;
        };
        if meta.is_dir() && depth > 0 {
            collect(&path, depth - 1, found);
        } else if meta.is_file() && meta.len() > 0 && is_log_name(&path) && is_text(&path) {
            found.push((meta.len(), path, meta.ino()));
        }
    }
}

fn is_log_name(path: &Path) -> bool {
    const WITHOUT_EXTENSION: [&str; 6] = ["syslog", "messages", "dmesg", "boot", "kern", "secure"];
    let is_log = path.extension().is_some_and(|extension| extension == "log");
    // The names go into a list of patterns, where other characters have a meaning.
    let text = path.to_str().unwrap_or_default();
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-._".contains(&byte));
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    is_plain && (is_log || WITHOUT_EXTENSION.contains(&name))
}

/// True if the file may be read and begins with text.
fn is_text(path: &Path) -> bool {
    let mut start = [0; 8192];
    let read = File::open(path).and_then(|mut file| file.read(&mut start));
    read.is_ok_and(|len| len > 0 && !start[..len].contains(&0))
}

impl MachineLog {
    /// Counts the lines that the file holds now. Blank lines and an unfinished last one are no lines to ship.
    ///
    /// # Errors
    ///
    /// If the file cannot be read any longer, or is another one now.
    pub fn read(&self) -> Result<Snapshot> {
        let file = File::open(&self.path).with_context(|| format!("cannot open {}", self.path.display()))?;
        let is_same = file.metadata()?.ino() == self.inode;
        is_same.then_some(()).with_context(|| format!("{} was rotated meanwhile", self.path.display()))?;
        let mut reader = BufReader::new(file);
        let (mut tally, mut size, mut line) = (Tally::default(), 0, Vec::new());
        loop {
            line.clear();
            let len = reader.read_until(b'\n', &mut line)?;
            if line.pop() != Some(b'\n') {
                return Ok(Snapshot { tally, size });
            }
            size += len as u64;
            let content = line.strip_suffix(b"\r").unwrap_or(&line);
            if !content.is_empty() {
                tally.add(&[&String::from_utf8_lossy(content)]);
            }
        }
    }
}

/// What a file held at one moment.
pub struct Snapshot {
    pub tally: Tally,
    /// The position after the last whole line. What is shipped from beyond came later.
    pub size: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshot_counts_whole_lines_that_are_not_blank() {
        let path = crate::scratch::dir("machine").unwrap().join("x.log");
        fs::write(&path, "one\n\n two\r\n\r\nthr\u{fffd}e\nunfinished").unwrap();
        let log = MachineLog { inode: fs::metadata(&path).unwrap().ino(), path };
        let snapshot = log.read().unwrap();
        assert_eq!((snapshot.tally.total(), snapshot.size), (3, 21));
        let moved = MachineLog { inode: log.inode + 1, ..log };
        assert!(moved.read().is_err());
    }
}
