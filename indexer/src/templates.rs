//! Index templates between files, cluster and plans.

pub mod command;
pub(crate) mod diff;
pub(crate) mod install;
mod lint;
pub(crate) mod lookup;
mod standing;
mod usage;

use std::path::Path;

use crate::map::{TemplateFault, TemplateFile, TemplateSet};

pub use lookup::{Lookup, LookupError, look_up, parse_version};
pub use standing::{NotReady, Standing, set_up};

/// The templates of a running indexer.
pub struct Templates {
    /// `None`: no folder is configured, the cluster's own templates rule.
    pub set: Option<TemplateSet>,
    /// Whether missing and older ones are installed at the start.
    pub apply: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("cannot read `{path}`: {cause}")]
    Io {
        path: String,
        #[source]
        cause: std::io::Error,
    },
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Faulty(Vec<TemplateFault>),
}

/// Reads all `*.json` files below a folder. Names that begin with a dot are left out, among them those of Kubernetes (`..data`).
pub fn read_dir(dir: &Path) -> Result<TemplateSet, ReadError> {
    let mut files = Vec::new();
    collect(dir, dir, &mut files)?;
    files.sort_by(|a, b| a.name.cmp(&b.name));
    TemplateSet::parse(&files).map_err(ReadError::Faulty)
}

fn collect(root: &Path, dir: &Path, files: &mut Vec<TemplateFile>) -> Result<(), ReadError> {
    let io = |path: &Path| {
        let path = path.display().to_string();
        move |cause| ReadError::Io { path, cause }
    };
    for entry in std::fs::read_dir(dir).map_err(io(dir))? {
        let entry = entry.map_err(io(dir))?;
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if path.is_dir() {
            collect(root, &path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "json") {
            let parts = path.strip_prefix(root).unwrap_or(&path).components();
            let name = parts.map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/");
            let text = std::fs::read_to_string(&path).map_err(io(&path))?;
            files.push(TemplateFile { name, text });
        }
    }
    Ok(())
}
