//! Reading replies: what became of each item.
//!
//! A 200 says nothing about items, and a reply is believed only if it is one: as many items as were sent, in their order,
//! by their ids. Pure.

use millrace_common::json::{Kind, Parser, SyntaxError, Value};

use super::batch::Batch;

/// What is to be done about an item that was not indexed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Push-back or a server's fault: this item alone is sent again.
    Retry,
    /// Its index is blocked or closed.
    Blocked,
    /// Nothing about the document: a missing index, pipeline or right.
    Systemic,
    /// Elasticsearch refuses this document.
    Document,
}

/// An item that was not indexed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Place in the batch.
    pub item: usize,
    pub class: Class,
    pub error: ItemError,
}

/// Elasticsearch's words about an item.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ItemError {
    pub status: u16,
    /// `error.type`.
    pub kind: String,
    /// `error.reason`, with that of its cause.
    pub reason: String,
    /// The field named by the reason, if any.
    pub field: Option<String>,
}

/// Outcome of all items of a batch. Items without a failure are indexed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    pub num_created: u64,
    /// Items that were there before: done as well. In the order of the batch.
    pub duplicates: Vec<usize>,
    /// In the order of the batch.
    pub failures: Vec<Failure>,
}

/// A reply that tells nothing about the items.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("the reply to a bulk request is not JSON: {0}")]
    NotJson(SyntaxError),
    #[error("the reply to a bulk request has no `items`")]
    NoItems,
    #[error("the reply names {got} items of the {sent} sent")]
    Count { sent: usize, got: usize },
    #[error("item {at} of the reply is about `{got}`, sent was `{sent}`")]
    Order { at: usize, sent: String, got: String },
    #[error("item {at} of the reply has no readable status")]
    Status { at: usize },
}

/// A refusal of the whole request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// 401, 403: never the documents' fault.
    Forbidden,
    /// 413.
    TooLarge,
    /// 400: at least one document makes the request unreadable.
    BadRequest,
    /// 429 and 5xx.
    Busy,
    /// Anything else that is not about documents: 404, redirects, unknown codes.
    Unexpected,
}

impl Refusal {
    /// Classifies the status of a reply that is not a 200; `None` for a success.
    pub fn of(status: u16) -> Option<Self> {
        match status {
            200..=299 => None,
            401 | 403 => Some(Self::Forbidden),
            413 => Some(Self::TooLarge),
            400 => Some(Self::BadRequest),
            408 | 429 | 500..=599 => Some(Self::Busy),
            _ => Some(Self::Unexpected),
        }
    }
}

/// Reads the reply to `batch`. `parser` keeps its buffers between replies.
pub fn read(body: &[u8], batch: &Batch, parser: &mut Parser) -> Result<Reply, Malformed> {
    if all_created(body, batch) {
        return Ok(Reply { num_created: batch.items.len() as u64, ..Reply::default() });
    }
    let reply = parser.parse(body).map_err(Malformed::NotJson)?;
    let items = reply.get("items").filter(|items| items.kind() == Kind::Array).ok_or(Malformed::NoItems)?;
    let mut outcome = Reply::default();
    let mut got = 0;
    for (at, item) in items.elements().enumerate() {
        got += 1;
        let Some(sent) = batch.items.get(at) else { continue };
        let result = read_item(item);
        // An id that Elasticsearch makes says nothing about the order.
        if let Some(sent) = batch.sent_id(sent) {
            let id = result.id.and_then(Value::as_str).unwrap_or_default();
            if id.as_bytes() != sent {
                let sent = String::from_utf8_lossy(sent).into_owned();
                return Err(Malformed::Order { at, sent, got: id.into_owned() });
            }
        }
        match result.status.ok_or(Malformed::Status { at })? {
            200..=299 => outcome.num_created += 1,
            status => {
                let error = read_error(status, result.error);
                match classify(&error) {
                    None => outcome.duplicates.push(at),
                    Some(class) => outcome.failures.push(Failure { item: at, class, error }),
                }
            }
        }
    }
    if got != batch.items.len() {
        return Err(Malformed::Count { sent: batch.items.len(), got });
    }
    Ok(outcome)
}

