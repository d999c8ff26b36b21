//! The durable facts of one source, and the text of a checkpoint. Pure.

use std::io::{self, Seek, Write};

use millrace_common::record::{Fingerprint, SourceId, fingerprint};
use serde::{Deserialize, Serialize};

use super::gaps::Gaps;
use crate::frame::assemble::Open;
use crate::read::Identity;

/// One source in the checkpoint. Positions are byte offsets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    pub source: SourceId,
    pub input: String,
    /// Where the file was first found; goes into records. A file is recognised by `identity`.
    pub path: String,
    /// Where the file was last found.
    pub current_path: String,
    #[serde(flatten)]
    pub identity: Identity,
    pub generation: u32,
    pub size: u64,
    pub acknowledged: u64,
    /// Of the events that are open at `acknowledged`, how many bytes before it each begins, by stream.
    #[serde(default, skip_serializing_if = "is_none_open")]
    pub open: Open,
    /// Bytes of the file before this one that belong to its first events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carry: Option<Carry>,
    /// Its last bytes belong to the first events of the file after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carried: Option<Carried>,
    /// Bytes that no record covers. Those behind `acknowledged` were given up, or are met again when it is read again.
    #[serde(default, skip_serializing_if = "Gaps::is_empty")]
    pub gaps: Gaps,
    /// No record that starts at or after this position was ever produced.
    pub horizon: u64,
    pub prefix: Print,
    pub guard: Guard,
    /// Hours in which reading began at a position, oldest first.
    pub hours: Vec<HourNote>,
    /// Record ends that no line end forces (an idle flush), ascending.
    pub boundaries: Vec<u64>,
    /// When a scan last found the file, milliseconds since the epoch.
    pub last_seen_ms: i64,
}

impl Row {
    /// A horizon that is not known: of all that the file has when it is found, records may have been produced.
    pub const UNKNOWN_HORIZON: u64 = u64::MAX;
}

fn is_none_open(open: &Open) -> bool {
    *open == Open::default()
}

/// An event that begins in one file and goes on in the next, seen from where it ends: it begins with the bytes
/// `start..end` of `from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carry {
    pub from: SourceId,
    pub start: u64,
    pub end: u64,
}

/// The same, seen from where it begins: the records of `to` have the bytes before `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    pub to: SourceId,
    pub end: u64,
    /// Those records are acknowledged.
    pub is_settled: bool,
}

/// Fingerprint of the first `length` bytes of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Print {
    pub length: u32,
    pub hash: u64,
}

impl Print {
    pub const MAX_LENGTH: usize = 1024;

    /// NULs at the end may be room set aside, to be written to: they are left out.
    pub fn of(bytes: &[u8]) -> Self {
        let bytes = &bytes[..bytes.len().min(Self::MAX_LENGTH)];
        let length = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        let bytes = &bytes[..length];
        Self { length: bytes.len() as u32, hash: fingerprint(bytes) }
    }

    /// Whether `bytes`, read from the start of the file, begin with what was seen.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        bytes.get(..self.length as usize).is_some_and(|b| fingerprint(b) == self.hash)
    }
}

/// Fingerprint of the bytes just before `position`, compared before reading on: a mismatch is a rewrite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    pub position: u64,
    pub length: u32,
    pub hash: u64,
}

impl Guard {
    pub const MAX_LENGTH: usize = 64;

    /// `before` ends at `position`; at most its last [`Self::MAX_LENGTH`] bytes are used.
    pub fn new(position: u64, before: &[u8]) -> Self {
        let kept = &before[before.len().saturating_sub(Self::MAX_LENGTH)..];
        Self { position, length: kept.len() as u32, hash: fingerprint(kept) }
    }

    pub fn start(&self) -> u64 {
        // A row that somebody else wrote may hold anything: what does not fit then reads as a rewrite.
        self.position.saturating_sub(u64::from(self.length))
    }

    /// Whether `bytes`, read at [`Self::start`], begin with what was seen.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        bytes.get(..self.length as usize).is_some_and(|b| fingerprint(b) == self.hash)
    }
}

/// Records that start at or after `position` (up to the next note) were read in the UTC hour `hour`, counted since the
/// epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HourNote {
    pub position: u64,
    pub hour: i64,
}

impl HourNote {
    const HOUR_MS: i64 = 3_600_000;

    pub fn hour_of(wall_ms: i64) -> i64 {
        wall_ms.div_euclid(Self::HOUR_MS)
    }

    /// `wall_ms`, kept inside the hour of this note.
    pub fn clamp(&self, wall_ms: i64) -> i64 {
        let start = self.hour * Self::HOUR_MS;
        wall_ms.clamp(start, start + Self::HOUR_MS - 1)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("is empty")]
    Empty,
    #[error("does not begin with a checkpoint header")]
    NoHeader,
    #[error("has version {0}, this program writes {VERSION}")]
    Version(String),
    #[error("is damaged: its checksum is not that of its content")]
    Checksum,
    #[error("line {line} is not a valid row")]
    Row {
        line: usize,
        #[source]
        cause: serde_json::Error,
    },
}

