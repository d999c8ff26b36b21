//! A real Prometheus (Debian's package) and its `promtool`.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::Url;
use serde_json::Value;

use crate::process::{Launch, Process};
use crate::{http, ports, scratch, wait};

const START_LIMIT: Duration = Duration::from_secs(60);

/// Scrapes every second. It ends when this is dropped.
pub struct Prometheus {
    process: Process,
    url: String,
}

impl Prometheus {
    /// Scrapes `targets` (job and address) and evaluates the rules in the file `rules`.
    ///
    /// # Errors
    ///
    /// If it does not start; `scripts/bootstrap` installs it.
    pub fn start(name: &str, targets: &[(&str, &str)], rules: &Path) -> Result<Self> {
        let dir = scratch::dir(name)?;
        let mut jobs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (job, address) in targets {
            jobs.entry(job).or_default().push(address);
        }
        let job = |(job, addresses): (&str, Vec<&str>)| {
            format!("  - {{ job_name: {job}, static_configs: [{{ targets: {addresses:?} }}] }}\n")
        };
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [{:?}]\nscrape_configs:\n{}",
            rules,
            jobs.into_iter().map(job).collect::<String>(),
        );
        let file = dir.join("prometheus.yml");
        fs::write(&file, config)?;
        let address = format!("127.0.0.1:{}", ports::free()?);
        let launch = Launch::program("prometheus", "prometheus", &dir.join("prometheus.log"))
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
            .arg(format!("--web.listen-address={address}"));
        let process = launch.start().context("run TESTS=1 scripts/bootstrap")?;
        let mut prometheus = Self { process, url: format!("http://{address}") };
        wait::until_true("Prometheus answers", START_LIMIT, || {
            prometheus.process.ensure_running()?;
            Ok(http::get(&format!("{}/-/ready", prometheus.url)).is_ok_and(|reply| reply.status == 200))
        })?;
        Ok(prometheus)
    }

    /// What a query gives now: each series with its labels and value. One of scalars has no labels.
    ///
    /// # Errors
    ///
    /// If Prometheus refuses the query.
    pub fn query(&self, expression: &str) -> Result<Vec<Value>> {
        let mut result =
            self.get("query", &[("query", expression)]).with_context(|| format!("query `{expression}`"))?;
        Ok(serde_json::from_value(result["result"].take())?)
    }

    /// Whether an alert fires now.
    ///
    /// # Errors
    ///
    /// If Prometheus does not answer.
    pub fn is_firing(&self, alert: &str) -> Result<bool> {
        let query = format!("ALERTS{{alertname=\"{alert}\", alertstate=\"firing\"}}");
        Ok(!self.query(&query)?.is_empty())
    }

    /// All rules.
    ///
    /// # Errors
    ///
    /// If Prometheus does not answer.
    pub fn rules(&self) -> Result<Vec<Value>> {
        let groups = self.get("rules", &[])?;
        let groups = groups["groups"].as_array().context("groups")?.clone();
        Ok(groups.into_iter().flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default()).collect())
    }

    fn get(&self, what: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        let url = Url::parse_with_params(&format!("{}/api/v1/{what}", self.url), parameters)?;
        let reply = http::get(url.as_str())?;
        let mut answer: Value = serde_json::from_str(&reply.body)?;
        ensure!(answer["status"] == "success", "{}", reply.body);
        Ok(answer["data"].take())
    }
}

/// The folder of alerts and dashboard.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../monitoring")
}

/// The alerts as shipped, but what waits before it fires waits so long.
///
/// # Errors
///
/// If they cannot be read.
pub fn alerts_that_wait(time: &str) -> Result<String> {
    let rules = fs::read_to_string(folder().join("prometheus/alerts.yml"))?;
    let wait = |line: &str| match line.trim_start().starts_with("for: ") {
        true => format!("        for: {time}\n"),
        false => format!("{line}\n"),
    };
    Ok(rules.lines().map(wait).collect())
}

/// Runs `promtool` in the folder of the alerts; what it prints, and whether it is content.
///
/// # Errors
///
/// If it cannot be run; `scripts/bootstrap` installs it.
pub fn promtool(args: &[&str], input: &str) -> Result<(bool, String)> {
    let mut tool = Command::new("promtool")
        .args(args)
        .current_dir(folder().join("prometheus"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("promtool: run TESTS=1 scripts/bootstrap")?;
    tool.stdin.take().context("its input")?.write_all(input.as_bytes())?;
    let output = tool.wait_with_output()?;
    let printed = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&printed).into_owned()))
}
