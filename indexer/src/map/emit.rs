//! The changed document as text, by copying what stays.

use millrace_common::json::write_string;

use super::decide::Edit;

/// A member to be written at the end, and what writes its value.
pub(super) type Tail<'a> = (&'a str, &'a mut dyn FnMut(&mut Vec<u8>));

/// Appends `document` with `edits` applied and the member `"field":…` written by `tail` at its end.
///
/// `document` is one JSON object without outer space; the edits' spans count from `base`, where it begins in its text.
/// Line breaks between tokens are left out.
pub(super) fn emit(document: &str, base: usize, edits: &[Edit<'_>], tail: Option<Tail<'_>>, out: &mut Vec<u8>) {
    let start = out.len();
    let mut at = 0;
    for edit in edits {
        match edit {
            Edit::Replace(span, text) => {
                copy(&document[at..span.start - base], out);
                out.extend_from_slice(text.as_bytes());
                at = span.end - base;
            }
            Edit::Remove(span) => {
                copy(&document[at..span.start - base], out);
                at = span.end - base;
                let rest = document[at..].trim_start_matches(is_space);
                match rest.strip_prefix(',') {
                    Some(rest) => at = document.len() - rest.len(),
                    // The last of its object: the comma before it goes.
                    None => drop_comma(start, out),
                }
            }
        }
    }
    let Some((field, write)) = tail else { return copy(&document[at..], out) };
    // The document's own closing bracket is its last byte.
    copy(&document[at..document.len() - 1], out);
    let end = start + out[start..].trim_ascii_end().len();
    out.truncate(end);
    // A removal may have left the comma of the last member.
    if !matches!(out.last(), Some(b'{' | b',')) {
        out.push(b',');
    }
    write_string(out, field);
    out.push(b':');
    write(out);
    out.push(b'}');
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

fn drop_comma(start: usize, out: &mut Vec<u8>) {
    let end = start + out[start..].trim_ascii_end().len();
    if out[start..end].last() == Some(&b',') {
        out.truncate(end - 1);
    }
}

fn copy(text: &str, out: &mut Vec<u8>) {
    let mut rest = text.as_bytes();
    while let Some(at) = memchr::memchr2(b'\n', b'\r', rest) {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}
