//! Walks the folders of the patterns and lists the regular files that match.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};
use walkdir::{DirEntry, WalkDir};

use super::Found;
use crate::read::{Disk, FileSystem as _, Reach};

#[derive(Debug, thiserror::Error)]
pub enum PatternError {
    #[error("`{pattern}` is not a valid pattern")]
    Invalid {
        pattern: String,
        #[source]
        cause: globset::Error,
    },
    #[error(
        "`{pattern}` is not absolute: a path relative to the working directory would name other files after a restart elsewhere"
    )]
    Relative { pattern: String },
}

/// The files of one input. `*` and `?` stay within a folder, `**` crosses folders, `{a,b}` and `[0-9]` as usual.
#[derive(Debug)]
pub struct Patterns {
    walks: Vec<Walk>,
    exclude: GlobSet,
    reach: Arc<Reach>,
}

/// Where a kubelet has its links to the files of containers, and where those lead, with Docker by one more link.
const KUBELET_LOGS: [&str; 2] = ["/var/log/containers", "/var/log/pods"];
const CONTAINER_LOGS: [&str; 2] = ["/var/log/pods", "/var/lib/docker/containers"];

/// One pattern and the folder that its walk starts in.
#[derive(Debug)]
struct Walk {
    root: PathBuf,
    max_depth: usize,
    matcher: globset::GlobMatcher,
}

impl Patterns {
    /// `links_into`: folders that links may lead into, beside those that the paths begin with.
    pub fn new(paths: &[String], exclude: &[String], links_into: &[String]) -> Result<Self, PatternError> {
        let walks = paths.iter().map(|p| Walk::new(p)).collect::<Result<Vec<_>, _>>()?;
        if let Some(folder) = links_into.iter().find(|folder| !folder.starts_with('/')) {
            return Err(PatternError::Relative { pattern: folder.clone() });
        }
        let is_kubelets = |walk: &Walk| KUBELET_LOGS.iter().any(|logs| walk.root.starts_with(logs));
        let known = if walks.iter().any(is_kubelets) { CONTAINER_LOGS.as_slice() } else { &[] };
        let mut folders: Vec<_> = walks.iter().map(|walk| walk.root.clone()).collect();
        folders.extend(links_into.iter().map(PathBuf::from));
        folders.extend(known.iter().map(PathBuf::from));
        let mut set = GlobSetBuilder::new();
        for pattern in exclude {
            set.add(glob(pattern)?);
        }
        let exclude = set.build().map_err(|cause| PatternError::Invalid { pattern: exclude.join(", "), cause })?;
        Ok(Self { walks, exclude, reach: Arc::new(Reach::new(folders)) })
    }

    /// Whether a file of this path is one of them.
    pub fn matches(&self, path: &Path) -> bool {
        self.walks.iter().any(|walk| walk.matcher.is_match(path)) && !self.is_excluded(path)
    }

    /// Where links to the files may lead.
    pub fn reach(&self) -> Arc<Reach> {
        Arc::clone(&self.reach)
    }

    fn is_excluded(&self, path: &Path) -> bool {
        // `*.gz` is meant for the name, wherever the file is.
        self.exclude.is_match(path) || path.file_name().is_some_and(|name| self.exclude.is_match(name))
    }
}

fn glob(pattern: &str) -> Result<Glob, PatternError> {
    GlobBuilder::new(pattern)
        .literal_separator(true)
        .build()
        .map_err(|cause| PatternError::Invalid { pattern: pattern.to_owned(), cause })
}

impl Walk {
    fn new(pattern: &str) -> Result<Self, PatternError> {
        if !pattern.starts_with('/') {
            return Err(PatternError::Relative { pattern: pattern.to_owned() });
        }
        let matcher = glob(pattern)?.compile_matcher();
        let is_plain =
            |part: &Component<'_>| !part.as_os_str().as_encoded_bytes().iter().any(|b| b"*?[]{}\\".contains(b));
        let parts: Vec<_> = Path::new(pattern).components().collect();
        let num_plain = parts.iter().take_while(|part| is_plain(part)).count().min(parts.len() - 1);
        let root: PathBuf = parts[..num_plain].iter().collect();
        // A brace may hold separators, so its depth is unknown.
        let is_deep = pattern.contains("**") || pattern.contains('{');
        let max_depth = if is_deep { usize::MAX } else { parts.len() - num_plain };
        Ok(Self { root, max_depth, matcher })
    }
}

/// What one scan saw.
#[derive(Debug, Default)]
pub struct Scan {
    pub found: Vec<Found>,
    /// Folders in which a new file could match: worth a watch.
    pub folders: BTreeSet<PathBuf>,
    /// Where links in the end lead to, and the path of each in `found`: the kernel names the former when it is written to.
    pub links: HashMap<PathBuf, PathBuf>,
    /// Paths that could not be examined, with the cause. A path that vanished in between is no fault.
    pub faults: Vec<(PathBuf, io::Error)>,
}

