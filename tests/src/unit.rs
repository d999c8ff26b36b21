//! A unit file of systemd, read.

use std::path::Path;

use anyhow::{Context, Result};

/// Its settings in their order, whatever their section.
pub struct Unit(Vec<(String, String)>);

impl Unit {
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("no unit {}", path.display()))?;
        let is_setting = |line: &&str| !line.starts_with(['#', ';', '[']);
        let settings = text.lines().filter(is_setting).filter_map(|line| line.split_once('='));
        Ok(Self(settings.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()))
    }

    /// Every value of a setting.
    pub fn all(&self, key: &str) -> Vec<String> {
        self.0.iter().filter(|(name, _)| name == key).map(|(_, value)| value.clone()).collect()
    }

    /// The last value of a setting, which is the one that counts.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn get(&self, key: &str) -> Result<&str> {
        let last = self.0.iter().rev().find(|(name, _)| name == key);
        last.map(|(_, value)| value.as_str()).with_context(|| format!("no {key}"))
    }
}
