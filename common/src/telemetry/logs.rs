//! Logs on standard error, as text or as one JSON object per line.

use std::fmt::Debug;
use std::io::IsTerminal;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::format::{FormatFields, Writer, debug_fn};
use tracing_subscriber::prelude::*;

use crate::terminal::escape;

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}

/// The variables that override the level, the first one that is set wins.
const OVERRIDES: [&str; 2] = ["MILLRACE_LOG", "RUST_LOG"];

/// Sends the log of this process to standard error; a second call changes nothing.
///
/// `level` is a filter such as `info` or `info,millrace_shipper::read=debug`. `MILLRACE_LOG` or `RUST_LOG` win over it; a filter
/// that cannot be read is named in the log and left out.
pub fn init(format: LogFormat, level: &str) {
    let over = OVERRIDES.iter().find_map(|name| std::env::var(name).ok().filter(|text| !text.is_empty()));
    let wanted = over.as_deref().unwrap_or(level);
    let (filter, refused) = match EnvFilter::builder().parse(wanted) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    let registry = tracing_subscriber::registry().with(filter);
    let is_ours = match format {
        LogFormat::Text => {
            let layer = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
            registry.with(layer.with_target(false).fmt_fields(fields())).try_init().is_ok()
        }
        LogFormat::Json => {
            let layer = fmt::layer().with_writer(std::io::stderr).json().flatten_event(true).with_current_span(false);
            registry.with(layer.with_span_list(false)).try_init().is_ok()
        }
    };
    if let (true, Some(error)) = (is_ours, refused) {
        tracing::warn!(filter = wanted, %error, "log filter cannot be read, using info");
    }
}

/// `name=value`, with what acts on a terminal escaped, line ends too: names of files and words of servers are among them.
fn fields() -> impl for<'writer> FormatFields<'writer> {
    let write = |writer: &mut Writer<'_>, field: &Field, value: &dyn Debug| {
        let text = format!("{value:?}");
        match field.name() {
            "message" => write!(writer, "{}", escape(&text)),
            name => write!(writer, "{name}={}", escape(&text)),
        }
    };
    debug_fn(write).delimited(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs this test binary again as a process whose log can be taken.
    fn logged(format: &str, over: Option<&str>) -> String {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "telemetry::logs::tests::child", "--nocapture"]).env("LOGS_TEST_CHILD", format);
        for name in OVERRIDES {
            child.env_remove(name);
        }
        if let Some(filter) = over {
            child.env("MILLRACE_LOG", filter);
        }
        String::from_utf8(child.output().unwrap().stderr).unwrap()
    }

    #[test]
    fn child() {
        let Ok(format) = std::env::var("LOGS_TEST_CHILD") else { return };
        init(if format == "json" { LogFormat::Json } else { LogFormat::Text }, "info");
        tracing::info!(path = "/a\u{1b}[31mb", "source \"found\"");
        let shown = std::path::Path::new("/a\u{1b}]0;x\u{7}\n\u{202e}b");
        tracing::debug!(path = %shown.display(), "{}", shown.display());
        tracing::debug!("quiet by default");
    }

    #[test]
    fn json_logs_are_one_object_per_line_with_the_facts_as_fields() {
        let log = logged("json", None);
        let [line] = log.lines().collect::<Vec<_>>()[..] else { panic!("{log}") };
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!((&line["level"], &line["message"]), (&"INFO".into(), &"source \"found\"".into()));
        assert_eq!(line["path"], "/a\u{1b}[31mb");
        assert!(line["timestamp"].is_string());
    }

    #[test]
    fn text_logs_hold_no_terminal_escapes_and_the_variable_wins() {
        let log = logged("text", Some("debug"));
        assert!(
            log.contains("source \"found\"") && log.contains("quiet by default") && !log.contains('\u{1b}'),
            "{log:?}"
        );
        let shown = "/a\\u{1b}]0;x\\u{7}\\n\\u{202e}b";
        assert!(log.contains(&format!("{shown} path={shown}\n")), "{log}");
        assert!(logged("text", Some("nonsense=what")).contains("log filter cannot be read"));
    }
}
