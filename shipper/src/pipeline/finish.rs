//! The end of a pipeline: for good, or for the next one.

use std::time::Duration;

use anyhow::{Context, Result};
use millrace_common::exit::Exit;
use millrace_common::kafka;
use tracing::{info, warn};

use super::turns::Loop;
use super::{Left, Until};
use crate::config::{Drain, Partial};

impl Loop {
    /// How long a reload waits for acknowledgements, so that what is on its way is not sent twice,
    const HAND_OVER: Duration = Duration::from_secs(2);
    /// then for the save of the positions,
    const HAND_OVER_SAVE: Duration = Duration::from_secs(2);
    /// and for the ledger.
    const HAND_OVER_SAY: Duration = Duration::from_secs(1);

    /// Stops without waiting for what fails. What is not acknowledged is read again from the checkpoint.
    pub(super) fn hand_over(mut self) -> Result<Left> {
        let begun = self.clock.now().mono;
        let files = self.tailer.leave_files();
        while self.tailer.has_outstanding() && self.clock.now().mono < begun + Self::HAND_OVER {
            self.turn(self.clock.now(), Self::ACK_WAIT);
        }
        self.save(self.clock.now().mono + Self::HAND_OVER_SAVE);
        self.tailer.tell_last(self.clock.now());
        self.publish(self.clock.now());
        self.desk.hand_over(Self::HAND_OVER_SAY);
        let took = self.clock.now().mono - begun;
        info!(
            unacknowledged_events = self.tailer.gauges(self.clock.now()).pending_events,
            ?took,
            "stopped for new settings"
        );
        let (legacy, broker, store) = self.tailer.into_legacy(files);
        kafka::retire(broker);
        let dir = store.close().context("the checkpoint thread panicked")?;
        Ok(Left { dir, legacy: Some(legacy) })
    }

    /// Saves the last positions. Returns whether that was done before `deadline`.
    fn save(&mut self, deadline: Duration) -> bool {
        let mut version = None;
        while self.clock.now().mono < deadline {
            let now = self.clock.now();
            match version {
                None if self.tailer.can_save() => version = Some(self.tailer.save_for_end(now)),
                Some(version) if self.tailer.is_saved(version) => break,
                _ => {}
            }
            self.tailer.turn(now, Self::ACK_WAIT);
        }
        version.is_some_and(|version| self.tailer.is_saved(version))
    }

    /// Delivers what there is, saves, and says what is left.
    pub(super) fn finish(mut self) -> Exit {
        self.board.draining();
        let begun = self.clock.now().mono;
        let deadline = begun + self.config.deadline;
        // The save of the last positions and the goodbye need a moment of their own.
        let reading_ends = begun + self.config.deadline.mul_f64(0.9);
        if self.config.drain == Drain::Eof && self.until == Until::Signal {
            self.scan(self.clock.now());
            self.tailer.look_around(self.clock.now());
            self.tailer.await_events(self.clock.now());
        }
        if self.config.partial == Partial::Send {
            self.tailer.flush_at_end();
            self.tailer.look_around(self.clock.now());
        }
        let is_reading = self.config.drain == Drain::Eof || self.until == Until::Eof;
        if !is_reading {
            self.tailer.stop_reading();
        }
        let mut looked_at = begun;
        while !self.tailer.is_drained() && self.clock.now().mono < reading_ends {
            let now = self.clock.now();
            if now.mono >= looked_at + Duration::from_millis(200) {
                if is_reading && self.tailer.take_wants_scan() {
                    self.scan(now);
                }
                self.tailer.look_around(now);
                looked_at = now.mono;
            }
            if !self.turn(now, Duration::ZERO) {
                self.tailer.turn(now, Self::ACK_WAIT);
            }
        }
        let is_clean = self.tailer.is_drained();
        self.tailer.stop_reading();
        let is_saved = self.save(deadline);
        self.tailer.tell_last(self.clock.now());
        self.publish(self.clock.now());
        let rest = deadline.saturating_sub(self.clock.now().mono);
        if !self.desk.stop(rest) {
            warn!("the ledger did not take the last word; others will take the stop for an outage");
        }
        let now = self.clock.now();
        let (gauges, stats) = (self.tailer.gauges(now), self.tailer.stats());
        let took = now.mono - begun;
        if gauges.unreadable_files > 0 {
            warn!(num = gauges.unreadable_files, "files that match could not be read");
        }
        if is_clean && is_saved {
            info!(events = stats.read_events, acked = stats.acked_events, ?took, "all delivered, stopped");
            return Exit::Clean;
        }
        warn!(
            unread_bytes = gauges.unread_bytes,
            unacknowledged_events = gauges.pending_events,
            saved = is_saved,
            ?took,
            "stopped at the deadline; the next start goes on from the first unacknowledged byte"
        );
        Exit::Unacknowledged
    }
}
