//! `indexer dlq`: looking at dead letters, and sending them back.
//!
//! ```text
//! read -> letter -> gather (joins parts, filters, counts each id once) -> show | tally | replay
//! ```
//!
//! Nothing is ever committed or deleted: the topic is read by assignment, from its start to the end it had at the start.

mod args;
mod settings;
mod read;
mod letter;
mod gather;
mod show;
mod tally;
mod replay;
mod send;
mod progress;

use std::io::{self, BufWriter, Write};

use anyhow::Context as _;
use millrace_common::exit::Exit;

use args::{ListArgs, TopArgs};
use gather::{Filter, Gather};
use read::{Next, ReadError, Topic};
use settings::Dlq;
use tally::Tally;

pub use args::{Command, Moment};
pub(crate) use show::{escape, to_json};

/// How many letters that cannot be put together are told by their id.
const MAX_TOLD: usize = 10;

/// Runs one of the commands. What goes wrong on the way to Kafka decides the exit code.
pub fn run(command: &Command) -> Exit {
    let settings = match command.connection().load() {
        Ok(settings) => settings,
        Err((words, exit)) => {
            eprintln!("{words}");
            return exit;
        }
    };
    let ended = match command {
        Command::List(args) => list(args, &settings),
        Command::Top(args) => top(args, &settings),
        Command::Replay(args) => replay::replay(args, &settings),
    };
    ended.unwrap_or_else(|error| {
        // A reader that has seen enough, such as `head`, is no failure.
        let io = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
        if io.is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe) {
            return Exit::Clean;
        }
        eprintln!("{error:#}");
        let read = error.chain().find_map(|cause| cause.downcast_ref::<ReadError>());
        read.map_or(Exit::Io, ReadError::exit)
    })
}

fn list(args: &ListArgs, settings: &Dlq) -> anyhow::Result<Exit> {
    let filter = args.filter.resolve(now_ms());
    let mut out = BufWriter::new(io::stdout().lock());
    let mut num_left = args.limit.unwrap_or(u64::MAX);
    let gather = each_letter(settings, filter, |letter| {
        if num_left == 0 {
            return Ok(false);
        }
        let line = match args.json {
            true => show::json(&letter, args.values),
            false => show::text(&letter, args.values),
        };
        writeln!(out, "{line}").context("cannot print")?;
        num_left -= 1;
        Ok(num_left > 0)
    })?;
    out.flush().context("cannot print")?;
    tell_remarks(&gather);
    Ok(Exit::Clean)
}

fn top(args: &TopArgs, settings: &Dlq) -> anyhow::Result<Exit> {
    let mut tally = Tally::default();
    let gather = each_letter(settings, args.filter.resolve(now_ms()), |letter| {
        tally.count(&letter);
        Ok(true)
    })?;
    let mut out = io::stdout().lock();
    let text = if args.json { tally.json(args.limit) } else { tally.table(args.limit) };
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot print")?;
    tell_remarks(&gather);
    Ok(Exit::Clean)
}

/// Calls `look` with each letter that the filter takes, until it says `false`.
fn each_letter(
    settings: &Dlq,
    filter: Filter,
    mut look: impl FnMut(letter::ParkedLetter) -> anyhow::Result<bool>,
) -> anyhow::Result<Gather> {
    let mut topic = Topic::open(settings)?;
    let mut gather = Gather::new(filter, settings.memory / 2);
    loop {
        let parked = match topic.next(read::POLL)? {
            Next::Record(message) => read::parse(&message),
            Next::Nothing => continue,
            Next::End => break,
        };
        if let Some(letter) = gather.take(parked)
            && !look(letter)?
        {
            gather.stop();
            break;
        }
    }
    Ok(gather)
}

/// Says on standard error what is in the topic but could not be shown.
fn tell_remarks(gather: &Gather) {
    if gather.num_foreign > 0 {
        eprintln!("{} records of the topic are no dead letters (headers are missing): left out", gather.num_foreign);
    }
    let incomplete = gather.incomplete();
    for letter in incomplete.iter().take(MAX_TOLD) {
        let (_, num) = letter.part.unwrap_or_default();
        eprintln!("letter {} is incomplete: of its {num} parts some are missing", show::escape(&letter.id));
    }
    if incomplete.len() > MAX_TOLD {
        eprintln!("and {} more incomplete letters", incomplete.len() - MAX_TOLD);
    }
}

#[expect(clippy::disallowed_methods, reason = "an edge: durations of filters count from the start of the command")]
fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
