//! Documents that Elasticsearch refuses, or takes wrongly, where nobody looks at them before: real broker, real
//! Elasticsearch, and each record ends as one document or one dead letter. The rig fails where Elasticsearch refused
//! something that the rule let through.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_common::json::{Kind, Parser, Value as Json};
use millrace_tests::elasticsearch::Elasticsearch;
use millrace_tests::mapping_rig::{LIMIT, Lane, MappingRig, Outcome};
use millrace_tests::proxy::{Mode, Proxy};
use millrace_tests::wait;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};

const FOLD: &str = "unmapped: fold, fold_into: attrs";
const REJECT: &str = "on_conflict: reject";

/// A mapping with a fold field.
fn mapping(dynamic: &str, properties: Value) -> Value {
    let mut all = json!({"attrs": {"type": "flattened"}, "message": {"type": "text"}});
    properties.as_object().into_iter().flatten().for_each(|(name, field)| all[name] = field.clone());
    json!({"dynamic": dynamic, "properties": all})
}

fn strs(values: &[String]) -> impl Iterator<Item = &str> {
    values.iter().map(String::as_str)
}

fn offsets(outcome: &Outcome) -> Vec<i64> {
    outcome.records.iter().map(|record| record.offset).collect()
}

/// Fields, multi-fields and objects, as `total_fields.limit` counts them.
fn num_fields(mapping: &Value) -> usize {
    let members = ["properties", "fields", "runtime"].into_iter().filter_map(|part| mapping[part].as_object());
    members.flatten().map(|(_, field)| 1 + num_fields(field)).sum()
}

/// The values of a field as Elasticsearch indexed them, by the documents' `n`.
fn indexed(rig: &MappingRig, index: &str, field: &str) -> Result<Vec<(i64, String)>> {
    let query = json!({
        "size": 1000,
        "query": {"exists": {"field": field}},
        "docvalue_fields": [{"field": field, "format": "strict_date_optional_time_nanos"}],
    });
    let found = rig.elasticsearch.search(index, &query)?;
    let hits = found["hits"]["hits"].as_array().context("no hits")?.iter().map(|hit| {
        let value = hit["fields"][field][0].as_str().context("no value")?;
        Ok((hit["_source"]["n"].as_i64().context("no number")?, value.to_owned()))
    });
    let mut values: Vec<_> = hits.collect::<Result<_>>()?;
    values.sort();
    Ok(values)
}

fn num_hits(rig: &MappingRig, index: &str, query: Value) -> Result<u64> {
    let found = rig.elasticsearch.search(index, &json!({"size": 0, "track_total_hits": true, "query": query}))?;
    found["hits"]["total"]["value"].as_u64().context("no total")
}

#[test]
fn m01_random_keys_past_the_limit_are_folded_or_rejected_and_the_mapping_stays_small() -> Result<()> {
    let settings = json!({"mapping.total_fields.limit": 50});
    let lane = |name, rule| Lane { settings: settings.clone(), ..Lane::new(name, mapping("true", json!({})), rule) };
    let (fold, reject, budget) = ("m01-fold", "m01-reject", "m01-budget");
    let lanes =
        [lane(fold, FOLD), lane(reject, REJECT), lane(budget, "unmapped: fold, fold_into: attrs, field_budget: 30")];
    let mut rig = MappingRig::start("m01", &lanes)?;
    let values: Vec<String> = (0..1_000)
        .map(|n| {
            let mut document: Value = (0..10).map(|k| (format!("k{k}"), json!(n + k))).collect();
            if n % 10 == 5 {
                (0..10).for_each(|k| document[format!("x{}", n * 7919 + k)] = json!(n));
            }
            document.to_string()
        })
        .collect();
    lanes.iter().try_for_each(|lane| rig.produce(lane.name, strs(&values)))?;
    for (index, limit) in [(fold, 50), (reject, 50), (budget, 30)] {
        let outcome = rig.settle(index)?;
        let mapping = rig.elasticsearch.mapping(index)?;
        let num = num_fields(&mapping);
        ensure!((12..=limit).contains(&num), "{index}: {num} fields");
        for k in 0..10 {
            ensure!(mapping["properties"][format!("k{k}")]["type"] == "long", "{index}: k{k} is not mapped");
        }
        if index == reject {
            // Ten fields each: the first three with random keys still found room.
            let expected: Vec<i64> = (0..1_000).filter(|n| n % 10 == 5).skip(3).collect();
            outcome.check_letters("field_budget", &expected)?;
            continue;
        }
        outcome.check_letters("", &[])?;
        for (n, document) in &outcome.documents {
            let original: Value = serde_json::from_str(&values[*n as usize])?;
            for (name, value) in original.as_object().context("no object")? {
                let kept = document.get(name).or_else(|| document["attrs"].get(name));
                ensure!(kept == Some(value), "{index}: {name} of {n} is {kept:?}");
            }
        }
        let folded = format!("attrs.x{}", 995 * 7919);
        ensure!(num_hits(&rig, index, json!({"term": {folded: "995"}}))? == 1, "what is folded cannot be found");
    }
    ensure!(rig.metric("indexer_mapping_actions_total", &["action=\"budget\""])? > 1_700.0);
    rig.finish()
}

