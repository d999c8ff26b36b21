//! A shipper between files and a topic, its settings, and the judgement over what it delivered.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::ops::{Deref, DerefMut, Range};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::kafka::{Kafka, KafkaClient, Record};
use crate::oracle::{self, Verdict};
use crate::process::{Launch, Process};
use crate::writer::{Format, LineId, LogWriter, Written};
use crate::{http, ports, scratch, wait};

/// The limit of whatever has no limit of its own.
pub const LIMIT: Duration = Duration::from_secs(60);

/// One shipper, its folder of logs and its topic.
pub struct Rig {
    /// The harness's own way to the broker, not through a proxy.
    pub kafka: KafkaClient,
    pub topic: String,
    pub dir: PathBuf,
    pub written: Written,
    settings: Value,
    admin: String,
}

impl Rig {
    /// On the broker that the test binary shares. `name` is also that of the topic and of the run.
    ///
    /// # Errors
    ///
    /// If the broker does not start or the topic cannot be made.
    pub fn new(name: &str, num_partitions: i32) -> Result<Self> {
        let kafka = Kafka::shared()?;
        Self::on(kafka, kafka.bootstrap(), name, num_partitions)
    }

    /// On any broker; `brokers` is the address that the shipper gets.
    ///
    /// # Errors
    ///
    /// If the topic cannot be made.
    pub fn on(kafka: &KafkaClient, brokers: &str, name: &str, num_partitions: i32) -> Result<Self> {
        kafka.create_topic(name, num_partitions, &[])?;
        Self::without_topic(kafka, brokers, name)
    }

    /// As [`Rig::on`], for a topic that the test makes itself.
    ///
    /// # Errors
    ///
    /// If a folder cannot be made.
    pub fn without_topic(kafka: &KafkaClient, brokers: &str, name: &str) -> Result<Self> {
        let dir = scratch::dir(name)?;
        fs::create_dir(dir.join("logs"))?;
        let admin = format!("127.0.0.1:{}", ports::free()?);
        let settings = json!({
            "inputs": [{"id": "app", "paths": [dir.join("logs/*.log*")], "format": "text"}],
            "kafka": {"brokers": [brokers], "topic": name, "options": {"reconnect.backoff.max.ms": 1000}},
            "files": {"partial_after": "60s"},
            // The tests share a broker, and with it the ledger's topic.
            "host": {"id": name},
            "data_dir": dir.join("state"),
            "admin": {"listen": admin},
        });
        let kafka = KafkaClient::new(kafka.bootstrap());
        Ok(Self { kafka, topic: name.to_owned(), dir, written: Written::new(name), settings, admin })
    }

    /// Where the shipper answers, host and port.
    pub fn admin(&self) -> &str {
        &self.admin
    }

    /// Sets one setting by its path, such as `files.rescan` or `inputs.0.paths`.
    pub fn set(&mut self, path: &str, value: impl Into<Value>) {
        let mut at = &mut self.settings;
        for part in path.split('.') {
            at = match part.parse::<usize>() {
                Ok(index) => &mut at[index],
                Err(_) => &mut at[part],
            };
        }
        *at = value.into();
    }

    /// Sets an option of the Kafka client: its name holds dots.
    pub fn set_option(&mut self, name: &str, value: impl Into<Value>) {
        self.settings["kafka"]["options"][name] = value.into();
    }

    /// Tails these patterns, relative to the folder of logs, instead of `*.log*`.
    pub fn set_patterns(&mut self, patterns: &[&str]) {
        let paths: Vec<PathBuf> = patterns.iter().map(|pattern| self.path(pattern)).collect();
        self.set("inputs.0.paths", json!(paths));
    }

