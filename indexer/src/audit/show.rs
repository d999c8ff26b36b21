//! The audit in words and as JSON. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;

use millrace_common::terminal::escape;
use millrace_common::terminal::table::{grouped, plural};
use serde_json::{Value, json};

use super::Audited;
use crate::watch::report::source_fact;
use crate::watch::view::{Source, View};

fn facts<'a>(view: &'a View, audited: &Audited) -> Option<&'a Source> {
    view.sources.get(&(audited.verdict.host.clone(), audited.verdict.source))
}

/// Bytes that shippers gave up, by reason.
fn given_up(source: &Source) -> BTreeMap<&str, u64> {
    let mut reasons = BTreeMap::new();
    for gap in source.row.gaps.iter().filter(|gap| gap.is_loss()) {
        *reasons.entry(gap.reason.as_str()).or_default() += gap.end - gap.start;
    }
    reasons
}

fn pairs(ranges: &[Range<u64>]) -> Vec<[u64; 2]> {
    ranges.iter().map(|range| [range.start, range.end]).collect()
}

pub(super) fn json(view: &View, audited: &[Audited]) -> String {
    let sources = audited.iter().filter_map(|audited| {
        let mut fact = source_fact(view, &audited.verdict)?;
        fact["late"] = audited.late.into();
        // All of them, and not only the first as in `/status`.
        fact["holes"] = pairs(&audited.verdict.holes).into();
        fact["deleted"] = pairs(&audited.deleted).into();
        fact["given_up_by_reason"] = json!(given_up(facts(view, audited)?));
        Some(fact)
    });
    let sources: Vec<Value> = sources.collect();
    let sum = |key: &str| sources.iter().filter_map(|source| source[key].as_u64()).sum::<u64>();
    let deleted: u64 = audited.iter().flat_map(|audited| &audited.deleted).map(|range| range.end - range.start).sum();
    let is_whole = sum("missing") == 0 && deleted == 0 && sum("late") == 0;
    let total = json!({
        "acknowledged": sum("acknowledged"), "indexed": sum("indexed"), "dead_lettered": sum("dead_lettered"),
        "skipped": sum("skipped"), "merged": sum("merged"), "given_up": sum("given_up"), "waiting": sum("waiting"),
        "missing": sum("missing"), "deleted": deleted, "duplicates": sum("duplicates"), "dead_letters": sum("dead_letters"),
    });
    format!("{:#}\n", json!({ "whole": is_whole, "total": total, "sources": sources }))
}

pub(super) fn text(view: &View, audited: &[Audited], is_verified: bool) -> String {
    let mut text = String::new();
    let mut num_holes = 0;
    for audited in audited {
        let Some(source) = facts(view, audited) else { continue };
        let verdict = &audited.verdict;
        let place = format!("{}:{}", escape(&source.row.host_name), escape(&source.row.path));
        let mut words = vec![format!("{} bytes covered", grouped(verdict.indexed + verdict.merged))];
        let mut add = |num: u64, what: &str| {
            if num > 0 {
                words.push(format!("{} {what}", grouped(num)));
            }
        };
        add(verdict.dead_lettered, "bytes dead-lettered");
        add(verdict.num_dead_letters, "dead letters");
        add(verdict.skipped, "bytes skipped as too old");
        add(verdict.num_duplicates, "duplicates refused");
        add(verdict.waiting, "bytes waiting");
        for (reason, num) in given_up(source) {
            add(num, &format!("bytes given up ({})", escape(reason)));
        }
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{place} ({}): {}", verdict.source, words.join(", "));
        for hole in &verdict.holes {
            let _ = writeln!(text, "  HOLE {place} {}..{}: no record brought these bytes", hole.start, hole.end);
        }
        for hole in &audited.deleted {
            let _ = writeln!(text, "  HOLE {place} {}..{}: indexed, and not in the index", hole.start, hole.end);
        }
        num_holes += verdict.holes.len() + audited.deleted.len();
    }
    let late: u64 = audited.iter().map(|audited| audited.late).sum();
    let verdict = match (num_holes, late) {
        (0, 0) if is_verified => "whole, and the index has it all".to_owned(),
        (0, 0) => "whole".to_owned(),
        (0, late) => format!("{} bytes are still on their way", grouped(late)),
        (num, _) => plural(num, "hole"),
    };
    let _ = writeln!(text, "{}: {verdict}", plural(audited.len(), "file"));
    text
}
