//! A file system whose reads hang or fail when told so: one folder with files, served over FUSE by a thread of ours.
//!
//! Only what the tests need of the protocol (`linux/fuse.h`, version 7.31): look up, examine, open, list, read. It can only be
//! mounted by root.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};

use crate::lock;

/// What becomes of reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    Answered,
    /// Never answered, until that changes.
    Hang,
    /// Input/output error.
    Fail,
}

struct State {
    files: BTreeMap<String, Vec<u8>>,
    reads: Reads,
    hung: Vec<Request>,
}

struct Request {
    unique: u64,
    node: u64,
    offset: u64,
    size: usize,
}

/// A mounted folder. It goes away with this value; reads that hang fail then.
pub struct HangingFiles {
    dir: PathBuf,
    device: File,
    state: Arc<Mutex<State>>,
}

const ROOT: u64 = 1;
const EIO: i32 = 5;
const ENOENT: i32 = 2;
const ENOSYS: i32 = 38;

impl HangingFiles {
    /// Mounts it on `dir`, which must be an empty folder.
    ///
    /// # Errors
    ///
    /// If it cannot be mounted.
    pub fn mount(dir: &Path) -> Result<Self> {
        let device = File::options().read(true).write(true).open("/dev/fuse").context("cannot open /dev/fuse")?;
        let options = "fd=0,rootmode=40000,user_id=0,group_id=0,allow_other";
        let status = Command::new("mount")
            .args(["-i", "-t", "fuse", "-o", options, "hanging"])
            .arg(dir)
            .stdin(Stdio::from(device.try_clone()?))
            .status()?;
        ensure!(status.success(), "cannot mount a FUSE file system: {status}");
        let state = State { files: BTreeMap::new(), reads: Reads::Answered, hung: Vec::new() };
        let state = Arc::new(Mutex::new(state));
        let (served, shared) = (device.try_clone()?, Arc::clone(&state));
        std::thread::spawn(move || serve(&served, &shared));
        Ok(Self { dir: dir.to_owned(), device, state })
    }

    pub fn append(&self, name: &str, text: &str) {
        self.writer().append(name, text);
    }

    /// A hand that appends from elsewhere.
    pub fn writer(&self) -> Appender {
        Appender(Arc::clone(&self.state))
    }

    /// # Errors
    ///
    /// If the kernel does not take the answers.
    pub fn set(&self, reads: Reads) -> Result<()> {
        let mut state = lock(&self.state);
        state.reads = reads;
        if reads != Reads::Hang {
            for request in std::mem::take(&mut state.hung) {
                let (error, bytes) = state.read(&request);
                reply(&self.device, request.unique, error, &bytes)?;
            }
        }
        Ok(())
    }

    /// The number of reads that hang now.
    pub fn num_hung(&self) -> usize {
        lock(&self.state).hung.len()
    }
}

/// Appends to files of a [`HangingFiles`].
pub struct Appender(Arc<Mutex<State>>);

impl Appender {
    pub fn append(&self, name: &str, text: &str) {
        lock(&self.0).files.entry(name.to_owned()).or_default().extend_from_slice(text.as_bytes());
    }
}

impl Drop for HangingFiles {
    fn drop(&mut self) {
        // Whatever hangs is answered; then nobody asks any more.
        let _ = self.set(Reads::Fail);
        let _ = Command::new("umount").arg("-l").arg(&self.dir).status();
        let _ = fs::remove_dir(&self.dir);
    }
}

impl State {
    /// Files are numbered in the order of their names, from 2 on: none is ever removed while it is used.
    fn node(&self, name: &str) -> Option<u64> {
        self.files.keys().position(|other| other == name).map(|at| at as u64 + 2)
    }

    fn content(&self, node: u64) -> Option<&Vec<u8>> {
        self.files.values().nth(usize::try_from(node.checked_sub(2)?).ok()?)
    }

    fn attributes(&self, node: u64) -> Option<Vec<u8>> {
        let (mode, size) = match node {
            ROOT => (0o040_755_u32, 0),
            _ => (0o100_644, self.content(node)?.len() as u64),
        };
        let mut attributes = Vec::new();
        // Number, size, blocks, three times.
        for word in [node, size, size.div_ceil(512), 1, 1, 1] {
            attributes.extend_from_slice(&word.to_ne_bytes());
        }
        // Nanoseconds, mode, links, owner, device, block size, flags. The size stands in for the time of modification.
        for word in [0, size as u32, 0, mode, 1, 0, 0, 0, 4096, 0] {
            attributes.extend_from_slice(&word.to_ne_bytes());
        }
        Some(attributes)
    }

