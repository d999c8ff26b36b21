//! From the bytes of a Kafka record to a document and its id.

use millrace_common::json::{Kind, SyntaxError, Value};
use millrace_common::record::RecordId;
use xxhash_rust::xxh3::Xxh3;

use crate::commit::ledger::Covered;
use crate::map::RejectReason;
use crate::reject::{Reason, Reject};
use crate::route::FieldPath;

/// The header that carries a replayed dead letter's id.
pub const ID_HEADER: &str = "millrace.id";

/// Elasticsearch's limit for `_id`.
const MAX_ID_BYTES: usize = 512;

/// A Kafka record as it was received.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds since the epoch, `None` if the topic has none.
    pub timestamp_ms: Option<i64>,
    pub key: Option<&'a [u8]>,
    /// `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Value of the header [`ID_HEADER`].
    pub id_header: Option<&'a [u8]>,
}

/// Whose record it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A shipper's: the id is the key.
    Shipper(RecordId),
    /// A replayed dead letter: the id is the header. `None`: that of another producer's record.
    Replayed(Option<RecordId>),
    /// Another producer's: the id is made of place and content.
    Foreign,
}

impl Origin {
    /// The bytes of a file that the record stands for, if it is a shipper's.
    pub fn covered(&self) -> Option<Covered> {
        match self {
            Self::Shipper(id) => Some((*id).into()),
            Self::Replayed(id) => id.map(Into::into),
            Self::Foreign => None,
        }
    }
}

/// Tells ids of records.
#[derive(Debug)]
pub struct Identifier {
    /// A record's own place in its file.
    offset: FieldPath,
}

impl Default for Identifier {
    fn default() -> Self {
        Self { offset: FieldPath::new("log.offset") }
    }
}

impl Identifier {
    /// Writes the document id of a record to `id` and says where it comes from.
    ///
    /// `document` is the parsed value, `None` if it is not JSON; then the key alone decides.
    pub fn identify(&mut self, record: &Incoming<'_>, document: Option<Value<'_, '_>>, id: &mut Vec<u8>) -> Origin {
        id.clear();
        if let Some(header) = record.id_header.filter(|header| is_legal_id(header)) {
            id.extend_from_slice(header);
            return Origin::Replayed(RecordId::decode(header));
        }
        if let Some(key) = record.key
            && let Some(decoded) = RecordId::decode(key)
            && document.is_none_or(|document| self.covers(&decoded, document))
        {
            id.extend_from_slice(key);
            return Origin::Shipper(decoded);
        }
        write_foreign_id(record, id);
        Origin::Foreign
    }

    /// Whether the record's own place in its file lies in the range that its key claims. A key that only looks like an id
    /// would hide documents behind each other.
    fn covers(&mut self, id: &RecordId, document: Value<'_, '_>) -> bool {
        let offset = self.offset.find(document).filter(|value| value.kind() == Kind::Number);
        offset.and_then(|value| value.raw().parse().ok()).is_some_and(|offset| id.range.contains(offset))
    }
}

fn is_legal_id(id: &[u8]) -> bool {
    !id.is_empty() && id.len() <= MAX_ID_BYTES && id.iter().all(|b| b.is_ascii_graphic() && !b"\"\\".contains(b))
}

/// `topic-partition-offset-H`, H = hash of time, key and value: a topic that is deleted and made again gives other ids.
fn write_foreign_id(record: &Incoming<'_>, id: &mut Vec<u8>) {
    let mut hash = Xxh3::new();
    hash.update(&record.timestamp_ms.unwrap_or(-1).to_be_bytes());
    hash.update(&record.key.map_or(-1, |key| key.len() as i64).to_be_bytes());
    hash.update(record.key.unwrap_or_default());
    hash.update(record.value.unwrap_or_default());
    let mut number = itoa::Buffer::new();
    id.extend_from_slice(record.topic.as_bytes());
    id.push(b'-');
    id.extend_from_slice(number.format(record.partition).as_bytes());
    id.push(b'-');
    id.extend_from_slice(number.format(record.offset).as_bytes());
    id.push(b'-');
    let digest = hash.digest();
    id.extend((0..16).rev().map(|digit| b"0123456789abcdef"[(digest >> (digit * 4) & 15) as usize]));
}

