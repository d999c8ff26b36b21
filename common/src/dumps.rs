//! Core dumps, which would hold secrets.

use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};

/// Has the kernel write none of this process, whatever `ulimit -c` said before. Programs that the kernel pipes dumps to are
/// told the limit, too, and systemd-coredump keeps to it (core(5), "Piping core dumps to a program").
///
/// # Errors
/// The kernel refuses.
pub fn forbid() -> io::Result<()> {
    Ok(setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?)
}
