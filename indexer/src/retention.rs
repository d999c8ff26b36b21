//! `indexer retention`: deletes indices by the date in their names, for clusters without lifecycle management.

use std::time::Duration;

use clap::Args;
use elasticsearch::http::Method;
use millrace_common::config::HumanDuration;
use millrace_common::exit::Exit;
use serde_json::Value;

use crate::bulk::client::Client;
use crate::cli::{Need, Settings, block_on};
use crate::config::Config;
use crate::route::{DatedNames, EpochMillis};

/// Only indices whose names a rule's `index` gives are looked at. The age counts from the end of the day (month, year, hour)
/// that the name tells. Without --yes nothing is deleted.
#[derive(Debug, Args)]
pub struct Retention {
    #[command(flatten)]
    settings: Settings,
    /// Delete what is older, such as 90d.
    #[arg(long, value_name = "TIME")]
    older_than: HumanDuration,
    /// Delete, instead of only telling.
    #[arg(long)]
    yes: bool,
}

/// An index as the cluster lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listed {
    name: String,
    num_documents: u64,
    bytes: u64,
}

/// The indices that are due, oldest first, each with its end.
fn due(
    listed: Vec<Listed>,
    names: &[DatedNames],
    older_than: Duration,
    now: EpochMillis,
) -> Vec<(Listed, EpochMillis)> {
    let before = now.saturating_sub(i64::try_from(older_than.as_millis()).unwrap_or(i64::MAX));
    let is_ours = |index: &Listed| !index.name.starts_with('.');
    let dated = listed.into_iter().filter(is_ours).filter_map(|index| {
        // Where several rules give the name, the latest end counts.
        let end = names.iter().filter_map(|names| names.end(&index.name)).max()?;
        (end <= before).then_some((index, end))
    });
    let mut due: Vec<_> = dated.collect();
    due.sort_by(|(a, a_end), (b, b_end)| (a_end, &a.name).cmp(&(b_end, &b.name)));
    due
}

impl Retention {
    /// Runs the command.
    pub fn run(&self) -> Exit {
        let config = match self.settings.load(&[Need::Elasticsearch]) {
            Ok(config) => config,
            Err(exit) => return exit,
        };
        let mut names = Vec::new();
        for (number, rule) in config.rules.iter().enumerate() {
            match DatedNames::of(&rule.index) {
                Ok(dated) => names.push(dated),
                Err(why) => eprintln!("rules[{number}].index {why}: its indices are left alone"),
            }
            if rule.max_age > self.older_than.duration() {
                eprintln!(
                    "rules[{number}].max_age is {}: set it to {}, so that a replay does not revive what was deleted",
                    HumanDuration::new(rule.max_age),
                    self.older_than
                );
            }
        }
        if names.is_empty() {
            return Exit::Config;
        }
        block_on(self.clean(&config, &names)).unwrap_or_else(|error| {
            eprintln!("{error:#}");
            Exit::Unavailable
        })
    }

    async fn clean(&self, config: &Config, names: &[DatedNames]) -> anyhow::Result<Exit> {
        let client = Client::new(config.elasticsearch.clone())?;
        let due = due(list(&client).await?, names, self.older_than.duration(), now_ms());
        let (mut num_deleted, mut num_failed, mut bytes) = (0, 0, 0);
        for (index, end) in &due {
            let age_days = (now_ms() - end) / 86_400_000;
            let word = if self.yes { delete(&client, &index.name).await? } else { None };
            let line =
                format!("{:>5}d  {:>12}  {:>9}  {}", age_days, index.num_documents, size(index.bytes), index.name);
            match word {
                Some(why) => {
                    num_failed += 1;
                    println!("{line}: not deleted: {why}");
                }
                None => {
                    num_deleted += 1;
                    bytes += index.bytes;
                    println!("{line}");
                }
            }
        }
        match (self.yes, due.len()) {
            (_, 0) => println!("no index is older than {}", self.older_than),
            (false, num) => println!("{num} indices with {} would be deleted: give --yes to do it", size(bytes)),
            (true, _) => println!("{num_deleted} indices with {} deleted, {num_failed} not", size(bytes)),
        }
        Ok(if num_failed > 0 { Exit::Unavailable } else { Exit::Clean })
    }
}

/// All indices of the cluster, open and closed.
async fn list(client: &Client) -> anyhow::Result<Vec<Listed>> {
    let path = "_cat/indices?h=index,docs.count,store.size&bytes=b&expand_wildcards=all&format=json";
    let reply = client.call(Method::Get, path, None).await?;
    anyhow::ensure!(reply.status == 200, "Elasticsearch answers {} to {path}: {}", reply.status, reply.excerpt());
    let body = reply.json();
    let number = |value: &Value| value.as_str().and_then(|text| text.parse().ok()).unwrap_or(0);
    let indices = body.as_array().into_iter().flatten();
    Ok(indices
        .filter_map(|index| {
            let name = index["index"].as_str()?.to_owned();
            Some(Listed { name, num_documents: number(&index["docs.count"]), bytes: number(&index["store.size"]) })
        })
        .collect())
}

/// Deletes one index by its full name; `Some` says why not. One that is gone already is deleted.
async fn delete(client: &Client, name: &str) -> anyhow::Result<Option<String>> {
    let path = format!("{}?allow_no_indices=false&expand_wildcards=none", name.replace('%', "%25"));
    let reply = client.call(Method::Delete, &path, None).await?;
    Ok(match reply.status {
        200..=299 | 404 => None,
        status => Some(format!("{status}: {}", reply.excerpt())),
    })
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{} KiB", bytes.div_ceil(1_024)),
        1_048_576..1_073_741_824 => format!("{} MiB", bytes >> 20),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

#[expect(clippy::disallowed_methods, reason = "an edge: ages count back from now")]
fn now_ms() -> EpochMillis {
    jiff::Timestamp::now().as_millisecond()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Pattern;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn only_indices_of_the_rules_that_are_old_enough_are_due() {
        let pattern = |text| DatedNames::of(&Pattern::compile(text).unwrap()).unwrap();
        let names = [pattern("applogs-{service.name}-{@timestamp:%Y.%m.%d}"), pattern("audit-{@timestamp:%Y.%m}")];
        let listed = |name: &str| Listed { name: name.to_owned(), num_documents: 1, bytes: 1 };
        let all = [
            "applogs-b-2026.08.25",
            "applogs-a-2026.08.24",
            "applogs-a-2026.08.26",
            "audit-2026.07",
            "audit-2026.08",
            "metrics-2020.01.01",
            ".ds-applogs-a-2020.01.01",
            "applogs-a",
        ];
        let now = "2026-11-24T00:00:00Z".parse::<jiff::Timestamp>().unwrap().as_millisecond();
        let due = due(all.map(listed).into(), &names, 90 * DAY, now);
        let due: Vec<&str> = due.iter().map(|(index, _)| index.name.as_str()).collect();
        // 90 days before that midnight is the 26th of August, so that the 25th is the last day that is due.
        assert_eq!(due, ["audit-2026.07", "applogs-a-2026.08.24", "applogs-b-2026.08.25"]);
    }
}
