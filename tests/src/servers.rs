//! Where the real servers and the Java to run them with are.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// The user that Elasticsearch runs as when we are root: it refuses to be root itself.
pub const UNPRIVILEGED_USER: u32 = 65_534;

/// Returns the folder of a server, fetching it first if need be. `server` is a word that
/// `scripts/servers` takes, such as `kafka` or `elasticsearch:9.2.0`.
///
/// # Errors
///
/// If it cannot be fetched.
pub fn home(server: &str) -> Result<PathBuf> {
    let script = checkout().join("scripts/servers");
    let output = Command::new(&script)
        .arg(server)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", script.display()))?;
    ensure!(output.status.success(), "scripts/servers {server} failed");
    let home = String::from_utf8(output.stdout)?;
    Ok(PathBuf::from(home.trim_end()))
}

/// The root of this checkout.
pub fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate stands in a folder of the workspace")
}

/// Returns the home of the oldest installed Java that is at least version `at_least`.
///
/// # Errors
///
/// If there is none.
pub fn java_home(at_least: u32) -> Result<PathBuf> {
    let mut homes: Vec<PathBuf> = std::env::var_os("JAVA_HOME").map(PathBuf::from).into_iter().collect();
    for dir in ["/usr/lib/jvm", "/opt/java"] {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            homes.push(entry.path());
        }
    }
    let on_path = Command::new("sh").args(["-c", "command -v java"]).output();
    if let Ok(output) = on_path {
        let java = fs::canonicalize(String::from_utf8_lossy(&output.stdout).trim());
        homes.extend(java.iter().filter_map(|java| java.ancestors().nth(2)).map(Path::to_owned));
    }
    homes
        .into_iter()
        .filter_map(|home| java_major(&home).map(|major| (major, home)))
        .filter(|(major, _)| *major >= at_least)
        .min_by_key(|(major, _)| *major)
        .map(|(_, home)| home)
        .with_context(|| format!("no Java {at_least} or later found: run scripts/bootstrap"))
}

fn java_major(home: &Path) -> Option<u32> {
    let release = fs::read_to_string(home.join("release")).ok()?;
    let line = release.lines().find(|line| line.starts_with("JAVA_VERSION="))?;
    let version = line.split('"').nth(1)?;
    home.join("bin/java").exists().then_some(())?;
    version.split('.').next()?.parse().ok()
}

/// True if this process is root.
pub fn are_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Gives a folder to [`UNPRIVILEGED_USER`] if we are root.
///
/// # Errors
///
/// If the owner of the folder or of something in it cannot be changed.
pub fn hand_over(path: &Path) -> Result<()> {
    if !are_root() {
        return Ok(());
    }
    let user = Some(UNPRIVILEGED_USER);
    std::os::unix::fs::chown(path, user, user).with_context(|| format!("cannot give away {}", path.display()))?;
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            hand_over(&entry?.path())?;
        }
    }
    Ok(())
}

/// Makes `wanted` a folder that [`UNPRIVILEGED_USER`] can reach if we are root, and returns it.
///
/// Where a folder above it is closed to others, as root's home is, it becomes a link to a new
/// folder in `/var/tmp`.
///
/// # Errors
///
/// If the folder cannot be made.
pub fn dir_for_unprivileged(wanted: &Path) -> Result<PathBuf> {
    if !wanted.exists() {
        let parent = wanted.parent().context("the folder needs a parent")?;
        fs::create_dir_all(parent)?;
        if are_root() && !fs::canonicalize(parent)?.ancestors().all(others_can_enter) {
            let elsewhere = Path::new("/var/tmp").join(format!("millrace-{}", crate::stack::unique()));
            fs::create_dir(&elsewhere)?;
            // A link of an earlier run may be left whose folder is gone.
            if wanted.is_symlink() {
                fs::remove_file(wanted)?;
            }
            std::os::unix::fs::symlink(&elsewhere, wanted)?;
        } else {
            fs::create_dir(wanted)?;
        }
    }
    fs::canonicalize(wanted).with_context(|| format!("cannot find {}", wanted.display()))
}

fn others_can_enter(dir: &Path) -> bool {
    fs::metadata(dir).is_ok_and(|dir| dir.permissions().mode() & 0o001 != 0)
}
