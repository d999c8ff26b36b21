//! Events that are more or less than a line: several lines, parts of a container's line, other encodings and line ends,
//! filters.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, ensure};
use millrace_tests::rig::{LIMIT, Rig};
use millrace_tests::wait;
use serde_json::{Value, json};

/// The records by distinct key, in the order of the topic.
fn distinct(rig: &Rig) -> Result<Vec<Value>> {
    let mut seen = BTreeSet::new();
    let records = rig.records()?;
    let records = records.iter().filter(|record| seen.insert(record.key_text()));
    records.map(|record| serde_json::from_slice(&record.value).with_context(|| record.text())).collect()
}

fn message(record: &Value) -> &str {
    record["message"].as_str().unwrap_or_default()
}

fn flags(record: &Value) -> Vec<&str> {
    record["log"]["flags"].as_array().map(|flags| flags.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}

/// The messages by file and position.
fn messages(rig: &Rig) -> Result<Vec<String>> {
    let mut records = distinct(rig)?;
    records.sort_by_key(|record| (record["log"]["file"]["path"].to_string(), record["log"]["offset"].as_u64()));
    Ok(records.iter().map(|record| message(record).to_owned()).collect())
}

/// Fails unless each line is in exactly one record, as it was written.
fn check_lines(records: &[Value], lines: &[String]) -> Result<()> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for line in records.iter().flat_map(|record| message(record).lines()) {
        *counts.entry(line).or_default() += 1;
    }
    for line in lines {
        ensure!(counts.remove(line.as_str()) == Some(1), "`{line}` is not there once");
    }
    ensure!(counts.is_empty(), "never written like this: {counts:?}");
    Ok(())
}

const TRACE_LINES: usize = 40;

fn trace(name: &str) -> Vec<String> {
    let first = format!("2026-11-23 06:30:17 ERROR {name} failed");
    std::iter::once(first).chain((1..TRACE_LINES).map(|n| format!("\tat {name}.call{n}(Main.java:{n})"))).collect()
}