    /// A path in the folder of logs.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join("logs").join(name)
    }

    /// # Errors
    ///
    /// If the file cannot be created.
    pub fn writer(&self, file: &str, format: Format) -> Result<LogWriter> {
        LogWriter::create(&self.written, &self.path(file), format)
    }

    /// Makes lines of a text, remembers them, and returns them with their line ends. `label` stands for the file in
    /// their ids.
    pub fn lines(&self, label: &str, numbers: Range<u64>) -> String {
        self.lines_of(label, numbers, |id| format!("{id} request done in {} ms", id.n % 97))
    }

    /// [`Rig::lines`] of the test's own making; each must hold its id.
    pub fn lines_of(&self, label: &str, numbers: Range<u64>, mut make: impl FnMut(&LineId) -> String) -> String {
        let mut text = String::new();
        for n in numbers {
            let id = LineId { run: self.written.run().to_owned(), file: label.to_owned(), n };
            let line = make(&id);
            assert!(line.contains(&id.to_string()) && !line.contains('\n'), "not one line with its id: {line}");
            text.push_str(&line);
            text.push('\n');
            self.written.lines().insert(id, line);
        }
        text
    }

    /// Appends to a file of the folder of logs, which is created if needed.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn append(&self, name: &str, text: impl AsRef<[u8]>) -> Result<()> {
        append(&self.path(name), text)
    }

    /// Truncates a file and writes it anew, as `>` does.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn rewrite(&self, name: &str, text: impl AsRef<[u8]>) -> Result<()> {
        Ok(fs::write(self.path(name), text)?)
    }

    /// # Errors
    ///
    /// If the file cannot be renamed.
    pub fn rename(&self, from: &str, to: &str) -> Result<()> {
        Ok(fs::rename(self.path(from), self.path(to))?)
    }

    /// The shipper with the settings as they are now, ready to start.
    ///
    /// # Errors
    ///
    /// If the settings cannot be written or the program is not built.
    pub fn launch(&self) -> Result<Launch> {
        let config = self.dir.join("shipper.yaml");
        fs::write(&config, self.settings.to_string())?;
        Ok(Launch::shipper("shipper", &self.dir)?.args(["run", "--config"]).arg(config))
    }

    /// # Errors
    ///
    /// As [`Rig::launch`].
    pub fn start(&self) -> Result<Shipper> {
        self.start_as(&self.launch()?)
    }

    /// Starts it as `launch` says, for arguments, a user or an environment of its own.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn start_as(&self, launch: &Launch) -> Result<Shipper> {
        let log_start = fs::metadata(self.dir.join("shipper.log")).map_or(0, |found| found.len());
        let process = launch.start()?;
        Ok(Shipper { log_start: usize::try_from(log_start)?, process, admin: self.admin.clone() })
    }

    /// Runs it until every file is read, and fails if it does not end well.
    ///
    /// # Errors
    ///
    /// If it does not end with code 0 within [`LIMIT`].
    pub fn run_until_eof(&self) -> Result<()> {
        let mut shipper = self.start_as(&self.launch()?.args(["--until", "eof"]))?;
        let code = shipper.wait(LIMIT)?;
        ensure!(code == 0, "the shipper ended with {code}: {}", shipper.log_tail());
        Ok(())
    }

    /// # Errors
    ///
    /// If the topic cannot be read.
    pub fn records(&self) -> Result<Vec<Record>> {
        self.kafka.read_topic(&self.topic)
    }

    /// The number of records in the topic.
    ///
    /// # Errors
    ///
    /// If the broker does not answer.
    pub fn num_records(&self) -> Result<u64> {
        Ok(u64::try_from(self.kafka.end_offsets(&self.topic)?.values().sum::<i64>())?)
    }

    /// # Errors
    ///
    /// If the topic cannot be read.
    pub fn verdict(&self) -> Result<Verdict> {
        Ok(oracle::judge(&self.written, &oracle::in_topic(&self.records()?)?))
    }

    /// Waits until the topic holds at least `num` records.
    ///
    /// # Errors
    ///
    /// If it does not within [`LIMIT`].
    pub fn wait_for_records(&self, num: u64) -> Result<()> {
        let mut found = 0;
        wait::until_true(&format!("{num} records in `{}`", self.topic), LIMIT, || {
            found = self.num_records()?;
            Ok(found >= num)
        })
        .with_context(|| format!("there are {found}"))
    }

    /// Waits until every line written is in the topic, each once by distinct record id.
    ///
    /// # Errors
    ///
    /// With the verdict, if no more records come for `limit`, or the lines are not whole `limit` after as many records came.
    pub fn wait_until_whole(&self, limit: Duration) -> Result<()> {
        let num_written = self.written.len() as u64;
        // Counting is cheap, judging is not.
        let counted = wait::until_none_left("the lines to come into the topic", limit, || {
            Ok(num_written.saturating_sub(self.num_records()?))
        });
        let started = Instant::now();
        loop {
            let checked = self.verdict()?.check();
            if checked.is_ok() || counted.is_err() || started.elapsed() >= limit {
                return checked.and(counted);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Fails unless every line is in the topic once and nothing else is, repeated records included.
    ///
    /// # Errors
    ///
    /// With the verdict.
    pub fn check_sent_once(&self) -> Result<()> {
        let records = self.records()?;
        oracle::judge(&self.written, &oracle::in_topic(&records)?).check()?;
        let num_written = self.written.len();
        ensure!(records.len() == num_written, "{} records for {num_written} lines", records.len());
        Ok(())
    }

    /// The rows of the checkpoint on disk.
    ///
    /// # Errors
    ///
    /// If there is none or it is not whole.
    pub fn checkpoint(&self) -> Result<Vec<Value>> {
        checkpoint_rows(&self.dir.join("state/checkpoint"))
    }

    /// The acknowledged position of the file `name` in the checkpoint on disk.
    ///
    /// # Errors
    ///
    /// If the checkpoint does not have it.
    pub fn acknowledged(&self, name: &str) -> Result<u64> {
        let path = self.path(name);
        let rows = self.checkpoint()?;
        let row = rows.iter().find(|row| row["current_path"].as_str().map(Path::new) == Some(&path));
        row.and_then(|row| row["acknowledged"].as_u64()).with_context(|| format!("no row of {name} in {rows:?}"))
    }
}

/// The rows of a checkpoint file: a header, then one JSON object per line.
///
/// # Errors
///
/// If it is not whole.
pub fn checkpoint_rows(path: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (header, body) = text.split_once('\n').context("no header")?;
    ensure!(header.starts_with("millrace-shipper-checkpoint 1 "), "not a header: {header}");
    ensure!(body.is_empty() || body.ends_with('\n'), "the last row is cut");
    body.lines().map(|line| serde_json::from_str(line).with_context(|| format!("not a row: {line}"))).collect()
}

/// Appends to a file, which is created if needed.
///
/// # Errors
///
/// If the file cannot be written.
pub fn append(path: &Path, text: impl AsRef<[u8]>) -> Result<()> {
    let mut file = File::options().create(true).append(true).open(path)?;
    Ok(file.write_all(text.as_ref())?)
}

/// The messages of each path, in the order of the topic, with records of equal keys made one.
///
/// # Errors
///
/// If a record is not JSON.
pub fn messages_by_path(records: &[Record]) -> Result<BTreeMap<PathBuf, Vec<String>>> {
    let mut seen = std::collections::BTreeSet::new();
    let mut paths: BTreeMap<PathBuf, Vec<String>> = BTreeMap::new();
    for record in records.iter().filter(|record| seen.insert(record.key_text())) {
        let value: Value = serde_json::from_slice(&record.value).with_context(|| record.text())?;
        let path = value["log"]["file"]["path"].as_str().with_context(|| record.text())?;
        let message = value["message"].as_str().with_context(|| record.text())?;
        paths.entry(path.into()).or_default().push(message.to_owned());
    }
    Ok(paths)
}

/// A running shipper. A [`Process`] by `Deref`.
pub struct Shipper {
    process: Process,
    admin: String,
    log_start: usize,
}

impl Shipper {
    /// What it has printed since this start.
    pub fn log(&self) -> String {
        let output = self.output();
        output.get(self.log_start..).unwrap_or(&output).to_owned()
    }

    /// The number of lines printed since this start that contain `part`.
    pub fn num_logged(&self, part: &str) -> usize {
        self.log().lines().filter(|line| line.contains(part)).count()
    }

    /// # Errors
    ///
    /// If its log does not contain `part` within [`LIMIT`], or it ends.
    pub fn wait_logged(&mut self, part: &str) -> Result<()> {
        wait::until_true(&format!("`{part}` in the shipper's log"), LIMIT, || {
            self.ensure_running()?;
            Ok(self.num_logged(part) > 0)
        })
        .with_context(|| self.log_tail())
    }

    /// Waits until the ledger knows of `num` sources: only then their records are produced.
    ///
    /// # Errors
    ///
    /// If it does not within [`LIMIT`].
    pub fn wait_announced(&self, num: usize) -> Result<()> {
        wait::until_true(&format!("{num} announced sources"), LIMIT, || {
            let Ok(status) = self.status() else { return Ok(false) };
            let sources = status["sources"].as_array().map(Vec::as_slice).unwrap_or_default();
            Ok(sources.iter().filter(|source| source["announced"] == true).count() >= num)
        })
    }

    /// # Errors
    ///
    /// If `/metrics` does not answer.
    pub fn metrics(&self) -> Result<String> {
        Ok(http::get(&format!("http://{}/metrics", self.admin))?.body)
    }

    /// A metric summed over the series with these labels; 0 if there is none.
    ///
    /// # Errors
    ///
    /// If `/metrics` does not answer.
    pub fn metric(&self, name: &str, labels: &[&str]) -> Result<f64> {
        // Metrics are brought up to date once a second, and with every look at the status.
        self.status()?;
        Ok(http::metric(&self.metrics()?, name, labels).unwrap_or(0.0))
    }

    /// Waits until a metric has a value that `is_wanted`.
    ///
    /// # Errors
    ///
    /// If it has none within `limit`, or the shipper ends.
    pub fn wait_metric(
        &mut self,
        name: &str,
        labels: &[&str],
        limit: Duration,
        is_wanted: impl Fn(f64) -> bool,
    ) -> Result<f64> {
        let mut last = None;
        let found = wait::until(&format!("{name}{labels:?}"), limit, || {
            self.ensure_running()?;
            // Just after the start nobody listens yet.
            last = self.metrics().ok().map(|text| http::metric(&text, name, labels).unwrap_or(0.0));
            Ok(last.filter(|value| is_wanted(*value)))
        });
        found.with_context(|| format!("last seen: {last:?}\n{}", self.log_tail()))
    }

    /// Waits until it says, within 30 s as promised, that records do not flow for this reason.
    ///
    /// # Errors
    ///
    /// If it does not, or the shipper ends.
    pub fn wait_blocked(&mut self, reason: &str) -> Result<()> {
        let label = format!("reason=\"{reason}\"");
        self.wait_metric("shipper_blocked", &[&label], Duration::from_secs(30), |is_so| is_so == 1.0).map(|_| ())
    }

    /// Fails unless, in one scrape, the events read are those acknowledged, pending and dropped. Returns them.
    ///
    /// # Errors
    ///
    /// If `/metrics` does not answer.
    pub fn check_counts(&self) -> Result<f64> {
        self.status()?;
        let text = self.metrics()?;
        let of = |name: &str| http::metric(&text, name, &[]).unwrap_or(0.0);
        let [read, acked] = ["read", "acked"].map(|what| of(&format!("shipper_{what}_events_total")));
        let (pending, dropped) = (of("shipper_pending_events"), of("shipper_dropped_events_total"));
        let told = format!("{read} read, {acked} acknowledged, {pending} pending, {dropped} dropped");
        ensure!(read == acked + pending + dropped, "the counters do not add up: {told}");
        Ok(read)
    }

    /// # Errors
    ///
    /// If `/status` does not answer.
    pub fn status(&self) -> Result<Value> {
        let reply = http::get(&format!("http://{}/status", self.admin))?;
        serde_json::from_str(&reply.body).with_context(|| reply.body)
    }

    /// Stops it by SIGTERM and fails unless all was delivered.
    ///
    /// # Errors
    ///
    /// If it does not end with code 0.
    pub fn stop(&mut self) -> Result<()> {
        self.stop_within(Duration::from_secs(40))
    }

    /// The names of the files it holds open, by its descriptors.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn open_files(&self) -> Result<Vec<String>> {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.pid()))?;
        let links = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        Ok(links.map(|link| link.to_string_lossy().into_owned()).collect())
    }
}

impl Deref for Shipper {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Shipper {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}
