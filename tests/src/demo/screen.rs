//! What a person sees: a live table on a terminal, plain lines otherwise.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use millrace_common::terminal::table::grouped;

use super::progress::Sample;

/// How often a plain line is printed where there is no terminal.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

/// Writes to standard output.
pub struct Screen {
    started: Instant,
    is_live: bool,
    /// Lines of the table that stand on the terminal, to be written over.
    num_table_lines: usize,
    last: Option<(Instant, Figures)>,
    last_plain: Option<Instant>,
}

/// The numbers that have a speed.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    written: u64,
    shipped: u64,
    indexed: u64,
}

impl Screen {
    pub fn new() -> Self {
        let is_dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
        Self {
            started: Instant::now(),
            is_live: io::stdout().is_terminal() && !is_dumb,
            num_table_lines: 0,
            last: None,
            last_plain: None,
        }
    }

    /// Prints a line that stays, above the table.
    pub fn say(&mut self, line: &str) {
        let mut out = String::new();
        self.go_up(&mut out);
        out.push_str(&format!("{}  {line}\n", self.clock()));
        print(&out);
    }

    /// Prints lines that stay, as they are.
    pub fn print(&mut self, lines: &str) {
        let mut out = String::new();
        self.go_up(&mut out);
        out.push_str(lines);
        print(&out);
    }

    /// Shows a sample. `killed` tells how often each program was killed.
    pub fn show(&mut self, written: u64, sample: &Sample, killed: [u32; 3]) {
        let now = Instant::now();
        let shipped = u64::try_from(sample.shipped).unwrap_or(0);
        let figures = Figures { written, shipped, indexed: sample.indexed };
        let speed = self.speeds(now, figures);
        if self.is_live {
            let table = table(figures, speed, sample, killed, &self.clock());
            let mut out = String::new();
            self.go_up(&mut out);
            // A line must not take two rows, or the way up would be wrong: no wrapping meanwhile.
            out.push_str("\x1b[?7l");
            for line in &table {
                out.push_str(line);
                out.push('\n');
            }
            out.push_str("\x1b[?7h");
            self.num_table_lines = table.len();
            print(&out);
        } else if self.last_plain.is_none_or(|last| now - last >= PLAIN_EVERY) {
            self.last_plain = Some(now);
            println!("{}  {}", self.clock(), plain(figures, sample));
        }
    }

    /// Leaves the table standing and goes on below it.
    pub fn leave_table(&mut self) {
        self.num_table_lines = 0;
    }

    fn speeds(&mut self, now: Instant, figures: Figures) -> Figures {
        let Some((then, before)) = self.last.replace((now, figures)) else {
            return Figures::default();
        };
        let ms = u64::try_from((now - then).as_millis()).unwrap_or(u64::MAX).max(1);
        let per_second = |now: u64, before: u64| now.saturating_sub(before) * 1000 / ms;
        Figures {
            written: per_second(figures.written, before.written),
            shipped: per_second(figures.shipped, before.shipped),
            indexed: per_second(figures.indexed, before.indexed),
        }
    }

    fn clock(&self) -> String {
        let seconds = self.started.elapsed().as_secs();
        format!("{:02}:{:02}", seconds / 60, seconds % 60)
    }

    fn go_up(&mut self, out: &mut String) {
        if self.num_table_lines > 0 {
            // Up to the table's first line, and clear to the end of the screen.
            out.push_str(&format!("\x1b[{}A\x1b[J", self.num_table_lines));
            self.num_table_lines = 0;
        }
    }
}

fn print(text: &str) {
    let mut out = io::stdout().lock();
    // A reader that went away is no reason to fail: the exit code tells the outcome.
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

fn table(figures: Figures, speed: Figures, sample: &Sample, killed: [u32; 3], clock: &str) -> Vec<String> {
    let row = |name: &str, total: u64, speed: u64, note: &str| {
        format!("  {name:<10} {:>12} {:>11}/s   {note}", grouped(total), grouped(speed))
    };
    let lag = grouped(u64::try_from(sample.lag).unwrap_or(0));
    let refused = grouped(sample.refused);
    let mut lines = vec![
        format!("{clock}  {:-<60}", ""),
        row("written", figures.written, speed.written, "lines"),
        row("shipped", figures.shipped, speed.shipped, "records in Kafka, resent ones too"),
        row("indexed", figures.indexed, speed.indexed, "documents"),
        format!("  lag {lag} records   duplicates refused {refused}   dead letters {}", sample.dead_lettered),
    ];
    let names = ["shipper", "indexer-1", "indexer-2", "Kafka", "Elasticsearch"];
    for (at, (name, bytes)) in names.iter().zip(sample.memory).enumerate() {
        let kills = killed.get(at).copied().unwrap_or(0);
        let note = match name {
            _ if kills > 0 => format!("killed with -9: {kills}x"),
            &"Elasticsearch" if !sample.is_elasticsearch_up => "does not answer".to_owned(),
            _ => String::new(),
        };
        lines.push(format!("  {name:<13} {:>9}   {note}", megabytes(bytes)));
    }
    lines
}

fn plain(figures: Figures, sample: &Sample) -> String {
    let [shipper, first, second, ..] = sample.memory.map(megabytes);
    let down = if sample.is_elasticsearch_up { "" } else { " (Elasticsearch is down)" };
    format!(
        "written {} shipped {} indexed {}{down} refused {} lag {} memory: shipper {shipper}, indexers {first} and {second}",
        figures.written, figures.shipped, figures.indexed, sample.refused, sample.lag
    )
}

/// `11 MB`, or `-` for what does not run.
pub fn megabytes(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{} MB", bytes.div_ceil(1_000_000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(megabytes(Some(11_500_000)), "12 MB");
    }
}
