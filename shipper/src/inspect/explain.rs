//! `shipper explain FILE:LINE`: follows one line from the file to the index.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use millrace_common::exit::Exit;
use millrace_common::ledger::fate::{self, Fate};
use millrace_common::ledger::sources::Gap;
use millrace_common::record::CoveredRange;
use millrace_common::terminal::escape;
use serde_json::{Value, json};

use super::dry_run::{self, Made};
use crate::checkpoint::row::Row;
use crate::checkpoint::store;
use crate::config::{Config, Ledger};
use crate::frame::lines::LineEnd;
use crate::ledger::recover;
use crate::pipeline;
use crate::read::{Disk, FileStat, FileSystem as _};

#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    #[error("write it as FILE:LINE, with the number of the line, from 1")]
    Form,
    #[error("`{path}` has {num_lines} lines")]
    NoLine { path: String, num_lines: u64 },
    #[error("no pattern of the configuration matches `{path}`: nobody reads it")]
    NotMatched { path: String },
    #[error("`{path}` matches input `{input}`, and the checkpoint in `{}` does not know it: no shipper has run on it there, or not yet", dir.display())]
    NotKnown { path: String, input: String, dir: PathBuf },
    #[error("input `{0}` of the checkpoint is not in this configuration")]
    NoInput(String),
}

/// A line of a file, as editors and compilers write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileLine {
    pub file: PathBuf,
    pub line: u64,
}

impl FromStr for FileLine {
    type Err = ExplainError;

    fn from_str(text: &str) -> Result<Self, ExplainError> {
        let (file, line) = text.rsplit_once(':').ok_or(ExplainError::Form)?;
        let line = line.parse().ok().filter(|line| *line > 0).ok_or(ExplainError::Form)?;
        Ok(Self { file: PathBuf::from(file), line })
    }
}

/// Prints where the line is. Ends with 0 if every group that reads the topic indexed it, with 65 if some will not, with 75
/// if it is on its way.
pub fn explain(config: &Config, at: &FileLine, is_json: bool) -> Exit {
    match look(config, at) {
        Ok(found) => {
            let text = if is_json { format!("{:#}\n", found.to_json()) } else { found.to_text() };
            print!("{text}");
            found.exit()
        }
        Err(fault) => {
            eprintln!("{fault:#}");
            let io = fault.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
            match fault.downcast_ref::<ExplainError>() {
                Some(ExplainError::NoInput(_)) => Exit::Config,
                Some(_) => Exit::Usage,
                None => io.map_or(Exit::Unavailable, Exit::from_io),
            }
        }
    }
}

/// What is known of a line.
struct Found {
    path: String,
    line: u64,
    row: Row,
    topic: String,
    /// The line's bytes in the file, its end included.
    bytes: Range<u64>,
    made: Option<Made>,
    place: Place,
}

/// How far it came.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// In the file.
    Unread,
    GivenUp(String),
    /// Kafka has it; by group, what the indexers say. `None`: nobody can be asked.
    Acknowledged(Option<BTreeMap<String, Fate>>),
}

fn look(config: &Config, at: &FileLine) -> Result<Found> {
    let path = std::path::absolute(&at.file)?;
    let shown = escape(&path.to_string_lossy()).into_owned();
    let stat = Disk.stat_path(&path).with_context(|| format!("cannot read `{shown}`"))?;
    let rows = store::read_checkpoint(&config.data_dir)?;
    let Some(row) = row_of(rows, &stat) else {
        let inputs = config.patterns.iter().zip(&config.inputs);
        let input = inputs.into_iter().find(|(patterns, _)| patterns.matches(&path)).map(|(_, input)| input.id.clone());
        return Err(match input {
            Some(input) => ExplainError::NotKnown { path: shown, input, dir: config.data_dir.clone() },
            None => ExplainError::NotMatched { path: shown },
        }
        .into());
    };
    let input = config.inputs.iter().find(|input| input.id == row.input);
    let input = input.ok_or_else(|| ExplainError::NoInput(row.input.clone()))?;
    let bytes = match line_range(File::open(&path)?, at.line, input.framing.line_end)? {
        Ok(bytes) => bytes,
        Err(num_lines) => return Err(ExplainError::NoLine { path: shown, num_lines }.into()),
    };
    let made = dry_run::record_at(config, &row, &path, stat, bytes.end - 1);
    let topic = config.topics[input.topic].clone();
    let place = place(config, &row, &bytes, made.as_ref())?;
    Ok(Found { path: shown, line: at.line, row, topic, bytes, made, place })
}

