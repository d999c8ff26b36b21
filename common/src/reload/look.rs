//! What stands in files, and when a change of them is worth a try.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::hash::Hasher as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

/// What some files held at a moment: hashes of what is in them, `None` where that cannot be read. Links are followed, so that a
/// folder that is swapped for another (as Kubernetes does with `..data`) shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look(BTreeMap<PathBuf, Option<u64>>);

impl Look {
    /// Of a folder, the files below it are told apart by name, size, number and time.
    pub fn at(files: BTreeSet<PathBuf>) -> Self {
        let at = |path: PathBuf| {
            let hash = hash(&path);
            (path, hash)
        };
        Self(files.into_iter().map(at).collect())
    }

    /// What the same files hold now.
    pub fn again(&self) -> Self {
        Self(self.0.keys().map(|path| (path.clone(), hash(path))).collect())
    }

    /// The files of both that hold something else now.
    pub fn changes<'a>(&'a self, now: &'a Self) -> impl Iterator<Item = &'a Path> {
        let is_changed = |path: &&PathBuf| now.0.get(*path).is_some_and(|hash| *hash != self.0[*path]);
        self.0.keys().filter(is_changed).map(PathBuf::as_path)
    }
}

fn hash(path: &Path) -> Option<u64> {
    let mut hasher = Xxh3::new();
    let found = fs::metadata(path).ok()?;
    if found.is_dir() {
        add_folder(&mut hasher, path, 0);
    } else if found.is_file() {
        hasher.update(&fs::read(path).ok()?);
    }
    Some(hasher.finish())
}

/// Deeper than anything that holds certificates or templates.
const MAX_DEPTH: usize = 8;

fn add_folder(hasher: &mut Xxh3, folder: &Path, depth: usize) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    // Kubernetes keeps what its links lead to in folders whose names begin with dots.
    let is_seen = |path: &PathBuf| !path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let paths: BTreeSet<PathBuf> = entries.map(|entry| entry.path()).filter(is_seen).collect();
    for path in paths {
        hasher.update(path.as_os_str().as_encoded_bytes());
        match fs::metadata(&path) {
            Ok(found) if found.is_dir() && depth < MAX_DEPTH => add_folder(hasher, &path, depth + 1),
            Ok(found) => add_facts(hasher, &found),
            Err(_) => {}
        }
    }
}

fn add_facts(hasher: &mut Xxh3, found: &Metadata) {
    for fact in [found.dev(), found.ino(), found.len(), found.mtime() as u64, found.mtime_nsec() as u64] {
        hasher.write_u64(fact);
    }
}

/// Decides which look is worth a try. Pure.
#[derive(Debug)]
pub struct Rest {
    tried: Look,
    last: Look,
}

impl Rest {
    /// `tried` is what runs.
    pub fn new(tried: Look) -> Self {
        Self { last: tried.clone(), tried }
    }

    /// Whether to try what stands there now: it is not what was tried last, and it was the same one look before. A file that is
    /// being written, or one of several that belong together, is not.
    pub fn look(&mut self, now: Look) -> bool {
        let is_at_rest = now == self.last;
        self.last = now;
        is_at_rest && self.last != self.tried
    }

    /// What was seen last is being tried, with whatever success.
    pub fn tried(&mut self) {
        self.tried.clone_from(&self.last);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn seen(content: u64) -> Look {
        Look(BTreeMap::from([("/a".into(), Some(content))]))
    }

    #[test]
    fn a_change_is_tried_once_when_two_looks_agree() {
        let mut rest = Rest::new(seen(1));
        assert!(!rest.look(seen(1)));
        // It is being written.
        assert!(!rest.look(seen(2)) && !rest.look(seen(3)));
        assert!(rest.look(seen(3)));
        rest.tried();
        assert!(!rest.look(seen(3)));
        // Back to what ran before: a change like any other.
        assert!(!rest.look(seen(1)) && rest.look(seen(1)));
    }

    #[test]
    fn a_change_that_is_taken_back_is_none() {
        let mut rest = Rest::new(seen(1));
        assert!(!rest.look(seen(2)) && !rest.look(seen(1)) && !rest.look(seen(1)));
    }

    #[test]
    fn renames_links_and_folders_that_are_swapped_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for (folder, content) in [("..one", "1"), ("..two", "2")] {
            fs::create_dir(path(folder)).unwrap();
            fs::write(path(folder).join("tls.crt"), content).unwrap();
        }
        symlink("..one", path("..data")).unwrap();
        symlink("..data/tls.crt", path("tls.crt")).unwrap();
        fs::write(path("plain"), "a").unwrap();
        let before = Look::at(["tls.crt", "plain", "absent", "."].map(path).into());
        assert_eq!(before, before.again());
        symlink("..two", path("..new")).unwrap();
        fs::rename(path("..new"), path("..data")).unwrap();
        let swapped = before.again();
        assert_eq!(before.changes(&swapped).collect::<Vec<_>>(), [dir.path().join("."), path("tls.crt")]);
        fs::write(path("aside"), "b").unwrap();
        fs::rename(path("aside"), path("plain")).unwrap();
        fs::write(path("absent"), "").unwrap();
        let num_changed = swapped.changes(&swapped.again()).count();
        assert_eq!(num_changed, swapped.0.len() - 1, "all but the certificate");
    }
}
