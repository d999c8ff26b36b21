//! `indexer audit`: whether everything that shippers had acknowledged at its start is indexed, dead-lettered or given up, byte
//! by byte.
//!
//! ```text
//! ledger and offsets ─> wait until the group is past the start ─> holes ─> [ids in the index against the ranges] ─> report
//! ```

mod index;
mod show;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use millrace_common::config::HumanDuration;
use millrace_common::exit::Exit;
use millrace_common::record::SourceId;

use crate::cli::{Need, Settings, block_on};
use crate::config::Config;
use crate::dlq::Moment;
use crate::status;
use crate::watch::judge::SourceVerdict;
use crate::watch::reading::{Reading, Shared};
use crate::watch::view::View;

/// Ends with 0 only if whole, with 65 if bytes are nowhere, with 75 if the group did not come along in time, with 69 if Kafka
/// or Elasticsearch cannot be asked.
#[derive(Debug, Args)]
pub struct Audit {
    #[command(flatten)]
    settings: Settings,
    /// Only files that were told of at this time or later: RFC 3339, or a duration back from now such as 2h.
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,
    /// Only files that were there before this time.
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,
    /// Only files of this host, by name or id.
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Only files with this path; `*` stands for any text.
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Compare with Elasticsearch itself: the ids in the indices of all rules against the ranges. Documents that were deleted,
    /// by retention too, are holes.
    #[arg(long)]
    verify_index: bool,
    /// How long to wait until the group has committed what was acknowledged at the start.
    #[arg(long, value_name = "TIME", default_value = "60s")]
    timeout: HumanDuration,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What the audit says of one file.
struct Audited {
    verdict: SourceVerdict,
    /// Of the bytes acknowledged at the start, those that the group has not come to.
    late: u64,
    /// Told as indexed, and not in the index.
    deleted: Vec<Range<u64>>,
}

type Key = (Arc<str>, SourceId);

impl Audit {
    /// Runs the command.
    pub fn run(&self) -> Exit {
        let needs: &[Need] = if self.verify_index { &[Need::Kafka, Need::Elasticsearch] } else { &[Need::Kafka] };
        let config = match self.settings.load(needs) {
            Ok(config) => config,
            Err(exit) => return exit,
        };
        if !config.ledger {
            eprintln!("the settings say `ledger: off`: nobody tells what is indexed");
            return Exit::Usage;
        }
        if self.verify_index && config.rules.iter().any(|rule| !rule.keeps_ids) {
            eprintln!("--verify-index needs our ids, and a rule says `document_id: none`");
            return Exit::Usage;
        }
        self.audit(&config).unwrap_or_else(|error| status::exit(&error))
    }

    fn audit(&self, config: &Config) -> Result<Exit> {
        let (shared, mut reading) = status::open(config)?;
        reading.round(&shared, &config.kafka.topics)?;
        let claims = self.claims(&shared.view());
        if claims.is_empty() {
            eprintln!("the ledger knows no such file");
            return Ok(Exit::Usage);
        }
        self.wait(config, &shared, &mut reading, &claims)?;
        let mut audited = {
            let view = shared.view();
            let verdicts = view.judge(shared.now_ms()).sources;
            let of_scope = verdicts.into_iter().filter_map(|verdict| {
                let claim = *claims.get(&(Arc::clone(&verdict.host), verdict.source))?;
                let late = open_bytes(&view, &(Arc::clone(&verdict.host), verdict.source), claim);
                Some(Audited { verdict, late, deleted: Vec::new() })
            });
            of_scope.collect::<Vec<_>>()
        };
        if self.verify_index {
            let wanted: Vec<SourceId> = audited.iter().map(|audited| audited.verdict.source).collect();
            let found = block_on(index::ranges(config, &wanted))?;
            let view = shared.view();
            for audited in &mut audited {
                audited.deleted = index::missing(&view, audited.verdict.source, &found);
            }
        }
        let view = shared.view();
        let text = if self.json { show::json(&view, &audited) } else { show::text(&view, &audited, self.verify_index) };
        print(&text)?;
        let has_holes = audited.iter().any(|audited| audited.verdict.missing > 0 || !audited.deleted.is_empty());
        Ok(match has_holes {
            true => Exit::Holes,
            false if audited.iter().any(|audited| audited.late > 0) => Exit::Unacknowledged,
            false => Exit::Clean,
        })
    }

    /// The files of the scope, with what is acknowledged of each now.
    fn claims(&self, view: &View) -> BTreeMap<Key, u64> {
        let now_ms = wall_ms();
        let resolve = |moment: &Moment| match moment {
            Moment::At(ms) => *ms,
            Moment::Ago(ms) => now_ms.saturating_sub(*ms),
        };
        let (since, until) = (self.since.as_ref().map(resolve), self.until.as_ref().map(resolve));
        let is_in_scope = |(host, _): &Key, source: &crate::watch::view::Source| {
            let row = &source.row;
            let born_ms = (row.birth_time_ns / 1_000_000) as i64;
            self.host.as_ref().is_none_or(|wanted| *wanted == **host || *wanted == row.host_name)
                && self.path.as_ref().is_none_or(|wanted| matches(wanted, &row.path))
                && since.is_none_or(|since| source.arrival.broker_ms >= since)
                && until.is_none_or(|until| born_ms < until)
        };
        let of_scope = view.sources.iter().filter(|(key, source)| is_in_scope(key, source));
        of_scope.map(|(key, source)| (key.clone(), source.row.acknowledged)).collect()
    }

    /// Waits until the group is past everything that was in the topics at the start, or all is accounted for.
    #[expect(clippy::disallowed_methods, reason = "an edge: the command's own patience")]
    fn wait(&self, config: &Config, shared: &Shared, reading: &mut Reading, claims: &BTreeMap<Key, u64>) -> Result<()> {
        let deadline = Instant::now() + self.timeout.duration();
        let mut told = Instant::now();
        loop {
            reading.round(shared, &config.kafka.topics)?;
            let open: u64 = claims.iter().map(|(key, claim)| open_bytes(&shared.view(), key, *claim)).sum();
            if open == 0 || Instant::now() >= deadline {
                return Ok(());
            }
            if told.elapsed() > Duration::from_secs(5) {
                told = Instant::now();
                eprintln!("waiting for the group: {open} bytes");
            }
            reading.take(shared)?;
        }
    }
}

/// Bytes below `claim` of which nothing is known yet.
fn open_bytes(view: &View, key: &Key, claim: u64) -> u64 {
    let Some(source) = view.sources.get(key) else { return 0 };
    let holes = view.accounted(key.1, &source.row).holes(source.proven.min(claim)..claim);
    holes.into_iter().map(|hole| hole.end - hole.start).sum()
}

/// Whether a path is the wanted one, with `*` for any text.
fn matches(wanted: &str, path: &str) -> bool {
    let mut parts = wanted.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = path.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

fn print(text: &str) -> Result<()> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

#[expect(clippy::disallowed_methods, reason = "an edge: durations count from the start of the command")]
fn wall_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_in_a_path_stands_for_any_text() {
        for (wanted, path, expected) in [
            ("/a.log", "/a.log", true),
            ("/a.log", "/a.log.1", false),
            ("/var/*.log", "/var/app/a.log", true),
            ("*b*", "abc", true),
            ("*", "", true),
            ("/a*a", "/a", false),
            ("a*c*e", "abcde", true),
            ("a*e*c", "abcde", false),
        ] {
            assert_eq!(matches(wanted, path), expected, "{wanted} {path}");
        }
    }
}
