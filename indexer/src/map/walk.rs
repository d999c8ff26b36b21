//! One walk over a document, as Elasticsearch's own parser walks it, noting what is not simply fine.

mod agree;
mod copies;
mod dissolve;
mod duplicates;
mod names;
mod new_names;
pub(super) mod orders;
mod seen;
pub(super) mod shapes;

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use millrace_common::json::{Key, Kind, Value};

use self::orders::Orders;
use self::seen::Seen;
use super::check::Misfit;
use super::check::number::Held;
use super::plan::created::{Created, Pending};
use super::plan::model::{Child, Dynamic, Field, FieldKind, Model, Object};

/// Deepest objects that are followed where the mapping sets no limit: keeps the stack small.
const MAX_WALK_DEPTH: usize = 100;

/// Something about one member of the document.
pub(super) struct Finding<'p, 't> {
    pub what: What,
    /// Dotted path as Elasticsearch names it: of the field that objects, which may be a multi-field.
    pub path: String,
    /// The member's names as written, from the root of the document.
    pub trail: Vec<Cow<'t, str>>,
    /// From the member's key to the end of its value.
    pub span: Range<usize>,
    pub value: Value<'p, 't>,
}

#[derive(Debug)]
pub(super) enum What {
    /// Not mapped and not going to be (`dynamic: false`).
    Unmapped,
    /// Not mapped under `dynamic: strict`.
    Strict,
    /// Creates a field or object.
    New(Arc<Created>),
    Misfit {
        misfit: Misfit,
        type_name: String,
    },
    /// A value left out past the limit, which meets a smaller field of its name when the document is parsed again.
    MetAgain {
        misfit: Misfit,
        type_name: String,
    },
    /// Elasticsearch takes it, we do not.
    Implausible {
        misfit: Misfit,
        type_name: String,
    },
    /// Two values of one document ask for different types of a new field.
    Disagreement {
        first: String,
        second: String,
    },
    /// A concrete field below an object that `dynamic: runtime` does not create: Elasticsearch fails on it.
    Orphan,
    /// Empty, blank, or with dots that name nothing.
    BadName,
    /// A new field of a name that is no place in a mapping.
    BadPlace,
    TooDeep,
    /// A later member of the same object has the same name.
    Duplicate,
    TooManyNested,
    Unsure,
}

/// Where a walk stands in the mapping.
#[derive(Clone, Copy)]
struct Place<'m> {
    model: &'m Model,
    /// `None` below objects that dynamic runtime fields leave unmapped.
    object: Option<&'m Object>,
    dynamic: Dynamic,
    has_subobjects: bool,
    depth: usize,
}

impl<'m> Place<'m> {
    fn of(model: &'m Model, object: &'m Object, depth: usize) -> Self {
        let (dynamic, has_subobjects) = (object.dynamic, object.has_subobjects);
        Self { model, object: Some(object), dynamic, has_subobjects, depth }
    }
}

/// The way from the root: a list on the stack, so that it costs nothing unless something is found.
#[derive(Clone, Copy)]
struct Way<'w, 't> {
    up: Option<&'w Way<'w, 't>>,
    /// Empty where a name has gone into the next one.
    name: &'w str,
    /// The key as written, on the last name of a dotted key.
    key: Option<&'w Cow<'t, str>>,
}

impl<'t> Way<'_, 't> {
    fn path(&self) -> String {
        let mut path = self.up.map(Way::path).unwrap_or_default();
        if !path.is_empty() && !self.name.is_empty() {
            path.push('.');
        }
        path.push_str(self.name);
        path
    }

    fn trail(&self) -> Vec<Cow<'t, str>> {
        let mut trail = self.up.map(Way::trail).unwrap_or_default();
        trail.extend(self.key.cloned());
        trail
    }
}

