mod allocator;

use std::io::Write as _;
use std::path::PathBuf;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use clap_complete::Shell;
use millrace_common::config::{Setting, describe};
use millrace_common::exit::Exit;
use millrace_common::telemetry::logs::{self, LogFormat};
use millrace_common::telemetry::metrics;
use millrace_common::{build_info, dumps, manual, online, reload};
use millrace_shipper::config::{self, Config, Ledger};
use millrace_shipper::inspect::{self, FileLine, Place, StatusArgs};
use millrace_shipper::pipeline::{self, Until};
use tracing::error;

/// Tails files and produces one JSON record per line to Kafka, each exactly as far as it was acknowledged.
#[derive(Parser)]
#[command(name = "shipper", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// How to write the program's own log (standard error).
    #[arg(long, global = true, env = "SHIPPER_LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,
}

#[derive(Subcommand)]
enum Command {
    /// Tail files and produce to Kafka.
    Run {
        #[command(flatten)]
        settings: Flags,
        /// Stop once every file was read to its end and all is acknowledged; unterminated last lines are sent too.
        #[arg(long, value_name = "WHEN", value_parser = ["eof"], env = "SHIPPER_UNTIL")]
        until: Option<String>,
    },
    /// Check the configuration without running.
    Check {
        /// Ask Kafka too, and name everything there that breaks what is promised.
        ///
        /// Nothing is written. Ends with 0 if all is well, with 69 if Kafka does not answer, with 78 if there is a breach.
        #[arg(long)]
        online: bool,
        #[command(flatten)]
        settings: Flags,
    },
    /// Show where every file stands: from the running process if it answers, else from its checkpoint.
    Status {
        #[command(flatten)]
        args: StatusArgs,
        /// Configuration file (YAML) of the shipper, for its data folder and admin address.
        #[arg(short, long, value_name = "FILE", env = "SHIPPER_CONFIG")]
        config: Option<PathBuf>,
        /// Folder of the checkpoint.
        #[arg(long, value_name = "DIR", env = "SHIPPER_DATA_DIR")]
        data_dir: Option<PathBuf>,
        /// Address at which the shipper answers [default: 127.0.0.1:9640].
        #[arg(long, value_name = "HOST:PORT", env = "SHIPPER_ADMIN_LISTEN")]
        admin_listen: Option<String>,
    },
    /// Follow one line to its end: its record, whether Kafka has it, whether it is indexed or dead-lettered.
    ///
    /// Takes the settings that the shipper runs with. Ends with 0 if it is indexed, with 75 if it is on its way, with 65 if it
    /// will not be found.
    Explain {
        /// The line, by its number from 1.
        #[arg(value_name = "FILE:LINE")]
        line: FileLine,
        /// Print JSON, with the record.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        settings: Flags,
    },
    /// Print the JSON Schema of the configuration file, for editors.
    Schema {
        /// Print a table of all settings instead.
        #[arg(long)]
        markdown: bool,
    },
    /// Print a script that completes command lines in a shell.
    Completions { shell: Shell },
    /// Print the manual page.
    #[command(hide = true)]
    Man,
}

fn print(text: &[u8]) -> Exit {
    std::io::stdout().write_all(text).map_or(Exit::Io, |()| Exit::Clean)
}

/// The arguments, of this build.
fn command() -> clap::Command {
    Cli::command().version(build_info!().version_text())
}

fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "shipper", &mut script);
    script
}

