//! `indexer preview`: what becomes of sample records, with the code of a run and without any connection.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use millrace_common::exit::Exit;
use millrace_common::json::{Kind, Parser, Value};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::cli::Settings;
use crate::config::{Config, Rule};
use crate::decode::{self, Identifier, Incoming};
use crate::map::{Action, Actions, Input, Plan, Server, ServerVersion, State, Verdict};
use crate::reject::Reject;
use crate::route::{self, Router, RouterOptions};
use crate::templates::parse_version;

/// Each line is the value of a record, as it stands in the topic.
#[derive(Debug, Args)]
pub struct Preview {
    #[command(flatten)]
    settings: Settings,
    /// File with one record per line [default: standard input].
    file: Option<PathBuf>,
    /// The server to plan for, such as 8.19 or 2.19 (OpenSearch).
    #[arg(long, value_name = "VERSION", value_parser = version)]
    server: Option<ServerVersion>,
    /// One JSON object per record.
    #[arg(long)]
    json: bool,
}

fn version(text: &str) -> Result<ServerVersion, String> {
    let full = if text.contains('.') { text.to_owned() } else { format!("{text}.0") };
    parse_version(&full).ok_or_else(|| format!("`{text}` is no version: write it as 8.19 or 2.19"))
}

/// What becomes of one record.
#[derive(Serialize)]
struct Outcome {
    line: usize,
    id: String,
    /// `indexed`, `rejected`, `expired`
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<String>,
    /// The event time could not name the index.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    by_kafka_time: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reject: Option<Told>,
    actions: Vec<Told>,
    /// As it goes out, its numbers as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Box<RawValue>>,
}

/// An action or a reject.
#[derive(Serialize)]
struct Told {
    what: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    field: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    why: String,
}

impl Preview {
    /// Runs the command.
    pub fn run(&self) -> Exit {
        let config = match self.settings.load(&[]) {
            Ok(config) => config,
            Err(exit) => return exit,
        };
        match self.show(&config) {
            Ok(()) => Exit::Clean,
            // A reader that has seen enough, such as `head`, is no failure.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Clean,
            Err(error) => {
                let name = self.file.as_ref().map_or("standard input".to_owned(), |file| file.display().to_string());
                eprintln!("cannot read `{name}`: {error}");
                Exit::from_io(&error)
            }
        }
    }

    fn show(&self, config: &Config) -> io::Result<()> {
        let input: Box<dyn io::Read> = match &self.file {
            Some(path) => Box::new(std::fs::File::open(path)?),
            None => Box::new(io::stdin()),
        };
        let mut rehearsal = Rehearsal::new(config, self.server.unwrap_or_default());
        let mut out = io::stdout().lock();
        let is_terminal = out.is_terminal();
        for (number, line) in BufReader::new(input).split(b'\n').enumerate() {
            let line = line?;
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let outcome = rehearsal.take(number + 1, &line, now_ms());
            let text =
                if self.json { format!("{}\n", crate::dlq::to_json(&outcome)) } else { text(&outcome, is_terminal) };
            out.write_all(text.as_bytes())?;
        }
        out.flush()
    }
}

/// A run of the first rule that takes the first topic.
struct Rehearsal<'c> {
    config: &'c Config,
    rule: &'c Rule,
    topic: String,
    server: ServerVersion,
    router: Router,
    /// By the number of the index name; `Err`: why there is no plan.
    plans: Vec<Result<(Plan, State), String>>,
    parser: Parser,
    identifier: Identifier,
}

impl<'c> Rehearsal<'c> {
    fn new(config: &'c Config, server: ServerVersion) -> Self {
        let topic = config.kafka.topics.first().filter(|topic| *topic != "unused").map_or("sample", String::as_str);
        let rule = &config.rules[config.rule_for(topic).unwrap_or(0)];
        let router = Router::new(RouterOptions::of(rule));
        let (topic, plans) = (topic.to_owned(), Vec::new());
        let (parser, identifier) = (Parser::default(), Identifier::default());
        Self { config, rule, topic, server, router, plans, parser, identifier }
    }

    fn take(&mut self, line: usize, value: &[u8], now_ms: i64) -> Outcome {
        let (topic, offset) = (self.topic.clone(), line as i64 - 1);
        let timestamp_ms = Some(now_ms);
        let record = Incoming {
            topic: &topic,
            partition: 0,
            offset,
            timestamp_ms,
            key: None,
            value: Some(value),
            id_header: None,
        };
        let mut parser = std::mem::take(&mut self.parser);
        let mut id = Vec::new();
        let mut outcome = match parser.parse(value) {
            Err(error) => {
                self.identifier.identify(&record, None, &mut id);
                rejected(decode::not_json(&error))
            }
            Ok(document) => {
                self.identifier.identify(&record, Some(document), &mut id);
                self.document(document, now_ms).unwrap_or_else(rejected)
            }
        };
        self.parser = parser;
        outcome.line = line;
        outcome.id = String::from_utf8_lossy(&id).into_owned();
        outcome
    }

