//! What tests share while one of them uses it, and no longer: idle servers take time from the tests that run.

use std::sync::{Arc, Mutex, Weak};

use anyhow::Result;

use crate::lock;

/// For a `static`.
pub struct WhileUsed<T>(Mutex<Weak<T>>);

impl<T> WhileUsed<T> {
    /// Nobody uses it yet.
    #[expect(clippy::new_without_default, reason = "a default cannot be made for a static")]
    pub const fn new() -> Self {
        Self(Mutex::new(Weak::new()))
    }

    /// What the others use, or a new one. Others wait meanwhile.
    ///
    /// # Errors
    ///
    /// As `start`.
    pub fn get(&self, start: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
        let mut shared = lock(&self.0);
        if let Some(used) = shared.upgrade() {
            return Ok(used);
        }
        let started = Arc::new(start()?);
        *shared = Arc::downgrade(&started);
        Ok(started)
    }
}
