//! Kafka's own command-line tools.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::servers;

/// The Java that runs Kafka, with its classes.
pub struct Java {
    pub program: PathBuf,
    pub class_path: String,
}

impl Java {
    /// # Errors
    ///
    /// If Kafka or Java cannot be provided.
    pub fn find() -> Result<Self> {
        let home = servers::home("kafka")?;
        let program = servers::java_home(17)?.join("bin/java");
        Ok(Self { program, class_path: format!("{}/libs/*", home.display()) })
    }

    /// Runs a class to its end and returns what it prints.
    pub(super) fn run(&self, class: &str, args: &[&str]) -> Result<String> {
        let output = Command::new(&self.program)
            .args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", &self.class_path, class])
            .args(args)
            .output()
            .with_context(|| format!("cannot run {class}"))?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "{class} failed: {printed}{}", String::from_utf8_lossy(&output.stderr));
        Ok(printed)
    }
}
