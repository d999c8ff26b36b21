//! The slow path of `format: json`: a line whose fields meet ours, or that names a key twice.

use std::borrow::Cow;
use std::collections::HashMap;

use millrace_common::json::{Kind, Value, write_string};

use super::own_fields::{Leaf, Own, OwnFields};
use super::{Flags, Line, timestamp};

enum Node<'a> {
    Raw(&'a str),
    Object(Members<'a>),
    /// Only where a key is there twice inside; others are copied.
    Array(Vec<Node<'a>>),
    Own(&'a Own),
    Text(&'a str),
}

type Members<'a> = Vec<(Cow<'a, str>, Node<'a>)>;

/// Appends the record: the line's members in their order, those that collide with ours under `original.<path>`.
pub fn encode(value: Value<'_, '_>, line: Line<'_>, own: &OwnFields, out: &mut Vec<u8>) -> Flags {
    let mut flags = line.flags;
    if value.has_duplicate_keys() {
        flags |= Flags::DUPLICATE_KEY;
    }
    let mut members = read_object(value);
    let mut moved = Vec::new();
    let mut yielded = Vec::new();
    let has_time = value.get("@timestamp").is_some_and(timestamp::is_readable);
    if !has_time {
        move_out(&mut members, "@timestamp", &mut moved);
    }
    if members.iter().any(|(name, node)| name == "original" && !matches!(node, Node::Object(_))) {
        move_out(&mut members, "original", &mut moved);
    }
    if let Some(wrapper) = line.wrapper {
        let stream = [Leaf { path: "stream".to_owned(), yields: false }];
        separate(&mut members, "", &stream, &mut moved, &mut yielded);
        members.push((Cow::Borrowed("stream"), Node::Text(wrapper.stream)));
    }
    separate(&mut members, "", &own.leaves, &mut moved, &mut yielded);
    add_own(&mut members, &own.tree, "", &yielded);
    if !moved.is_empty() {
        add_moved(&mut members, moved);
    }

    out.push(b'{');
    if !has_time {
        out.extend_from_slice(b"\"@timestamp\":\"");
        line.write_time(out);
        out.push(b'"');
    }
    write_members(&members, line.offset, flags, has_time, out);
    out.push(b'}');
    flags
}

/// The last of duplicate keys wins, and stands where it stood.
fn read_object<'t>(value: Value<'_, 't>) -> Members<'t> {
    let mut members: Vec<Option<(Cow<'t, str>, Node<'t>)>> = Vec::new();
    let mut places: HashMap<Cow<'t, str>, usize> = HashMap::new();
    for (key, member) in value.members() {
        let name = key.name();
        if let Some(earlier) = places.insert(name.clone(), members.len()) {
            members[earlier] = None;
        }
        members.push(Some((name, read(member))));
    }
    members.into_iter().flatten().collect()
}

fn read<'t>(value: Value<'_, 't>) -> Node<'t> {
    match value.kind() {
        Kind::Object => Node::Object(read_object(value)),
        Kind::Array if value.has_duplicate_keys() => Node::Array(value.elements().map(read).collect()),
        _ => Node::Raw(value.raw()),
    }
}

fn move_out<'a>(members: &mut Members<'a>, name: &str, moved: &mut Vec<(String, Node<'a>)>) {
    if let Some(at) = members.iter().position(|(n, _)| n == name) {
        let (name, node) = members.remove(at);
        moved.push((name.into_owned(), node));
    }
}

/// Takes out of `members` what collides with one of `leaves`: an equal path, or a value where the other has an object.
fn separate<'a>(
    members: &mut Members<'a>,
    prefix: &str,
    leaves: &[Leaf],
    moved: &mut Vec<(String, Node<'a>)>,
    yielded: &mut Vec<String>,
) {
    let mut kept = Vec::with_capacity(members.len());
    for (name, mut node) in members.drain(..) {
        let path = if prefix.is_empty() { name.to_string() } else { format!("{prefix}.{name}") };
        let is_inside = |leaf: &Leaf| leaf.path.strip_prefix(&path).is_some_and(|rest| rest.starts_with('.'));
        let is_below = |leaf: &Leaf| path.strip_prefix(&leaf.path).is_some_and(|rest| rest.starts_with('.'));
        let is_object = matches!(node, Node::Object(_));
        let meets = |leaf: &Leaf| leaf.path == path || is_below(leaf) || (!is_object && is_inside(leaf));
        let met: Vec<_> = leaves.iter().filter(|leaf| meets(leaf)).collect();
        if !met.is_empty() {
            if met.iter().all(|leaf| leaf.yields) {
                yielded.extend(met.iter().map(|leaf| leaf.path.clone()));
                kept.push((name, node));
            } else {
                moved.push((path, node));
            }
            continue;
        }
        if let Node::Object(inner) = &mut node
            && leaves.iter().any(is_inside)
        {
            let was_empty = inner.is_empty();
            separate(inner, &path, leaves, moved, yielded);
            if inner.is_empty() && !was_empty {
                continue;
            }
        }
        kept.push((name, node));
    }
    *members = kept;
}

fn add_own<'a>(members: &mut Members<'a>, tree: &'a [(String, Own)], prefix: &str, yielded: &[String]) {
    for (name, own) in tree {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        if yielded.contains(&path) {
            continue;
        }
        let Own::Object(inner) = own else {
            members.push((Cow::Borrowed(name), Node::Own(own)));
            continue;
        };
        let existing = members.iter_mut().find_map(|(n, node)| match node {
            Node::Object(existing) if n == name => Some(existing),
            _ => None,
        });
        if let Some(existing) = existing {
            add_own(existing, inner, &path, yielded);
            continue;
        }
        let mut fresh = Vec::new();
        add_own(&mut fresh, inner, &path, yielded);
        let is_taken = members.iter().any(|(n, _)| n == name);
        if !fresh.is_empty() && !is_taken {
            members.push((Cow::Borrowed(name), Node::Object(fresh)));
        }
    }
}

fn add_moved<'a>(members: &mut Members<'a>, moved: Vec<(String, Node<'a>)>) {
    let at = members.iter().position(|(name, _)| name == "original").unwrap_or_else(|| {
        members.push((Cow::Borrowed("original"), Node::Object(Vec::new())));
        members.len() - 1
    });
    let Node::Object(original) = &mut members[at].1 else { return };
    for (mut path, node) in moved {
        while original.iter().any(|(name, _)| *name == path) {
            path.push('_');
        }
        original.push((Cow::Owned(path), node));
    }
}

fn write_members(members: &Members<'_>, offset: u64, flags: Flags, mut is_first: bool, out: &mut Vec<u8>) {
    for (name, node) in members {
        if matches!(node, Node::Own(Own::Flags)) && flags == Flags::NONE {
            continue;
        }
        if !is_first {
            out.push(b',');
        }
        is_first = false;
        write_string(out, name);
        out.push(b':');
        write_node(node, offset, flags, out);
    }
}

fn write_node(node: &Node<'_>, offset: u64, flags: Flags, out: &mut Vec<u8>) {
    match node {
        Node::Text(text) => write_string(out, text),
        Node::Raw(raw) => out.extend_from_slice(raw.as_bytes()),
        Node::Own(Own::Raw(raw)) => out.extend_from_slice(raw),
        Node::Own(Own::Offset) => out.extend_from_slice(itoa::Buffer::new().format(offset).as_bytes()),
        Node::Own(Own::Flags) => flags.write(out),
        Node::Own(Own::Object(_)) => out.extend_from_slice(b"{}"),
        Node::Object(inner) => {
            out.push(b'{');
            write_members(inner, offset, flags, true, out);
            out.push(b'}');
        }
        Node::Array(elements) => {
            out.push(b'[');
            for (at, element) in elements.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write_node(element, offset, flags, out);
            }
            out.push(b']');
        }
    }
}
