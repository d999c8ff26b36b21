//! Exit codes, after sysexits, so that scripts and supervisors can tell what happened.

use std::io::Write as _;

use signal_hook::low_level;

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All done and all acknowledged.
    Clean = 0,
    /// The command line cannot be understood.
    Usage = 64,
    /// An audit found holes.
    Holes = 65,
    /// Kafka or Elasticsearch cannot be reached, where a command needs it.
    Unavailable = 69,
    /// A bug of ours.
    Software = 70,
    /// A state file or folder cannot be created.
    CannotCreate = 73,
    /// Reading or writing failed.
    Io = 74,
    /// Stopped at the deadline, or by a second signal, with data that is not acknowledged.
    Unacknowledged = 75,
    /// Not allowed to do what is needed.
    Permission = 77,
    /// The configuration has faults.
    Config = 78,
}

impl Exit {
    /// The code the process ends with.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The code for a failed read or write: permission, or anything else.
    pub fn from_io(error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::PermissionDenied => Self::Permission,
            _ => Self::Io,
        }
    }

    /// Ends the process at once. What libraries do at its end is left out: OpenSSL takes down (`OPENSSL_cleanup`) what
    /// connections of clients still use that were left to themselves.
    pub fn leave(self) -> ! {
        // There is nobody to tell.
        let _ = std::io::stdout().flush();
        let _ = std::io::stderr().flush();
        low_level::exit(self.code().into())
    }
}
