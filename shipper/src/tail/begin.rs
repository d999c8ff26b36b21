//! Makes the source of an opened file: as the checkpoint knows it, or new.

use std::io;
use std::path::PathBuf;

use millrace_common::record::SourceId;
use tracing::{info, warn};

use super::horizon::Horizon;
use super::source::{Arrived, Fate, Rotation, Source};
use super::tally::Tally;
use super::{Now, Tailer};
use crate::checkpoint::gaps::Gaps;
use crate::checkpoint::ledger::PositionLedger;
use crate::checkpoint::row::{Guard, Print, Row};
use crate::checkpoint::store::Store;
use crate::frame::assemble::Open;
use crate::produce::Broker;
use crate::read::{FileStat, FileSystem};

/// A file just opened.
pub(super) struct Opened<T> {
    pub input: usize,
    pub path: PathBuf,
    pub file: T,
    pub stat: FileStat,
}

/// The name of a source: the generations of one file have different ids.
#[derive(Clone, Copy)]
pub(super) struct Lineage {
    pub id: SourceId,
    pub generation: u32,
}

impl<F: FileSystem, B: Broker, S: Store> Tailer<F, B, S> {
    pub(super) fn begin(&mut self, opened: Opened<F::File>, now: Now) -> io::Result<Source<F::File>> {
        let Some(row) = self.row_of(&opened.stat).cloned() else {
            let lineage = self.lineage(&opened.stat, 0);
            return self.unknown(opened, lineage, now);
        };
        let source = if self.has_content_of(&row, &opened.file, opened.stat.size)? {
            let before = self.before(&opened.file, row.acknowledged)?;
            self.resume(row.clone(), &before, opened, now)
        } else {
            info!(path = %opened.path.display(), source = %row.source, "the file was rewritten while nobody looked, reading it as a new one");
            self.rewritten.push((row.clone(), now.mono));
            let lineage = self.lineage(&opened.stat, row.generation + 1);
            self.unknown(opened, lineage, now)?
        };
        // Only now: a fault while reading must not cost the position.
        self.forget_row(&row);
        Ok(source)
    }

    /// A file of which nothing was sent. What it begins with is known before that.
    fn unknown(&self, opened: Opened<F::File>, lineage: Lineage, now: Now) -> io::Result<Source<F::File>> {
        let mut bytes = [0; Print::MAX_LENGTH];
        let num_read = self.files.read_at(&opened.file, &mut bytes, 0)?;
        let prefix = self.settings.prefix_of(&bytes[..num_read]);
        Ok(Source { prefix, may_be_copy: true, ..self.fresh(opened, lineage, now) })
    }

    pub(super) fn forget_row(&mut self, row: &Row) {
        if let Some(rows) = self.absent.get_mut(&row.identity.inode) {
            rows.retain(|other| other != row);
        }
    }

    /// The checkpoint's row of this file.
    pub(super) fn row_of(&self, stat: &FileStat) -> Option<&Row> {
        let identity = stat.identity;
        let rows = self.absent.get(&identity.inode)?;
        let is_same = |row: &&Row| row.identity.is_same_file(&identity);
        rows.iter().find(|row| row.identity == identity).or_else(|| rows.iter().find(is_same))
    }

    pub(super) fn lineage(&self, stat: &FileStat, generation: u32) -> Lineage {
        let identity = stat.identity;
        let id = SourceId::derive(&self.settings.host_id, identity.inode, identity.birth_time_ns, generation);
        Lineage { id, generation }
    }

    /// The bytes that end at `position`; fewer if the file ends before.
    pub(super) fn before(&self, file: &F::File, position: u64) -> io::Result<Vec<u8>> {
        let length = (Guard::MAX_LENGTH as u64).min(position);
        let mut bytes = vec![0; length as usize];
        let num_read = self.files.read_at(file, &mut bytes, position - length)?;
        bytes.truncate(num_read);
        Ok(bytes)
    }

