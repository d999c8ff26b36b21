//! Judges whether every line written arrived exactly once and whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::{Result, bail, ensure};
use serde_json::Value;

use crate::elasticsearch::Document;
use crate::kafka::Record;
use crate::writer::{LineId, Written};

/// One thing that arrived somewhere: a document, or a record after equal ids were made one.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Where and under which id, for messages.
    pub place: String,
    /// Its JSON.
    pub text: String,
}

/// The documents of an index: each counts, wherever it stands.
pub fn in_index(documents: &[Document]) -> Vec<Seen> {
    let seen = documents.iter().map(|document| Seen {
        place: format!("{}/{}", document.index, document.id),
        text: document.source.to_string(),
    });
    seen.collect()
}

/// The records of a log topic by distinct key: delivery is at least once, and the key is what
/// makes equal records one.
///
/// # Errors
///
/// If a record has no key.
pub fn in_topic(records: &[Record]) -> Result<Vec<Seen>> {
    distinct(records, |record| {
        let key = record.key_text();
        (!key.is_empty()).then_some(key)
    })
}

/// The dead letters by distinct record id, from the header `millrace.id`, else the key.
///
/// # Errors
///
/// If a letter has neither.
pub fn in_dead_letters(records: &[Record]) -> Result<Vec<Seen>> {
    distinct(records, |record| {
        let key = record.key_text();
        let key = (!key.is_empty()).then_some(key);
        record.header("millrace.id").or(key)
    })
}

fn distinct(records: &[Record], id: impl Fn(&Record) -> Option<String>) -> Result<Vec<Seen>> {
    let mut seen = BTreeMap::new();
    for record in records {
        let at = format!("{}@{}", record.partition, record.offset);
        let Some(id) = id(record) else {
            bail!("the record at {at} has no id: {}", record.text());
        };
        seen.entry(id).or_insert((at, record.text()));
    }
    let seen = seen.into_iter().map(|(id, (at, text))| Seen { place: format!("{id} ({at})"), text });
    Ok(seen.collect())
}

/// The lines that are among what was seen.
pub fn line_ids(seen: &[Seen]) -> BTreeSet<LineId> {
    seen.iter().filter_map(|seen| LineId::find(&seen.text)).collect()
}

/// What became of the lines of a run.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    pub num_written: usize,
    /// Lines seen exactly once, whole or not.
    pub num_once: usize,
    pub missing: Vec<LineId>,
    /// Lines seen more than once, with all places.
    pub doubled: Vec<(LineId, Vec<String>)>,
    /// Places where a line's content is not what was written, and what is wrong.
    pub altered: Vec<(String, String)>,
    /// Places that hold no line of this run.
    pub foreign: Vec<String>,
}

impl Verdict {
    /// # Errors
    ///
    /// If any line is missing, doubled or altered, or something else was among them. The message
    /// counts each and shows the first few.
    pub fn check(&self) -> Result<()> {
        let is_whole =
            self.missing.is_empty() && self.doubled.is_empty() && self.altered.is_empty() && self.foreign.is_empty();
        ensure!(is_whole, "not every line exactly once: {self}");
        ensure!(self.num_written > 0, "nothing was written, so nothing was tested");
        Ok(())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NUM_SHOWN: usize = 5;
        write!(
            f,
            "{} written, {} seen once, {} missing, {} doubled, {} altered, {} foreign",
            self.num_written,
            self.num_once,
            self.missing.len(),
            self.doubled.len(),
            self.altered.len(),
            self.foreign.len()
        )?;
        for line in self.missing.iter().take(NUM_SHOWN) {
            write!(f, "\n  missing {line}")?;
        }
        for (line, places) in self.doubled.iter().take(NUM_SHOWN) {
            write!(f, "\n  doubled {line} at {}", places.join(", "))?;
        }
        for (place, what) in self.altered.iter().take(NUM_SHOWN) {
            write!(f, "\n  altered {place}: {what}")?;
        }
        for place in self.foreign.iter().take(NUM_SHOWN) {
            write!(f, "\n  foreign {place}")?;
        }
        Ok(())
    }
}

