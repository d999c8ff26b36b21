//! Names that the mapping does not have: kept, refused, or created.

use std::sync::Arc;

use millrace_common::json::{Kind, Value};

use super::{MAX_WALK_DEPTH, Member, Place, Walk, Way, What};
use crate::map::check::Misfit;
use crate::map::check::number::looked_at;
use crate::map::plan::created::{Created, Detector};
use crate::map::plan::model::{Child, Dynamic, FieldKind};
use crate::map::server::Counting;

impl<'m, 'p, 't> Walk<'m, 'p, 't> {
    pub(super) fn unmapped(&mut self, place: Place<'_>, way: &Way<'_, 't>, member: Member<'_, 'p, 't>) {
        let is_object = member.value.kind() == Kind::Object;
        if !is_object && !self.model.runtime.is_empty() && self.model.runtime.contains(&way.path()) {
            self.value_of_runtime(way, member);
            return;
        }
        if !is_object && !place.has_subobjects && place.dynamic != Dynamic::False && self.is_in_flattened(&way.path()) {
            // Elasticsearch finds the key of the flattened field, takes it for a runtime field, and indexes nothing.
            return;
        }
        match place.dynamic {
            _ if member.value.kind() == Kind::Null => self.unmapped_null(place, way, member),
            Dynamic::Strict => self.note_member(What::Strict, way, member),
            Dynamic::False if is_object && !place.has_subobjects => self.new_dissolved(place, way, member),
            Dynamic::False => self.kept(way, member),
            _ if place.depth > MAX_WALK_DEPTH => self.note_member(What::TooDeep, way, member),
            _ => self.dynamic(place, way, member, member.value),
        }
    }

    /// A null of a name that is not mapped, as the old parser takes it: nothing comes of it.
    pub(super) fn unmapped_null(&mut self, place: Place<'_>, way: &Way<'_, 't>, member: Member<'_, 'p, 't>) {
        let looks_only_here = self.model.server.counting == Counting::AtTheEnd;
        match place.dynamic {
            // OpenSearch does not look at the objects above.
            _ if looks_only_here && place.object.is_some_and(|object| !object.states_dynamic) => {}
            Dynamic::Strict | Dynamic::StrictAllowTemplates => self.note_member(What::Strict, way, member),
            Dynamic::False | Dynamic::FalseAllowTemplates => self.kept(way, member),
            Dynamic::True | Dynamic::Runtime => {}
        }
    }

    fn is_in_flattened(&self, path: &str) -> bool {
        let above = std::iter::successors(path.rsplit_once('.'), |(above, _)| above.rsplit_once('.'));
        above.into_iter().any(|(above, _)| match self.model.find(above) {
            Some(Child::Field(id)) => matches!(self.model.field(id).kind, FieldKind::Flattened { .. }),
            _ => false,
        })
    }

