//! The fields that the shipper adds to every record of a source, rendered once.

use millrace_common::json::write_string;
use millrace_common::record::SourceId;
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

use super::Flags;

/// A field that the operator sets: dotted path, value, and whether it wins over the line's own.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    pub path: String,
    pub value: Value,
    pub overwrite: bool,
}

#[derive(Clone, Debug)]
pub enum Own {
    /// A value as JSON.
    Raw(Vec<u8>),
    Offset,
    Flags,
    Object(Vec<(String, Own)>),
}

/// One leaf, by its dotted path.
#[derive(Clone, Debug)]
pub struct Leaf {
    pub path: String,
    /// The line's own value stays where it is, and ours is left out.
    pub yields: bool,
}

#[derive(Debug, thiserror::Error, PartialEq)]
pub enum FieldError {
    #[error("`{0}` is set by the shipper itself")]
    Reserved(String),
    #[error("`{0}` is an object in one place and a value in another")]
    Conflict(String),
    #[error("`{0}` has an empty part")]
    Empty(String),
}

#[derive(Clone, Debug)]
pub struct OwnFields {
    pub tree: Vec<(String, Own)>,
    pub leaves: Vec<Leaf>,
    /// Equal for equal names of objects and values (64 bits of their hash).
    pub names: u64,
    whole: Rendered,
    /// The members of each object of `tree`, for lines that have an object of the same name. `None` for plain values.
    inner: Vec<Option<Rendered>>,
}

/// Members as text: before the offset, between offset and flags, after the flags. Without an offset, all is in the first
/// part.
#[derive(Clone, Debug)]
struct Rendered([Vec<u8>; 3]);

impl Rendered {
    fn new(members: &[(String, Own)]) -> Self {
        let mut parts = vec![Vec::new()];
        render_members(members, &mut parts);
        let mut parts = parts.into_iter();
        Self(std::array::from_fn(|_| parts.next().unwrap_or_default()))
    }

    fn write(&self, out: &mut Vec<u8>, offset: u64, flags: Flags) {
        let [before, between, after] = &self.0;
        out.extend_from_slice(before);
        // The source id stands behind the offset, so this part is only empty where there is no offset.
        if between.is_empty() {
            return;
        }
        out.extend_from_slice(itoa::Buffer::new().format(offset).as_bytes());
        out.extend_from_slice(between);
        if flags != Flags::NONE {
            out.extend_from_slice(b",\"flags\":");
            flags.write(out);
        }
        out.extend_from_slice(after);
    }
}

/// How a top-level key of a line meets ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meeting {
    No,
    /// It is the name of our object with this index.
    Object(usize),
    /// It is the name of a plain value, a dotted path into an object, or the name that collisions are kept under.
    Other,
}

/// Everything that is the same for all records of a source.
#[derive(Clone, Copy)]
pub struct Origin<'a> {
    pub host_name: &'a str,
    pub path: &'a str,
    pub source: SourceId,
}

impl OwnFields {
    pub fn new(origin: Origin<'_>, fields: &[Field]) -> Result<Self, FieldError> {
        let mut tree = Vec::new();
        let mut leaves = Vec::new();
        let text = |s: &str| {
            let mut raw = Vec::with_capacity(s.len() + 2);
            write_string(&mut raw, s);
            Own::Raw(raw)
        };
        let base = [
            ("host.name", text(origin.host_name)),
            ("log.file.path", text(origin.path)),
            ("log.offset", Own::Offset),
            ("log.source", text(&origin.source.to_string())),
            ("log.flags", Own::Flags),
        ];
        for (path, own) in base {
            insert(&mut tree, path, own)?;
            leaves.push(Leaf { path: path.to_owned(), yields: false });
        }
        for field in fields {
            check_path(&field.path)?;
            insert(&mut tree, &field.path, Own::Raw(field.value.to_string().into_bytes()))?;
            leaves.retain(|leaf| leaf.path != field.path);
            leaves.push(Leaf { path: field.path.clone(), yields: !field.overwrite });
        }
        let whole = Rendered::new(&tree);
        let inner = tree.iter().map(|(_, own)| match own {
            Own::Object(members) => Some(Rendered::new(members)),
            _ => None,
        });
        let inner = inner.collect();
        let mut names = Vec::new();
        write_names(&tree, &mut names);
        Ok(Self { names: xxh3_64(&names), tree, leaves, whole, inner })
    }

    /// Bytes of the members without offset and flags.
    #[expect(clippy::len_without_is_empty, reason = "there are always members")]
    pub fn len(&self) -> usize {
        self.whole.0.iter().map(Vec::len).sum()
    }

    pub fn meeting(&self, key: &str) -> Meeting {
        let bytes = key.as_bytes();
        for (index, (name, _)) in self.tree.iter().enumerate() {
            if bytes.starts_with(name.as_bytes()) {
                match bytes.get(name.len()) {
                    None if self.inner[index].is_some() => return Meeting::Object(index),
                    None | Some(b'.') => return Meeting::Other,
                    Some(_) => {}
                }
            }
        }
        if key == "original" || key.starts_with("original.") { Meeting::Other } else { Meeting::No }
    }

