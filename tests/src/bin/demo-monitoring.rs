//! `make demo-monitoring`.

use std::process::ExitCode;

use millrace_tests::story;

fn main() -> ExitCode {
    match story::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo-monitoring: {error:#}");
            ExitCode::FAILURE
        }
    }
}