/// Compares what was written with what was seen: each line must be there once, with its content.
///
/// A text line must be a string of the record as it was. Of a JSON line, every value must be
/// somewhere in the record, with the same digits: rules may move a value but never lose it.
pub fn judge(written: &Written, seen: &[Seen]) -> Verdict {
    let lines = written.lines();
    let mut places: BTreeMap<&LineId, Vec<&str>> = BTreeMap::new();
    let mut verdict = Verdict { num_written: lines.len(), ..Verdict::default() };
    for seen in seen {
        let id = LineId::find(&seen.text);
        match id.as_ref().and_then(|id| lines.get_key_value(id)) {
            None => verdict.foreign.push(format!("{}: {}", seen.place, seen.text)),
            Some((id, line)) => {
                places.entry(id).or_default().push(&seen.place);
                if let Some(lost) = first_lost(line, &seen.text) {
                    let what = format!("{lost} of `{line}` is not in {}", seen.text);
                    verdict.altered.push((seen.place.clone(), what));
                }
            }
        }
    }
    for id in lines.keys() {
        match places.get(id).map(Vec::as_slice) {
            None | Some([]) => verdict.missing.push(id.clone()),
            Some([_]) => verdict.num_once += 1,
            Some(many) => {
                let many = many.iter().map(|place| (*place).to_owned()).collect();
                verdict.doubled.push((id.clone(), many));
            }
        }
    }
    verdict
}

/// Returns a value of the line that the record does not hold.
fn first_lost(line: &str, record: &str) -> Option<String> {
    let mut held = BTreeSet::new();
    match serde_json::from_str(record) {
        Ok(value) => collect_leaves(&value, &mut held),
        Err(error) => return Some(format!("(the record is not JSON: {error}) everything")),
    }
    let mut wanted = BTreeSet::new();
    match serde_json::from_str::<Value>(line) {
        Ok(value @ Value::Object(_)) => collect_leaves(&value, &mut wanted),
        _ => {
            wanted.insert(line.to_owned());
        }
    }
    wanted.into_iter().find(|leaf| !held.contains(leaf))
}

fn collect_leaves(value: &Value, leaves: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => fields.values().for_each(|value| collect_leaves(value, leaves)),
        Value::Array(items) => items.iter().for_each(|value| collect_leaves(value, leaves)),
        Value::String(text) => {
            leaves.insert(text.clone());
        }
        other => {
            leaves.insert(other.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(lines: &[(u64, &str)]) -> Written {
        let written = Written::new("r");
        for (n, text) in lines {
            let id = LineId { run: "r".into(), file: "f".into(), n: *n };
            let line = text.replace("ID", &id.to_string());
            written.lines().insert(id, line);
        }
        written
    }

    fn check(written: &Written, seen: &[&str], expected: &str) {
        let seen: Vec<Seen> = seen.iter().map(|text| Seen { place: "p".into(), text: (*text).to_owned() }).collect();
        let verdict = judge(written, &seen);
        let line = verdict.to_string();
        assert_eq!(line.lines().next(), Some(expected));
        let is_good = expected.ends_with("0 missing, 0 doubled, 0 altered, 0 foreign");
        assert_eq!(verdict.check().is_ok(), is_good);
    }

    #[test]
    fn every_fault_is_seen_and_counted() {
        let text = written(&[(0, "a ID b"), (1, "c ID")]);
        let (zero, one) = (r#"{"message":"a mr~r~f~0~ b"}"#, r#"{"message":"c mr~r~f~1~"}"#);
        let ok = "2 written, 2 seen once, 0 missing, 0 doubled, 0 altered, 0 foreign";
        check(&text, &[zero, one], ok);
        let missing = "2 written, 1 seen once, 1 missing, 0 doubled, 0 altered, 0 foreign";
        check(&text, &[one], missing);
        let doubled = "2 written, 1 seen once, 0 missing, 1 doubled, 0 altered, 0 foreign";
        check(&text, &[one, zero, one], doubled);
        let torn = "2 written, 2 seen once, 0 missing, 0 doubled, 1 altered, 0 foreign";
        check(&text, &[one, r#"{"message":"a mr~r~f~0~ "}"#], torn);
        let foreign = "2 written, 2 seen once, 0 missing, 0 doubled, 0 altered, 1 foreign";
        check(&text, &[one, zero, r#"{"message":"mr~r~f~2~"}"#], foreign);
    }

    #[test]
    fn json_values_may_move_but_not_change() {
        let json = written(&[(0, r#"{"line":"ID","n":1.50,"deep":{"a":[true,null]}}"#)]);
        let ok = "1 written, 1 seen once, 0 missing, 0 doubled, 0 altered, 0 foreign";
        let altered = "1 written, 1 seen once, 0 missing, 0 doubled, 1 altered, 0 foreign";
        check(&json, &[r#"{"attrs":{"line":"mr~r~f~0~","n":1.50},"x":[null,true]}"#], ok);
        check(&json, &[r#"{"attrs":{"line":"mr~r~f~0~","n":1.25},"x":[null,true]}"#], altered);
    }
}
