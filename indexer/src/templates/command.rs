//! `indexer templates`: from files to the cluster, and what to think of both.

mod recent;

use std::fmt::Write as _;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use elasticsearch::http::Method;
use millrace_common::config::HumanDuration;
use millrace_common::exit::Exit;
use millrace_common::json::Parser;

use super::diff::{Difference, diff};
use super::install::{self, Settled};
use super::lint::{Hurt, Severity, lint};
use super::usage::{Report, Usage};
use super::{lookup, usage};
use crate::bulk::client::Client;
use crate::cli::{Need, Settings, block_on};
use crate::config::Config;
use crate::map::{Server, TemplateSet};
use crate::route::{Router, RouterOptions};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Install missing and older templates, and read each back.
    ///
    /// The files are adapted to what the server reports: lifecycle policies and settings only where it has them, and
    /// OpenSearch's names for types. A newer template and one that somebody else manages (by `_meta.managed_by`) are left
    /// alone. Ends with 0 if the cluster has what the files say, else with 78.
    Apply(Settings),
    /// Compare the files with the cluster, field by field.
    ///
    /// Ends with 0 if all is the same, with 78 if something differs.
    Diff(Settings),
    /// Warn about what hurts in production.
    ///
    /// Needs no connection; with --elasticsearch the number of shards is held against that of the hot nodes. Ends with 78
    /// if there is an error, with 0 if there are only warnings.
    Lint(Settings),
    /// Tell which mapped fields nobody sends, and which sent fields are not mapped.
    ///
    /// Reads what the topics got lately. Nothing is committed, and no consumer group is joined.
    Usage(UsageArgs),
}

#[derive(Debug, Args)]
pub struct UsageArgs {
    #[command(flatten)]
    settings: Settings,
    /// How far back to read.
    #[arg(long, value_name = "TIME", default_value = "1h")]
    last: HumanDuration,
    /// Print at most this many fields of each kind.
    #[arg(long, value_name = "NUMBER", default_value = "50")]
    limit: usize,
}

/// Runs one of the commands.
pub fn run(command: &Command) -> Exit {
    let (settings, needs): (_, &[Need]) = match command {
        Command::Apply(settings) | Command::Diff(settings) => (settings, &[Need::Elasticsearch, Need::Templates]),
        Command::Lint(settings) => (settings, &[Need::Templates]),
        Command::Usage(args) => (&args.settings, &[Need::Kafka, Need::Templates]),
    };
    let config = match settings.load(needs) {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    let Some(set) = &config.templates else { return Exit::Usage };
    let ended = match command {
        Command::Apply(_) => block_on(apply(&config, set)),
        Command::Diff(_) => block_on(compare(&config, set)),
        Command::Lint(settings) => block_on(examine(&config, set, settings.names_elasticsearch())),
        Command::Usage(args) => tell_usage(&config, set, args),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("{error:#}");
        Exit::Unavailable
    })
}

async fn connect(config: &Config) -> anyhow::Result<(Client, Server)> {
    let client = Client::new(config.elasticsearch.clone())?;
    let server = lookup::inspect(&client).await.map_err(anyhow::Error::msg)?;
    Ok((client, server))
}

async fn apply(config: &Config, set: &TemplateSet) -> anyhow::Result<Exit> {
    let (client, server) = connect(config).await?;
    println!("{}", describe(server));
    let mut exit = Exit::Clean;
    for (kind, name, body) in set.for_server(server).bodies() {
        let settled = install::settle(&client, kind, name, body, true).await?;
        let theirs = install::read(&client, kind, name).await?.unwrap_or_default();
        let differences = diff(kind, body, &theirs).len();
        let (word, why) = match settled {
            Settled::Installed => ("installed", ""),
            Settled::Updated => ("updated", ""),
            Settled::There if differences == 0 => ("unchanged", ""),
            Settled::There => ("differs", "same version, other content: raise `version` to replace it"),
            Settled::Newer => ("kept", "the cluster has a newer version"),
            Settled::Foreign => ("kept", "somebody else manages it (`_meta.managed_by`)"),
            Settled::Older => ("kept", "an older version"),
        };
        println!("{word:<9}  {} `{name}`{}{why}", kind.as_str(), if why.is_empty() { "" } else { ": " });
        if !why.is_empty() {
            exit = Exit::Config;
        }
    }
    Ok(exit)
}

async fn compare(config: &Config, set: &TemplateSet) -> anyhow::Result<Exit> {
    let (client, server) = connect(config).await?;
    println!("{}", describe(server));
    let mut exit = Exit::Clean;
    for (kind, name, body) in set.for_server(server).bodies() {
        let theirs = install::read(&client, kind, name).await?;
        let (word, differences) = match &theirs {
            None => ("missing", Vec::new()),
            Some(theirs) => match diff(kind, body, theirs) {
                same if same.is_empty() => ("same", same),
                differences => ("differs", differences),
            },
        };
        println!("{word:<9}  {} `{name}`", kind.as_str());
        print!("{}", differences.iter().map(shown).collect::<String>());
        if word != "same" {
            exit = Exit::Config;
        }
    }
    Ok(exit)
}

