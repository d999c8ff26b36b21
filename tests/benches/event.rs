//! What one event costs, stage by stage: `cargo bench --bench event`.

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use millrace_common::record::{RecordId, SourceId};
use millrace_shipper::encode::event_time::EventTime;
use millrace_shipper::encode::own_fields::{Origin, OwnFields};
use millrace_shipper::encode::pattern::{Pattern, TIME_FIELD};
use millrace_shipper::encode::timestamp::Moment;
use millrace_shipper::encode::{Content, Encoder, Flags, Line};
use millrace_shipper::frame::plain::next_event;
use millrace_tests::bench::workload::Workload;

const NUM_LINES: u64 = 1_000;

fn stages(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("event");
    group.throughput(Throughput::Elements(NUM_LINES));
    let json = Workload::lines("json lines", NUM_LINES);

    let window = json.join("\n") + "\n";
    group.bench_function("frame", |bencher| {
        bencher.iter(|| {
            let mut rest = window.as_bytes();
            while let Some(event) = next_event(rest, None) {
                rest = &rest[event.end..];
                black_box(event.content);
            }
        });
    });

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
        ("encode text", Content::Text, Workload::lines("text lines of 60 bytes", NUM_LINES)),
        (
            "encode grok",
            Content::Pattern(Box::new(grok.expect("a known pattern"))),
            Workload::lines("access log, grok", NUM_LINES),
        ),
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
                        read_time: Moment::at(1_795_435_200_000),
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
