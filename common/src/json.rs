//! A flat index over JSON text.
//!
//! One validating pass (RFC 8259) notes where each value begins and ends. Nothing is copied, converted or allocated per
//! value, so digits, order, duplicates and spelling stay those of the text, and a document can be changed by splicing
//! spans. The parser is not recursive: depth is limited by [`Parser::with_max_depth`], never by the stack.

mod vocabulary;

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

use self::vocabulary::Vocabulary;

pub use self::vocabulary::NameId;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Null,
    Bool(bool),
    Number,
    String,
    Array,
    Object,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    start: u32,
    end: u32,
    /// Index of the node after this value and all it contains.
    next: u32,
    kind: Kind,
    has_escape: bool,
    /// Of a member's name.
    id: Option<NameId>,
}

/// Why a text is not JSON, and where: `at` is a byte offset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SyntaxError {
    #[error("not valid UTF-8 at byte {at}")]
    InvalidUtf8 { at: usize },
    #[error("expected {expected} at byte {at}")]
    Expected { expected: &'static str, at: usize },
    #[error("unescaped control character in a string at byte {at}")]
    ControlCharacter { at: usize },
    #[error("nested deeper than {limit} levels at byte {at}")]
    TooDeep { limit: usize, at: usize },
    #[error("longer than 4 GiB")]
    TooLong,
}

/// Reusable parser: keeps its buffers between documents, and the names of their members.
pub struct Parser {
    nodes: Vec<Node>,
    open: Vec<u32>,
    vocabulary: Vocabulary,
    max_depth: usize,
}

impl Default for Parser {
    fn default() -> Self {
        Self::with_max_depth(Self::DEFAULT_MAX_DEPTH)
    }
}

impl Parser {
    /// Objects and arrays inside each other; the outermost counts as 1.
    pub const DEFAULT_MAX_DEPTH: usize = 1_000;

    pub fn with_max_depth(max_depth: usize) -> Self {
        Self { nodes: Vec::new(), open: Vec::new(), vocabulary: Vocabulary::default(), max_depth }
    }

    /// Indexes `text`, which must be exactly one JSON value, white space around it allowed.
    pub fn parse<'p, 't>(&'p mut self, text: &'t [u8]) -> Result<Value<'p, 't>, SyntaxError> {
        let text = std::str::from_utf8(text).map_err(|e| SyntaxError::InvalidUtf8 { at: e.valid_up_to() })?;
        if u32::try_from(text.len()).is_err() {
            return Err(SyntaxError::TooLong);
        }
        self.nodes.clear();
        self.open.clear();
        Scan { text: text.as_bytes(), at: 0, parser: self }.document()?;
        Ok(Value { text, nodes: &self.nodes, index: 0 })
    }
}

struct Scan<'p, 't> {
    text: &'t [u8],
    at: usize,
    parser: &'p mut Parser,
}

impl Scan<'_, '_> {
    fn document(&mut self) -> Result<(), SyntaxError> {
        self.skip_space();
        self.value()?;
        // Each turn stands right after a complete value or a fresh opening bracket of the innermost container.
        while let Some(&open) = self.parser.open.last() {
            self.skip_space();
            let is_empty = open as usize + 1 == self.parser.nodes.len();
            let is_object = self.parser.nodes[open as usize].kind == Kind::Object;
            match (self.peek(), is_object) {
                (Some(b'}'), true) | (Some(b']'), false) => {
                    self.at += 1;
                    self.close(open);
                    continue;
                }
                (Some(b','), _) if !is_empty => {
                    self.at += 1;
                    self.skip_space();
                }
                _ if is_empty => {}
                (_, true) => return self.expected("`,` or `}`"),
                (_, false) => return self.expected("`,` or `]`"),
            }
            if is_object {
                self.key()?;
            }
            self.value()?;
        }
        self.skip_space();
        if self.at < self.text.len() { self.expected("the end of the text") } else { Ok(()) }
    }

    fn key(&mut self) -> Result<(), SyntaxError> {
        let Some((length, id)) = self.parser.vocabulary.expected(&self.text[self.at..]) else {
            return self.unexpected_key();
        };
        let start = self.at;
        self.at += length - 1;
        self.push(start, Kind::String, false, Some(id));
        self.at += 1;
        self.skip_space();
        Ok(())
    }

