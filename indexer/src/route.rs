//! From a document to the name of its index.

mod dated;
mod fields;
mod name;
mod pattern;
mod router;
mod time;

pub use dated::{DatedNames, Undated};
pub use fields::{FieldPath, find_field};
pub use pattern::{Pattern, PatternError};
pub use router::{AcceptTime, Destination, Router, RouterOptions};
pub use time::EpochMillis;

/// The document's own time, from `@timestamp`.
pub fn event_time(document: millrace_common::json::Value<'_, '_>) -> Option<EpochMillis> {
    find_field(document, "@timestamp").and_then(time::read)
}
