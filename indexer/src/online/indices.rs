//! Whether what an index acknowledged stays. Pure.

use millrace_common::online::Finding;
use serde_json::Value;

use crate::map::{Flavor, Server};

/// What an index promises of documents that it acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Durability {
    is_async: bool,
    has_replica: bool,
}

impl Durability {
    /// Reads settings as Elasticsearch writes them, nested or flat. One replica and `request` are its defaults.
    pub(super) fn of(settings: &Value) -> Self {
        let setting = |name: &str| {
            let nested = settings.pointer(&format!("/index/{}", name.replace('.', "/")));
            let value = nested.or_else(|| settings.get(format!("index.{name}")))?;
            Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        };
        let expands = setting("auto_expand_replicas").is_some_and(|word| word != "false");
        Self {
            is_async: setting("translog.durability").is_some_and(|word| word.eq_ignore_ascii_case("async")),
            has_replica: expands || setting("number_of_replicas").is_none_or(|number| number != "0"),
        }
    }
}

const ASYNC: &str = "documents that were acknowledged in the last seconds are lost with a node, and are not sent again";
const ALONE: &str = "a lost disk loses documents whose offsets are committed";

/// What a new index of a rule would be.
pub(super) fn future(place: &str, index: &str, durability: &Durability) -> Vec<Finding> {
    let mut findings = Vec::new();
    if durability.is_async {
        let what = format!("index.translog.durability of `{index}` would be async");
        findings.push(Finding::breach(place, what, ASYNC, "set it to `request` in the template"));
    }
    if !durability.has_replica {
        let what = format!("`{index}` would have no replica");
        findings.push(Finding::breach(place, what, ALONE, "set index.number_of_replicas to 1 in the template"));
    }
    findings
}

/// What the indices of a rule are: the reply to `GET PATTERN/_settings` with flat settings.
pub(super) fn live(place: &str, pattern: &str, reply: &Value) -> Vec<Finding> {
    let all: Vec<(&String, Durability)> = reply
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, index)| (name, Durability::of(&index["settings"])))
        .collect();
    let having = |is_bad: fn(&Durability) -> bool, what: &str, stake: &str, remedy: &str| {
        let bad: Vec<&str> = all.iter().filter(|(_, index)| is_bad(index)).map(|(name, _)| name.as_str()).collect();
        let first = bad.first()?;
        let what = format!("{} of {} indices `{pattern}` {what}, among them `{first}`", bad.len(), all.len());
        Some(Finding::breach(place, what, stake, remedy))
    };
    let remedy = "PUT PATTERN/_settings with index.translog.durability: request";
    let is_async = having(|index| index.is_async, "have translog.durability: async", ASYNC, remedy);
    let remedy = "PUT PATTERN/_settings with index.number_of_replicas: 1";
    is_async.into_iter().chain(having(|index| !index.has_replica, "have no replica", ALONE, remedy)).collect()
}

/// A rule writes into a data stream.
pub(super) fn data_stream(place: &str, index: &str, server: Server) -> Finding {
    let name = if server.version.flavor == Flavor::OpenSearch { "OpenSearch" } else { "Elasticsearch" };
    let what = format!("{name} makes a data stream of `{index}`");
    let stake = "ids are unique in one backing index only: a record that is sent again after a rollover is there twice";
    Finding::breach(place, what, stake, "give the rule plain indices with dates")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_are_durable_and_both_ways_of_writing_are_read() {
        let good = Durability { is_async: false, has_replica: true };
        for settings in [
            json!({}),
            json!({"index": {"number_of_replicas": "1", "translog": {"durability": "request"}}}),
            json!({"index.number_of_replicas": "0", "index.auto_expand_replicas": "0-1"}),
        ] {
            assert_eq!(Durability::of(&settings), good, "{settings}");
        }
        let bad = Durability { is_async: true, has_replica: false };
        for settings in [
            json!({"index": {"number_of_replicas": 0, "translog": {"durability": "ASYNC"}}}),
            json!({"index.number_of_replicas": "0", "index.translog.durability": "async"}),
        ] {
            assert_eq!(Durability::of(&settings), bad, "{settings}");
        }
    }

    #[test]
    fn live_indices_are_counted_and_one_is_named() {
        let index = |replicas: &str| json!({"settings": {"index.number_of_replicas": replicas}});
        let reply = json!({"a-1": index("1"), "a-2": index("0"), "a-3": index("0")});
        let [finding] = &live("rules[0]", "a-*", &reply)[..] else { panic!("{reply}") };
        assert_eq!(finding.what, "2 of 3 indices `a-*` have no replica, among them `a-2`");
        assert_eq!(live("rules[0]", "a-*", &json!({})), []);
    }
}
