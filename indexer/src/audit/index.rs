//! What Elasticsearch itself has: the ids in the indices, which say what each document covers.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use anyhow::{Result, ensure};
use elasticsearch::http::Method;
use millrace_common::ledger::Intervals;
use millrace_common::record::{RecordId, SourceId};
use serde_json::{Value, json};

use crate::bulk::client::Client;
use crate::config::Config;
use crate::watch::view::View;

/// Documents asked for at a time.
const PAGE: usize = 5_000;
/// Up to so many sources are named in the query; for more, all documents are looked at.
const MAX_NAMED: usize = 1_000;
const SCROLL: &str = "2m";

/// The ranges of `wanted` sources that the indices of all rules hold.
pub async fn ranges(config: &Config, wanted: &[SourceId]) -> Result<HashMap<SourceId, Intervals>> {
    let client = Client::new(config.elasticsearch.clone())?;
    let patterns: HashSet<String> = config.rules.iter().map(|rule| rule.index.wildcard()).collect();
    let pattern = patterns.into_iter().collect::<Vec<_>>().join(",");
    // Documents are found only once their index was refreshed, which may be a minute later.
    call(&client, &format!("{pattern}/_refresh?ignore_unavailable=true&allow_no_indices=true"), None).await?;
    let query = query(&client, &pattern, wanted).await?;
    let sources: HashSet<SourceId> = wanted.iter().copied().collect();
    let mut found: HashMap<SourceId, Intervals> = HashMap::new();
    let first = json!({ "size": PAGE, "sort": ["_doc"], "_source": false, "query": query });
    let path = format!("{pattern}/_search?scroll={SCROLL}&ignore_unavailable=true&allow_no_indices=true");
    let mut page = call(&client, &path, Some(&first)).await?;
    loop {
        ensure!(page["_shards"]["failed"] == 0 && page["timed_out"] != true, "Elasticsearch cannot search all shards");
        let hits = page["hits"]["hits"].as_array().map_or(&[][..], Vec::as_slice);
        if hits.is_empty() {
            break;
        }
        for id in hits.iter().filter_map(|hit| RecordId::decode(hit["_id"].as_str()?.as_bytes())) {
            if sources.contains(&id.source) {
                found.entry(id.source).or_default().insert(id.range.start..id.range.end());
            }
        }
        let next = json!({ "scroll": SCROLL, "scroll_id": page["_scroll_id"] });
        page = call(&client, "_search/scroll", Some(&next)).await?;
    }
    let over = json!({ "scroll_id": [page["_scroll_id"]] });
    // It would end by itself.
    let _ = client.call(Method::Delete, "_search/scroll", Some(&over)).await;
    Ok(found)
}

/// Only the documents of the wanted sources, where the mapping can tell them.
async fn query(client: &Client, pattern: &str, wanted: &[SourceId]) -> Result<Value> {
    if wanted.len() > MAX_NAMED {
        return Ok(json!({ "match_all": {} }));
    }
    let path = format!(
        "{pattern}/_field_caps?fields=log.source&include_unmapped=true&ignore_unavailable=true&allow_no_indices=true"
    );
    let caps = call(client, &path, None).await?;
    let kinds = caps["fields"]["log.source"].as_object();
    let is_keyword = kinds.is_some_and(|kinds| {
        kinds.len() == 1 && kinds.get("keyword").is_some_and(|keyword| keyword["searchable"] == true)
    });
    Ok(match is_keyword {
        true => json!({ "terms": { "log.source": wanted } }),
        false => json!({ "match_all": {} }),
    })
}

async fn call(client: &Client, path: &str, body: Option<&Value>) -> Result<Value> {
    let reply = client.call(Method::Post, path, body).await?;
    ensure!((200..300).contains(&reply.status), "Elasticsearch answers {}: {}", reply.status, reply.excerpt());
    Ok(reply.json())
}

/// The ranges of a source that were told as indexed and are not among those found.
pub fn missing(view: &View, source: SourceId, found: &HashMap<SourceId, Intervals>) -> Vec<Range<u64>> {
    let told: Intervals = view.finished(source).iter().flat_map(|finished| finished.row.indexed.iter()).collect();
    let none = Intervals::default();
    let found = found.get(&source).unwrap_or(&none);
    told.iter().flat_map(|range| found.holes(range)).collect()
}
