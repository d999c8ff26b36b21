//! Bulk bodies and what stands in them.
//!
//! A batch holds its documents in the form that goes over the wire, so that a document is written once. Each item knows
//! where it stands in the body and which record it settles.

use std::ops::{Deref, Range};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::commit::ledger::Sequence;
use crate::route::EpochMillis;

/// Place of a partition in the owner's table, and the assignment it is from: an item of an earlier assignment settles
/// nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    pub slot: u32,
    pub epoch: u32,
}

/// The record that a document settles, and what became of it so far.
#[derive(Clone, Copy, Debug)]
pub struct Settles {
    pub owner: Owner,
    pub sequence: Sequence,
    /// The index it goes to, in the owner's table.
    pub target: u32,
    /// The record's Kafka timestamp.
    pub kafka_time: EpochMillis,
    /// Requests that carried it.
    pub attempts: u16,
    /// Its index is blocked: it counts as parked.
    pub is_parked: bool,
    /// It was refused before, and stands here by a newer plan.
    pub is_planned_anew: bool,
}

impl Settles {
    /// A record that was not sent yet.
    pub fn new(owner: Owner, sequence: Sequence, target: u32, kafka_time: EpochMillis) -> Self {
        Self { owner, sequence, target, kafka_time, attempts: 0, is_parked: false, is_planned_anew: false }
    }
}

/// One document of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Item {
    pub settles: Settles,
    start: u32,
    /// Bytes of the `_id` in the action line; 0 if Elasticsearch is to make one.
    id: u32,
    document: u32,
    end: u32,
    original: Option<Original>,
}

/// Where the record's own id, key and value stand among the originals.
#[derive(Clone, Copy, Debug)]
struct Original {
    start: u32,
    /// 0: the id stands in the action line.
    id: u32,
    key: Option<u32>,
    value: u32,
}

impl Original {
    fn length(&self) -> u32 {
        self.id + self.key.unwrap_or(0) + self.value
    }
}

impl Deref for Item {
    type Target = Settles;

    fn deref(&self) -> &Settles {
        &self.settles
    }
}

impl Item {
    /// Bytes that count against the budgets.
    pub fn size(&self) -> u64 {
        let original = self.original.map_or(0, |original| original.length());
        u64::from(self.end - self.start) + u64::from(original)
    }

    /// Bytes that count as parked.
    pub fn parked_size(&self) -> u64 {
        if self.is_parked { self.size() } else { 0 }
    }
}

/// A finished bulk body. Cloning the body is cheap.
#[derive(Debug, Default)]
pub struct Batch {
    pub body: Bytes,
    pub items: Vec<Item>,
    originals: Vec<u8>,
}

/// The record behind an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub key: Option<Vec<u8>>,
    pub value: Vec<u8>,
}

const ACTION_ID: &[u8] = br#"","_id":""#;
const ACTION_END: &[u8] = b"\"}}\n";

impl Batch {
    /// The `_id` that an item's action line gives; `None` if Elasticsearch is to make one.
    pub fn sent_id(&self, item: &Item) -> Option<&[u8]> {
        let end = item.document as usize - ACTION_END.len();
        (item.id > 0).then(|| &self.body[end - item.id as usize..end])
    }

    /// The id of an item's record.
    pub fn id(&self, item: &Item) -> &[u8] {
        let kept = item.original.filter(|original| original.id > 0);
        let kept = kept.map(|original| &self.originals[range(original.start, original.id)]);
        kept.or_else(|| self.sent_id(item)).unwrap_or_default()
    }

    /// The document of an item, without the line end.
    pub fn document(&self, item: &Item) -> &[u8] {
        &self.body[item.document as usize..item.end as usize - 1]
    }

    /// The record of an item, byte for byte as it was received.
    pub fn record(&self, item: &Item) -> Record {
        let Some(original) = item.original else {
            return Record { key: Some(self.id(item).to_vec()), value: self.document(item).to_vec() };
        };
        let start = original.start + original.id;
        let key = original.key.map(|length| range(start, length));
        let value = range(start + original.key.unwrap_or(0), original.value);
        Record { key: key.map(|key| self.originals[key].to_vec()), value: self.originals[value].to_vec() }
    }

    pub fn size(&self) -> u64 {
        (self.body.len() + self.originals.len()) as u64
    }

    /// A batch of some of the items, in order. `indices` must be in range.
    pub fn select(&self, indices: impl IntoIterator<Item = usize>) -> Self {
        let mut writer = Copying::default();
        for index in indices {
            writer.copy(self, &self.items[index]);
        }
        writer.finish()
    }

