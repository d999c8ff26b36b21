//! Dotted names: objects inside each other on the way to a member.

use millrace_common::json::{Kind, Value};

use super::{Member, Place, Walk, Way, What, is_java_space};
use crate::map::check::Misfit;
use crate::map::plan::created::{Created, Detector};
use crate::map::plan::model::{Child, Dynamic, Field, FieldKind, Model, Object};

impl<'m, 'p, 't> Walk<'m, 'p, 't> {
    /// `a.b.c` stands for objects inside each other; dots at the end are dropped.
    pub(super) fn dotted(
        &mut self,
        place: Place<'_>,
        up: Option<&Way<'_, 't>>,
        name: &str,
        member: Member<'_, 'p, 't>,
    ) {
        let trimmed = name.trim_end_matches('.');
        if trimmed.is_empty() || trimmed.split('.').any(|part| part.chars().all(is_java_space)) {
            let way = Way { up, name, key: Some(member.key) };
            return self.bad_name(&way, member);
        }
        if self.model.server.has_old_parser && member.value.kind() == Kind::Null && !leads_somewhere(place, trimmed) {
            let way = Way { up, name: trimmed, key: Some(member.key) };
            return self.unmapped_null(place, &way, member);
        }
        self.steps(place, up, trimmed, member);
    }

    pub(super) fn steps(&mut self, place: Place<'_>, up: Option<&Way<'_, 't>>, rest: &str, member: Member<'_, 'p, 't>) {
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
                if object.is_enabled && object.is_nested && self.model.server.has_old_parser {
                    if leads_to_disabled(place.model, object, after) {
                        return self.skip(member.value, Some((&way, member)));
                    }
                    let what = What::Misfit { misfit: Misfit::DotsIntoNested, type_name: "nested".to_owned() };
                    self.note(what, &way, object.path.clone(), member);
                } else if object.is_enabled {
                    self.step_into(place, place.model, object, &way, after, member);
                } else {
                    self.skip(member.value, Some((&way, member)));
                }
            }
            Some(&Child::Field(id)) if !place.model.field(id).is_runtime() => {
                self.object_in_field(place.model.field(id), &way, after, member);
            }
            Some(Child::Field(_)) | None => self.unmapped_step(place, &way, after, member),
        }
    }

    /// A dotted name whose first part is an object, of the mapping or created, goes on in it.
    fn step_into(
        &mut self,
        place: Place<'_>,
        model: &Model,
        object: &Object,
        way: &Way<'_, 't>,
        after: &str,
        member: Member<'_, 'p, 't>,
    ) {
        self.nested(object, way, member);
        self.steps(Place::of(model, object, place.depth + 1), Some(way), after, member);
    }

    /// A dotted name whose first part is a field: an object arrives there.
    pub(super) fn object_in_field(
        &mut self,
        field: &Field,
        way: &Way<'_, 't>,
        after: &str,
        member: Member<'_, 'p, 't>,
    ) {
        match field.kind {
            FieldKind::Flattened { .. } if !self.model.server.has_old_parser => {
                // The rest of the name is part of the key; its dots are levels.
                let is_ok = member.value.kind() != Kind::Object && !after.contains('\0') && after.len() < 8_192;
                let fits = is_ok && member.value.raw().len() < 16_384 && !after.contains('.');
                if !fits {
                    self.note_member(What::Unsure, way, member);
                }
                self.inner_duplicates(member.value, way, member);
            }
            FieldKind::Unknown => self.note_member(What::Unsure, way, member),
            _ => {
                if matches!(field.kind, FieldKind::Date { .. })
                    && field.ignore_malformed
                    && self.model.server.reads_into_dates
                {
                    // Elasticsearch reads on inside the object; what comes of that is not known.
                    self.note_member(What::Unsure, way, member);
                }
                let what = What::Misfit { misfit: Misfit::ObjectForValue, type_name: field.type_name.clone() };
                self.note(what, way, field.path.clone(), member);
            }
        }
    }

    pub(super) fn unmapped_step(
        &mut self,
        place: Place<'_>,
        way: &Way<'_, 't>,
        after: &str,
        member: Member<'_, 'p, 't>,
    ) {
        let is_old = self.model.server.has_old_parser;
        match place.dynamic {
            Dynamic::Strict => self.note_member(What::Strict, way, member),
            Dynamic::False if is_old && member.value.kind() == Kind::Array => {
                let last = after.rsplit('.').next().unwrap_or(after);
                let way = Way { up: way.up, name: last, key: Some(member.key) };
                match place.object.and_then(|object| object.children.get(last)) {
                    Some(&child) => self.child(place, child, &way, member),
                    None => self.kept(&way, member),
                }
            }
            Dynamic::False => self.kept(way, member),
            Dynamic::Runtime => {
                if let Some(created) = self.created_value(&way.path()) {
                    let what = What::Misfit { misfit: Misfit::ObjectForValue, type_name: created.type_name.clone() };
                    return self.note_member(what, way, member);
                }
                let below = Place { object: None, depth: place.depth + 1, ..place };
                self.steps(below, Some(way), after, member);
            }
            Dynamic::True | Dynamic::StrictAllowTemplates | Dynamic::FalseAllowTemplates => {
                let path = way.path();
                let detector = Detector { model: self.model, dynamic: place.dynamic };
                if is_old && let Some((misfit, type_name)) = detector.object(&path, way.name).and_then(no_way_through) {
                    // Refused before it counts as a new field.
                    return self.note(What::Misfit { misfit, type_name }, way, path, member);
                }
                if never_answered(detector, way, after, member.value) {
                    let what = What::Misfit { misfit: Misfit::NeverAnswered, type_name: "object".to_owned() };
                    return self.note(what, way, path, member);
                }
                let Some(created) = self.new_object(place, way, member) else { return };
                match created.child {
                    Child::Object(id) => {
                        let object = created.model.object(id);
                        if object.is_enabled || is_old {
                            self.step_into(place, &created.model, object, way, after, member);
                        } else {
                            self.skip(member.value, Some((way, member)));
                        }
                    }
                    Child::Field(id) => self.object_in_field(created.model.field(id), way, after, member),
                }
            }
        }
    }

    pub(super) fn bad_name(&mut self, way: &Way<'_, 't>, member: Member<'_, 'p, 't>) {
        self.note_member(What::BadName, way, member);
        self.inner_duplicates(member.value, way, member);
    }
}

