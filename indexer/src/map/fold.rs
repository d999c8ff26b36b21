//! What goes into the fold field, merged into one object and made to fit.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use millrace_common::json::{Kind, Value, write_string};

use super::action::{ActionKind, Actions};
use super::check::{Fit, MAX_TERM_BYTES, is_longer, text_of};
use super::judge::{FlattenedLimits, flattened};

/// Name for a plain value that stands where an object must.
const VALUE: &str = "_value";

/// Longest name kept whole, in bytes: as many as a flattened field is deep leave room for a value.
const MAX_NAME_BYTES: usize = 1_024;

/// What a fold field can hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct FoldLimits {
    /// In UTF-16 units; longer values are not indexed, so that they need not be cut. 0 where nothing is indexed.
    pub ignore_above: usize,
    /// Names in a key, from the fold field down.
    pub depth: usize,
    /// Bytes that stand before the key in a term.
    pub prefix: usize,
}

/// What had to be done to names and members.
#[derive(Clone, Copy, Debug, Default)]
struct Notes {
    nul: u32,
    cut: u32,
    duplicates: u32,
}

impl Notes {
    fn name<'t>(&mut self, mut name: Cow<'t, str>) -> Cow<'t, str> {
        if name.contains('\0') {
            self.nul += 1;
            name = name.replace('\0', "\u{2400}").into();
        }
        if name.len() > MAX_NAME_BYTES {
            self.cut += 1;
            name = name[..floor(&name, MAX_NAME_BYTES)].to_owned().into();
        }
        name
    }

    /// The members of an object; of equal names the last.
    fn members<'p, 't>(&mut self, object: Value<'p, 't>) -> Vec<(Cow<'t, str>, Value<'p, 't>)> {
        let mut members: Vec<_> = object.members().map(|(key, value)| (key.name(), value)).collect();
        if object.has_duplicate_keys() {
            let before = members.len();
            let mut seen = HashSet::new();
            members.reverse();
            members.retain(|(name, _)| seen.insert(name.clone()));
            members.reverse();
            self.duplicates += (before - members.len()) as u32;
        }
        members
    }
}

/// A value on its way into the fold field.
#[derive(Clone, Copy)]
pub(super) enum Moved<'p, 't> {
    Value(Value<'p, 't>),
    /// As a string: the content of a string, the JSON text of anything else.
    AsText(Value<'p, 't>),
}

enum Node<'p, 't> {
    One(Moved<'p, 't>),
    /// Several values met in one name: an array of them, in their order.
    Many(Vec<Moved<'p, 't>>),
    Branch(Branch<'p, 't>),
}

/// An object in the making.
#[derive(Default)]
struct Branch<'p, 't> {
    members: Vec<(Cow<'t, str>, Node<'p, 't>)>,
    /// Positions by name, once there are many.
    index: HashMap<Cow<'t, str>, usize>,
}

/// The object under the fold field.
#[derive(Default)]
pub(super) struct FoldTree<'p, 't> {
    root: Branch<'p, 't>,
    notes: Notes,
}

impl<'p, 't> FoldTree<'p, 't> {
    pub(super) fn is_empty(&self) -> bool {
        self.root.members.is_empty()
    }

    /// Adds a value below the names of `trail`, or at the top for none. Objects merge; values that meet become an array.
    pub(super) fn add(&mut self, mut trail: Vec<Cow<'t, str>>, moved: Moved<'p, 't>) {
        let Self { root, notes } = self;
        let Some(last) = trail.pop() else { return root.add_inside(moved, notes) };
        let mut branch = root;
        for name in trail {
            branch = branch.branch(name, notes);
        }
        branch.add(last, moved, notes);
    }

    /// Puts what `other` holds behind what is there.
    pub(super) fn append(&mut self, other: Self) {
        let Self { root, notes } = self;
        notes.nul += other.notes.nul;
        notes.cut += other.notes.cut;
        notes.duplicates += other.notes.duplicates;
        other.root.members.into_iter().for_each(|(name, node)| root.merge(name, node, notes));
    }

    pub(super) fn write(self, limits: FoldLimits, field: &str, actions: &mut Actions, out: &mut Vec<u8>) {
        let mut writer = Writer { limits, field, notes: self.notes, actions, out };
        writer.branch(self.root, 1, limits.prefix);
        let Notes { nul, cut, duplicates } = writer.notes;
        for (count, kind, why) in [
            (nul, ActionKind::Nul, "NUL in a key"),
            (cut, ActionKind::Cut, "key too long"),
            (duplicates, ActionKind::DuplicateKey, "the last of equal keys counts"),
        ] {
            (0..count).for_each(|_| writer.act(kind, why));
        }
    }
}

impl<'p, 't> Branch<'p, 't> {
    const FEW: usize = 16;