/// As lines of a patch: `-` what the cluster has, `+` what the file says.
fn shown(difference: &Difference) -> String {
    let Difference { path, ours, theirs } = difference;
    let side =
        |sign, value: &Option<String>| value.as_ref().map(|value| format!("    {sign} {value}\n")).unwrap_or_default();
    format!("  {path}\n{}{}", side('-', theirs), side('+', ours))
}

async fn examine(config: &Config, set: &TemplateSet, is_online: bool) -> anyhow::Result<Exit> {
    let num_hot_nodes = match is_online {
        true => Some(num_hot_nodes(&connect(config).await?.0).await?),
        false => None,
    };
    let found = lint(set, num_hot_nodes);
    found.iter().for_each(|hurt| print!("{}", told(hurt)));
    let num_errors = found.iter().filter(|hurt| hurt.severity == Severity::Error).count();
    println!("{} errors, {} warnings", num_errors, found.len() - num_errors);
    Ok(if num_errors > 0 { Exit::Config } else { Exit::Clean })
}

fn told(hurt: &Hurt) -> String {
    let Hurt { severity, file, path, what, remedy } = hurt;
    format!("{}: {file}: {path}\n  {what}: {remedy}\n", severity.as_str())
}

/// Nodes that hold hot data; each data node where there are no tiers.
async fn num_hot_nodes(client: &Client) -> anyhow::Result<u64> {
    let reply = client.call(Method::Get, "_cat/nodes?h=node.role&format=json", None).await?;
    anyhow::ensure!(reply.status == 200, "Elasticsearch answers {}: {}", reply.status, reply.excerpt());
    let nodes = reply.json();
    let roles = nodes.as_array().into_iter().flatten().filter_map(|node| node["node.role"].as_str());
    Ok(roles.filter(|roles| roles.contains(['h', 'd'])).count() as u64)
}

fn tell_usage(config: &Config, set: &TemplateSet, args: &UsageArgs) -> anyhow::Result<Exit> {
    let now_ms = now_ms();
    let since_ms = now_ms.saturating_sub(i64::try_from(args.last.duration().as_millis()).unwrap_or(i64::MAX));
    let mut routers: Vec<Router> = config.rules.iter().map(|rule| Router::new(RouterOptions::of(rule))).collect();
    let (mut usage, mut parser) = (Usage::default(), Parser::default());
    let (mut num_records, mut num_without) = (0_u64, 0_u64);
    recent::each(&config.kafka, since_ms, |topic, value, time_ms| {
        num_records += 1;
        let Some(router) = config.rule_for(topic).and_then(|rule| routers.get_mut(rule)) else { return };
        let Ok(document) = parser.parse(value) else { return };
        let index = router.resolve(document, time_ms.unwrap_or(now_ms), now_ms).ok();
        let index = index.map(|destination| router.name(destination.name).to_string());
        match index.and_then(|index| set.compose(&index)) {
            Some(composed) => usage.count(&composed, document),
            None => num_without += 1,
        }
    })
    .context("cannot read the topics")?;
    println!("{num_records} records in the last {}", args.last);
    if num_without > 0 {
        println!("{num_without} of them belong to no template of the files");
    }
    usage.reports().for_each(|report| print!("{}", table(&report, args.limit)));
    Ok(Exit::Clean)
}

fn table(report: &usage::Report<'_>, limit: usize) -> String {
    let Report { template, num_records, num_mapped, never_sent, unmapped, num_others } = report;
    let mut text = format!("\ntemplate `{template}`: {num_records} records, {num_mapped} mapped fields\n");
    let more = |text: &mut String, num: usize| {
        if num > limit {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "    and {} more", num - limit);
        }
    };
    let _ = writeln!(text, "  sent, not mapped: {}", unmapped.len());
    for (path, num) in unmapped.iter().take(limit) {
        let _ = writeln!(text, "    {num:>9}  {}", crate::dlq::escape(path));
    }
    more(&mut text, unmapped.len());
    if *num_others > 0 {
        let _ = writeln!(text, "    {num_others} times other fields");
    }
    let _ = writeln!(text, "  mapped, never sent: {}", never_sent.len());
    for path in never_sent.iter().take(limit) {
        let _ = writeln!(text, "    {path}");
    }
    more(&mut text, never_sent.len());
    text
}

fn describe(server: Server) -> String {
    let ilm = if server.has_ilm { "with" } else { "without" };
    format!("{} {ilm} lifecycle management", lookup::describe(server.version))
}

#[expect(clippy::disallowed_methods, reason = "an edge: the hour counts back from the start of the command")]
fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
