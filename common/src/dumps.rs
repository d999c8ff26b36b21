//! Core dumps, which would hold secrets.

use rustix::process::{Resource, Rlimit, setrlimit};
use tracing::warn;

/// Has the kernel write none of this process, whatever `ulimit -c` said before. Programs that the kernel pipes dumps to are
/// told the limit, too, and systemd-coredump keeps to it (core(5), "Piping core dumps to a program").
/// A kernel that refuses is told of in the log.
pub fn forbid() {
    if let Err(cause) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }) {
        warn!(%cause, "a core dump of this process would hold its secrets");
    }
}