    #[cold]
    fn unexpected_key(&mut self) -> Result<(), SyntaxError> {
        let start = self.at;
        if self.peek() != Some(b'"') {
            return self.expected("a key in double quotes");
        }
        self.string()?;
        let end = self.at;
        self.skip_space();
        if self.peek() != Some(b':') {
            return self.expected("`:`");
        }
        let is_close = self.at == end;
        self.at += 1;
        if let Some(node) = self.parser.nodes.last_mut()
            && is_close
            && !node.has_escape
        {
            node.id = self.parser.vocabulary.learn(&self.text[start..self.at]);
        }
        self.skip_space();
        Ok(())
    }

    fn value(&mut self) -> Result<(), SyntaxError> {
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'{') => self.open(Kind::Object),
            Some(b'[') => self.open(Kind::Array),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal("true", Kind::Bool(true)),
            Some(b'f') => self.literal("false", Kind::Bool(false)),
            Some(b'n') => self.literal("null", Kind::Null),
            _ => self.expected("a value"),
        }
    }

    fn open(&mut self, kind: Kind) -> Result<(), SyntaxError> {
        if self.parser.open.len() == self.parser.max_depth {
            return Err(SyntaxError::TooDeep { limit: self.parser.max_depth, at: self.at });
        }
        self.parser.open.push(self.parser.nodes.len() as u32);
        self.push(self.at, kind, false, None);
        self.at += 1;
        Ok(())
    }

    fn close(&mut self, open: u32) {
        let next = self.parser.nodes.len() as u32;
        let node = &mut self.parser.nodes[open as usize];
        node.end = self.at as u32;
        node.next = next;
        self.parser.open.pop();
    }

    fn push(&mut self, start: usize, kind: Kind, has_escape: bool, id: Option<NameId>) {
        let next = self.parser.nodes.len() as u32 + 1;
        self.parser.nodes.push(Node { start: start as u32, end: self.at as u32, next, kind, has_escape, id });
    }

    fn literal(&mut self, word: &'static str, kind: Kind) -> Result<(), SyntaxError> {
        if !self.text[self.at..].starts_with(word.as_bytes()) {
            return self.expected("a value");
        }
        let start = self.at;
        self.at += word.len();
        self.push(start, kind, false, None);
        Ok(())
    }

    fn string(&mut self) -> Result<(), SyntaxError> {
        let start = self.at;
        let mut has_escape = false;
        self.at += 1;
        loop {
            self.at += plain_prefix(&self.text[self.at..]);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    self.push(start, Kind::String, has_escape, None);
                    return Ok(());
                }
                Some(b'\\') => {
                    has_escape = true;
                    self.escape()?;
                }
                Some(_) => return Err(SyntaxError::ControlCharacter { at: self.at }),
                None => return self.expected("the closing `\"` of a string"),
            }
        }
    }

    fn escape(&mut self) -> Result<(), SyntaxError> {
        match self.text.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => {
                let digits = self.text.get(self.at + 2..self.at + 6);
                if !digits.is_some_and(|d| d.iter().all(u8::is_ascii_hexdigit)) {
                    return self.expected("four hexadecimal digits after `\\u`");
                }
                self.at += 6;
            }
            _ => return self.expected("a valid escape after `\\`"),
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), SyntaxError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.skip_digits(),
            _ => return self.expected("a digit"),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.some_digits()?;
        }
        self.push(start, Kind::Number, false, None);
        Ok(())
    }

    fn some_digits(&mut self) -> Result<(), SyntaxError> {
        if !self.peek().is_some_and(|b| b.is_ascii_digit()) {
            return self.expected("a digit");
        }
        self.skip_digits();
        Ok(())
    }

    fn skip_digits(&mut self) {
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn expected<T>(&self, expected: &'static str) -> Result<T, SyntaxError> {
        Err(SyntaxError::Expected { expected, at: self.at })
    }
}

