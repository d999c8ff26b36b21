//! The end of a pipeline: for good, or to make way for the next one.

#![expect(clippy::disallowed_methods, reason = "an edge module: leaving is bounded by the clock")]

use std::time::{Duration, Instant};

use millrace_common::exit::Exit;
use millrace_common::shutdown::Signals;

use super::Ended;
use super::flow::Flow;
use super::letters::Letters;
use super::publish::Publishing;
use crate::consume::{Questions, Source};

/// How long leaving the group may take; its members notice a missing one by themselves, only later.
const LEAVE: Duration = Duration::from_secs(2);
/// How long a reload waits for what is on its way, so that little is sent twice.
const HAND_OVER: Duration = Duration::from_secs(2);

/// Why a pipeline ends, the weightiest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Why {
    Restart,
    Stop,
    CutOff,
}

/// Clients that are done with. Their drop waits for brokers.
pub struct Clients {
    _all: (Source, Questions, Questions, Letters, Option<Publishing>),
}

impl Flow {
    pub(super) fn why_to_end(&self, signals: &Signals) -> Option<Why> {
        let whys = [
            (Why::CutOff, self.is_cut_off),
            (Why::Stop, signals.is_draining()),
            (Why::Restart, signals.is_restarting()),
        ];
        whys.into_iter().find(|(_, is_so)| *is_so).map(|(why, _)| why)
    }

    /// Takes nothing new from now on. Returns how long the end may take.
    pub(super) fn begin_end(&mut self, why: Why) -> Duration {
        match why {
            Why::CutOff => tracing::error!(
                "the consumer lost all its brokers, which answer others: stopping, since only a new client helps"
            ),
            Why::Stop => tracing::info!("stopping: what is on its way is finished first"),
            Why::Restart => {}
        }
        self.is_draining = true;
        self.abandon_waiting();
        if why == Why::Restart { HAND_OVER.min(self.shutdown_deadline) } else { self.shutdown_deadline }
    }

    fn abandon_waiting(&mut self) {
        for partition in self.partitions.iter_mut() {
            partition.queue = None;
        }
    }

    pub(super) fn leave(mut self, why: Why, is_done: bool) -> (Ended, Clients) {
        let num_unfinished: usize = self.partitions.iter().map(|partition| partition.ledger.num_open()).sum();
        for partition in self.partitions.iter_mut() {
            partition.queue = None;
        }
        self.source.leave(LEAVE, Instant::now);
        self.letters.give_up();
        self.publishing.iter().for_each(Publishing::give_up);
        let ended = match (why, is_done) {
            (Why::Restart, _) => {
                tracing::info!(num_unfinished, "stopped for new settings: unfinished records are read again");
                Ended::Restart
            }
            (_, true) => {
                tracing::info!("stopped, everything taken is finished and committed");
                Ended::Exit(Exit::Clean)
            }
            (_, false) => {
                tracing::warn!(
                    num_unfinished,
                    "stopped at the deadline: unfinished records are read again at the next start"
                );
                Ended::Exit(Exit::Unacknowledged)
            }
        };
        let Self { source, questions, commits, letters, publishing, .. } = self;
        (ended, Clients { _all: (source, questions, commits, letters, publishing) })
    }
}
