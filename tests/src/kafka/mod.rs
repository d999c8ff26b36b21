//! A real Kafka broker, and a client that looks at it from outside the programs under test.

mod client;
mod cluster;
mod offsets;
mod proxied;
mod server;
mod tools;

pub use client::{KafkaClient, Record};
pub use cluster::Cluster;
pub use offsets::Offsets;
pub use proxied::Proxied;
pub use server::{Entrance, Kafka, Options, PASSWORD, USER};
pub use tools::Java;
