//! What the indexer takes from the topic: the key in the first line, the value behind it.

use std::cell::RefCell;
use std::sync::LazyLock;

use millrace_common::json::Parser;
use millrace_common::record::RecordId;
use millrace_indexer::decode::{Identifier, Incoming, Origin, check_object};
use millrace_indexer::map::{Actions, Input, Plan, RuleOptions, ServerVersion, State, Verdict};
use millrace_indexer::map::{TemplateFile, TemplateSet};
use millrace_indexer::route;
use serde_json::Value;

static PLAN: LazyLock<Plan> = LazyLock::new(|| {
    let text = include_str!("../../../templates/logs.json").to_owned();
    let set = TemplateSet::parse(&[TemplateFile { name: "logs.json".to_owned(), text }]).expect("it is shipped");
    let composed = set.compose("applogs-a").expect("it is for such names");
    Plan::compile(&composed.mappings, &composed.settings, &RuleOptions::default(), ServerVersion::default())
        .expect("Elasticsearch takes it")
});

/// What the stages keep from record to record.
#[derive(Default)]
struct Learned {
    parser: Parser,
    identifier: Identifier,
    state: State,
}

thread_local! {
    static LEARNED: RefCell<Learned> = RefCell::default();
}

pub fn run(data: &[u8]) {
    let end = data.iter().position(|&byte| byte == b'\n').unwrap_or(0);
    let (key, value) = (&data[..end], data.get(end + 1..).unwrap_or_default());
    let fresh = take(&mut Learned::default(), key, value);
    LEARNED.with_borrow_mut(|learned| {
        let (num_fields, _) = PLAN.budget(&learned.state);
        let taken = take(learned, key, value);
        // Names that other documents create do count.
        let is_alone = num_fields == PLAN.budget(&State::default()).0;
        assert!(!is_alone || taken == fresh, "what was learned of others changes nothing");
    });
}

/// Id and verdict.
fn take(learned: &mut Learned, key: &[u8], value: &[u8]) -> (Vec<u8>, String) {
    let parsed = learned.parser.parse(value);
    agree(value, parsed.is_ok());
    let document = parsed.ok();
    let record = Incoming {
        topic: "logs",
        partition: 0,
        offset: 1,
        timestamp_ms: Some(0),
        key: Some(key),
        value: Some(value),
        id_header: None,
    };
    let mut id = Vec::new();
    match learned.identifier.identify(&record, document, &mut id) {
        Origin::Shipper(decoded) => {
            assert_eq!(decoded.encode(), key, "an id encodes to what it was decoded from");
            assert_eq!(id, key);
        }
        Origin::Foreign => assert!(RecordId::decode(&id).is_none(), "it would pass for a shipper's"),
        Origin::Replayed(_) => panic!("there is no such header"),
    }
    let Some(document) = document.filter(|document| check_object(*document).is_ok()) else {
        return (id, String::new());
    };
    let _ = route::event_time(document);
    let input = Input { document, timestamp: Some("\"2026-11-23T06:30:17.123Z\"") };
    let (mut out, mut actions) = (Vec::new(), Actions::detailed());
    let verdict = PLAN.apply(input, &mut learned.state, &mut out, &mut actions);
    match verdict {
        Verdict::Rewritten => {
            assert!(!out.contains(&b'\n'), "a document of a bulk request is one line");
            Parser::default().parse(&out).expect("what is sent is JSON");
        }
        Verdict::Unchanged => assert!(!document.raw().contains('\n')),
        Verdict::Reject(_) => {}
    }
    (id, format!("{verdict:?} {}", String::from_utf8_lossy(&out)))
}

/// Another parser takes the same texts for JSON, but for what it cannot hold.
fn agree(text: &[u8], is_json: bool) {
    let Ok(text) = std::str::from_utf8(text) else {
        assert!(!is_json, "not UTF-8");
        return;
    };
    match serde_json::from_str::<Value>(text) {
        Ok(_) => assert!(is_json, "refused, but JSON"),
        Err(error) => {
            let words = error.to_string();
            let is_limit = words.contains("recursion limit") || words.contains("number out of range");
            // Unpaired surrogates are legal in RFC 8259, and no Rust string.
            let is_surrogate = words.contains("surrogate") || words.contains("hex escape");
            assert!(!is_json || is_limit || is_surrogate, "taken, but {words}");
        }
    }
}
