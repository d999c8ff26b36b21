//! One walk over a document, as Elasticsearch's own parser walks it, noting what is not simply fine.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;
use std::sync::Arc;

use millrace_common::json::{Key, Kind, Value};

use super::check::{Fit, Misfit};
use super::judge::judge;
use super::plan::created::{Created, Detector, Pending};
use super::plan::model::{Child, Dynamic, Field, FieldKind, Model, NameHasher, Object};

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
    Misfit { misfit: Misfit, type_name: String },
    /// Elasticsearch takes it, we do not.
    Implausible { misfit: Misfit, type_name: String },
    /// Two values of one document ask for different types of a new field.
    Disagreement { first: String, second: String },
    /// Empty, blank, or with dots that name nothing.
    BadName,
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
    value: Value<'p, 't>,
}

pub(super) struct Walk<'m, 'p, 't> {
    model: &'m Model,
    /// Names that earlier documents of the index create, for decisions.
    pending: Option<&'m Pending>,
    /// Whether fields that stay in `_source` only are to be noted.
    notes_unmapped: bool,
    pub findings: Vec<Finding<'p, 't>>,
    /// Names that this document creates.
    created: HashMap<String, Arc<Created>>,
    num_nested: u64,
}

impl<'m, 'p, 't> Walk<'m, 'p, 't> {
    pub(super) fn new(model: &'m Model, pending: Option<&'m Pending>, notes_unmapped: bool) -> Self {
        Self { model, pending, notes_unmapped, findings: Vec::new(), created: HashMap::new(), num_nested: 0 }
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
        let mut seen = Seen::default();
        for (key, value) in object.members() {
            let name = key.name();
            if seen.repeats(&name) {
                self.earlier_duplicates(object, up, &key, &name);
            }
            self.member(place, up, Member { start: key.span().start, key: &name, value });
        }
    }

    /// Notes the member before this one that has the same name.
    fn earlier_duplicates(&mut self, object: Value<'p, 't>, up: Option<&Way<'_, 't>>, last: &Key<'_, '_>, name: &str) {
        let end = last.span().start;
        let before = object.members().take_while(|(key, _)| key.span().start < end).filter(|(key, _)| key.is(name)).last();
        if let Some((key, value)) = before {
            let written = key.name();
            let way = Way { up, name, key: Some(&written) };
            let member = Member { start: key.span().start, key: &written, value };
            self.note(What::Duplicate, &way, way.path(), member);
        }
    }

    fn member(&mut self, place: Place<'_>, up: Option<&Way<'_, 't>>, member: Member<'_, 'p, 't>) {
        let name: &str = member.key;
        let way = Way { up, name, key: Some(member.key) };
        if let Some(&child) = place.object.and_then(|object| object.children.get(name)) {
            return self.child(place, child, &way, member);
        }
        if name.chars().all(is_java_space) {
            return self.bad_name(&way, member);
        }
        if place.has_subobjects && name.contains('.') {
            return self.dotted(place, up, name, member);
        }
        self.unmapped(place, &way, member);
    }

    /// `a.b.c` stands for objects inside each other; dots at the end are dropped.
    fn dotted(&mut self, place: Place<'_>, up: Option<&Way<'_, 't>>, name: &str, member: Member<'_, 'p, 't>) {
        let trimmed = name.trim_end_matches('.');
        if trimmed.is_empty() || trimmed.split('.').any(|part| part.chars().all(is_java_space)) {
            let way = Way { up, name, key: Some(member.key) };
            return self.bad_name(&way, member);
        }
        self.steps(place, up, trimmed, member);
    }

    fn steps(&mut self, place: Place<'_>, up: Option<&Way<'_, 't>>, rest: &str, member: Member<'_, 'p, 't>) {
        let Some((first, after)) = rest.split_once('.').filter(|_| place.has_subobjects) else {
            let way = Way { up, name: rest, key: Some(member.key) };
            return match place.object.and_then(|object| object.children.get(rest)) {
                Some(&child) => self.child(place, child, &way, member),
                None => self.unmapped(place, &way, member),
            };
        };
        let way = Way { up, name: first, key: None };
        match place.object.and_then(|object| object.children.get(first)) {
            Some(&Child::Object(id)) => {
                let object = place.model.object(id);
                if object.is_enabled {
                    self.nested(object, &way, member);
                    self.steps(Place::of(place.model, object, place.depth + 1), Some(&way), after, member);
                } else {
                    self.skip(member.value, Some((&way, member)));
                }
            }
            Some(&Child::Field(id)) => self.object_in_field(place.model.field(id), &way, after, member),
            None => self.unmapped_step(place, &way, after, member),
        }
    }

