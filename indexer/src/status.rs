//! `indexer status`: the whole pipeline by source and host, read from the ledger itself, whether an indexer runs or not; and
//! forgetting a host that will not come back.

mod forget;
mod table;

use std::io;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Args;
use millrace_common::exit::Exit;
use millrace_common::terminal::screen::Show;

use crate::cli::{Need, Settings};
use crate::config::Config;
use crate::watch::judge::State;
use crate::watch::reading::{Reading, Shared, WatchError};
use crate::watch::report;
use crate::watch::view::View;

/// How long the first look waits for a sign of life of all hosts, and for the group to come to where the topics end.
const FIRST_LOOK: Duration = Duration::from_secs(12);

#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    settings: Settings,
    /// Print JSON, as `/status` of a running indexer tells it.
    #[arg(long)]
    json: bool,
    /// Show it again every two seconds, until Ctrl-C.
    #[arg(long)]
    watch: bool,
    /// Forget a host that will not come back, by its name or id: what it told is removed from the ledger. Only once it is
    /// silent or said goodbye.
    #[arg(long, value_name = "HOST", conflicts_with_all = ["watch", "json"])]
    forget: Option<String>,
}

impl Status {
    /// Runs the command.
    pub fn run(&self) -> Exit {
        let config = match self.settings.load(&[Need::Kafka]) {
            Ok(config) => config,
            Err(exit) => return exit,
        };
        let ended = match &self.forget {
            Some(host) => forget::forget(&config, host),
            None => self.show(&config).map(|()| Exit::Clean),
        };
        ended.unwrap_or_else(|error| exit(&error))
    }

    fn show(&self, config: &Config) -> Result<()> {
        let (shared, mut reading) = open(config)?;
        settle(&shared, &mut reading, config)?;
        Show { is_watched: self.watch, is_json: self.json }.run(|columns, rows| -> Result<String> {
            reading.round(&shared, &config.kafka.topics)?;
            let now_ms = shared.now_ms();
            let view = shared.view();
            let status = report::status(&view, &view.judge(now_ms));
            Ok(match self.json {
                true => format!("{status:#}\n"),
                false => table::render(&status, columns, rows),
            })
        })
    }
}

/// An empty view, and the ledger to fill it from.
pub(crate) fn open(config: &Config) -> Result<(Shared, Reading)> {
    let shared = Shared::new(View::new(&config.kafka.group, &config.kafka.topics, &config.expect));
    let reading = Reading::open(&config.kafka).context("cannot read the ledger")?;
    Ok((shared, reading))
}

/// Reads until there is something to say of every host and every hole, or its time is over.
#[expect(clippy::disallowed_methods, reason = "an edge: the command's own patience")]
fn settle(shared: &Shared, reading: &mut Reading, config: &Config) -> Result<()> {
    let deadline = Instant::now() + FIRST_LOOK;
    loop {
        reading.round(shared, &config.kafka.topics)?;
        let verdicts = shared.view().judge(shared.now_ms());
        let is_known = verdicts.hosts.iter().all(|host| host.state != State::Unknown);
        if (is_known && verdicts.sources.iter().all(|source| source.waiting == 0)) || Instant::now() >= deadline {
            return Ok(());
        }
        reading.take(shared)?;
    }
}

/// Prints what went wrong. The exit code says what it was.
pub(crate) fn exit(error: &anyhow::Error) -> Exit {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
    // A reader that has seen enough, such as `head`, is no failure.
    if io.is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe) {
        return Exit::Clean;
    }
    eprintln!("{error:#}");
    match error.chain().find_map(|cause| cause.downcast_ref::<WatchError>()) {
        Some(WatchError::Options(_) | WatchError::Client(_)) => Exit::Config,
        _ => io.map_or(Exit::Unavailable, Exit::from_io),
    }
}
