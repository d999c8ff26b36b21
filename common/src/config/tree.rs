//! The YAML document as a tree whose every node knows where it was written.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Tag};

use super::expand::{Environment, expand, has_reference};
use super::faults::{Faults, Origin};

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub origin: Origin,
    pub content: Content,
}

#[derive(Debug, Clone)]
pub(super) enum Content {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// A value whose fault is already reported.
    Broken,
}

#[derive(Debug, Clone)]
pub(super) struct Scalar {
    pub text: String,
    /// Written without quotes, so that it may be a number, a boolean or nothing.
    pub plain: bool,
    /// Written in quotes, but filled from a variable: a text, unless only something else will do (`port: "${PORT}"`).
    pub filled: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub key: String,
    pub origin: Origin,
    pub value: Node,
    /// Comes from a `<<` mapping, so that a key written beside it wins.
    pub is_merged: bool,
}

impl Node {
    pub fn empty_map() -> Self {
        Self { origin: Origin::Unwritten, content: Content::Map(Vec::new()) }
    }

    pub fn is_null(&self) -> bool {
        matches!(&self.content, Content::Scalar(scalar) if scalar.is_null())
    }

    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match &self.content {
            Content::Scalar(scalar) if scalar.is_null() => "nothing",
            Content::Scalar(_) | Content::Broken => "a single value",
            Content::List(_) => "a list",
            Content::Map(_) => "a mapping",
        }
    }
}

impl Scalar {
    pub fn is_null(&self) -> bool {
        self.plain && matches!(self.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }
}

/// More nodes than any configuration has; aliases of aliases could otherwise fill the memory.
const MAX_NODES: usize = 200_000;
/// Deeper than any configuration is; keeps the recursion over the tree within the stack.
const MAX_DEPTH: usize = 64;

/// Reads one YAML document; `None` with a fault if it is not one. An empty text is an empty mapping.
pub(super) fn parse(text: &str, faults: &mut Faults) -> Option<Node> {
    let (mut builder, end) = (Builder::default(), End::of(text));
    for event in Parser::new_from_str(text) {
        let result = event
            .map_err(|error| Halt::syntax(&error, &end))
            .and_then(|(event, span)| builder.take(event, end.place(&span.start), faults));
        if let Err(halt) = result {
            faults.push(&halt.origin, "", halt.what, halt.remedy);
            return None;
        }
    }
    Some(builder.root.filter(|root| !root.is_null()).unwrap_or_else(Node::empty_map))
}

/// A fault after which the rest of the document cannot be understood.
struct Halt {
    origin: Origin,
    what: String,
    remedy: &'static str,
}

impl Halt {
    fn syntax(error: &ScanError, end: &End) -> Self {
        let origin = end.place(error.marker());
        Self {
            origin,
            what: format!("not valid YAML: {}", error.info()),
            remedy: "correct the text at or just before this place",
        }
    }

    fn new(origin: Origin, what: &str, remedy: &'static str) -> Self {
        Self { origin, what: what.to_owned(), remedy }
    }
}

/// Where a text ends.
struct End {
    num_lines: usize,
    line: usize,
    column: usize,
}

impl End {
    fn of(text: &str) -> Self {
        let column = text.lines().last().map_or(0, |last| last.chars().count()) + 1;
        Self { num_lines: text.split(['\n', '\r']).count(), line: text.lines().count().max(1), column }
    }

    /// The parser counts lines from 1 and columns from 0, and names the line behind the last where something is missing there.
    fn place(&self, marker: &Marker) -> Origin {
        if marker.line() > self.num_lines {
            return Origin::Text { line: self.line, column: self.column };
        }
        Origin::Text { line: marker.line(), column: marker.col() + 1 }
    }
}

/// A list or mapping that is not closed yet.
struct Open {
    node: Node,
    anchor: usize,
    key: Option<(String, Origin)>,
}

#[derive(Default)]
struct Builder {
    root: Option<Node>,
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, usize)>,
    num_nodes: usize,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, origin: Origin, faults: &mut Faults) -> Result<(), Halt> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && !is_text_tag(tag.as_deref(), &origin)?;
                let content = Content::Scalar(Scalar { text: text.into_owned(), plain, filled: false });
                self.put(Node { origin, content }, anchor, faults)
            }
            Event::SequenceStart(anchor, tag) => self.open(Content::List(Vec::new()), anchor, tag.as_deref(), origin),
            Event::MappingStart(anchor, tag) => self.open(Content::Map(Vec::new()), anchor, tag.as_deref(), origin),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(closed) => self.put(closed.node, closed.anchor, faults),
                None => Ok(()),
            },
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some((node, size)) => {
                    self.num_nodes += size;
                    let node = node.clone();
                    self.put(node, 0, faults)
                }
                None => Err(Halt::new(origin, "an alias inside its own anchor", "write the value out")),
            },
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(Halt::new(origin, "a second YAML document", "keep one document per file"))
            }
            _ => Ok(()),
        }
    }

    fn open(&mut self, content: Content, anchor: usize, tag: Option<&Tag>, origin: Origin) -> Result<(), Halt> {
        is_text_tag(tag, &origin)?;
        if self.open.len() >= MAX_DEPTH {
            return Err(Halt::new(origin, "nested too deeply", "keep to 64 levels"));
        }
        if matches!(self.open.last(), Some(Open { node: Node { content: Content::Map(_), .. }, key: None, .. })) {
            return Err(Halt::new(origin, "a list or mapping as a key", "use a text as the key"));
        }
        self.open.push(Open { node: Node { origin, content }, anchor, key: None });
        Ok(())
    }

    fn put(&mut self, node: Node, anchor: usize, faults: &mut Faults) -> Result<(), Halt> {
        self.num_nodes += 1;
        if self.num_nodes > MAX_NODES {
            return Err(Halt::new(
                node.origin,
                "too many values",
                "keep to 200000, aliases counted as what they stand for",
            ));
        }
        if anchor > 0 {
            let size = size(&node);
            self.anchors.insert(anchor, (node.clone(), size));
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut parent.node.content {
            Content::List(items) => items.push(node),
            Content::Map(entries) => match (parent.key.take(), node.content) {
                (Some((key, origin)), content) => {
                    let value = Node { origin: node.origin, content };
                    add_entry(entries, Entry { key, origin, value, is_merged: false }, faults);
                }
                (None, Content::Scalar(scalar)) => parent.key = Some((scalar.text, node.origin)),
                (None, _) => {
                    return Err(Halt::new(node.origin, "a list or mapping as a key", "use a text as the key"));
                }
            },
            Content::Scalar(_) | Content::Broken => {}
        }
        Ok(())
    }
}

