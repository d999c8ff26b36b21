//! One source: a generation of a file, how far it was read, and the decisions that a second reading must repeat. Pure.

use std::path::PathBuf;
use std::time::Duration;

use millrace_common::record::SourceId;
use millrace_common::retry::Delays;

use millrace_common::ledger::sources::Gap;

use super::facts::Told;
use super::horizon::Horizon;
use super::tally::Tally;
use crate::checkpoint::gaps::Gaps;
use crate::checkpoint::ledger::{PositionLedger, Sequence};
use crate::checkpoint::row::{Carried, Carry, Guard, HourNote, Print, Row};
use crate::encode::own_fields::OwnFields;
use crate::frame::assemble::{Open, Waiting};
use crate::frame::plain::LongSearch;
use crate::read::Identity;

/// What became of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The last scan found it.
    Listed,
    /// It has a name that no pattern matches.
    Unlisted,
    /// It has no name any more; only our descriptor keeps it.
    Deleted,
    /// Nothing more can be read of it, for this reason; what was sent is awaited.
    GivenUp(Loss),
}

impl Fate {
    pub fn name(self) -> &'static str {
        match self {
            Self::Listed => "listed",
            Self::Unlisted => "unlisted",
            Self::Deleted => "deleted",
            Self::GivenUp(_) => "given_up",
        }
    }
}

/// Why bytes that were not delivered never will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The file was truncated or rewritten.
    Truncated,
    /// It vanished while no descriptor held it.
    Deleted,
    /// It was deleted, and is held no longer than `limits.hold_deleted` allows.
    HoldLimit,
}

impl Loss {
    pub fn name(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Deleted => "deleted",
            Self::HoldLimit => "hold_limit",
        }
    }
}

pub struct Source<F> {
    pub id: SourceId,
    pub input: usize,
    /// Where the file was first found. Goes into records, so that lines keep their path under rotation.
    pub path: PathBuf,
    /// Where the file was last found.
    pub current_path: PathBuf,
    pub identity: Identity,
    pub generation: u32,
    pub file: Option<F>,
    /// Its descriptor was given back and is taken again when there is something to read.
    pub is_closed: bool,
    pub fate: Fate,
    /// Since when no scan finds it.
    pub gone_at: Option<Duration>,
    /// End of the last record handed to the producer: the next one covers from here.
    pub covered: u64,
    /// The events that are open there.
    pub open: Open,
    /// The events that are open at the end of the file, which is at this position.
    pub waiting: Option<(u64, Waiting)>,
    /// No event ends within a usual window: the next one must be larger.
    pub wants_reach: bool,
    pub rotation: Rotation,
    /// The most bytes that the file was seen to have.
    pub size: u64,
    /// The same, while it still had the bytes that were read of it. What was seen beyond may be a rewrite.
    pub intact_size: u64,
    /// Size and time of modification when it was last examined. The time tells of a rewrite to the same size.
    pub last_look: (u64, i64),
    /// Where the last reading met the end of the file.
    pub read_end: u64,
    pub ledger: PositionLedger,
    pub prefix: Print,
    /// The bytes before `covered`.
    pub guard: Guard,
    /// The bytes before a position behind `covered` up to which something was decided: an unfinished line was seen to
    /// end there, or a long line not to end before.
    pub ahead: Option<Guard>,
    /// Bytes that no record covers.
    pub gaps: Gaps,
    pub hours: Vec<HourNote>,
    pub boundaries: Vec<u64>,
    pub horizon: Horizon,
    /// No record that starts at or after this position was produced, in this or an earlier process.
    pub stamped_until: u64,
    pub long: Option<LongSearch>,
    /// Nothing of it was sent yet, and it may be the copy of another source.
    pub may_be_copy: bool,
    /// When it was found to have other bytes than were read. The scan after that tells whether a copy has them.
    pub truncated_at: Option<Duration>,
    /// A run of NULs whose end is looked for.
    pub hole: Option<HoleSearch>,
    /// The size that the file had when a run of NULs was seen to reach its end.
    pub hole_size: Option<u64>,
    /// Where an unfinished last line ends, if there is one.
    pub unfinished: Option<u64>,
    /// Rendered while the file is open and sent from.
    pub own: Option<Box<OwnFields>>,
    pub partition: Option<i32>,
    /// Records are cut to this size: the setting, or less where the topic refused more.
    pub max_record: usize,
    pub tally: Tally,
    /// When the file last grew.
    pub grown_at: Duration,
    pub last_seen_ms: i64,
    pub is_queued: bool,
    /// The save that must be durable before the next record.
    pub waits_for: Option<u64>,
    /// What the ledger was told last; `None` if it does not know the newest path or gap.
    pub told: Option<Told>,
    /// The ledger has a row of it, so that records may be produced.
    pub is_announced: bool,
    pub awaits_announcement: bool,
    pub delays: Delays,
    pub retry_at: Option<Duration>,
}

