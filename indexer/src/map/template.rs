//! Index templates read from files and composed as Elasticsearch does.

use serde_json::Value;

/// A file of `templates.dir`: `name` is its path below that folder with `/`, e.g. `component/base.json`.
#[derive(Clone, Debug)]
pub struct TemplateFile {
    pub name: String,
    pub text: String,
}

/// A fault in a template file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {path}: {what}")]
pub struct TemplateFault {
    pub file: String,
    /// JSON path, e.g. `template.mappings.properties.status.type`; empty for the file as a whole.
    pub path: String,
    /// What is wrong and what to do.
    pub what: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemplateKind {
    /// `PUT _index_template/<name>`
    Index,
    /// `PUT _component_template/<name>`
    Component,
    /// `PUT _template/<name>`
    Legacy,
}

/// All template files, validated.
#[derive(Clone, Debug, Default)]
pub struct TemplateSet {}

/// What an index of some name would be created with.
#[derive(Clone, Debug, PartialEq)]
pub struct Composed {
    /// Name of the winning index template, or the names of all matching legacy templates joined by `,`.
    pub name: String,
    pub priority: u64,
    /// Nested, with `index` outermost.
    pub settings: Value,
    pub mappings: Value,
    pub aliases: Value,
    /// The template makes a data stream instead of an index.
    pub is_data_stream: bool,
}

impl TemplateSet {
    /// Parses and validates; all faults are reported together.
    pub fn parse(_files: &[TemplateFile]) -> Result<Self, Vec<TemplateFault>> {
        Ok(Self {})
    }

    /// What Elasticsearch would create `index_name` with if these were its only templates; `None` if none matches.
    pub fn compose(&self, _index_name: &str) -> Option<Composed> {
        None
    }

    /// Every template in the order in which they must be put: components first. The body is the file's own.
    pub fn bodies(&self) -> impl Iterator<Item = (TemplateKind, &str, &Value)> {
        std::iter::empty()
    }
}