/// Lists the files of all inputs. A file that several patterns reach is listed once, for the first.
pub fn scan(inputs: &[Patterns]) -> Scan {
    let mut scan = Scan::default();
    let mut seen = HashSet::new();
    for (input, patterns) in inputs.iter().enumerate() {
        for walk in &patterns.walks {
            walk_one(input, patterns, walk, &mut seen, &mut scan);
        }
    }
    scan
}

fn walk_one(input: usize, patterns: &Patterns, walk: &Walk, seen: &mut HashSet<PathBuf>, scan: &mut Scan) {
    if !walk.root.exists() {
        watch_nearest(&walk.root, &mut scan.folders);
        return;
    }
    let mut entries = WalkDir::new(&walk.root).follow_links(true).max_depth(walk.max_depth).into_iter();
    while let Some(entry) = entries.next() {
        match entry {
            Ok(entry) if entry.file_type().is_dir() => {
                if entry.depth() == walk.max_depth {
                    continue;
                }
                if is_reached(&entry, &patterns.reach, scan) {
                    scan.folders.insert(entry.into_path());
                } else {
                    entries.skip_current_dir();
                }
            }
            Ok(entry) => {
                let path = entry.path();
                if !walk.matcher.is_match(path) || patterns.is_excluded(path) || !seen.insert(path.to_owned()) {
                    continue;
                }
                if !is_reached(&entry, &patterns.reach, scan) {
                    continue;
                }
                if entry.path_is_symlink() {
                    follow(path, scan);
                }
                match Disk.stat_path(path) {
                    Ok(stat) if stat.is_regular => scan.found.push(Found { input, path: entry.into_path(), stat }),
                    Ok(_) => {}
                    Err(cause) => note_fault(path, cause, scan),
                }
            }
            Err(fault) => note_walk_fault(fault, scan),
        }
    }
}

/// Whether the entry is no link, or one that leads to where it may.
fn is_reached(entry: &DirEntry, reach: &Reach, scan: &mut Scan) -> bool {
    if !entry.path_is_symlink() {
        return true;
    }
    let checked = reach.check_path(entry.path());
    checked.map_err(|cause| note_fault(entry.path(), cause, scan)).is_ok()
}

/// The folders on a link's way are worth a watch: the file behind it may be renamed there.
fn follow(link: &Path, scan: &mut Scan) {
    // Linux gives up on a path after 40 links (path_resolution(7)).
    const MAX_LINKS: usize = 40;
    let mut at = link.to_owned();
    for _ in 0..MAX_LINKS {
        let (Ok(target), Some(folder)) = (fs::read_link(&at), at.parent()) else { break };
        at = folder.join(target);
        scan.folders.extend(at.parent().map(Path::to_owned));
    }
    scan.links.insert(at, link.to_owned());
}

fn note_walk_fault(fault: walkdir::Error, scan: &mut Scan) {
    let path = fault.path().map(Path::to_owned).unwrap_or_default();
    let is_loop = fault.loop_ancestor().is_some();
    if let Some(cause) = fault.into_io_error().filter(|_| !is_loop) {
        note_fault(&path, cause, scan);
    }
}

fn note_fault(path: &Path, cause: io::Error, scan: &mut Scan) {
    if cause.kind() != io::ErrorKind::NotFound {
        scan.faults.push((path.to_owned(), cause));
    }
}

