//! The files that are shipped. The same bytes at every run.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Value, json};

/// One kind of log.
pub struct Workload {
    pub name: &'static str,
    /// Lines against `BENCH_RECORDS`.
    share: f64,
    lines_per_event: u64,
    /// What the shipper is told about it, beside its paths.
    pub input: Value,
    /// How the shipper finds its lines, in turns.
    pub layouts: Vec<Layout>,
    line: fn(u64, &mut String),
}

/// The first lines of a workload, spread over files.
pub struct Layout {
    pub name: &'static str,
    pub num_files: u64,
    /// Of the lines of the workload.
    pub share: f64,
}

/// Lines on disk.
pub struct Files {
    /// Of nothing else.
    pub dir: PathBuf,
    pub num_events: u64,
    pub num_lines: u64,
    pub num_bytes: u64,
}

impl Workload {
    pub fn all() -> Vec<Self> {
        let plain = |name, share, line| Self {
            name,
            share,
            lines_per_event: 1,
            input: json!({"format": "text"}),
            layouts: vec![Layout { name, num_files: 1, share: 1.0 }],
            line,
        };
        let spread = |name, num_files, share| Layout { name, num_files, share };
        vec![
            // So many that what a start takes is little of the whole.
            Self {
                input: json!({"format": "json"}),
                layouts: vec![
                    spread("json lines", 1, 1.0),
                    spread("json lines, 100 files", 100, 1.0 / 3.0),
                    // The same files with few lines and with more: what a file takes, and what a record.
                    spread("json lines, 10,000 files of 100", 10_000, 1.0 / 3.0),
                    spread("json lines, 10,000 files of 300", 10_000, 1.0),
                ],
                ..plain("json lines", 3.0, json_line)
            },
            Self {
                input: json!({"format": "pattern", "pattern": {"grok": "%{COMBINEDAPACHELOG}"}}),
                ..plain("access log, grok", 0.5, access_line)
            },
            plain("text lines of 60 bytes", 1.0, short_line),
            plain("text lines of 4 KiB", 0.05, long_line),
            Self {
                input: json!({"format": "text", "multiline": {"start": "^2026-"}}),
                lines_per_event: 10,
                ..plain("stack traces of 10 lines", 1.0, trace_line)
            },
        ]
    }

    /// The workload of that name.
    ///
    /// # Panics
    ///
    /// There is none.
    pub fn named(name: &str) -> Self {
        Self::all().into_iter().find(|workload| workload.name == name).expect("a workload")
    }

    /// The first lines of the workload of that name.
    ///
    /// # Panics
    ///
    /// There is none.
    pub fn lines(name: &str, num: u64) -> Vec<String> {
        let workload = Self::named(name);
        (0..num).map(|n| workload.line(n)).collect()
    }

    /// The events of all its lines.
    pub fn num_events(&self, num_records: u64) -> u64 {
        (num_records as f64 * self.share) as u64 / self.lines_per_event
    }

    /// Writes the first events into `num_files` files in `dir`, in turns, and creates `dir`.
    ///
    /// # Errors
    ///
    /// If the disk refuses.
    pub fn write(&self, dir: PathBuf, num_files: u64, num_events: u64) -> Result<Files> {
        fs::create_dir_all(&dir)?;
        let mut num_bytes = 0;
        // One after the other: a process may have fewer descriptors than there are files.
        for file in 0..num_files {
            let mut out = BufWriter::with_capacity(1 << 20, File::create(dir.join(format!("{file}.log")))?);
            let events = (file..num_events).step_by(num_files as usize);
            for n in events.flat_map(|event| event * self.lines_per_event..(event + 1) * self.lines_per_event) {
                let line = self.line(n) + "\n";
                num_bytes += line.len() as u64;
                out.write_all(line.as_bytes())?;
            }
            out.flush()?;
        }
        Ok(Files { dir, num_events, num_lines: num_events * self.lines_per_event, num_bytes })
    }

    fn line(&self, n: u64) -> String {
        let mut line = String::new();
        (self.line)(n, &mut line);
        line
    }
}

/// A word that looks random and is the same at every run.
fn scramble(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb)
}

fn time(n: u64) -> String {
    format!("2026-11-25T{:02}:{:02}:{:02}.{:03}Z", n / 3_600_000 % 24, n / 60_000 % 60, n / 1000 % 60, n % 1000)
}

/// About 277 bytes.
fn json_line(n: u64, line: &mut String) {
    let word = scramble(n);
    let level = ["INFO", "INFO", "INFO", "WARN"][(word % 4) as usize];
    *line += &format!(
        r#"{{"time":"{}","level":"{level}","logger":"com.example.checkout.PaymentService","thread":"http-{}","request_id":"{word:016x}{:016x}","message":"payment authorised for order {}","status":{},"duration_ms":{}.{:02},"user":{{"id":{},"plan":"basic"}}}}"#,
        time(n),
        word % 64,
        scramble(word),
        word % 10_000_000,
        200 + word % 300,
        word % 900,
        word % 100,
        word % 1_000_000,
    );
}

fn access_line(n: u64, line: &mut String) {
    let word = scramble(n);
    *line += &format!(
        r#"10.{}.{}.{} - - [25/Nov/2026:{:02}:{:02}:{:02} +0000] "GET /api/v1/orders/{}?expand=items HTTP/1.1" {} {} "https://shop.example.com/cart" "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/130.0 Safari/537.36""#,
        word % 256,
        word / 256 % 256,
        word / 65_536 % 256,
        n / 3600 % 24,
        n / 60 % 60,
        n % 60,
        word % 10_000_000,
        200 + word % 5 * 100,
        word % 100_000,
    );
}

fn short_line(n: u64, line: &mut String) {
    *line += &format!("{} {:016x} request was served", time(n), scramble(n));
}

fn long_line(n: u64, line: &mut String) {
    *line += &time(n);
    let mut word = n;
    while line.len() < 4096 {
        word = scramble(word);
        *line += &format!(" field-{}={word:016x}", word % 100);
    }
    line.truncate(4096);
}

fn trace_line(n: u64, line: &mut String) {
    *line += &match n % 10 {
        0 => format!("{} ERROR request {:016x} failed", time(n), scramble(n)),
        1 => "java.lang.IllegalStateException: connection is closed".to_owned(),
        at => format!("\tat com.example.pool.Connection.use(Connection.java:{})", at * 37),
    };
}
