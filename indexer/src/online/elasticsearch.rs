//! The questions to Elasticsearch.

use anyhow::{Context as _, Result, ensure};
use millrace_common::online::{Finding, clocks};
use serde_json::Value;

use super::indices::{self, Durability};
use crate::bulk::client::Client;
use crate::config::{Config, Rule};
use crate::map::{Server, TemplateSet};
use crate::templates::diff::diff;
use crate::templates::{install, lookup};

pub(super) async fn check(config: &Config, now_ms: i64) -> Result<Vec<Finding>> {
    let client = Client::new(config.elasticsearch.clone())?;
    let server = lookup::inspect(&client).await.map_err(anyhow::Error::msg)?;
    println!("{}", lookup::describe(server.version));
    let mut findings = cluster(&client, config, now_ms).await?;
    let set = config.templates.as_ref().map(|set| set.for_server(server));
    if let Some(set) = &set {
        findings.extend(templates(&client, set, config.apply_templates).await?);
    }
    for (number, rule) in config.rules.iter().enumerate() {
        findings.extend(rule_indices(&client, set.as_ref(), server, number, rule).await?);
    }
    Ok(findings)
}

/// What holds for all indices.
async fn cluster(client: &Client, config: &Config, now_ms: i64) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let health = get(client, "_cluster/health").await?;
    if let Some(nodes) = health["number_of_data_nodes"].as_u64().filter(|&nodes| nodes < 2) {
        let what = format!("has {nodes} data node(s)");
        let stake = "a replica has nowhere to be, so one lost disk loses documents";
        findings.push(Finding::breach("Elasticsearch", what, stake, "add a node"));
    }
    let http = get(client, "_nodes/http?filter_path=nodes.*.http.max_content_length_in_bytes").await?;
    let limits = nodes(&http).filter_map(|(_, node)| node.pointer("/http/max_content_length_in_bytes")?.as_u64());
    let max_bytes = config.bulk.limits.max_bytes as u64;
    if let Some(limit) = limits.min().filter(|&limit| limit < max_bytes) {
        let what = format!("http.max_content_length is {limit} bytes, less than `bulk.max_bytes` ({max_bytes})");
        let stake = "each full bulk is refused with 413 and sent again in halves";
        findings.push(Finding::warning("Elasticsearch", what, stake, "raise the one or lower the other"));
    }
    // A node's word is a moment old when it is here.
    let stats = get(client, "_nodes/stats/os?filter_path=nodes.*.name,nodes.*.os.timestamp").await?;
    findings.extend(nodes(&stats).filter_map(|(id, node)| {
        let name = node["name"].as_str().unwrap_or(id);
        clocks::apart(&format!("node `{name}`"), node.pointer("/os/timestamp")?.as_i64()?, now_ms, "this machine's")
    }));
    Ok(findings)
}

fn nodes(reply: &Value) -> impl Iterator<Item = (&String, &Value)> {
    reply["nodes"].as_object().into_iter().flatten()
}

/// Each template of the files against the cluster's.
async fn templates(client: &Client, set: &TemplateSet, is_applied: bool) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (kind, name, body) in set.bodies() {
        let theirs = install::read(client, kind, name).await?;
        let place = format!("{} `{name}`", kind.as_str());
        findings.extend(match theirs {
            None if is_applied => {
                let stake = "it is installed at the start, if the rights are there";
                Some(Finding::warning(place, "is not installed", stake, "run `indexer templates apply`"))
            }
            None => {
                let stake = "no document goes out while `templates.apply` is off";
                Some(Finding::breach(place, "is not installed", stake, "run `indexer templates apply`"))
            }
            Some(theirs) => {
                Some(diff(kind, body, &theirs)).filter(|differences| !differences.is_empty()).map(|found| {
                    let paths: Vec<&str> = found.iter().map(|difference| difference.path.as_str()).take(3).collect();
                    let what = format!("differs from the file in {} places ({})", found.len(), paths.join(", "));
                    let stake = "new indices follow the cluster's, not the one that you read";
                    Finding::breach(place, what, stake, "see `indexer templates diff`; raise `version` to replace it")
                })
            }
        });
    }
    Ok(findings)
}

/// What indices of a rule are, and would become.
async fn rule_indices(
    client: &Client,
    set: Option<&TemplateSet>,
    server: Server,
    number: usize,
    rule: &Rule,
) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let place = format!("rules[{number}]");
    let wildcard = rule.index.wildcard();
    if let Some(index) = rule.index.sample(&rule.defaults) {
        let simulated = lookup::simulate(client, &index).await?;
        let ours = set.and_then(|set| set.compose(&index));
        if let Some(ours) = ours.as_ref().filter(|ours| lookup::is_loser(&simulated, &ours.name)) {
            let winner = lookup::winner(client, &index).await?.unwrap_or_else(|| "another template".to_owned());
            let what = format!("template `{winner}` wins over `{}` for `{index}`", ours.name);
            let remedy = format!("raise the priority of `{}` or narrow the patterns of `{winner}`", ours.name);
            findings.push(Finding::breach(&place, what, "no document goes out to such an index", remedy));
        }
        // A file that is not installed yet is what will count.
        let settings = ours.map_or_else(|| simulated["template"]["settings"].clone(), |ours| ours.settings);
        let durability = Durability::of(&settings);
        findings.extend(indices::future(&place, &index, &durability));
        let is_stream = set.is_none() && is_data_stream(client, &simulated, &index).await?;
        findings.extend(is_stream.then(|| indices::data_stream(&place, &index, server)));
    }
    let path = format!(
        "{wildcard}/_settings/index.translog.durability,index.number_of_replicas,index.auto_expand_replicas?flat_settings=true&expand_wildcards=open"
    );
    let live = client.get(&path).await?;
    if live.status == 200 {
        findings.extend(indices::live(&place, &wildcard, &live.json()));
    }
    Ok(findings)
}

/// Whether the cluster's own template makes data streams.
async fn is_data_stream(client: &Client, simulated: &Value, index: &str) -> Result<bool> {
    if simulated.is_null() {
        return Ok(false);
    }
    let Some(winner) = lookup::winner(client, index).await? else { return Ok(false) };
    let reply =
        get(client, &format!("_index_template/{winner}?filter_path=index_templates.index_template.data_stream"))
            .await?;
    Ok(reply.pointer("/index_templates/0/index_template/data_stream").is_some())
}

/// An answer that may be refused for want of the right to monitor: then nothing is told.
async fn get(client: &Client, path: &str) -> Result<Value> {
    let reply = client.get(path).await.with_context(|| format!("GET /{path}"))?;
    ensure!(reply.status < 500 && reply.status != 401, "Elasticsearch answers {}: {}", reply.status, reply.excerpt());
    Ok(if reply.status == 200 { reply.json() } else { Value::Null })
}
