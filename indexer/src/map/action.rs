//! What was decided for a document, and why.

/// What to do with a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send `document.raw()` as it is: it stands on one line and nothing had to be changed.
    Unchanged,
    /// Send what was appended to `out`.
    Rewritten,
    /// The record cannot become a document under its rule.
    Reject(Reject),
}

/// Why a document is refused. `detail` is a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Reject {
    pub reason: RejectReason,
    /// Full dotted path of the field, empty when the document as a whole is refused.
    pub field: String,
    pub detail: String,
}

/// Closed set: a label of metrics and dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectReason {
    /// The document is not a JSON object.
    NotAnObject,
    /// An unmapped field under `dynamic: strict`.
    UnmappedField,
    /// A value that its field's type cannot take.
    TypeConflict,
    /// A term longer than Lucene takes.
    ImmenseTerm,
    /// A field name that Elasticsearch refuses.
    FieldName,
    /// Nested deeper than allowed.
    Depth,
    /// More new fields than the budget, and no field to fold them into.
    FieldBudget,
    /// Another limit of the index (nested documents).
    Limit,
}

impl RejectReason {
    pub const ALL: [Self; 8] = [
        Self::NotAnObject,
        Self::UnmappedField,
        Self::TypeConflict,
        Self::ImmenseTerm,
        Self::FieldName,
        Self::Depth,
        Self::FieldBudget,
        Self::Limit,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotAnObject => "not_an_object",
            Self::UnmappedField => "unmapped_field",
            Self::TypeConflict => "type_conflict",
            Self::ImmenseTerm => "immense_term",
            Self::FieldName => "field_name",
            Self::Depth => "depth",
            Self::FieldBudget => "field_budget",
            Self::Limit => "limit",
        }
    }
}

/// Closed set: the label of `mapping_actions{action}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActionKind {
    /// An unmapped field moved into the fold field.
    Fold,
    /// An unmapped field left out.
    Drop,
    /// A value that its field cannot take moved to `malformed.<field>` in the fold field.
    Quarantine,
    /// A new field folded because the field budget is used up.
    Budget,
    /// An earlier member of equal name left out: the last wins.
    DuplicateKey,
    /// A folded key or value cut to fit a term.
    Cut,
    /// A folded value nested too deep kept as text.
    Flatten,
    /// NUL in a folded key replaced.
    Nul,
    /// The event time replaced by the one given.
    Replace,
    /// Line breaks between tokens left out.
    OneLine,
}

impl ActionKind {
    pub const ALL: [Self; 10] = [
        Self::Fold,
        Self::Drop,
        Self::Quarantine,
        Self::Budget,
        Self::DuplicateKey,
        Self::Cut,
        Self::Flatten,
        Self::Nul,
        Self::Replace,
        Self::OneLine,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fold => "fold",
            Self::Drop => "drop",
            Self::Quarantine => "quarantine",
            Self::Budget => "budget",
            Self::DuplicateKey => "duplicate_key",
            Self::Cut => "cut",
            Self::Flatten => "flatten",
            Self::Nul => "nul",
            Self::Replace => "replace",
            Self::OneLine => "one_line",
        }
    }
}

/// One change of one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    pub kind: ActionKind,
    /// Full dotted path of the field; empty for the document as a whole.
    pub field: String,
    /// Why, for people; empty when the kind says it all.
    pub detail: String,
}

/// What was done to documents: counts always, details only when asked for.
#[derive(Clone, Debug, Default)]
pub struct Actions {
    counts: [u64; ActionKind::ALL.len()],
    details: Option<Vec<Action>>,
}

impl Actions {
    /// Keeps details too, as `preview` shows them. The default only counts, without allocating.
    pub fn detailed() -> Self {
        Self { details: Some(Vec::new()), ..Self::default() }
    }

    /// From now on details are kept, or not any more.
    pub fn set_detailed(&mut self, is_detailed: bool) {
        self.details = is_detailed.then(Vec::new);
    }

    pub fn count(&self, kind: ActionKind) -> u64 {
        self.counts[kind as usize]
    }

    pub fn is_empty(&self) -> bool {
        self.counts.iter().all(|&count| count == 0)
    }

    /// The details in the order of the document; empty unless made with [`Actions::detailed`].
    pub fn details(&self) -> &[Action] {
        self.details.as_deref().unwrap_or_default()
    }

    pub fn clear(&mut self) {
        self.counts = Default::default();
        if let Some(details) = &mut self.details {
            details.clear();
        }
    }

    pub(super) fn add(&mut self, kind: ActionKind, describe: impl FnOnce() -> (String, String)) {
        self.counts[kind as usize] += 1;
        if let Some(details) = &mut self.details {
            let (field, detail) = describe();
            details.push(Action { kind, field, detail });
        }
    }
}
