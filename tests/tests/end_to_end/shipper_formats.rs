//! How lines become records: formats, times, and fields from the path.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use millrace_tests::rig::{LIMIT, Rig};
use serde_json::{Value, json};

/// The records in the order of the file, each without `host` and `log`, and the flags.
fn read_out(rig: &Rig) -> Result<Vec<(Value, Value)>> {
    let mut records: Vec<Value> =
        rig.records()?.iter().map(|record| Ok(serde_json::from_slice(&record.value)?)).collect::<Result<_>>()?;
    records.sort_by_key(|record| record["log"]["offset"].as_u64());
    let split = |mut record: Value| {
        let members = record.as_object_mut().context("not an object")?;
        members.remove("host");
        let log = members.remove("log").context("no log")?;
        Ok((record, log["flags"].clone()))
    };
    records.into_iter().map(split).collect()
}

fn check(found: &[(Value, Value)], at: usize, expected: Value) -> Result<()> {
    let (record, flags) = found.get(at).with_context(|| format!("{} records", found.len()))?;
    ensure!(*record == expected, "record {at} is {record}, not {expected}");
    ensure!(flags.is_null(), "record {at} is flagged {flags}");
    Ok(())
}

/// That a line was shipped as text, flagged so, with the time of reading.
fn check_unparsed(found: &[(Value, Value)], at: usize, line: &str) -> Result<()> {
    let (record, flags) = found.get(at).with_context(|| format!("{} records", found.len()))?;
    ensure!(record["message"] == line && *flags == json!(["unparsed"]), "record {at} is {record}, flagged {flags}");
    let names: Vec<_> = record.as_object().context("not an object")?.keys().collect();
    ensure!(names == ["@timestamp", "message"], "record {at} has {names:?}");
    Ok(())
}

#[test]
fn access_log_lines_get_their_fields_types_and_time() -> Result<()> {
    let mut rig = Rig::new("access-log", 1)?;
    rig.set("inputs.0.format", "pattern");
    rig.set("inputs.0.pattern", json!({"grok": "^%{COMBINEDAPACHELOG} %{NUMBER:seconds:float}$"}));
    let lines = [
        r#"203.0.113.9 - frank [10/Oct/2026:13:55:36 +0900] "GET /cart?id=7 HTTP/1.1" 200 2326 "https://shop.example/" "Mozilla/5.0 (X11)" 0.250"#,
        "nginx: worker process 17 exited",
        r#"::1 - - [29/Feb/2028:23:59:59 +0000] "POST /pay HTTP/2.0" 503 - "-" "-" 12"#,
    ];
    rig.append("app.log", lines.join("\n") + "\n")?;
    rig.run_until_eof()?;
    let found = read_out(&rig)?;
    ensure!(found.len() == 3, "{found:?}");
    check(
        &found,
        0,
        json!({
            "@timestamp": "2026-10-10T04:55:36.000Z",
            "message": lines[0],
            "source": {"address": "203.0.113.9"},
            "user": {"name": "frank"},
            "http": {
                "request": {"method": "GET", "referrer": "https://shop.example/"},
                "version": "1.1",
                "response": {"status_code": 200, "body": {"bytes": 2326}},
            },
            "url": {"original": "/cart?id=7"},
            "user_agent": {"original": "Mozilla/5.0 (X11)"},
            "seconds": 0.25,
        }),
    )?;
    check_unparsed(&found, 1, lines[1])?;
    check(
        &found,
        2,
        json!({
            "@timestamp": "2028-02-29T23:59:59.000Z",
            "message": lines[2],
            "source": {"address": "::1"},
            "http": {"request": {"method": "POST"}, "version": "2.0", "response": {"status_code": 503}},
            "url": {"original": "/pay"},
            "seconds": 12,
        }),
    )
}

