//! Elasticsearch is the judge of the rule plan: for generated mappings and documents, prediction and reality must agree,
//! and what the plan decides to send must be accepted.
//!
//! `MILLRACE_PAIRS` sets how many documents are tried (default 2,000), `MILLRACE_SEED` where the generator begins.
//! `MILLRACE_ELASTICSEARCH` names another node than the shared one.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use millrace_common::json::Parser;
use millrace_indexer::map::{
    Actions, Input, NewField, OnConflict, Outcome, Plan, Prediction, RejectReason, RuleOptions, ServerVersion, State,
    Unmapped, Verdict,
};
use millrace_tests::elasticsearch::{Elasticsearch, ElasticsearchClient};
use millrace_tests::http;
use serde_json::{Map, Value, json};

const DOCUMENTS_PER_MAPPING: usize = 25;

#[test]
fn prediction_and_elasticsearch_agree() -> Result<()> {
    let mut judge = Judge::new("predict")?;
    let mut report = Report::default();
    while report.num_pairs < pairs() {
        let mapping = judge.random.mapping();
        let Some(index) = judge.index(&mapping)? else { continue };
        let paths = field_paths(&mapping, "");
        let mut live = judge.live(&index)?;
        for _ in 0..DOCUMENTS_PER_MAPPING {
            let document = judge.random.document(&paths);
            let plan =
                Plan::compile(&live["mappings"], &live["settings"], &RuleOptions::default(), ServerVersion::default())?;
            let mut parser = Parser::default();
            let parsed = parser.parse(document.as_bytes()).with_context(|| document.clone())?;
            let prediction = plan.predict(parsed);
            let error = judge.send(&index, &document)?;
            let before = live.clone();
            if error.is_none() {
                live = judge.live(&index)?;
            }
            report.add(&prediction, error.as_ref(), &before["mappings"], &live["mappings"], &document);
        }
        judge.client.delete_indices(&index)?;
    }
    report.finish()
}

#[test]
fn what_the_plan_sends_is_accepted() -> Result<()> {
    let mut judge = Judge::new("decide")?;
    let rule = RuleOptions {
        unmapped: Unmapped::Fold,
        fold_into: Some("attrs".to_owned()),
        on_conflict: OnConflict::Quarantine,
        ..RuleOptions::default()
    };
    let (mut num_pairs, mut num_rewritten, mut num_unsure) = (0, 0, 0);
    let mut faults = Vec::new();
    while num_pairs < pairs() / 2 {
        let mut mapping = judge.random.mapping();
        mapping["properties"]["attrs"] = json!({"type": "flattened"});
        mapping["subobjects"] = json!(true);
        let Some(index) = judge.index(&mapping)? else { continue };
        let live = judge.live(&index)?;
        let Ok(plan) = Plan::compile(&live["mappings"], &live["settings"], &rule, ServerVersion::default()) else {
            continue;
        };
        let paths = field_paths(&mapping, "");
        // The mapping is not read again: what earlier documents created is the state's to know.
        let mut state = State::default();
        for _ in 0..DOCUMENTS_PER_MAPPING {
            let document = judge.random.document(&paths);
            let mut parser = Parser::default();
            let parsed = parser.parse(document.as_bytes())?;
            let mut out = Vec::new();
            let input = Input { document: parsed, timestamp: None };
            let text = match plan.apply(input, &mut state, &mut out, &mut Actions::default()) {
                Verdict::Unchanged => parsed.raw().to_owned(),
                Verdict::Rewritten => String::from_utf8(out)?,
                Verdict::Reject(_) => continue,
            };
            let mut parser = Parser::default();
            if let Outcome::Unsure { .. } = plan.predict(parser.parse(text.as_bytes())?).outcome {
                // It might create what the state does not know.
                num_unsure += 1;
                continue;
            }
            num_pairs += 1;
            num_rewritten += usize::from(text != document);
            if let Some(error) = judge.send(&index, &text)? {
                faults.push(format!("{document}\n  sent {text}\n  answer {error}\n  mapping {}", live["mappings"]));
            }
        }
        judge.client.delete_indices(&index)?;
    }
    println!(
        "{num_pairs} documents sent, {num_rewritten} of them rewritten, {num_unsure} unsure, {} refused",
        faults.len()
    );
    ensure!(faults.is_empty(), "{}", faults[..faults.len().min(10)].join("\n\n"));
    ensure!(num_rewritten > 0);
    Ok(())
}