    /// A dotted name whose first part is a field: an object arrives there.
    fn object_in_field(&mut self, field: &Field, way: &Way<'_, 't>, after: &str, member: Member<'_, 'p, 't>) {
        match field.kind {
            FieldKind::Flattened { .. } => {
                // The rest of the name is part of the key; its dots are levels.
                let is_ok = member.value.kind() != Kind::Object && !after.contains('\0') && after.len() < 8_192;
                let fits = is_ok && member.value.raw().len() < 16_384 && !after.contains('.');
                if !fits {
                    self.note_member(What::Unsure, way, member);
                }
                self.inner_duplicates(member.value, way, member);
            }
            FieldKind::Runtime => {}
            FieldKind::Unknown => self.note_member(What::Unsure, way, member),
            _ => {
                let what = What::Misfit { misfit: Misfit::ObjectForValue, type_name: field.type_name.clone() };
                self.note(what, way, field.path.clone(), member);
            }
        }
    }

    fn unmapped_step(&mut self, place: Place<'_>, way: &Way<'_, 't>, after: &str, member: Member<'_, 'p, 't>) {
        match place.dynamic {
            Dynamic::Strict => self.note_member(What::Strict, way, member),
            Dynamic::False => self.kept(way, member),
            Dynamic::Runtime => {
                let below = Place { object: None, depth: place.depth + 1, ..place };
                self.steps(below, Some(way), after, member);
            }
            Dynamic::True => {
                let Some(created) = self.new_object(place, way, member) else { return };
                match created.child {
                    Child::Object(id) => {
                        let object = created.model.object(id);
                        if object.is_enabled {
                            let below = Place::of(&created.model, object, place.depth + 1);
                            self.steps(below, Some(way), after, member);
                        } else {
                            self.skip(member.value, Some((way, member)));
                        }
                    }
                    Child::Field(id) => self.object_in_field(created.model.field(id), way, after, member),
                }
            }
        }
    }

    fn child(&mut self, place: Place<'_>, child: Child, way: &Way<'_, 't>, member: Member<'_, 'p, 't>) {
        match child {
            Child::Object(id) => self.into_object(place, place.model.object(id), way, member),
            Child::Field(id) => {
                let field = place.model.field(id);
                let dissolves = !place.has_subobjects
                    && member.value.kind() == Kind::Object
                    && !matches!(field.kind, FieldKind::Flattened { .. } | FieldKind::Unknown | FieldKind::Runtime);
                if dissolves {
                    self.dissolve(place, way, member);
                } else {
                    self.field(place.model, field, way, member);
                }
            }
        }
    }

