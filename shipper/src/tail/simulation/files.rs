//! A file system in memory: inodes, names, descriptors that keep deleted files, inode numbers that are used again.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::random::Random;
use crate::read::{FileStat, FileSystem, Identity, Reach};

pub struct Inode {
    pub number: u64,
    pub birth_time_ns: u64,
    pub content: Vec<u8>,
    /// Takes the place of `content` in the middle of the next read.
    pub rewritten: Option<Vec<u8>>,
    pub num_links: u64,
}

impl Inode {
    /// A rewrite that no read has met happens now.
    pub fn content_mut(&mut self) -> &mut Vec<u8> {
        if let Some(content) = self.rewritten.take() {
            self.content = content;
        }
        &mut self.content
    }
}

/// An open descriptor, or a directory entry: both keep the inode.
pub type Handle = Rc<RefCell<Inode>>;

#[derive(Default)]
pub struct State {
    pub names: BTreeMap<PathBuf, Handle>,
    /// Inode numbers whose file is gone.
    free: Vec<u64>,
    num_created: u64,
    pub has_birth_times: bool,
    pub faults: Option<Random>,
    /// Cannot be opened.
    denied: Option<PathBuf>,
}

#[derive(Clone, Default)]
pub struct Files(pub Rc<RefCell<State>>);

impl Files {
    pub fn create(&self, path: &Path, content: &[u8]) -> Handle {
        let mut state = self.0.borrow_mut();
        state.num_created += 1;
        let number = state.free.pop().unwrap_or(1000 + state.num_created);
        let birth_time_ns = if state.has_birth_times { state.num_created } else { 0 };
        let inode = Inode { number, birth_time_ns, content: content.to_vec(), rewritten: None, num_links: 1 };
        let handle = Rc::new(RefCell::new(inode));
        state.names.insert(path.to_owned(), Rc::clone(&handle));
        handle
    }

    pub fn rename(&self, from: &Path, to: &Path) {
        let mut state = self.0.borrow_mut();
        if let Some(handle) = state.names.remove(from) {
            state.names.insert(to.to_owned(), handle);
        }
    }

    pub fn delete(&self, path: &Path) -> Option<Handle> {
        let handle = self.0.borrow_mut().names.remove(path)?;
        handle.borrow_mut().num_links = 0;
        Some(handle)
    }

    /// The number of a file that nothing keeps may be given out again.
    pub fn reuse(&self, number: u64) {
        self.0.borrow_mut().free.push(number);
    }

    pub fn deny(&self, path: Option<&str>) {
        self.0.borrow_mut().denied = path.map(PathBuf::from);
    }

    fn fails(&self, percent: u64) -> bool {
        self.0.borrow_mut().faults.as_mut().is_some_and(|random| random.chance(percent))
    }
}

pub fn stat(inode: &Inode) -> FileStat {
    FileStat {
        identity: Identity { device: 1, inode: inode.number, birth_time_ns: inode.birth_time_ns },
        size: inode.content.len() as u64,
        // Any change of the content changes it.
        modified_ns: millrace_common::record::fingerprint(&inode.content) as i64,
        num_links: inode.num_links,
        is_regular: true,
    }
}

impl FileSystem for Files {
    type File = Handle;

    fn open(&self, path: &Path, _: &Reach) -> io::Result<Handle> {
        if self.fails(5) || self.0.borrow().denied.as_deref() == Some(path) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.0.borrow().names.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn stat(&self, file: &Handle) -> io::Result<FileStat> {
        if self.fails(1) {
            return Err(io::Error::from_raw_os_error(5));
        }
        Ok(stat(&file.borrow()))
    }

    fn stat_path(&self, path: &Path) -> io::Result<FileStat> {
        if self.fails(1) {
            return Err(io::Error::from_raw_os_error(5));
        }
        let state = self.0.borrow();
        state.names.get(path).map(|inode| stat(&inode.borrow())).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn free_percent(&self, _file: &Handle) -> io::Result<f64> {
        Ok(100.0)
    }

    fn read_at(&self, file: &Handle, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        if self.fails(2) {
            return Err(io::Error::from_raw_os_error(5));
        }
        let copy = |content: &[u8], buffer: &mut [u8], position: u64| {
            let rest = content.get(position as usize..).unwrap_or_default();
            let length = rest.len().min(buffer.len());
            buffer[..length].copy_from_slice(&rest[..length]);
            length
        };
        let mut inode = file.borrow_mut();
        let mut length = copy(&inode.content, buffer, position);
        if inode.rewritten.is_some() {
            length /= 2;
            let content = inode.content_mut();
            length += copy(content, &mut buffer[length..], position + length as u64);
        }
        Ok(length)
    }
}
