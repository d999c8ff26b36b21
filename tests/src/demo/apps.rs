//! Two applications that write logs: a web shop in JSON, and a worker in text with stack traces.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::tally::Tally;
use crate::lock;
use crate::writer::{RotatingFile, timestamp};

const TICK: Duration = Duration::from_millis(10);

/// What an application has written so far.
#[derive(Debug, Default)]
pub struct Written {
    pub tally: Tally,
    pub num_rotations: u32,
}

/// Makes the next lines of an application.
trait Application: Send {
    /// Appends the text of about `num` lines to `out`, each with its line end, and counts them.
    fn write(&mut self, num: u64, out: &mut String, tally: &mut Tally);
}

/// A running application.
pub struct App {
    written: Arc<Mutex<Written>>,
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
}

impl App {
    /// A web shop: JSON lines, several for each request, of many requests at a time.
    ///
    /// # Errors
    ///
    /// If the file cannot be created.
    pub fn web(path: &Path, traced: &Traced) -> Result<Self> {
        let web = Web { random: Random(0x9e37_79b9_7f4a_7c15), open: Vec::new(), traced: traced.clone() };
        Self::start(path, Box::new(web), 1500, 12_000)
    }

    /// A worker: text lines, now and then a stack trace.
    ///
    /// # Errors
    ///
    /// If the file cannot be created.
    pub fn worker(path: &Path) -> Result<Self> {
        let worker = Worker { random: Random(0x2545_f491_4f6c_dd1d), next_job: 1 };
        Self::start(path, Box::new(worker), 400, 5_000)
    }

    fn start(path: &Path, mut app: Box<dyn Application>, lines_per_second: u64, rotate_every: u64) -> Result<Self> {
        let mut file = RotatingFile::create(path)?;
        let written = Arc::new(Mutex::new(Written::default()));
        let is_over = Arc::new(AtomicBool::new(false));
        let (ledger, stop) = (Arc::clone(&written), Arc::clone(&is_over));
        let thread = std::thread::spawn(move || {
            let started = Instant::now();
            let mut out = String::new();
            while !stop.load(Ordering::SeqCst) {
                let due = lines_per_second * u64::try_from(started.elapsed().as_millis())? / 1000;
                out.clear();
                let mut written = lock(&ledger);
                let missing = due.saturating_sub(written.tally.total());
                app.write(missing, &mut out, &mut written.tally);
                file.append(out.as_bytes())?;
                if written.tally.total() / rotate_every > u64::from(written.num_rotations) {
                    file.rotate()?;
                    written.num_rotations += 1;
                }
                drop(written);
                std::thread::sleep(TICK);
            }
            Ok(())
        });
        Ok(Self { written, is_over, thread })
    }

    /// The number of lines written so far.
    pub fn num_lines(&self) -> u64 {
        lock(&self.written).tally.total()
    }

    /// Ends it, and returns all it has written.
    ///
    /// # Errors
    ///
    /// If its file could not be written or rotated.
    pub fn stop(self) -> Result<Written> {
        self.is_over.store(true, Ordering::SeqCst);
        self.thread.join().map_err(|_| anyhow!("an application panicked"))??;
        let written = Arc::into_inner(self.written).context("the application still holds its ledger")?;
        Ok(written.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One slow request of the web shop, to be found again by its id: it goes on while a program is killed.
#[derive(Clone, Debug, Default)]
pub struct Traced(Arc<Mutex<TracedState>>);

#[derive(Debug, Default)]
struct TracedState {
    id: Option<String>,
    /// Lines to be written at the next occasion.
    pending: Vec<String>,
    num_steps: u32,
}

impl Traced {
    /// Has the web shop write the next line of the slow request.
    pub fn step(&self, what: &str) {
        lock(&self.0).pending.push(what.to_owned());
    }

    /// The request's id, once it has begun.
    pub fn id(&self) -> Option<String> {
        lock(&self.0).id.clone()
    }

    /// How many lines the request has.
    pub fn num_steps(&self) -> u32 {
        lock(&self.0).num_steps
    }
}

/// Numbers that look random and are the same every time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }

    fn pick<'a>(&mut self, list: &[&'a str]) -> &'a str {
        let at = self.below(list.len() as u64);
        list[usize::try_from(at).unwrap_or(0)]
    }

    fn id(&mut self) -> String {
        format!("{:08x}{:08x}", self.below(1 << 31), self.below(1 << 31))
    }
}

struct Request {
    id: String,
    path: &'static str,
    step: u32,
}

struct Web {
    random: Random,
    /// Requests being served, whose lines stand between each other's.
    open: Vec<Request>,
    traced: Traced,
}

