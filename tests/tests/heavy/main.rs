//! Faults and outages at full length, judgement by every supported server, and chaos.

#[path = "../end_to_end/agreement.rs"]
mod agreement;
mod chaos;
mod differential;
mod footprint;
mod indexer;
#[path = "../end_to_end/legacy.rs"]
mod legacy;
#[path = "../end_to_end/reload_rig.rs"]
mod reload_rig;
mod rules;
mod shipper;
mod versions;