    fn document(&mut self, document: Value<'_, '_>, now_ms: i64) -> Result<Outcome, Reject> {
        decode::check_object(document)?;
        let oldest = now_ms.saturating_sub(i64::try_from(self.rule.max_age.as_millis()).unwrap_or(i64::MAX));
        let destination = self.router.resolve(document, now_ms, now_ms)?;
        let index = Arc::clone(self.router.name(destination.name));
        let mut outcome = Outcome {
            line: 0,
            id: String::new(),
            result: "indexed",
            index: Some(index.to_string()),
            by_kafka_time: destination.by_kafka_time,
            reject: None,
            actions: Vec::new(),
            document: None,
        };
        if destination.by_kafka_time && route::event_time(document).is_some_and(|time| time < oldest) {
            let why = "older than `max_age`: no document if its Kafka timestamp is too";
            outcome.actions.push(Told { what: "expired", field: "@timestamp".to_owned(), why: why.to_owned() });
        }
        let (plan, state) = match self.plan(destination.name) {
            Ok(planned) => planned,
            Err(why) => {
                outcome.result = "held";
                outcome.reject = Some(Told { what: "no_plan", field: String::new(), why: why.clone() });
                return Ok(outcome);
            }
        };
        let time = jiff::Timestamp::from_millisecond(now_ms).map(|time| format!("\"{time:.3}\"")).unwrap_or_default();
        let (mut out, mut actions) = (Vec::new(), Actions::detailed());
        let input = Input { document, timestamp: Some(&time) };
        let verdict = plan.apply(input, state, &mut out, &mut actions);
        outcome.actions.extend(actions.details().iter().map(told));
        let text = match verdict {
            Verdict::Unchanged => document.raw().to_owned(),
            Verdict::Rewritten => String::from_utf8_lossy(&out).into_owned(),
            Verdict::Reject(reject) => {
                let mut refused = rejected(reject.into());
                refused.index = outcome.index;
                refused.actions = outcome.actions;
                return Ok(refused);
            }
        };
        outcome.document = RawValue::from_string(text).ok();
        Ok(outcome)
    }

    fn plan(&mut self, name: u32) -> Result<&mut (Plan, State), &mut String> {
        while self.plans.len() <= name as usize {
            let index = Arc::clone(self.router.name(self.plans.len() as u32));
            // What lifecycle management adds is of no weight for a plan.
            let server = Server { version: self.server, has_ilm: true };
            let composed = self.config.templates.as_ref().and_then(|set| set.for_server(server).compose(&index));
            let empty = serde_json::json!({});
            let (mappings, settings) = composed.as_ref().map_or((&empty, &empty), |c| (&c.mappings, &c.settings));
            let plan = Plan::compile(mappings, settings, &self.rule.options, self.server);
            self.plans.push(plan.map(|plan| (plan, State::default())).map_err(|error| error.to_string()));
        }
        self.plans[name as usize].as_mut()
    }
}

fn rejected(reject: Reject) -> Outcome {
    Outcome {
        line: 0,
        id: String::new(),
        result: "rejected",
        index: None,
        by_kafka_time: false,
        reject: Some(Told { what: reject.reason.as_str(), field: reject.field, why: reject.detail }),
        actions: Vec::new(),
        document: None,
    }
}

fn told(action: &Action) -> Told {
    Told { what: action.kind.as_str(), field: action.field.clone(), why: action.detail.clone() }
}

/// For people. On a terminal the document stands on many lines.
fn text(outcome: &Outcome, is_pretty: bool) -> String {
    let index = outcome.index.as_deref().unwrap_or("no index");
    let mut text = format!("{}  {}  {index}  {}\n", outcome.line, outcome.result, crate::dlq::escape(&outcome.id));
    if outcome.by_kafka_time {
        text.push_str(
            "    the time of the record names the index, not `@timestamp`: missing, or outside `accept_time`\n",
        );
    }
    for told in outcome.reject.iter().chain(&outcome.actions) {
        let Told { what, field, why } = told;
        let field = if field.is_empty() { "-" } else { field };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "    {what:<14} {:<24} {}", crate::dlq::escape(field), crate::dlq::escape(why));
    }
    if let Some(document) = &outcome.document {
        let mut parser = Parser::default();
        match parser.parse(document.get().as_bytes()) {
            Ok(value) if is_pretty => pretty(value, 4, &mut text),
            _ => text.push_str(document.get()),
        }
        text.push('\n');
    }
    text
}

/// Indented by two, with numbers as written.
fn pretty(value: Value<'_, '_>, indent: usize, text: &mut String) {
    if indent == 4 {
        text.push_str("    ");
    }
    let pad = " ".repeat(indent);
    match value.kind() {
        Kind::Object if value.members().next().is_some() => {
            text.push('{');
            for (i, (key, inner)) in value.members().enumerate() {
                let name = serde_json::Value::String(key.name().into_owned());
                let _ = write!(
                    text,
                    "{}\n{pad}  {}: ",
                    if i > 0 { "," } else { "" },
                    crate::dlq::escape(&name.to_string())
                );
                pretty(inner, indent + 2, text);
            }
            let _ = write!(text, "\n{pad}}}");
        }
        _ => text.push_str(&crate::dlq::escape(value.raw())),
    }
}

#[expect(clippy::disallowed_methods, reason = "an edge: the Kafka timestamp of a sample is now")]
fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
