//! Prediction and decision of the plan against a server that judges: shared by the short and the long runs.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use millrace_common::json::Parser;
use millrace_indexer::map::{
    Actions, Input, NewField, OnConflict, Outcome, Plan, Prediction, RejectReason, RuleOptions, ServerVersion, State,
    Unmapped, Verdict,
};
use millrace_tests::differential::{Judge, Product, known_fields};
use serde_json::{Value, json};

const DOCUMENTS_PER_MAPPING: usize = 25;

/// Tries `num_pairs` documents: what the plan predicts, given the mapping as read, must be what the server does.
pub fn predictions(url: &str, num_pairs: usize) -> Result<()> {
    let mut judge = Judge::new(url, "predict", seed())?;
    let server = server(judge.product);
    let mut report = Report::default();
    while report.num_pairs < num_pairs {
        let Some((index, mapping)) = judge.index(|_| {})? else { continue };
        let known = known_fields(&mapping);
        let mut live = judge.live(&index)?;
        for _ in 0..DOCUMENTS_PER_MAPPING {
            let document = judge.document(&known);
            let plan = Plan::compile(&live["mappings"], &live["settings"], &RuleOptions::default(), server)?;
            let mut parser = Parser::default();
            let parsed = parser.parse(document.as_bytes()).with_context(|| document.clone())?;
            let prediction = plan.predict(parsed);
            if is_never_answered(&prediction) {
                report.num_unanswered += 1;
                continue;
            }
            let error = judge.send(&index, &document).with_context(|| document.clone())?;
            // A document can leave new fields behind even if it is refused in the end.
            let before = std::mem::replace(&mut live, judge.live(&index)?);
            report.add(&prediction, error.as_ref(), &before, &live["mappings"], &document);
        }
        judge.client.delete_indices(&index)?;
    }
    report.finish(&judge)
}

/// Tries `num_pairs` documents: what the plan decides to send must be accepted.
pub fn decisions(url: &str, num_pairs: usize) -> Result<()> {
    let mut judge = Judge::new(url, "decide", seed())?;
    let server = server(judge.product);
    let flattened = if judge.product.is_opensearch { "flat_object" } else { "flattened" };
    let rule = RuleOptions {
        unmapped: Unmapped::Fold,
        fold_into: Some("attrs".to_owned()),
        on_conflict: OnConflict::Quarantine,
        ..RuleOptions::default()
    };
    let (mut num_tried, mut num_rewritten, mut num_unsure) = (0, 0, 0);
    let mut faults = Vec::new();
    while num_tried < num_pairs {
        let adapt = |mapping: &mut Value| {
            mapping["properties"]["attrs"] = json!({"type": flattened});
            if let Some(mapping) = mapping.as_object_mut() {
                mapping.remove("subobjects");
            }
        };
        let Some((index, mapping)) = judge.index(adapt)? else { continue };
        let live = judge.live(&index)?;
        let Ok(plan) = Plan::compile(&live["mappings"], &live["settings"], &rule, server) else { continue };
        let known = known_fields(&mapping);
        // The mapping is not read again: what earlier documents created is the state's to know.
        let mut state = State::default();
        for _ in 0..DOCUMENTS_PER_MAPPING {
            let document = judge.document(&known);
            let mut parser = Parser::default();
            let parsed = parser.parse(document.as_bytes())?;
            let mut out = Vec::new();
            let input = Input { document: parsed, timestamp: None };
            let before = state.clone();
            let text = match plan.apply(input, &mut state, &mut out, &mut Actions::default()) {
                Verdict::Unchanged => parsed.raw().to_owned(),
                Verdict::Rewritten => String::from_utf8(out)?,
                Verdict::Reject(_) => continue,
            };
            let mut parser = Parser::default();
            if let Outcome::Unsure { .. } = plan.predict(parser.parse(text.as_bytes())?).outcome {
                // It might create what the state does not know. Not sent, it creates nothing.
                state = before;
                num_unsure += 1;
                continue;
            }
            num_tried += 1;
            num_rewritten += usize::from(text != document);
            if let Some(error) = judge.send(&index, &text)? {
                faults.push(format!("{document}\n  sent {text}\n  answer {error}\n  index {live}"));
            }
        }
        judge.client.delete_indices(&index)?;
    }
    println!(
        "{:?}: {num_tried} documents sent, {num_rewritten} of them rewritten, {num_unsure} unsure, {} refused",
        judge.product,
        faults.len()
    );
    ensure!(faults.is_empty(), "{}", faults[..faults.len().min(40)].join("\n\n"));
    ensure!(num_rewritten > 0);
    Ok(())
}