    fn position(&mut self, name: &str) -> Option<usize> {
        if self.members.len() <= Self::FEW {
            return self.members.iter().position(|(known, _)| known == name);
        }
        for at in self.index.len()..self.members.len() {
            self.index.insert(self.members[at].0.clone(), at);
        }
        self.index.get(name).copied()
    }

    fn branch(&mut self, name: Cow<'t, str>, notes: &mut Notes) -> &mut Branch<'p, 't> {
        let name = notes.name(name);
        let at = match self.position(&name) {
            Some(at) => at,
            None => {
                self.members.push((name, Node::Branch(Branch::default())));
                self.members.len() - 1
            }
        };
        self.members[at].1.as_branch(notes)
    }

    fn add(&mut self, name: Cow<'t, str>, moved: Moved<'p, 't>, notes: &mut Notes) {
        let name = notes.name(name);
        match self.position(&name) {
            None => self.members.push((name, Node::One(moved))),
            Some(at) => self.members[at].1.add(moved, notes),
        }
    }

    /// Adds the members of an object, or a value under `_value`.
    fn add_inside(&mut self, moved: Moved<'p, 't>, notes: &mut Notes) {
        match moved {
            Moved::Value(value) if value.kind() == Kind::Object => {
                for (name, inner) in notes.members(value) {
                    self.add(name, Moved::Value(inner), notes);
                }
            }
            _ => self.add(VALUE.into(), moved, notes),
        }
    }

    fn merge(&mut self, name: Cow<'t, str>, node: Node<'p, 't>, notes: &mut Notes) {
        let Some(at) = self.position(&name) else { return self.members.push((name, node)) };
        let known = &mut self.members[at].1;
        match node {
            Node::One(moved) => known.add(moved, notes),
            Node::Many(list) => list.into_iter().for_each(|moved| known.add(moved, notes)),
            Node::Branch(other) => {
                let branch = known.as_branch(notes);
                other.members.into_iter().for_each(|(name, node)| branch.merge(name, node, notes));
            }
        }
    }
}

impl<'p, 't> Node<'p, 't> {
    fn as_branch(&mut self, notes: &mut Notes) -> &mut Branch<'p, 't> {
        if !matches!(self, Self::Branch(_)) {
            let mut branch = Branch::default();
            match std::mem::replace(self, Self::Many(Vec::new())) {
                Self::One(moved) => branch.add_inside(moved, notes),
                Self::Many(list) => list.into_iter().for_each(|moved| branch.add_inside(moved, notes)),
                Self::Branch(_) => {}
            }
            *self = Self::Branch(branch);
        }
        match self {
            Self::Branch(branch) => branch,
            _ => unreachable!("made a branch above"),
        }
    }

    fn add(&mut self, moved: Moved<'p, 't>, notes: &mut Notes) {
        let is_object = matches!(moved, Moved::Value(value) if value.kind() == Kind::Object);
        match self {
            Self::Branch(branch) => branch.add_inside(moved, notes),
            Self::One(_) | Self::Many(_) if is_object => self.as_branch(notes).add_inside(moved, notes),
            Self::One(first) => *self = Self::Many(vec![*first, moved]),
            Self::Many(list) => list.push(moved),
        }
    }
}

struct Writer<'a> {
    limits: FoldLimits,
    /// The fold field, for the actions.
    field: &'a str,
    notes: Notes,
    actions: &'a mut Actions,
    out: &'a mut Vec<u8>,
}

