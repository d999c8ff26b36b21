//! A flat index over JSON text.
//!
//! One validating pass (RFC 8259) notes where each value begins and ends. Nothing is copied, converted or allocated per
//! value, so digits, order, duplicates and spelling stay those of the text, and a document can be changed by splicing
//! spans. The parser is not recursive: depth is limited by [`Parser::with_max_depth`], never by the stack.

mod cursor;
mod literal;
mod scan;
mod seldom;
mod shapes;
mod templates;
mod text;
mod vocabulary;

use std::borrow::Cow;
use std::collections::HashSet;
use std::num::NonZeroU32;
use std::ops::Range;

use self::scan::Scan;
use self::shapes::Shapes;
use self::templates::Templates;
use self::text::unescape;
use self::vocabulary::Vocabulary;

pub use self::shapes::{ByShape, ShapeId};
pub use self::text::{write_string, write_string_content};
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
    /// The id of a member's name; of the first node, the shape of the text.
    mark: Option<NonZeroU32>,
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

/// Reusable parser: keeps its buffers between documents, the names of their members and their shapes.
pub struct Parser {
    nodes: Vec<Node>,
    open: Vec<u32>,
    vocabulary: Vocabulary,
    shapes: Shapes,
    templates: Templates,
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
        let (vocabulary, shapes, templates) = (Vocabulary::default(), Shapes::default(), Templates::default());
        Self { nodes: Vec::new(), open: Vec::new(), vocabulary, shapes, templates, max_depth }
    }

    /// Indexes `text`, which must be exactly one JSON value, white space around it allowed.
    pub fn parse<'p, 't>(&'p mut self, text: &'t [u8]) -> Result<Value<'p, 't>, SyntaxError> {
        self.parse_text(
            simdutf8::compat::from_utf8(text).map_err(|e| SyntaxError::InvalidUtf8 { at: e.valid_up_to() })?,
        )
    }

    /// As [`Self::parse`], of what is known to be UTF-8.
    pub fn parse_text<'p, 't>(&'p mut self, text: &'t str) -> Result<Value<'p, 't>, SyntaxError> {
        if u32::try_from(text.len()).is_err() {
            return Err(SyntaxError::TooLong);
        }
        if let Some(template) = self.templates.fit(text.as_bytes()) {
            return Ok(Value { text, nodes: self.templates.nodes(template), index: 0 });
        }
        self.nodes.clear();
        self.open.clear();
        self.shapes.begin();
        Scan::of(text.as_bytes(), self).document()?;
        if let Some(shape) = self.shapes.finish() {
            self.nodes[0].mark = Some(shape.0);
            self.templates.note(shape, text.as_bytes(), &self.nodes);
        }
        Ok(Value { text, nodes: &self.nodes, index: 0 })
    }
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

    /// The shape of a whole text, if it is one that the parser remembers.
    #[inline]
    pub fn shape(self) -> Option<ShapeId> {
        if self.index == 0 { self.node().mark.map(ShapeId) } else { None }
    }

    /// Counts the values of the text, names included, from the first, which is 0.
    #[inline]
    pub fn number(self) -> u32 {
        self.index
    }

    /// The value of that number in the same text.
    ///
    /// # Panics
    /// There is none.
    #[inline]
    pub fn numbered(self, number: u32) -> Self {
        assert!((number as usize) < self.nodes.len(), "the text has no value {number}");
        Self { index: number, ..self }
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
        self.0.node().mark.map(NameId)
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

#[cfg(test)]
mod tests;