fn row_of(rows: Vec<Row>, stat: &FileStat) -> Option<Row> {
    // The newest generation is the one that is there.
    rows.into_iter().filter(|row| row.identity.is_same_file(&stat.identity)).max_by_key(|row| row.generation)
}

fn place(config: &Config, row: &Row, bytes: &Range<u64>, made: Option<&Made>) -> Result<Place> {
    let covers = |gap: &&Gap| gap.start <= bytes.start && bytes.end <= gap.end;
    if let Some(gap) = row.gaps.iter().find(covers) {
        return Ok(Place::GivenUp(gap.reason.clone()));
    }
    if bytes.end > row.acknowledged {
        return Ok(Place::Unread);
    }
    if config.ledger == Ledger::Off {
        return Ok(Place::Acknowledged(None));
    }
    const PATIENCE: Duration = Duration::from_secs(10);
    let client = recover::client(&config.brokers, &config.options);
    let client = client.map_err(|faults| pipeline::told(&faults))?;
    let covered = made.map_or(bytes.clone(), |Made { id, .. }| id.range.start..id.range.end());
    Ok(Place::Acknowledged(Some(fate::ask(client, row.source, covered, PATIENCE)?)))
}

/// The bytes of the line with this number, or how many lines there are. An unfinished last line counts.
fn line_range(mut file: impl io::Read, number: u64, line_end: LineEnd) -> io::Result<Result<Range<u64>, u64>> {
    // Even, so that no character of two bytes is cut as long as reads are whole.
    const CHUNK: u64 = 256 << 10;
    let (mut chunk, mut position, mut start, mut num_ended) = (Vec::new(), 0, 0, 0);
    loop {
        chunk.clear();
        if file.by_ref().take(CHUNK).read_to_end(&mut chunk)? == 0 {
            break;
        }
        let mut at = 0;
        while let Some(length) = line_end.find(&chunk[at..]) {
            at += length;
            num_ended += 1;
            let end = position + at as u64;
            if num_ended == number {
                return Ok(Ok(start..end));
            }
            start = end;
        }
        position += chunk.len() as u64;
    }
    let has_unfinished = position > start;
    Ok(if has_unfinished && num_ended + 1 == number {
        Ok(start..position)
    } else {
        Err(num_ended + u64::from(has_unfinished))
    })
}

impl Found {
    fn exit(&self) -> Exit {
        match &self.place {
            Place::GivenUp(reason) if is_loss(reason) => Exit::Holes,
            Place::GivenUp(_) | Place::Acknowledged(None) => Exit::Clean,
            Place::Unread => Exit::Unacknowledged,
            Place::Acknowledged(Some(fates))
                if fates.values().any(|f| matches!(f, Fate::DeadLettered | Fate::Skipped)) =>
            {
                Exit::Holes
            }
            Place::Acknowledged(Some(fates)) if fates.is_empty() || fates.values().any(|f| *f == Fate::Waiting) => {
                Exit::Unacknowledged
            }
            Place::Acknowledged(Some(_)) => Exit::Clean,
        }
    }

