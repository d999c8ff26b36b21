//! Which files there are: patterns, scans, and the kernel's hints about changes.

pub mod scan;
pub mod watch;

use std::path::PathBuf;

use crate::read::FileStat;

/// One file that a scan found. `input` is the index of the first input whose patterns match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub input: usize,
    pub path: PathBuf,
    pub stat: FileStat,
}
