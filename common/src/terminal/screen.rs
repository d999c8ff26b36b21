//! Printing once, or again and again for somebody who watches.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use rustix::event::Timespec;

const WATCH_EVERY: Duration = Duration::from_secs(2);

/// What is to be printed, and how.
#[derive(Clone, Copy, Debug)]
pub struct Show {
    /// Again every two seconds, until Ctrl-C.
    pub is_watched: bool,
    pub is_json: bool,
}

impl Show {
    /// Prints what `text` gives for so many columns and rows.
    ///
    /// # Errors
    /// Those of `text`, and of writing.
    pub fn run<E: From<io::Error>>(self, mut text: impl FnMut(usize, usize) -> Result<String, E>) -> Result<(), E> {
        let is_terminal = io::stdout().is_terminal();
        loop {
            let (columns, rows) = if is_terminal { size() } else { (usize::MAX, usize::MAX) };
            let text = text(columns, if self.is_watched { rows } else { usize::MAX })?;
            let mut out = io::stdout().lock();
            if self.is_watched && is_terminal && !self.is_json {
                // To the upper left corner, and clear what is below.
                out.write_all(b"\x1b[H\x1b[J")?;
            }
            out.write_all(text.as_bytes())?;
            out.flush()?;
            drop(out);
            if !self.is_watched {
                return Ok(());
            }
            let pause = Timespec { tv_sec: WATCH_EVERY.as_secs() as i64, tv_nsec: 0 };
            // An interrupted wait is a shorter one.
            let _ = rustix::event::poll(&mut [], Some(&pause));
        }
    }
}

fn size() -> (usize, usize) {
    let size = rustix::termios::tcgetwinsize(io::stdout());
    let size = size.map(|size| (usize::from(size.ws_col), usize::from(size.ws_row)));
    // A terminal that does not know its size says 0.
    size.ok().filter(|size| size.0 > 0 && size.1 > 0).unwrap_or((80, 24))
}