/// A member of the document while it is judged.
#[derive(Clone, Copy)]
struct Member<'w, 'p, 't> {
    start: usize,
    key: &'w Cow<'t, str>,
    /// What is judged: the member's value or an element of it.
    value: Value<'p, 't>,
    /// The member's value, which stands or falls as a whole.
    whole: Value<'p, 't>,
}

pub(super) struct Walk<'m, 'p, 't> {
    model: &'m Model,
    /// Names that earlier documents of the index create, for decisions.
    pending: Option<&'m Pending>,
    /// Whether fields that stay in `_source` only are to be noted.
    notes_unmapped: bool,
    orders: Option<&'m mut Orders>,
    pub findings: Vec<Finding<'p, 't>>,
    /// Names that this document creates.
    created: HashMap<String, Arc<Created>>,
    /// What they count against the limit of fields.
    charged: u64,
    num_nested: u64,
    held: Held,
    /// Values of new names that Elasticsearch left out past the limit.
    left_out: Vec<(String, Value<'p, 't>)>,
}

impl<'m, 'p, 't> Walk<'m, 'p, 't> {
    pub(super) fn new(model: &'m Model, pending: Option<&'m Pending>, notes_unmapped: bool) -> Self {
        let (findings, created) = (Vec::new(), HashMap::new());
        let (charged, num_nested, held, left_out) = (0, 0, None, Vec::new());
        let orders = None;
        Self { model, pending, notes_unmapped, orders, findings, created, charged, num_nested, held, left_out }
    }

    /// With what earlier documents of the same model taught: see [`Orders::of`].
    pub(super) fn with_orders(self, orders: &'m mut Orders) -> Self {
        Self { orders: Some(orders), ..self }
    }

    /// Walks a document, which must be an object.
    pub(super) fn document(&mut self, document: Value<'p, 't>) {
        let root = self.model.root();
        if root.is_enabled {
            self.object(Place::of(self.model, root, 1), None, document);
        } else {
            self.skip(document, None);
        }
    }

    fn object(&mut self, place: Place<'_>, up: Option<&Way<'_, 't>>, object: Value<'p, 't>) {
        let (mut next, mut seen) = (0, None);
        let ordered = self.ordered(place);
        for (num_before, (key, value)) in object.members().enumerate() {
            let expected = ordered.and_then(|object| self.orders.as_mut()?.expected(object, &mut next, key));
            // Nearly all members: nothing is made for them that only a finding needs.
            if let Some(Some(Child::Field(id))) = expected
                && seen.is_none()
                && place.model.field(id).takes_plainly(value)
            {
                continue;
            }
            let name = key.name();
            if expected.is_none() || seen.is_some() {
                let seen = seen.get_or_insert_with(|| Seen::first(num_before, object));
                if seen.repeats(&name) {
                    self.earlier_duplicates(object, up, &key, &name);
                }
            }
            let child = expected.unwrap_or_else(|| self.look_up(place, ordered, &mut next, key, &name));
            let way = Way { up, name: &name, key: Some(&name) };
            let member = Member { start: key.span().start, key: &name, value, whole: value };
            match child {
                Some(child) => self.child(place, child, &way, member),
                None => self.other(place, up, &way, member),
            }
        }
    }

    /// The object whose order is known, if it is one of the model itself.
    fn ordered(&self, place: Place<'_>) -> Option<u32> {
        place.object.filter(|_| std::ptr::eq(place.model, self.model)).map(|object| object.id)
    }

    fn look_up(
        &mut self,
        place: Place<'_>,
        ordered: Option<u32>,
        next: &mut usize,
        key: Key<'_, '_>,
        name: &str,
    ) -> Option<Child> {
        let child = place.object.and_then(|object| object.children.get(name)).copied();
        if let (Some(object), Some(orders)) = (ordered, &mut self.orders) {
            orders.learn(object, next, key, child);
        }
        child
    }