#[test]
fn m02_a_name_as_text_and_as_object_in_both_orders() -> Result<()> {
    let dynamic = || mapping("true", json!({}));
    let flat = mapping("true", json!({"labels": {"type": "flattened"}}));
    let lanes = [
        Lane::new("m02-fold-text", dynamic(), FOLD),
        Lane::new("m02-fold-object", dynamic(), FOLD),
        Lane::new("m02-reject-text", dynamic(), REJECT),
        Lane::new("m02-reject-object", dynamic(), REJECT),
        Lane::new("m02-flat", flat, REJECT),
    ];
    let mut rig = MappingRig::start("m02", &lanes)?;
    let text = |n: i64| format!(r#"{{"n":{n},"labels":{{"app":"shop"}}}}"#);
    let object = |n: i64| format!(r#"{{"n":{n},"labels":{{"app.kubernetes.io/name":"shop"}}}}"#);
    for lane in &lanes {
        let values: Vec<String> = match lane.name.ends_with("-object") {
            false => (0..100).map(text).chain((100..200).map(object)).collect(),
            true => (0..100).map(object).chain((100..200).map(text)).collect(),
        };
        rig.produce(lane.name, strs(&values))?;
    }
    let second: Vec<i64> = (100..200).collect();
    for index in ["m02-fold-text", "m02-fold-object", "m02-flat"] {
        rig.settle(index)?.check_letters("", &[])?;
    }
    for (index, field) in [
        ("m02-fold-text", "attrs.malformed.labels.app.kubernetes.io/name"),
        ("m02-fold-object", "attrs.malformed.labels.app"),
    ] {
        ensure!(num_hits(&rig, index, json!({"term": {field: "shop"}}))? == 100, "{index}: {field} cannot be found");
    }
    for index in ["m02-reject-text", "m02-reject-object"] {
        let outcome = rig.settle(index)?;
        outcome.check_letters("type_conflict", &second)?;
        let fields: BTreeSet<_> = outcome.letters.values().map(|letter| letter.header("dlq.field")).collect();
        ensure!(fields == BTreeSet::from([Some("labels.app".to_owned())]), "{fields:?}");
    }
    rig.finish()
}

#[test]
fn m04_epoch_times_of_every_unit_are_indexed_rightly_or_not_at_all() -> Result<()> {
    let times = || {
        let seconds = json!({"type": "date", "format": "epoch_second"});
        mapping(
            "false",
            json!({"t": {"type": "date"}, "ns": {"type": "date_nanos"}, "s": seconds, "n": {"type": "long"}}),
        )
    };
    let lanes = [Lane::new("m04-fold", times(), FOLD), Lane::new("m04-reject", times(), REJECT)];
    let mut rig = MappingRig::start("m04", &lanes)?;
    let numbers = ["1604948142953141464", "1604948142953141", "1604948142953", "1604948142"];
    let fields = ["t", "ns", "s"].into_iter().flat_map(|field| numbers.map(|number| (field, number)));
    let values: Vec<String> =
        fields.enumerate().map(|(n, (field, number))| format!(r#"{{"n":{n},"{field}":{number}}}"#)).collect();
    lanes.iter().try_for_each(|lane| rig.produce(lane.name, strs(&values)))?;
    // Milliseconds in `date` and `date_nanos`, seconds in a field that says so; the seconds that are read as
    // milliseconds are what the mapping says, too.
    let is_read = [2, 3, 6, 7, 11];
    let bad: Vec<i64> = (0..12).filter(|n| !is_read.contains(n)).collect();
    rig.settle("m04-fold")?.check_letters("", &[])?;
    rig.settle("m04-reject")?.check_letters("type_conflict", &bad)?;
    for index in ["m04-fold", "m04-reject"] {
        let time = |n, text: &str| (n, text.to_owned());
        let (right, early) = ("2020-11-09T18:55:42.953Z", "1970-01-19T13:49:08.142Z");
        assert_eq!(indexed(&rig, index, "t")?, [time(2, right), time(3, early)], "{index}");
        assert_eq!(indexed(&rig, index, "ns")?, [time(6, right), time(7, early)], "{index}");
        assert_eq!(indexed(&rig, index, "s")?, [time(11, "2020-11-09T18:55:42.000Z")], "{index}");
    }
    rig.finish()
}

#[test]
fn m05_times_at_full_seconds_minutes_and_hours_are_written_in_full() -> Result<()> {
    let strict = || {
        let format = "yyyy-MM-dd'T'HH:mm:ss.SSS'Z'";
        mapping("false", json!({"@timestamp": {"type": "date", "format": format}, "n": {"type": "long"}}))
    };
    let lanes = [Lane::new("m05-kafka-time", strict(), FOLD), Lane::new("m05-shipped", strict(), REJECT)];
    let mut rig = MappingRig::start("m05", &lanes)?;
    // A time that cannot be read is replaced by that of Kafka.
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", rig.kafka.bootstrap()).create()?;
    let today = jiff::Timestamp::now().as_millisecond() / 86_400_000 * 86_400_000;
    let times = [0, 3_600_000, 3_660_000, 3_661_000, 3_661_120, 3_661_001, -1].map(|ms| today + ms);
    for (n, time) in times.iter().enumerate() {
        let value = format!(r#"{{"n":{n},"@timestamp":"2023-06-02T13:57Z"}}"#);
        let record = BaseRecord::<str, String>::to("m05-kafka-time").payload(&value).timestamp(*time);
        producer.send(record).map_err(|(error, _)| error)?;
    }
    producer.flush(LIMIT)?;
    rig.ship("m05-shipped", &vec!["a line without a time"; 100])?;

    rig.settle("m05-kafka-time")?.check_letters("", &[])?;
    let expected: Vec<(i64, String)> = (0..)
        .zip(times)
        .map(|(n, time)| Ok((n, format!("{:.3}", jiff::Timestamp::from_millisecond(time)?))))
        .collect::<Result<_>>()?;
    assert_eq!(indexed(&rig, "m05-kafka-time", "@timestamp")?, expected);
    rig.settle("m05-shipped")?.check_letters("", &[])?;
    rig.finish()
}

#[test]
fn m07_unmapped_fields_are_stored_and_not_mapped() -> Result<()> {
    let index = "m07-keep";
    let mut rig = MappingRig::start("m07", &[Lane::new(index, mapping("false", json!({"n": {"type": "long"}})), "")])?;
    let document = |n: u64| -> Value {
        let extras = (0..100).map(|k| (format!("x{}", n * 7919 + k), json!({"v": [k, "text", 1.5, null]})));
        extras.chain([("n".to_owned(), json!(n))]).collect()
    };
    let values: Vec<String> = (0..100).map(|n| document(n).to_string()).collect();
    rig.produce(index, strs(&values))?;
    let outcome = rig.settle(index)?;
    outcome.check_letters("", &[])?;
    for n in 0..100 {
        assert_eq!(outcome.document(n)?, &document(n as u64));
    }
    assert_eq!(num_fields(&rig.elasticsearch.mapping(index)?), 3);
    rig.finish()
}

#[test]
fn m08_a_term_too_long_for_the_index_costs_no_document() -> Result<()> {
    let keyword = |more: Value| {
        let mut field = json!({"type": "keyword"});
        more.as_object().into_iter().flatten().for_each(|(name, value)| field[name] = value.clone());
        mapping("false", json!({"term": field, "n": {"type": "long"}}))
    };
    let lanes = [
        Lane::new("m08-fold", keyword(json!({})), FOLD),
        Lane::new("m08-reject", keyword(json!({})), REJECT),
        Lane::new("m08-ignore-above", keyword(json!({"ignore_above": 256})), REJECT),
    ];
    let mut rig = MappingRig::start("m08", &lanes)?;
    let terms = [
        "a".repeat(32_765),
        "a".repeat(32_766),
        "a".repeat(32_767),
        "a".repeat(84_148),
        "é".repeat(16_383),
        "é".repeat(16_384),
        "short".to_owned(),
    ];
    let values: Vec<String> = (0..).zip(&terms).map(|(n, term)| json!({"n": n, "term": term}).to_string()).collect();
    lanes.iter().try_for_each(|lane| rig.produce(lane.name, strs(&values)))?;
    let immense = [2, 3, 5];
    rig.settle("m08-reject")?.check_letters("immense_term", &immense)?;
    let whole = rig.settle("m08-ignore-above")?;
    let folded = rig.settle("m08-fold")?;
    for (n, term) in (0..).zip(&terms) {
        assert_eq!(whole.document(n)?["term"], json!(term));
        let document = folded.document(n)?;
        let Some(kept) = document["attrs"]["malformed"]["term"].as_str() else {
            assert_eq!((document["term"].as_str(), immense.contains(&n)), (Some(term.as_str()), false));
            continue;
        };
        ensure!(immense.contains(&n) && document.get("term").is_none(), "{n} was moved");
        ensure!(kept.len() > 32_000 && term.starts_with(kept), "{} bytes of {n} are kept", kept.len());
    }
    rig.finish()
}

/// Fails if a member of an object, at any depth, is there twice, dotted or nested.
fn check_distinct(text: &str) -> Result<()> {
    fn walk(value: Json<'_, '_>, path: &str, seen: &mut BTreeSet<String>) -> Result<()> {
        for element in value.elements() {
            walk(element, path, &mut BTreeSet::new())?;
        }
        for (key, inner) in value.members() {
            let path = format!("{path}.{}", key.name());
            if inner.kind() == Kind::Object {
                ensure!(!seen.contains(&path), "{path} is a value and an object");
                walk(inner, &path, seen)?;
            } else {
                ensure!(seen.insert(path.clone()), "{path} is there twice");
                walk(inner, &path, seen)?;
            }
        }
        Ok(())
    }
    let mut parser = Parser::default();
    walk(parser.parse(text.as_bytes())?, "", &mut BTreeSet::new()).with_context(|| text.to_owned())
}

#[test]
fn m10_of_equal_keys_the_last_is_indexed() -> Result<()> {
    let fields = || mapping("false", json!({"time": {"type": "long"}, "n": {"type": "long"}}));
    let lanes = [
        Lane::new("m10-shipped", fields(), FOLD),
        Lane::new("m10-keep", fields(), ""),
        Lane::new("m10-fold", fields(), FOLD),
        Lane::new("m10-dynamic", mapping("true", json!({})), REJECT),
    ];
    let mut rig = MappingRig::start("m10", &lanes)?;
    let documents = [
        r#"{"time":1,"time":2}"#,
        r#"{"a":{"b":1,"b":2},"time":1,"ti\u006de":2}"#,
        r#"{"c":{"b":{"c":1}},"c":{"b":{"d":1,"d":2}},"time":2}"#,
        r#"{"l":[{"b":1,"b":2},{"b":{"b":4,"b":2},"b":3}],"time":2}"#,
        r#"{"time":2,"other":1}"#,
    ];
    rig.ship(
        "m10-shipped",
        &[
            documents.as_slice(),
            &[
                r#"{"time":2,"log":"text","host":"h","message":{"m":1},"@timestamp":"now"}"#,
                r#"{"time":2,"log":{"offset":1,"offset":2,"file":"f"},"log.file.path":"x","host.name":"y"}"#,
                r#"{"time":2,"log":{"flags":"f"},"log":{"source":1},"original":{"log":{"flags":1}},"original":2}"#,
            ],
        ]
        .concat(),
    )?;
    for lane in &lanes[1..] {
        rig.produce(lane.name, documents)?;
    }
    for record in rig.kafka.read_topic("m10-shipped")? {
        check_distinct(&record.text())?;
    }
    for lane in &lanes {
        let outcome = rig.settle(lane.name)?;
        outcome.check_letters("", &[])?;
        for n in offsets(&outcome) {
            assert_eq!(outcome.document(n)?["time"], 2, "{} {n}", lane.name);
        }
    }
    rig.finish()
}

#[test]
fn m11_numbers_out_of_range_go_their_way_once() -> Result<()> {
    let long = || mapping("false", json!({"v": {"type": "long"}, "n": {"type": "long"}}));
    let lanes = [
        Lane::new("m11-reject", long(), REJECT),
        Lane::new("m11-fold", long(), FOLD),
        Lane::new("m11-keep", mapping("false", json!({})), ""),
        Lane::new("m11-dynamic", mapping("true", json!({})), FOLD),
        Lane::new("m11-dynamic-reject", mapping("true", json!({})), REJECT),
    ];
    let mut rig = MappingRig::start("m11", &lanes)?;
    let huge = format!("1{}", "0".repeat(40));
    let numbers =
        ["9223372036854775807", "9223372036854775808", "18446744073709551616", "-9223372036854775809", &huge, "7"];
    let values = |field: &dyn Fn(usize) -> String| -> Vec<String> {
        numbers.iter().enumerate().map(|(n, number)| format!(r#"{{"n":{n},"{}":{number}}}"#, field(n))).collect()
    };
    for lane in &lanes {
        rig.produce(lane.name, strs(&values(&|_| "v".to_owned())))?;
        rig.produce(lane.name, strs(&values(&|n| format!("v{n}"))))?;
    }
    rig.settle("m11-reject")?.check_letters("type_conflict", &[1, 2, 3, 4])?;
    rig.settle("m11-dynamic-reject")?.check_letters("type_conflict", &[1, 2, 3, 4, 7, 8, 9, 10])?;
    for index in ["m11-fold", "m11-keep", "m11-dynamic"] {
        let outcome = rig.settle(index)?;
        outcome.check_letters("", &[])?;
        for (n, document) in outcome.documents {
            ensure!(document.to_string().contains("922337203685477580") || ![0, 1, 6, 7].contains(&n), "{index} {n}");
        }
    }
    for (n, number) in numbers[1..5].iter().enumerate() {
        let query = json!({"term": {"attrs.malformed.v": number}});
        ensure!(num_hits(&rig, "m11-fold", query)? == 1, "{n}: {number} cannot be found");
    }
    ensure!(num_hits(&rig, "m11-fold", json!({"term": {"v": 9_223_372_036_854_775_807_i64}}))? == 1);
    rig.finish()
}

#[test]
fn m13_what_is_no_number_in_json_does_not_reach_elasticsearch() -> Result<()> {
    let float = |more: bool| mapping("false", json!({"sum": {"type": "float", "ignore_malformed": more}}));
    let lanes = [
        Lane::new("m13-shipped", float(false), FOLD),
        Lane::new("m13-reject", float(false), REJECT),
        Lane::new("m13-ignore", float(true), REJECT),
    ];
    let mut rig = MappingRig::start("m13", &lanes)?;
    let lines = [
        r#"{"sum":1}"#,
        r#"{"sum":NaN}"#,
        r#"{"sum":Infinity}"#,
        r#"{"sum":-Infinity}"#,
        r#"{"sum":"NaN"}"#,
        r#"{"sum":2.5}"#,
    ];
    rig.ship("m13-shipped", &lines)?;
    rig.produce("m13-reject", lines)?;
    rig.produce("m13-ignore", lines)?;

    let shipped = rig.settle("m13-shipped")?;
    shipped.check_letters("", &[])?;
    for n in 1..=3 {
        let document = shipped.document(n)?;
        assert_eq!(document["message"], lines[n as usize]);
        assert_eq!(document["attrs"]["log"]["flags"], json!(["not_json"]));
    }
    assert_eq!(shipped.document(4)?["attrs"]["malformed"]["sum"], "NaN");
    rig.settle("m13-ignore")?.check_letters("not_json", &[1, 2, 3])?;
    let rejected = rig.settle("m13-reject")?;
    assert_eq!(rejected.letters.keys().copied().collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(rejected.letters[&4].header("dlq.field").as_deref(), Some("sum"));
    rig.finish()
}

#[test]
fn m14_control_characters_in_keys_and_values() -> Result<()> {
    let lanes = [
        Lane::new("m14-fold", mapping("false", json!({"k": {"type": "keyword"}})), FOLD),
        Lane::new("m14-keep", mapping("false", json!({"k": {"type": "keyword"}})), ""),
        Lane::new("m14-dynamic", mapping("true", json!({})), REJECT),
        Lane::new("m14-shipped", mapping("true", json!({})), FOLD),
    ];
    let mut rig = MappingRig::start("m14", &lanes)?;
    let documents = [
        r#"{"k":"before"}"#,
        r#"{"k":"nul \u0000 nul","other":"\u0000"}"#,
        r#"{"nul \u0000 nul":"k","o":{"\u0000":1}}"#,
        "{\"k\":\"raw \u{1}\"}",
        "{\"raw \u{1}\":\"k\"}",
        r#"{"attrs":{"in \u0000 fold":1}}"#,
        r#"{"\u0001\u001f\u007f":"k","k":"\u0001\u001f\u007f"}"#,
        r#"{"k":"after"}"#,
    ];
    for lane in &lanes[..3] {
        rig.produce(lane.name, documents)?;
    }
    rig.ship("m14-shipped", &documents)?;
    rig.settle("m14-fold")?.check_letters("not_json", &[3, 4])?;
    for index in ["m14-keep", "m14-dynamic"] {
        let outcome = rig.settle(index)?;
        let reasons: Vec<_> = outcome.letters.iter().map(|(n, letter)| (*n, letter.header("dlq.reason"))).collect();
        let why = |n, reason: &str| (n, Some(reason.to_owned()));
        assert_eq!(reasons, [why(3, "not_json"), why(4, "not_json"), why(5, "field_name")], "{index}");
    }
    let shipped = rig.settle("m14-shipped")?;
    shipped.check_letters("", &[])?;
    for n in [3, 4] {
        assert_eq!(shipped.document(n)?["message"], documents[n as usize]);
    }
    rig.finish()
}

#[test]
fn m16_names_of_dots_and_blanks_are_indexed_under_a_known_name_or_rejected() -> Result<()> {
    let lanes = [
        Lane::new("m16-fold", mapping("true", json!({})), FOLD),
        Lane::new("m16-strict-fold", mapping("strict", json!({})), FOLD),
        Lane::new("m16-keep", mapping("false", json!({})), ""),
        Lane::new("m16-reject", mapping("true", json!({})), REJECT),
        Lane::new("m16-shipped", mapping("true", json!({})), FOLD),
    ];
    let mut rig = MappingRig::start("m16", &lanes)?;
    let names = [".foo", "foo.", "foo..bar", ".", "..", "a. .b", "", " ", "good"];
    let values: Vec<String> = names
        .into_iter()
        .flat_map(|name| [json!({name: 1}), json!({name: {"x": 1}}), json!({"o": {name: 1}}), json!({"fine": 1})])
        .map(|document| document.to_string())
        .collect();
    for lane in &lanes[..4] {
        rig.produce(lane.name, strs(&values))?;
    }
    rig.ship("m16-shipped", &values)?;
    for lane in &lanes {
        let outcome = rig.settle(lane.name)?;
        if lane.name == "m16-reject" {
            let bad: Vec<i64> = offsets(&outcome)
                .into_iter()
                .filter(|n| n % 4 != 3 && !["foo.", "good"].contains(&names[*n as usize / 4]))
                .collect();
            // A name that became a number cannot become an object.
            let conflicting = [5, 33];
            let (conflicts, unnameable): (Vec<_>, Vec<_>) =
                outcome.letters.iter().partition(|(n, _)| conflicting.contains(*n));
            assert_eq!(conflicts.len(), 2);
            assert_eq!(unnameable.iter().map(|(n, _)| **n).collect::<Vec<_>>(), bad);
            for (_, letter) in unnameable {
                assert_eq!(letter.header("dlq.reason").as_deref(), Some("field_name"));
            }
            continue;
        }
        let refused: &[i64] = match lane.name == "m16-keep" {
            // Elasticsearch does not look below an object that it does not map.
            true => &[0, 1, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 28, 29],
            false => &[],
        };
        outcome.check_letters("field_name", refused)?;
        for (n, document) in &outcome.documents {
            let original: Value = serde_json::from_str(&values[*n as usize])?;
            let (name, value) = original.as_object().and_then(|object| object.iter().next()).context("no name")?;
            let text = value.to_string();
            let malformed = document["attrs"]["malformed"].get(name).or_else(|| {
                // Dots at the end of a name mean nothing.
                document["attrs"]["malformed"].get(name.trim_end_matches('.'))
            });
            let found = [document.get(name), document["attrs"].get(name)].contains(&Some(value))
                || malformed.and_then(Value::as_str) == Some(&text)
                || document["attrs"]["o"]
                    .get(value.as_object().and_then(|o| o.keys().next()).unwrap_or(name))
                    .is_some();
            ensure!(found, "{} {n}: {original} became {document}", lane.name);
        }
    }
    rig.finish()
}

/// With names of its own for each depth.
fn nested_objects(depth: usize) -> String {
    format!("{{\"d{depth}\":{}1{}", r#"{"a":"#.repeat(depth - 1), "}".repeat(depth))
}

fn nested_arrays(depth: usize) -> String {
    format!(r#"{{"l":{}1{}}}"#, "[".repeat(depth - 1), "]".repeat(depth - 1))
}

#[test]
fn m17_depth_is_folded_or_rejected_and_ten_thousand_levels_stay_out() -> Result<()> {
    let lanes = [
        Lane::new("m17-fold", mapping("true", json!({})), FOLD),
        Lane::new("m17-false-fold", mapping("false", json!({})), FOLD),
        Lane::new("m17-keep", mapping("false", json!({})), ""),
        Lane::new("m17-reject", mapping("true", json!({})), REJECT),
        Lane::new("m17-shipped", mapping("true", json!({})), FOLD),
    ];
    let mut rig = MappingRig::start("m17", &lanes)?;
    let depths = [19, 20, 21, 127, 129, 900, 10_000];
    let mut values: Vec<String> = depths.into_iter().map(nested_objects).collect();
    values.extend(depths.into_iter().map(nested_arrays));
    values.push(r#"{"a":{}}"#.to_owned());
    for lane in &lanes[..4] {
        rig.produce(lane.name, strs(&values))?;
    }
    rig.ship("m17-shipped", &values)?;
    let too_deep = [6, 13];
    // The harness cannot read documents that deep.
    let messages = json!(["message"]);
    for index in ["m17-fold", "m17-false-fold", "m17-keep"] {
        rig.settle_with(index, &messages)?.check_letters("not_json", &too_deep)?;
    }
    let rejected = rig.settle_with("m17-reject", &messages)?;
    let reasons: Vec<_> = rejected.letters.iter().map(|(n, letter)| (*n, letter.header("dlq.reason"))).collect();
    let why = |n, reason: &str| (n, Some(reason.to_owned()));
    let depth = [2, 3, 4, 5].map(|n| why(n, "depth")).to_vec();
    assert_eq!(reasons, [depth, too_deep.map(|n| why(n, "not_json")).to_vec()].concat());
    let shipped = rig.settle_with("m17-shipped", &messages)?;
    shipped.check_letters("", &[])?;
    for n in too_deep {
        assert_eq!(shipped.document(n)?["message"].as_str(), Some(values[n as usize].as_str()));
    }
    rig.finish()
}

#[test]
fn m19_no_document_goes_out_before_the_templates_are_confirmed() -> Result<()> {
    let elasticsearch = Elasticsearch::shared()?;
    let proxy = Proxy::start(elasticsearch.url().trim_start_matches("http://").parse()?)?;
    proxy.set(Mode::Delay(Duration::from_secs(1)))?;
    // Not what Elasticsearch would make of these documents.
    let fields = || json!({"dynamic": "false", "properties": {"n": {"type": "integer"}, "code": {"type": "keyword"}}});
    let lanes = [Lane::new("m19-a", fields(), ""), Lane::new("m19-b", fields(), "")];
    let mut rig = MappingRig::new("m19", &lanes, &format!("http://{}", proxy.addr()))?;
    let values: Vec<String> = (0..500).map(|n| format!(r#"{{"n":{n},"code":"c{n}","other":{n}}}"#)).collect();
    lanes.iter().try_for_each(|lane| rig.produce(lane.name, strs(&values)))?;
    rig.start_indexer()?;
    let mut another = rig.start_another()?;
    let exists = |path: &str| Ok::<_, anyhow::Error>(elasticsearch.request("HEAD", path, None)?.status == 200);
    wait::until_true("both templates", LIMIT, || {
        for lane in &lanes {
            ensure!(!exists(&format!("/{}", lane.name))?, "an index is there before all templates are");
        }
        Ok(exists("/_index_template/m19-a")? && exists("/_index_template/m19-b")?)
    })?;
    proxy.set(Mode::Pass)?;
    for lane in &lanes {
        let outcome = rig.settle(lane.name)?;
        outcome.check_letters("", &[])?;
        assert_eq!(outcome.documents.len(), 500);
        assert_eq!(elasticsearch.mapping(lane.name)?, fields());
    }
    ensure!(another.terminate(LIMIT)? == 0);
    rig.finish()
}