    /// A new name under `dynamic: true` or `runtime`: every element may create.
    pub(super) fn dynamic(
        &mut self,
        place: Place<'_>,
        way: &Way<'_, 't>,
        member: Member<'_, 'p, 't>,
        value: Value<'p, 't>,
    ) {
        match value.kind() {
            // Even beside elements that a template maps.
            Kind::Null if place.dynamic == Dynamic::StrictAllowTemplates => self.unmapped_null(place, way, member),
            Kind::Null => {}
            // An array is looked up among the templates as an object.
            Kind::Array
                if !(Detector { model: self.model, dynamic: place.dynamic }).takes(&way.path(), way.name, None) =>
            {
                self.without_template(place, way, member);
            }
            Kind::Array => {
                for element in value.elements() {
                    self.dynamic(place, way, member, element);
                }
            }
            Kind::Object if !place.has_subobjects => self.new_dissolved(place, way, Member { value, ..member }),
            Kind::Object if place.dynamic == Dynamic::Runtime => {
                if let Some(created) = self.created_value(&way.path()) {
                    // Parsed again with the new field, the object meets it.
                    let what = What::Misfit { misfit: Misfit::ObjectForValue, type_name: created.type_name.clone() };
                    return self.note_member(what, way, member);
                }
                let below = Place { object: None, depth: place.depth + 1, ..place };
                self.object(below, Some(way), value);
            }
            Kind::Object => {
                let Some(created) = self.new_object(place, way, member) else { return };
                match created.child {
                    Child::Object(id) => {
                        let object = created.model.object(id);
                        let inner = Member { value, ..member };
                        self.enter_object(Place { model: &created.model, ..place }, object, way, inner);
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

    /// A new object under `subobjects: false` is a level of names only, unless a template makes a field of it, which
    /// happens even under `dynamic: false`.
    pub(super) fn new_dissolved(&mut self, place: Place<'_>, way: &Way<'_, 't>, member: Member<'_, 'p, 't>) {
        let path = way.path();
        let detector = Detector { model: self.model, dynamic: place.dynamic };
        if place.dynamic != Dynamic::Runtime
            && let Some(created) = detector.object(&path, way.name)
        {
            match created.child {
                Child::Object(id) if created.model.object(id).is_nested => {
                    let what = What::Misfit { misfit: Misfit::NestedInFlat, type_name: created.type_name };
                    return self.note(what, way, path, member);
                }
                Child::Object(_) => {}
                Child::Field(id) => {
                    let Some(created) = self.agree(path, created, way, member) else { return };
                    let field = created.model.field(id);
                    if matches!(field.kind, FieldKind::Flattened { .. } | FieldKind::Unknown) {
                        return self.field(&created.model, field, way, member);
                    }
                }
            }
        }
        self.dissolve(place, way, member);
    }

    pub(super) fn new_leaf(
        &mut self,
        place: Place<'_>,
        way: &Way<'_, 't>,
        member: Member<'_, 'p, 't>,
        value: Value<'p, 't>,
    ) {
        let path = way.path();
        let known = self.pending.and_then(|pending| pending.get(&path)).cloned();
        let created = match known {
            Some(created) => created,
            None => {
                self.held = looked_at(value, self.model.server).or(self.held);
                let detector = Detector { model: self.model, dynamic: place.dynamic };
                if !detector.takes(&path, way.name, Some(value)) {
                    return self.without_template(place, way, member);
                }
                let Some(created) = detector.leaf(&path, way.name, value) else {
                    return self.note_member(What::Unsure, way, member);
                };
                if created.is_runtime && self.model.server.has_old_parser && member.key.ends_with('.') {
                    let what = What::Misfit { misfit: Misfit::NeverAnswered, type_name: created.type_name };
                    return self.note(what, way, path, member);
                }
                match self.agree(path, created, way, member) {
                    Some(created) => created,
                    None => return,
                }
            }
        };
        let inner = Member { value, ..member };
        if place.object.is_none() && !created.is_runtime {
            return self.note_member(What::Orphan, way, member);
        }
        match created.child {
            Child::Field(id) => {
                self.field(&created.model, created.model.field(id), way, inner);
            }
            Child::Object(id) if created.model.object(id).is_enabled => {
                let what = What::Misfit { misfit: Misfit::ValueForObject, type_name: "object".to_owned() };
                self.note(what, way, created.model.object(id).path.clone(), member);
            }
            Child::Object(_) => {}
        }
    }

    pub(super) fn new_object(
        &mut self,
        place: Place<'_>,
        way: &Way<'_, 't>,
        member: Member<'_, 'p, 't>,
    ) -> Option<Arc<Created>> {
        let path = way.path();
        // Objects are looked up among the mapped fields only: a runtime field does not stand in their way.
        let pending = self.pending.and_then(|pending| pending.get(&path)).filter(|created| !created.is_runtime);
        if let Some(created) = pending {
            return Some(Arc::clone(created));
        }
        let detector = Detector { model: self.model, dynamic: place.dynamic };
        if !detector.takes(&path, way.name, None) {
            self.without_template(place, way, member);
            return None;
        }
        let created = detector.object(&path, way.name);
        // A template can make a field of it: those have no depth.
        let is_object = created.as_ref().is_none_or(|created| matches!(created.child, Child::Object(_)));
        if is_object && path.matches('.').count() as u64 + 2 > self.model.limits.depth {
            self.note(What::TooDeep, way, path.clone(), member);
            if !self.model.server.has_old_parser {
                return None;
            }
        }
        match created {
            Some(created) => self.agree(path, created, way, member),
            None => {
                self.note(What::Unsure, way, path, member);
                None
            }
        }
    }

    /// A value of a runtime field, in whose way stands an object of that name that came first: it is looked up first.
    pub(super) fn value_of_runtime(&mut self, way: &Way<'_, 't>, member: Member<'_, 'p, 't>) {
        let path = way.path();
        let is_object = |created: &Arc<Created>| matches!(created.child, Child::Object(_));
        if self.pending.and_then(|pending| pending.get(&path)).is_some_and(is_object) {
            let what = What::Misfit { misfit: Misfit::ValueForObject, type_name: "object".to_owned() };
            self.note(what, way, path, member);
        } else if self.created.get(&path).is_some_and(is_object) {
            self.note_member(What::Unsure, way, member);
        }
    }

    /// A concrete field, no object, that this document or one before it creates.
    pub(super) fn created_value(&self, path: &str) -> Option<Arc<Created>> {
        let pending = self.pending.and_then(|pending| pending.get(path));
        let created = pending.or_else(|| self.created.get(path)).filter(|created| !created.is_runtime)?;
        matches!(created.child, Child::Field(_)).then(|| Arc::clone(created))
    }

    fn without_template(&mut self, place: Place<'_>, way: &Way<'_, 't>, member: Member<'_, 'p, 't>) {
        match place.dynamic {
            Dynamic::StrictAllowTemplates => self.note_member(What::Strict, way, member),
            _ => self.kept(way, member),
        }
    }

    /// A member that Elasticsearch keeps in `_source` only.
    pub(super) fn kept(&mut self, way: &Way<'_, 't>, member: Member<'_, 'p, 't>) {
        if self.notes_unmapped {
            self.note_member(What::Unmapped, way, member);
        }
        self.inner_duplicates(member.value, way, member);
    }
}
