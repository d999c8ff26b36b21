//! The temporary folder of this test process.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

struct Root {
    path: PathBuf,
    /// Held open for the life of this process: its end tells the janitor to remove the folder.
    _janitor: Option<ChildStdin>,
}

static ROOT: OnceLock<Root> = OnceLock::new();
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Makes a new empty folder, named after `name`, that lives as long as this process.
///
/// It goes away however the process ends, kill -9 included. `MILLRACE_KEEP=1` keeps it.
///
/// # Errors
///
/// If the folder cannot be made.
pub fn dir(name: &str) -> Result<PathBuf> {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = root()?.join(format!("{name}-{number}"));
    fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path)
}

fn root() -> Result<&'static Path> {
    if let Some(root) = ROOT.get() {
        return Ok(&root.path);
    }
    let path = std::env::temp_dir().join(format!("millrace-{}", std::process::id()));
    // Another thread may be here at the same time: the folder is the same, the second janitor
    // starts its work when its handle is dropped below, so only the first may make one.
    static LOCK: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _guard = LOCK.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(root) = ROOT.get() {
        return Ok(&root.path);
    }
    if path.exists() {
        // Of an earlier process with this id.
        fs::remove_dir_all(&path).with_context(|| format!("cannot clear {}", path.display()))?;
    }
    fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    // Elasticsearch may run as another user, who must be able to pass through.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o711))?;
    let _janitor = if std::env::var_os("MILLRACE_KEEP").is_some() {
        eprintln!("keeping {}", path.display());
        None
    } else {
        Some(start_janitor(&path)?)
    };
    Ok(&ROOT.get_or_init(|| Root { path, _janitor }).path)
}

/// Starts a shell that outlives this process just long enough to remove its folder.
fn start_janitor(path: &Path) -> Result<ChildStdin> {
    // The servers die with this process, but may write for another moment.
    let script = r#"cat >/dev/null; for i in 1 2 3 4 5; do sleep 1; rm -rf -- "$0" && exit; done"#;
    let mut janitor = Command::new("sh")
        .args(["-c", script])
        .arg(path)
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start sh")?;
    janitor.stdin.take().context("sh has no standard input")
}
