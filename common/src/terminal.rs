//! Text that came from outside, on its way to a terminal; [`table`]s and the [`screen`].

pub mod screen;
pub mod table;

use std::borrow::Cow;

/// Whether a character acts on a terminal instead of being seen: controls, line separators, and marks that turn the order of
/// what follows.
pub fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text with `\n`, `\t`, `\u{1b}` … for characters that act.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if acts(c) { escaped.extend(c.escape_default()) } else { escaped.push(c) }
    }
    Cow::Owned(escaped)
}
