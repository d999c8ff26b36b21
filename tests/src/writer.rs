//! Writes log files as applications do, and remembers every line.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use crate::lock;

/// The name of one line: it stands in the line itself and is found again in whatever becomes of it,
/// so it needs no parser that could be wrong in the same way as the program under test.
///
/// Written as `mr~<run>~<file>~<n>~`, of letters, digits, `-`, `.` and `_` only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LineId {
    pub run: String,
    pub file: String,
    pub n: u64,
}

impl fmt::Display for LineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mr~{}~{}~{}~", self.run, self.file, self.n)
    }
}

impl LineId {
    /// Finds the first line id in any text, such as a record or a document.
    pub fn find(text: &str) -> Option<Self> {
        let mut rest = text;
        while let Some(at) = rest.find("mr~") {
            rest = &rest[at + 3..];
            let mut parts = rest.splitn(4, '~');
            let (run, file, n) = (parts.next()?, parts.next(), parts.next());
            let is_closed = parts.next().is_some();
            if let (Some(file), Some(Ok(n)), true) = (file, n.map(str::parse), is_closed) {
                let (run, file) = (run.to_owned(), file.to_owned());
                return Some(Self { run, file, n });
            }
        }
        None
    }
}

/// All lines of one run, over all its files. Shared by its writers and the oracle.
#[derive(Clone)]
pub struct Written {
    run: String,
    lines: Arc<Mutex<BTreeMap<LineId, String>>>,
}

impl Written {
    /// Begins a run; its name tells its lines from those of all other runs.
    pub fn new(run: &str) -> Self {
        assert!(is_plain(run), "`{run}` may hold letters, digits, -, . and _ only");
        Self { run: run.to_owned(), lines: Arc::default() }
    }

    pub fn run(&self) -> &str {
        &self.run
    }

    /// The number of lines written so far.
    pub fn len(&self) -> usize {
        self.lines().len()
    }

    pub fn is_empty(&self) -> bool {
        self.lines().is_empty()
    }

    /// The lines and their text, without line ends.
    pub fn lines(&self) -> MutexGuard<'_, BTreeMap<LineId, String>> {
        lock(&self.lines)
    }
}

/// Makes the text of a line from its id. The text must contain the id, and no line end.
pub type Template = Box<dyn FnMut(&LineId) -> String + Send>;

/// The kind of lines a writer makes by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `{"@timestamp":…,"line":"mr~…","run":…,"file":…,"n":…,"level":…,"message":…}`
    Json,
    /// `2026-11-23T06:30:17.123Z INFO mr~… request …`
    Text,
}

/// One log file and its rotated older selves `<path>.1`, `<path>.2` and so on, the newest lowest.
pub struct RotatingFile {
    path: PathBuf,
    file: File,
    num_rotated: u32,
}

impl RotatingFile {
    /// Creates the file, in a folder that is there.
    ///
    /// # Errors
    ///
    /// If the file cannot be created.
    pub fn create(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_owned(), file: open(path)?, num_rotated: 0 })
    }

    /// Appends bytes, in one write.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Rotates by rename: `<path>` becomes `<path>.1`, `.1` becomes `.2`, and a new file begins.
    /// Nothing is deleted.
    ///
    /// # Errors
    ///
    /// If a file cannot be renamed or created.
    pub fn rotate(&mut self) -> Result<()> {
        for number in (1..=self.num_rotated).rev() {
            fs::rename(self.rotated(number), self.rotated(number + 1))?;
        }
        fs::rename(&self.path, self.rotated(1))?;
        self.num_rotated += 1;
        self.file = open(&self.path)?;
        Ok(())
    }

    /// The path of the `number`th older self.
    pub fn rotated(&self, number: u32) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(format!(".{number}"));
        PathBuf::from(path)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn num_rotated(&self) -> u32 {
        self.num_rotated
    }
}

/// A log file whose lines all carry a [`LineId`] and are remembered.
pub struct LogWriter {
    label: String,
    file: RotatingFile,
    written: Written,
    template: Template,
    next: u64,
}

impl LogWriter {
    /// Creates the file, in a folder that is there. Its name must be unique in the run.
    ///
    /// # Errors
    ///
    /// If the file cannot be created.
    pub fn create(written: &Written, path: &Path, format: Format) -> Result<Self> {
        let template: Template = match format {
            Format::Json => Box::new(json_line),
            Format::Text => Box::new(text_line),
        };
        Self::with_template(written, path, template)
    }

    /// As [`LogWriter::create`], with lines of the test's own making.
    ///
    /// # Errors
    ///
    /// If the file cannot be created.
    pub fn with_template(written: &Written, path: &Path, template: Template) -> Result<Self> {
        let name = path.file_name().context("a log file needs a name")?;
        let label = name.to_string_lossy().into_owned();
        assert!(is_plain(&label), "`{label}` may hold letters, digits, -, . and _ only");
        Ok(Self { label, file: RotatingFile::create(path)?, written: written.clone(), template, next: 0 })
    }

    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The number of lines written to this file and its older selves.
    pub fn num_lines(&self) -> u64 {
        self.next
    }