/// Adds an entry; `<<` adds the entries of the mappings it names.
fn add_entry(entries: &mut Vec<Entry>, entry: Entry, faults: &mut Faults) {
    if entry.key != "<<" {
        entries.push(entry);
        return;
    }
    let sources = match entry.value.content {
        Content::List(items) => items,
        _ => vec![entry.value],
    };
    for source in sources {
        match source.content {
            Content::Map(merged) => {
                entries.extend(merged.into_iter().map(|entry| Entry { is_merged: true, ..entry }));
            }
            _ => faults.push(&source.origin, "<<", "is not a mapping", "merge an anchored mapping: `<<: *name`"),
        }
    }
}

/// Whether the tag makes a text of a plain scalar; other tags have no meaning here.
fn is_text_tag(tag: Option<&Tag>, origin: &Origin) -> Result<bool, Halt> {
    match tag {
        None => Ok(false),
        Some(tag) if tag.is_yaml_core_schema() => Ok(tag.suffix == "str"),
        Some(_) => Err(Halt::new(origin.clone(), "a YAML tag of its own", "remove the tag")),
    }
}

fn size(node: &Node) -> usize {
    1 + match &node.content {
        Content::List(items) => items.iter().map(size).sum(),
        Content::Map(entries) => entries.iter().map(|entry| size(&entry.value)).sum(),
        Content::Scalar(_) | Content::Broken => 0,
    }
}

/// Settles merged entries, expands references in every value and notes each position.
pub(super) fn settle(node: &mut Node, path: &str, env: Environment<'_>, faults: &mut Faults) {
    faults.mark(path.to_owned(), node.origin.clone());
    match &mut node.content {
        Content::Scalar(scalar) if has_reference(&scalar.text) => match expand(&scalar.text, env) {
            Ok(text) => {
                let filled = !scalar.plain && scalar.text.contains("${");
                *scalar = Scalar { text, filled, ..*scalar };
            }
            Err(error) => {
                faults.push(&node.origin, path, error.what, error.remedy);
                node.content = Content::Broken;
            }
        },
        Content::Scalar(_) | Content::Broken => {}
        Content::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                settle(item, &format!("{path}[{index}]"), env, faults);
            }
        }
        Content::Map(entries) => {
            *entries = unique(std::mem::take(entries), path, faults);
            for entry in entries {
                let path = join(path, &entry.key);
                settle(&mut entry.value, &path, env, faults);
                // A fault of a key's value is looked for at the key by people; both are in the same line as a rule.
                if matches!(entry.value.content, Content::Map(_) | Content::List(_)) {
                    faults.mark(path, entry.origin.clone());
                }
            }
        }
    }
}

/// Keeps one entry per key: the written one before a merged one, the first of two written ones, which is a fault.
fn unique(entries: Vec<Entry>, path: &str, faults: &mut Faults) -> Vec<Entry> {
    let mut kept: Vec<Entry> = Vec::with_capacity(entries.len());
    for entry in entries {
        match kept.iter_mut().find(|known| known.key == entry.key) {
            None => kept.push(entry),
            Some(known) if known.is_merged && !entry.is_merged => *known = entry,
            Some(known) if !entry.is_merged => {
                let first = match known.origin {
                    Origin::Text { line, column } => format!("written twice, first in line {line}, column {column}"),
                    Origin::Unwritten | Origin::Flag(_) => "written twice".to_owned(),
                };
                faults.push(&entry.origin, &join(path, &entry.key), first, "remove one of the two");
            }
            Some(_) => {}
        }
    }
    kept
}

/// The path of a key below `path`.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