/// Whether one of the objects on the way along `rest`, but for its last name, is disabled.
fn leads_to_disabled(model: &Model, object: &Object, rest: &str) -> bool {
    let Some((first, after)) = rest.split_once('.') else { return false };
    match object.children.get(first) {
        Some(Child::Object(id)) => !model.object(*id).is_enabled || leads_to_disabled(model, model.object(*id), after),
        _ => false,
    }
}

/// Whether a template maps the last part of a dotted name and none the object on the way: OpenSearch 3.3 then asks for a
/// mapping without the object, and waits for it without end.
fn never_answered(detector: Detector<'_>, way: &Way<'_, '_>, after: &str, value: Value<'_, '_>) -> bool {
    let is_scalar = !matches!(value.kind(), Kind::Null | Kind::Array | Kind::Object);
    let (path, last) = (way.path(), after.rsplit('.').next().unwrap_or(after));
    detector.dynamic == Dynamic::FalseAllowTemplates
        && is_scalar
        && !detector.takes(&path, way.name, None)
        && detector.takes(&format!("{path}.{after}"), last, Some(value))
}

/// Why dots cannot lead through a new name, to the old parser.
fn no_way_through(created: Created) -> Option<(Misfit, String)> {
    match created.child {
        Child::Field(_) => Some((Misfit::ObjectForValue, created.type_name)),
        Child::Object(id) if created.model.object(id).is_nested => Some((Misfit::DotsIntoNested, created.type_name)),
        Child::Object(_) => None,
    }
}

/// Whether a dotted name is mapped, or leads to an object that settles it: one that is nested or disabled.
fn leads_somewhere(place: Place<'_>, name: &str) -> bool {
    let (mut object, mut rest) = (place.object, name);
    while let Some((first, after)) = rest.split_once('.') {
        let Some(Child::Object(id)) = object.and_then(|object| object.children.get(first)) else { return false };
        let inner = place.model.object(*id);
        if inner.is_nested || !inner.is_enabled {
            return true;
        }
        (object, rest) = (Some(inner), after);
    }
    object.is_some_and(|object| object.children.contains_key(rest))
}