    /// Two parts of about equal size in bytes, each with at least one item; `None` if there are not two items.
    pub fn split_bytes(&self) -> Option<[Self; 2]> {
        let half = self.body.len() / 2;
        self.split_at(self.items.iter().position(|item| item.end as usize > half).unwrap_or(0))
    }

    /// Two parts of equal count, so that halving down to one item takes the logarithm of their number; `None` if there are
    /// not two items.
    pub fn split_count(&self) -> Option<[Self; 2]> {
        self.split_at(self.items.len() / 2)
    }

    fn split_at(&self, cut: usize) -> Option<[Self; 2]> {
        let last = self.items.len().checked_sub(1).filter(|&last| last > 0)?;
        let cut = cut.clamp(1, last);
        Some([self.select(0..cut), self.select(cut..self.items.len())])
    }

    /// One batch of several.
    pub fn merge(batches: &[Self]) -> Self {
        let mut writer = Copying::default();
        for batch in batches {
            for item in &batch.items {
                writer.copy(batch, item);
            }
        }
        writer.finish()
    }
}

fn range(start: u32, length: u32) -> Range<usize> {
    start as usize..(start + length) as usize
}

#[derive(Default)]
struct Copying {
    body: Vec<u8>,
    items: Vec<Item>,
    originals: Vec<u8>,
}

impl Copying {
    fn copy(&mut self, from: &Batch, item: &Item) {
        let start = self.body.len() as u32;
        self.body.extend_from_slice(&from.body[item.start as usize..item.end as usize]);
        let original = item.original.map(|original| {
            let start = self.originals.len() as u32;
            self.originals.extend_from_slice(&from.originals[range(original.start, original.length())]);
            Original { start, ..original }
        });
        let document = start + (item.document - item.start);
        self.items.push(Item { start, document, end: self.body.len() as u32, original, ..*item });
    }

    fn finish(self) -> Batch {
        Batch { body: self.body.into(), items: self.items, originals: self.originals }
    }
}

/// When a batch is cut.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub max_bytes: usize,
    pub max_documents: usize,
    pub max_delay: Duration,
}

impl Limits {
    /// Ranges are kept in 32 bits; a batch may pass `max_bytes` by one document, which librdkafka limits to 1 GB.
    pub const MAX_BYTES: usize = 1 << 30;
}

/// The batch that is being filled.
#[derive(Debug)]
pub struct Builder {
    limits: Limits,
    body: Vec<u8>,
    items: Vec<Item>,
    originals: Vec<u8>,
    /// Of body and originals of the last batch.
    usual_bytes: (usize, usize),
    /// Of batches that are settled.
    spare: Vec<(Vec<u8>, Vec<Item>)>,
    opened: Option<Instant>,
}

/// A document being written: see [`Builder::begin`].
#[derive(Debug)]
#[must_use]
pub struct Draft {
    start: usize,
    id: usize,
    document: usize,
}

/// What a document must remember of its record so that it can be given back byte for byte.
#[derive(Clone, Copy, Debug)]
pub enum Keep<'a> {
    /// The key is the id and the value is the document: the body tells it all.
    Nothing,
    Record {
        /// Empty if it stands in the action line.
        id: &'a [u8],
        key: Option<&'a [u8]>,
        value: &'a [u8],
    },
}

