//! A real Elasticsearch node, and a client that looks at it from outside the programs under test.

mod client;
mod server;

pub use client::{Document, ElasticsearchClient};
pub use server::{Elasticsearch, Options};
