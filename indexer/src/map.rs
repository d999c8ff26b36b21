//! Rules of Elasticsearch index templates, applied to one document at a time.
//!
//! ```text
//! template files -> TemplateSet -> compose(index name) --\
//!                                                         > Plan -> walk -> findings -> decision -> bytes
//! live mapping and settings of an existing index --------/                  \-> prediction
//! ```
//!
//! Pure: bytes come in, bytes and a verdict go out. Nothing here knows index names (beyond matching patterns), HTTP or
//! the time of day. A document that needs nothing costs one walk and is sent as it was written.

mod action;
mod check;
mod decide;
mod emit;
mod fold;
mod judge;
mod options;
mod plan;
mod predict;
mod server;
mod template;
mod walk;

pub use action::{Action, ActionKind, Actions, Reject, RejectReason, Verdict};
pub use options::{Flavor, OnConflict, RuleOptions, ServerVersion, Unmapped};
pub use plan::{Input, Plan, PlanError, State};
pub use predict::{NewField, Outcome, Prediction};
pub use template::{Composed, Server, TemplateFault, TemplateFile, TemplateKind, TemplateSet};

#[cfg(test)]
mod tests;