impl Builder {
    const MOST_SPARE: usize = 2;

    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            body: Vec::new(),
            items: Vec::new(),
            originals: Vec::new(),
            usual_bytes: (64 << 10, 0),
            spare: Vec::new(),
            opened: None,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Begins a document: writes its action line. `index` and `id` must need no escapes in JSON; without an id, Elasticsearch
    /// makes one. The caller appends the document to [`Builder::body`], then calls [`Builder::finish`] or
    /// [`Builder::give_up`].
    pub fn begin(&mut self, index: &str, id: Option<&[u8]>) -> Draft {
        if self.body.capacity() == 0 {
            if let Some((body, items)) = self.spare.pop() {
                (self.body, self.items) = (body, items);
            }
            // Growing by doubling would copy the body several times. The greatest size for all would cost its pages.
            self.body.reserve(self.usual_bytes.0 + self.usual_bytes.0 / 8);
            self.originals.reserve(self.usual_bytes.1 + self.usual_bytes.1 / 8);
        }
        let start = self.body.len();
        self.body.extend_from_slice(br#"{"create":{"_index":""#);
        self.body.extend_from_slice(index.as_bytes());
        if let Some(id) = id {
            self.body.extend_from_slice(ACTION_ID);
            self.body.extend_from_slice(id);
        }
        self.body.extend_from_slice(ACTION_END);
        Draft { start, id: id.map_or(0, <[u8]>::len), document: self.body.len() }
    }

    /// Where the document is appended, on one line and without a line end.
    pub fn body(&mut self) -> &mut Vec<u8> {
        &mut self.body
    }

    /// The document as written so far.
    pub fn document(&self, draft: &Draft) -> &[u8] {
        &self.body[draft.document..]
    }

    /// Ends a document. Returns its item.
    pub fn finish(&mut self, draft: Draft, settles: Settles, keep: Keep<'_>, now: Instant) -> Item {
        debug_assert!(memchr::memchr2(b'\n', b'\r', &self.body[draft.document..]).is_none());
        self.body.push(b'\n');
        let original = match keep {
            Keep::Nothing => None,
            Keep::Record { id, key, value } => {
                let start = self.originals.len() as u32;
                for part in [id, key.unwrap_or_default(), value] {
                    self.originals.extend_from_slice(part);
                }
                let key = key.map(|key| key.len() as u32);
                Some(Original { start, id: id.len() as u32, key, value: value.len() as u32 })
            }
        };
        let (start, id, document) = (draft.start as u32, draft.id as u32, draft.document as u32);
        let item = Item { settles, start, id, document, end: self.body.len() as u32, original };
        self.items.push(item);
        self.opened.get_or_insert(now);
        item
    }

    /// Takes a begun document back.
    pub fn give_up(&mut self, draft: Draft) {
        self.body.truncate(draft.start);
    }

    /// Whether the batch must be cut before or at `now`.
    pub fn is_due(&self, now: Instant) -> bool {
        self.is_full() || self.due().is_some_and(|due| due <= now)
    }

    /// When the batch must be cut for its age; `None` if it is empty.
    pub fn due(&self) -> Option<Instant> {
        self.opened.map(|opened| opened + self.limits.max_delay)
    }

    pub fn is_full(&self) -> bool {
        self.body.len() >= self.limits.max_bytes || self.items.len() >= self.limits.max_documents
    }

    /// Whether a document of about `size` bytes would lead past the limit. It then belongs into the next batch.
    pub fn would_overflow(&self, size: usize) -> bool {
        !self.items.is_empty() && self.body.len() + size > self.limits.max_bytes
    }

    /// Takes what was filled. `None` if empty.
    pub fn cut(&mut self) -> Option<Batch> {
        self.opened.take()?;
        let items = std::mem::take(&mut self.items);
        let (mut body, mut originals) = (std::mem::take(&mut self.body), std::mem::take(&mut self.originals));
        self.usual_bytes = (body.len(), originals.len());
        if body.len() < body.capacity() / 2 {
            body.shrink_to_fit();
        }
        originals.shrink_to_fit();
        Some(Batch { body: body.into(), items, originals })
    }

    /// Takes the memory of a batch that is settled for the next ones: fresh pages cost more than filling them.
    pub fn recycle(&mut self, batch: Batch) {
        let Batch { body, mut items, .. } = batch;
        let is_usual = body.len() <= 2 * self.usual_bytes.0;
        if let Ok(body) = body.try_into_mut()
            && self.spare.len() < Self::MOST_SPARE
            && is_usual
        {
            let mut body = Vec::from(body);
            body.clear();
            items.clear();
            self.spare.push((body, items));
        }
    }

    /// Batches are cut at this size from now on.
    pub fn limit_bytes(&mut self, max_bytes: usize) {
        self.limits.max_bytes = self.limits.max_bytes.min(max_bytes);
    }

    pub fn max_bytes(&self) -> usize {
        self.limits.max_bytes
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "some instant to count from")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OWNER: Owner = Owner { slot: 1, epoch: 2 };
    const LIMITS: Limits = Limits { max_bytes: 1_000, max_documents: 5, max_delay: Duration::from_secs(1) };

    fn add(builder: &mut Builder, sequence: u64, id: &str, document: &str, keep: Keep<'_>, now: Instant) {
        let draft = builder.begin("logs", Some(id.as_bytes()));
        builder.body().extend_from_slice(document.as_bytes());
        builder.finish(draft, Settles::new(OWNER, sequence, 0, 0), keep, now);
    }

    fn batch(documents: &[&str]) -> Batch {
        let mut builder = Builder::new(Limits { max_bytes: 1 << 20, max_documents: 1 << 20, ..LIMITS });
        for (i, document) in documents.iter().enumerate() {
            let id = i.to_string();
            let keep = if i % 2 == 0 { Keep::Nothing } else { Keep::Record { id: b"", key: None, value: b"original" } };
            add(&mut builder, i as u64, &id, document, keep, Instant::now());
        }
        builder.cut().unwrap()
    }

    #[test]
    fn a_body_is_what_elasticsearch_reads() {
        let batch = batch(&[r#"{"a":1}"#, r#"{"b":2}"#]);
        let expected = "{\"create\":{\"_index\":\"logs\",\"_id\":\"0\"}}\n{\"a\":1}\n{\"create\":{\"_index\":\"logs\",\"_id\":\"1\"}}\n{\"b\":2}\n";
        assert_eq!(batch.body, expected);
        assert_eq!(batch.id(&batch.items[1]), b"1");
        assert_eq!(batch.document(&batch.items[0]), br#"{"a":1}"#);
    }

    #[test]
    fn a_record_comes_back_byte_for_byte() {
        let batch = batch(&["{}", "{}"]);
        assert_eq!(batch.record(&batch.items[0]), Record { key: Some(b"0".to_vec()), value: b"{}".to_vec() });
        assert_eq!(batch.record(&batch.items[1]), Record { key: None, value: b"original".to_vec() });
    }

    #[test]
    fn a_document_without_an_id_of_ours_still_knows_its_record() {
        let mut builder = Builder::new(LIMITS);
        let draft = builder.begin("logs", None);
        builder.body().extend_from_slice(b"{}");
        let keep = Keep::Record { id: b"i", key: Some(b"k"), value: b"{ }" };
        builder.finish(draft, Settles::new(OWNER, 0, 0, 0), keep, Instant::now());
        let batch = builder.cut().unwrap().select([0]);
        assert_eq!(batch.body, "{\"create\":{\"_index\":\"logs\"}}\n{}\n");
        let item = &batch.items[0];
        assert_eq!((batch.sent_id(item), batch.id(item)), (None, &b"i"[..]));
        assert_eq!(batch.record(item), Record { key: Some(b"k".to_vec()), value: b"{ }".to_vec() });
    }

    #[test]
    fn halving_by_count_takes_the_logarithm_however_sizes_differ() {
        let documents: Vec<String> = (0..16).map(|i| format!("\"{}\"", "x".repeat(1 << i))).collect();
        let mut part = batch(&documents.iter().map(String::as_str).collect::<Vec<_>>());
        let mut num_splits = 0;
        while let Some([_, right]) = part.split_count() {
            part = right;
            num_splits += 1;
        }
        assert_eq!(num_splits, 4);
    }

    #[test]
    fn a_batch_is_cut_by_count_bytes_and_age() {
        let now = Instant::now();
        let mut builder = Builder::new(LIMITS);
        assert!(!builder.is_due(now + LIMITS.max_delay) && builder.cut().is_none());
        add(&mut builder, 0, "0", "{}", Keep::Nothing, now);
        assert!(!builder.is_due(now) && builder.is_due(now + LIMITS.max_delay));
        (1..5).for_each(|i| add(&mut builder, i, "0", "{}", Keep::Nothing, now));
        assert!(builder.is_full());
        assert_eq!(builder.cut().unwrap().items.len(), 5);
        add(&mut builder, 0, "0", &format!("\"{}\"", "x".repeat(1_000)), Keep::Nothing, now);
        assert!(builder.is_full());
    }

    #[test]
    fn a_document_given_up_leaves_nothing() {
        let mut builder = Builder::new(LIMITS);
        let draft = builder.begin("logs", Some(b"1"));
        builder.body().extend_from_slice(b"{");
        builder.give_up(draft);
        assert!(builder.cut().is_none() && builder.body.is_empty());
    }

    proptest! {
        #[test]
        fn splitting_and_merging_keeps_every_item(lengths in prop::collection::vec(0..200usize, 2..40)) {
            let documents: Vec<String> = lengths.iter().map(|&length| format!("\"{}\"", "x".repeat(length))).collect();
            let documents: Vec<&str> = documents.iter().map(String::as_str).collect();
            let whole = batch(&documents);
            for parts in [whole.split_bytes().unwrap(), whole.split_count().unwrap()] {
                prop_assert!(parts.iter().all(|part| !part.items.is_empty()));
                let joined = Batch::merge(&parts);
                prop_assert_eq!(&joined.body, &whole.body);
                for (a, b) in joined.items.iter().zip(&whole.items) {
                    prop_assert_eq!(a.sequence, b.sequence);
                    prop_assert_eq!(joined.record(a), whole.record(b));
                    prop_assert_eq!(joined.id(a), whole.id(b));
                }
            }
        }
    }
}
