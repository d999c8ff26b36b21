//! `shipper explain`: one line, followed from its file to the index or the dead letters.

use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use millrace_tests::fake_elasticsearch::{Answer, FakeElasticsearch};
use millrace_tests::kafka::Kafka;
use millrace_tests::process::{Launch, built};
use millrace_tests::rig::{LIMIT, Rig};
use millrace_tests::wait;
use serde_json::{Value, json};

fn explain(rig: &Rig, args: &[&str]) -> Result<Output> {
    let config = rig.dir.join("shipper.yaml");
    Ok(Command::new(built("shipper")?).arg("explain").args(args).arg("--config").arg(config).output()?)
}

/// The exit code, and what it says as JSON.
fn explained(rig: &Rig, line: &str) -> Result<(Option<i32>, Value)> {
    let output = explain(rig, &["--json", line])?;
    let words = || format!("{line}: {output:?}");
    Ok((output.status.code(), serde_json::from_slice(&output.stdout).with_context(words)?))
}

#[test]
fn a_line_is_followed_to_the_index_and_to_the_dead_letters() -> Result<()> {
    let kafka = Kafka::shared()?;
    let fake = FakeElasticsearch::start()?;
    fake.script(|bulk| {
        Answer::items(bulk, |item| {
            item.document.contains("poison").then_some((400, "document_parsing_exception", "failed to parse"))
        })
    });
    let mut rig = Rig::new("explain", 2)?;
    let dlq = format!("{}.dlq", rig.topic);
    kafka.create_topic(&dlq, 1, &[])?;
    rig.set("inputs.0.multiline", json!({"start": r"^\d", "timeout": "1s"}));
    let text = "1 one\n  more of it\n2 poison\n3 three\n";
    rig.append("app.log", text)?;
    let at = |line: u64| format!("{}:{line}", rig.path("app.log").display());
    let mut shipper = rig.start()?;
    wait::until_true("all acknowledged", LIMIT, || Ok(rig.acknowledged("app.log").unwrap_or(0) == text.len() as u64))?;
    let (code, told) = explained(&rig, &at(1))?;
    assert_eq!((code, &told["state"], &told["groups"]), (Some(75), &json!("acknowledged"), &json!({})), "{told}");

    let config = rig.dir.join("indexer.yaml");
    std::fs::write(
        &config,
        format!(
            "kafka: {{ brokers: [\"{}\"], topics: [\"{topic}\"], group: \"{topic}\" }}\n\
             elasticsearch: {{ hosts: [\"{}\"] }}\n\
             templates: {{ apply: false }}\n\
             rules: [ {{ index: \"{topic}-all\" }} ]\n\
             dead_letter: {{ topic: \"{dlq}\" }}\n\
             admin: {{ listen: \"127.0.0.1:0\" }}\n",
            kafka.bootstrap(),
            fake.url(),
            topic = rig.topic,
        ),
    )?;
    let mut indexer = Launch::indexer("indexer", &rig.dir)?.args(["run", "-c"]).arg(&config).start()?;
    kafka.wait_no_lag(&rig.topic, &rig.topic, LIMIT)?;

    let keys: Vec<String> = rig
        .records()?
        .iter()
        .map(|record| String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned())
        .collect();
    ensure!(keys.len() == 3, "{keys:?}");
    for (line, key, fate, expected) in
        [(1, 0, "indexed", 0), (2, 0, "indexed", 0), (3, 1, "dead_lettered", 65), (4, 2, "indexed", 0)]
    {
        let (code, told) = explained(&rig, &at(line))?;
        assert_eq!((code, &told["groups"][&rig.topic]), (Some(expected), &json!(fate)), "{told}");
        assert_eq!(told["record"]["id"], json!(keys[key]), "{told}");
    }
    let output = explain(&rig, &[&at(3)])?;
    let words = String::from_utf8(output.stdout)?;
    assert!(words.contains("app.log:3, bytes 19..28 of source"), "{words}");
    assert!(words.contains("dead-lettered: `indexer dlq list` says why"), "{words}");

    shipper.stop()?;
    rig.append("app.log", "4 four\n")?;
    let (code, told) = explained(&rig, &at(5))?;
    assert_eq!((code, &told["state"]), (Some(75), &json!("waiting")), "{told}");
    for (line, part) in
        [(at(6), "has 5 lines"), (at(0), "write it as FILE:LINE"), ("/etc/passwd:1".to_owned(), "nobody reads it")]
    {
        let refused = explain(&rig, &[&line])?;
        let words = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(64) && words.contains(part), "{line}: {words}");
    }
    ensure!(indexer.terminate(LIMIT)? == 0, "{}", indexer.log_tail());
    Ok(())
}