/// How events go on from one file to the next.
#[derive(Debug, Default)]
pub struct Rotation {
    /// The path that a scan last saw the file leave, and when.
    pub left: Option<(PathBuf, Duration)>,
    /// The file that stood at this one's path before. Until it is known whether its last events go on here, nothing is
    /// sent.
    pub follows: Option<SourceId>,
    /// The slot of a source that waits for this one's end.
    pub followed_by: Option<usize>,
    /// The first events began in another file.
    pub carry: Option<Arrived>,
    /// The last events go on in another file.
    pub carried: Option<Carried>,
}

/// What another file has of the first events.
#[derive(Clone, Copy, Debug)]
pub struct Arrived {
    pub carry: Carry,
    /// The entry in the other source's ledger that is settled with the first events. `None` until that source was read so
    /// far.
    pub sequence: Option<Sequence>,
}

/// A run of NULs, so far.
#[derive(Clone, Copy, Debug)]
pub struct HoleSearch {
    pub start: u64,
    /// Nothing but NULs stands between `start` and here.
    pub searched: u64,
}

/// Whether a record may be produced now.
#[derive(Debug, PartialEq, Eq)]
pub enum Stamp {
    /// Yes, with this read time in milliseconds.
    Time(i64),
    /// A note was added that must be durable first.
    Noted,
}

impl<F> Source<F> {
    /// Decides the read time of the record that covers `start..end`.
    ///
    /// Bytes below `stamped_until` may have been produced before, in the hour of their note; a second reading must not
    /// give them another hour, since the hour decides the index.
    pub fn stamp(&mut self, start: u64, end: u64, wall_ms: i64) -> Stamp {
        let hour = HourNote::hour_of(wall_ms);
        let last = self.hours.last().copied();
        if last.is_none_or(|note| hour > note.hour && start >= self.stamped_until) {
            self.hours.push(HourNote { position: start, hour });
            self.horizon.reserve(end);
            return Stamp::Noted;
        }
        if !self.horizon.reaches(end) {
            self.horizon.reserve(end);
            return Stamp::Noted;
        }
        let note = self.hours.iter().rev().find(|note| note.position <= start).or(self.hours.first());
        Stamp::Time(note.map_or(wall_ms, |note| note.clamp(wall_ms)))
    }

    /// Decides ahead for what the file has by now, so that its first records wait for one save, and it need not be read
    /// before. Returns whether there is something to save.
    pub fn prepare(&mut self, wall_ms: i64) -> bool {
        let end = self.size.min(self.covered + Horizon::MAX_RESERVE);
        // With the horizon, what tells the file from another must be durable.
        let is_known = self.prefix.length >= Guard::MAX_LENGTH as u32;
        is_known && end > self.covered && self.stamp(self.covered, end, wall_ms) == Stamp::Noted
    }

    pub fn next_boundary(&self, after: u64) -> Option<u64> {
        self.boundaries.iter().copied().find(|&b| b > after)
    }

    /// What a save keeps.
    pub fn row(&mut self, input_id: &str) -> Row {
        let acknowledged = self.ledger.acknowledged();
        let first_kept = self.hours.iter().rposition(|note| note.position <= acknowledged).unwrap_or(0);
        self.hours.drain(..first_kept);
        self.boundaries.retain(|&b| b > acknowledged);
        self.horizon.save(self.covered);
        self.snapshot(input_id)
    }

    /// The durable facts as they are.
    pub fn snapshot(&self, input_id: &str) -> Row {
        let acknowledged = self.ledger.acknowledged();
        Row {
            source: self.id,
            input: input_id.to_owned(),
            path: self.path.to_string_lossy().into_owned(),
            current_path: self.current_path.to_string_lossy().into_owned(),
            identity: self.identity,
            generation: self.generation,
            size: self.size,
            acknowledged,
            open: self.ledger.resume().open,
            carry: self.rotation.carry.map(|arrived| arrived.carry),
            carried: self.rotation.carried,
            gaps: self.gaps.clone(),
            horizon: self.horizon.next(),
            prefix: self.prefix,
            guard: self.ahead.unwrap_or(self.guard),
            hours: self.hours.clone(),
            boundaries: self.boundaries.clone(),
            last_seen_ms: self.last_seen_ms,
        }
    }

    /// Gives its descriptor back.
    pub fn close(&mut self) {
        self.file = None;
        self.own = None;
        self.is_closed = true;
    }

