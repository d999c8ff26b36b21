//! How far a replay is: a bar on a terminal, a plain line now and then otherwise.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

const BAR: usize = 24;

/// What is done so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct State {
    /// Records of the topic: read, and all there are to read.
    pub num_read: u64,
    pub num_records: u64,
    pub num_sent: u64,
    pub num_acknowledged: u64,
}

impl State {
    /// Of 100. Reading and acknowledgements both count, so that it is 100 only at the end.
    fn percent(&self) -> u64 {
        let all = self.num_records + self.num_sent;
        let done = (self.num_read + self.num_acknowledged).min(all);
        (done * 100).checked_div(all).unwrap_or(100)
    }

    fn words(&self) -> String {
        format!(
            "{} of {} records read, {} letters sent, {} acknowledged",
            self.num_read, self.num_records, self.num_sent, self.num_acknowledged
        )
    }

    fn bar(&self) -> String {
        let num_full = self.percent() as usize * BAR / 100;
        format!("[{}{}] {:>3} %  {}", "#".repeat(num_full), "-".repeat(BAR - num_full), self.percent(), self.words())
    }
}

/// Tells it on standard error.
pub struct Progress {
    is_terminal: bool,
    told: Instant,
}

impl Progress {
    pub fn start(now: Instant) -> Self {
        Self { is_terminal: std::io::stderr().is_terminal(), told: now }
    }

    /// Tells the state if it is time to.
    pub fn tell(&mut self, state: State, now: Instant) {
        let interval = if self.is_terminal { Duration::from_millis(200) } else { Duration::from_secs(5) };
        if now.duration_since(self.told) < interval {
            return;
        }
        self.told = now;
        let line = if self.is_terminal { format!("\r{}\x1b[K", state.bar()) } else { state.words() + "\n" };
        write(&line);
    }

    /// Takes the bar away, so that other words have the line.
    pub fn finish(&self) {
        if self.is_terminal {
            write("\r\x1b[K");
        }
    }
}

/// A terminal that is gone is no reason to stop sending.
fn write(text: &str) {
    let mut out = std::io::stderr().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_full_only_when_all_is_acknowledged() {
        let state =
            |num_read, num_sent, num_acknowledged| State { num_read, num_records: 10, num_sent, num_acknowledged };
        assert!(state(0, 0, 0).bar().starts_with("[------------------------]   0 %  0 of 10 records read"));
        assert_eq!(state(10, 10, 0).percent(), 50);
        assert_eq!(state(10, 10, 9).percent(), 95);
        assert!(state(10, 10, 10).bar().starts_with("[########################] 100 %"));
        assert_eq!(State::default().percent(), 100);
    }
}