    /// Writes `num` lines. Every seventh reaches the file in two pieces.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn write(&mut self, num: u64) -> Result<()> {
        for _ in 0..num {
            let id = self.next_id();
            let line = (self.template)(&id);
            self.put(id, line)?;
        }
        Ok(())
    }

    /// Writes one line made by `make`, and returns its id.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn write_line(&mut self, make: impl FnOnce(&LineId) -> String) -> Result<LineId> {
        let id = self.next_id();
        let line = make(&id);
        self.put(id.clone(), line)?;
        Ok(id)
    }

    /// As [`RotatingFile::rotate`].
    ///
    /// # Errors
    ///
    /// If a file cannot be renamed or created.
    pub fn rotate(&mut self) -> Result<()> {
        self.file.rotate()
    }

    /// The path of the `number`th older self.
    pub fn rotated(&self, number: u32) -> PathBuf {
        self.file.rotated(number)
    }

    fn next_id(&mut self) -> LineId {
        let n = self.next;
        self.next += 1;
        LineId { run: self.written.run.clone(), file: self.label.clone(), n }
    }

    fn put(&mut self, id: LineId, line: String) -> Result<()> {
        assert!(line.contains(&id.to_string()), "the line lacks its id: {line}");
        assert!(!line.contains('\n'), "the line has a line end: {line}");
        let bytes = [line.as_bytes(), b"\n"].concat();
        let cut = if id.n % 7 == 6 { bytes.len() / 2 } else { 0 };
        // Remembered first: what may be in the file must be asked for.
        self.written.lines().insert(id, line);
        self.file.append(&bytes[..cut])?;
        self.file.append(&bytes[cut..])
    }
}

/// Writers that go on in the background.
pub struct Traffic {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<LogWriter>>>,
}

impl Traffic {
    /// Writes `lines_per_second` to each of the writers, and rotates each after every
    /// `rotate_every` of its lines (0: never), until stopped.
    pub fn start(mut writers: Vec<LogWriter>, lines_per_second: u64, rotate_every: u64) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            let started = Instant::now();
            let mut num_done = 0;
            while !stop.load(Ordering::SeqCst) {
                let due = u128::from(lines_per_second) * started.elapsed().as_millis() / 1000;
                let due = u64::try_from(due)?;
                for writer in &mut writers {
                    write_rotating(writer, due - num_done, rotate_every)?;
                }
                num_done = due;
                std::thread::sleep(Duration::from_millis(10));
            }
            Ok(writers)
        });
        Self { is_over, thread }
    }

    /// Ends it and gives the writers back.
    ///
    /// # Errors
    ///
    /// If a file could not be written or rotated.
    pub fn stop(self) -> Result<Vec<LogWriter>> {
        self.is_over.store(true, Ordering::SeqCst);
        self.thread.join().map_err(|_| anyhow!("the writing thread panicked"))?
    }
}

fn write_rotating(writer: &mut LogWriter, num: u64, rotate_every: u64) -> Result<()> {
    for _ in 0..num {
        writer.write(1)?;
        if rotate_every > 0 && writer.num_lines().is_multiple_of(rotate_every) {
            writer.rotate()?;
        }
    }
    Ok(())
}

fn open(path: &Path) -> Result<File> {
    File::options().create(true).append(true).open(path).with_context(|| format!("cannot open {}", path.display()))
}

fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    !name.is_empty() && name.bytes().all(plain)
}

/// The time now as `2026-11-23T06:30:17.123Z`.
pub fn timestamp() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}

fn json_line(id: &LineId) -> String {
    format!(
        r#"{{"@timestamp":"{}","line":"{id}","run":"{}","file":"{}","n":{},"level":"info","message":"request {} done in {} ms"}}"#,
        timestamp(),
        id.run,
        id.file,
        id.n,
        id.n,
        id.n % 97
    )
}

fn text_line(id: &LineId) -> String {
    let (time, ms) = (timestamp(), id.n % 97);
    format!("{time} INFO {id} request done in {ms} ms: \"ünïcode\" and \\ are kept")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_is_found_in_the_middle_of_json() {
        let id = LineId { run: "r-1".into(), file: "a.log".into(), n: 42 };
        assert_eq!(LineId::find(&format!("x mr~ mr~a {{\"m\":\"{id}\"}}")), Some(id));
        assert_eq!(LineId::find("mr~r~f~4"), None);
        assert_eq!(LineId::find("nothing"), None);
    }

    #[test]
    fn rotation_keeps_every_line_in_order_of_age() {
        let dir = crate::scratch::dir("writer").unwrap();
        let written = Written::new("r1");
        let path = dir.join("a.log");
        let mut writer = LogWriter::create(&written, &path, Format::Json).unwrap();
        for _ in 0..3 {
            writer.write(10).unwrap();
            writer.rotate().unwrap();
        }
        writer.write(1).unwrap();
        let parts = [3, 2, 1].map(|number| writer.rotated(number));
        let mut text = parts.map(|part| fs::read_to_string(part).unwrap()).concat();
        text += &fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let numbers: Vec<u64> = lines.iter().map(|line| LineId::find(line).unwrap().n).collect();
        assert_eq!(numbers, (0..31).collect::<Vec<u64>>());
        let remembered: Vec<String> = written.lines().values().cloned().collect();
        assert_eq!(lines, remembered);
    }
}