    /// Goes back to the first unacknowledged record. `before` are the bytes that end there.
    pub fn rewind_to(&mut self, position: u64, before: &[u8]) {
        // What was read beyond is still compared: `before` may already be bytes of a rewrite.
        self.ahead = self.ahead.or(Some(self.guard)).filter(|ahead| ahead.position > position);
        self.covered = position;
        self.open = self.ledger.resume().open;
        self.waiting = None;
        self.read_end = position;
        self.guard = Guard::new(position, before);
        self.long = None;
        self.hole = None;
        self.unfinished = None;
    }

    /// Where the bytes begin that the next events are made of; `None` if that is in the file before.
    pub fn events_start(&self) -> Option<u64> {
        let reach = self.open.iter().copied().max().map_or(0, u64::from);
        self.covered.checked_sub(reach)
    }

    /// Events that began in a file that is gone begin with this one.
    pub fn forget_carried(&mut self) {
        self.open = self.open.map(|open| u64::from(open).min(self.covered) as u32);
    }

    /// Whether it waits for another source, and must be looked at again although its file has not grown.
    pub fn waits_for_source(&self) -> bool {
        self.rotation.follows.is_some() || (self.rotation.carry.is_some() && self.waiting.is_none())
    }

    /// Notes that the file has bytes of its own up to `end`, and to wherever it was seen to reach before.
    pub fn note_own_until(&mut self, end: u64) {
        self.size = self.size.max(end);
        self.intact_size = self.size;
    }

    /// Notes that no record will cover `start..end`.
    pub fn give_up_bytes(&mut self, start: u64, end: u64, reason: &str) {
        if end > start {
            self.gaps.insert(start, end, reason);
            self.told = None;
        }
    }

    /// Its last bytes, up to `end`, get a record of their own after all.
    pub fn take_back_carried(&mut self, end: u64) {
        self.gaps.remove(self.ledger.acknowledged(), end, "carried");
        self.told = None;
    }

    /// The bytes at the end of the file that make no record, if it was read to there and nothing is open.
    pub fn tail(&self) -> Option<Gap> {
        let start = self.covered;
        let is_at_rest = !self.is_queued && self.is_settled() && !self.awaits_announcement && !self.has_open_events();
        let is_decided = self.retry_at.is_none() && self.truncated_at.is_none() && self.unfinished.is_none();
        let is_read = self.long.is_none() && self.hole.is_none() && start == self.ledger.acknowledged();
        let end = self.read_end.min(self.size);
        let reason = if self.hole_size == Some(self.size) { "nul_bytes" } else { "excluded" };
        let is_tail = is_at_rest && is_decided && is_read && end > start;
        is_tail.then(|| Gap { start, end, reason: reason.to_owned() })
    }

    pub fn unread(&self) -> u64 {
        self.size.saturating_sub(self.covered)
    }

    /// What it is doing, in a word or two.
    pub fn state(&self) -> &'static str {
        match self {
            _ if self.is_given_up() => "given up",
            _ if self.retry_at.is_some() => "retrying",
            _ if self.awaits_announcement => "not announced",
            _ if self.truncated_at.is_some() => "truncated",
            _ if self.is_held_back() && !self.is_queued => "maybe a copy",
            _ if self.unfinished.is_some() => "unfinished line",
            _ if self.unread() > 0 => "reading",
            _ if self.ledger.num_outstanding() > 0 => "sending",
            _ if self.is_closed => "idle, closed",
            _ => "idle",
        }
    }

    /// Whether everything it was seen to have was read and acknowledged.
    pub fn is_done(&self) -> bool {
        self.unread() == 0 && self.is_settled() && !self.has_open_events() && self.truncated_at.is_none()
    }

    /// Whether events are open that its bytes, or those of another source, may belong to.
    pub fn has_open_events(&self) -> bool {
        self.waiting.is_some() || self.rotation.follows.is_some() || self.is_carrying()
    }

    /// Whether its last events go on in another file or its first ones began there: both must be at hand until they are
    /// acknowledged.
    pub fn is_carrying(&self) -> bool {
        let Rotation { carry, carried, .. } = &self.rotation;
        carry.is_some() || carried.is_some_and(|carried| !carried.is_settled)
    }

    /// Whether it has content that waits until it is known to be no copy.
    pub fn is_held_back(&self) -> bool {
        self.may_be_copy && self.size > 0
    }

    pub fn is_given_up(&self) -> bool {
        matches!(self.fate, Fate::GivenUp(_))
    }

    /// Whether nothing is left to do for what was read so far.
    pub fn is_settled(&self) -> bool {
        let is_unannounced = self.awaits_announcement && self.unread() > 0;
        self.ledger.num_outstanding() == 0 && !self.ledger.has_failed() && self.waits_for.is_none() && !is_unannounced
    }
}
