use proptest::prelude::*;

use super::*;
use crate::frame::lines::LineEnd;
use crate::frame::multiline::{Multiline, Rule};
use crate::frame::wrapping::Wrapping;

fn framing() -> Framing {
    Framing {
        line_end: LineEnd::Lf,
        encoding: encoding_rs::UTF_8,
        wrapping: None,
        multiline: None,
        filter: None,
        max_bytes: 1000,
    }
}

fn multiline() -> Multiline {
    Multiline { rule: Rule::Start(regex::bytes::Regex::new("^S").unwrap()), timeout: Duration::from_secs(2) }
}

fn cri() -> Framing {
    Framing { wrapping: Some(Wrapping::Cri), ..framing() }
}

/// An event and where to go on after it.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    content: String,
    range: Range<u64>,
    stream: Option<&'static str>,
    flags: Flags,
    after: Resume,
}

/// Cuts `bytes` in one go, from `resume` on. Also the open events at the end.
fn cut(framing: &Framing, bytes: &[u8], boundaries: &[u64], resume: Resume) -> (Vec<Seen>, Option<(Open, Waiting)>) {
    let mut assembler = Assembler::default();
    assembler.resume(resume, 0);
    let start = resume.start();
    let window = Window { start, bytes: &bytes[start as usize..], boundaries };
    let mut covered = resume.covered;
    let mut events = Vec::new();
    while let Step::Event(event) = assembler.next(framing, window) {
        events.push(Seen {
            content: String::from_utf8_lossy(event.content).into_owned(),
            range: covered..event.end,
            stream: event.wrapper.map(|w| if w.stream == "stdout" { "stdout" } else { "stderr" }),
            flags: event.flags,
            after: Resume { covered: event.end, open: event.open },
        });
        covered = event.end;
    }
    (events, assembler.waiting().map(|waiting| (assembler.open(), waiting)))
}

fn check(framing: &Framing, text: &str, boundaries: &[u64], expected: &[(&str, Range<u64>, Flags)]) {
    let (events, _) = cut(framing, text.as_bytes(), boundaries, Resume::default());
    let found: Vec<_> = events.iter().map(|e| (e.content.as_str(), e.range.clone(), e.flags)).collect();
    assert_eq!(found, expected);
}

const NONE: Flags = Flags::NONE;

fn both(one: Flags, other: Flags) -> Flags {
    let mut flags = one;
    flags |= other;
    flags
}

#[test]
fn lines_that_match_begin_events() {
    let framing = Framing { multiline: Some(multiline()), ..framing() };
    check(
        &framing,
        "S1\n a\n\n b\n\nS2\nS3\n",
        &[],
        &[("S1\n a\n\n b", 0..11, Flags::MULTILINE), ("S2", 11..14, NONE)],
    );
    check(&framing, "rest\nS1\n", &[], &[("rest", 0..5, Flags::SPLIT)]);
}

#[test]
fn a_noted_boundary_ends_an_event_and_the_rest_says_so() {
    let framing = Framing { multiline: Some(multiline()), ..framing() };
    check(&framing, "S1\n a\n b\nS2\n", &[6], &[("S1\n a", 0..6, Flags::MULTILINE), (" b", 6..9, Flags::SPLIT)]);
    let partial = both(Flags::MULTILINE, Flags::PARTIAL);
    check(&framing, "S1\n ab\nS2\n", &[5], &[("S1\n a", 0..5, partial), ("b", 5..7, Flags::SPLIT)]);
}

#[test]
fn an_event_that_spans_too_much_is_split() {
    let framing = Framing { multiline: Some(multiline()), max_bytes: 8, ..framing() };
    let (split, several) = (Flags::SPLIT, both(Flags::SPLIT, Flags::MULTILINE));
    check(
        &framing,
        "S1\n a\n b\n c\n d\nS2\n",
        &[],
        &[("S1\n a", 0..6, several), (" b\n c", 6..12, several), (" d", 12..15, split)],
    );
}

#[test]
fn a_line_that_is_too_long_stands_alone() {
    let framing = Framing { multiline: Some(multiline()), max_bytes: 8, ..framing() };
    let bytes = b"S1\n a\n 23456789";
    let mut assembler = Assembler::default();
    assembler.resume(Resume::default(), 0);
    let window = Window { start: 0, bytes, boundaries: &[] };
    assert!(matches!(assembler.next(&framing, window), Step::Event(Event { end: 6, .. })));
    assert_eq!(assembler.next(&framing, window), Step::Long(6));
}

#[test]
fn parts_of_two_streams_are_joined_each_with_a_range_of_its_own() {
    let text = "2026-01-01T00:00:00Z stdout P a\n2026-01-01T00:00:00Z stderr P x\n2026-01-01T00:00:00Z stdout F b\n2026-01-01T00:00:00Z stderr F y\n";
    check(&cri(), text, &[], &[("ab", 0..95, NONE), ("xy", 95..128, NONE)]);
    // The other stream's part came first.
    let text = "2026-01-01T00:00:00Z stdout P a\n2026-01-01T00:00:00Z stderr F x\n2026-01-01T00:00:00Z stdout F b\n";
    check(&cri(), text, &[], &[("x", 0..63, NONE), ("ab", 63..96, NONE)]);
    let (events, _) = cut(&cri(), text.as_bytes(), &[], Resume::default());
    assert_eq!(events[0].after, Resume { covered: 63, open: [63, 0] });
}

