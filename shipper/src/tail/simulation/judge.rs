//! What must be in the topics once all faults have ended: see the module's contract.

use std::collections::BTreeMap;

use millrace_common::record::RecordId;

use super::World;

impl World {
    /// Prints where things stand, for a replayed schedule.
    pub(super) fn show(&self) {
        for (path, inode) in &self.files.0.borrow().names {
            let inode = inode.borrow();
            eprintln!("file {} inode {} {:?}", path.display(), inode.number, String::from_utf8_lossy(&inode.content));
        }
        for m in &self.topics.borrow().log {
            let id = RecordId::decode(&m.key).unwrap();
            eprintln!("record {} {}+{} {:?}", id.source, id.range.start, id.range.length, message(&m.value));
        }
        for source in self.tailer.iter().flat_map(|tailer| tailer.rows()) {
            eprintln!(
                "source {} {} generation {} covered {} size {} acknowledged {} outstanding {} unfinished {:?} long {:?} queued {} waits {:?} retry {:?} fate {:?} waiting {:?} {:?} boundaries {:?}",
                source.id,
                source.current_path.display(),
                source.generation,
                source.covered,
                source.size,
                source.ledger.acknowledged(),
                source.ledger.num_outstanding(),
                source.unfinished,
                source.long,
                source.is_queued,
                source.waits_for,
                source.retry_at,
                source.fate,
                source.waiting,
                source.rotation,
                source.boundaries,
            );
        }
    }

    pub(super) fn judge(&self) -> Result<(), String> {
        let topics = self.topics.borrow();
        self.rows.borrow().judge(&topics.log)?;
        let mut by_id: BTreeMap<&[u8], (String, i64, i32)> = BTreeMap::new();
        for m in &topics.log {
            let (text, time) = message(&m.value);
            if self.topic_by_line.get(&text).is_some_and(|topic| *topic != m.topic) {
                return Err(format!("`{text}` is in topic {}", m.topic));
            }
            let hour = m.timestamp_ms.div_euclid(3_600_000);
            // A wrapped line has the time of its runtime, which no second reading changes.
            let is_wrapped = m.value.windows(10).any(|bytes| bytes == b"\"stream\":\"");
            if hour != time && !is_wrapped {
                return Err(format!("record time and Kafka time differ for `{text}`"));
            }
            let known = by_id.entry(&m.key).or_insert_with(|| (text.clone(), hour, m.partition));
            if known.0 != text {
                return Err(format!("one id for `{}` and `{text}`", known.0));
            }
            if known.1 != hour {
                let id = RecordId::decode(&m.key);
                return Err(format!("`{text}` has two hours: {} and {hour}: {id:?}", known.1));
            }
        }
        let mut seen = BTreeMap::new();
        for (text, _, _) in by_id.values() {
            // What goes on after a file that nobody saw looks like the rest of the one before it.
            if !self.is_destroyed {
                self.kind.check_event(text)?;
            }
            for piece in self.kind.pieces_of_message(text) {
                *seen.entry(piece).or_insert(0) += 1;
            }
        }
        // A line that stood unfinished may come as two records; together they are the line. Those whose end may be gone take
        // what the others leave.
        let (may_lose, must_keep): (Vec<_>, Vec<_>) =
            self.divisible.iter().partition(|line| self.excused.contains(*line));
        for line in must_keep.into_iter().chain(may_lose) {
            let Some(head) = line.strip_suffix("end") else { continue };
            if !seen.contains_key(line)
                && let Some(count) = seen.remove(head)
            {
                match seen.get_mut("end") {
                    Some(tail) if *tail > 0 => {
                        *tail -= 1;
                        seen.insert(line.clone(), count);
                    }
                    _ if self.excused.contains(line) => {}
                    _ => return Err(format!("`{line}` lost its end")),
                }
            }
        }
        seen.retain(|text, count| *count > 0 || text != "end");
        for line in &self.written {
            match seen.remove(line) {
                Some(1) => {}
                Some(2) if self.has_lost_carry || self.may_miss_copies => {}
                Some(count) => return Err(format!("`{line}` {count} times")),
                None if self.excused.contains(line) => {}
                None => return Err(format!("`{line}` is missing")),
            }
        }
        // What is left: unfinished lines of truncated files that were flushed, whole as far as they went.
        match seen.keys().find(|text| !self.excused.contains(*text) && *text != "end") {
            Some(torn) => Err(format!("`{torn}` was never written like this")),
            None => Ok(()),
        }
    }
}

/// The message of a record and the hour of its time.
pub(super) fn message(value: &[u8]) -> (String, i64) {
    let record: serde_json::Value = serde_json::from_slice(value).unwrap();
    let time: jiff::Timestamp = record["@timestamp"].as_str().unwrap().parse().unwrap();
    (record["message"].as_str().unwrap().to_owned(), time.as_millisecond().div_euclid(3_600_000))
}