impl Application for Web {
    fn write(&mut self, num: u64, out: &mut String, tally: &mut Tally) {
        self.write_traced(out, tally);
        for _ in 0..num {
            if self.open.len() < 20 {
                let path = self.random.pick(&["/", "/cart", "/search", "/product", "/checkout", "/login"]);
                self.open.push(Request { id: self.random.id(), path, step: 0 });
            }
            let at = usize::try_from(self.random.below(self.open.len() as u64)).unwrap_or(0);
            let ms = 1 + self.random.below(90);
            let mut request = self.open.swap_remove(at);
            request.step += 1;
            let path = request.path;
            let (message, status) = match request.step {
                1 => (format!("GET {path}"), None),
                2 => (format!("session \"{}\" loaded in {ms} ms", &request.id[..6]), None),
                3 if ms > 60 => (format!("database answered late, after {ms} ms"), None),
                _ => {
                    let status = if ms > 88 { 503 } else { 200 };
                    (format!("GET {path} {status} in {ms} ms"), Some((status, ms)))
                }
            };
            web_line(out, tally, &request, &message, status);
            if status.is_none() {
                self.open.push(request);
            }
        }
    }
}

impl Web {
    fn write_traced(&mut self, out: &mut String, tally: &mut Tally) {
        let mut traced = lock(&self.traced.0);
        for message in std::mem::take(&mut traced.pending) {
            let id = traced.id.get_or_insert_with(|| self.random.id()).clone();
            traced.num_steps += 1;
            let request = Request { id, path: "/export", step: traced.num_steps };
            web_line(out, tally, &request, &message, None);
        }
    }
}

/// Written as loggers for the Elastic Common Schema write it, dots in names included.
fn web_line(out: &mut String, tally: &mut Tally, request: &Request, message: &str, end: Option<(u16, u64)>) {
    use std::fmt::Write as _;
    let Request { id, path, step } = request;
    let level = if end.is_some_and(|(status, _)| status >= 500) { "ERROR" } else { "INFO" };
    tally.add(&[id, &step.to_string(), message]);
    let escaped = message.replace('"', "\\\"");
    let mut put = || -> std::fmt::Result {
        write!(out, r#"{{"@timestamp":"{}","log.level":"{level}","message":"{escaped}","#, timestamp())?;
        write!(out, r#""http":{{"request":{{"id":"{id}","method":"GET"}}"#)?;
        if let Some((status, _)) = end {
            write!(out, r#","response":{{"status_code":{status}}}"#)?;
        }
        write!(out, r#"}},"url":{{"path":"{path}"}},"event":{{"sequence":{step}"#)?;
        if let Some((_, ms)) = end {
            write!(out, r#","duration":{}"#, ms * 1_000_000)?;
        }
        out.write_str("}}\n")
    };
    put().expect("writing to a string does not fail");
}

struct Worker {
    random: Random,
    next_job: u64,
}

impl Application for Worker {
    fn write(&mut self, num: u64, out: &mut String, tally: &mut Tally) {
        let wanted = tally.total() + num;
        while tally.total() < wanted {
            let job = self.next_job;
            self.next_job += 1;
            let (worker, ms) = (self.random.below(8), 1 + self.random.below(900));
            let time = timestamp();
            if self.random.below(100) > 1 {
                text_line(out, tally, &format!("{time} INFO  [worker-{worker}] job {job:06} done in {ms} ms"));
                continue;
            }
            let item = self.random.below(9000);
            text_line(out, tally, &format!("{time} ERROR [worker-{worker}] job {job:06} failed after {ms} ms"));
            text_line(out, tally, &format!("java.lang.IllegalStateException: job {job:06}: no stock of item {item}"));
            text_line(out, tally, "\tat shop.warehouse.Stock.take(Stock.java:118)");
            text_line(out, tally, "\tat shop.worker.Job.run(Job.java:42)");
            text_line(out, tally, "Caused by: java.net.SocketTimeoutException: Read timed out");
            text_line(out, tally, "\t... 12 more");
        }
    }
}

fn text_line(out: &mut String, tally: &mut Tally, line: &str) {
    tally.add(&[line]);
    out.push_str(line);
    out.push('\n');
}

/// The path pattern that finds a log file and its rotated older selves.
pub fn pattern(path: &Path) -> PathBuf {
    let mut pattern = path.to_owned().into_os_string();
    pattern.push("*");
    PathBuf::from(pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(app: &mut dyn Application, num: u64) -> (String, Tally) {
        let (mut out, mut tally) = (String::new(), Tally::default());
        app.write(num, &mut out, &mut tally);
        (out, tally)
    }

    #[test]
    fn web_lines_are_json_and_each_is_counted() {
        let traced = Traced::default();
        traced.step("begins");
        let mut web = Web { random: Random(7), open: Vec::new(), traced };
        let (out, tally) = lines(&mut web, 500);
        assert_eq!(tally.total(), 501);
        for line in out.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(line["http"]["request"]["id"].is_string());
        }
        assert_eq!(out.lines().count(), 501);
    }

    #[test]
    fn worker_counts_every_line_of_a_stack_trace() {
        let (out, tally) = lines(&mut Worker { random: Random(7), next_job: 1 }, 2000);
        assert!(out.contains("\tat shop."));
        assert_eq!(u64::try_from(out.lines().count()).unwrap(), tally.total());
    }
}
