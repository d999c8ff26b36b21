//! Judges which files stand still though they should be read. Pure.
//!
//! The reading thread may hang in the kernel, so what it says of itself is not enough: sizes come from another thread, and a
//! file whose bytes wait while its position does not move is stalled, whatever the reason.

use std::cell::LazyCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::time::Duration;

use millrace_common::ledger::sources::Stalled;
use millrace_common::record::SourceId;

use super::outbox::Watched;

/// What a path was seen to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub inode: u64,
    pub birth_time_ns: u64,
    pub size: u64,
}

/// How far behind the files of one input are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Behind {
    pub unread_bytes: u64,
    /// How long bytes have waited for the position that they follow to move, at most.
    pub oldest: Duration,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub stalled: Vec<Stalled>,
    /// Those with files that are not read to their end.
    pub inputs: BTreeMap<String, Behind>,
    /// Of `stalled`, those that are news.
    pub begun: Vec<Stalled>,
    /// Paths that are read again, or gone.
    pub ended: Vec<PathBuf>,
}

/// Since when a file does not move.
struct Mark {
    read: u64,
    since: Duration,
    /// Since when nothing else than the file can be the cause.
    is_free_since: Option<Duration>,
    since_ms: i64,
    path: PathBuf,
    is_told: bool,
}

/// A look at a path that has not returned yet. The next look at the same path has another number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examination {
    pub path: PathBuf,
    pub number: u64,
}

pub struct Judge {
    patience: Duration,
    marks: BTreeMap<SourceId, Mark>,
    /// What is under way, and since when.
    examined: Option<(Examination, Duration, i64)>,
    is_examination_told: bool,
}

impl Judge {
    /// A file that does not move for longer than `patience` is stalled.
    pub fn new(patience: Duration) -> Self {
        Self { patience, marks: BTreeMap::new(), examined: None, is_examination_told: false }
    }

    /// `seen` are the newest examinations, `examined` is the one under way.
    pub fn judge<'a>(
        &mut self,
        now: Duration,
        wall_ms: i64,
        watched: impl Iterator<Item = (SourceId, &'a Watched)>,
        seen: &HashMap<SourceId, Seen>,
        examined: Option<Examination>,
    ) -> Report {
        let watched: Vec<_> = watched.collect();
        let known: LazyCell<HashSet<_>, _> =
            LazyCell::new(|| watched.iter().map(|(_, file)| (file.inode, file.birth_time_ns)).collect());
        let mut report = Report::default();
        let mut before = std::mem::take(&mut self.marks);
        for &(id, file) in &watched {
            let found = seen.get(&id);
            let is_same = |found: &&Seen| (found.inode, found.birth_time_ns) == (file.inode, file.birth_time_ns);
            let size = found.filter(is_same).map_or(file.progress.size, |found| found.size.max(file.progress.size));
            let unread = size.saturating_sub(file.progress.read);
            // Where the other file is tailed too, this one was renamed and the next scan tells so.
            let is_replaced =
                found.is_some_and(|found| !is_same(&found) && !known.contains(&(found.inode, found.birth_time_ns)));
            if unread == 0 && !is_replaced {
                continue;
            }
            let behind = report.inputs.entry(file.input.clone()).or_default();
            behind.unread_bytes += unread;
            let last = before.remove(&id);
            let has_moved = |mark: &Mark| mark.read != file.progress.read || mark.path != file.path;
            if let Some(mark) = last.as_ref().filter(|mark| mark.is_told && has_moved(mark)) {
                report.ended.push(mark.path.clone());
            }
            let mut mark = last.filter(|mark| !has_moved(mark)).unwrap_or_else(|| Mark {
                read: file.progress.read,
                since: now,
                is_free_since: None,
                since_ms: wall_ms,
                path: file.path.clone(),
                is_told: false,
            });
            mark.is_free_since = if file.progress.is_held { None } else { mark.is_free_since.or(Some(now)) };
            if unread > 0 {
                behind.oldest = behind.oldest.max(now - mark.since);
            }
            if mark.is_free_since.is_some_and(|since| now >= since + self.patience) {
                let reason = match is_replaced {
                    true => "the path is another file than the one that is read",
                    false => "has bytes that are not read",
                };
                let stalled = Stalled {
                    path: file.path.to_string_lossy().into_owned(),
                    since_ms: mark.since_ms,
                    unread_bytes: unread,
                    reason: reason.to_owned(),
                };
                if !std::mem::replace(&mut mark.is_told, true) {
                    report.begun.push(stalled.clone());
                }
                report.stalled.push(stalled);
            } else if std::mem::take(&mut mark.is_told) {
                report.ended.push(mark.path.clone());
            }
            self.marks.insert(id, mark);
        }
        report.ended.extend(before.into_values().filter(|mark| mark.is_told).map(|mark| mark.path));
        self.judge_examination(now, wall_ms, examined, &mut report);
        report
    }

    /// Whether all files were read and every path was examined. Only news can then change what is judged, no time that passes.
    pub fn is_at_rest(&self) -> bool {
        self.marks.is_empty() && self.examined.is_none()
    }

