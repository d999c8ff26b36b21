//! One module for each parser.

pub mod checkpoint;
pub mod config;
pub mod record;
pub mod reply;
pub mod templates;