    /// A member that is not one of the object's children.
    fn other(&mut self, place: Place<'_>, up: Option<&Way<'_, 't>>, way: &Way<'_, 't>, member: Member<'_, 'p, 't>) {
        let name: &str = member.key;
        if name.is_empty() || (name.chars().all(is_java_space) && !self.model.server.has_old_parser) {
            return self.bad_name(way, member);
        }
        if place.has_subobjects && name.contains('.') {
            return self.dotted(place, up, name, member);
        }
        self.unmapped(place, way, member);
    }

    fn child(&mut self, place: Place<'_>, child: Child, way: &Way<'_, 't>, member: Member<'_, 'p, 't>) {
        match child {
            Child::Object(id) => self.enter_object(place, place.model.object(id), way, member),
            Child::Field(id) => {
                let field = place.model.field(id);
                if field.takes_plainly(member.value) {
                    return;
                }
                if field.is_runtime() {
                    return self.objects_in_runtime(place, way, member, member.value);
                }
                if place.has_subobjects || takes_objects(field) || !has_object(member.value) {
                    self.field(place.model, field, way, member);
                } else {
                    self.dissolve_in_field(place, field, way, member, member.value);
                }
            }
        }
    }

    fn enter_object(&mut self, place: Place<'_>, object: &Object, way: &Way<'_, 't>, member: Member<'_, 'p, 't>) {
        if !object.is_enabled {
            return self.skip(member.value, Some((way, member)));
        }
        let before = self.findings.len();
        let below = Place::of(place.model, object, place.depth + 1);
        if !self.elements(below, object, way, member, member.value) {
            if self.pending.is_some() {
                // The member is judged as a whole.
                self.findings.truncate(before);
            }
            let what = What::Misfit { misfit: Misfit::ValueForObject, type_name: "object".to_owned() };
            self.note(what, way, object.path.clone(), member);
        }
    }

    /// Walks an object or an array of objects; `false` at the first plain value.
    fn elements(
        &mut self,
        below: Place<'_>,
        object: &Object,
        way: &Way<'_, 't>,
        member: Member<'_, 'p, 't>,
        value: Value<'p, 't>,
    ) -> bool {
        match value.kind() {
            Kind::Null => true,
            Kind::Object => {
                self.nested(object, way, member);
                self.object(below, Some(way), value);
                true
            }
            Kind::Array => value.elements().all(|element| self.elements(below, object, way, member, element)),
            _ => false,
        }
    }

    fn nested(&mut self, object: &Object, way: &Way<'_, 't>, member: Member<'_, 'p, 't>) {
        if object.is_nested {
            self.num_nested += 1;
            if self.num_nested == self.model.limits.nested_objects + 1 {
                self.note_member(What::TooManyNested, way, member);
            }
        }
    }

    fn note_member(&mut self, what: What, way: &Way<'_, 't>, member: Member<'_, 'p, 't>) {
        self.note(what, way, way.path(), member);
    }

    fn note(&mut self, what: What, way: &Way<'_, 't>, path: String, member: Member<'_, 'p, 't>) {
        let mut trail = way.trail();
        if way.key.is_none() {
            // A step of a dotted key: the member is known by its whole key.
            trail.push(member.key.clone());
        }
        let span = member.start..member.whole.span().end;
        self.findings.push(Finding { what, path, trail, span, value: member.whole });
    }
}

/// White space as Java's `String.isBlank` sees it.
fn is_java_space(c: char) -> bool {
    matches!(c, '\u{9}'..='\u{d}' | '\u{1c}'..='\u{1f}')
        || (c.is_whitespace() && !matches!(c, '\u{85}' | '\u{a0}' | '\u{2007}' | '\u{202f}'))
}

/// Whether an object is a value to the field, and no level of names.
fn takes_objects(field: &Field) -> bool {
    matches!(field.kind, FieldKind::Flattened { .. } | FieldKind::Unknown | FieldKind::Alias)
}

fn has_object(value: Value<'_, '_>) -> bool {
    match value.kind() {
        Kind::Object => true,
        Kind::Array => value.elements().any(has_object),
        _ => false,
    }
}
