use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use anyhow::Context as _;
use clap::Parser as _;
use millrace_common::exit::Exit;
use millrace_common::shutdown::Signals;
use millrace_common::telemetry::{admin, logs, metrics};
use millrace_indexer::cli::{self, Cli, Command, Settings};
use millrace_indexer::config::{self, Config};
use millrace_indexer::health::Health;
use millrace_indexer::{dlq, pipeline};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors, and nothing is left to do if they cannot be printed.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Clean }.into();
        }
    };
    logs::init(cli.log_format, "info");
    match &cli.command {
        Command::Check(settings) => match load(settings) {
            Ok(config) => {
                config.warnings().iter().for_each(|warning| eprintln!("warning: {warning}"));
                println!("the settings are valid");
                Exit::Clean.into()
            }
            Err(exit) => exit.into(),
        },
        Command::Run(settings) => match load(settings) {
            Ok(config) => run(config).unwrap_or_else(|error| {
                tracing::error!("{error:#}");
                Exit::Io
            }),
            Err(exit) => exit,
        }
        .into(),
        Command::Dlq(command) => dlq::run(command).into(),
        Command::Completions { shell } => match std::io::stdout().write_all(&cli::completions(*shell)) {
            Ok(()) => Exit::Clean.into(),
            Err(_) => Exit::Io.into(),
        },
    }
}

#[expect(clippy::disallowed_methods, reason = "the start of the process")]
fn run(config: Config) -> anyhow::Result<Exit> {
    config.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
    let owner = thread::current();
    let signals = Signals::install(move || owner.unpark()).context("cannot listen for signals")?;
    let metrics = metrics::install("indexer", env!("CARGO_PKG_VERSION"))?;
    let health = Arc::new(Health::new(Instant::now(), "no Kafka broker has answered yet"));
    let options = admin::AdminOptions { listen: config.admin_listen.clone(), program: "indexer" };
    let _admin = admin::spawn(options, Arc::clone(&health) as Arc<dyn admin::Health>, metrics, axum::Router::new())?;
    pipeline::run(config, &signals, health)
}

/// Reads and checks all settings; what is wrong with them is printed.
fn load(settings: &Settings) -> Result<Config, Exit> {
    let (name, text) = match &settings.config {
        None => {
            let missing = settings.missing();
            if !missing.is_empty() {
                eprintln!("missing: {}; give them, or a file with --config (see --help)", missing.join(", "));
                return Err(Exit::Usage);
            }
            ("command line".to_owned(), String::new())
        }
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                eprintln!("cannot read `{}`: {error}", path.display());
                Exit::from_io(&error)
            })?;
            (path.display().to_string(), text)
        }
    };
    config::load(&name, &text, &settings.flags(), &|name| std::env::var(name).ok()).map_err(|problem| {
        eprintln!("{problem}");
        Exit::Config
    })
}
