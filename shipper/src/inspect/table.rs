//! The status as a table for people. Pure.

use std::fmt::Write as _;

use millrace_common::terminal::escape;
use serde_json::Value;

use super::source::Snapshot;

/// A column, and how early it goes where the terminal is narrow: the highest first.
struct Column {
    title: &'static str,
    goes: u8,
    is_number: bool,
}

const COLUMNS: [Column; 7] = [
    Column { title: "PATH", goes: 0, is_number: false },
    Column { title: "SIZE", goes: 3, is_number: true },
    Column { title: "READ", goes: 4, is_number: true },
    Column { title: "ACKED", goes: 2, is_number: true },
    Column { title: "BEHIND", goes: 0, is_number: true },
    Column { title: "IDENTITY", goes: 5, is_number: false },
    Column { title: "STATE", goes: 1, is_number: false },
];
const GAP: usize = 2;
const MIN_PATH: usize = 24;

/// Lines that fit into `columns` and, with less files if need be, into `rows`. Those furthest behind come first.
pub(super) fn render(snapshot: &Snapshot, columns: usize, rows: usize) -> String {
    let mut sources: Vec<&Value> = snapshot.sources().iter().collect();
    sources.sort_by_key(|source| {
        let behind = source["behind"].as_u64().unwrap_or_default();
        (std::cmp::Reverse(behind), source["path"].as_str().unwrap_or_default())
    });
    let mut text = clip(&headline(snapshot), columns);
    text.push('\n');
    let notes = notes(snapshot);
    // The head, the titles, the notes, one line for what is left out, and the cursor.
    let room = rows.saturating_sub(4 + notes.len()).max(1);
    let num_hidden = sources.len().saturating_sub(room);
    sources.truncate(room);
    let cells: Vec<[String; 7]> = sources.iter().map(|source| cells(source)).collect();
    for line in lines(&cells, columns) {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    if num_hidden > 0 {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "… and {num_hidden} more");
    }
    for note in notes {
        text.push_str(&clip(&note, columns));
        text.push('\n');
    }
    text
}

fn headline(snapshot: &Snapshot) -> String {
    let sources = snapshot.sources();
    let behind: u64 = sources.iter().filter_map(|source| source["behind"].as_u64()).sum();
    format!("{} ({}), {} behind", plural(sources.len(), "file"), snapshot.origin, bytes(behind))
}

fn plural(num: usize, what: &str) -> String {
    format!("{num} {what}{}", if num == 1 { "" } else { "s" })
}

fn notes(snapshot: &Snapshot) -> Vec<String> {
    let status = &snapshot.status;
    let mut notes = Vec::new();
    let blocked = status["blocked"].as_array().map_or(&[][..], Vec::as_slice);
    if !blocked.is_empty() {
        let reasons: Vec<_> = blocked.iter().filter_map(Value::as_str).collect();
        notes.push(format!("blocked: {}", reasons.join(", ")));
    }
    if let Some(num) = status["ignored_files"].as_u64().filter(|&num| num > 0) {
        notes.push(format!("left alone for their age: {}", plural(num as usize, "file")));
    }
    for (reason, num) in status["lost_bytes"].as_object().into_iter().flatten() {
        notes.push(format!("given up ({}): {}", escape(reason), bytes(num.as_u64().unwrap_or_default())));
    }
    notes
}

fn cells(source: &Value) -> [String; 7] {
    let number = |key: &str| source[key].as_u64().map_or_else(|| "-".to_owned(), grouped);
    let fate = source["fate"].as_str().filter(|fate| !matches!(*fate, "listed" | "given_up"));
    let state = source["state"].as_str().unwrap_or("-");
    [
        escape(source["path"].as_str().unwrap_or("-")).into_owned(),
        number("size"),
        number("read"),
        number("acknowledged"),
        number("behind"),
        format!(
            "{}/{}",
            source["inode"].as_u64().unwrap_or_default(),
            source["generation"].as_u64().unwrap_or_default()
        ),
        escape(&fate.map_or_else(|| state.to_owned(), |fate| format!("{fate}, {state}"))).into_owned(),
    ]
}

