//! Names, lines and answers that somebody else has written, shown by every command and in both logs. Huge lines are in
//! `shipper_files` (P04, P05).

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use millrace_common::terminal::acts;
use millrace_tests::fake_elasticsearch::{Answer, FakeElasticsearch};
use millrace_tests::kafka::Kafka;
use millrace_tests::process::{Launch, Process};
use millrace_tests::rig::{LIMIT, Rig};
use millrace_tests::{http, ports, wait};
use serde_json::json;

/// Clears the screen, sets the title, turns the order of what follows; and a control of the second set.
const HOSTILE: &str = "\u{1b}[2J\u{1b}]0;title\u{7}\u{202e}\u{9b}31m";

/// Fails if something in the text acts on a terminal, or if what was to be escaped is not there.
fn check_shown(what: &str, text: &str, is_named: bool) -> Result<()> {
    let found = text.chars().find(|c| acts(*c) && !matches!(c, '\n' | '\t'));
    ensure!(found.is_none(), "{what} prints {found:?}: {}", text.escape_debug());
    ensure!(!is_named || text.contains("[2J"), "{what} does not show what was to be escaped: {text}");
    Ok(())
}

struct Commands<'a> {
    rig: &'a Rig,
    indexer: PathBuf,
}

impl Commands<'_> {
    fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        let name = format!("{program}-{}", args[..1].join("-"));
        let config = if program == "shipper" { self.rig.dir.join("shipper.yaml") } else { self.indexer.clone() };
        let (words, rest) = args.split_at(if args[0] == "dlq" { 2 } else { 1 });
        let mut process = Launch::binary(program, &name, &self.rig.dir)?
            .args(words)
            .arg("--config")
            .arg(config)
            .args(rest)
            .env("MILLRACE_LOG", "debug")
            .start()?;
        process.wait(LIMIT)?;
        Ok(process.output())
    }
}

#[test]
fn what_acts_on_a_terminal_is_escaped_by_every_command_and_in_both_logs() -> Result<()> {
    let kafka = Kafka::shared()?;
    let fake = FakeElasticsearch::start()?;
    fake.script(|bulk| {
        let reason = "failed to parse field [a\u{1b}[2J] of type [long]";
        Answer::items(bulk, |item| {
            item.document.contains("poison").then_some((400, "document_parsing_exception", reason))
        })
    });
    let mut rig = Rig::new("untrusted", 2)?;
    let dlq = format!("{}.dlq", rig.topic);
    kafka.create_topic(&dlq, 1, &[])?;
    rig.set("host.name", format!("web{HOSTILE}"));
    rig.set("heartbeat", "1s");
    let file = format!("a{HOSTILE}.log");
    let text = format!("one {HOSTILE}\npoison {HOSTILE}\n");
    rig.append(&file, &text)?;
    let mut shipper = rig.start_as(&rig.launch()?.env("MILLRACE_LOG", "debug"))?;
    wait::until_true("all acknowledged", LIMIT, || Ok(rig.acknowledged(&file).unwrap_or(0) == text.len() as u64))?;

    let config = rig.dir.join("indexer.yaml");
    let admin = format!("127.0.0.1:{}", ports::free()?);
    let settings = json!({
        "kafka": {"brokers": [kafka.bootstrap()], "topics": [rig.topic], "group": rig.topic},
        "elasticsearch": {"hosts": [fake.url()]},
        "rules": [{"index": format!("{}-all", rig.topic)}],
        "dead_letter": {"topic": dlq},
        "admin": {"listen": admin},
    });
    fs::write(&config, settings.to_string())?;
    let launch = Launch::indexer("indexer", &rig.dir)?.args(["run", "-c"]).arg(&config).env("MILLRACE_LOG", "debug");
    let mut indexer: Process = launch.start()?;
    kafka.wait_no_lag(&rig.topic, &rig.topic, LIMIT)?;
    wait::until_true("the file in the indexer's status", LIMIT, || {
        indexer.ensure_running()?;
        Ok(http::get(&format!("http://{admin}/status")).is_ok_and(|reply| reply.body.contains(".log\"")))
    })?;

    let commands = Commands { rig: &rig, indexer: config };
    let at = |line: u64| format!("{}:{line}", rig.path(&file).display());
    check_shown("shipper status", &commands.run("shipper", &["status"])?, true)?;
    for line in 1..=2 {
        check_shown("explain", &commands.run("shipper", &["explain", &at(line)])?, true)?;
    }
    check_shown("indexer status", &commands.run("indexer", &["status"])?, true)?;
    check_shown("dlq list", &commands.run("indexer", &["dlq", "list"])?, true)?;
    check_shown("dlq top", &commands.run("indexer", &["dlq", "top"])?, false)?;
    check_shown("audit", &commands.run("indexer", &["audit"])?, false)?;
    // A file that vanished is told, too.
    std::fs::remove_file(rig.path(&file))?;
    shipper.stop()?;
    check_shown("explain of what is gone", &commands.run("shipper", &["explain", &at(1)])?, true)?;
    check_shown("the log of the shipper", &shipper.log(), true)?;
    indexer.terminate(LIMIT)?;
    check_shown("the log of the indexer", &indexer.output(), true)
}

/// Whoever may write to a folder of logs has the shipper read only what lies in it, until the configuration says otherwise.
#[test]
fn links_that_leave_the_folder_are_not_read_unless_the_configuration_allows_it() -> Result<()> {
    let mut rig = Rig::new("links", 2)?;
    rig.set_patterns(&["*.log", "*/*.log"]);
    rig.set("files.rescan", "200ms");
    let elsewhere = rig.dir.join("elsewhere");
    fs::create_dir(&elsewhere)?;
    let secrets = rig.lines("secrets", 0..50);
    fs::write(elsewhere.join("secrets.log"), &secrets)?;
    symlink(elsewhere.join("secrets.log"), rig.path("file.log"))?;
    symlink(&elsewhere, rig.path("folder"))?;
    symlink("kept/own", rig.path("swapped.log"))?;
    fs::create_dir(rig.path("kept"))?;
    rig.append("kept/own", rig.lines("own", 0..50))?;
    let mut shipper = rig.start()?;
    rig.wait_for_records(50)?;
    let refusal = "outside of the folders of its input; if that is meant, add the folder to `links_into`";
    wait::until_true("both links are named", LIMIT, || Ok(shipper.num_logged(refusal) == 2))?;
    // Swapped while it is tailed: what was read stays read, and what it leads to now is not.
    symlink(elsewhere.join("secrets.log"), rig.path("new"))?;
    rig.rename("new", "swapped.log")?;
    wait::until_true("the third link is named", LIMIT, || Ok(shipper.num_logged(refusal) == 3))?;
    rig.append("late.log", rig.lines("late", 0..50))?;
    rig.wait_for_records(100)?;
    shipper.stop()?;
    ensure!(rig.num_records()? == 100, "{} records", rig.num_records()?);

    rig.set("inputs.0.links_into", json!([elsewhere]));
    let mut shipper = rig.start()?;
    rig.wait_until_whole(LIMIT)?;
    ensure!(shipper.num_logged(refusal) == 0, "refused where it is allowed");
    shipper.stop()?;
    rig.check_sent_once()
}
