//! The pipeline as a table for people. Pure.

use millrace_common::terminal::escape;
use millrace_common::terminal::table::{Column, grouped, page, plural};
use serde_json::Value;

const COLUMNS: [Column; 8] = [
    Column { title: "PATH", goes: 0, is_number: false },
    Column { title: "HOST", goes: 3, is_number: false },
    Column { title: "ACKED", goes: 4, is_number: true },
    Column { title: "INDEXED", goes: 5, is_number: true },
    Column { title: "DEAD", goes: 6, is_number: true },
    Column { title: "WAITING", goes: 2, is_number: true },
    Column { title: "MISSING", goes: 1, is_number: true },
    Column { title: "STATE", goes: 0, is_number: false },
];
/// Hosts that are told of below the table.
const MAX_NOTES: usize = 10;

/// Lines that fit into `columns` and, with less files if need be, into `rows`. `status` has the form of `/status`.
pub(super) fn render(status: &Value, columns: usize, rows: usize) -> String {
    let sources = status["sources"].as_array().map_or(&[][..], Vec::as_slice);
    let notes = notes(status);
    // The head, the titles, the notes, one line for what is left out, and the cursor.
    let room = rows.saturating_sub(4 + notes.len()).max(1).min(sources.len());
    let cells: Vec<[String; 8]> = sources[..room].iter().map(cells).collect();
    let num_hidden = (sources.len() - room) as u64 + status["left_out"]["sources"].as_u64().unwrap_or_default();
    page(&headline(status), &COLUMNS, &cells, num_hidden, &notes, columns)
}

fn headline(status: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let reason = status["pipeline"]["reason"].as_str().map(|reason| format!(" ({reason})")).unwrap_or_default();
    let num = |of: &str| {
        let listed = status[of].as_array().map_or(0, Vec::len);
        listed + status["left_out"][of].as_u64().unwrap_or_default() as usize
    };
    let states = status["states"].as_object().into_iter().flatten();
    let counted = states.filter(|(_, num)| num.as_u64() > Some(0)).map(|(state, num)| format!("{num} {state}"));
    let counted: Vec<String> = counted.collect();
    format!(
        "{}{reason}: {}, {}: {}",
        word(&status["pipeline"]["status"]),
        plural(num("hosts"), "host"),
        plural(num("sources"), "file"),
        if counted.is_empty() { "-".to_owned() } else { counted.join(", ") }
    )
}

fn notes(status: &Value) -> Vec<String> {
    let text = |value: &Value| escape(value.as_str().unwrap_or("-")).into_owned();
    let hosts = status["hosts"].as_array().into_iter().flatten().filter(|host| host["state"] != "OKAY");
    let line = |host: &Value| format!("{} {}: {}", text(&host["state"]), text(&host["name"]), text(&host["detail"]));
    hosts.take(MAX_NOTES).map(line).collect()
}

fn cells(source: &Value) -> [String; 8] {
    let number = |key: &str| source[key].as_u64().map_or_else(|| "-".to_owned(), grouped);
    let text = |key: &str| escape(source[key].as_str().unwrap_or("-")).into_owned();
    [
        text("path"),
        text("host_name"),
        number("acknowledged"),
        number("indexed"),
        number("dead_lettered"),
        number("waiting"),
        number("missing"),
        text("state"),
    ]
}

#[cfg(test)]
mod tests {
    use millrace_common::terminal::table::width;
    use serde_json::json;

    use super::*;

    fn status() -> Value {
        let source = |path: &str, state: &str| {
            json!({
                "path": path, "host_name": "web\u{1b}[2J", "acknowledged": 12_345, "indexed": 12_000, "dead_lettered": 0,
                "waiting": 0, "missing": 345, "state": state,
            })
        };
        json!({
            "pipeline": { "status": "ERROR", "reason": null },
            "states": { "OKAY": 1, "GAP": 1, "SILENT": 0 },
            "hosts": [{ "name": "web-1", "state": "GAP", "detail": "/a.log: 345 bytes are nowhere" }],
            "sources": [source("/var/log/a.log", "GAP"), source("/var/log/b.log", "OKAY")],
            "left_out": { "hosts": 0, "sources": 3 },
        })
    }

    #[test]
    fn states_numbers_and_troubles_are_told_and_nothing_acts_on_the_terminal() {
        let text = render(&status(), 200, usize::MAX);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "ERROR: 1 host, 5 files: 1 OKAY, 1 GAP", "{text}");
        assert!(
            lines[2].starts_with("/var/log/a.log  web\\u{1b}[2J  12,345   12,000") && lines[2].ends_with("345  GAP")
        );
        assert_eq!(lines[4..], ["… and 3 more", "GAP web-1: /a.log: 345 bytes are nowhere"]);
    }

    #[test]
    fn it_fits_the_terminal_and_the_state_stays() {
        for columns in [30, 40, 80] {
            let text = render(&status(), columns, 6);
            assert!(text.lines().all(|line| width(line) <= columns), "{columns}\n{text}");
            assert!(text.contains("  GAP"), "{columns}\n{text}");
            assert!(text.contains("… and 4 more"), "{text}");
        }
    }
}