    /// A path that cannot even be examined lies on a file system that hangs.
    fn judge_examination(&mut self, now: Duration, wall_ms: i64, examined: Option<Examination>, report: &mut Report) {
        let last = self.examined.take();
        if last.as_ref().map(|(last, ..)| last) != examined.as_ref()
            && std::mem::take(&mut self.is_examination_told)
            && let Some((last, ..)) = &last
        {
            report.ended.push(last.path.clone());
        }
        let Some(examined) = examined else { return };
        let (examined, since, since_ms) = last.filter(|last| last.0 == examined).unwrap_or((examined, now, wall_ms));
        if now >= since + self.patience {
            let stalled = Stalled {
                path: examined.path.to_string_lossy().into_owned(),
                since_ms,
                unread_bytes: 0,
                reason: "the file system does not answer".to_owned(),
            };
            if !std::mem::replace(&mut self.is_examination_told, true) {
                report.begun.push(stalled.clone());
            }
            report.stalled.push(stalled);
        }
        self.examined = Some((examined, since, since_ms));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::outbox::Progress;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn file(inode: u64, read: u64, size: u64, is_held: bool) -> Watched {
        let progress = Progress { size, read, is_held };
        Watched { input: "app".into(), path: format!("/{inode}.log").into(), inode, birth_time_ns: 1, progress }
    }

    /// Judges the files, seen with these inodes and sizes, at a second.
    fn judge(judge: &mut Judge, second: u64, files: &[(Watched, (u64, u64))]) -> Report {
        let id = |at: usize| SourceId::from_u64(at as u64);
        let seen = files.iter().enumerate();
        let seen = seen.map(|(at, (_, (inode, size)))| (id(at), Seen { inode: *inode, birth_time_ns: 1, size: *size }));
        let watched = files.iter().enumerate().map(|(at, (file, _))| (id(at), file));
        let now = Duration::from_secs(second);
        judge.judge(now, second as i64 * 1000, watched, &seen.collect(), None)
    }

    #[test]
    fn bytes_that_wait_for_long_are_told_once_and_until_they_are_read() {
        let mut judged = Judge::new(PATIENCE);
        let quiet = (file(2, 50, 50, false), (2, 50));
        for second in 0..30 {
            let report = judge(&mut judged, second, &[(file(1, 10, 10, false), (1, 100)), quiet.clone()]);
            assert_eq!((report.stalled.len(), report.begun.len()), (0, 0));
            let behind = Behind { unread_bytes: 90, oldest: Duration::from_secs(second) };
            assert_eq!(report.inputs["app"], behind);
        }
        for second in 30..40 {
            let report = judge(&mut judged, second, &[(file(1, 10, 10, false), (1, 200)), quiet.clone()]);
            assert_eq!((report.stalled.len(), report.begun.len()), (1, usize::from(second == 30)));
            let Stalled { path, since_ms, unread_bytes, .. } = &report.stalled[0];
            assert_eq!((path.as_str(), *since_ms, *unread_bytes), ("/1.log", 0, 190));
        }
        let report = judge(&mut judged, 41, &[(file(1, 11, 200, false), (1, 200)), quiet]);
        assert_eq!((report.stalled.len(), report.ended), (0, vec!["/1.log".into()]));
    }

    #[test]
    fn time_alone_changes_nothing_once_all_is_read_and_examined() {
        let mut judged = Judge::new(PATIENCE);
        assert!(judged.is_at_rest());
        judge(&mut judged, 0, &[(file(1, 10, 10, true), (1, 100))]);
        assert!(!judged.is_at_rest());
        judge(&mut judged, 1, &[(file(1, 100, 100, false), (3, 100))]);
        assert!(!judged.is_at_rest(), "the path is another file");
        judge(&mut judged, 2, &[(file(1, 100, 100, false), (1, 100))]);
        assert!(judged.is_at_rest());
        judged.judge(PATIENCE, 0, std::iter::empty(), &HashMap::new(), Some(examination("/hung", 1)));
        assert!(!judged.is_at_rest());
    }

    #[test]
    fn what_the_topic_holds_up_is_not_stalled() {
        let mut judged = Judge::new(PATIENCE);
        let check = |judged: &mut Judge, second, is_held| {
            judge(judged, second, &[(file(1, 10, 10, is_held), (1, 100))]).stalled.len()
        };
        assert!((0..100).all(|second| check(&mut judged, second, true) == 0));
        assert!((100..130).all(|second| check(&mut judged, second, false) == 0));
        assert_eq!(check(&mut judged, 130, false), 1);
    }

    #[test]
    fn a_path_with_another_file_is_told_unless_that_one_is_tailed() {
        let mut judged = Judge::new(PATIENCE);
        let replaced = (file(1, 10, 10, false), (3, 100));
        assert_eq!(judge(&mut judged, 0, std::slice::from_ref(&replaced)).stalled.len(), 0);
        let report = judge(&mut judged, 30, std::slice::from_ref(&replaced));
        assert!(report.stalled[0].reason.contains("another file"));
        // The unread bytes of a file that is not tailed are not known to be ours.
        assert_eq!(report.inputs["app"], Behind::default());
        let report = judge(&mut judged, 60, &[replaced, (file(3, 100, 100, false), (3, 100))]);
        assert_eq!((report.stalled.len(), report.ended.len()), (0, 1));
    }

    #[test]
    fn a_path_that_cannot_be_examined_is_told() {
        let mut judged = Judge::new(PATIENCE);
        let mut look = |second, path, number| {
            let examined = Some(examination(path, number));
            judged.judge(Duration::from_secs(second), 0, std::iter::empty(), &HashMap::new(), examined)
        };
        assert_eq!(look(0, "/hung", 1).stalled.len(), 0);
        assert_eq!(look(29, "/hung", 1).stalled.len(), 0);
        let report = look(30, "/hung", 1);
        assert_eq!((report.stalled.len(), report.begun.len()), (1, 1));
        let report = look(31, "/hung", 1);
        assert_eq!((report.stalled.len(), report.begun.len()), (1, 0));
        let report = look(32, "/next", 2);
        assert_eq!((report.stalled.len(), report.ended.len()), (0, 1));
        // Looks that each return are no hang, however often one is met under way.
        assert!((33..100).all(|second| look(second, "/next", second).stalled.is_empty()));
    }

    fn examination(path: &str, number: u64) -> Examination {
        Examination { path: path.into(), number }
    }
}
