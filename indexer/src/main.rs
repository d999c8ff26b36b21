mod allocator;

use std::io::Write as _;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use anyhow::Context as _;
use clap::{CommandFactory as _, FromArgMatches as _};
use millrace_common::config::{describe, schema};
use millrace_common::exit::Exit;
use millrace_common::online::tell;
use millrace_common::reload::{self, Loaded, Reloads, Rules};
use millrace_common::shutdown::Signals;
use millrace_common::telemetry::{admin, logs, metrics};
use millrace_common::{build_info, dumps, manual};
use millrace_indexer::cli::{self, Cli, Command, Need, Settings};
use millrace_indexer::config::{Config, FIXED, Raw};
use millrace_indexer::health::Health;
use millrace_indexer::pipeline::{self, Ended};
use millrace_indexer::{dlq, pages, templates};

const RUN_NEEDS: &[Need] = &[Need::Kafka, Need::Elasticsearch];

fn main() {
    execute().leave()
}

fn execute() -> Exit {
    let arguments = Cli::command().version(build_info!().version_text());
    let parsed = arguments.clone().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors, and nothing is left to do if they cannot be printed.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Clean };
        }
    };
    logs::init(cli.log_format, "info");
    dumps::forbid();
    match cli.command {
        Command::Check { online, settings } => match settings.load(RUN_NEEDS) {
            Ok(config) => {
                config.warnings().iter().for_each(|warning| eprintln!("warning: {warning}"));
                println!("the settings are valid");
                match online {
                    true => tell(millrace_indexer::online::check(&config)),
                    false => Exit::Clean,
                }
            }
            Err(exit) => exit,
        },
        Command::Run(settings) => match reload::load(settings.config.as_ref(), || settings.load(RUN_NEEDS)) {
            Ok(loaded) => run(loaded, settings).unwrap_or_else(|error| {
                tracing::error!("{error:#}");
                Exit::Io
            }),
            Err(exit) => exit,
        },
        Command::Templates(command) => templates::command::run(&command),
        Command::Preview(preview) => preview.run(),
        Command::Retention(retention) => retention.run(),
        Command::Status(status) => status.run(),
        Command::Audit(audit) => audit.run(),
        Command::Dlq(command) => dlq::run(&command),
        Command::Completions { shell } => print(&cli::completions(shell)),
        Command::Man => manual::page(arguments).map_or(Exit::Io, |page| print(&page)),
        Command::Schema { markdown } => print(describe(&schema::<Raw>(), markdown).as_bytes()),
    }
}

#[expect(clippy::disallowed_methods, reason = "the start of the process")]
fn run(loaded: Loaded<Config>, settings: Settings) -> anyhow::Result<Exit> {
    let owner = thread::current();
    let wake = move || owner.unpark();
    let (looker, woken) = reload::waker();
    let signals = Signals::install(looker.after(wake.clone())).context("cannot listen for signals")?;
    let metrics = metrics::install("indexer", build_info!())?;
    let rules = rules(settings);
    let reloads = Reloads::start(rules, &loaded, &signals, woken, wake).context("cannot start a thread")?;
    let health = Arc::new(Health::new(Instant::now(), "no Kafka broker has answered yet"));
    let (mut config, mut endpoint) = (loaded.config, admin::Endpoint::default());
    loop {
        config.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
        let options = admin::AdminOptions { listen: config.admin_listen.clone(), program: "indexer" };
        endpoint.listen(options, Arc::clone(&health) as Arc<_>, &metrics, pages::routes(Arc::clone(&health)))?;
        match pipeline::run(config, &signals, &health)? {
            Ended::Exit(exit) => return Ok(exit),
            Ended::Restart => config = reloads.take().context("there is no configuration to go on with")?,
        }
    }
}

/// How the configuration is loaded anew: as at the start.
fn rules(settings: Settings) -> Rules<Config> {
    let prove = |config: &Config| pipeline::prove(config).map_err(|error| format!("{error:#}"));
    let file = settings.config.clone();
    let load = move || settings.try_load(RUN_NEEDS).map_err(|(faults, _)| faults);
    Rules { program: "indexer", file, load: Box::new(load), prove: Box::new(prove), fixed: FIXED }
}

fn print(text: &[u8]) -> Exit {
    std::io::stdout().write_all(text).map_or(Exit::Io, |()| Exit::Clean)
}