fn pairs() -> usize {
    std::env::var("MILLRACE_PAIRS").ok().and_then(|n| n.parse().ok()).unwrap_or(2_000)
}

/// A node with the generator that feeds it.
struct Judge {
    client: ElasticsearchClient,
    random: Random,
    prefix: String,
    num_indices: usize,
}

impl Judge {
    fn new(name: &str) -> Result<Self> {
        let url = match std::env::var("MILLRACE_ELASTICSEARCH") {
            Ok(url) => url,
            Err(_) => Elasticsearch::shared()?.url().to_owned(),
        };
        let seed = std::env::var("MILLRACE_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1_u64);
        let prefix = format!("differential-{name}-{seed}");
        Ok(Self { client: ElasticsearchClient::new(&url), random: Random::new(seed), prefix, num_indices: 0 })
    }

    /// Creates an index; `None` if Elasticsearch does not take the mapping.
    fn index(&mut self, mapping: &Value) -> Result<Option<String>> {
        let index = format!("{}-{}", self.prefix, self.num_indices);
        self.num_indices += 1;
        let settings = json!({
            "number_of_shards": 1,
            "number_of_replicas": 0,
            "refresh_interval": "-1",
            "translog.durability": "async",
            "mapping.total_fields.limit": self.random.pick(&[1_000, 1_000, 14]),
            "mapping.depth.limit": self.random.pick(&[20, 20, 4]),
        });
        let body = json!({"settings": settings, "mappings": mapping});
        let reply = self.client.request("PUT", &format!("/{index}"), Some(&body))?;
        ensure!(reply.status == 200 || reply.status == 400, "{}", reply.body);
        Ok((reply.status == 200).then_some(index))
    }

    fn live(&self, index: &str) -> Result<Value> {
        Ok(self.client.call("GET", &format!("/{index}"), None)?[index].take())
    }

    /// Elasticsearch's error for a document, `None` if it was indexed.
    fn send(&self, index: &str, document: &str) -> Result<Option<Value>> {
        let body = format!("{{\"create\":{{\"_index\":\"{index}\"}}}}\n{document}\n");
        let reply = http::request("POST", &format!("{}/_bulk", self.client.url()), Some(body))?;
        let reply: Value = serde_json::from_str(&reply.body)?;
        let item = reply["items"][0]["create"].clone();
        ensure!(item["status"].is_u64(), "{reply}: {document}");
        Ok(item.get("error").cloned())
    }
}

#[derive(Default)]
struct Report {
    num_pairs: usize,
    num_accepted: usize,
    num_created: usize,
    num_unsure: usize,
    faults: Vec<String>,
}

impl Report {
    fn add(&mut self, predicted: &Prediction, error: Option<&Value>, before: &Value, after: &Value, document: &str) {
        self.num_pairs += 1;
        self.num_accepted += usize::from(error.is_none());
        let fault = match (&predicted.outcome, error) {
            (Outcome::Unsure { .. }, _) => {
                self.num_unsure += 1;
                return;
            }
            (Outcome::Accepted, Some(_)) => Some("accepted".to_owned()),
            (Outcome::Rejected { detail, .. }, None) => Some(format!("rejected: {detail}")),
            // Elasticsearch does not say which field was one too many.
            (Outcome::Rejected { reason: RejectReason::FieldBudget, .. }, Some(error)) => {
                (!texts(error).contains("Limit of total fields")).then(|| "rejected for the field limit".to_owned())
            }
            (Outcome::Rejected { field, .. }, Some(error)) => {
                // Messages name fields by their full path or by their parts.
                let message = texts(error);
                let is_named = field.split('.').any(|part| message.contains(part)) || field.trim().is_empty();
                (!is_named).then(|| format!("rejected for `{field}`"))
            }
            (Outcome::Accepted, None) => {
                let (predicted, real) = (created(&predicted.creates), difference(before, after));
                self.num_created += real.len();
                (predicted != real).then(|| format!("creates {predicted:?}, really {real:?}"))
            }
        };
        if let Some(fault) = fault {
            let answer = error.map_or("indexed".to_owned(), Value::to_string);
            self.faults.push(format!("{document}\n  predicted {fault}\n  answer {answer}\n  mapping {before}"));
        }
    }