/// Length of the longest prefix without `"`, `\` and control characters. Eight bytes at a time.
fn plain_prefix(text: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // A byte is zero in `x` exactly where the lowest set flag stands; flags above it may be false, which is fine
    // because only the lowest is used.
    let zero_bytes = |x: u64| x.wrapping_sub(ONES) & !x & HIGH;
    let mut words = text.chunks_exact(8);
    let mut length = 0;
    for word in &mut words {
        let x = u64::from_le_bytes(word.try_into().expect("chunks of eight bytes"));
        let quote = zero_bytes(x ^ (ONES * u64::from(b'"')));
        let backslash = zero_bytes(x ^ (ONES * u64::from(b'\\')));
        let control = x.wrapping_sub(ONES * 0x20) & !x & HIGH;
        let special = quote | backslash | control;
        if special != 0 {
            return length + special.trailing_zeros() as usize / 8;
        }
        length += 8;
    }
    let rest = words.remainder();
    length + rest.iter().position(|&b| b == b'"' || b == b'\\' || b < 0x20).unwrap_or(rest.len())
}

/// A value of an indexed text. Cheap to copy.
#[derive(Clone, Copy)]
pub struct Value<'p, 't> {
    text: &'t str,
    nodes: &'p [Node],
    index: u32,
}

impl<'p, 't> Value<'p, 't> {
    #[inline]
    fn node(self) -> Node {
        self.nodes[self.index as usize]
    }

    #[inline]
    pub fn kind(self) -> Kind {
        self.node().kind
    }

    /// Where the value stands in the parsed text.
    #[inline]
    pub fn span(self) -> Range<usize> {
        self.node().start as usize..self.node().end as usize
    }

    /// The value exactly as written, quotes and inner white space included.
    #[inline]
    pub fn raw(self) -> &'t str {
        &self.text[self.span()]
    }

    /// The text that was parsed, of which this value is a part.
    pub fn text(self) -> &'t str {
        self.text
    }

    /// The content of a string, escapes decoded; `None` for other kinds. A lone surrogate becomes U+FFFD.
    #[inline]
    pub fn as_str(self) -> Option<Cow<'t, str>> {
        let node = self.node();
        (node.kind == Kind::String).then(|| {
            let inner = &self.text[node.start as usize + 1..node.end as usize - 1];
            if node.has_escape { Cow::Owned(unescape(inner)) } else { Cow::Borrowed(inner) }
        })
    }

    /// Members of an object in order, duplicates included; nothing for other kinds.
    #[inline]
    pub fn members(self) -> Members<'p, 't> {
        let node = self.node();
        let end = if node.kind == Kind::Object { node.next } else { self.index };
        Members { text: self.text, nodes: self.nodes, at: self.index + 1, end }
    }

    /// Elements of an array in order; nothing for other kinds.
    #[inline]
    pub fn elements(self) -> Elements<'p, 't> {
        let node = self.node();
        let end = if node.kind == Kind::Array { node.next } else { self.index };
        Elements { text: self.text, nodes: self.nodes, at: self.index + 1, end }
    }

    /// The last member named `key`, as JSON parsers that keep the last of duplicates would give it.
    pub fn get(self, key: &str) -> Option<Value<'p, 't>> {
        self.members().filter(|(k, _)| k.is(key)).last().map(|(_, value)| value)
    }

    /// Whether any object in this value names a key twice.
    pub fn has_duplicate_keys(self) -> bool {
        let inner = self.nodes[self.index as usize..self.node().next as usize].iter().enumerate();
        inner.filter(|(_, node)| node.kind == Kind::Object).any(|(i, _)| {
            let object = Value { index: self.index + i as u32, ..self };
            has_equal_keys(object)
        })
    }
}

fn has_equal_keys(object: Value<'_, '_>) -> bool {
    const FEW: usize = 24;
    // Numbers are compared faster than names.
    let mut few = [0_u64; FEW];
    for (count, (key, _)) in object.members().enumerate() {
        if key.has_escape() || count == FEW {
            let mut seen = HashSet::new();
            return !object.members().all(|(key, _)| seen.insert(key.name()));
        }
        let head = key.head();
        if few[..count].contains(&head) && object.members().take(count).any(|(other, _)| other.raw() == key.raw()) {
            return true;
        }
        few[count] = head;
    }
    false
}

/// A member's name.
#[derive(Clone, Copy)]
pub struct Key<'p, 't>(Value<'p, 't>);