/// The reject for a value that is not JSON.
pub fn not_json(error: &SyntaxError) -> Reject {
    Reject { reason: Reason::NotJson, field: String::new(), detail: format!("the value is not JSON: {error}") }
}

/// Checks that a document is an object.
pub fn check_object(document: Value<'_, '_>) -> Result<(), Reject> {
    let what = match document.kind() {
        Kind::Object => return Ok(()),
        Kind::Null => "null",
        Kind::Bool(_) => "a boolean",
        Kind::Number => "a number",
        Kind::String => "a string",
        Kind::Array => "an array",
    };
    let detail = format!("the value is {what}, but a document must be an object");
    Err(Reject { reason: Reason::Rule(RejectReason::NotAnObject), field: String::new(), detail })
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_common::json::Parser;
    use millrace_common::record::{CoveredRange, SourceId};

    const ID: RecordId =
        RecordId { source: SourceId::from_u64(7), range: CoveredRange { start: 100, length: 10 }, checksum: 1 };

    fn record<'a>(key: Option<&'a [u8]>, value: &'a str, id_header: Option<&'a [u8]>) -> Incoming<'a> {
        let value = Some(value.as_bytes());
        Incoming { topic: "logs", partition: 3, offset: 42, timestamp_ms: Some(5), key, value, id_header }
    }

    fn check(record: Incoming<'_>, origin: Origin, expected: &str) {
        let mut parser = Parser::default();
        let mut id = Vec::new();
        let document = parser.parse(record.value.unwrap()).ok();
        assert_eq!(Identifier::default().identify(&record, document, &mut id), origin);
        let id = String::from_utf8(id).unwrap();
        assert!(id.starts_with(expected), "{id}");
    }

    #[test]
    fn a_shipped_record_keeps_its_key_as_id() {
        let key = ID.encode();
        let expected = ID.to_string();
        check(record(Some(&key), r#"{"log":{"offset":109}}"#, None), Origin::Shipper(ID), &expected);
        check(record(Some(&key), r#"{"log.offset":100}"#, None), Origin::Shipper(ID), &expected);
    }

    #[test]
    fn a_key_whose_range_does_not_hold_the_record_is_foreign() {
        let key = ID.encode();
        for value in [r#"{"log":{"offset":110}}"#, r#"{"log":{"offset":"105"}}"#, r#"{"log":{"offset":1e2}}"#, "{}"] {
            check(record(Some(&key), value, None), Origin::Foreign, "logs-3-42-");
        }
    }

    #[test]
    fn a_value_that_is_not_json_is_identified_by_its_key() {
        check(record(Some(&ID.encode()), "{", None), Origin::Shipper(ID), &ID.to_string());
        check(record(Some(b"user-7"), "{", None), Origin::Foreign, "logs-3-42-");
    }

    #[test]
    fn the_header_wins_unless_it_cannot_be_an_id() {
        let key = ID.encode();
        let value = r#"{"log":{"offset":100}}"#;
        check(record(Some(&key), value, Some(b"original")), Origin::Replayed(None), "original");
        check(record(None, value, Some(&key)), Origin::Replayed(Some(ID)), &ID.to_string());
        for bad in [&b""[..], b"a\nb", b"a\"b", "é".as_bytes(), &[b'x'; 513]] {
            check(record(Some(&key), value, Some(bad)), Origin::Shipper(ID), &ID.to_string());
        }
    }

    #[test]
    fn c_foreign_ids_differ_when_a_topic_is_made_again() {
        let id = |timestamp_ms, key: Option<&[u8]>, value| {
            let mut id = Vec::new();
            Identifier::default().identify(&Incoming { timestamp_ms, ..record(key, value, None) }, None, &mut id);
            id
        };
        let base = id(Some(5), Some(b"k"), "v");
        assert_eq!(base, id(Some(5), Some(b"k"), "v"));
        for other in [
            id(Some(6), Some(b"k"), "v"),
            id(Some(5), None, "v"),
            id(Some(5), Some(b"kv"), ""),
            id(None, Some(b"k"), "v"),
        ] {
            assert_ne!(base, other);
        }
    }
}