    fn to_text(&self) -> String {
        let Row { source, acknowledged, size, .. } = &self.row;
        let mut text = String::new();
        let mut say = |name: &str, what: String| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name:<10}{what}");
        };
        say(
            "line",
            format!("{}:{}, bytes {}..{} of source {source}", self.path, self.line, self.bytes.start, self.bytes.end),
        );
        if let Some(Made { id, .. }) = &self.made {
            let CoveredRange { start, .. } = id.range;
            say("record", format!("{id}, made of the bytes {start}..{}", id.range.end()));
        }
        match &self.place {
            Place::Unread => {
                say(
                    "shipper",
                    format!(
                        "not acknowledged yet: {acknowledged} of {size} bytes are; `shipper status` tells what it waits for"
                    ),
                );
            }
            Place::GivenUp(reason) => say("shipper", format!("not sent: {}", words(reason))),
            Place::Acknowledged(fates) => {
                say("shipper", format!("acknowledged by Kafka, topic `{}`", escape(&self.topic)));
                match fates {
                    None => say("indexer", "not known: the settings say `ledger: off`".to_owned()),
                    Some(fates) if fates.is_empty() => {
                        say("indexer", "no indexer said anything of this file yet".to_owned())
                    }
                    Some(fates) => fates.iter().for_each(|(group, fate)| {
                        say("indexer", format!("{} (group `{}`)", told(*fate), escape(group)))
                    }),
                }
                if let Some(Made { id, .. }) = &self.made {
                    say(
                        "find it",
                        format!(
                            "_id:\"{id}\"  or  log.source:\"{source}\" AND log.offset:{}",
                            self.offset().unwrap_or(id.range.start)
                        ),
                    );
                }
            }
        }
        text
    }

    fn offset(&self) -> Option<u64> {
        let value: Value = serde_json::from_slice(&self.made.as_ref()?.value).ok()?;
        value.pointer("/log/offset")?.as_u64()
    }

    fn to_json(&self) -> Value {
        let (state, reason, groups) = match &self.place {
            Place::Unread => ("waiting", None, None),
            Place::GivenUp(reason) => ("not_sent", Some(reason), None),
            Place::Acknowledged(groups) => ("acknowledged", None, groups.as_ref()),
        };
        let record = self.made.as_ref().map(|Made { id, value }| {
            let value = serde_json::from_slice::<Value>(value).unwrap_or_default();
            json!({ "id": id.to_string(), "start": id.range.start, "end": id.range.end(), "value": value })
        });
        json!({
            "path": self.path, "line": self.line, "source": self.row.source, "start": self.bytes.start, "end": self.bytes.end,
            "topic": self.topic, "acknowledged": self.row.acknowledged, "record": record, "state": state, "reason": reason, "groups": groups,
        })
    }
}

fn is_loss(reason: &str) -> bool {
    Gap { start: 0, end: 0, reason: reason.to_owned() }.is_loss()
}

fn words(reason: &str) -> String {
    match reason {
        "excluded" => "`include_lines` or `exclude_lines` leaves it out".to_owned(),
        "nul_bytes" => "NUL bytes, no line".to_owned(),
        "carried" => "it is part of an event that goes on in the file after this one".to_owned(),
        "too_large" => "its record would be larger than `limits.max_record`".to_owned(),
        other => format!("given up ({})", escape(other)),
    }
}

fn told(fate: Fate) -> &'static str {
    match fate {
        Fate::Indexed => "indexed",
        Fate::DeadLettered => "dead-lettered: `indexer dlq list` says why",
        Fate::Skipped => "skipped: older than `max_age` of its rule",
        Fate::Finished => "finished: indexed, dead-lettered or skipped",
        Fate::Waiting => "not indexed yet; if this stays, `indexer audit` tells what is missing",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_by_its_number() {
        let range = |text: &[u8], number| line_range(text, number, LineEnd::Lf).unwrap();
        assert_eq!(range(b"ab\n\ncd", 1), Ok(0..3));
        assert_eq!(range(b"ab\n\ncd", 2), Ok(3..4));
        assert_eq!(range(b"ab\n\ncd", 3), Ok(4..6));
        assert_eq!(range(b"ab\n\ncd", 4), Err(3));
        assert_eq!(range(b"ab\n", 2), Err(1));
        assert_eq!(range(b"", 1), Err(0));
        let long = [vec![b'x'; 300 << 10], b"\ny\n".to_vec()].concat();
        assert_eq!(range(&long, 2), Ok((300 << 10) + 1..(300 << 10) + 3));
        let wide: Vec<u8> = "a\nb\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(line_range(&wide[..], 2, LineEnd::Utf16Le).unwrap(), Ok(4..8));
    }

    #[test]
    fn a_place_is_a_file_and_a_line_from_1() {
        let at = |file: &str, line| FileLine { file: PathBuf::from(file), line };
        assert_eq!("/a:b.log:12".parse::<FileLine>().unwrap(), at("/a:b.log", 12));
        for wrong in ["/a.log", "/a.log:0", "/a.log:", "/a.log:x"] {
            assert!(wrong.parse::<FileLine>().is_err(), "{wrong}");
        }
    }
}