impl<'p, 't> Key<'p, 't> {
    /// The name with its escapes decoded.
    #[inline]
    pub fn name(self) -> Cow<'t, str> {
        let raw = self.raw();
        if self.has_escape() { Cow::Owned(unescape(raw)) } else { Cow::Borrowed(raw) }
    }

    /// What stands for the name as written, if it is one that the parser knows.
    #[inline]
    pub fn id(self) -> Option<NameId> {
        self.0.node().id
    }

    /// Up to seven bytes of the name as written, and its length as far as it fits into a byte: equal for equal names. Names
    /// of at most seven bytes with equal heads are equal.
    #[inline]
    pub fn head(self) -> u64 {
        let node = self.0.node();
        let (start, length) = (node.start as usize + 1, (node.end - node.start) as usize - 2);
        let rest = &self.0.text.as_bytes()[start..];
        let bytes = rest.first_chunk().copied().unwrap_or_else(|| {
            let mut bytes = [0; 8];
            bytes[..rest.len()].copy_from_slice(rest);
            bytes
        });
        let kept = 8 * length.min(7) as u32;
        (u64::from_le_bytes(bytes) & ((1 << kept) - 1)) << 8 | (length as u64 & 0xff)
    }

    /// Whether the name as written stands for something else.
    #[inline]
    pub fn has_escape(self) -> bool {
        self.0.node().has_escape
    }

    /// The name as written, without the quotes.
    #[inline]
    pub fn raw(self) -> &'t str {
        let node = self.0.node();
        &self.0.text[node.start as usize + 1..node.end as usize - 1]
    }

    /// Where the key stands, quotes included.
    #[inline]
    pub fn span(self) -> Range<usize> {
        self.0.span()
    }

    #[inline]
    pub fn is(self, name: &str) -> bool {
        if self.has_escape() { self.name() == name } else { self.raw() == name }
    }
}

pub struct Members<'p, 't> {
    text: &'t str,
    nodes: &'p [Node],
    at: u32,
    end: u32,
}

impl<'p, 't> Iterator for Members<'p, 't> {
    type Item = (Key<'p, 't>, Value<'p, 't>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.end {
            return None;
        }
        let key = Value { text: self.text, nodes: self.nodes, index: self.at };
        let value = Value { index: self.at + 1, ..key };
        self.at = value.node().next;
        Some((Key(key), value))
    }
}

pub struct Elements<'p, 't> {
    text: &'t str,
    nodes: &'p [Node],
    at: u32,
    end: u32,
}

impl<'p, 't> Iterator for Elements<'p, 't> {
    type Item = Value<'p, 't>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.end {
            return None;
        }
        let value = Value { text: self.text, nodes: self.nodes, index: self.at };
        self.at = value.node().next;
        Some(value)
    }
}

/// Decodes the inside of a string that was validated.
fn unescape(inner: &str) -> String {
    let mut out = String::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        out.push_str(&rest[..at]);
        let code = rest.as_bytes()[at + 1];
        rest = &rest[at + 2..];
        match code {
            b'b' => out.push('\u{8}'),
            b'f' => out.push('\u{c}'),
            b'n' => out.push('\n'),
            b'r' => out.push('\r'),
            b't' => out.push('\t'),
            b'u' => {
                let unit = hex4(rest);
                rest = &rest[4..];
                let low = rest.strip_prefix("\\u").map(hex4).filter(|low| (0xDC00..0xE000).contains(low));
                match (unit, low) {
                    (0xD800..0xDC00, Some(low)) => {
                        rest = &rest[6..];
                        let code = 0x1_0000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
                        out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                    }
                    _ => out.push(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER)),
                }
            }
            other => out.push(char::from(other)),
        }
    }
    out.push_str(rest);
    out
}

fn hex4(digits: &str) -> u32 {
    digits.get(..4).and_then(|d| u32::from_str_radix(d, 16).ok()).unwrap_or(0xFFFD)
}

/// Appends `text` as a JSON string, quotes included. Only what RFC 8259 demands is escaped.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    write_string_content(out, text);
    out.push(b'"');
}

/// Appends `text` escaped, without quotes, so that a string can be written in parts.
pub fn write_string_content(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    loop {
        let plain = plain_prefix(rest);
        out.extend_from_slice(&rest[..plain]);
        let Some(&byte) = rest.get(plain) else { return };
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            _ => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
            }
        }
        rest = &rest[plain + 1..];
    }
}

#[cfg(test)]
mod tests;
