//! A real Kafka broker, and a client that looks at it from outside the programs under test.

mod client;
mod server;

pub use client::{KafkaClient, Offsets, Record};
pub use server::{Kafka, Options};