/// `heavy::differential` shows that it is so.
fn is_never_answered(prediction: &Prediction) -> bool {
    matches!(&prediction.outcome, Outcome::Rejected { detail, .. } if detail.contains("never answered"))
}

/// `MILLRACE_PAIRS`, or `default`.
pub fn pairs(default: usize) -> usize {
    std::env::var("MILLRACE_PAIRS").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// `MILLRACE_SEED`: where the generator begins.
fn seed() -> u64 {
    std::env::var("MILLRACE_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1)
}

fn server(product: Product) -> ServerVersion {
    match product.is_opensearch {
        true => ServerVersion::opensearch(product.major, product.minor),
        false => ServerVersion::elasticsearch(product.major, product.minor),
    }
}

#[derive(Default)]
struct Report {
    num_pairs: usize,
    num_accepted: usize,
    num_created: usize,
    num_unsure: usize,
    num_unanswered: usize,
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
                let words = ["Limit of total fields", "depth of the field has exceeded"];
                (!words.iter().any(|words| texts(error).contains(words)))
                    .then(|| "rejected for the field limit".to_owned())
            }
            (Outcome::Rejected { field, detail, .. }, Some(error)) => {
                let message = texts(error);
                (!is_about(&message, field, detail)).then(|| format!("rejected for `{field}`: {detail}"))
            }
            (Outcome::Accepted, None) => {
                let (predicted, real) = (created(&predicted.creates), difference(&before["mappings"], after));
                self.num_created += real.len();
                (predicted != real).then(|| format!("creates {predicted:?}, really {real:?}"))
            }
        };
        if let Some(fault) = fault {
            let answer = error.map_or("indexed".to_owned(), Value::to_string);
            self.faults.push(format!("{document}\n  predicted {fault}\n  answer {answer}\n  index {before}"));
        }
    }

    fn finish(self, judge: &Judge) -> Result<()> {
        println!(
            "{:?}: {} pairs, {} accepted, {} fields created, {} unsure, {} not sent since never answered, {} disagreements, {} mappings not taken",
            judge.product,
            self.num_pairs,
            self.num_accepted,
            self.num_created,
            self.num_unsure,
            self.num_unanswered,
            self.faults.len(),
            judge.num_refused
        );
        ensure!(self.faults.is_empty(), "{}", self.faults[..self.faults.len().min(40)].join("\n\n"));
        ensure!(self.num_accepted * 5 > self.num_pairs, "too few accepted to mean anything");
        ensure!(self.num_unsure * 10 < self.num_pairs, "too many unsure to mean anything");
        Ok(())
    }
}

/// Whether the server's words are about the field. They name it in brackets or quotes, by its path or the end of it.
fn is_about(message: &str, field: &str, detail: &str) -> bool {
    // These name no field, or what lies above it.
    let nameless = [
        "name cannot contain only dots",
        "name cannot be an empty string",
        "found extra data after parsing",
        "Missing intermediate object",
        "depth of the field has exceeded",
        "Limit of mapping depth",
        "cannot be cast to class",
        "Unexpected character",
        "null_pointer_exception",
        "number of nested documents has exceeded",
    ];
    // Of several fields that cannot be merged the server picks one by its own order.
    let is_merge = detail.contains("would be both")
        && ["cannot be changed from type", "can't merge", "conflicts with existing mapper"]
            .iter()
            .any(|words| message.contains(words));
    if field.trim().is_empty() || is_merge || nameless.iter().any(|words| message.contains(words)) {
        return true;
    }
    let ends = std::iter::successors(Some(field), |path| Some(path.split_once('.')?.1));
    let quotes = [('[', ']'), ('\'', '\''), ('"', '"'), ('"', '.')];
    ends.into_iter().any(|name| quotes.iter().any(|(open, close)| message.contains(&format!("{open}{name}{close}"))))
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
