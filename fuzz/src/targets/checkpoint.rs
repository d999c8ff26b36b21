//! A checkpoint as it stands, and its rows behind a header that fits them.

use std::io::Cursor;

use millrace_common::record::fingerprint;
use millrace_shipper::checkpoint::row::{Row, from_text, write};

pub fn run(data: &[u8]) {
    let _ = from_text(data).map(|rows| check(&rows));
    let mut whole = format!("millrace-shipper-checkpoint 1 {:016x}\n", fingerprint(data)).into_bytes();
    whole.extend_from_slice(data);
    if let Ok(rows) = from_text(&whole) {
        check(&rows);
    }
}

/// What is read is written and read again without a change.
fn check(rows: &[Row]) {
    let mut text = Cursor::new(Vec::new());
    write(rows, &mut text).expect("memory takes it");
    assert_eq!(from_text(&text.into_inner()).expect("what was written is whole"), rows);
    for row in rows {
        let _ = (row.prefix.matches(b"some bytes"), row.guard.start(), row.guard.matches(b"some bytes"));
        for note in &row.hours {
            let _ = note.clamp(0);
        }
    }
}
