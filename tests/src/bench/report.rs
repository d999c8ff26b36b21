//! The figures, on the screen and as a page.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Plan;
use super::measure::{Side, Usage};

/// The runs that others are compared with, one by one.
pub(super) struct Yardstick<'a> {
    pub name: &'a str,
    pub runs: &'a [Usage],
    /// How much of its records the others had.
    pub share: f64,
}

/// Median, least and most.
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(values: impl IntoIterator<Item = f64>) -> Result<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = values.first().zip(values.last()).context("nothing was measured")?;
        let middle = values.len() / 2;
        let median =
            if values.len().is_multiple_of(2) { (values[middle - 1] + values[middle]) / 2.0 } else { values[middle] };
        Ok(Self { median, least: *least, most: *most })
    }

    fn text(&self, digits: usize) -> String {
        format!("{:.digits$} ({:.digits$}–{:.digits$})", self.median, self.least, self.most)
    }
}

pub(super) struct Report {
    head: String,
    rows: String,
    delays: String,
    rests: String,
    notes: Vec<String>,
}

const COLUMNS: &str = "| what | CPU s per million | thousand/s | peak RSS MB | CPU beside the yardstick | rate beside it |\n|---|---|---|---|---|---|\n";

impl Report {
    pub fn new(plan: &Plan) -> Result<Self> {
        let cpus = std::thread::available_parallelism()?;
        let memory = fs::read_to_string("/proc/meminfo")?;
        let kib: u64 = memory.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0);
        let head = format!(
            "Machine: {cpus} cores, {} GiB. Kafka and Elasticsearch run on it too. {} runs each, yardstick and product alternating, after one that \
             is not counted, once Kafka has compiled what it runs; {} records, three times as many in the first workload. Median (least–most). CPU is that of the whole process, user and system.\n\
             Yardsticks: `kcat -P` with acks=all, idempotence and lz4, of lines as they are; `kcat -C` to /dev/null; finished bulk bodies, for which \
             CPU and memory are the node's. The indexer has three times the records at the null server, half of them at the node; its rate is that from \
             the first documents there to the last. Where instances are counted, each has two requests on their way, which the null server answers \
             after 200 ms.\n",
            kib.div_ceil(1 << 20),
            plan.num_runs,
            plan.num_records,
        );
        println!("{head}");
        Ok(Self { head, rows: String::new(), delays: String::new(), rests: String::new(), notes: Vec::new() })
    }

    pub fn side(&mut self, side: &Side<'_>, yardstick: Option<Yardstick<'_>>) -> Result<()> {
        self.runs(&side.name, side.num, &side.runs, yardstick)
    }

    /// Runs of `num` records.
    pub fn runs(&mut self, name: &str, num: u64, runs: &[Usage], yardstick: Option<Yardstick<'_>>) -> Result<()> {
        let millions = num as f64 / 1e6;
        let cpu = Spread::of(runs.iter().map(|run| run.cpu.as_secs_f64() / millions))?.text(2);
        let rate = Spread::of(runs.iter().map(|run| num as f64 / 1e3 / run.wall.as_secs_f64()))?.text(0);
        let memory = Spread::of(runs.iter().map(|run| run.peak_rss_bytes as f64 / 1e6))?.text(0);
        let ratios = match yardstick {
            None => [String::new(), String::new()],
            Some(Yardstick { name, runs: yardstick, share }) => {
                let pairs = || runs.iter().zip(yardstick);
                let times = |ours: Duration, theirs: Duration| ours.as_secs_f64() / (theirs.as_secs_f64() * share);
                let cpu = Spread::of(pairs().map(|(run, by)| times(run.cpu, by.cpu)))?;
                let rate = Spread::of(pairs().map(|(run, by)| 1.0 / times(run.wall, by.wall)))?;
                [format!("{} × {name}", cpu.text(2)), format!("{} × {name}", rate.text(2))]
            }
        };
        let [cpu_ratio, rate_ratio] = ratios;
        let line = format!("| {name} | {cpu} | {rate} | {memory} | {cpu_ratio} | {rate_ratio} |");
        println!("{line}");
        writeln!(self.rows, "{line}")?;
        Ok(())
    }

    /// Delays of each run, sorted; `beside` are those of the yardstick.
    pub fn delays(
        &mut self,
        what: &str,
        runs: &[Vec<Duration>],
        beside: Option<(&str, &[Vec<Duration>])>,
    ) -> Result<()> {
        let ms = |runs: &[Vec<Duration>], share: f64| -> Vec<f64> {
            let at = |run: &Vec<Duration>| {
                run.get(((run.len() as f64 - 1.0) * share) as usize).map(|delay| delay.as_secs_f64() * 1e3)
            };
            runs.iter().filter_map(at).collect()
        };
        let mut line = format!("| {what} | {}", runs.iter().map(Vec::len).sum::<usize>());
        for share in [0.5, 0.99, 1.0] {
            write!(line, " | {}", Spread::of(ms(runs, share))?.text(1))?;
        }
        line += " |";
        if let Some((name, yardstick)) = beside {
            let of = |share| Spread::of(ms(runs, share).iter().zip(ms(yardstick, share)).map(|(ours, by)| ours / by));
            write!(line, " p50 {}, p99 {} × {name} |", of(0.5)?.text(2), of(0.99)?.text(2))?;
        } else {
            line += "  |";
        }
        println!("{line}");
        self.delays += &line;
        self.delays.push('\n');
        Ok(())
    }

    /// `share` of a core.
    pub fn rest(&mut self, what: &str, share: f64, rss_bytes: u64, peak_rss_bytes: u64) {
        let mb = |bytes: u64| bytes as f64 / 1e6;
        let line = format!("| {what} | {:.2} % | {:.0} | {:.0} |", share * 100.0, mb(rss_bytes), mb(peak_rss_bytes));
        println!("{line}");
        self.rests += &line;
        self.rests.push('\n');
    }

    pub fn note(&mut self, note: &str) {
        self.notes.push(note.to_owned());
    }

    pub fn store(&self, into: &Path) -> Result<()> {
        fs::create_dir_all(into)?;
        let date = into.file_name().unwrap_or_default().to_string_lossy();
        let mut page = format!("# {date}: `make bench`\n\n{}\n", self.head);
        if !self.rows.is_empty() {
            writeln!(page, "{COLUMNS}{}", self.rows)?;
        }
        if !self.delays.is_empty() {
            write!(
                page,
                "At ten thousand lines a second, ms, over runs of 20 s; low latency is `linger.ms: 5` and `bulk.max_delay: 100ms`:\n\n| delay | number | p50 | p99 | most | beside the yardstick |\n|---|---|---|---|---|---|\n{}\n",
                self.delays
            )?;
        }
        if !self.rests.is_empty() {
            write!(
                page,
                "The shipper at rest:\n\n| files | of a core | RSS MB | peak RSS MB |\n|---|---|---|---|\n{}\n",
                self.rests
            )?;
        }
        if !self.notes.is_empty() {
            writeln!(page, "Lines: {}.", self.notes.join(", "))?;
        }
        let path = into.join("README.md");
        fs::write(&path, page)?;
        println!("\nstored in {}", path.display());
        Ok(())
    }
}
