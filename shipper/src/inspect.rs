//! `shipper status`: where every file stands, from the running process or from the checkpoint it left; and changes of a
//! checkpoint that nobody uses.

mod source;
mod table;
mod change;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use millrace_common::exit::Exit;
use rustix::event::Timespec;

pub use change::{ChangeError, Rewind};
use source::Snapshot;

#[derive(Args, Clone, Debug, Default)]
pub struct StatusArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Show it again every two seconds, until Ctrl-C.
    #[arg(long)]
    pub watch: bool,
    /// Forget where FILE stands: the next start reads it from its beginning. Only while no shipper runs.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["watch", "json", "rewind"])]
    pub forget: Option<PathBuf>,
    /// Go back in FILE to the line that starts at byte POSITION. Only while no shipper runs.
    #[arg(long, value_name = "FILE:POSITION", conflicts_with_all = ["watch", "json"])]
    pub rewind: Option<Rewind>,
}

/// Where to look.
#[derive(Clone, Debug)]
pub struct Place {
    pub data_dir: Option<PathBuf>,
    /// Address of the admin endpoint.
    pub listen: String,
}

const WATCH_EVERY: Duration = Duration::from_secs(2);

pub fn run(args: &StatusArgs, place: &Place) -> Exit {
    let ended = match (&args.forget, &args.rewind) {
        (Some(file), _) => change::forget(place, file),
        (_, Some(rewind)) => change::rewind(place, rewind),
        _ => show(args, place),
    };
    match ended {
        Ok(()) => Exit::Clean,
        Err(fault) => {
            let io = fault.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
            // A reader that has seen enough, such as `head`, is no failure.
            if io.is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe) {
                return Exit::Clean;
            }
            eprintln!("{fault:#}");
            match fault.downcast_ref::<ChangeError>() {
                Some(cause) => cause.exit(),
                None => io.map_or(Exit::Unavailable, Exit::from_io),
            }
        }
    }
}

fn show(args: &StatusArgs, place: &Place) -> Result<()> {
    let is_terminal = io::stdout().is_terminal();
    loop {
        let snapshot = Snapshot::take(place)?;
        let (columns, rows) = match is_terminal {
            true => size_of_terminal(),
            false => (usize::MAX, usize::MAX),
        };
        let text = match args.json {
            true => format!("{}\n", snapshot.to_json()),
            false => table::render(&snapshot, columns, if args.watch { rows } else { usize::MAX }),
        };
        let mut out = io::stdout().lock();
        if args.watch && is_terminal && !args.json {
            // To the upper left corner, and clear what is below.
            out.write_all(b"\x1b[H\x1b[J")?;
        }
        out.write_all(text.as_bytes())?;
        out.flush()?;
        drop(out);
        if !args.watch {
            return Ok(());
        }
        let pause = Timespec { tv_sec: WATCH_EVERY.as_secs() as i64, tv_nsec: 0 };
        // An interrupted wait is a shorter one.
        let _ = rustix::event::poll(&mut [], Some(&pause));
    }
}

fn size_of_terminal() -> (usize, usize) {
    let size = rustix::termios::tcgetwinsize(io::stdout());
    let size = size.map(|size| (usize::from(size.ws_col), usize::from(size.ws_row)));
    // A terminal that does not know its size says 0.
    size.ok().filter(|size| size.0 > 0 && size.1 > 0).unwrap_or((80, 24))
}
