//! What is wrong with a configuration, all of it at once, each with the place where it stands.

use std::collections::HashMap;
use std::fmt;

use crate::terminal::escape;

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Origin {
    /// Nowhere: a value that is missing altogether.
    #[default]
    Unwritten,
    /// Line and column of the file, both counted from 1.
    Text { line: usize, column: usize },
    /// A command-line flag or its environment twin.
    Flag(String),
}

/// One thing that is wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub(super) origin: Origin,
    pub(super) path: String,
    pub(super) what: String,
    pub(super) remedy: String,
}

impl Fault {
    /// Line and column (from 1) in the file, unless the fault is about something that does not stand in it.
    pub fn position(&self) -> Option<(usize, usize)> {
        match self.origin {
            Origin::Text { line, column } => Some((line, column)),
            Origin::Unwritten | Origin::Flag(_) => None,
        }
    }

    /// The path of the key, such as `inputs[0].paths`; empty for the whole document.
    pub fn path(&self) -> &str {
        &self.path
    }
}

/// The faults of one configuration, and the positions of its keys so that more can be added.
///
/// Displayed as one line per fault, in the order of the file: `file:line:column: path: what is wrong; what to do`.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    name: String,
    marks: HashMap<String, Origin>,
    faults: Vec<Fault>,
}

impl Faults {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    pub(super) fn mark(&mut self, path: String, origin: Origin) {
        self.marks.insert(path, origin);
    }

    pub(super) fn push(&mut self, origin: &Origin, path: &str, what: impl Into<String>, remedy: impl Into<String>) {
        self.faults.push(Fault {
            origin: origin.clone(),
            path: path.to_owned(),
            what: what.into(),
            remedy: remedy.into(),
        });
    }

    /// Starts a fault about the key at `path` (`inputs[0].paths`); a key that is not written takes its parent's position.
    pub fn at<'a>(&'a mut self, path: &'a str) -> FaultAt<'a> {
        FaultAt { faults: self, path }
    }

    /// The value, or all faults if there is any.
    ///
    /// # Errors
    /// Every fault found, in the order of the file. A missing value without a fault is itself reported as one.
    pub fn finish<T>(mut self, value: Option<T>) -> Result<T, Self> {
        self.faults.sort_by_key(|fault| match &fault.origin {
            Origin::Text { line, column } => (0, *line, *column),
            Origin::Unwritten => (1, 0, 0),
            Origin::Flag(_) => (2, 0, 0),
        });
        match value {
            Some(value) if self.faults.is_empty() => Ok(value),
            None if self.faults.is_empty() => {
                self.push(&Origin::Unwritten, "", "could not be read", "report this as a bug, with the file");
                Err(self)
            }
            _ => Err(self),
        }
    }

    /// Whether nothing is wrong so far.
    pub fn is_empty(&self) -> bool {
        self.faults.is_empty()
    }

    /// The faults found so far.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.faults.iter()
    }

    /// Whether a fault already concerns this key, or a key above or below it.
    pub(super) fn touches(&self, path: &str) -> bool {
        self.faults.iter().any(|fault| is_prefix(&fault.path, path) || is_prefix(path, &fault.path))
    }

    fn origin_of(&self, path: &str) -> Origin {
        let mut path = path;
        loop {
            if let Some(origin) = self.marks.get(path) {
                return origin.clone();
            }
            match path.rfind(['.', '[']) {
                Some(at) => path = &path[..at],
                None => return Origin::Unwritten,
            }
        }
    }
}

fn is_prefix(short: &str, long: &str) -> bool {
    long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// A fault in the making: see [`Faults::at`].
pub struct FaultAt<'a> {
    faults: &'a mut Faults,
    path: &'a str,
}

impl FaultAt<'_> {
    /// Adds the fault: `what` is wrong (reads on after the key's path), and what to do.
    ///
    /// Left out if a fault of the same key is known already, since the value judged here is then only its default.
    pub fn add(self, what: impl Into<String>, remedy: impl Into<String>) {
        if self.faults.faults.iter().any(|fault| fault.path == self.path) {
            return;
        }
        let origin = self.faults.origin_of(self.path);
        self.faults.push(&origin, self.path, what, remedy);
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            match &fault.origin {
                Origin::Text { line, column } => write!(f, "{}:{line}:{column}: ", self.name)?,
                Origin::Unwritten => write!(f, "{}: ", self.name)?,
                Origin::Flag(flag) => write!(f, "{flag}: ")?,
            }
            if !fault.path.is_empty() {
                write!(f, "{}: ", escape(&fault.path))?;
            }
            f.write_str(&escape(&fault.what))?;
            if !fault.remedy.is_empty() {
                write!(f, "; {}", escape(&fault.remedy))?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
