//! `shipper status`: what a person sees of a running and of a stopped shipper, and the changes of a checkpoint.

use std::fs;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use millrace_tests::process::built;
use millrace_tests::rig::{LIMIT, Rig};
use millrace_tests::wait;
use serde_json::Value;

fn status(rig: &Rig, args: &[&str]) -> Result<Output> {
    let config = rig.dir.join("shipper.yaml");
    Ok(Command::new(built("shipper")?).arg("status").arg("--config").arg(config).args(args).output()?)
}

fn printed(output: &Output) -> Result<String> {
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout.clone())?)
}

#[test]
fn status_shows_a_running_shipper_and_a_stopped_one() -> Result<()> {
    let rig = Rig::new("status", 1)?;
    rig.append("app.log", rig.lines("app.log", 0..100))?;
    rig.append("evil-\u{1b}[31m.log", rig.lines("evil", 0..1))?;
    let mut shipper = rig.start()?;
    rig.wait_for_records(101)?;
    let size = fs::metadata(rig.path("app.log"))?.len();
    wait::until_true("all acknowledged", LIMIT, || {
        Ok(shipper.status()?["unread_bytes"] == 0 && !shipper.status()?.to_string().contains("sending"))
    })?;
    let text = printed(&status(&rig, &[])?)?;
    assert!(text.starts_with(&format!("2 files (running, process {}), 0 bytes behind", shipper.pid())), "{text}");
    assert!(text.contains("app.log") && text.contains("idle"), "{text}");
    assert!(text.contains("evil-\\u{1b}[31m.log") && !text.contains('\u{1b}'), "{text}");
    let json: Value = serde_json::from_str(&printed(&status(&rig, &["--json"])?)?)?;
    assert_eq!(json["pid"], shipper.pid());
    assert_eq!(json["sources"].as_array().map(Vec::len), Some(2));
    shipper.stop()?;
    let text = printed(&status(&rig, &[])?)?;
    assert!(text.contains("from the checkpoint: no shipper runs on this folder"), "{text}");
    let json: Value = serde_json::from_str(&printed(&status(&rig, &["--json"])?)?)?;
    let sources = json["sources"].as_array().context("sources")?;
    assert!(sources.iter().any(|source| source["acknowledged"] == size && source["state"] == "stopped"), "{json}");
    Ok(())
}

#[test]
fn a_checkpoint_is_changed_only_while_no_shipper_uses_it() -> Result<()> {
    let rig = Rig::new("status-change", 1)?;
    let text = rig.lines("app.log", 0..100);
    rig.append("app.log", &text)?;
    let path = rig.path("app.log").to_string_lossy().into_owned();
    let third_line: usize = text.lines().take(2).map(|line| line.len() + 1).sum();
    let mut shipper = rig.start()?;
    rig.wait_for_records(100)?;
    for args in [["--forget".to_owned(), path.clone()], ["--rewind".to_owned(), format!("{path}:{third_line}")]] {
        let refused = status(&rig, &args.each_ref().map(String::as_str))?;
        let words = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(73), "{words}");
        assert!(
            words.contains(&format!("process {} uses", shipper.pid())) && words.contains("stop it first"),
            "{words}"
        );
    }
    shipper.stop()?;
    let inside = status(&rig, &["--rewind", &format!("{path}:{}", third_line + 3)])?;
    assert_eq!(inside.status.code(), Some(64));
    let words = String::from_utf8_lossy(&inside.stderr).into_owned();
    assert!(words.contains(&format!("the nearest one before starts at {third_line}")), "{words}");
    let ahead = status(&rig, &["--rewind", &format!("{path}:{}", text.len())])?;
    assert_eq!(ahead.status.code(), Some(64));
    let unknown = status(&rig, &["--forget", "/nowhere.log"])?;
    assert_eq!(unknown.status.code(), Some(74));
    printed(&status(&rig, &["--rewind", &format!("{path}:{third_line}")])?)?;
    assert_eq!(rig.acknowledged("app.log")?, third_line as u64);
    rig.run_until_eof()?;
    assert_eq!(rig.num_records()?, 198, "the lines from the third on came again");
    printed(&status(&rig, &["--forget", &path])?)?;
    rig.run_until_eof()?;
    assert_eq!(rig.num_records()?, 298);
    // The same bytes have the same ids.
    rig.verdict()?.check()
}
