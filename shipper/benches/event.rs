//! What one event costs, stage by stage: `cargo bench --bench event`.

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use millrace_common::record::{RecordId, SourceId};
use millrace_shipper::encode::event_time::EventTime;
use millrace_shipper::encode::own_fields::{Origin, OwnFields};
use millrace_shipper::encode::pattern::{Pattern, TIME_FIELD};
use millrace_shipper::encode::{Content, Encoder, Flags, Line};
use millrace_shipper::frame::plain::next_event;

const NUM_LINES: u64 = 1_000;

fn json_line(n: u64) -> String {
    format!(
        concat!(
            r#"{{"time":"2026-11-23T12:00:{:02}.{:03}Z","level":"INFO","logger":"shop.checkout.PaymentService","#,
            r#""thread":"http-nio-8080-exec-{}","request_id":"{:016x}","user":{{"id":{},"plan":"pro"}},"#,
            r#""status":200,"duration_ms":{}.25,"message":"payment accepted for order {}"}}"#
        ),
        n % 60,
        n % 1000,
        n % 50,
        n.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        n % 10_000,
        n % 500,
        n,
    )
}

fn access_line(n: u64) -> String {
    format!(
        r#"10.0.{}.{} - - [23/Nov/2026:12:00:{:02} +0000] "GET /orders/{n}?page=2 HTTP/1.1" 200 {} "https://shop.example/" "Mozilla/5.0 (X11; Linux x86_64)""#,
        n % 200,
        n % 250,
        n % 60,
        n % 9_000,
    )
}

fn text_line(n: u64) -> String {
    format!("2026-11-23 12:00:{:02} INFO worker-{} order {n} is done", n % 60, n % 8)
}

fn stages(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("event");
    group.throughput(Throughput::Elements(NUM_LINES));
    let lines = |line: fn(u64) -> String| (0..NUM_LINES).map(line).collect::<Vec<_>>();

    let window = lines(json_line).join("\n") + "\n";
    group.bench_function("frame", |bencher| {
        bencher.iter(|| {
            let mut rest = window.as_bytes();
            while let Some(event) = next_event(rest, None) {
                rest = &rest[event.end..];
                black_box(event.content);
            }
        });
    });

    let json = lines(json_line);
    group.bench_function("identify", |bencher| {
        bencher.iter(|| {
            for line in &json {
                black_box(RecordId::of(SourceId::from_u64(7), 0, line.as_bytes()).encode());
            }
        });
    });

    let origin = Origin { host_name: "web-1", path: "/var/log/shop/checkout.log", source: SourceId::from_u64(7) };
    let own = OwnFields::new(origin, &[]).expect("our fields");
    let grok = Pattern::of_grok(
        "%{COMBINEDAPACHELOG}",
        &BTreeMap::new(),
        &BTreeMap::new(),
        EventTime::of_fields(&[TIME_FIELD]),
    );
    let workloads = [
        ("encode json", Content::Json, json.clone()),
        ("encode text", Content::Text, lines(text_line)),
        ("encode grok", Content::Pattern(Box::new(grok.expect("a known pattern"))), lines(access_line)),
    ];
    for (name, content, lines) in workloads {
        let mut encoder = Encoder::new(content, encoding_rs::UTF_8);
        let mut out = Vec::new();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for line in &lines {
                    let line = Line {
                        content: line.as_bytes(),
                        offset: 1_000,
                        read_time_ms: 1_795_435_200_000,
                        flags: Flags::NONE,
                        max_record: 900 << 10,
                        wrapper: None,
                    };
                    black_box(encoder.encode(line, &own, &mut out));
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, stages);
criterion_main!(benches);