fn text(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[test]
fn t22_event_of_several_lines_over_a_rotation() -> Result<()> {
    const ROUNDS: usize = 100;
    let mut rig = Rig::new("t22", 2)?;
    rig.set("inputs.0.multiline", json!({"start": r"^\d{4}-"}));
    let mut shipper = rig.start()?;
    shipper.wait_logged("topic found")?;
    rig.append("app.log", "")?;
    shipper.wait_logged("tailing")?;
    let mut lines = Vec::new();
    for round in 0..ROUNDS {
        let before = vec![format!("2026-11-23 06:30:16 INFO before {round}")];
        let trace = trace(&format!("trace{round}"));
        let after = vec![format!("2026-11-23 06:30:18 INFO after {round}")];
        rig.append("app.log", text(&before) + &text(&trace[..TRACE_LINES / 2]))?;
        rig.rename("app.log", &format!("app.log.{round}"))?;
        rig.append("app.log", text(&trace[TRACE_LINES / 2..]) + &text(&after))?;
        lines.extend([before, trace, after].concat());
        // All but the last event, which ends with the next round's first line.
        rig.wait_for_records(3 * round as u64 + 2)?;
    }
    wait::until_true("the last event", LIMIT, || Ok(rig.num_records()? >= 3 * ROUNDS as u64))?;
    shipper.stop()?;
    let records = distinct(&rig)?;
    check_lines(&records, &lines)?;
    for round in 0..ROUNDS {
        let name = format!("trace{round}");
        let parts: Vec<_> = records
            .iter()
            .filter(|record| {
                message(record).contains(&format!("{name} ")) || message(record).contains(&format!("{name}."))
            })
            .collect();
        ensure!(parts.len() == 1, "{name} is in {} records", parts.len());
        ensure!(flags(parts[0]) == ["multiline"], "{:?}", flags(parts[0]));
    }
    Ok(())
}

#[test]
fn event_of_several_lines_is_sent_when_nothing_more_comes_and_the_same_after_a_kill() -> Result<()> {
    let mut rig = Rig::new("multiline-timeout", 1)?;
    rig.set("inputs.0.multiline", json!({"preset": "java", "timeout": "1s"}));
    let mut shipper = rig.start()?;
    rig.append("app.log", "java.lang.IllegalStateException: one\n\tat a.B.c(B.java:1)\n")?;
    rig.wait_for_records(1)?;
    shipper.kill9()?;
    // What comes after the pause is an event of its own, also when it is read again.
    rig.append("app.log", "\tat late.B.c(B.java:2)\nnext\n")?;
    let mut shipper = rig.start()?;
    wait::until_true("three events", LIMIT, || Ok(distinct(&rig)?.len() == 3))?;
    shipper.stop()?;
    let expected = ["java.lang.IllegalStateException: one\n\tat a.B.c(B.java:1)", "\tat late.B.c(B.java:2)", "next"];
    ensure!(messages(&rig)? == expected, "{:?}", messages(&rig)?);
    Ok(())
}

#[test]
fn stop_waits_for_an_event_of_several_lines_and_leaves_half_a_line() -> Result<()> {
    let mut rig = Rig::new("multiline-stop", 1)?;
    rig.set("inputs.0.multiline", json!({"start": "^S", "timeout": "2s"}));
    let mut shipper = rig.start()?;
    rig.append("a.log", "S1\n more\n")?;
    rig.append("b.log", "S2\n more\nS3 hal")?;
    rig.wait_for_records(1)?;
    shipper.stop()?;
    ensure!(messages(&rig)? == ["S1\n more", "S2\n more"], "{:?}", messages(&rig)?);
    rig.append("b.log", "f\n")?;
    rig.run_until_eof()?;
    ensure!(messages(&rig)? == ["S1\n more", "S2\n more", "S3 half"], "{:?}", messages(&rig)?);
    Ok(())
}

fn cri(stream: &str, tag: &str, content: &str) -> String {
    format!("2026-11-23T06:30:17.123456789Z {stream} {tag} {content}\n")
}

#[test]
fn t26_parts_of_container_lines_are_joined_over_a_rotation() -> Result<()> {
    const ROUNDS: u64 = 50;
    const PART_BYTES: usize = 16_384;
    let mut rig = Rig::new("t26", 2)?;
    rig.set("inputs.0.format", "cri");
    let mut shipper = rig.start()?;
    shipper.wait_logged("topic found")?;
    rig.append("0.log", "")?;
    shipper.wait_logged("tailing")?;
    let mut expected = BTreeSet::new();
    for round in 0..ROUNDS {
        let part =
            |stream: &str, n: usize| format!("{stream}-{round}-{n}-").repeat(PART_BYTES)[..PART_BYTES].to_owned();
        let parts = |n: usize| cri("stdout", "P", &part("out", n)) + &cri("stderr", "P", &part("err", n));
        rig.append("0.log", parts(1) + &parts(2))?;
        rig.rename("0.log", &format!("0.log.{round}"))?;
        rig.append("0.log", parts(3) + &cri("stdout", "F", "end") + &cri("stderr", "F", "end"))?;
        for stream in ["out", "err"] {
            expected.insert(part(stream, 1) + &part(stream, 2) + &part(stream, 3) + "end");
        }
        rig.wait_for_records(2 * (round + 1))?;
    }
    shipper.stop()?;
    let records = distinct(&rig)?;
    ensure!(records.len() as u64 == 2 * ROUNDS && rig.num_records()? == 2 * ROUNDS, "{} records", records.len());
    ensure!(records.iter().all(|record| flags(record).is_empty()));
    let found: BTreeSet<_> = records.iter().map(|record| message(record).to_owned()).collect();
    ensure!(found == expected, "other texts than those written");
    let streams = records.iter().filter(|record| record["stream"] == "stderr").count() as u64;
    ensure!(streams == ROUNDS, "{streams} records of stderr");
    Ok(())
}

#[test]
fn container_lines_survive_kills_each_once() -> Result<()> {
    let mut rig = Rig::new("cri-kills", 2)?;
    rig.set(
        "inputs.0",
        json!({"id": "app", "paths": [rig.path("*.log*")], "format": "cri", "content": "json",
        "multiline": {"start": "^\\{", "timeout": "1s"}}),
    );
    let launch = rig.launch()?;
    let mut expected = BTreeSet::new();
    for round in 0..10_u64 {
        let mut shipper = rig.start_as(&launch)?;
        for n in 0..40_u64 {
            let id = round * 40 + n;
            // Two streams take turns within each line.
            let mut lines = String::new();
            for (stream, tag, rest) in
                [("stdout", "P", ""), ("stderr", "P", ""), ("stdout", "F", "}"), ("stderr", "F", "}")]
            {
                let content = if rest.is_empty() { format!("{{\"id\":\"{stream}-{id}\"") } else { rest.to_owned() };
                lines += &cri(stream, tag, &content);
            }
            rig.append("0.log", lines)?;
            expected.extend([format!("stdout-{id}"), format!("stderr-{id}")]);
        }
        rig.wait_for_records(20 * round + 1)?;
        shipper.kill9()?;
        if round % 3 == 2 {
            rig.rename("0.log", &format!("0.log.{round}"))?;
        }
    }
    let mut shipper = rig.start_as(&launch)?;
    let ids = || -> Result<Vec<String>> {
        Ok(distinct(&rig)?.iter().map(|record| record["id"].as_str().unwrap_or("none").to_owned()).collect())
    };
    wait::until_true("every line", LIMIT, || Ok(ids()?.len() >= expected.len()))?;
    shipper.stop()?;
    let found = ids()?;
    ensure!(found.len() == expected.len(), "{} records for {} lines", found.len(), expected.len());
    ensure!(found.into_iter().collect::<BTreeSet<_>>() == expected);
    Ok(())
}

#[test]
fn docker_lines_are_unwrapped_and_joined() -> Result<()> {
    let mut rig = Rig::new("docker", 1)?;
    rig.set("inputs.0.format", "docker");
    let line = |stream: &str, log: &str| {
        json!({"log": log, "stream": stream, "time": "2026-11-23T06:30:17.123456789Z"}).to_string() + "\n"
    };
    rig.append(
        "x-json.log",
        line("stdout", "half ") + &line("stderr", "oops\n") + &line("stdout", "and \u{fc}\tmore\n"),
    )?;
    rig.run_until_eof()?;
    let records = distinct(&rig)?;
    let found: Vec<_> = records.iter().map(|r| (message(r), &r["stream"], &r["@timestamp"])).collect();
    let time = json!("2026-11-23T06:30:17.123456789Z");
    ensure!(
        found == [("oops", &json!("stderr"), &time), ("half and \u{fc}\tmore", &json!("stdout"), &time)],
        "{found:?}"
    );
    Ok(())
}

#[test]
fn t29_utf16_appended_over_a_restart() -> Result<()> {
    for (encoding, is_little) in [("utf-16le", true), ("utf-16be", false)] {
        let mut rig = Rig::new(&format!("t29-{encoding}"), 1)?;
        rig.set("inputs.0.encoding", encoding);
        let bytes = |text: &str| -> Vec<u8> {
            let bytes = text.encode_utf16().map(|unit| if is_little { unit.to_le_bytes() } else { unit.to_be_bytes() });
            bytes.flatten().collect()
        };
        let mut shipper = rig.start()?;
        rig.append("app.log", bytes("\u{feff}one \u{10a}\r\n"))?;
        rig.wait_for_records(1)?;
        // Half a character first.
        let second = bytes("zwei \u{fc}\r\n");
        rig.append("app.log", &second[..5])?;
        shipper.wait_metric("shipper_unread_bytes", &[], LIMIT, |bytes| bytes == 5.0)?;
        rig.append("app.log", &second[5..])?;
        rig.wait_for_records(2)?;
        shipper.stop()?;
        let mut shipper = rig.start()?;
        rig.append("app.log", bytes("\u{c14b}\r\n"))?;
        rig.wait_for_records(3)?;
        shipper.stop()?;
        ensure!(messages(&rig)? == ["one \u{10a}", "zwei \u{fc}", "\u{c14b}"], "{:?}", messages(&rig)?);
        ensure!(rig.num_records()? == 3);
    }
    Ok(())
}

#[test]
fn filters_choose_whole_events_and_the_next_covers_what_was_left_out() -> Result<()> {
    let mut rig = Rig::new("filters", 1)?;
    rig.set("inputs.0.multiline", json!({"start": "^[A-Z]"}));
    rig.set("inputs.0.exclude_lines", json!(["^DEBUG"]));
    rig.set("inputs.0.include_lines", json!(["a"]));
    let noise: String = (0..5000).map(|n| format!("DEBUG {n} a\n a {n}\n")).collect();
    rig.append("app.log", format!("INFO a\n b\nDEBUG a\n x\nINFO b\nWARN\n a\n{noise}INFO a end\n"))?;
    rig.run_until_eof()?;
    ensure!(messages(&rig)? == ["INFO a\n b", "WARN\n a", "INFO a end"], "{:?}", messages(&rig)?);
    let size = fs::metadata(rig.path("app.log"))?.len();
    ensure!(rig.acknowledged("app.log")? == size, "not the whole file is finished");
    Ok(())
}

#[test]
fn lines_that_end_with_a_carriage_return() -> Result<()> {
    let mut rig = Rig::new("cr", 1)?;
    rig.set("inputs.0.line_end", "cr");
    rig.append("app.log", "one\rtwo\nstill two\rthree\r")?;
    rig.run_until_eof()?;
    ensure!(messages(&rig)? == ["one", "two\nstill two", "three"], "{:?}", messages(&rig)?);
    Ok(())
}

#[test]
fn same_events_get_the_same_ids_when_the_state_is_lost() -> Result<()> {
    let mut rig = Rig::new("events-state-lost", 2)?;
    // Not the stored one: that is lost too.
    rig.set("host.id", "node-1");
    // It would go on where its rows say.
    rig.set("ledger", "off");
    rig.set(
        "inputs",
        json!([
            {"id": "several", "paths": [rig.path("*.log")], "multiline": {"preset": "python"}},
            {"id": "container", "paths": [rig.path("*.cri")], "format": "cri"},
        ]),
    );
    let traces: String =
        (0..200).map(|n| format!("INFO {n}\nTraceback (most recent call last):\n  f({n})\nE: {n}\n")).collect();
    rig.append("app.log", traces)?;
    let parts = (0..200).map(|n| {
        cri("stdout", "P", &format!("{n} ")) + &cri("stderr", "F", &format!("e{n}")) + &cri("stdout", "F", "end")
    });
    rig.append("0.cri", parts.collect::<String>())?;
    rig.run_until_eof()?;
    let first = distinct(&rig)?.len();
    ensure!(first == 800, "{first} events");
    fs::remove_dir_all(rig.dir.join("state"))?;
    rig.run_until_eof()?;
    let second = distinct(&rig)?.len();
    ensure!(second == first, "{} new ids", second - first);
    ensure!(rig.num_records()? as usize == 2 * first, "the second run sent nothing, so it showed nothing");
    Ok(())
}

#[test]
fn event_that_outgrows_its_limit_is_split_and_nothing_is_lost() -> Result<()> {
    let mut rig = Rig::new("split", 1)?;
    rig.set("inputs.0.multiline", json!({"start": "^S", "max_bytes": "8KiB", "timeout": "1s"}));
    let lines: Vec<String> = std::iter::once("S0".to_owned()).chain((0..2000).map(|n| format!(" line {n}"))).collect();
    rig.append("app.log", text(&lines))?;
    let mut shipper = rig.start()?;
    let whole = |records: &[Value]| records.iter().map(|record| message(record).lines().count()).sum::<usize>();
    wait::until_true("every line", LIMIT, || Ok(whole(&distinct(&rig)?) >= lines.len()))?;
    shipper.stop()?;
    let records = distinct(&rig)?;
    check_lines(&records, &lines)?;
    ensure!(
        records.len() > 2 && records.iter().all(|record| flags(record).contains(&"split")),
        "{} records",
        records.len()
    );
    ensure!(records.iter().all(|record| message(record).len() <= 8192));
    Ok(())
}

#[test]
fn bad_container_lines_are_shipped_as_they_are() -> Result<()> {
    let mut rig = Rig::new("cri-bad", 1)?;
    rig.set("inputs.0.format", "cri");
    rig.append("0.log", format!("not of a runtime\n{}{}", cri("stdout", "F", "good"), cri("stdlog", "F", "x")))?;
    rig.run_until_eof()?;
    let bad = cri("stdlog", "F", "x");
    ensure!(messages(&rig)? == ["not of a runtime", "good", bad.trim_end()], "{:?}", messages(&rig)?);
    Ok(())
}
