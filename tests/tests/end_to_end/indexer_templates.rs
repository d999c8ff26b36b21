//! `indexer templates`, `preview` and `retention` as commands: what they print, how they end, and what they leave behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_tests::elasticsearch::Elasticsearch;
use millrace_tests::fake_elasticsearch::FakeElasticsearch;
use millrace_tests::kafka::Kafka;
use millrace_tests::process::Launch;
use millrace_tests::{scratch, servers};
use serde_json::{Value, json};

use crate::legacy;

const LIMIT: Duration = Duration::from_secs(60);

/// Runs `indexer …` to its end. Gives its exit code and what it printed.
fn indexer(dir: &Path, args: &[&str]) -> Result<(i32, String)> {
    static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let name = format!("command-{}", NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    let mut process = Launch::indexer(&name, dir)?.args(args).start()?;
    let code = process.wait(LIMIT)?;
    Ok((code, process.output()))
}

fn shipped() -> String {
    servers::checkout().join("templates").display().to_string()
}

/// A folder with one index template `<name>.json`.
fn folder(name: &str, template: &Value) -> Result<(PathBuf, String)> {
    let dir = scratch::dir(name)?;
    let templates = dir.join("templates");
    fs::create_dir_all(&templates)?;
    fs::write(templates.join(format!("{name}.json")), template.to_string())?;
    Ok((dir, templates.display().to_string()))
}

fn template(name: &str, version: u32, field_type: &str) -> Value {
    json!({
        "index_patterns": [format!("{name}-*")],
        "priority": 600,
        "version": version,
        "_meta": {"managed_by": "millrace"},
        "template": {
            "settings": {"index": {"number_of_replicas": 0, "refresh_interval": "30s"}},
            "mappings": {"dynamic": false, "properties": {"status": {"type": field_type}}},
        },
    })
}

/// Lifecycle management is not in the reduced distribution: this server answers as Elastic documents it.
#[test]
fn shipped_templates_bring_their_policy_where_the_server_has_lifecycle_management() -> Result<()> {
    let dir = scratch::dir("templates-ilm")?;
    let fake = FakeElasticsearch::start()?;
    fake.offer_lifecycle_management();
    let (url, templates) = (fake.url(), shipped());
    let apply = ["templates", "apply", "--templates", &templates, "--elasticsearch", &url];
    let (code, output) = indexer(&dir, &apply)?;
    ensure!(code == 0, "{output}");
    let policy = fake.template("_ilm/policy/applogs").context("no policy")?;
    ensure!(policy["policy"]["phases"]["warm"]["min_age"] == "15d", "{policy}");
    ensure!(policy["policy"]["phases"]["delete"]["min_age"] == "90d", "{policy}");
    let logs = fake.template("_index_template/logs").context("no template")?;
    let lifecycle = &logs["template"]["settings"]["index"]["lifecycle"];
    ensure!(*lifecycle == json!({"name": "applogs", "parse_origination_date": true}), "{lifecycle}");

    let foreign = json!({"policy": {"phases": {}}});
    fake.set_template("_ilm/policy/applogs", foreign.clone());
    let (code, output) = indexer(&dir, &apply)?;
    ensure!(code == 78 && output.contains("somebody else manages it"), "{code}: {output}");
    ensure!(fake.template("_ilm/policy/applogs") == Some(foreign));
    Ok(())
}

#[test]
fn apply_and_diff_agree_and_leave_newer_and_foreign_templates_alone() -> Result<()> {
    let node = Elasticsearch::shared()?;
    let name = "templates-diff";
    let (dir, templates) = folder(name, &template(name, 2, "long"))?;
    let connection = ["--templates", &templates, "--elasticsearch", node.url()];
    let run = |command: &str| indexer(&dir, &[&["templates", command], &connection[..]].concat());
    let (code, output) = run("diff")?;
    ensure!(code == 78 && output.contains(&format!("missing    index template `{name}`")), "{code}: {output}");
    let (code, output) = run("apply")?;
    ensure!(code == 0 && output.contains(&format!("installed  index template `{name}`")), "{code}: {output}");
    let (code, output) = run("diff")?;
    ensure!(code == 0, "{code}: {output}");

    let path = format!("/_index_template/{name}");
    let installed = |body: &Value| -> Result<()> {
        node.call("PUT", &path, Some(body))?;
        Ok(())
    };
    installed(&template(name, 2, "keyword"))?;
    let (code, output) = run("diff")?;
    let place = "template.mappings.properties.status.type\n    - keyword\n    + long\n";
    ensure!(code == 78 && output.contains(place), "{code}: {output}");
    let (code, output) = run("apply")?;
    ensure!(code == 78 && output.contains("raise `version`"), "{code}: {output}");

    installed(&template(name, 3, "keyword"))?;
    let (code, output) = run("apply")?;
    ensure!(code == 78 && output.contains("newer version"), "{code}: {output}");
    let mut foreign = template(name, 1, "keyword");
    foreign["_meta"]["managed_by"] = "another".into();
    installed(&foreign)?;
    let (code, output) = run("apply")?;
    ensure!(code == 78 && output.contains("somebody else manages it"), "{code}: {output}");
    let now = node.call("GET", &path, None)?;
    ensure!(now["index_templates"][0]["index_template"]["_meta"]["managed_by"] == "another", "{now}");

    installed(&template(name, 1, "keyword"))?;
    let (code, output) = run("apply")?;
    ensure!(code == 0 && output.contains("updated"), "{code}: {output}");
    ensure!(run("diff")?.0 == 0);
    Ok(())
}

#[test]
fn legacy_templates_rule_by_their_order() -> Result<()> {
    legacy::templates_rule_by_their_order(Elasticsearch::shared()?, "templates-legacy", "flattened")
}

#[test]
fn lint_names_file_and_key_path_and_the_shipped_templates_are_clean() -> Result<()> {
    let (dir, templates) = folder("templates-lint", &template("templates-lint", 1, "keyword"))?;
    let (code, output) = indexer(&dir, &["templates", "lint", "--templates", &templates])?;
    let place = "error: templates-lint.json: template.settings.index.number_of_replicas\n";
    ensure!(code == 78 && output.contains(place), "{code}: {output}");
    ensure!(output.contains("warning: templates-lint.json: template.mappings.properties.status\n"), "{output}");
    ensure!(output.lines().all(|line| line.len() <= 120), "{output}");
    let (code, output) = indexer(&dir, &["templates", "lint", "--templates", &shipped()])?;
    ensure!(code == 0 && output.contains("0 errors, 0 warnings"), "{code}: {output}");
    Ok(())
}

#[test]
fn preview_shows_index_id_document_and_actions_without_any_connection() -> Result<()> {
    let dir = scratch::dir("preview")?;
    let config = dir.join("indexer.yaml");
    let text = format!(
        "kafka: {{ brokers: [\"127.0.0.1:1\"], topics: [logs] }}\nelasticsearch: {{ hosts: [\"http://127.0.0.1:1\"] }}\n\
         templates: {{ dir: \"{}\" }}\nrules: [ {{ default: {{ service.name: none }}, unmapped: fold, fold_into: attrs }} ]\n",
        shipped()
    );
    fs::write(&config, text)?;
    let lines = [
        r#"{"message":"a","service":{"name":"Shop"},"n":1.0,"http":{"response":{"status_code":"x"}}}"#,
        "no json",
        r#"{"message":"plain","service":{"name":"Shop"}}"#,
    ];
    let samples = dir.join("samples");
    fs::write(&samples, lines.join("\n"))?;
    let args = ["preview", "--json", "-c", config.to_str().context("a path")?, samples.to_str().context("a path")?];
    let (code, output) = indexer(&dir, &args)?;
    ensure!(code == 0, "{output}");
    let outcomes: Vec<Value> = output.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    ensure!(outcomes.len() == 3, "{output}");
    ensure!(outcomes[0]["index"].as_str().is_some_and(|index| index.starts_with("applogs-shop-")), "{output}");
    ensure!(outcomes[0]["id"].as_str().is_some_and(|id| id.starts_with("logs-0-0-")), "{output}");
    let actions: Vec<(&str, &str)> = outcomes[0]["actions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|action| Some((action["what"].as_str()?, action["field"].as_str()?)))
        .collect();
    ensure!(actions == [("fold", "n"), ("quarantine", "http.response.status_code")], "{actions:?}");
    ensure!(outcomes[0]["document"]["attrs"]["malformed"]["http.response.status_code"] == "x", "{output}");
    ensure!(output.contains(r#""n":1.0"#), "digits stay as written: {output}");
    ensure!(outcomes[1]["result"] == "rejected" && outcomes[1]["reject"]["what"] == "not_json", "{output}");
    ensure!(outcomes[2]["actions"] == json!([]) && outcomes[2]["document"]["message"] == "plain", "{output}");
    Ok(())
}

#[test]
fn retention_deletes_only_old_indices_of_the_rules_and_only_when_told() -> Result<()> {
    let node = Elasticsearch::shared()?;
    let dir = scratch::dir("retention")?;
    let config = dir.join("indexer.yaml");
    let text = format!(
        "kafka: {{ brokers: [\"127.0.0.1:1\"], topics: [logs] }}\nelasticsearch: {{ hosts: [\"{}\"] }}\n\
         rules: [ {{ index: \"retention-{{service.name}}-{{@timestamp:%Y.%m.%d}}\" }} ]\n",
        node.url()
    );
    fs::write(&config, text)?;
    let today = jiff::Timestamp::now().strftime("%Y.%m.%d").to_string();
    let names = ["retention-a-2020.01.01", "retention-b-2020.02.03", &format!("retention-a-{today}"), "retention-a"];
    let foreign = ["other-retention-a-2020.01.01", "retention-a-2020.01.01-copy"];
    for index in names.iter().chain(&foreign) {
        node.call("PUT", &format!("/{index}"), Some(&json!({"settings": {"number_of_replicas": 0}})))?;
    }
    let config = config.to_str().context("a path")?;
    let (code, output) = indexer(&dir, &["retention", "-c", config, "--older-than", "90d"])?;
    ensure!(code == 0 && output.contains("2 indices") && output.contains("--yes"), "{code}: {output}");
    ensure!(node.indices("*retention-*")?.len() == 6, "a dry run deletes nothing");
    let (code, output) = indexer(&dir, &["retention", "-c", config, "--older-than", "90d", "--yes"])?;
    ensure!(code == 0 && output.contains("2 indices"), "{code}: {output}");
    let mut left: Vec<&str> = names[2..].iter().chain(&foreign).copied().collect();
    left.sort_unstable();
    ensure!(node.indices("*retention-*")? == left, "{:?}", node.indices("*retention-*")?);
    Ok(())
}

#[test]
fn usage_names_fields_nobody_sends_and_fields_nobody_maps_and_commits_nothing() -> Result<()> {
    let kafka = Kafka::shared()?;
    let name = "templates-usage";
    kafka.create_topic(name, 2, &[])?;
    let (dir, templates) = folder(name, &template("applogs", 1, "long"))?;
    let records: Vec<String> =
        (0..50).map(|n| format!(r#"{{"service":{{"name":"a"}},"user":{{"id":{n}}},"level{}":"x"}}"#, n % 2)).collect();
    kafka.produce(name, None, records.iter().map(|value| ("", value.as_str())))?;
    let bootstrap = kafka.bootstrap();
    let args = ["--brokers", bootstrap, "--topic", name, "--group", name, "--templates", &templates];
    let (code, output) = indexer(&dir, &[&["templates", "usage"], &args[..]].concat())?;
    ensure!(code == 0, "{code}: {output}");
    for line in ["50 records in the last 1h", "50  user.id", "25  level0", "mapped, never sent: 1", "    status"] {
        ensure!(output.contains(line), "`{line}` is missing: {output}");
    }
    ensure!(kafka.committed(name, name)?.is_empty(), "{:?}", kafka.committed(name, name)?);
    Ok(())
}