#[derive(Args, Default)]
struct Flags {
    /// Configuration file (YAML). Flags win over it.
    #[arg(short, long, value_name = "FILE", env = "SHIPPER_CONFIG")]
    config: Option<PathBuf>,
    /// Kafka bootstrap servers, host:port.
    #[arg(long, value_delimiter = ',', env = "SHIPPER_BROKERS")]
    brokers: Vec<String>,
    /// Topic to produce to.
    #[arg(long, env = "SHIPPER_TOPIC")]
    topic: Option<String>,
    /// Folder of the checkpoint; must survive a restart.
    #[arg(long, value_name = "DIR", env = "SHIPPER_DATA_DIR")]
    data_dir: Option<String>,
    /// Format of the files given as PATHS: text, json or logfmt; a pattern needs a file.
    #[arg(long, env = "SHIPPER_FORMAT")]
    format: Option<String>,
    /// Field to add to every record of PATHS, as name=value; may be repeated.
    #[arg(long = "field", value_name = "NAME=VALUE", value_delimiter = ',', env = "SHIPPER_FIELDS")]
    fields: Vec<String>,
    /// Identity of this host in record ids: the node name or the pod UID.
    #[arg(long, env = "SHIPPER_HOST_ID")]
    host_id: Option<String>,
    /// host.name of the records.
    #[arg(long, env = "SHIPPER_HOST_NAME")]
    host_name: Option<String>,
    /// Whether the ledger's topic says where every file stands: on or off.
    #[arg(long, env = "SHIPPER_LEDGER")]
    ledger: Option<String>,
    /// How often the ledger says that the shipper lives, for example 10s.
    #[arg(long, value_name = "TIME", env = "SHIPPER_HEARTBEAT")]
    heartbeat: Option<String>,
    /// How long the ledger keeps what it says of a finished file, for example 7d.
    #[arg(long, value_name = "TIME", env = "SHIPPER_FORGET_AFTER")]
    forget_after: Option<String>,
    /// Memory of the process, for example 32MiB.
    #[arg(long, env = "SHIPPER_MEMORY")]
    memory: Option<String>,
    /// Address of /livez, /readyz, /metrics and /status.
    #[arg(long, value_name = "HOST:PORT", env = "SHIPPER_ADMIN_LISTEN")]
    admin_listen: Option<String>,
    /// Absolute patterns of the files to tail, quoted so that the shell leaves them alone.
    #[arg(value_name = "PATHS", value_delimiter = ',', env = "SHIPPER_PATHS")]
    paths: Vec<String>,
}

impl Flags {
    fn settings(&self) -> Result<Vec<Setting>, String> {
        let mut settings = Vec::new();
        if !self.paths.is_empty() {
            settings.push(Setting::list("PATHS", "inputs[0].paths", &self.paths));
        }
        if !self.brokers.is_empty() {
            settings.push(Setting::list("--brokers", "kafka.brokers", &self.brokers));
        }
        let single = [
            ("--topic", "kafka.topic", &self.topic),
            ("--data-dir", "data_dir", &self.data_dir),
            ("--format", "inputs[0].format", &self.format),
            ("--host-id", "host.id", &self.host_id),
            ("--host-name", "host.name", &self.host_name),
            ("--ledger", "ledger", &self.ledger),
            ("--heartbeat", "heartbeat", &self.heartbeat),
            ("--forget-after", "forget_after", &self.forget_after),
            ("--memory", "limits.memory", &self.memory),
            ("--admin-listen", "admin.listen", &self.admin_listen),
        ];
        settings
            .extend(single.iter().filter_map(|(flag, path, value)| Some(Setting::one(flag, path, value.as_ref()?))));
        for field in &self.fields {
            let (name, value) = field.split_once('=').ok_or(format!("--field {field}: write it as name=value"))?;
            settings.push(Setting::one("--field", &format!("inputs[0].fields.{name}"), value));
        }
        Ok(settings)
    }

    /// Of a configuration, what `status` needs.
    fn place(
        config: Option<&PathBuf>,
        data_dir: Option<&PathBuf>,
        listen: Option<&String>,
    ) -> Result<Place, (String, Exit)> {
        let flags = Self { config: config.cloned(), ..Self::default() };
        let loaded = flags.config.is_some().then(|| flags.load()).transpose()?;
        let of_file = loaded.as_ref();
        Ok(Place {
            data_dir: data_dir.cloned().or(of_file.map(|config| config.data_dir.clone())),
            listen: listen
                .cloned()
                .or(of_file.map(|c| c.listen.clone()))
                .unwrap_or_else(|| "127.0.0.1:9640".to_owned()),
        })
    }