fn lines(cells: &[[String; 7]], columns: usize) -> Vec<String> {
    let titles = COLUMNS.map(|column| column.title.to_owned());
    let all = || std::iter::once(&titles).chain(cells);
    let widths: [usize; 7] = std::array::from_fn(|at| all().map(|cells| width(&cells[at])).max().unwrap_or(0));
    let mut shown: Vec<usize> = (0..COLUMNS.len()).collect();
    let others = |shown: &[usize]| shown.iter().filter(|&&at| at > 0).map(|&at| widths[at] + GAP).sum::<usize>();
    let wanted = widths[0].min(MIN_PATH);
    while others(&shown) + wanted > columns {
        let goes = shown.iter().copied().filter(|&at| COLUMNS[at].goes > 0).max_by_key(|&at| COLUMNS[at].goes);
        let Some(goes) = goes else { break };
        shown.retain(|&at| at != goes);
    }
    let path_width = widths[0].min(columns.saturating_sub(others(&shown)).max(1));
    all()
        .map(|cells| {
            let mut line = pad(&shorten(&cells[0], path_width), path_width, false);
            for &at in shown.iter().filter(|&&at| at > 0) {
                line.push_str(&" ".repeat(GAP));
                line.push_str(&pad(&cells[at], widths[at], COLUMNS[at].is_number));
            }
            line
        })
        .collect()
}

/// Cells of a terminal that the text takes. East Asian wide characters take two; what is narrower than counted only costs room.
fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

fn char_width(c: char) -> usize {
    let is_wide = matches!(c, '\u{1100}'..='\u{115f}' | '\u{2e80}'..='\u{a4cf}' | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}' | '\u{fe30}'..='\u{fe6f}' | '\u{ff00}'..='\u{ff60}' | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1faff}' | '\u{20000}'..='\u{3fffd}');
    1 + usize::from(is_wide)
}

fn pad(text: &str, to: usize, is_right: bool) -> String {
    let blanks = " ".repeat(to.saturating_sub(width(text)));
    if is_right { blanks + text } else { text.to_owned() + &blanks }
}

/// Leaves out the beginning of a path that is too long: its end tells files apart.
fn shorten(path: &str, to: usize) -> String {
    if width(path) <= to {
        return path.to_owned();
    }
    let mut kept = Vec::new();
    let mut room = to.saturating_sub(1);
    for c in path.chars().rev() {
        let Some(rest) = room.checked_sub(char_width(c)) else { break };
        room = rest;
        kept.push(c);
    }
    std::iter::once('…').chain(kept.into_iter().rev()).collect()
}

fn clip(line: &str, columns: usize) -> String {
    let mut room = columns;
    let fits = line.chars().take_while(|&c| {
        let rest = room.checked_sub(char_width(c));
        room = rest.unwrap_or(0);
        rest.is_some()
    });
    fits.collect()
}

/// `1,234,567`
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1,234 bytes`, or `12.3 MiB`.
fn bytes(num: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, size)| num >= *size * 10) {
        Some((unit, size)) => format!("{:.1} {unit}", num as f64 / *size as f64),
        None => format!("{} bytes", grouped(num)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn snapshot() -> Snapshot {
        let source = |path: &str, size: u64, acknowledged: u64| {
            json!({
                "path": path, "size": size, "read": size, "acknowledged": acknowledged, "behind": size - acknowledged,
                "inode": 1_234_567, "generation": 2, "fate": "deleted", "state": "sending",
            })
        };
        let sources = [
            source("/var/log/app/a.log", 100, 100),
            source("/var/log/app/with/a/long/way/to/b.log", 12_345_678, 5),
            source("/var/log/\u{1b}[2J기록.log", 7, 6),
        ];
        Snapshot { status: json!({"sources": sources, "lost_bytes": {"truncated": 12}}), origin: "running".into() }
    }

    #[test]
    fn those_furthest_behind_come_first_and_nothing_acts_on_the_terminal() {
        let text = render(&snapshot(), 200, usize::MAX);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "3 files (running), 11.8 MiB behind", "{text}");
        assert!(lines[1].starts_with("PATH ") && lines[1].ends_with(" STATE"), "{text}");
        assert!(lines[2].contains("b.log") && lines[2].contains("12,345,678") && lines[2].contains("deleted, sending"));
        assert!(lines[3].starts_with("/var/log/\\u{1b}[2J기록.log"), "{text}");
        assert_eq!(lines[5], "given up (truncated): 12 bytes");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_and_the_end_of_the_path_stays() {
        for columns in [20, 30, 40, 60, 80, 120] {
            let text = render(&snapshot(), columns, usize::MAX);
            assert!(text.lines().all(|line| width(line) <= columns), "{columns}\n{text}");
            assert!(
                text.lines().any(|line| line.contains("b.log") && line.contains("12,345,673")),
                "{columns}\n{text}"
            );
        }
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let text = render(&snapshot(), 80, 6);
        assert_eq!(text.lines().count(), 5, "{text}");
        assert!(text.contains("… and 2 more"), "{text}");
    }
}
