//! The shipper's side of the ledger: what it says of its files and of itself in `millrace.sources`.
//!
//! `outbox` (pure) holds what the tailer told and what of it was acknowledged; `service` says it, on a thread that reads no
//! files; `examine` looks at paths on another one, and `stalls` (pure) judges from that which files stand still. `finished`
//! remembers what is to be removed from the topic; `recover` reads back what the state directory held.

pub mod desk;
mod examine;
mod finished;
pub mod outbox;
pub mod recover;
mod sender;
pub mod service;
pub mod stalls;

use millrace_common::ledger::sources::SourceRow;
use millrace_common::record::SourceId;

use self::outbox::Progress;

/// What the tailer tells the ledger.
pub trait Announcer {
    /// Takes what a source is now. The first row of a source announces it.
    fn tell(&mut self, id: SourceId, row: &SourceRow, is_held: bool);
    /// Takes how far a source is, without a word to others.
    fn note(&mut self, id: SourceId, progress: Progress);
    /// Whether a row of the source was acknowledged. No record of it may be produced before.
    fn is_announced(&self, id: SourceId) -> bool;
    /// The sources of which a row was acknowledged for the first time since this was asked last.
    fn take_announced(&mut self) -> Vec<SourceId>;
}
