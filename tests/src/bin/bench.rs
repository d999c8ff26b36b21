//! `make bench`.

use std::process::ExitCode;

use millrace_tests::{bench, servers};

fn main() -> ExitCode {
    let today = jiff::Zoned::now().date();
    let into = servers::checkout().join(format!("docs/benchmarks/{today}"));
    match bench::run(&into) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
