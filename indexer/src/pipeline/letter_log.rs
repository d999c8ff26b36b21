//! What goes to the dead letters, in the log: where each record came from, never what it says.

use std::time::{Duration, Instant};

use millrace_common::json::Parser;

use crate::dead_letter::Letter;
use crate::route::find_field;

/// So many lines are written per interval; beyond, letters are only counted.
const MAX_LINES: u32 = 10;
const INTERVAL: Duration = Duration::from_secs(10);

/// Limits the lines about letters.
pub struct LetterLog {
    since: Instant,
    num_lines: u32,
    num_left_out: u64,
}

impl LetterLog {
    pub fn new(now: Instant) -> Self {
        Self { since: now, num_lines: 0, num_left_out: 0 }
    }

    /// Tells of a letter that the topic has.
    pub fn tell(&mut self, letter: &Letter, now: Instant) {
        let Some(num_left_out) = self.pass(now) else { return };
        let (path, position) = source(&letter.record.value);
        tracing::warn!(
            topic = letter.topic,
            partition = letter.partition,
            offset = letter.offset,
            id = letter.id,
            file = path,
            position,
            index = letter.index,
            reason = letter.reason.as_str(),
            field = letter.field,
            status = letter.status,
            error_type = letter.error_type,
            num_left_out = (num_left_out > 0).then_some(num_left_out),
            "record went to the dead letters"
        );
    }

    /// The letters left out since the last line, or `None` if this is one to leave out.
    fn pass(&mut self, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.since) >= INTERVAL {
            self.since = now;
            self.num_lines = 0;
        }
        if self.num_lines >= MAX_LINES {
            self.num_left_out += 1;
            return None;
        }
        self.num_lines += 1;
        Some(std::mem::take(&mut self.num_left_out))
    }
}

/// The file and the position in it that a shipper's record names.
fn source(value: &[u8]) -> (Option<String>, Option<u64>) {
    let mut parser = Parser::default();
    let Ok(document) = parser.parse(value) else { return (None, None) };
    let path = find_field(document, "log.file.path").and_then(|path| path.as_str()).map(|path| path.into_owned());
    let position = find_field(document, "log.offset").and_then(|offset| offset.raw().parse().ok());
    (path, position)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any start will do")]
    fn a_flood_of_letters_is_counted() {
        let start = Instant::now();
        let mut log = LetterLog::new(start);
        let told = (0..100).filter(|_| log.pass(start) == Some(0)).count();
        assert_eq!(told, MAX_LINES as usize);
        assert_eq!(log.pass(start + INTERVAL), Some(90));
        assert_eq!(log.pass(start + INTERVAL), Some(0));
    }

    #[test]
    fn the_source_is_what_the_shipper_wrote() {
        let value = br#"{"log":{"file":{"path":"/a.log"},"offset":7}}"#;
        assert_eq!(source(value), (Some("/a.log".into()), Some(7)));
        assert_eq!(source(b"{"), (None, None));
        assert_eq!(source(br#"{"log":1}"#), (None, None));
    }
}
