//! Faults and outages at full length, judgement by every supported server, and chaos.

#[path = "../end_to_end/agreement.rs"]
mod agreement;
mod chaos;
mod differential;
mod footprint;
mod indexer;
mod shipper;
mod versions;