#[test]
fn regular_expression_with_types_and_a_time_in_a_zone() -> Result<()> {
    let mut rig = Rig::new("regex", 1)?;
    rig.set("inputs.0.format", "pattern");
    let expression = r"^(?P<at>\S+ \S+) \[(?P<log.level>\w+)\] (?P<message>.*?)(?: took (?P<took_ms>\d+))?$";
    rig.set("inputs.0.pattern", json!({"regex": expression}));
    rig.set("inputs.0.types", json!({"took_ms": "integer"}));
    rig.set("inputs.0.timestamp", json!({"field": "at", "format": "%d.%m.%Y %H:%M:%S,%f", "zone": "+09:00"}));
    let lines = ["23.11.2026 06:30:17,123456 [WARN] paid took 18446744073709551616", "23.13.2026 06:30:17,1 [INFO] up"];
    rig.append("app.log", lines.join("\n") + "\n")?;
    rig.run_until_eof()?;
    let records = rig.records()?;
    let text = |at: usize| records.get(at).map(|record| record.text()).context("too few records");
    ensure!(text(0)?.contains(r#""took_ms":18446744073709551616"#), "{}", text(0)?);
    let first: Value = serde_json::from_slice(&records[0].value)?;
    ensure!(first["@timestamp"] == "2026-11-22T21:30:17.123456Z", "{first}");
    ensure!(first["message"] == "paid" && first["log"]["level"] == "WARN" && first.get("at").is_none(), "{first}");
    let second: Value = serde_json::from_slice(&records.get(1).context("one record")?.value)?;
    ensure!(second["at"] == "23.13.2026 06:30:17,1" && second["message"] == "up", "{second}");
    ensure!(second["@timestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{second}");
    Ok(())
}

#[test]
fn logfmt_pairs_become_fields() -> Result<()> {
    let mut rig = Rig::new("logfmt", 1)?;
    rig.set("inputs.0.format", "logfmt");
    rig.set("inputs.0.types", json!({"ms": "integer"}));
    let lines = [
        r#"ts=2026-11-23T06:30:17.123456+09:00 level=info msg="order \"7\" paid" ms=12 id=0017 cached"#,
        "panic: runtime error",
        "host.name=other a=1",
    ];
    rig.append("app.log", lines.join("\n") + "\n")?;
    rig.run_until_eof()?;
    let mut found = read_out(&rig)?;
    ensure!(found.len() == 3, "{found:?}");
    let first = json!({"@timestamp": "2026-11-22T21:30:17.123456Z", "level": "info", "message": "order \"7\" paid", "ms": 12, "id": "0017", "cached": true});
    check(&found, 0, first)?;
    check_unparsed(&found, 1, lines[1])?;
    found[2].0.as_object_mut().context("not an object")?.remove("@timestamp");
    check(&found, 2, json!({"a": "1", "original": {"host.name": "other"}}))
}

#[test]
fn path_of_a_pod_becomes_fields_and_another_path_is_named_once() -> Result<()> {
    let mut rig = Rig::new("pods", 1)?;
    rig.set_patterns(&["pods/*/*/*.log", "*.log"]);
    rig.set("inputs.0.kubernetes", true);
    rig.set("inputs.0.fields", json!({"service.name": "unknown"}));
    rig.set("inputs.0.path_fields", r".*/(?P<service.name>\w+)/\d+\.log");
    let uid = "7a8c9b0e-1f2d-4c3b-9a8e-0d1c2b3a4f5e";
    let folder = format!("pods/shop_checkout-6d5f_{uid}/app");
    fs::create_dir_all(rig.path(&folder))?;
    rig.append(&format!("{folder}/0.log"), "one\ntwo\n")?;
    rig.append("other.log", "three\n")?;
    let mut shipper = rig.start_as(&rig.launch()?.args(["--until", "eof"]))?;
    let code = shipper.wait(LIMIT)?;
    ensure!(code == 0, "{code}: {}", shipper.log_tail());
    for record in rig.records()? {
        let record: Value = serde_json::from_slice(&record.value)?;
        let name = record["log"]["file"]["path"].as_str().map(Path::new).and_then(Path::file_name);
        let (kubernetes, service) = match name.and_then(|name| name.to_str()) {
            Some("0.log") => (
                json!({"namespace": "shop", "pod": {"name": "checkout-6d5f", "uid": uid}, "container": {"name": "app"}}),
                "app",
            ),
            _ => (Value::Null, "unknown"),
        };
        ensure!(record["kubernetes"] == kubernetes && record["service"]["name"] == service, "{record}");
    }
    ensure!(rig.num_records()? == 3);
    ensure!(shipper.num_logged("the path fits neither") == 1, "{}", shipper.log());
    Ok(())
}

#[test]
fn container_lines_get_the_time_and_stream_of_the_runtime_and_their_pod() -> Result<()> {
    let mut rig = Rig::new("cri-logfmt", 1)?;
    rig.set_patterns(&["pods/*/*/*.log"]);
    rig.set("inputs.0.format", "cri");
    rig.set("inputs.0.content", "logfmt");
    let folder = "pods/shop_checkout-6d5f_1-2/app";
    fs::create_dir_all(rig.path(folder))?;
    let lines = [
        "2026-11-23T06:30:17.123456789+09:00 stderr F level=warn msg=late stream=mine",
        "2026-11-23T06:30:18.5Z stdout F ts=2026-11-23T06:30:00Z msg=early",
    ];
    rig.append(&format!("{folder}/0.log"), lines.join("\n") + "\n")?;
    rig.run_until_eof()?;
    let found = read_out(&rig)?;
    ensure!(found.len() == 2, "{found:?}");
    let pod =
        json!({"namespace": "shop", "pod": {"name": "checkout-6d5f", "uid": "1-2"}, "container": {"name": "app"}});
    let first = json!({"@timestamp": "2026-11-23T06:30:17.123456789+09:00", "stream": "stderr", "level": "warn", "message": "late", "original": {"stream": "mine"}, "kubernetes": pod});
    check(&found, 0, first)?;
    let second =
        json!({"@timestamp": "2026-11-23T06:30:00.000Z", "stream": "stdout", "message": "early", "kubernetes": pod});
    check(&found, 1, second)
}

#[test]
fn bad_pattern_is_refused_at_the_start() -> Result<()> {
    let mut rig = Rig::new("bad-pattern", 1)?;
    rig.set("inputs.0.format", "pattern");
    rig.set("inputs.0.pattern", json!({"regex": "(?P<status>[0-9]+"}));
    let mut shipper = rig.start()?;
    let code = shipper.wait(LIMIT)?;
    ensure!(code == 78, "{code}");
    ensure!(
        shipper.num_logged("inputs[0].pattern.regex: ") == 1 && shipper.log().contains("unclosed group"),
        "{}",
        shipper.log()
    );
    Ok(())
}