    /// Reads the file and lays the flags over it.
    fn load(&self) -> Result<Config, (String, Exit)> {
        let settings = self.settings().map_err(|fault| (fault, Exit::Usage))?;
        let needed = [
            ("--brokers", self.brokers.is_empty()),
            ("--topic", self.topic.is_none()),
            ("--data-dir", self.data_dir.is_none()),
            ("PATHS", self.paths.is_empty()),
        ];
        let missing: Vec<_> = needed.iter().filter(|(_, is_missing)| *is_missing).map(|(flag, _)| *flag).collect();
        if self.config.is_none() && !missing.is_empty() {
            let missing = missing.join(", ");
            return Err((format!("missing: {missing}; give them, or a file with --config (see --help)"), Exit::Usage));
        }
        let (name, text) = match &self.config {
            None => ("command line".to_owned(), String::new()),
            Some(path) => match std::fs::read_to_string(path) {
                Ok(text) => (path.display().to_string(), text),
                Err(cause) => return Err((format!("cannot read `{}`: {cause}", path.display()), Exit::Config)),
            },
        };
        let loaded = config::load(&name, &text, &settings, &|name| std::env::var(name).ok());
        loaded.map_err(|faults| (faults.to_string(), Exit::Config))
    }
}

fn main() {
    execute().leave()
}

fn execute() -> Exit {
    let parsed = command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(fault) => {
            // Help and version are no faults, and nothing is left to do if the terminal is gone.
            let _ = fault.print();
            return if fault.use_stderr() { Exit::Usage } else { Exit::Clean };
        }
    };
    dumps::forbid();
    let (flags, until) = match cli.command {
        Command::Run { settings, until } => (settings, until.map_or(Until::Signal, |_| Until::Eof)),
        Command::Check { online, settings } => return check(&settings, online),
        Command::Explain { line, json, settings } => {
            return match settings.load() {
                Ok(config) => inspect::explain(&config, &line, json),
                Err((faults, exit)) => {
                    eprintln!("{faults}");
                    exit
                }
            };
        }
        Command::Status { args, config, data_dir, admin_listen } => {
            return match Flags::place(config.as_ref(), data_dir.as_ref(), admin_listen.as_ref()) {
                Ok(place) => inspect::run(&args, &place),
                Err((faults, exit)) => {
                    eprintln!("{faults}");
                    exit
                }
            };
        }
        Command::Completions { shell } => return print(&completions(shell)),
        Command::Man => return manual::page(command()).map_or(Exit::Io, |page| print(&page)),
        Command::Schema { markdown } => return print(describe(&config::schema(), markdown).as_bytes()),
    };
    let loaded = match reload::load(flags.config.as_ref(), || flags.load()) {
        Ok(loaded) => loaded,
        Err((faults, exit)) => {
            eprintln!("{faults}");
            return exit;
        }
    };
    logs::init(cli.log_format, "info");
    let rules = pipeline::rules(flags.config.clone(), move || flags.load().map_err(|(faults, _)| faults));
    let ended = metrics::install("shipper", build_info!())
        .map_err(anyhow::Error::from)
        .and_then(|handle| pipeline::run(loaded, rules, until, &handle));
    match ended {
        Ok(exit) => exit,
        Err(fault) => {
            let cause = format!("{fault:#}");
            error!(cause, "the shipper cannot go on");
            exit_of(&fault)
        }
    }
}

fn check(settings: &Flags, is_online: bool) -> Exit {
    let config = match settings.load() {
        Ok(config) => config,
        Err((faults, exit)) => {
            eprintln!("{faults}");
            return exit;
        }
    };
    let topics = config.topics.join("`, `");
    println!("the configuration is sound: {} input(s), topic `{topics}`", config.inputs.len());
    if config.ledger == Ledger::Off {
        println!(
            "ledger: off: whether all that was written is indexed, and whether this shipper lives, is known on this machine only"
        );
    }
    if is_online { online::tell([millrace_shipper::online::check(&config)]) } else { Exit::Clean }
}

fn exit_of(fault: &anyhow::Error) -> Exit {
    let io = fault.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.map_or(Exit::CannotCreate, Exit::from_io)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_know_the_commands() {
        Cli::command().debug_assert();
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = String::from_utf8(completions(shell)).unwrap();
            assert!(script.contains("run") && script.contains("until"), "{shell}");
        }
    }
}