/// Whether a reply says of every item that it was created, in just the words that servers use for it. A reply in any other
/// words is read as JSON.
fn all_created(body: &[u8], batch: &Batch) -> bool {
    let Some(mut rest) = body.strip_prefix(br#"{"errors":false,"items":["#) else { return false };
    for (at, item) in batch.items.iter().enumerate() {
        let separator: &[u8] = if at == 0 { b"" } else { b"," };
        let told = rest.strip_prefix(separator).and_then(|rest| rest.strip_prefix(br#"{"create":{"_id":""#));
        let Some(told) = told else { return false };
        let Some((id, after)) = memchr::memchr(b'"', told).map(|end| told.split_at(end)) else { return false };
        // Ours hold nothing that takes an escape.
        match after.strip_prefix(br#"","status":201}}"#).filter(|_| batch.sent_id(item) == Some(id)) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    rest == b"]}"
}

#[derive(Default)]
struct ItemResult<'p, 't> {
    id: Option<Value<'p, 't>>,
    status: Option<u16>,
    error: Option<Value<'p, 't>>,
}

/// An item's result stands under the name of its operation, whatever the name.
fn read_item<'p, 't>(item: Value<'p, 't>) -> ItemResult<'p, 't> {
    let mut result = ItemResult::default();
    let Some((_, value)) = item.members().next() else { return result };
    for (key, value) in value.members() {
        match key.raw() {
            "_id" => result.id = Some(value),
            "status" => result.status = value.raw().parse().ok().filter(|status| (200..600).contains(status)),
            "error" => result.error = Some(value),
            _ => {}
        }
    }
    result
}

fn text(value: Option<Value<'_, '_>>) -> String {
    value.and_then(Value::as_str).unwrap_or_default().into_owned()
}

fn read_error(status: u16, error: Option<Value<'_, '_>>) -> ItemError {
    let Some(error) = error else { return ItemError { status, ..ItemError::default() } };
    if error.kind() == Kind::String {
        return ItemError { status, reason: text(Some(error)), ..ItemError::default() };
    }
    let mut reason = text(error.get("reason"));
    let mut cause = error.get("caused_by");
    while let Some(inner) = cause {
        let words = text(inner.get("reason"));
        if !words.is_empty() && !reason.contains(&words) {
            reason.push_str(": ");
            reason.push_str(&words);
        }
        cause = inner.get("caused_by");
    }
    ItemError { status, kind: text(error.get("type")), field: field_in(&reason), reason }
}

/// The field that Elasticsearch's sentence names: `failed to parse field [a.b] of type [long] …`.
fn field_in(reason: &str) -> Option<String> {
    let start = ["field [", "introduction of [", "object mapping for ["].iter().find_map(|before| {
        let at = reason.find(before)?;
        Some(at + before.len())
    })?;
    let end = reason[start..].find(']')?;
    Some(reason[start..start + end].to_owned())
}

/// `None` is a duplicate: the document is there.
fn classify(error: &ItemError) -> Option<Class> {
    let is_kind = |part: &str| error.kind.contains(part);
    Some(match error.status {
        409 if error.kind.is_empty() || is_kind("version_conflict") => return None,
        // The flood stage of a disk: it says nothing of the others, and ends when there is room.
        429 if is_kind("cluster_block") => Class::Systemic,
        429 | 500..=599 => Class::Retry,
        401 | 404 => Class::Systemic,
        403 if is_kind("security") => Class::Systemic,
        403 => Class::Blocked,
        _ if is_kind("index_closed") || is_kind("cluster_block") => Class::Blocked,
        _ if is_kind("index_not_found") || is_kind("index_template") => Class::Systemic,
        400 if error.reason.contains("pipeline with id [") => Class::Systemic,
        400 if error.reason.contains("maximum normal shards open") || error.reason.contains("maximum shards open") => {
            Class::Systemic
        }
        _ => Class::Document,
    })
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "some instant to count from")]
mod tests {
    use super::*;
    use crate::bulk::batch::{Builder, Keep, Limits, Owner, Settles};
    use proptest::prelude::*;
    use std::time::{Duration, Instant};

    fn batch(num_items: usize) -> Batch {
        let limits = Limits { max_bytes: 1 << 20, max_documents: 1 << 20, max_delay: Duration::ZERO };
        let mut builder = Builder::new(limits);
        for i in 0..num_items {
            let draft = builder.begin("logs", Some(format!("id{i}").as_bytes()));
            builder.body().extend_from_slice(b"{}");
            let settles = Settles::new(Owner { slot: 0, epoch: 0 }, i as u64, 0, 0);
            builder.finish(draft, settles, Keep::Nothing, Instant::now());
        }
        builder.cut().unwrap()
    }

    fn read_text(body: &str, num_items: usize) -> Result<Reply, Malformed> {
        read(body.as_bytes(), &batch(num_items), &mut Parser::default())
    }

    fn class_of(status: u16, kind: &str, reason: &str) -> Option<Class> {
        let error = format!(r#"{{"type":"{kind}","reason":"{reason}"}}"#);
        let body = format!(r#"{{"items":[{{"create":{{"_id":"id0","status":{status},"error":{error}}}}}]}}"#);
        read_text(&body, 1).unwrap().failures.first().map(|failure| failure.class)
    }

    #[test]
    fn b01_each_item_of_a_200_is_read() {
        let body = r#"{"took":3,"errors":true,"items":[
            {"create":{"_index":"logs","_id":"id0","_version":1,"result":"created","status":201}},
            {"create":{"_index":"logs","_id":"id1","status":429,"error":{"type":"es_rejected_execution_exception","reason":"full"}}},
            {"create":{"_index":"logs","_id":"id2","status":409,"error":{"type":"version_conflict_engine_exception","reason":"exists"}}}]}"#;
        let reply = read_text(body, 3).unwrap();
        assert_eq!((reply.num_created, &reply.duplicates[..]), (1, &[2][..]));
        assert_eq!(reply.failures.len(), 1);
        assert_eq!((reply.failures[0].item, reply.failures[0].class), (1, Class::Retry));
    }

    #[test]
    fn b11_operation_names_order_and_extra_fields_do_not_matter() {
        let body = r#"{"items":[{"index":{"status":200,"x":{"y":[1]},"_id":"id0"}},{"update":{"_id":"id1","status":201}}],"errors":false,"new":1}"#;
        assert_eq!(read_text(body, 2).unwrap().num_created, 2);
    }

    #[test]
    fn b13_a_reply_that_is_not_about_the_items_sent_is_malformed() {
        assert!(matches!(read_text("<html>", 1), Err(Malformed::NotJson(_))));
        assert!(matches!(read_text("", 1), Err(Malformed::NotJson(_))));
        assert_eq!(read_text(r#"{"error":"x","status":404}"#, 1), Err(Malformed::NoItems));
        let one = r#"{"create":{"_id":"id0","status":201}}"#;
        let two = r#"{"create":{"_id":"id1","status":201}}"#;
        let of = |items: &str, sent| read_text(&format!(r#"{{"items":[{items}]}}"#), sent);
        assert_eq!(of(one, 2), Err(Malformed::Count { sent: 2, got: 1 }));
        assert_eq!(of(&format!("{one},{two}"), 1), Err(Malformed::Count { sent: 1, got: 2 }));
        assert!(matches!(of(&format!("{two},{one}"), 2), Err(Malformed::Order { at: 0, .. })));
        assert_eq!(of(r#"{"create":{"_id":"id0"}}"#, 1), Err(Malformed::Status { at: 0 }));
        assert_eq!(of(r#"{"create":{"_id":"id0","status":0}}"#, 1), Err(Malformed::Status { at: 0 }));
        assert!(matches!(of("{}", 1), Err(Malformed::Order { .. })));
    }

    /// Written as servers write it, which takes the short way.
    #[test]
    fn b13_a_reply_of_created_items_is_about_the_items_sent() {
        let of = |items: &str, sent| read_text(&format!(r#"{{"errors":false,"items":[{items}]}}"#), sent);
        let item = |id: &str| format!(r#"{{"create":{{"_id":"{id}","status":201}}}}"#);
        let items = |ids: &[&str]| ids.iter().map(|id| item(id)).collect::<Vec<_>>().join(",");
        let both = of(&items(&["id0", "id1"]), 2).unwrap();
        assert_eq!(both, Reply { num_created: 2, ..Reply::default() });
        assert!(matches!(of(&items(&["id1", "id0"]), 2), Err(Malformed::Order { at: 0, .. })));
        for wrong in ["d0", "0", "", "xid0", r#",\"_id\":\"id0"#] {
            assert!(matches!(of(&item(wrong), 1), Err(Malformed::Order { at: 0, .. })), "{wrong}");
        }
        assert_eq!(of(&items(&["id0", "id1"]), 1), Err(Malformed::Count { sent: 1, got: 2 }));
        assert_eq!(of(&items(&["id0"]), 2), Err(Malformed::Count { sent: 2, got: 1 }));
        assert!(matches!(of(&format!("{}]}},", item("id0")), 1), Err(Malformed::NotJson(_))));
    }

    #[test]
    fn items_fall_into_their_classes() {
        assert_eq!(class_of(409, "version_conflict_engine_exception", "exists"), None);
        for (status, kind, reason, class) in [
            (503, "unavailable_shards_exception", "", Class::Retry),
            (500, "x", "", Class::Retry),
            (403, "cluster_block_exception", "index [a] blocked by: [FORBIDDEN/8/index write (api)];", Class::Blocked),
            (
                429,
                "cluster_block_exception",
                "blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded];",
                Class::Systemic,
            ),
            (400, "index_closed_exception", "closed", Class::Blocked),
            (404, "index_not_found_exception", "no such index [a]", Class::Systemic),
            (401, "security_exception", "", Class::Systemic),
            (403, "security_exception", "", Class::Systemic),
            (400, "illegal_argument_exception", "pipeline with id [x] does not exist", Class::Systemic),
            (
                400,
                "validation_exception",
                "this cluster currently has [1000]/[1000] maximum normal shards open;",
                Class::Systemic,
            ),
            (400, "document_parsing_exception", "failed to parse", Class::Document),
            (409, "other", "", Class::Document),
        ] {
            assert_eq!(class_of(status, kind, reason), Some(class), "{status} {kind}");
        }
    }

    #[test]
    fn the_reason_names_the_field_and_carries_its_cause() {
        let error = r#"{"type":"document_parsing_exception","reason":"[1:9] failed to parse field [http.status] of type [long]","caused_by":{"type":"illegal_argument_exception","reason":"For input string: \"x\""}}"#;
        let body = format!(r#"{{"items":[{{"create":{{"_id":"id0","status":400,"error":{error}}}}}]}}"#);
        let failure = read_text(&body, 1).unwrap().failures.remove(0);
        assert_eq!(failure.error.field.as_deref(), Some("http.status"));
        assert!(failure.error.reason.ends_with(": For input string: \"x\""));
        let strict = "mapping set to strict, dynamic introduction of [extra] within [_doc] is not allowed";
        assert_eq!(field_in(strict).as_deref(), Some("extra"));
    }

    proptest! {
        #[test]
        fn no_reply_makes_an_item_indexed_without_its_own_success(body: Vec<u8>) {
            prop_assert!(read(&body, &batch(1), &mut Parser::default()).is_err());
        }

        #[test]
        fn every_item_is_counted_once(statuses in prop::collection::vec(prop::sample::select(vec![201u16, 409, 429, 503, 400, 403, 404]), 1..50)) {
            let items: Vec<_> = statuses.iter().enumerate()
                .map(|(i, status)| format!(r#"{{"create":{{"_id":"id{i}","status":{status}}}}}"#)).collect();
            let reply = read_text(&format!(r#"{{"items":[{}]}}"#, items.join(",")), statuses.len()).unwrap();
            prop_assert_eq!(reply.num_created as usize + reply.duplicates.len() + reply.failures.len(), statuses.len());
            prop_assert!(reply.failures.iter().all(|f| statuses[f.item] == f.error.status && f.error.status > 299));
        }
    }
}
