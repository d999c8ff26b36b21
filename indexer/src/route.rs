//! From a document to the name of its index.

mod fields;
mod name;
mod pattern;
mod router;
mod time;

pub use fields::find_field;
pub use pattern::{Pattern, PatternError};
pub use router::{AcceptTime, Destination, Router, RouterOptions};
pub use time::EpochMillis;
