//! Alerts and dashboard: held against their own tests, against what both programs tell, and on a real Prometheus.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use millrace_tests::fake_elasticsearch::Answer;
use millrace_tests::indexer_rig::{IndexerRig, LIMIT};
use millrace_tests::kafka::{self, Kafka, PASSWORD, USER};
use millrace_tests::prometheus::{Prometheus, alerts_that_wait, folder, promtool};
use millrace_tests::rig::Rig;
use millrace_tests::{footprint, http, scratch, wait};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;

#[test]
fn the_alerts_pass_their_unit_tests() -> Result<()> {
    for args in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]] {
        let (is_content, printed) = promtool(&args, "")?;
        ensure!(is_content, "promtool {args:?}: {printed}");
    }
    let (rules, tests) = ("prometheus/alerts.yml", "prometheus/alerts_test.yml");
    let tests = fs::read_to_string(folder().join(tests))?;
    for line in fs::read_to_string(folder().join(rules))?.lines() {
        let Some(name) = line.trim().strip_prefix("- alert: ") else { continue };
        ensure!(tests.contains(&format!("alertname=\"{name}\"")), "no test of {name}");
    }
    Ok(())
}

/// The names of our metrics in a query.
fn names(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let is_ours = |word: &&str| ["shipper_", "indexer_", "process_"].iter().any(|prefix| word.starts_with(prefix));
    words.filter(is_ours).map(str::to_owned).collect()
}

/// Every query of the dashboard, with Grafana's variable replaced.
fn dashboard_queries() -> Result<Vec<String>> {
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(folder().join("grafana/millrace.json"))?)?;
    let panels = dashboard["panels"].as_array().context("panels")?;
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let query = |target: &Value| Ok(target["expr"].as_str().context("expr")?.replace("$__rate_interval", "10s"));
    targets.map(query).collect()
}

/// The alerts as shipped, but none waits before it fires.
fn impatient_rules(name: &str) -> Result<std::path::PathBuf> {
    let file = scratch::dir(name)?.join("alerts.yml");
    fs::write(&file, alerts_that_wait("1s")?)?;
    Ok(file)
}

fn wait_for_alert(prometheus: &Prometheus, name: &str, is_wanted: bool) -> Result<()> {
    let what = format!("{name} {}", if is_wanted { "fires" } else { "ends" });
    wait::until_true(&what, LIMIT, || Ok(prometheus.is_firing(name)? == is_wanted))
}