    fn into_object(&mut self, place: Place<'_>, object: &Object, way: &Way<'_, 't>, member: Member<'_, 'p, 't>) {
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

    fn field(&mut self, model: &Model, field: &Field, way: &Way<'_, 't>, member: Member<'_, 'p, 't>) {
        let value = member.value;
        let judged = judge(model, field, value);
        let type_name = || judged.field.type_name.clone();
        match judged.fit {
            Fit::Fits | Fit::Ignored => {}
            Fit::Unsure => self.note_member(What::Unsure, way, member),
            Fit::Refused(misfit) => {
                self.note(What::Misfit { misfit, type_name: type_name() }, way, judged.field.path.clone(), member);
            }
            Fit::Implausible(misfit) => {
                let what = What::Implausible { misfit, type_name: type_name() };
                self.note(what, way, judged.field.path.clone(), member);
            }
        }
        if matches!(value.kind(), Kind::Object | Kind::Array) {
            self.inner_duplicates(value, way, member);
        }
        for target in &field.copy_to {
            self.copy(field, target, way, member);
        }
    }

    fn copy(&mut self, field: &Field, target: &str, way: &Way<'_, 't>, member: Member<'_, 'p, 't>) {
        if member.value.kind() == Kind::Object {
            let what = What::Misfit { misfit: Misfit::CopyOfObject, type_name: field.type_name.clone() };
            return self.note(what, way, field.path.clone(), member);
        }
        let model = self.model;
        match model.find(target) {
            Some(Child::Field(id)) => {
                let judged = judge(model, model.field(id), member.value);
                let type_name = judged.field.type_name.clone();
                match judged.fit {
                    Fit::Refused(misfit) => {
                        let what = What::Misfit { misfit, type_name };
                        self.note(what, way, judged.field.path.clone(), member);
                    }
                    Fit::Unsure => self.note_member(What::Unsure, way, member),
                    _ => {}
                }
            }
            Some(Child::Object(_)) => {
                let what = What::Misfit { misfit: Misfit::ValueForObject, type_name: "object".to_owned() };
                self.note(what, way, target.to_owned(), member);
            }
            // Objects on the way to the target are created too: rare enough to let Elasticsearch judge.
            None if has_value(member.value) => self.note_member(What::Unsure, way, member),
            None => {}
        }
    }

    fn unmapped(&mut self, place: Place<'_>, way: &Way<'_, 't>, member: Member<'_, 'p, 't>) {
        let is_object = member.value.kind() == Kind::Object;
        match place.dynamic {
            Dynamic::Strict => self.note_member(What::Strict, way, member),
            Dynamic::False if is_object && !place.has_subobjects => self.dissolve(place, way, member),
            Dynamic::False => self.kept(way, member),
            Dynamic::True | Dynamic::Runtime if place.depth > MAX_WALK_DEPTH => {
                self.note_member(What::TooDeep, way, member);
            }
            Dynamic::True | Dynamic::Runtime => self.dynamic(place, way, member, member.value),
        }
    }

    /// Under `subobjects: false` an object is no level: its names are joined with the name it has.
    fn dissolve(&mut self, place: Place<'_>, way: &Way<'_, 't>, member: Member<'_, 'p, 't>) {
        if place.depth > MAX_WALK_DEPTH {
            return self.note_member(What::TooDeep, way, member);
        }
        let mut seen = Seen::default();
        for (key, value) in member.value.members() {
            let written = key.name();
            if seen.repeats(&written) {
                self.earlier_duplicates(member.value, Some(way), &key, &written);
            }
            let inner = Member { start: key.span().start, key: &written, value };
            if written.chars().all(is_java_space) {
                let below = Way { up: Some(way), name: &written, key: Some(&written) };
                self.bad_name(&below, inner);
                continue;
            }
            let joined = format!("{}.{}", way.name, written);
            // The object's own key stays in the trail.
            let holder = Way { up: way.up, name: "", key: way.key };
            let below = Way { up: Some(&holder), name: &joined, key: Some(&written) };
            let deeper = Place { depth: place.depth + 1, ..place };
            match place.object.and_then(|object| object.children.get(joined.as_str())) {
                Some(&child) => self.child(deeper, child, &below, inner),
                None => self.unmapped(deeper, &below, inner),
            }
        }
    }

    /// A new name under `dynamic: true` or `runtime`: every element may create.
    fn dynamic(&mut self, place: Place<'_>, way: &Way<'_, 't>, member: Member<'_, 'p, 't>, value: Value<'p, 't>) {
        match value.kind() {
            Kind::Null => {}
            Kind::Array => {
                for element in value.elements() {
                    self.dynamic(place, way, member, element);
                }
            }
            Kind::Object if !place.has_subobjects => self.dissolve(place, way, Member { value, ..member }),
            Kind::Object if place.dynamic == Dynamic::Runtime => {
                let below = Place { object: None, depth: place.depth + 1, ..place };
                self.object(below, Some(way), value);
            }
            Kind::Object => {
                let Some(created) = self.new_object(place, way, member) else { return };
                match created.child {
                    Child::Object(id) => {
                        let object = created.model.object(id);
                        let inner = Member { value, ..member };
                        self.into_object(Place { model: &created.model, ..place }, object, way, inner);
                    }
                    Child::Field(id) => {
                        let field = created.model.field(id);
                        self.field(&created.model, field, way, Member { value, ..member });
                    }
                }
            }
            _ => self.new_leaf(place, way, member, value),
        }
    }

    fn new_leaf(&mut self, place: Place<'_>, way: &Way<'_, 't>, member: Member<'_, 'p, 't>, value: Value<'p, 't>) {
        let path = way.path();
        let known = self.pending.and_then(|pending| pending.get(&path)).cloned();
        let created = match known {
            Some(created) => created,
            None => {
                let detector = Detector { model: self.model, dynamic: place.dynamic };
                let Some(created) = detector.leaf(&path, way.name, value) else {
                    return self.note_member(What::Unsure, way, member);
                };
                match self.agree(path, created, way, member) {
                    Some(created) => created,
                    None => return,
                }
            }
        };
        let inner = Member { value, ..member };
        match created.child {
            Child::Field(id) => {
                let before = self.findings.len();
                self.field(&created.model, created.model.field(id), way, inner);
                self.widen(before, member);
            }
            Child::Object(id) if created.model.object(id).is_enabled => {
                let what = What::Misfit { misfit: Misfit::ValueForObject, type_name: "object".to_owned() };
                self.note(what, way, created.model.object(id).path.clone(), member);
            }
            Child::Object(_) => {}
        }
    }

    /// Findings about one element speak of its whole member.
    fn widen(&mut self, from: usize, member: Member<'_, 'p, 't>) {
        for finding in &mut self.findings[from..] {
            if !matches!(finding.what, What::Duplicate) {
                finding.span = member.start..member.value.span().end;
                finding.value = member.value;
            }
        }
    }

    fn new_object(&mut self, place: Place<'_>, way: &Way<'_, 't>, member: Member<'_, 'p, 't>) -> Option<Arc<Created>> {
        let path = way.path();
        if let Some(created) = self.pending.and_then(|pending| pending.get(&path)) {
            return Some(Arc::clone(created));
        }
        if path.matches('.').count() as u64 + 2 > self.model.limits.depth {
            self.note(What::TooDeep, way, path, member);
            return None;
        }
        let detector = Detector { model: self.model, dynamic: place.dynamic };
        match detector.object(&path, way.name) {
            Some(created) => self.agree(path, created, way, member),
            None => {
                self.note(What::Unsure, way, path, member);
                None
            }
        }
    }

    /// Notes a creation the first time; later ones in the document must ask for the same type.
    fn agree(
        &mut self,
        path: String,
        created: Created,
        way: &Way<'_, 't>,
        member: Member<'_, 'p, 't>,
    ) -> Option<Arc<Created>> {
        if let Some(first) = self.created.get(&path) {
            if first.is_runtime || first.type_name == created.type_name {
                return Some(Arc::clone(first));
            }
            let what = What::Disagreement { first: first.type_name.clone(), second: created.type_name };
            self.note(what, way, path, member);
            return None;
        }
        let created = Arc::new(created);
        self.note(What::New(Arc::clone(&created)), way, path.clone(), member);
        self.created.insert(path, Arc::clone(&created));
        Some(created)
    }

    /// A member that Elasticsearch keeps in `_source` only.
    fn kept(&mut self, way: &Way<'_, 't>, member: Member<'_, 'p, 't>) {
        if self.notes_unmapped {
            self.note_member(What::Unmapped, way, member);
        }
        self.inner_duplicates(member.value, way, member);
    }

    /// Duplicate keys are refused even in what is not looked at.
    fn inner_duplicates(&mut self, value: Value<'p, 't>, way: &Way<'_, 't>, member: Member<'_, 'p, 't>) {
        if matches!(value.kind(), Kind::Object | Kind::Array) && value.has_duplicate_keys() {
            self.skip(value, Some((way, member)));
        }
    }

    /// Notes the duplicates inside a value that is otherwise not looked at.
    fn skip(&mut self, value: Value<'p, 't>, at: Option<(&Way<'_, 't>, Member<'_, 'p, 't>)>) {
        if !value.has_duplicate_keys() {
            return;
        }
        match value.kind() {
            Kind::Array => value.elements().for_each(|element| self.skip(element, at)),
            Kind::Object => {
                let up = at.map(|(way, _)| way);
                let mut seen = Seen::default();
                for (key, inner) in value.members() {
                    let name = key.name();
                    if seen.repeats(&name) {
                        self.earlier_duplicates(value, up, &key, &name);
                    }
                    let way = Way { up, name: &name, key: Some(&name) };
                    let member = Member { start: key.span().start, key: &name, value: inner };
                    self.skip(inner, Some((&way, member)));
                }
            }
            _ => {}
        }
    }

    fn bad_name(&mut self, way: &Way<'_, 't>, member: Member<'_, 'p, 't>) {
        self.note_member(What::BadName, way, member);
        self.inner_duplicates(member.value, way, member);
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
        let span = member.start..member.value.span().end;
        self.findings.push(Finding { what, path, trail, span, value: member.value });
    }
}

/// White space as Java's `String.isBlank` sees it.
fn is_java_space(c: char) -> bool {
    matches!(c, '\u{9}'..='\u{d}' | '\u{1c}'..='\u{1f}')
        || (c.is_whitespace() && !matches!(c, '\u{85}' | '\u{a0}' | '\u{2007}' | '\u{202f}'))
}

fn has_value(value: Value<'_, '_>) -> bool {
    match value.kind() {
        Kind::Null => false,
        Kind::Array => value.elements().any(has_value),
        _ => true,
    }
}

/// The hashes of the names seen in one object. Few names cost no allocation.
struct Seen {
    few: [u32; Seen::FEW],
    num_few: usize,
    many: HashSet<u32, BuildHasherDefault<NameHasher>>,
}

impl Seen {
    const FEW: usize = 32;

    /// Whether `name` may have been there before. Equal hashes of different names are possible: the caller looks again.
    fn repeats(&mut self, name: &str) -> bool {
        let mut hasher = NameHasher::default();
        hasher.write(name.as_bytes());
        let hash = hasher.finish() as u32;
        if self.few[..self.num_few].contains(&hash) {
            return true;
        }
        if self.num_few < Self::FEW {
            self.few[self.num_few] = hash;
            self.num_few += 1;
            return false;
        }
        !self.many.insert(hash)
    }
}

impl Default for Seen {
    fn default() -> Self {
        Self { few: [0; Self::FEW], num_few: 0, many: HashSet::default() }
    }
}
