//! Documents that are written from the programs are what the programs say.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use millrace_tests::process::built;
use millrace_tests::servers;

#[test]
fn the_settings_are_documented_as_they_are() -> Result<()> {
    let written = fs::read_to_string(servers::checkout().join("docs/configuration.md"))?;
    for program in ["shipper", "indexer"] {
        let output = Command::new(built(program)?).args(["schema", "--markdown"]).output()?;
        let table = String::from_utf8(output.stdout)?;
        ensure!(output.status.success() && table.lines().count() > 30, "{program} schema: {table}");
        ensure!(
            written.contains(&format!("\n## {program}\n\n{table}")),
            "docs/configuration.md is old: run `make docs`"
        );
        let output = Command::new(built(program)?).arg("schema").output()?;
        let schema: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        ensure!(schema["properties"]["kafka"].is_object(), "{schema}");
    }
    Ok(())
}