#[test]
fn a_real_prometheus_finds_every_metric_and_fires_and_ends_alerts() -> Result<()> {
    let mut indexer = IndexerRig::new("monitoring", 2, "")?;
    let mut shipper = Rig::without_topic(&indexer.kafka, indexer.kafka.bootstrap(), "monitoring-shipper")?;
    shipper.set("kafka.topic", indexer.name.as_str());
    shipper.append("app.log", shipper.lines("app.log", 0..100))?;
    indexer.start()?;
    let mut tailing = shipper.start()?;
    indexer.wait_documents(100)?;

    // Only what the name of the contract cannot help: hours are no base unit.
    let lint = |admin: &str| promtool(&["check", "metrics"], &http::get(&format!("http://{admin}/metrics"))?.body);
    let (is_content, printed) = lint(shipper.admin())?;
    ensure!(is_content, "the shipper's metrics: {printed}");
    let (_, printed) = lint(&indexer.admin)?;
    let hours = "indexer_hours_to_retention use base unit \"seconds\" instead of \"hours\"";
    ensure!(printed.lines().all(|line| line == hours), "the indexer's metrics: {printed}");

    let targets = [("shipper", shipper.admin()), ("indexer", indexer.admin.as_str())];
    let prometheus = Prometheus::start("monitoring-prometheus", &targets, &impatient_rules("monitoring-rules")?)?;
    let rules = prometheus.rules()?;
    ensure!(rules.len() == 12, "{} rules", rules.len());
    let queries = dashboard_queries()?;
    let alerts = rules.iter().filter_map(|rule| rule["query"].as_str());
    let wanted: BTreeSet<String> = queries.iter().map(String::as_str).chain(alerts).flat_map(names).collect();
    ensure!(wanted.len() > 40, "{wanted:?}");
    wait::until_true(&format!("all of {wanted:?}"), LIMIT, || {
        for name in &wanted {
            if prometheus.query(name)?.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    })?;
    // Where nothing need be wrong for a line to be seen, there is one.
    for query in &queries {
        wait::until_true(&format!("a line for `{query}`"), LIMIT, || {
            let is_shown = !prometheus.query(query)?.is_empty();
            Ok(is_shown || query.ends_with("> 0") || query.contains("ALERTS"))
        })?;
    }
    ensure!(prometheus.query("ALERTS")?.is_empty(), "{:?}", prometheus.query("ALERTS")?);

    indexer.kafka.produce(&indexer.name, None, [("", "this is not JSON")])?;
    wait_for_alert(&prometheus, "DeadLettersRising", true)?;
    let rule =
        prometheus.rules()?.into_iter().find(|rule| rule["name"] == "DeadLettersRising").context("it is there")?;
    let summary = rule["alerts"][0]["annotations"]["summary"].as_str().unwrap_or_default();
    ensure!(summary.starts_with("Records go to the dead letters: not_json, about "), "{rule}");
    ensure!(!summary.contains("error"), "{summary}");

    let mut stopped = indexer.indexer.take().context("started above")?;
    ensure!(stopped.terminate(LIMIT)? == 0, "{}", stopped.log_tail());
    wait_for_alert(&prometheus, "IndexerAbsent", true)?;
    indexer.start()?;
    wait_for_alert(&prometheus, "IndexerAbsent", false)?;
    tailing.stop()
}

/// A record of six hours ago in a topic that is kept a day, while Elasticsearch refuses; then a new one.
#[test]
fn the_oldest_record_that_waits_gives_lag_and_hours_to_retention() -> Result<()> {
    let mut rig = IndexerRig::new("retention", 0, "max_backoff: 1s")?;
    rig.kafka.create_topic(&rig.name, 1, &[("retention.ms", "86400000")])?;
    let refuses = Arc::new(AtomicBool::new(true));
    let is_refusing = Arc::clone(&refuses);
    rig.fake.script(move |_| if is_refusing.load(Ordering::SeqCst) { Answer::refuse(503) } else { Answer::Index });
    rig.start()?;
    let is_told = |is_wanted: &dyn Fn(f64) -> bool| -> Result<bool> {
        let text = http::get(&format!("http://{}/metrics", rig.admin))?.body;
        Ok(http::metric(&text, "indexer_hours_to_retention", &[]).is_some_and(is_wanted))
    };
    rig.wait_ready(LIMIT)?;
    wait::until_true("nothing waits", LIMIT, || is_told(&|hours| hours == f64::INFINITY))?;
    assert_eq!(rig.metric("indexer_retention_seconds", &[&format!("topic=\"{}\"", rig.name)])?, 86_400.0);

    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", rig.kafka.bootstrap()).create()?;
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64;
    for hours in [6, 0] {
        let record = BaseRecord::<str, str>::to(&rig.name).payload("{}").timestamp(now_ms - hours * 3_600_000);
        producer.send(record).map_err(|(error, _)| error)?;
        producer.flush(LIMIT)?;
    }
    wait::until_true("both are taken", LIMIT, || Ok(rig.metric("indexer_consumed_records_total", &[])? == 2.0))?;
    wait::until_true("18 hours left", LIMIT, || is_told(&|hours| hours > 17.9 && hours <= 18.0))?;
    let lag = rig.metric("indexer_lag_seconds", &[])?;
    ensure!((21_600.0..21_700.0).contains(&lag), "a lag of {lag} s");
    let delays = |to: &str, what: &str| rig.metric(&format!("indexer_end_to_end_seconds_{what}"), &[to]);
    assert_eq!(delays("to=\"consumed\"", "count")?, 2.0);
    assert_eq!(delays("to=\"indexed\"", "count")?, 0.0);

    refuses.store(false, Ordering::SeqCst);
    rig.wait_documents(2)?;
    wait::until_true("nothing waits", Duration::from_secs(20), || is_told(&|hours| hours == f64::INFINITY))?;
    assert_eq!(delays("to=\"indexed\"", "count")?, 2.0);
    let sum = delays("to=\"indexed\"", "sum")?;
    ensure!((21_600.0..21_800.0).contains(&sum), "{sum} s together");
    assert_eq!(rig.metric("indexer_lag_seconds", &[])?, 0.0);
    Ok(())
}

#[test]
fn without_the_right_to_read_retention_records_flow_and_the_log_says_so_once() -> Result<()> {
    let (kafka, addr) = Kafka::start_guarded(&kafka::Options::default())?;
    let login = format!(
        "security.protocol: sasl_plaintext, sasl.mechanism: PLAIN, sasl.username: {USER}, sasl.password: {PASSWORD}"
    );
    let mut rig = IndexerRig::on(&kafka, &addr.to_string(), "retention-rights", 1, "", &login)?;
    rig.reconfigure("kafka:", "ledger: off\nkafka:")?;
    kafka.allow("Read", &rig.name)?;
    kafka.allow("Write", &format!("{}.dlq", rig.name))?;
    let principal = format!("User:{USER}");
    let group = ["--add", "--allow-principal", &principal, "--operation", "Read", "--group", &rig.name];
    kafka.tool("org.apache.kafka.tools.AclCommand", &group)?;
    rig.produce(0..10, "a")?;
    rig.start()?;
    rig.wait_documents(10)?;
    let indexer = rig.indexer.as_ref().context("started above")?;
    let log = || indexer.output();
    wait::until_true("the log to say so", LIMIT, || Ok(log().contains("it takes DescribeConfigs")))
        .with_context(log)?;
    let told = log().matches("cannot tell the hours to retention").count();
    assert_eq!(told, 1, "{}", log());
    let text = http::get(&format!("http://{}/metrics", rig.admin))?.body;
    assert_eq!(http::metric(&text, "indexer_hours_to_retention", &[]), None);
    Ok(())
}

/// Twenty thousand files in ten minutes scaled down to 1,200 in 12 seconds, which is three times as fast; memory from the
/// third second on in place of the second minute. At full length in heavy::footprint.
#[test]
fn o10_files_that_come_and_go_leave_no_series_and_no_memory() -> Result<()> {
    footprint::o10_files_come_and_go("o10", 1_200, Duration::from_secs(12))
}
