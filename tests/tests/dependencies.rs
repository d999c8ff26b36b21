//! Licences and bans of everything the programs link, as `deny.toml` states them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use millrace_tests::servers;
use serde_json::Value;

const TARGETS: [&str; 2] = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"];

/// Every package that is built for one target, as `cargo metadata` describes it.
///
/// `cargo metadata` alone also lists what no feature asks for, and `cargo tree` alone does not say
/// where a package comes from.
fn packages(target: &str) -> Result<Vec<Value>> {
    let tree = ["tree", "--workspace", "--locked", "--prefix", "none", "--format", "{p}"];
    let tree = cargo(&[&tree[..], &["--target", target]].concat())?;
    let built: BTreeSet<(&str, &str)> = tree
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some((words.next()?, words.next()?.strip_prefix('v')?))
        })
        .collect();
    let metadata = cargo(&["metadata", "--format-version", "1", "--locked", "--filter-platform", target])?;
    let mut metadata: Value = serde_json::from_str(&metadata)?;
    let Value::Array(mut packages) = metadata["packages"].take() else {
        bail!("cargo metadata has no list of packages");
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    packages.retain(|package| {
        let (name, version) = (text(&package["name"]), text(&package["version"]));
        built.contains(&(name.as_str(), version.as_str()))
    });
    ensure!(packages.len() == built.len(), "{} of {} packages described", packages.len(), built.len());
    Ok(packages)
}

fn cargo(args: &[&str]) -> Result<String> {
    let output = Command::new(env!("CARGO")).args(args).current_dir(servers::checkout()).output()?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo {} failed: {words}", args.join(" "));
    Ok(String::from_utf8(output.stdout)?)
}

fn deny() -> Result<toml::Table> {
    let text = fs::read_to_string(servers::checkout().join("deny.toml"))?;
    Ok(text.parse()?)
}

fn strings(list: Option<&toml::Value>) -> BTreeSet<&str> {
    let items = list.and_then(toml::Value::as_array).into_iter().flatten();
    items.filter_map(toml::Value::as_str).collect()
}

/// True if the licence expression leaves a way to use only licences that are allowed.
fn is_satisfied(expression: &str, allowed: &BTreeSet<&str>) -> Result<bool> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words = spaced.split_whitespace().peekable();
    let value = any_of(&mut words, allowed)?;
    ensure!(words.peek().is_none(), "cannot read the licence `{expression}`");
    Ok(value)
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any_of(words: &mut Words<'_>, allowed: &BTreeSet<&str>) -> Result<bool> {
    let mut value = all_of(words, allowed)?;
    while words.next_if_eq(&"OR").is_some() {
        value |= all_of(words, allowed)?;
    }
    Ok(value)
}

fn all_of(words: &mut Words<'_>, allowed: &BTreeSet<&str>) -> Result<bool> {
    let mut value = one(words, allowed)?;
    while words.next_if_eq(&"AND").is_some() {
        value &= one(words, allowed)?;
    }
    Ok(value)
}

fn one(words: &mut Words<'_>, allowed: &BTreeSet<&str>) -> Result<bool> {
    let mut name = words.next().context("the licence ends too early")?.to_owned();
    if name == "(" {
        let value = any_of(words, allowed)?;
        ensure!(words.next() == Some(")"), "a bracket of the licence is not closed");
        return Ok(value);
    }
    if words.next_if_eq(&"WITH").is_some() {
        let exception = words.next().context("the licence ends too early")?;
        name = format!("{name} WITH {exception}");
    }
    Ok(allowed.contains(name.as_str()))
}

#[test]
fn licence_expressions_are_read_as_spdx_says() {
    let allowed = BTreeSet::from(["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"]);
    let check = |expression: &str, expected| {
        assert_eq!(is_satisfied(expression, &allowed).unwrap(), expected, "{expression}");
    };
    check("MIT", true);
    check("GPL-3.0", false);
    check("GPL-3.0 OR MIT", true);
    check("GPL-3.0/MIT", true);
    check("GPL-3.0 AND MIT", false);
    check("(GPL-3.0 OR MIT) AND Apache-2.0", true);
    check("MIT OR GPL-3.0 AND GPL-2.0", true);
    check("Apache-2.0 WITH LLVM-exception", true);
    check("MIT WITH LLVM-exception", false);
    assert!(is_satisfied("(MIT", &allowed).is_err());
}

#[test]
fn every_linked_package_has_an_allowed_licence() -> Result<()> {
    let deny = deny()?;
    let allowed = strings(deny["licenses"].get("allow"));
    let mut refused = BTreeSet::new();
    for target in TARGETS {
        for package in packages(target)? {
            let (name, version) = (&package["name"], &package["version"]);
            let licence = package["license"].as_str().unwrap_or("none");
            let is_fine = is_satisfied(licence, &allowed).with_context(|| format!("{name} {version}"))?;
            if !is_fine {
                refused.insert(format!("{name} {version}: {licence}"));
            }
        }
    }
    ensure!(refused.is_empty(), "licences that deny.toml does not allow: {refused:#?}");
    Ok(())
}

#[test]
fn no_banned_package_and_no_foreign_source_is_linked() -> Result<()> {
    let deny = deny()?;
    let entries = deny["bans"].get("deny").and_then(toml::Value::as_array);
    let mut banned = BTreeMap::new();
    for entry in entries.context("deny.toml bans nothing")? {
        let name = entry.get("crate").and_then(toml::Value::as_str);
        let reason = entry.get("reason").and_then(toml::Value::as_str);
        let name = name.context("a ban in deny.toml names no crate")?;
        banned.insert(name, reason.context("a ban in deny.toml gives no reason")?);
    }
    let mut faults = BTreeSet::new();
    for target in TARGETS {
        for package in packages(target)? {
            let name = package["name"].as_str().unwrap_or_default();
            if let Some(reason) = banned.get(name) {
                faults.insert(format!("{name}: {reason}"));
            }
            // The project's own packages have no source, all others the registry.
            let source = package["source"].as_str();
            if source.is_some_and(|source| !source.starts_with("registry+")) {
                faults.insert(format!("{name} comes from {source:?}"));
            }
            if source.is_none() {
                faults.extend(wildcards(&package).map(|dependency| format!("{name}: any version of {dependency}")));
            }
        }
    }
    ensure!(faults.is_empty(), "deny.toml does not allow: {faults:#?}");
    Ok(())
}

fn wildcards(package: &Value) -> impl Iterator<Item = &str> {
    let dependencies = package["dependencies"].as_array().into_iter().flatten();
    dependencies
        .filter(|dependency| dependency["req"] == "*" && dependency["path"].is_null())
        .filter_map(|dependency| dependency["name"].as_str())
}
