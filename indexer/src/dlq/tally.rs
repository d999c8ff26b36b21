//! Letters counted by reason, field and error type.

use std::collections::HashMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::letter::ParkedLetter;
use super::show::{escape, time, to_json};

/// Kinds counted apart, since names of fields are anybody's: beyond, they are one.
const MAX_KINDS: usize = 10_000;
const OTHER: &str = "(other)";

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Kind {
    reason: String,
    field: String,
    error_type: String,
}

struct Count {
    num: u64,
    first_ms: i64,
    last_ms: i64,
}

#[derive(Serialize)]
struct Row<'a> {
    letters: u64,
    reason: &'a str,
    field: &'a str,
    error_type: &'a str,
    first: String,
    last: String,
}

#[derive(Default)]
pub struct Tally {
    kinds: HashMap<Kind, Count>,
}

impl Tally {
    pub fn count(&mut self, letter: &ParkedLetter) {
        let mut kind =
            Kind { reason: letter.reason.clone(), field: letter.field.clone(), error_type: letter.error_type.clone() };
        if self.kinds.len() >= MAX_KINDS && !self.kinds.contains_key(&kind) {
            kind = Kind { reason: OTHER.into(), field: OTHER.into(), error_type: OTHER.into() };
        }
        let (first_ms, last_ms) = (letter.parked_ms, letter.parked_ms);
        let count = self.kinds.entry(kind).or_insert(Count { num: 0, first_ms, last_ms });
        count.num += 1;
        count.first_ms = count.first_ms.min(first_ms);
        count.last_ms = count.last_ms.max(last_ms);
    }

    /// The most frequent first.
    fn rows<'a>(&'a self) -> Vec<Row<'a>> {
        let mut kinds: Vec<_> = self.kinds.iter().collect();
        kinds.sort_by(|(a, count_a), (b, count_b)| count_b.num.cmp(&count_a.num).then_with(|| a.cmp(b)));
        let row = |(kind, count): (&'a Kind, &'a Count)| Row {
            letters: count.num,
            reason: &kind.reason,
            field: &kind.field,
            error_type: &kind.error_type,
            first: time(count.first_ms),
            last: time(count.last_ms),
        };
        kinds.into_iter().map(row).collect()
    }

    /// A table with at most `limit` rows, and what it leaves out.
    pub fn table(&self, limit: usize) -> String {
        let rows = self.rows();
        let total: u64 = rows.iter().map(|row| row.letters).sum();
        let cell = |text: &str| if text.is_empty() { "-".to_owned() } else { escape(text).into_owned() };
        let mut cells = vec![["LETTERS", "REASON", "FIELD", "ERROR TYPE", "FIRST", "LAST"].map(str::to_owned)];
        for row in rows.iter().take(limit) {
            let letters = row.letters.to_string();
            let (first, last) = (row.first.clone(), row.last.clone());
            cells.push([letters, cell(row.reason), cell(row.field), cell(row.error_type), first, last]);
        }
        let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
        let widths: Vec<usize> = (0..6).map(width).collect();
        let mut table = String::new();
        for row in &cells {
            let (a, b, c, d) = (widths[0], widths[1], widths[2], widths[3]);
            // Writing to a string cannot fail.
            let _ = writeln!(
                table,
                "{:>a$}  {:<b$}  {:<c$}  {:<d$}  {:<24}  {}",
                row[0], row[1], row[2], row[3], row[4], row[5]
            );
        }
        if rows.len() > limit {
            let _ = writeln!(table, "and {} more kinds (see --limit)", rows.len() - limit);
        }
        let _ = writeln!(table, "{total} letters");
        table
    }

    /// At most `limit` rows, each a JSON object on its line.
    pub fn json(&self, limit: usize) -> String {
        self.rows().iter().take(limit).map(|row| to_json(row) + "\n").collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally() -> Tally {
        let mut tally = Tally::default();
        for (reason, field, parked_ms) in [("not_json", "", 5), ("refused", "a", 7), ("refused", "a", 3)] {
            let (reason, field) = (reason.to_owned(), field.to_owned());
            tally.count(&ParkedLetter { reason, field, parked_ms, ..ParkedLetter::default() });
        }
        tally
    }

    #[test]
    fn the_most_frequent_kind_comes_first_with_its_times() {
        let json = tally().json(9);
        let rows: Vec<serde_json::Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((&rows[0]["letters"], &rows[0]["field"]), (&2.into(), &"a".into()));
        assert_eq!(
            (&rows[0]["first"], &rows[0]["last"]),
            (&"1970-01-01T00:00:00.003Z".into(), &"1970-01-01T00:00:00.007Z".into())
        );
        assert_eq!(rows.len(), 2);
    }

    #[test]
    fn a_table_says_what_it_leaves_out() {
        let table = tally().table(1);
        let lines: Vec<_> = table.lines().collect();
        assert!(lines[1].trim_start().starts_with("2  refused"), "{table}");
        assert_eq!(&lines[2..], ["and 1 more kinds (see --limit)", "3 letters"]);
    }

    #[test]
    fn kinds_are_bounded() {
        let mut tally = Tally::default();
        for n in 0..MAX_KINDS + 50 {
            tally.count(&ParkedLetter { field: n.to_string(), ..ParkedLetter::default() });
        }
        assert_eq!(tally.kinds.len(), MAX_KINDS + 1);
        assert!(tally.json(1).contains(r#""letters":50"#));
    }
}
