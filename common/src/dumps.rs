//! Core dumps, which would hold secrets.

use rustix::process::{Resource, Rlimit, setrlimit};

/// Has the kernel write none of this process, whatever `ulimit -c` said before. Programs that the kernel pipes dumps to are
/// told the limit, too, and systemd-coredump keeps to it (core(5), "Piping core dumps to a program").
/// A kernel that refuses is told of on standard error. Call it before anything that may be secret is read.
pub fn forbid() {
    if let Err(cause) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }) {
        eprintln!("core dumps cannot be forbidden, and one of this process would hold its secrets: {cause}");
    }
}