const MAGIC: &str = "millrace-shipper-checkpoint";
const VERSION: u32 = 1;

fn header(checksum: u64) -> String {
    format!("{MAGIC} {VERSION} {checksum:016x}\n")
}

/// Writes a checkpoint: a header line with version and checksum, then one JSON row per line. It is never in memory as a
/// whole, so the header is written last, into the place kept for it.
pub fn write(rows: &[Row], out: &mut (impl Write + Seek)) -> io::Result<()> {
    out.write_all(header(0).as_bytes())?;
    let mut checksum = Fingerprint::default();
    let mut line = Vec::new();
    for row in rows {
        line.clear();
        serde_json::to_writer(&mut line, row)?;
        line.push(b'\n');
        checksum.update(&line);
        out.write_all(&line)?;
    }
    out.rewind()?;
    out.write_all(header(checksum.digest()).as_bytes())
}

#[cfg(test)]
pub fn to_text(rows: &[Row]) -> Vec<u8> {
    let mut text = io::Cursor::new(Vec::new());
    write(rows, &mut text).expect("memory takes it");
    text.into_inner()
}

/// Reads a checkpoint.
pub fn from_text(text: &[u8]) -> Result<Vec<Row>, CheckpointError> {
    if text.is_empty() {
        return Err(CheckpointError::Empty);
    }
    let end = text.iter().position(|&b| b == b'\n').ok_or(CheckpointError::NoHeader)?;
    let header = std::str::from_utf8(&text[..end]).map_err(|_| CheckpointError::NoHeader)?;
    let mut words = header.split(' ');
    if words.next() != Some(MAGIC) {
        return Err(CheckpointError::NoHeader);
    }
    let version = words.next().unwrap_or_default();
    if version.parse() != Ok(VERSION) {
        return Err(CheckpointError::Version(version.to_owned()));
    }
    let body = &text[end + 1..];
    if words.next() != Some(format!("{:016x}", fingerprint(body)).as_str()) {
        return Err(CheckpointError::Checksum);
    }
    let lines = body.split(|&b| b == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
    lines
        .map(|(i, line)| serde_json::from_slice(line).map_err(|cause| CheckpointError::Row { line: i + 2, cause }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row() -> Row {
        Row {
            source: SourceId::derive("web-1", 7, 8, 1),
            input: "app".into(),
            path: "/var/log/app \"x\"\n.log".into(),
            current_path: "/var/log/app.log.1".into(),
            identity: Identity { device: 1, inode: 7, birth_time_ns: 8 },
            generation: 1,
            size: 100,
            acknowledged: 90,
            open: [0, 7],
            carry: Some(Carry { from: SourceId::from_u64(1), start: 2, end: 3 }),
            carried: Some(Carried { to: SourceId::from_u64(4), end: 100, is_settled: true }),
            gaps: [(10, 20, "too_large")].into_iter().collect(),
            horizon: 4096,
            prefix: Print::of(b"hello"),
            guard: Guard::new(95, b"0123456789"),
            hours: vec![HourNote { position: 0, hour: 490_000 }],
            boundaries: vec![95],
            last_seen_ms: 1,
        }
    }

    #[test]
    fn a_checkpoint_reads_back() {
        let rows = vec![row(), Row { generation: 2, ..row() }];
        assert_eq!(from_text(&to_text(&rows)).unwrap(), rows);
        assert_eq!(from_text(&to_text(&[])).unwrap(), []);
    }

    #[test]
    fn a_guard_that_begins_before_the_file_is_no_match() {
        let guard = Guard { position: 3, length: 10, hash: fingerprint(b"abc") };
        assert_eq!((guard.start(), guard.matches(b"abc")), (0, false));
    }

    proptest! {
        #[test]
        fn a_damaged_checkpoint_is_refused(at: prop::sample::Index, flip in 1u8..) {
            let mut text = to_text(&[row()]);
            let at = at.index(text.len());
            text[at] ^= flip;
            prop_assert!(from_text(&text).is_err());
        }

        #[test]
        fn a_cut_checkpoint_is_refused(at: prop::sample::Index) {
            let text = to_text(&[row()]);
            prop_assert!(from_text(&text[..at.index(text.len())]).is_err());
        }
    }

    #[test]
    fn a_guard_sees_other_bytes_before_its_position() {
        let guard = Guard::new(200, &[7u8; 100]);
        assert_eq!((guard.start(), guard.length), (136, 64));
        assert!(guard.matches(&[7u8; 80]));
        assert!(!guard.matches(&[8u8; 80]));
        assert!(!guard.matches(&[7u8; 63]));
    }

    #[test]
    fn read_times_stay_in_the_hour_of_their_note() {
        let note = HourNote { position: 0, hour: 2 };
        assert_eq!(note.clamp(0), 7_200_000);
        assert_eq!(note.clamp(7_300_000), 7_300_000);
        assert_eq!(note.clamp(20_000_000), 10_799_999);
    }
}
