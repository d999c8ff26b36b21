//! The status as a table for people. Pure.

use millrace_common::terminal::escape;
use millrace_common::terminal::table::{Column, bytes, grouped, page, plural};
use serde_json::Value;

use super::source::Snapshot;

const COLUMNS: [Column; 7] = [
    Column { title: "PATH", goes: 0, is_number: false },
    Column { title: "SIZE", goes: 3, is_number: true },
    Column { title: "READ", goes: 4, is_number: true },
    Column { title: "ACKED", goes: 2, is_number: true },
    Column { title: "BEHIND", goes: 0, is_number: true },
    Column { title: "IDENTITY", goes: 5, is_number: false },
    Column { title: "STATE", goes: 1, is_number: false },
];

/// Lines that fit into `columns` and, with less files if need be, into `rows`. Those furthest behind come first.
pub(super) fn render(snapshot: &Snapshot, columns: usize, rows: usize) -> String {
    let mut sources: Vec<&Value> = snapshot.sources().iter().collect();
    sources.sort_by_key(|source| {
        let behind = source["behind"].as_u64().unwrap_or_default();
        (std::cmp::Reverse(behind), source["path"].as_str().unwrap_or_default())
    });
    let notes = notes(snapshot);
    // The head, the titles, the notes, one line for what is left out, and the cursor.
    let room = rows.saturating_sub(4 + notes.len()).max(1);
    let num_hidden = sources.len().saturating_sub(room);
    sources.truncate(room);
    let cells: Vec<[String; 7]> = sources.iter().map(|source| cells(source)).collect();
    page(&headline(snapshot), &COLUMNS, &cells, num_hidden as u64, &notes, columns)
}

fn headline(snapshot: &Snapshot) -> String {
    let sources = snapshot.sources();
    let behind: u64 = sources.iter().filter_map(|source| source["behind"].as_u64()).sum();
    format!("{} ({}), {} behind", plural(sources.len(), "file"), snapshot.origin, bytes(behind))
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

#[cfg(test)]
mod tests {
    use millrace_common::terminal::table::width;
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
