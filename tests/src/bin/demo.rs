//! `make demo`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use millrace_tests::{demo, servers};

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool> {
    let dir = servers::checkout().join(".run/demo");
    let keep = std::env::var("KEEP").is_ok_and(|keep| !keep.is_empty() && keep != "0");
    demo::run(&dir, keep).context("the demo could not be finished")
}
