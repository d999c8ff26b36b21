//! Changes of the checkpoint that a stopped shipper left.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, Result};
use millrace_common::exit::Exit;
use millrace_common::terminal::escape;

use super::Place;
use crate::checkpoint::row::Row;
use crate::checkpoint::store::{DataDir, StoreError};
use crate::read::{self, Disk, FileSystem as _};

#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    #[error("write it as FILE:POSITION, with the position in bytes")]
    Form,
    #[error("name the data folder with --data-dir or --config")]
    NoFolder,
    #[error("there is no data folder `{}`", .0.display())]
    NoSuchFolder(PathBuf),
    #[error("process {owner} uses the data folder `{}`: stop it first", path.display())]
    InUse { path: PathBuf, owner: String },
    #[error("the checkpoint does not know `{0}`; `shipper status` lists what it knows")]
    Unknown(String),
    #[error("{position} is not before {acknowledged}, up to where `{path}` is acknowledged; --rewind only goes back")]
    NotBack { path: String, position: u64, acknowledged: u64 },
    #[error("`{path}` is not the file that the checkpoint knows: it was replaced since")]
    OtherFile { path: String },
    #[error("no line of `{path}` starts at {position}; the nearest one before starts at {before}")]
    InsideLine { path: String, position: u64, before: u64 },
}

impl ChangeError {
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::InUse { .. } => Exit::CannotCreate,
            Self::Form | Self::NoFolder | Self::NotBack { .. } | Self::InsideLine { .. } => Exit::Usage,
            Self::NoSuchFolder(_) | Self::Unknown(_) | Self::OtherFile { .. } => Exit::Io,
        }
    }
}

/// The value of `--rewind`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewind {
    pub file: PathBuf,
    pub position: u64,
}

impl FromStr for Rewind {
    type Err = ChangeError;

    fn from_str(text: &str) -> Result<Self, ChangeError> {
        let (file, position) = text.rsplit_once(':').ok_or(ChangeError::Form)?;
        let position = position.parse().map_err(|_| ChangeError::Form)?;
        Ok(Self { file: file.into(), position })
    }
}

pub(super) fn forget(place: &Place, file: &Path) -> Result<()> {
    let (dir, mut rows) = open(place)?;
    let (gone, kept): (Vec<Row>, Vec<Row>) = rows.drain(..).partition(|row| Path::new(&row.current_path) == file);
    if gone.is_empty() {
        return Err(ChangeError::Unknown(shown(file)).into());
    }
    dir.save(&kept).context("cannot save the checkpoint")?;
    for row in gone {
        let (path, acknowledged) = (escape(&row.current_path), row.acknowledged);
        say(&format!("{path}: forgotten at {acknowledged}; the next start reads it from its beginning"))?;
    }
    Ok(())
}

pub(super) fn rewind(place: &Place, to: &Rewind) -> Result<()> {
    let (dir, mut rows) = open(place)?;
    let path = shown(&to.file);
    let newest = rows.iter_mut().filter(|row| Path::new(&row.current_path) == to.file).max_by_key(|r| r.last_seen_ms);
    let row = newest.ok_or_else(|| ChangeError::Unknown(path.clone()))?;
    let (position, acknowledged) = (to.position, row.acknowledged);
    if position >= acknowledged {
        return Err(ChangeError::NotBack { path, position, acknowledged }.into());
    }
    let file = read::open(&to.file).with_context(|| format!("cannot open `{path}`"))?;
    let identity = Disk.stat(&file)?.identity;
    if (identity.inode, identity.birth_time_ns) != (row.identity.inode, row.identity.birth_time_ns) {
        return Err(ChangeError::OtherFile { path }.into());
    }
    let before = line_start(&file, position)?;
    if before != position {
        return Err(ChangeError::InsideLine { path, position, before }.into());
    }
    row.acknowledged = position;
    dir.save(&rows).context("cannot save the checkpoint")?;
    say(&format!("{path}: from {acknowledged} back to {position}; the next start reads on there"))
}

/// The start of the line that `position` is in.
fn line_start(file: &File, position: u64) -> io::Result<u64> {
    let mut buffer = [0; 64 * 1024];
    let mut end = position;
    while end > 0 {
        let start = end.saturating_sub(buffer.len() as u64);
        let bytes = &mut buffer[..(end - start) as usize];
        file.read_exact_at(bytes, start)?;
        if let Some(at) = memchr::memrchr(b'\n', bytes) {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

fn open(place: &Place) -> Result<(DataDir, Vec<Row>)> {
    let path = place.data_dir.as_deref().ok_or(ChangeError::NoFolder)?;
    if !path.is_dir() {
        return Err(ChangeError::NoSuchFolder(path.to_owned()).into());
    }
    let dir = match DataDir::open(path) {
        Ok(dir) => dir,
        Err(StoreError::Locked { path, owner }) => return Err(ChangeError::InUse { path, owner }.into()),
        Err(other) => return Err(other.into()),
    };
    let rows = dir.load()?.rows;
    Ok((dir, rows))
}

fn shown(path: &Path) -> String {
    escape(&path.to_string_lossy()).into_owned()
}

fn say(line: &str) -> Result<()> {
    Ok(writeln!(io::stdout(), "{line}")?)
}
