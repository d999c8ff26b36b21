//! A mapping as data: objects and fields with what is needed to judge values.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use millrace_common::json::{Kind, Value};

use super::dynamic::DynamicTemplate;
use crate::map::check::MAX_TERM_BYTES;
use crate::map::check::date::DateFormats;
use crate::map::check::number::NumberType;
use crate::map::server::Behaviour;

pub(in crate::map) type Names<T> = HashMap<Box<str>, T, BuildHasherDefault<NameHasher>>;

/// Hash of member names. The tables hold names of the mapping only, so that documents cannot make them slow.
#[derive(Default)]
pub(in crate::map) struct NameHasher(u64);

impl Hasher for NameHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        const FACTOR: u64 = 0x517c_c1b7_2722_0a95;
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            let word = u64::from_le_bytes(word.try_into().expect("chunks of eight bytes"));
            self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(FACTOR);
        }
        let rest = words.remainder().iter().fold(1_u64, |n, byte| n << 8 | u64::from(*byte));
        self.0 = (self.0.rotate_left(5) ^ rest).wrapping_mul(FACTOR);
        // The table takes its buckets from the high and the low bits.
        self.0 ^= self.0 >> 29;
    }

    fn write_u8(&mut self, _: u8) {}
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::map) enum Dynamic {
    True,
    Runtime,
    False,
    Strict,
    /// As `strict` (OpenSearch), but for what a dynamic template takes.
    StrictAllowTemplates,
    /// As `false` (OpenSearch), but for what a dynamic template takes.
    FalseAllowTemplates,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::map) enum Child {
    Object(u32),
    Field(u32),
}

#[derive(Debug)]
pub(in crate::map) struct Object {
    /// Its place in the model.
    pub id: u32,
    pub path: String,
    pub is_enabled: bool,
    pub is_nested: bool,
    /// Its own or what it inherits.
    pub dynamic: Dynamic,
    /// It is its own.
    pub states_dynamic: bool,
    /// `false`: names below are kept with their dots.
    pub has_subobjects: bool,
    pub children: Names<Child>,
}

#[derive(Debug)]
pub(in crate::map) struct Field {
    pub path: String,
    pub type_name: String,
    pub kind: FieldKind,
    pub ignore_malformed: bool,
    /// A `script` fills the field; documents must not.
    pub has_script: bool,
    /// Multi-fields: each judges the same value.
    pub subfields: Vec<u32>,
    pub copy_to: Vec<String>,
    /// Strings of at most so many bytes as written, quotes included, fit and go nowhere else.
    pub plain_bytes: usize,
}

impl Field {
    /// Whether the value is a string that fits, whatever it says, and goes nowhere else.
    #[inline]
    pub fn takes_plainly(&self, value: Value<'_, '_>) -> bool {
        value.kind() == Kind::String && value.span().len() <= self.plain_bytes
    }

    pub fn is_runtime(&self) -> bool {
        matches!(self.kind, FieldKind::Runtime)
    }
}

#[derive(Debug)]
pub(in crate::map) enum FieldKind {
    Number {
        number: NumberType,
        coerce: bool,
    },
    Boolean {
        is_stored_anyhow: bool,
    },
    Date {
        formats: DateFormats,
        is_nanos: bool,
    },
    Ip,
    Keyword {
        ignore_above: usize,
        has_terms: bool,
        has_normalizer: bool,
    },
    Text {
        is_one_term: bool,
    },
    Flattened {
        ignore_above: usize,
        depth_limit: usize,
        has_terms: bool,
    },
    Alias,
    /// A runtime field of that name takes whatever comes and indexes nothing.
    Runtime,
    /// A type not known here, of a module or plugin: Elasticsearch judges.
    Unknown,
}

impl FieldKind {
    /// Strings of at most so many bytes as written fit.
    pub(super) fn plain_bytes(&self) -> usize {
        match self {
            Self::Keyword { has_terms: false, .. } | Self::Text { is_one_term: false } => usize::MAX,
            Self::Keyword { ignore_above, .. } => (*ignore_above).min(MAX_TERM_BYTES),
            Self::Text { is_one_term: true } => MAX_TERM_BYTES,
            _ => 0,
        }
    }
}

/// A compiled mapping with the index settings that bear on it.
#[derive(Debug)]
pub(in crate::map) struct Model {
    /// Its own for every model.
    pub identity: Arc<()>,
    /// The first is the root.
    pub objects: Vec<Object>,
    pub fields: Vec<Field>,
    pub templates: Vec<DynamicTemplate>,
    pub runtime: HashSet<String>,
    pub date_detection: bool,
    pub numeric_detection: bool,
    /// As written and compiled.
    pub dynamic_dates: Vec<(String, DateFormats)>,
    pub limits: Limits,
    pub server: Behaviour,
    /// What counts against `total_fields.limit`.
    pub num_fields: u64,
}

#[derive(Clone, Copy, Debug)]
pub(in crate::map) struct Limits {
    pub total_fields: u64,
    pub depth: u64,
    pub nested_objects: u64,
    pub ignore_dynamic_beyond: bool,
    pub coerce: bool,
    pub ignore_malformed: bool,
}

impl Model {
    pub(in crate::map) fn root(&self) -> &Object {
        &self.objects[0]
    }

    pub(in crate::map) fn object(&self, id: u32) -> &Object {
        &self.objects[id as usize]
    }

    pub(in crate::map) fn field(&self, id: u32) -> &Field {
        &self.fields[id as usize]
    }

    /// The last thing that the mapping has on the way to `path`. Runtime fields stand in nobody's way, and fields in that of no
    /// others where there are no subobjects.
    pub(in crate::map) fn nearest(&self, path: &str) -> Child {
        let (mut id, mut rest) = (0, path);
        while self.object(id).has_subobjects
            && let Some((name, after)) = rest.split_once('.')
        {
            match self.object(id).children.get(name) {
                Some(&Child::Object(inner)) => (id, rest) = (inner, after),
                Some(&Child::Field(field)) if !self.field(field).is_runtime() => return Child::Field(field),
                _ => break,
            }
        }
        Child::Object(id)
    }

    /// Whether an object above a dotted path is disabled.
    pub(in crate::map) fn is_in_disabled(&self, path: &str) -> bool {
        let above = std::iter::successors(path.rsplit_once('.'), |(above, _)| above.rsplit_once('.'));
        let objects = above.filter_map(|(above, _)| match self.find(above)? {
            Child::Object(id) => Some(self.object(id)),
            Child::Field(_) => None,
        });
        objects.into_iter().any(|object| !object.is_enabled)
    }

    /// What the mapping has at a dotted path, object by object.
    pub(in crate::map) fn find(&self, path: &str) -> Option<Child> {
        let mut object = self.root();
        let mut rest = path;
        loop {
            if let Some(&child) = object.children.get(rest) {
                return Some(child);
            }
            if !object.has_subobjects {
                return None;
            }
            let (name, after) = rest.split_once('.')?;
            match object.children.get(name)? {
                Child::Object(id) => object = self.object(*id),
                Child::Field(_) => return None,
            }
            rest = after;
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::from_settings(&serde_json::Value::Null)
    }
}