    /// Goes on where the row says; `before` are the bytes that end there. The file has the content of the row.
    pub(super) fn resume(&self, row: Row, before: &[u8], opened: Opened<F::File>, now: Now) -> Source<F::File> {
        let (current_path, size) = (opened.path, opened.stat.size);
        let opened = Opened { path: PathBuf::from(&row.path), ..opened };
        // The id is that of the row: it may go on in a copy of its file.
        let lineage = Lineage { id: row.source, generation: row.generation };
        let mut source = self.fresh(opened, lineage, now);
        source.current_path = current_path;
        source.covered = row.acknowledged;
        source.ledger = PositionLedger::new(row.acknowledged, row.open);
        source.open = row.open;
        source.rotation.carry = row.carry.map(|carry| Arrived { carry, sequence: None });
        source.rotation.carried = row.carried;
        source.guard = Guard::new(row.acknowledged, before);
        source.ahead = (row.guard.position > row.acknowledged).then_some(row.guard);
        source.prefix = row.prefix;
        source.hours = row.hours;
        source.boundaries = row.boundaries;
        let horizon = if row.horizon == Row::UNKNOWN_HORIZON { size } else { row.horizon };
        source.gaps = row.gaps;
        source.horizon = Horizon::known(horizon, row.acknowledged);
        source.stamped_until = horizon;
        source.note_own_until(row.size.max(size));
        source.may_be_copy = row.horizon == 0 && row.carry.is_none();
        source
    }

    /// Whether the file still begins with what was read of it, and has the same bytes before the last position.
    pub(super) fn has_content_of(&self, row: &Row, file: &F::File, size: u64) -> io::Result<bool> {
        if size < row.acknowledged || size < row.guard.position {
            return Ok(false);
        }
        self.has_bytes(file, row.prefix, row.guard)
    }

    /// Whether the file begins with `prefix` and has the bytes of `guard`.
    pub(super) fn has_bytes(&self, file: &F::File, prefix: Print, guard: Guard) -> io::Result<bool> {
        Ok(self.begins_with(file, prefix)? && self.has_before(file, guard)?)
    }

    fn begins_with(&self, file: &F::File, prefix: Print) -> io::Result<bool> {
        let mut bytes = [0; Print::MAX_LENGTH];
        let num_read = self.files.read_at(file, &mut bytes[..prefix.length as usize], 0)?;
        Ok(prefix.matches(&bytes[..num_read]))
    }

    fn has_before(&self, file: &F::File, guard: Guard) -> io::Result<bool> {
        let mut bytes = [0; Guard::MAX_LENGTH];
        let num_read = self.files.read_at(file, &mut bytes[..guard.length as usize], guard.start())?;
        Ok(guard.matches(&bytes[..num_read]))
    }

    pub(super) fn fresh(&self, opened: Opened<F::File>, lineage: Lineage, now: Now) -> Source<F::File> {
        let settings = &self.settings;
        let Opened { input, path, file, stat } = opened;
        let Lineage { id, generation } = lineage;
        let shown = path.to_string_lossy();
        if !settings.inputs[input].fields.fit(&shown) {
            warn!(path = %path.display(), "the path fits neither `path_fields` nor the names of Kubernetes, no fields from it");
        }
        Source {
            id,
            input,
            current_path: path.clone(),
            path,
            identity: stat.identity,
            generation,
            file: Some(file),
            is_closed: false,
            fate: Fate::Listed,
            gone_at: None,
            covered: 0,
            open: Open::default(),
            waiting: None,
            wants_reach: false,
            rotation: Rotation::default(),
            size: stat.size,
            intact_size: stat.size,
            last_look: (stat.size, stat.modified_ns),
            read_end: 0,
            ledger: PositionLedger::new(0, Open::default()),
            prefix: Print::of(b""),
            guard: Guard::new(0, b""),
            ahead: None,
            gaps: Gaps::default(),
            hours: Vec::with_capacity(1),
            boundaries: Vec::new(),
            horizon: Horizon::default(),
            stamped_until: 0,
            long: None,
            may_be_copy: false,
            truncated_at: None,
            hole: None,
            hole_size: None,
            unfinished: None,
            own: None,
            partition: None,
            max_record: settings.max_record,
            tally: Tally::default(),
            grown_at: now.mono,
            last_seen_ms: now.wall_ms,
            is_queued: false,
            waits_for: None,
            told: None,
            is_announced: false,
            awaits_announcement: false,
            delays: Self::delays(id.as_u64()),
            retry_at: None,
        }
    }
}
