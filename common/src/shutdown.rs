//! Signals, as flags that the event loops look at.
//!
//! | signal | effect |
//! |---|---|
//! | first SIGTERM or SIGINT | drain: stop taking in, wait for what is under way, leave |
//! | second one | leave at once, with exit code 75 |
//! | SIGHUP | look at the configuration again |

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals as SignalStream;
use signal_hook::low_level;

use crate::exit::Exit;

/// What this process was asked to do. Cheap to clone; all clones see the same.
#[derive(Debug, Clone, Default)]
pub struct Signals {
    asked: Arc<Asked>,
}

#[derive(Debug, Default)]
struct Asked {
    drain: AtomicBool,
    reload: AtomicBool,
    restart: AtomicBool,
}

impl Signals {
    /// Flags that no signal moves, for tests and simulated runs.
    pub fn manual() -> Self {
        Self::default()
    }

    /// Takes over SIGTERM, SIGINT and SIGHUP of this process, on a thread of its own.
    ///
    /// `wake` runs on that thread after each signal, for loops that sleep; it must not block.
    ///
    /// # Errors
    /// The handlers or the thread cannot be set up.
    pub fn install(wake: impl Fn() + Send + 'static) -> io::Result<Self> {
        let signals = Self::default();
        let mut stream = SignalStream::new([SIGTERM, SIGINT, SIGHUP])?;
        let ours = signals.clone();
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in stream.forever() {
                ours.take(signal);
                wake();
            }
        })?;
        Ok(signals)
    }

    /// Whether the program is to finish what it has and leave.
    pub fn is_draining(&self) -> bool {
        self.asked.drain.load(Ordering::Relaxed)
    }

    /// Whether a reload was asked for since the last call.
    pub fn take_reload(&self) -> bool {
        self.asked.reload.swap(false, Ordering::Relaxed)
    }

    /// Asks for the drain from within, for instance when all input is read.
    pub fn drain(&self) {
        self.asked.drain.store(true, Ordering::Relaxed);
    }

    /// Whether the pipeline is to stop and make way for one of another configuration.
    pub fn is_restarting(&self) -> bool {
        self.asked.restart.load(Ordering::Relaxed)
    }

    pub(crate) fn restart(&self, is_wanted: bool) {
        self.asked.restart.store(is_wanted, Ordering::Relaxed);
    }

    fn take(&self, signal: i32) {
        if signal == SIGHUP {
            tracing::info!("reload asked for");
            self.asked.reload.store(true, Ordering::Relaxed);
        } else if self.asked.drain.swap(true, Ordering::Relaxed) {
            tracing::warn!("second signal, leaving at once");
            // No destructor may run: a client's could wait for a broker that does not answer. Nor is output flushed, as it is by
            // `Exit::leave`: another thread may hold it and wait for its reader.
            low_level::exit(i32::from(Exit::Unacknowledged.code()));
        } else {
            tracing::info!(signal = low_level::signal_name(signal), "draining, a second signal leaves at once");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;
    use std::time::Duration;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    #[test]
    fn signals_set_the_flags_and_wake_the_loop() {
        let (sender, woken) = sync_channel(8);
        let signals = Signals::install(move || sender.send(()).unwrap()).unwrap();
        let clone = signals.clone();
        assert!(!clone.is_draining() && !clone.take_reload());
        low_level::raise(SIGHUP).unwrap();
        woken.recv_timeout(PATIENCE).unwrap();
        assert!(clone.take_reload() && !clone.take_reload() && !clone.is_draining());
        low_level::raise(SIGTERM).unwrap();
        woken.recv_timeout(PATIENCE).unwrap();
        assert!(clone.is_draining());
    }

    /// Runs this test binary again as a process that can be ended for good.
    #[test]
    fn a_second_signal_leaves_at_once() {
        const CHILD: &str = "SHUTDOWN_TEST_CHILD";
        if std::env::var_os(CHILD).is_some() {
            let signals = Signals::install(|| ()).unwrap();
            for _ in 0..2 {
                low_level::raise(SIGTERM).unwrap();
                while !signals.is_draining() {
                    std::thread::yield_now();
                }
            }
            loop {
                std::thread::park();
            }
        }
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "shutdown::tests::a_second_signal_leaves_at_once"])
            .env(CHILD, "1")
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(75));
    }
}
