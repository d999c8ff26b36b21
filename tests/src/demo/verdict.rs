//! The count at the end: what was written against what is in the index, for each source.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result};
use millrace_common::terminal::table::grouped;
use serde_json::{Value, json};

use super::apps::Written;
use super::machine::{MachineLog, Snapshot};
use super::setup::INDICES;
use super::tally::Tally;
use crate::elasticsearch::{Document, ElasticsearchClient};

/// One source of lines and what became of them.
pub struct Source {
    pub name: String,
    pub written: Tally,
    pub indexed: Tally,
}

impl Source {
    pub fn missing(&self) -> u64 {
        self.written.lacking_in(&self.indexed)
    }

    pub fn doubled(&self) -> u64 {
        self.indexed.lacking_in(&self.written)
    }
}

/// All that was written: by the applications, and by the machine before and meanwhile.
pub struct Expected {
    pub web: Written,
    pub worker: Written,
    pub machine: Vec<(MachineLog, Snapshot)>,
}

impl Expected {
    pub fn num_lines(&self) -> u64 {
        let machine: u64 = self.machine.iter().map(|(_, snapshot)| snapshot.tally.total()).sum();
        self.web.tally.total() + self.worker.tally.total() + machine
    }
}

/// What the index holds, for each source, and how many documents came from none of them.
pub struct Found {
    web: Tally,
    worker: Tally,
    machine: BTreeMap<String, Tally>,
    pub num_foreign: u64,
    /// Documents of lines that were written after the count of what was written.
    num_later: u64,
}

/// Reads every document of the index.
///
/// # Errors
///
/// If Elasticsearch does not answer.
pub fn read_index(node: &ElasticsearchClient, expected: &Expected) -> Result<Found> {
    let sizes: BTreeMap<&str, u64> =
        expected.machine.iter().filter_map(|(log, snapshot)| Some((log.path.to_str()?, snapshot.size))).collect();
    let mut found = Found {
        web: Tally::default(),
        worker: Tally::default(),
        machine: BTreeMap::new(),
        num_foreign: 0,
        num_later: 0,
    };
    node.for_each_document(INDICES, |document| found.add(&document, &sizes))?;
    Ok(found)
}

impl Found {
    fn add(&mut self, document: &Document, sizes: &BTreeMap<&str, u64>) {
        let field = |path| field(&document.source, path);
        let message = field("message").and_then(Value::as_str).unwrap_or_default();
        match field("service.name").and_then(Value::as_str) {
            Some("web") => {
                let id = field("http.request.id").and_then(Value::as_str).unwrap_or_default();
                let step = field("event.sequence").map(plain).unwrap_or_default();
                self.web.add(&[id, &step, message]);
            }
            Some("worker") => self.worker.add(&[message]),
            Some("machine") => {
                let path = field("log.file.path").and_then(Value::as_str).unwrap_or_default();
                let offset = field("log.offset").and_then(Value::as_u64);
                match (sizes.get(path), offset) {
                    (Some(size), Some(offset)) if offset >= *size => self.num_later += 1,
                    (Some(_), Some(_)) => self.machine.entry(path.to_owned()).or_default().add(&[message]),
                    _ => self.num_foreign += 1,
                }
            }
            _ => self.num_foreign += 1,
        }
    }

    pub fn num_later(&self) -> u64 {
        self.num_later
    }

    /// Sets what was written beside what was found.
    pub fn compare(mut self, expected: Expected) -> Vec<Source> {
        let mut sources = vec![
            Source {
                name: format!("web (JSON, rotated {}x)", expected.web.num_rotations),
                written: expected.web.tally,
                indexed: self.web,
            },
            Source {
                name: format!("worker (text, rotated {}x)", expected.worker.num_rotations),
                written: expected.worker.tally,
                indexed: self.worker,
            },
        ];
        for (log, snapshot) in expected.machine {
            let name = log.path.display().to_string();
            let indexed = self.machine.remove(&name).unwrap_or_default();
            sources.push(Source { name, written: snapshot.tally, indexed });
        }
        sources
    }
}

/// Finds a field by its dotted name, nested or dotted in the document, at the top or folded into `attrs`.
fn field<'a>(source: &'a Value, path: &str) -> Option<&'a Value> {
    fn below<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
        let object = value.as_object()?;
        if let Some(found) = object.get(path) {
            return Some(found);
        }
        path.match_indices('.').find_map(|(dot, _)| below(object.get(&path[..dot])?, &path[dot + 1..]))
    }
    below(source, path).or_else(|| below(source.get("attrs")?, path))
}

/// A number or text without quotes: in a flattened field a number may have become text.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The table of all sources. The last value is whether every line is there once.
pub fn table(sources: &[Source]) -> (String, bool) {
    let width = sources.iter().map(|source| source.name.len()).max().unwrap_or(0).max(20);
    let mut text = format!("  {:<width$} {:>10} {:>10} {:>8} {:>8}\n", "", "written", "indexed", "missing", "doubled");
    let mut sums = [0; 4];
    let mut put = |name: &str, numbers: [u64; 4]| {
        let [written, indexed, missing, doubled] = numbers.map(grouped);
        writeln!(text, "  {name:<width$} {written:>10} {indexed:>10} {missing:>8} {doubled:>8}")
            .expect("writing to a string does not fail");
    };
    for source in sources {
        let numbers = [source.written.total(), source.indexed.total(), source.missing(), source.doubled()];
        put(&source.name, numbers);
        sums.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number);
    }
    put("all", sums);
    (text, sums[2] == 0 && sums[3] == 0)
}

/// The lines of one request of the web shop in order, each as time and message.
///
/// # Errors
///
/// If Elasticsearch does not answer.
pub fn request_lines(node: &ElasticsearchClient, id: &str) -> Result<Vec<(String, String)>> {
    let terms = ["http.request.id", "attrs.http.request.id"].map(|name| json!({"term": {name: id}}));
    let body = json!({
        "size": 100,
        "query": {"bool": {"should": terms}},
        "sort": ["@timestamp", {"log.offset": {"unmapped_type": "long"}}],
    });
    let reply = node.search(INDICES, &body)?;
    let hits = reply["hits"]["hits"].as_array().context("no hits in the reply")?;
    let text = |hit: &Value, path| plain(field(&hit["_source"], path).unwrap_or(&Value::Null));
    Ok(hits.iter().map(|hit| (text(hit, "@timestamp"), text(hit, "message"))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_wherever_the_rules_put_them() {
        let source = json!({"a.b": {"c": 1}, "x": {"y.z": 2}, "attrs": {"n": {"m": "3"}}, "top": {"p": null}});
        for (path, expected) in [("a.b.c", "1"), ("x.y.z", "2"), ("n.m", "3")] {
            assert_eq!(plain(field(&source, path).unwrap()), expected);
        }
        assert_eq!(field(&source, "n"), Some(&json!({"m": "3"})));
        assert_eq!(field(&source, "none.at.all"), None);
    }

    #[test]
    fn verdict_is_bad_as_soon_as_one_line_lacks_or_is_there_twice() {
        let tally = |lines: &[&str]| {
            let mut tally = Tally::default();
            lines.iter().for_each(|line| tally.add(&[line]));
            tally
        };
        let whole = |written: &[&str], indexed: &[&str]| {
            let source = Source { name: "s".into(), written: tally(written), indexed: tally(indexed) };
            table(&[source]).1
        };
        assert!(whole(&["a", "b", "b"], &["b", "a", "b"]));
        assert!(!whole(&["a", "b"], &["a"]));
        assert!(!whole(&["a"], &["a", "a"]));
    }
}
