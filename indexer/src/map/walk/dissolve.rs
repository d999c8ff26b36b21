//! Objects that are no level of their own: under `subobjects: false`, and beside runtime fields.

use millrace_common::json::{Kind, Value};

use super::seen::Seen;
use super::{MAX_WALK_DEPTH, Member, Place, Walk, Way, What};
use crate::map::check::Misfit;
use crate::map::plan::model::Field;

impl<'m, 'p, 't> Walk<'m, 'p, 't> {
    /// Objects that arrive at a field under `subobjects: false` are names joined with its own.
    pub(super) fn dissolve_in_field(
        &mut self,
        place: Place<'_>,
        field: &Field,
        way: &Way<'_, 't>,
        member: Member<'_, 'p, 't>,
        value: Value<'p, 't>,
    ) {
        let inner = Member { value, ..member };
        match value.kind() {
            Kind::Array => {
                for element in value.elements() {
                    self.dissolve_in_field(place, field, way, member, element);
                }
            }
            Kind::Object => {
                self.dissolve(place, way, inner);
                if !field.copy_to.is_empty() {
                    let what = What::Misfit { misfit: Misfit::CopyOfObject, type_name: field.type_name.clone() };
                    self.note(what, way, field.path.clone(), member);
                }
            }
            _ => {
                self.field(place.model, field, way, inner);
            }
        }
    }

    /// A runtime field takes values of its name, but objects are looked up among the mapped ones only.
    pub(super) fn objects_in_runtime(
        &mut self,
        place: Place<'_>,
        way: &Way<'_, 't>,
        member: Member<'_, 'p, 't>,
        value: Value<'p, 't>,
    ) {
        match value.kind() {
            Kind::Object => self.unmapped(place, way, Member { value, ..member }),
            Kind::Array => {
                let has = |is: fn(Kind) -> bool| value.elements().any(|element| is(element.kind()));
                // The objects create one, and the document, parsed again, has values where that is.
                if has(|kind| kind == Kind::Object) && has(|kind| !matches!(kind, Kind::Object | Kind::Null)) {
                    self.note_member(What::Unsure, way, member);
                }
                value.elements().for_each(|element| self.objects_in_runtime(place, way, member, element));
            }
            Kind::Null => {}
            _ => self.value_of_runtime(way, member),
        }
    }

    /// Under `subobjects: false` an object is no level: its names are joined with the name it has.
    pub(super) fn dissolve(&mut self, place: Place<'_>, way: &Way<'_, 't>, member: Member<'_, 'p, 't>) {
        if place.depth > MAX_WALK_DEPTH {
            return self.note_member(What::TooDeep, way, member);
        }
        let mut seen = Seen::default();
        for (key, value) in member.value.members() {
            let written = key.name();
            if seen.repeats(&written) {
                self.earlier_duplicates(member.value, Some(way), &key, &written);
            }
            let inner = Member { start: key.span().start, key: &written, value, whole: value };
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
}