    /// Whether our object `index` has a member of this name, or one that a dotted name could enter.
    pub fn has_member(&self, index: usize, name: &str) -> bool {
        let Own::Object(members) = &self.tree[index].1 else { return true };
        name.contains(['.', '\\']) || members.iter().any(|(own, _)| own == name)
    }

    /// Appends `,"host":{…},"log":{…}…`.
    pub fn write(&self, out: &mut Vec<u8>, offset: u64, flags: Flags) {
        out.push(b',');
        self.whole.write(out, offset, flags);
    }

    /// Appends the members of our object `index`, without a comma before.
    pub fn write_inner(&self, index: usize, out: &mut Vec<u8>, offset: u64, flags: Flags) {
        if let Some(inner) = &self.inner[index] {
            inner.write(out, offset, flags);
        }
    }

    /// Appends one top-level member whole, without a comma before.
    pub fn write_root(&self, index: usize, out: &mut Vec<u8>, offset: u64, flags: Flags) {
        let (name, own) = &self.tree[index];
        write_string(out, name);
        out.push(b':');
        match own {
            Own::Raw(raw) => out.extend_from_slice(raw),
            _ => {
                out.push(b'{');
                self.write_inner(index, out, offset, flags);
                out.push(b'}');
            }
        }
    }

    pub fn num_roots(&self) -> usize {
        self.tree.len()
    }
}

/// Names and objects, without values. Bytes that are in no name tell where they begin and end.
fn write_names(members: &[(String, Own)], out: &mut Vec<u8>) {
    for (name, own) in members {
        out.extend_from_slice(name.as_bytes());
        out.push(0xff);
        if let Own::Object(members) = own {
            out.push(0xfe);
            write_names(members, out);
            out.push(0xfd);
        }
    }
}

fn push(parts: &mut [Vec<u8>], bytes: &[u8]) {
    if let Some(last) = parts.last_mut() {
        last.extend_from_slice(bytes);
    }
}

fn render_members(members: &[(String, Own)], parts: &mut Vec<Vec<u8>>) {
    for (i, (name, own)) in members.iter().enumerate() {
        if i > 0 && !matches!(own, Own::Flags) {
            push(parts, b",");
        }
        render_member(name, own, parts);
    }
}

fn render_member(name: &str, own: &Own, parts: &mut Vec<Vec<u8>>) {
    if matches!(own, Own::Flags) {
        // The member is written with its comma, so that it can be left out.
        parts.push(Vec::new());
        return;
    }
    let mut key = Vec::new();
    write_string(&mut key, name);
    key.push(b':');
    push(parts, &key);
    match own {
        Own::Raw(raw) => push(parts, raw),
        Own::Offset => parts.push(Vec::new()),
        Own::Flags => {}
        Own::Object(members) => {
            push(parts, b"{");
            render_members(members, parts);
            push(parts, b"}");
        }
    }
}

/// Whether an operator may set these fields together.
pub fn check(fields: &[Field]) -> Result<(), FieldError> {
    OwnFields::new(Origin { host_name: "", path: "", source: SourceId::from_u64(0) }, fields).map(|_| ())
}

fn check_path(path: &str) -> Result<(), FieldError> {
    const RESERVED: [&str; 7] =
        ["@timestamp", "message", "original", "log.file.path", "log.offset", "log.source", "log.flags"];
    if path.split('.').any(str::is_empty) {
        return Err(FieldError::Empty(path.to_owned()));
    }
    let covers = |reserved: &str| {
        path == reserved
            || reserved.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'))
            || path.strip_prefix(reserved).is_some_and(|rest| rest.starts_with('.'))
    };
    if RESERVED.iter().any(|r| covers(r)) { Err(FieldError::Reserved(path.to_owned())) } else { Ok(()) }
}

fn insert(tree: &mut Vec<(String, Own)>, path: &str, own: Own) -> Result<(), FieldError> {
    let conflict = || FieldError::Conflict(path.to_owned());
    let mut members = tree;
    let mut parts = path.split('.').peekable();
    while let Some(part) = parts.next() {
        let at = members.iter().position(|(name, _)| name == part);
        if parts.peek().is_none() {
            match at {
                Some(at) if matches!(members[at].1, Own::Object(_)) => return Err(conflict()),
                Some(at) => members[at].1 = own,
                None => members.push((part.to_owned(), own)),
            }
            return Ok(());
        }
        let at = at.unwrap_or_else(|| {
            members.push((part.to_owned(), Own::Object(Vec::new())));
            members.len() - 1
        });
        match &mut members[at].1 {
            Own::Object(inner) => members = inner,
            _ => return Err(conflict()),
        }
    }
    Ok(())
}
