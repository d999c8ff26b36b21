//! `shipper status`: where every file stands, from the running process or from the checkpoint it left; and changes of a
//! checkpoint that nobody uses. `shipper explain`: where one line is.

mod source;
mod table;
mod change;
mod dry_run;
mod explain;

use std::io;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use millrace_common::exit::Exit;
use millrace_common::terminal::screen::Show;

pub use change::{ChangeError, Rewind};
pub use explain::{FileLine, explain};
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
    Show { is_watched: args.watch, is_json: args.json }.run(|columns, rows| {
        let snapshot = Snapshot::take(place)?;
        Ok(match args.json {
            true => format!("{}\n", snapshot.to_json()),
            false => table::render(&snapshot, columns, rows),
        })
    })
}