impl Writer<'_> {
    /// Writes an object whose members are `depth` names deep; `key_bytes` is the length of the names above with dots.
    fn branch(&mut self, branch: Branch<'_, '_>, depth: usize, key_bytes: usize) {
        self.out.push(b'{');
        let mut is_first = true;
        for (name, node) in branch.members {
            self.comma(&mut is_first);
            write_string(self.out, &name);
            self.out.push(b':');
            self.node(node, depth, key_bytes + name.len());
        }
        self.out.push(b'}');
    }

    /// Whether an object may stand under a key that is `depth` names deep.
    fn is_too_deep(&self, depth: usize, key_bytes: usize) -> bool {
        depth + 1 > self.limits.depth || key_bytes > MAX_TERM_BYTES / 2
    }

    fn node(&mut self, node: Node<'_, '_>, depth: usize, key_bytes: usize) {
        match node {
            Node::One(moved) => self.moved(moved, depth, key_bytes),
            Node::Many(list) => {
                self.out.push(b'[');
                let mut is_first = true;
                for moved in list {
                    // Arrays that meet become one, so that their elements stay in order on one level.
                    match moved {
                        Moved::Value(array) if array.kind() == Kind::Array => {
                            for element in array.elements() {
                                self.comma(&mut is_first);
                                self.value(element, depth, key_bytes);
                            }
                        }
                        other => {
                            self.comma(&mut is_first);
                            self.moved(other, depth, key_bytes);
                        }
                    }
                }
                self.out.push(b']');
            }
            Node::Branch(branch) => {
                if !self.is_too_deep(depth, key_bytes) {
                    return self.branch(branch, depth + 1, key_bytes + 1);
                }
                let mut text = Vec::new();
                let limits = FoldLimits { depth: usize::MAX, ignore_above: 0, prefix: 0 };
                let mut inner =
                    Writer { limits, field: self.field, notes: self.notes, actions: self.actions, out: &mut text };
                inner.branch(branch, 1, 0);
                self.act(ActionKind::Flatten, "nested too deep");
                let text = String::from_utf8_lossy(&text).into_owned();
                self.text(&text, key_bytes);
            }
        }
    }

    fn comma(&mut self, is_first: &mut bool) {
        if !std::mem::take(is_first) {
            self.out.push(b',');
        }
    }

    fn moved(&mut self, moved: Moved<'_, '_>, depth: usize, key_bytes: usize) {
        match moved {
            Moved::Value(value) => self.value(value, depth, key_bytes),
            Moved::AsText(value) => self.text(&text_of(value), key_bytes),
        }
    }

    fn value(&mut self, value: Value<'_, '_>, depth: usize, key_bytes: usize) {
        match value.kind() {
            Kind::Object if self.is_too_deep(depth, key_bytes) => {
                self.act(ActionKind::Flatten, "nested too deep");
                self.text(value.raw(), key_bytes);
            }
            Kind::Object => self.object(value, depth + 1, key_bytes + 1),
            Kind::Array => {
                self.out.push(b'[');
                let mut is_first = true;
                for element in value.elements() {
                    self.comma(&mut is_first);
                    self.value(element, depth, key_bytes);
                }
                self.out.push(b']');
            }
            Kind::Null => self.out.extend_from_slice(b"null"),
            _ => {
                let is_short = key_bytes + 1 + value.raw().len() <= MAX_TERM_BYTES;
                if is_short {
                    self.out.extend_from_slice(value.raw().as_bytes());
                } else if value.kind() == Kind::String {
                    self.text(&text_of(value), key_bytes);
                } else {
                    self.text(value.raw(), key_bytes);
                }
            }
        }
    }

    /// Writes an object, as it is when it can stay so.
    fn object(&mut self, value: Value<'_, '_>, depth: usize, key_bytes: usize) {
        let limits = FlattenedLimits {
            ignore_above: self.limits.ignore_above,
            depth: self.limits.depth.saturating_sub(depth - 1),
            prefix: 0,
        };
        let is_short = key_bytes + value.raw().len() < MAX_TERM_BYTES;
        let fits = is_short && !value.raw().contains('\n') && flattened(value, limits) == Fit::Fits;
        if fits && !value.has_duplicate_keys() {
            self.out.extend_from_slice(value.raw().as_bytes());
            return;
        }
        let mut branch = Branch::default();
        branch.add_inside(Moved::Value(value), &mut self.notes);
        self.branch(branch, depth, key_bytes);
    }

    /// Writes a string, cut so that it makes a term together with its key.
    fn text(&mut self, text: &str, key_bytes: usize) {
        let room = MAX_TERM_BYTES.saturating_sub(key_bytes + 1);
        let mut kept = text;
        if text.len() > room && !is_longer(text, self.limits.ignore_above) {
            self.act(ActionKind::Cut, "longer than a term may be");
            kept = &text[..floor(text, room)];
        }
        write_string(self.out, kept);
    }

    fn act(&mut self, kind: ActionKind, why: &str) {
        self.actions.add(kind, || (self.field.to_owned(), why.to_owned()));
    }
}

/// The last character boundary at or before `most`.
fn floor(text: &str, most: usize) -> usize {
    (0..=most.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}
