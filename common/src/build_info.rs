//! Which build of a program runs.

use std::fmt;

/// Version and commit of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildInfo {
    pub version: &'static str,
    /// Short hash, or `unknown` where nobody told it to the build.
    pub commit: &'static str,
}

impl BuildInfo {
    /// `commit` as the build found it in `MILLRACE_COMMIT`.
    pub const fn new(version: &'static str, commit: Option<&'static str>) -> Self {
        match commit {
            Some(commit) if !commit.is_empty() => Self { version, commit },
            _ => Self { version, commit: "unknown" },
        }
    }

    /// What `--version` says. Kept for the life of the process, as clap wants it.
    pub fn version_text(self) -> &'static str {
        self.to_string().leak()
    }
}

impl fmt::Display for BuildInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {})", self.version, self.commit, env!("MILLRACE_TARGET"))
    }
}

/// The build of the program whose `main.rs` says this.
///
/// Cargo compiles only what reads the variable anew when it changes, so libraries and tests do not know of commits.
#[macro_export]
macro_rules! build_info {
    () => {
        $crate::build_info::BuildInfo::new(env!("CARGO_PKG_VERSION"), option_env!("MILLRACE_COMMIT"))
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_without_a_commit_says_so() {
        assert_eq!(BuildInfo::new("1.2.3", Some("0a1b2c3")).commit, "0a1b2c3");
        for absent in [None, Some("")] {
            let text = BuildInfo::new("1.2.3", absent).to_string();
            assert!(text.starts_with("1.2.3 (unknown, ") && text.ends_with(')'), "{text}");
        }
    }
}