/// The nearest folder that exists: a watch on it tells when the missing one appears.
fn watch_nearest(root: &Path, folders: &mut BTreeSet<PathBuf>) {
    if let Some(parent) = root.ancestors().skip(1).find(|p| p.is_dir()) {
        folders.insert(parent.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(root: &Path, paths: &[&str], exclude: &[&str]) -> Vec<String> {
        let paths: Vec<_> = paths.iter().map(|p| format!("{}/{p}", root.display())).collect();
        let exclude: Vec<_> = exclude.iter().map(|p| p.to_string()).collect();
        let patterns = Patterns::new(&paths, &exclude, &[]).unwrap();
        let mut names: Vec<_> =
            scan(&[patterns]).found.iter().map(|f| f.path.strip_prefix(root).unwrap().display().to_string()).collect();
        names.sort();
        names
    }

    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in ["a.log", "b.log", "a.log.1", "a.log.gz", "sub/c.log", "sub/deep/d.log", "notes.txt"] {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x\n").unwrap();
        }
        root
    }

    #[test]
    fn a_star_stays_within_its_folder_and_two_cross_it() {
        let root = tree();
        assert_eq!(names(root.path(), &["*.log"], &[]), ["a.log", "b.log"]);
        assert_eq!(names(root.path(), &["**/*.log"], &[]), ["a.log", "b.log", "sub/c.log", "sub/deep/d.log"]);
        assert_eq!(names(root.path(), &["*/*.log"], &[]), ["sub/c.log"]);
        assert_eq!(names(root.path(), &["a.log"], &[]), ["a.log"]);
        assert_eq!(names(root.path(), &["{a,sub/c}.log"], &[]), ["a.log", "sub/c.log"]);
    }

    #[test]
    fn excludes_apply_to_the_path_and_to_the_name() {
        let root = tree();
        assert_eq!(names(root.path(), &["a.log*"], &["*.gz"]), ["a.log", "a.log.1"]);
        assert_eq!(names(root.path(), &["a.log*"], &["**/*.gz"]), ["a.log", "a.log.1"]);
    }

    #[test]
    fn a_file_reached_twice_is_listed_once() {
        let root = tree();
        assert_eq!(names(root.path(), &["*.log", "a*"], &["*.gz"]), ["a.log", "a.log.1", "b.log"]);
    }

    #[test]
    fn a_missing_folder_makes_the_nearest_one_worth_a_watch() {
        let root = tree();
        let pattern = format!("{}/new/er/*.log", root.path().display());
        let scan = scan(&[Patterns::new(&[pattern], &[], &[]).unwrap()]);
        assert!(scan.found.is_empty());
        assert_eq!(scan.folders.into_iter().collect::<Vec<_>>(), [root.path()]);
    }

    #[test]
    fn the_folders_on_the_way_of_a_link_are_worth_a_watch() {
        let root = tree();
        let at = |name: &str| root.path().join(name);
        fs::create_dir(at("links")).unwrap();
        fs::create_dir(at("hops")).unwrap();
        symlink("../sub/c.log", at("hops/c.log")).unwrap();
        symlink(at("hops/c.log"), at("links/c.log")).unwrap();
        let pattern = format!("{}/links/*.log", root.path().display());
        let links_into = [at("sub").display().to_string()];
        let scan = scan(&[Patterns::new(&[pattern], &[], &links_into).unwrap()]);
        assert_eq!(scan.folders, BTreeSet::from([at("links"), at("hops"), at("hops/../sub")]));
        assert_eq!(scan.links, HashMap::from([(at("hops/../sub/c.log"), at("links/c.log"))]));
    }

    #[test]
    fn links_that_lead_elsewhere_are_refused_and_named() {
        let root = tree();
        let at = |name: &str| root.path().join(name);
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join("secret.log"), "x\n").unwrap();
        symlink(elsewhere.path().join("secret.log"), at("sub/file.log")).unwrap();
        symlink(elsewhere.path(), at("sub/folder")).unwrap();
        symlink("../sub/folder", at("sub/hop")).unwrap();
        symlink("deep", at("sub/inside")).unwrap();
        symlink("nowhere", at("sub/dangling.log")).unwrap();
        let look = |links_into: &[String]| {
            let pattern = format!("{}/sub/**/*.log", root.path().display());
            let scan = scan(&[Patterns::new(&[pattern], &[], links_into).unwrap()]);
            let mut paths: Vec<_> = scan.found.into_iter().map(|found| found.path).collect();
            paths.sort();
            (paths, scan.faults, scan.folders)
        };
        let (paths, faults, folders) = look(&[]);
        assert_eq!(paths, ["sub/c.log", "sub/deep/d.log", "sub/inside/d.log"].map(at));
        assert_eq!(folders, BTreeSet::from(["sub", "sub/deep", "sub/inside"].map(at)));
        let refused: BTreeSet<_> = faults.iter().map(|(path, _)| path.clone()).collect();
        assert_eq!(refused, BTreeSet::from(["sub/file.log", "sub/folder", "sub/hop"].map(at)));
        let real = fs::canonicalize(elsewhere.path()).unwrap();
        for (_, cause) in &faults {
            assert_eq!(cause.kind(), io::ErrorKind::PermissionDenied);
            let cause = cause.to_string();
            assert!(cause.contains(&real.display().to_string()) && cause.contains("`links_into`"), "{cause}");
        }
        let (paths, faults, _) = look(&[elsewhere.path().display().to_string()]);
        assert!(faults.is_empty(), "{faults:?}");
        assert_eq!(paths.len(), 6);
    }

    #[test]
    fn links_of_a_kubelet_lead_to_the_files_of_containers() {
        let reach = |path: &str| format!("{:?}", Patterns::new(&[path.to_owned()], &[], &[]).unwrap().reach());
        for path in ["/var/log/containers/*.log", "/var/log/pods/*/*/*.log"] {
            assert!(CONTAINER_LOGS.iter().all(|folder| reach(path).contains(&format!("{folder:?}"))), "{path}");
        }
        assert!(CONTAINER_LOGS.iter().all(|folder| !reach("/var/log/app/*.log").contains(folder)));
    }

    #[test]
    fn bad_patterns_are_named() {
        let message = |p: &str| Patterns::new(&[p.to_owned()], &[], &[]).unwrap_err().to_string();
        assert!(message("/var/[a").contains("`/var/[a`"));
        assert!(message("var/*.log").contains("not absolute"));
    }
}
