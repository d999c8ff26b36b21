//! Where links may lead. Whoever may write into a tailed folder could else have the shipper read, through a link, what only the
//! shipper's user may read.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// The folders that the files of an input lie in once every link is followed. They may themselves be links: who names them in
/// the configuration is trusted.
#[derive(Debug, Default)]
pub struct Reach {
    folders: Vec<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
#[error(
    "a link leads to `{}`, outside of the folders of its input; if that is meant, add the folder to `links_into` of the input",
    .0.display()
)]
pub struct Outside(PathBuf);

impl Reach {
    pub fn new(mut folders: Vec<PathBuf>) -> Self {
        folders.sort();
        folders.dedup();
        Self { folders }
    }

    pub fn check_path(&self, path: &Path) -> io::Result<()> {
        self.check(fs::canonicalize(path)?)
    }

    /// Asks the kernel where the open file lies (`/proc/self/fd`, proc(5)): a link may have been changed since it was looked at.
    pub fn check_open(&self, file: &File) -> io::Result<()> {
        self.check(fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?)
    }

    fn check(&self, real: PathBuf) -> io::Result<()> {
        // No link is on the way to where a file lies, nor to a folder on that way: only one that is not needs a look.
        let is_inside = |folder: &PathBuf| {
            real.starts_with(folder) || fs::canonicalize(folder).is_ok_and(|folder| real.starts_with(folder))
        };
        match self.folders.iter().any(is_inside) {
            true => Ok(()),
            false => Err(io::Error::new(io::ErrorKind::PermissionDenied, Outside(real))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::read::{Disk, FileSystem as _};

    #[test]
    fn an_open_file_is_judged_by_where_it_lies_whatever_its_path_says_by_now() {
        let [inside, outside] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let reach = Reach::new(vec![inside.path().to_owned()]);
        let (link, own, secret) =
            (inside.path().join("link"), inside.path().join("own"), outside.path().join("secret"));
        for file in [&own, &secret] {
            fs::write(file, "x\n").unwrap();
        }
        symlink(&own, &link).unwrap();
        let before = Disk.open(&link, &reach).unwrap();
        fs::remove_file(&link).unwrap();
        symlink(&secret, &link).unwrap();
        let refused = Disk.open(&link, &reach).unwrap_err();
        assert!(refused.to_string().contains(&format!("`{}`", secret.display())), "{refused}");
        fs::remove_file(&own).unwrap();
        reach.check_open(&before).unwrap();
    }

    #[test]
    fn a_folder_is_inside_by_whole_names() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["logs", "logs-secret"] {
            fs::create_dir(root.path().join(folder)).unwrap();
            fs::write(root.path().join(folder).join("file"), "x\n").unwrap();
        }
        let reach = Reach::new(vec![root.path().join("logs")]);
        reach.check_path(&root.path().join("logs/file")).unwrap();
        reach.check_path(&root.path().join("logs-secret/file")).unwrap_err();
    }
}
