//! A real Kafka broker, and a client that looks at it from outside the programs under test.

mod client;
mod offsets;
mod server;

pub use client::{KafkaClient, Record};
pub use offsets::Offsets;
pub use server::{Kafka, Options};
