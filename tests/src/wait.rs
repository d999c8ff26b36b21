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

/// Asks every 50 ms how much is left, until nothing is. How fast it gets less is the machine's: only a standstill is an error.
///
/// # Errors
///
/// The probe's own error at once, or one that names `what` was waited for once `limit` has passed without less being left than ever
/// before.
pub fn until_none_left(what: &str, limit: Duration, mut left: impl FnMut() -> Result<u64>) -> Result<()> {
    let mut least = u64::MAX;
    let mut since = Instant::now();
    loop {
        let now_left = left()?;
        if now_left == 0 {
            return Ok(());
        }
        if now_left < least {
            (least, since) = (now_left, Instant::now());
        }
        if since.elapsed() >= limit {
            bail!("waited for {what}: {now_left} left, and no less for {limit:?}");
        }
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gets_less_is_waited_for_and_a_standstill_is_not() {
        let limit = 2 * PAUSE;
        let mut left = 10;
        let counting_down = || {
            left -= 1;
            Ok(left)
        };
        let started = Instant::now();
        assert!(until_none_left("a slow one", limit, counting_down).is_ok());
        assert!(started.elapsed() > limit);
        let mut looks = 0;
        let up_and_down = || {
            looks += 1;
            Ok(7 + looks % 2)
        };
        let error = until_none_left("the end", limit, up_and_down).map_err(|error| error.to_string());
        assert!(error.is_err_and(|error| error.starts_with("waited for the end: ")));
    }
}
