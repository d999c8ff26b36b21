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
use millrace_indexer::cli::{self, Cli, Command, Need};
use millrace_indexer::config::Config;
use millrace_indexer::health::Health;
use millrace_indexer::watch::reading::Shared;
use millrace_indexer::watch::view::View;
use millrace_indexer::{dlq, pages, pipeline, templates};

const RUN_NEEDS: &[Need] = &[Need::Kafka, Need::Elasticsearch];

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
        Command::Check(settings) => match settings.load(RUN_NEEDS) {
            Ok(config) => {
                config.warnings().iter().for_each(|warning| eprintln!("warning: {warning}"));
                println!("the settings are valid");
                Exit::Clean.into()
            }
            Err(exit) => exit.into(),
        },
        Command::Run(settings) => match settings.load(RUN_NEEDS) {
            Ok(config) => run(config).unwrap_or_else(|error| {
                tracing::error!("{error:#}");
                Exit::Io
            }),
            Err(exit) => exit,
        }
        .into(),
        Command::Templates(command) => templates::command::run(command).into(),
        Command::Preview(preview) => preview.run().into(),
        Command::Retention(retention) => retention.run().into(),
        Command::Status(status) => status.run().into(),
        Command::Audit(audit) => audit.run().into(),
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
    let view = || View::new(&config.kafka.group, &config.kafka.topics, &config.expect);
    let watched = config.ledger.then(|| Arc::new(Shared::new(view())));
    let health = Arc::new(Health::new(Instant::now(), "no Kafka broker has answered yet", watched));
    let options = admin::AdminOptions { listen: config.admin_listen.clone(), program: "indexer" };
    let pages = pages::routes(Arc::clone(&health));
    let _admin = admin::spawn(options, Arc::clone(&health) as Arc<dyn admin::Health>, metrics, pages)?;
    pipeline::run(config, &signals, health)
}
