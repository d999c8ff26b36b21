use super::*;
use proptest::prelude::*;

/// Cuts a whole file: (content, covered range, partial) of each event.
fn cut(bytes: &[u8], boundaries: &[usize]) -> Vec<(Vec<u8>, Range<usize>, bool)> {
    let mut events = Vec::new();
    let mut at = 0;
    loop {
        let boundary = boundaries.iter().find(|&&b| b > at).map(|b| b - at);
        let Some(event) = next_event(&bytes[at..], boundary) else { return events };
        let content = bytes[at..][event.content.clone()].to_vec();
        events.push((content, at..at + event.end, event.is_partial));
        at += event.end;
    }
}

fn check(bytes: &str, boundaries: &[usize], expected: &[(&str, Range<usize>, bool)]) {
    let expected: Vec<_> = expected.iter().map(|(c, r, p)| (c.as_bytes().to_vec(), r.clone(), *p)).collect();
    assert_eq!(cut(bytes.as_bytes(), boundaries), expected);
}

#[test]
fn lines_lose_their_line_end_but_cover_it() {
    check("a\nbc\r\n", &[], &[("a", 0..2, false), ("bc", 2..6, false)]);
}

#[test]
fn blank_lines_are_covered_by_the_next_event() {
    check("\n\r\na\n\n\nb\n\n", &[], &[("a", 0..5, false), ("b", 5..9, false)]);
}

#[test]
fn an_unfinished_line_waits() {
    check("a\nbcd", &[], &[("a", 0..2, false)]);
    assert_eq!(unfinished_line(b"a\nbcd"), Some(2));
    assert_eq!(unfinished_line(b"a\n"), None);
    assert_eq!(unfinished_line(b""), None);
}

#[test]
fn a_noted_boundary_ends_a_line_also_when_more_follows() {
    check("a\nbcd", &[5], &[("a", 0..2, false), ("bcd", 2..5, true)]);
    check("a\nbcdef\ng\n", &[5], &[("a", 0..2, false), ("bcd", 2..5, true), ("ef", 5..8, false), ("g", 8..10, false)]);
    check("a\nbcd\ne\n", &[5], &[("a", 0..2, false), ("bcd", 2..5, true), ("e", 5..8, false)]);
}

#[test]
fn a_lone_carriage_return_inside_a_line_is_content() {
    check("a\rb\n", &[], &[("a\rb", 0..4, false)]);
}

proptest! {
    #[test]
    fn events_join_without_holes_and_keep_every_non_blank_line(
        lines in prop::collection::vec("[a\r]{0,6}", 0..20), ends_open: bool,
    ) {
        let mut bytes = lines.join("\n");
        if !ends_open { bytes.push('\n') }
        let events = cut(bytes.as_bytes(), &[]);
        let mut at = 0;
        for (_, range, _) in &events {
            prop_assert_eq!(range.start, at);
            at = range.end;
        }
        let complete = if ends_open { &lines[..lines.len().saturating_sub(1)] } else { &lines[..] };
        let expected: Vec<_> =
            complete.iter().map(|l| l.strip_suffix('\r').unwrap_or(l)).filter(|l| !l.is_empty()).collect();
        let found: Vec<_> = events.iter().map(|e| std::str::from_utf8(&e.0).unwrap()).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn a_search_by_windows_finds_the_same_ends(
        bytes in "[a\r\n]{0,60}", sizes in prop::collection::vec(1..9usize, 60), noted in prop::option::of(1..60u64),
    ) {
        let bytes = bytes.as_bytes();
        let whole = next_event(bytes, noted.map(|b| b as usize));
        let mut search = LongSearch::new(0, LineEnd::Lf);
        let mut found = None;
        for size in sizes.into_iter().chain(std::iter::repeat_n(9, 9)) {
            let from = search.searched as usize;
            found = search.advance(&bytes[from..(from + size).min(bytes.len())], noted);
            if found.is_some() { break }
        }
        prop_assert_eq!(found.map(|e| (e.end, e.is_partial)), whole.map(|e| (e.end as u64, e.is_partial)));
    }
}

#[test]
fn nul_bytes_before_a_line_are_no_content() {
    let event = next_event(b"\n\0\0\0one\n", None).unwrap();
    assert_eq!((event.content, event.end), (4..7, 8));
    assert_eq!(next_event(b"\0\0\n", None), None);
    let event = next_event(b"a\0b\n", None).unwrap();
    assert_eq!(event.content, 0..3);
}

#[test]
fn a_hole_is_a_long_run_of_nul_bytes_at_the_start_of_a_line() {
    let long = vec![0; MIN_HOLE as usize];
    let with = |parts: &[&[u8]]| hole(&parts.concat());
    assert_eq!(with(&[&long, b"x"]), Some(Hole { start: 0, end: long.len() }));
    assert_eq!(with(&[b"\r\n\n", &long, b"x"]), Some(Hole { start: 3, end: 3 + long.len() }));
    assert_eq!(with(&[&long[1..], b"x"]), None);
    // It may go on behind the window.
    assert_eq!(with(&[b"\n\0"]), Some(Hole { start: 1, end: 2 }));
    assert_eq!(with(&[b"x", &long]), None);
    assert_eq!(with(&[b"\n\n"]), None);
}
