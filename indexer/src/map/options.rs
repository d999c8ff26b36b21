//! What a rule asks for, and which server will judge.

/// What happens to fields that the mapping does not name where it would not create them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Unmapped {
    /// As Elasticsearch does: kept in `_source`; under `strict` the document is rejected.
    #[default]
    Keep,
    /// Left out of the document.
    Drop,
    /// Moved into the field named by `fold_into`.
    Fold,
}

/// What happens to a value that its field cannot take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnConflict {
    /// The value moves to `malformed.<field>` inside the fold field; without a fold field the record is rejected.
    #[default]
    Quarantine,
    /// The record is rejected.
    Reject,
    /// The document goes out as it is: Elasticsearch judges.
    Send,
}

/// One rule's wishes, resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleOptions {
    pub unmapped: Unmapped,
    pub fold_into: Option<String>,
    pub on_conflict: OnConflict,
    /// Most fields the mapping may grow to; `None` takes the index's `total_fields.limit`.
    pub field_budget: Option<u32>,
    /// Dotted paths never removed without a replacement: `@timestamp` and what names the index.
    pub protected: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavor {
    Elasticsearch,
    OpenSearch,
}

/// The server whose behaviour is predicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerVersion {
    pub flavor: Flavor,
    pub major: u16,
    pub minor: u16,
}

impl ServerVersion {
    pub const fn elasticsearch(major: u16, minor: u16) -> Self {
        Self { flavor: Flavor::Elasticsearch, major, minor }
    }

    pub const fn opensearch(major: u16, minor: u16) -> Self {
        Self { flavor: Flavor::OpenSearch, major, minor }
    }
}

impl Default for ServerVersion {
    /// The version the plan was developed against.
    fn default() -> Self {
        Self::elasticsearch(8, 19)
    }
}
