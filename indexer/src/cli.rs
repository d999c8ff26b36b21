//! Arguments.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use millrace_common::config::Setting;
use millrace_common::exit::Exit;
use millrace_common::telemetry::logs::LogFormat;

use crate::config::{self, Config};
use crate::{audit, dlq, preview, retention, status, templates};

/// Reads records from Kafka, fits them to the rules of index templates, and indexes each exactly once in Elasticsearch.
#[derive(Debug, Parser)]
#[command(name = "indexer", arg_required_else_help = true)]
pub struct Cli {
    /// Form of the log lines on standard error.
    #[arg(long, global = true, value_enum, default_value = "text", env = "INDEXER_LOG_FORMAT")]
    pub log_format: LogFormat,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Move records until told to stop.
    Run(Settings),
    /// Check the settings and template files without any connection.
    Check {
        /// Ask Kafka and Elasticsearch too, and name everything there that breaks what is promised.
        ///
        /// Nothing is written. Ends with 0 if all is well, with 69 if one of them does not answer, with 78 if there is a breach.
        #[arg(long)]
        online: bool,
        #[command(flatten)]
        settings: Settings,
    },
    /// Install index templates, compare them with the cluster, and judge them.
    #[command(subcommand)]
    Templates(templates::command::Command),
    /// Show what becomes of sample records, without any connection.
    Preview(preview::Preview),
    /// Delete old indices, where Elasticsearch does not do that by itself.
    Retention(retention::Retention),
    /// Look at dead letters, and send them back.
    #[command(subcommand)]
    Dlq(dlq::Command),
    /// Show the whole pipeline: every file and host, from the ledger.
    Status(status::Status),
    /// Tell whether all that was written is indexed, byte by byte.
    Audit(audit::Audit),
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

/// The script of [`Command::Completions`].
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "indexer", &mut script);
    script
}

/// Flags replace what the file says.
#[derive(Debug, Default, Args)]
pub struct Settings {
    /// Configuration file (YAML).
    #[arg(short, long, value_name = "FILE", env = "INDEXER_CONFIG")]
    pub config: Option<PathBuf>,
    /// Kafka brokers to begin with.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', env = "INDEXER_BROKERS")]
    pub brokers: Vec<String>,
    /// Topics to read.
    #[arg(long, value_name = "TOPIC", value_delimiter = ',', env = "INDEXER_TOPIC")]
    pub topic: Vec<String>,
    /// Consumer group [default: indexer].
    #[arg(long, value_name = "NAME", env = "INDEXER_GROUP")]
    pub group: Option<String>,
    /// Elasticsearch hosts.
    #[arg(long, value_name = "URL", value_delimiter = ',', env = "INDEXER_ELASTICSEARCH")]
    pub elasticsearch: Vec<String>,
    /// File with the API key for Elasticsearch.
    #[arg(long, value_name = "FILE", env = "INDEXER_API_KEY_FILE")]
    pub api_key_file: Option<String>,
    /// Folder with index templates.
    #[arg(long, value_name = "DIR", env = "INDEXER_TEMPLATES")]
    pub templates: Option<String>,
    /// Topic for what cannot be indexed [default: logs.dlq].
    #[arg(long, value_name = "TOPIC", env = "INDEXER_DEAD_LETTER_TOPIC")]
    pub dead_letter_topic: Option<String>,
    /// Bound for records in memory [default: 256MiB].
    #[arg(long, value_name = "SIZE", env = "INDEXER_MEMORY")]
    pub memory: Option<String>,
    /// How long a stop may wait for records on their way [default: 25s].
    #[arg(long, value_name = "TIME", env = "INDEXER_SHUTDOWN_DEADLINE")]
    pub shutdown_deadline: Option<String>,
    /// Whether what is indexed is told in `millrace.indexed`, for the audit: on or off [default: on].
    #[arg(long, value_name = "SWITCH", env = "INDEXER_LEDGER")]
    pub ledger: Option<String>,
    /// Address of the admin endpoint [default: 127.0.0.1:9641].
    #[arg(long, value_name = "HOST:PORT", env = "INDEXER_ADMIN_LISTEN")]
    pub admin_listen: Option<String>,
}

/// What a command cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    Kafka,
    Elasticsearch,
    Templates,
}

