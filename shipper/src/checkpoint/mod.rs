//! What must survive a crash: how far each source has been acknowledged, and the decisions a second reading must repeat.

pub mod gaps;
pub mod ledger;
pub mod row;
pub mod store;
