//! What one record costs, stage by stage: `cargo bench --bench record`.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use millrace_common::json::Parser;
use millrace_common::record::{RecordId, SourceId};
use millrace_indexer::bulk::batch::{Builder, Keep, Limits, Owner, Settles};
use millrace_indexer::bulk::response;
use millrace_indexer::config;
use millrace_indexer::decode::{Identifier, Incoming};
use millrace_indexer::map::{Actions, Flavor, Input, Plan, RuleOptions, ServerVersion, State};
use millrace_indexer::route::{Router, RouterOptions};
use millrace_shipper::encode::own_fields::{Origin, OwnFields};
use millrace_shipper::encode::timestamp::Moment;
use millrace_shipper::encode::{Content, Encoder, Flags, Line};
use millrace_tests::bench::out::template;
use millrace_tests::bench::workload::Workload;
use serde_json::json;

/// A day after the lines.
const WALL: i64 = 1_795_694_400_000;

const NUM_RECORDS: u64 = 1_000;

/// Keys and values as the shipper makes them of JSON lines.
fn records() -> (Vec<String>, Vec<String>) {
    let source = SourceId::from_u64(7);
    let origin = Origin { host_name: "web-1", path: "/var/log/shop/checkout.log", source };
    let own = OwnFields::new(origin, &[]).expect("our fields");
    let mut encoder = Encoder::new(Content::Json, encoding_rs::UTF_8);
    let (mut offset, mut value) = (0, Vec::new());
    let record = |line: String| {
        let content = line.as_bytes();
        let (flags, max_record) = (Flags::NONE, 900 << 10);
        encoder.encode(
            Line { content, offset, read_time: Moment::at(WALL), flags, max_record, wrapper: None },
            &own,
            &mut value,
        );
        let id = RecordId::of(source, offset, content);
        offset += content.len() as u64;
        (id.to_string(), String::from_utf8(value.clone()).expect("JSON"))
    };
    Workload::lines("json lines", NUM_RECORDS).into_iter().map(record).unzip()
}

fn record<'a>(key: &'a str, value: &'a str) -> Incoming<'a> {
    Incoming {
        topic: "logs",
        partition: 0,
        offset: 1,
        timestamp_ms: Some(WALL),
        key: Some(key.as_bytes()),
        value: Some(value.as_bytes()),
        id_header: None,
    }
}

fn plan(mappings: &serde_json::Value) -> Plan {
    let server = ServerVersion { flavor: Flavor::Elasticsearch, major: 8, minor: 19 };
    Plan::compile(mappings, &json!({}), &RuleOptions::default(), server).expect("a good mapping")
}

fn stages(criterion: &mut Criterion) {
    let (keys, values) = records();
    let num_bytes: usize = values.iter().map(String::len).sum();
    let mut group = criterion.benchmark_group("record");
    group.throughput(Throughput::Elements(values.len() as u64));
    println!("{} bytes a record", num_bytes / values.len());

    let mut parser = Parser::default();
    group.bench_function("parse", |bencher| {
        bencher.iter(|| {
            for value in &values {
                black_box(parser.parse(value.as_bytes()).is_ok());
            }
        });
    });

    let mut parsers: Vec<Parser> = values.iter().map(|_| Parser::default()).collect();
    let parsed = parsers.iter_mut().zip(&values);
    let documents: Vec<_> = parsed.map(|(parser, value)| parser.parse(value.as_bytes()).expect("JSON")).collect();
    let (mut identifier, mut id) = (Identifier::default(), Vec::new());
    group.bench_function("identify", |bencher| {
        bencher.iter(|| {
            for ((document, value), key) in documents.iter().zip(&values).zip(&keys) {
                black_box(identifier.identify(&record(key, value), Some(*document), &mut id));
            }
        });
    });

    let text = "kafka: { brokers: [k], topics: [t] }\nelasticsearch: { hosts: [\"http://e\"] }";
    let config = config::load("bench", text, &[], &|_| None).expect("a good configuration");
    let mut router = Router::new(RouterOptions::of(&config.rules[0]));
    group.bench_function("route", |bencher| {
        bencher.iter(|| {
            for document in &documents {
                black_box(router.resolve(*document, WALL, WALL).is_ok());
            }
        });
    });

    for (name, mappings) in [
        ("map", template()["template"]["mappings"].clone()),
        (
            "map, two fields mapped",
            json!({"dynamic": "false", "properties": {
                "@timestamp": {"type": "date"}, "message": {"type": "text"},
            }}),
        ),
    ] {
        let plan = plan(&mappings);
        let (mut state, mut actions, mut out) = (State::default(), Actions::default(), Vec::new());
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for document in &documents {
                    out.clear();
                    let input = Input { document: *document, timestamp: None };
                    black_box(plan.apply(input, &mut state, &mut out, &mut actions));
                }
            });
        });
    }

    // The stages above know each document's own index; one parser for all knows the names again.
    let plan = plan(&template()["template"]["mappings"]);
    let (mut state, mut actions, mut out) = (State::default(), Actions::default(), Vec::new());
    group.bench_function("all before the batch", |bencher| {
        bencher.iter(|| {
            for (value, key) in values.iter().zip(&keys) {
                out.clear();
                let document = parser.parse(value.as_bytes()).expect("JSON");
                black_box(identifier.identify(&record(key, value), Some(document), &mut id));
                black_box(router.resolve(document, WALL, WALL).is_ok());
                let input = Input { document, timestamp: None };
                black_box(plan.apply(input, &mut state, &mut out, &mut actions));
            }
        });
    });

    let limits = Limits { max_bytes: 1 << 30, max_documents: 1 << 20, max_delay: Duration::from_secs(3_600) };
    let mut builder = Builder::new(limits);
    #[expect(clippy::disallowed_methods, reason = "some instant to count from")]
    let now = std::time::Instant::now();
    let mut fill = || {
        for (n, (value, key)) in values.iter().zip(&keys).enumerate() {
            let draft = builder.begin("logs-shop-2026.11.23", Some(key.as_bytes()));
            builder.body().extend_from_slice(value.as_bytes());
            let settles = Settles::new(Owner { slot: 0, epoch: 0 }, n as u64, 0, WALL);
            builder.finish(draft, settles, Keep::Nothing, now);
        }
        builder.cut().expect("it is not empty")
    };
    group.bench_function("batch", |bencher| bencher.iter(&mut fill));

    let batch = fill();
    let item = |key: &String| format!(r#"{{"create":{{"_id":"{key}","status":201}}}}"#);
    let items: Vec<String> = keys.iter().map(item).collect();
    let reply = format!(r#"{{"errors":false,"items":[{}]}}"#, items.join(","));
    group.bench_function("reply", |bencher| {
        bencher.iter(|| black_box(response::read(reply.as_bytes(), &batch, &mut parser).is_ok()));
    });
    group.finish();
}

criterion_group!(benches, stages);
criterion_main!(benches);
