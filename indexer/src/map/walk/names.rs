//! Dotted names: objects inside each other on the way to a member.

use millrace_common::json::Kind;

use super::{Member, Place, Walk, Way, What, is_java_space, is_runtime};
use crate::map::check::Misfit;
use crate::map::plan::model::{Child, Dynamic, Field, FieldKind};

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
                if object.is_enabled {
                    self.nested(object, &way, member);
                    self.steps(Place::of(place.model, object, place.depth + 1), Some(&way), after, member);
                } else {
                    self.skip(member.value, Some((&way, member)));
                }
            }
            Some(&Child::Field(id)) if !is_runtime(place.model.field(id)) => {
                self.object_in_field(place.model.field(id), &way, after, member);
            }
            Some(Child::Field(_)) | None => self.unmapped_step(place, &way, after, member),
        }
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
            FieldKind::Flattened { .. } => {
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
        match place.dynamic {
            Dynamic::Strict => self.note_member(What::Strict, way, member),
            Dynamic::False => self.kept(way, member),
            Dynamic::Runtime => {
                if let Some(created) = self.created_value(&way.path()) {
                    let what = What::Misfit { misfit: Misfit::ObjectForValue, type_name: created.type_name.clone() };
                    return self.note_member(what, way, member);
                }
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

    pub(super) fn bad_name(&mut self, way: &Way<'_, 't>, member: Member<'_, 'p, 't>) {
        self.note_member(What::BadName, way, member);
        self.inner_duplicates(member.value, way, member);
    }
}