    fn finish(self) -> Result<()> {
        println!(
            "{} pairs, {} accepted, {} fields created, {} unsure, {} disagreements",
            self.num_pairs,
            self.num_accepted,
            self.num_created,
            self.num_unsure,
            self.faults.len()
        );
        ensure!(self.faults.is_empty(), "{}", self.faults[..self.faults.len().min(10)].join("\n\n"));
        ensure!(self.num_accepted * 5 > self.num_pairs, "too few accepted to mean anything");
        ensure!(self.num_unsure * 10 < self.num_pairs, "too many unsure to mean anything");
        Ok(())
    }
}

/// All strings of an error, decoded.
fn texts(error: &Value) -> String {
    match error {
        Value::String(text) => text.clone(),
        Value::Object(object) => object.values().map(texts).collect::<Vec<_>>().join(" "),
        _ => String::new(),
    }
}

type Fields = BTreeSet<(String, String)>;

fn created(fields: &[NewField]) -> Fields {
    let name = |field: &NewField| {
        if field.is_runtime { format!("runtime {}", field.type_name) } else { field.type_name.clone() }
    };
    fields.iter().map(|field| (field.path.clone(), name(field))).collect()
}

/// What `after` has and `before` has not, less what came with an object's template.
fn difference(before: &Value, after: &Value) -> Fields {
    let (mut old, mut new) = (Fields::new(), Fields::new());
    flatten(before, "", &mut old);
    flatten(after, "", &mut new);
    new.retain(|(path, _)| !path.ends_with(".from_template"));
    &new - &old
}

fn flatten(object: &Value, prefix: &str, found: &mut Fields) {
    for (name, field) in object["properties"].as_object().into_iter().flatten() {
        let path = format!("{prefix}{name}");
        let type_name = field["type"].as_str().unwrap_or("object");
        found.insert((path.clone(), type_name.to_owned()));
        flatten(field, &format!("{path}."), found);
    }
    for (name, field) in object["runtime"].as_object().into_iter().flatten() {
        found.insert((name.clone(), format!("runtime {}", field["type"].as_str().unwrap_or_default())));
    }
}

fn field_paths(object: &Value, prefix: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for (name, field) in object["properties"].as_object().into_iter().flatten() {
        let path = format!("{prefix}{name}");
        paths.extend(field_paths(field, &format!("{path}.")));
        paths.push(path);
    }
    paths
}

const NAMES: &[&str] = &["a", "b", "c", "d", "e", "f", "g"];
const MORE_NAMES: &[&str] = &["a", "b", "c", "d", "e", "f", "g", "h", "i", "h1", "i1", "new1"];
const ODD_NAMES: &[&str] =
    &["", ".", "..", " ", "a.", ".a", "a..b", "a. .b", "a.b.", "\t", "a\0", "ü", "a..", " a", "a .b", "\u{a0}", "x\ny"];
const NUMBERS: &[&str] = &["long", "integer", "short", "byte", "double", "float", "half_float"];
const FORMATS: &[&str] = &[
    "epoch_millis",
    "epoch_second",
    "strict_date_optional_time",
    "yyyy-MM-dd HH:mm:ss",
    "yyyy/MM/dd",
    "dd/MMM/yyyy:HH:mm:ss Z",
    "strict_date_time",
    "yyyy-MM-dd'T'HH:mm:ss.SSSXXX||epoch_millis",
    "strict_date_time_no_millis",
    "yyyyMMdd",
    "strict_date",
    "uuuu-MM-dd HH:mm:ss,SSS",
    "strict_date_hour_minute_second",
    "basic_date",
    "yyyy-MM-dd HH:mm:ss[.SSS]",
    "EEE MMM d HH:mm:ss yyyy",
];
const EDGES: &[&str] = &[
    "0",
    "1",
    "-1",
    "1.5",
    "-0.0",
    "1.0",
    "127",
    "128",
    "-128",
    "-129",
    "32767",
    "32768",
    "2147483647",
    "2147483648",
    "-2147483648",
    "-2147483649",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "-9223372036854775809",
    "18446744073709551615",
    "1e2",
    "1e10",
    "1.0E400",
    "1e-400",
    "65519",
    "65520",
    "65503.9",
    "3.4028235e38",
    "3.5e38",
    "1.7976931348623157e308",
    "1604948142953141464",
    "1604948142953",
    "1604948142",
    "2020",
    "0.9999",
    "127.9",
    "2147483647.5",
    "9223372036854775807.0",
    "9223372036854775808.0",
    "1e19",
    "-1e3",
    "20200101",
];
const TEXTS: &[&str] = &[
    "",
    "x",
    "1",
    "1.5",
    " 1",
    "1 ",
    "+1",
    "-1",
    "1e3",
    "NaN",
    "Infinity",
    "-Infinity",
    "1f",
    ".5",
    "5.",
    "true",
    "false",
    "True",
    "TRUE",
    " ",
    "9223372036854775807",
    "9223372036854775808",
    "1e50",
    "1e-50",
    "0e50",
    "99999999999999999999.5",
    "128",
    "32768",
    "2147483648",
    "300.7",
    "32767.5",
    "127.9",
    "2020-01-01",
    "2020-01-01T10:00:00Z",
    "2020-01-01T10:00:00.123Z",
    "2020-01-01T10:00:00.123456789+01:00",
    "2020-02-30",
    "2020-01-01T10",
    "2020-01-01T10:30",
    "2020-01-01T",
    "2020-01",
    "2020-1-1",
    "2020-01-01T10:00:00,5Z",
    "2020-01-01T10:00Z",
    "2020-01-01T25:00:00Z",
    "2020-01-01 10:00:00",
    "2020/01/01",
    "2020/01/01 10:00:00",
    "01/Jan/2020:10:00:00 +0000",
    "1604948142953",
    "1604948142953141464",
    "1604948142.5",
    "20200101",
    "2020-01-01T10:00:00.123+0100",
    "2020-01-01T10:00:00+01",
    "2020-01-01T24:00:00Z",
    "2020-01-01T23:59:60Z",
    "2300-01-01",
    "1960-01-01",
    "9999-12-31T23:59:59Z",
    "2020-13-01",
    "2020-01-01T10:00:00.",
    "2020-01-01T10:00:00.1234567890Z",
    "2020-01-01t10:00:00z",
    "2020-01-01 10:00:00,123",
    "2020-01-01 10:00:00.123",
    "Wed Jan 1 10:00:00 2020",
    "Thu Jan 1 10:00:00 2020",
    "2020-01-01T10:00:00z",
    "2020-01-01Z",
    "2020-01-01+01:00",
    "1.2.3.4",
    "256.1.1.1",
    "01.2.3.4",
    "::1",
    "1:2:3:4:5:6:7:8",
    "::ffff:1.2.3.4",
    "1.2.3",
    "g::1",
    "1:2:3:4:5:6:7::",
    "::",
    "1.2.3.4 ",
    "\0",
    "a\0b",
    "2020",
    "123",
];
/// Lengths around the limits, for a letter of one, two, three and four bytes.
const LONG_TEXTS: &[(&str, usize)] = &[
    ("a", 6),
    ("é", 5),
    ("😀", 3),
    ("a", 257),
    ("z", 8_192),
    ("k", 32_766),
    ("k", 32_767),
    ("é", 16_383),
    ("é", 16_384),
    ("€", 10_922),
    ("€", 10_923),
    ("y", 40_001),
];

/// xorshift64*: the same pairs for the same seed on every machine.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())].clone()
    }

    fn field(&mut self, has_runtime: bool) -> Value {
        let types = ["boolean", "date", "date_nanos", "ip", "keyword", "text", "flattened"];
        let type_name = if self.chance(45) { self.pick(NUMBERS) } else { self.pick(&types) };
        let mut field = Map::new();
        field.insert("type".to_owned(), type_name.into());
        let mut set = |name: &str, value: Value| field.insert(name.to_owned(), value);
        // Numbers read by `dynamic: runtime` leave their traces in Elasticsearch's parser, where `coerce: false` finds them.
        if NUMBERS.contains(&type_name) && self.chance(20) && !has_runtime {
            set("coerce", self.pick(&[true, false]).into());
        }
        if !["keyword", "text", "flattened"].contains(&type_name) && self.chance(20) {
            set("ignore_malformed", true.into());
        }
        if type_name.starts_with("date") && self.chance(85) {
            set("format", self.pick(FORMATS).into());
        }
        if type_name == "keyword" && self.chance(50) {
            set("ignore_above", self.pick(&[1, 5, 256, 8_191, 40_000]).into());
        }
        if type_name == "keyword" && self.chance(10) {
            set("index", false.into());
            set("doc_values", false.into());
        }
        if type_name == "keyword" && self.chance(10) {
            set("null_value", "N".into());
        }
        if type_name == "flattened" && self.chance(30) {
            set("depth_limit", self.pick(&[1, 2, 3]).into());
        }
        if type_name == "flattened" && self.chance(30) {
            set("ignore_above", self.pick(&[5, 8_191]).into());
        }
        if ["text", "keyword", "long"].contains(&type_name) && self.chance(20) {
            set("fields", json!({"x": {"type": self.pick(&["keyword", "long", "ip", "date"])}}));
        }
        if ["text", "keyword", "ip"].contains(&type_name) && self.chance(8) {
            set("copy_to", self.pick(&["a", "zz"]).into());
        }
        Value::Object(field)
    }

    fn object(&mut self, depth: usize, has_runtime: bool) -> Value {
        let mut properties = Map::new();
        for _ in 0..1 + self.below(4) {
            let name = self.pick(NAMES);
            let inner = if depth < 3 && self.chance(30) {
                self.object(depth + 1, has_runtime)
            } else {
                self.field(has_runtime)
            };
            properties.insert(name.to_owned(), inner);
        }
        let mut object = json!({"properties": properties});
        if self.chance(if depth == 0 { 90 } else { 40 }) {
            let words = ["true", "true", "false", "strict", "false", if has_runtime { "runtime" } else { "true" }];
            object["dynamic"] = self.pick(&words).into();
        }
        let is_plain = !object.to_string().contains("nested") && !object.to_string().contains("enabled");
        match self.below(100) {
            0..12 if depth > 0 => object["type"] = "nested".into(),
            12..25 if depth > 0 => object["enabled"] = false.into(),
            25..38 if is_plain => object["subobjects"] = false.into(),
            _ => {}
        }
        object
    }

    fn mapping(&mut self) -> Value {
        let has_runtime = self.chance(30);
        let mut mapping = self.object(0, has_runtime);
        if self.chance(25) {
            mapping["date_detection"] = self.pick(&[true, false]).into();
        }
        if self.chance(25) {
            mapping["numeric_detection"] = true.into();
        }
        if self.chance(10) {
            mapping["dynamic_date_formats"] = json!(["yyyy-MM-dd"]);
        }
        if has_runtime && self.chance(40) {
            let name = format!("{}{}", self.pick(NAMES), self.pick(&["", ".h"]));
            mapping["runtime"] = json!({name: {"type": "keyword"}});
        }
        if self.chance(40) {
            let templates: Vec<Value> =
                (0..1 + self.below(3)).map(|i| json!({format!("t{i}"): self.template(has_runtime)})).collect();
            mapping["dynamic_templates"] = templates.into();
        }
        mapping
    }

    fn template(&mut self, has_runtime: bool) -> Value {
        let mut template = Map::new();
        let mut set = |name: &str, value: Value| template.insert(name.to_owned(), value);
        let kinds = ["string", "long", "double", "boolean", "date", "object", "*"];
        let kind = self.chance(50).then(|| self.pick(&kinds));
        if let Some(kind) = kind {
            set("match_mapping_type", kind.into());
        }
        if self.chance(20) {
            set("match_pattern", "regex".into());
            set("match", self.pick(&["h\\d?", ".*1", "^i.$", "(h|i)1"]).into());
        } else {
            if self.chance(40) || kind.is_none() {
                set("match", self.pick(&["*", "h*", "*1", "i1", "new*"]).into());
            }
            if self.chance(20) {
                set("unmatch", self.pick(&["*2", "h"]).into());
            }
            if self.chance(20) {
                set("path_match", self.pick(&["a.*", "*.h", "b.*.h1", "*"]).into());
            }
            if self.chance(10) {
                set("path_unmatch", self.pick(&["b.*", "*.i1"]).into());
            }
        }
        if kind == Some("object") {
            let bodies = [
                json!({"type": "object", "enabled": false}),
                json!({"type": "flattened"}),
                json!({"type": "object", "dynamic": false}),
                json!({"type": "object", "properties": {"from_template": {"type": "long"}}}),
            ];
            set("mapping", self.pick(&bodies));
        } else if has_runtime && self.chance(20) {
            set("runtime", json!({}));
        } else {
            let bodies = [
                json!({"type": "keyword"}),
                json!({"type": "keyword", "ignore_above": 10}),
                json!({"type": "{dynamic_type}"}),
                json!({"type": "text"}),
                json!({"type": "long"}),
                json!({"type": "{dynamic_type}", "store": true}),
            ];
            set("mapping", self.pick(&bodies));
        }
        Value::Object(template)
    }

    fn document(&mut self, paths: &[String]) -> String {
        self.members(0, paths)
    }

    fn members(&mut self, depth: usize, paths: &[String]) -> String {
        let count = if depth == 0 { 1 + self.below(3) } else { self.below(4) };
        let mut members = Vec::new();
        let mut names = BTreeSet::new();
        for _ in 0..count {
            let name = if !paths.is_empty() && self.chance(75) { self.pick(paths) } else { self.name() };
            if names.insert(name.clone()) || self.chance(20) {
                members.push(format!("{}:{}", Value::String(name), self.value(depth)));
            }
        }
        format!("{{{}}}", members.join(","))
    }

    fn name(&mut self) -> String {
        match self.below(100) {
            0..72 => self.pick(MORE_NAMES).to_owned(),
            72..98 => {
                let parts: Vec<&str> = (0..2 + self.below(2)).map(|_| self.pick(MORE_NAMES)).collect();
                parts.join(".")
            }
            _ => self.pick(ODD_NAMES).to_owned(),
        }
    }

    fn value(&mut self, depth: usize) -> String {
        match self.below(100) {
            0..62 => self.scalar(),
            _ if depth > 4 => self.scalar(),
            62..78 => {
                let elements: Vec<String> = (0..self.below(4))
                    .map(|_| if self.chance(30) { self.value(depth + 1) } else { self.scalar() })
                    .collect();
                format!("[{}]", elements.join(","))
            }
            _ => self.members(depth + 1, &[]),
        }
    }

    fn scalar(&mut self) -> String {
        match self.below(100) {
            0..40 => self.pick(EDGES).to_owned(),
            40..80 => Value::String(self.pick(TEXTS).to_owned()).to_string(),
            80..85 => {
                let (letter, count) = self.pick(LONG_TEXTS);
                Value::String(letter.repeat(count)).to_string()
            }
            85..95 => self.pick(&["true", "false"]).to_owned(),
            _ => "null".to_owned(),
        }
    }
}