impl Settings {
    /// Reads and checks file and flags, template files included; what is wrong with them is printed.
    ///
    /// # Errors
    /// The exit code.
    pub fn load(&self, needs: &[Need]) -> Result<Config, Exit> {
        self.try_load(needs).map_err(|(faults, exit)| {
            eprintln!("{faults}");
            exit
        })
    }

    /// As [`Settings::load`], without a word.
    ///
    /// # Errors
    /// All faults, one a line, and the exit code.
    pub fn try_load(&self, needs: &[Need]) -> Result<Config, (String, Exit)> {
        let (name, text) = match &self.config {
            None => ("command line".to_owned(), String::new()),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| (format!("cannot read `{}`: {error}", path.display()), Exit::from_io(&error)))?;
                (path.display().to_string(), text)
            }
        };
        let mut settings = self.flags();
        if self.config.is_none() {
            let missing = self.missing(needs);
            if !missing.is_empty() {
                let missing = missing.join(", ");
                return Err((
                    format!("missing: {missing}; give them, or a file with --config (see --help)"),
                    Exit::Usage,
                ));
            }
            settings.splice(0..0, unused(needs));
        }
        let config = config::load(&name, &text, &settings, &|name| std::env::var(name).ok())
            .map_err(|problem| (problem.to_string(), Exit::Config))?;
        if needs.contains(&Need::Templates) && config.templates.is_none() {
            return Err(("missing: --templates; give it, or `templates.dir` in the file".to_owned(), Exit::Usage));
        }
        Ok(config)
    }

    /// Whether there is an Elasticsearch to ask, for commands that can do without.
    pub fn names_elasticsearch(&self) -> bool {
        !self.elasticsearch.is_empty() || self.config.is_some()
    }

    /// The flags without which nothing runs, unless there is a file.
    fn missing(&self, needs: &[Need]) -> Vec<&'static str> {
        let needed = [
            (Need::Kafka, "--brokers", self.brokers.is_empty()),
            (Need::Kafka, "--topic", self.topic.is_empty()),
            (Need::Elasticsearch, "--elasticsearch", self.elasticsearch.is_empty()),
            (Need::Templates, "--templates", self.templates.is_none()),
        ];
        let missing = needed.into_iter().filter(|(need, _, is_missing)| *is_missing && needs.contains(need));
        missing.map(|(_, flag, _)| flag).collect()
    }

    /// What the flags say, by the places it takes in the file.
    pub fn flags(&self) -> Vec<Setting> {
        let mut settings = Vec::new();
        let lists = [
            ("--brokers", "kafka.brokers", &self.brokers),
            ("--topic", "kafka.topics", &self.topic),
            ("--elasticsearch", "elasticsearch.hosts", &self.elasticsearch),
        ];
        for (flag, path, values) in lists {
            if !values.is_empty() {
                settings.push(Setting::list(flag, path, values.iter().cloned()));
            }
        }
        let ones = [
            ("--group", "kafka.group", &self.group),
            ("--api-key-file", "elasticsearch.api_key_file", &self.api_key_file),
            ("--templates", "templates.dir", &self.templates),
            ("--dead-letter-topic", "dead_letter.topic", &self.dead_letter_topic),
            ("--memory", "limits.memory", &self.memory),
            ("--shutdown-deadline", "shutdown.deadline", &self.shutdown_deadline),
            ("--ledger", "ledger", &self.ledger),
            ("--admin-listen", "admin.listen", &self.admin_listen),
        ];
        for (flag, path, value) in ones {
            if let Some(value) = value {
                settings.push(Setting::one(flag, path, value.clone()));
            }
        }
        settings
    }
}

/// Stands in for what a run needs and a command does not.
fn unused(needs: &[Need]) -> Vec<Setting> {
    let all = [
        (Need::Kafka, Setting::list("", "kafka.brokers", ["unused:9092"])),
        (Need::Kafka, Setting::list("", "kafka.topics", ["unused"])),
        (Need::Elasticsearch, Setting::list("", "elasticsearch.hosts", ["http://unused:9200"])),
    ];
    all.into_iter().filter(|(need, _)| !needs.contains(need)).map(|(_, setting)| setting).collect()
}

/// Runs a command's requests on this thread.
///
/// # Errors
/// Those of the command.
pub fn block_on<T>(command: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn completions_know_the_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = String::from_utf8(completions(shell)).unwrap();
            assert!(script.contains("run") && script.contains("replay"), "{shell}");
        }
    }
}
