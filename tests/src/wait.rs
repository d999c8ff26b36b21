//! Waiting for another process, with a stated end.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const PAUSE: Duration = Duration::from_millis(50);

/// Asks `probe` every 50 ms until it gives a value, and returns that.
///
/// # Errors
///
/// The probe's own error at once, or after `limit` one that names `what` was waited for.
pub fn until<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let started = Instant::now();
    loop {
        if let Some(value) = probe()? {
            return Ok(value);
        }
        if started.elapsed() >= limit {
            bail!("waited {limit:?} in vain for {what}");
        }
        std::thread::sleep(PAUSE);
    }
}

/// [`until`] for a plain condition.
///
/// # Errors
///
/// As [`until`].
pub fn until_true(what: &str, limit: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    until(what, limit, || Ok(condition()?.then_some(())))
}
