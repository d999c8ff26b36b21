//! Documents that are written from the programs are what the programs say.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use millrace_tests::process::built;
use millrace_tests::servers;

/// All settings of a program, as it describes them.
fn table(program: &str) -> Result<String> {
    let output = Command::new(built(program)?).args(["schema", "--markdown"]).output()?;
    let table = String::from_utf8(output.stdout)?;
    ensure!(output.status.success() && table.lines().count() > 30, "{program} schema: {table}");
    Ok(table)
}

#[test]
fn the_settings_are_documented_as_they_are() -> Result<()> {
    let written = fs::read_to_string(servers::checkout().join("docs/configuration.md"))?;
    for program in ["shipper", "indexer"] {
        let table = table(program)?;
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

/// The words in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Of `docs/moving.md`.
#[test]
fn every_setting_of_ours_that_the_tables_name_is_one() -> Result<()> {
    let mut settings = BTreeSet::new();
    for program in ["shipper", "indexer"] {
        settings.extend(
            table(program)?.lines().filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned())),
        );
    }
    let text = fs::read_to_string(servers::checkout().join("docs/moving.md"))?;
    let (mut num, mut unknown) = (0, Vec::new());
    for row in text.lines().filter(|line| line.starts_with("| ")) {
        // A path that ends a section, and not a value such as `json`.
        let cell = row.split(" |").nth(1).unwrap_or_default();
        let is_path =
            |word: &&str| word.contains(['.', '[']) && !word.starts_with("compression.") || *word == "data_dir";
        for word in quoted(cell).filter(is_path) {
            num += 1;
            if !settings.contains(word) {
                unknown.push(word);
            }
        }
    }
    ensure!(unknown.is_empty() && num > 60, "{num} settings, unknown: {unknown:?}");
    Ok(())
}
