//! Records that cannot become documents.

use crate::map::RejectReason;

/// Why a record goes to the dead letters. Closed set: the `dlq.reason` header and a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The value is not JSON.
    NotJson,
    /// A field that names the index is missing and has no default.
    MissingField,
    /// The rule of the index refuses the document.
    Rule(RejectReason),
    /// Elasticsearch refused the document.
    Refused,
    /// The index stayed blocked or closed.
    IndexBlocked,
    /// The document alone exceeds what Elasticsearch takes in a request.
    TooLarge,
    /// Elasticsearch never answers a request with the document, and answers others.
    NoAnswer,
}

impl Reason {
    pub fn all() -> impl Iterator<Item = Self> {
        let own =
            [Self::NotJson, Self::MissingField, Self::Refused, Self::IndexBlocked, Self::TooLarge, Self::NoAnswer];
        own.into_iter().chain(RejectReason::ALL.into_iter().map(Self::Rule))
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotJson => "not_json",
            Self::MissingField => "missing_field",
            Self::Rule(reason) => reason.as_str(),
            Self::Refused => "refused",
            Self::IndexBlocked => "index_blocked",
            Self::TooLarge => "too_large",
            Self::NoAnswer => "no_answer",
        }
    }
}

/// A record that cannot become a document. `detail` is a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    pub reason: Reason,
    /// Dotted path of the field concerned; empty for the record as a whole.
    pub field: String,
    pub detail: String,
}

impl From<crate::map::Reject> for Reject {
    fn from(reject: crate::map::Reject) -> Self {
        Self { reason: Reason::Rule(reject.reason), field: reject.field, detail: reject.detail }
    }
}
