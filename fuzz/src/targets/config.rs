//! The configuration files of both programs.

use millrace_common::config::Faults;
use millrace_indexer::config::Problem;

fn environment(name: &str) -> Option<String> {
    (name == "HOST").then(|| "web-1".to_owned())
}

pub fn shipper(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(faults) = millrace_shipper::config::load("f.yaml", text, &[], &environment) {
        check(&faults, text);
    }
}

pub fn indexer(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // Its folder of templates would be read from wherever the input says.
    if text.contains("dir") {
        return;
    }
    if let Err(Problem::Settings(faults)) = millrace_indexer::config::load("f.yaml", text, &[], &environment) {
        check(&faults, text);
    }
}

/// A fault's place is in the text, and a fault is one line.
fn check(faults: &Faults, text: &str) {
    assert!(!faults.is_empty(), "refused without a fault");
    let num_lines = text.split(['\n', '\r']).count();
    for fault in faults.iter() {
        // A default that is refused, and what is missing from nothing, have no place.
        if let Some((line, column)) = fault.position() {
            assert!((1..=num_lines).contains(&line) && column > 0, "{line}:{column} in {num_lines}");
        }
    }
    assert_eq!(faults.to_string().lines().count(), faults.iter().count(), "{faults}");
}
