//! Sending letters back to the topics they came from: the command.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use millrace_common::exit::Exit;

use super::args::ReplayArgs;
use super::gather::Gather;
use super::progress::{Progress, State};
use super::read::{self, Next, Topic};
use super::send::Sender;
use super::settings::Dlq;
use super::{now_ms, show, tell_remarks};

/// Sends what the filter takes. [`Exit::Clean`] only if all of it was acknowledged.
///
/// # Errors
/// The dead letter topic cannot be read, or there is no producer.
pub fn replay(args: &ReplayArgs, settings: &Dlq) -> anyhow::Result<Exit> {
    let mut topic = Topic::open(settings)?;
    let mut gather = Gather::new(args.filter.resolve(now_ms()), settings.memory / 2);
    let mut sender = Sender::new(settings, args.dry_run)?;
    let mut progress = Progress::start(now());
    let mut state = State { num_records: topic.num_offsets, ..State::default() };
    let mut num_left = args.limit.unwrap_or(u64::MAX);
    let mut failure = None;
    while num_left > 0 {
        let parked = match topic.next(if sender.is_idle() { read::POLL } else { Duration::from_millis(10) }) {
            Ok(Next::Record(message)) => Some(read::parse(&message)),
            Ok(Next::Nothing) => None,
            Ok(Next::End) => break,
            Err(error) => {
                // What was sent is waited for all the same.
                failure = Some(error);
                break;
            }
        };
        state.num_read += u64::from(parked.is_some());
        if let Some(letter) = parked.and_then(|parked| gather.take(parked)) {
            num_left -= 1;
            sender.send(letter)?;
        }
        sender.turn(Duration::ZERO);
        progress.tell(seen(&sender, state), now());
        if sender.is_stuck() {
            break;
        }
    }
    if num_left == 0 {
        gather.stop();
    }
    while !sender.is_idle() && !sender.is_stuck() {
        sender.turn(Duration::from_millis(100));
        progress.tell(seen(&sender, state), now());
    }
    progress.finish();
    tell_remarks(&gather);
    // Nobody reading it changes nothing about what was sent.
    if let Err(error) = report(&sender, &gather, args.dry_run) {
        tracing::warn!(%error, "cannot print the outcome");
    }
    match failure {
        Some(error) => Err(error.into()),
        None if sender.is_whole() && gather.incomplete().is_empty() => Ok(Exit::Clean),
        None => Ok(Exit::Unacknowledged),
    }
}

fn seen(sender: &Sender, state: State) -> State {
    State { num_sent: sender.num_sent, num_acknowledged: sender.num_acknowledged, ..state }
}

/// Says what was done: on standard output what was sent, on standard error what was not.
fn report(sender: &Sender, gather: &Gather, is_dry: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for (topic, target) in sender.targets.iter().filter(|(_, target)| target.num_letters > 0) {
        let verb = if is_dry { "would be sent" } else { "sent" };
        let (topic, num, bytes) = (show::escape(topic), target.num_letters, target.num_bytes);
        writeln!(out, "{num} letters ({bytes} bytes) {verb} to `{topic}`")?;
    }
    if !is_dry && sender.num_sent > 0 {
        writeln!(out, "{} of {} acknowledged", sender.num_acknowledged, sender.num_sent)?;
    } else if sender.num_sent + sender.num_failed == 0 && sender.targets.is_empty() {
        writeln!(out, "nothing to send: none of the topic's {} letters was asked for", gather.num_letters())?;
    }
    for words in &sender.failures {
        eprintln!("not sent: {words}");
    }
    if sender.num_failed as usize > sender.failures.len() {
        eprintln!("and {} more", sender.num_failed as usize - sender.failures.len());
    }
    if !sender.is_idle() {
        eprintln!("{} letters are not acknowledged: run the command again, it is harmless", sender.in_flight);
    }
    out.flush()
}

#[expect(clippy::disallowed_methods, reason = "an edge module: the clock of this loop")]
fn now() -> Instant {
    Instant::now()
}
