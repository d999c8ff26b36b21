//! What one record costs, stage by stage: `cargo bench --bench record`.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use millrace_common::json::Parser;
use millrace_common::record::{CoveredRange, RecordId, SourceId};
use millrace_indexer::bulk::batch::{Builder, Keep, Limits, Owner, Settles};
use millrace_indexer::bulk::response;
use millrace_indexer::config;
use millrace_indexer::decode::{Incoming, identify};
use millrace_indexer::map::{Actions, Flavor, Input, Plan, RuleOptions, ServerVersion, State};
use millrace_indexer::route::{Router, RouterOptions};
use serde_json::json;

const WALL: i64 = 1_795_435_200_000;

/// Records as the shipper makes them of JSON lines.
fn values(num: u64) -> Vec<String> {
    let value = |n: u64| {
        format!(
            concat!(
                r#"{{"time":"2026-11-23T12:00:{:02}.{:03}Z","level":"INFO","logger":"shop.checkout.PaymentService","#,
                r#""thread":"http-nio-8080-exec-{}","request_id":"{:016x}","user":{{"id":{},"plan":"pro"}},"#,
                r#""status":200,"duration_ms":{}.25,"message":"payment accepted for order {}","#,
                r#""@timestamp":"2026-11-23T12:00:{:02}.{:03}Z","host":{{"name":"web-1"}},"#,
                r#""log":{{"file":{{"path":"/var/log/shop/checkout.log"}},"offset":{},"source":"Zm9vYmFyYmF6"}}}}"#
            ),
            n % 60,
            n % 1000,
            n % 50,
            n.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            n % 10_000,
            n % 500,
            n,
            n % 60,
            n % 1000,
            n * 300,
        )
    };
    (0..num).map(value).collect()
}

fn key(n: u64) -> String {
    let range = CoveredRange { start: n * 300, length: 300 };
    RecordId { source: SourceId::from_u64(7), range, checksum: n as u32 }.to_string()
}

fn plan(mappings: &serde_json::Value) -> Plan {
    let server = ServerVersion { flavor: Flavor::Elasticsearch, major: 8, minor: 19 };
    Plan::compile(mappings, &json!({}), &RuleOptions::default(), server).expect("a good mapping")
}

fn mappings() -> serde_json::Value {
    let keyword = json!({"type": "keyword", "ignore_above": 256});
    json!({"dynamic": "false", "properties": {
        "@timestamp": {"type": "date"}, "time": {"type": "date"}, "message": {"type": "text"},
        "level": keyword, "logger": keyword, "thread": keyword, "request_id": keyword,
        "status": {"type": "short"}, "duration_ms": {"type": "float"},
        "user": {"properties": {"id": {"type": "long"}, "plan": keyword}},
        "host": {"properties": {"name": keyword}}, "attrs": {"type": "flattened"},
        "log": {"properties": {"file": {"properties": {"path": keyword}}, "offset": {"type": "long"}, "source": keyword}},
    }})
}

fn stages(criterion: &mut Criterion) {
    let values = values(1_000);
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
    let keys: Vec<String> = (0..values.len() as u64).map(key).collect();
    let mut id = Vec::new();
    group.bench_function("identify", |bencher| {
        bencher.iter(|| {
            for ((document, value), key) in documents.iter().zip(&values).zip(&keys) {
                let record = Incoming {
                    topic: "logs",
                    partition: 0,
                    offset: 1,
                    timestamp_ms: Some(WALL),
                    key: Some(key.as_bytes()),
                    value: Some(value.as_bytes()),
                    id_header: None,
                };
                black_box(identify(&record, Some(*document), &mut id));
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
        ("map", mappings()),
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