    fn read(&self, request: &Request) -> (i32, Vec<u8>) {
        if self.reads == Reads::Fail {
            return (EIO, Vec::new());
        }
        let content = self.content(request.node).map(Vec::as_slice).unwrap_or_default();
        let start = usize::try_from(request.offset).unwrap_or(usize::MAX).min(content.len());
        let end = start.saturating_add(request.size).min(content.len());
        (0, content[start..end].to_vec())
    }

    fn listing(&self, offset: u64) -> Vec<u8> {
        let mut listing = Vec::new();
        for (at, name) in self.files.keys().enumerate().skip(usize::try_from(offset).unwrap_or(usize::MAX)) {
            listing.extend_from_slice(&(at as u64 + 2).to_ne_bytes());
            listing.extend_from_slice(&(at as u64 + 1).to_ne_bytes());
            listing.extend_from_slice(&(name.len() as u32).to_ne_bytes());
            // A regular file.
            listing.extend_from_slice(&8_u32.to_ne_bytes());
            listing.extend_from_slice(name.as_bytes());
            listing.resize(listing.len().next_multiple_of(8), 0);
        }
        listing
    }

    /// The answer to a request: an error, or bytes. `None` if it gets none.
    fn answer(&mut self, opcode: u32, unique: u64, node: u64, body: &[u8]) -> Option<(i32, Vec<u8>)> {
        let word = |at: usize| body.get(at..at + 8).map_or(0, |b| u64::from_ne_bytes(b.try_into().expect("8 bytes")));
        let not_found = Some((ENOENT, Vec::new()));
        match opcode {
            // LOOKUP
            1 => {
                let name = String::from_utf8_lossy(body.strip_suffix(&[0]).unwrap_or(body)).into_owned();
                let Some(node) = self.node(&name) else { return not_found };
                let mut entry = node.to_ne_bytes().to_vec();
                entry.resize(40, 0);
                entry.extend(self.attributes(node)?);
                Some((0, entry))
            }
            // FORGET, INTERRUPT, BATCH_FORGET
            2 | 36 | 42 => None,
            // GETATTR
            3 => {
                let Some(attributes) = self.attributes(node) else { return not_found };
                Some((0, [vec![0; 16], attributes].concat()))
            }
            // OPEN, past the page cache
            14 => Some((0, [&[0; 8][..], &1_u32.to_ne_bytes(), &[0; 4]].concat())),
            // OPENDIR
            27 => Some((0, vec![0; 16])),
            // READ
            15 => {
                let request = Request { unique, node, offset: word(8), size: (word(16) & 0xffff_ffff) as usize };
                if self.reads == Reads::Hang {
                    self.hung.push(request);
                    return None;
                }
                Some(self.read(&request))
            }
            // RELEASE, FLUSH, RELEASEDIR
            18 | 25 | 29 => Some((0, Vec::new())),
            // INIT
            26 => {
                let mut init = Vec::new();
                for word in [7_u32, 31, 0, 0, 16 | 16 << 16, 65_536, 1] {
                    init.extend_from_slice(&word.to_ne_bytes());
                }
                init.resize(64, 0);
                Some((0, init))
            }
            // READDIR
            28 => Some((0, self.listing(word(8)))),
            _ => Some((ENOSYS, Vec::new())),
        }
    }
}

fn reply(mut device: &File, unique: u64, error: i32, bytes: &[u8]) -> std::io::Result<()> {
    let mut message = ((16 + bytes.len()) as u32).to_ne_bytes().to_vec();
    message.extend_from_slice(&(-error).to_ne_bytes());
    message.extend_from_slice(&unique.to_ne_bytes());
    message.extend_from_slice(bytes);
    device.write_all(&message)
}

/// Ends when it is unmounted.
fn serve(mut device: &File, state: &Mutex<State>) {
    let mut buffer = vec![0; 128 << 10];
    while let Ok(length) = device.read(&mut buffer) {
        let word = |at: usize| u64::from_ne_bytes(buffer[at..at + 8].try_into().expect("8 bytes"));
        let (opcode, unique, node) = ((word(0) >> 32) as u32, word(8), word(16));
        let answer = lock(state).answer(opcode, unique, node, &buffer[40..length]);
        if let Some((error, bytes)) = answer
            // The one who asked may have been killed.
            && reply(device, unique, error, &bytes).is_err_and(|cause| cause.raw_os_error() != Some(ENOENT))
        {
            return;
        }
    }
}
