//! The demo: real log files through shipper, Kafka, indexer and Elasticsearch, with kills and an outage on the way,
//! and a count at the end of what was written against what is in the index.

mod tally;
mod apps;
mod machine;
mod setup;
mod program;
mod progress;
mod screen;
mod script;
mod verdict;

pub use script::run;