#[test]
fn events_of_several_lines_inside_a_container_end_by_the_time_that_the_runtime_wrote() {
    let framing = Framing { multiline: Some(multiline()), ..cri() };
    let text = "2026-01-01T00:00:00Z stderr F S1\n2026-01-01T00:00:00Z stderr F  a\n2026-01-01T00:00:01Z stdout F S2\n2026-01-01T00:00:03Z stdout F S3\n";
    let (events, waiting) = cut(&framing, text.as_bytes(), &[], Resume::default());
    let found: Vec<_> = events.iter().map(|e| (e.content.as_str(), e.stream)).collect();
    assert_eq!(found, [("S1\n a", Some("stderr")), ("S2", Some("stdout"))]);
    assert_eq!(waiting, Some(([33, 0], Waiting { is_cut: false })));
}

#[test]
fn utf16_becomes_utf8_without_byte_order_mark() {
    for (line_end, encoding) in [(LineEnd::Utf16Le, encoding_rs::UTF_16LE), (LineEnd::Utf16Be, encoding_rs::UTF_16BE)] {
        let framing = Framing { line_end, encoding, ..framing() };
        let units = "\u{feff}ein\r\nzwei ü\r\n".encode_utf16();
        let bytes: Vec<u8> = match line_end {
            LineEnd::Utf16Le => units.flat_map(u16::to_le_bytes).collect(),
            _ => units.flat_map(u16::to_be_bytes).collect(),
        };
        let (events, _) = cut(&framing, &bytes, &[], Resume::default());
        let found: Vec<_> = events.iter().map(|e| (e.content.as_str(), e.range.clone())).collect();
        assert_eq!(found, [("ein", 0..12), ("zwei ü", 12..28)]);
    }
}

/// A container's file: lines of (stream, is whole, content, seconds since the line before).
fn container_lines() -> impl Strategy<Value = Vec<(bool, bool, String, u8)>> {
    prop::collection::vec((any::<bool>(), prop::bool::weighted(0.6), "S?[a-z]{0,3}", 0..4u8), 0..30)
}

fn container_text(lines: &[(bool, bool, String, u8)]) -> String {
    let mut text = String::new();
    let mut second = 0;
    for (is_stderr, is_whole, content, pause) in lines {
        second += u32::from(*pause);
        let (minutes, seconds) = (second / 60, second % 60);
        let (stream, tag) = (if *is_stderr { "stderr" } else { "stdout" }, if *is_whole { "F" } else { "P" });
        text.push_str(&format!("2026-01-01T00:{minutes:02}:{seconds:02}Z {stream} {tag} {content}\n"));
    }
    text
}

proptest! {
    #[test]
    fn ranges_join_and_every_part_is_in_one_event(lines in container_lines(), max_bytes in 40..300u64, several: bool) {
        let framing = Framing { max_bytes, multiline: several.then(multiline), ..cri() };
        let text = container_text(&lines);
        let end = text.len() as u64;
        let boundaries = if end > 0 { vec![end] } else { vec![] };
        let (events, waiting) = cut(&framing, text.as_bytes(), &boundaries, Resume::default());
        let mut at = 0;
        for event in &events {
            prop_assert_eq!(event.range.start, at);
            prop_assert!(event.range.end > at, "{:?}", events);
            at = event.range.end;
        }
        prop_assert_eq!(waiting, None);
        for stream in ["stdout", "stderr"] {
            let of_stream = events.iter().filter(|e| e.stream == Some(stream));
            let found: String = of_stream.flat_map(|e| e.content.chars()).filter(|c| *c != '\n').collect();
            let wanted = lines.iter().filter(|l| l.0 == (stream == "stderr"));
            let wanted: String = wanted.map(|l| l.2.as_str()).collect();
            prop_assert_eq!(found, wanted);
        }
    }

    #[test]
    fn reading_again_from_any_event_gives_the_same(
        lines in container_lines(), max_bytes in 40..300u64, several: bool, noted: prop::sample::Index,
    ) {
        let framing = Framing { max_bytes, multiline: several.then(multiline), ..cri() };
        let text = container_text(&lines);
        let boundaries: Vec<u64> = if text.is_empty() { vec![] } else { vec![noted.index(text.len()) as u64 + 1] };
        let (events, waiting) = cut(&framing, text.as_bytes(), &boundaries, Resume::default());
        for (n, event) in events.iter().enumerate() {
            let again = cut(&framing, text.as_bytes(), &boundaries, event.after);
            prop_assert_eq!(&again.0, &events[n + 1..]);
            prop_assert_eq!(again.1, waiting);
        }
    }

    #[test]
    fn a_file_that_grows_gives_the_same_as_a_whole_one(
        lines in container_lines(), max_bytes in 40..300u64, several: bool,
        sizes in prop::collection::vec(1..90usize, 1..60),
    ) {
        let framing = Framing { max_bytes, multiline: several.then(multiline), ..cri() };
        let text = container_text(&lines);
        let (whole, waiting) = cut(&framing, text.as_bytes(), &[], Resume::default());
        let mut events: Vec<Seen> = Vec::new();
        let mut size = 0;
        let mut last = None;
        for step in sizes.iter().copied().chain([text.len()]) {
            size = (size + step).min(text.len());
            let resume = events.last().map_or(Resume::default(), |event| event.after);
            let (more, open) = cut(&framing, &text.as_bytes()[..size], &[], resume);
            events.extend(more);
            last = open;
        }
        prop_assert_eq!(events, whole);
        prop_assert_eq!(last, waiting);
    }

    #[test]
    fn any_bytes_are_cut_without_holes(bytes in prop::collection::vec(any::<u8>(), 0..300), max_bytes in 20..100u64) {
        for wrapping in [None, Some(Wrapping::Cri), Some(Wrapping::Docker)] {
            let framing = Framing { max_bytes, wrapping, multiline: Some(multiline()), ..framing() };
            let (events, _) = cut(&framing, &bytes, &[], Resume::default());
            for (event, next) in events.iter().zip(events.iter().skip(1)) {
                prop_assert_eq!(event.range.end, next.range.start);
            }
        }
    }
}
