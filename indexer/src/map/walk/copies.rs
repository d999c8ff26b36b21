//! Fields against their values, and the copies that go to other fields.

use millrace_common::json::{Kind, Value};

use super::{Member, Walk, Way, What};
use crate::map::check::{Fit, Misfit};
use crate::map::judge::{ignores_any_malformed, judge};
use crate::map::plan::model::{Child, Dynamic, Field, FieldKind, Model};

impl<'m, 'p, 't> Walk<'m, 'p, 't> {
    pub(super) fn field(&mut self, model: &Model, field: &Field, way: &Way<'_, 't>, member: Member<'_, 'p, 't>) {
        let value = member.value;
        if self.pending.is_none() && value.kind() == Kind::Array && !field.copy_to.is_empty() {
            // What a copy creates may be refused before the next element is read.
            let mut element = |value| self.field(model, field, way, Member { value, ..member });
            return value.elements().for_each(&mut element);
        }
        let judged = judge(model, field, value, &mut self.held);
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

    pub(super) fn copy(&mut self, field: &Field, target: &str, way: &Way<'_, 't>, member: Member<'_, 'p, 't>) {
        if member.value.kind() == Kind::Object
            && self.model.server.ignores_any_malformed
            && ignores_any_malformed(field, self.model)
        {
            // The field has swallowed the object: nothing is left to copy but, for some, its closing brace.
            if self.model.server.ignores_objects {
                self.copy_of_brace(target, way, member);
            }
            return;
        }
        if member.value.kind() == Kind::Object {
            let what = What::Misfit { misfit: Misfit::CopyOfObject, type_name: field.type_name.clone() };
            return self.note(what, way, field.path.clone(), member);
        }
        if !has_leaf(member.value, true) {
            // Without any value nothing is copied.
            return;
        }
        let model = self.model;
        if !model.server.has_old_parser && model.is_in_disabled(target) {
            // The copy enters the objects on the way as the document does.
            return;
        }
        let missing = |parent| first_missing(model, &model.object(parent).path, target);
        match model.find(target) {
            Some(Child::Field(id)) => {
                let judged = judge(model, model.field(id), member.value, &mut self.held);
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
            None => match model.nearest(target) {
                Child::Field(id)
                    if matches!(model.field(id).kind, FieldKind::Flattened { .. } | FieldKind::Unknown) =>
                {
                    self.note_member(What::Unsure, way, member);
                }
                Child::Field(id) => {
                    let type_name = model.field(id).type_name.clone();
                    let what = What::Misfit { misfit: Misfit::ObjectForValue, type_name };
                    self.note(what, way, model.field(id).path.clone(), member);
                }
                Child::Object(id) => match model.object(id).dynamic {
                    Dynamic::Strict => {
                        self.note(What::Strict, way, missing(id).to_owned(), member);
                    }
                    Dynamic::False => {}
                    // Objects on the way to the target are created too: rare enough to let Elasticsearch judge.
                    Dynamic::StrictAllowTemplates | Dynamic::FalseAllowTemplates => {
                        self.note_member(What::Unsure, way, member);
                    }
                    // A null creates the objects on the way.
                    _ if has_leaf(member.value, model.server.has_old_parser || missing(id) != target) => {
                        self.note_member(What::Unsure, way, member)
                    }
                    _ => {}
                },
            },
        }
    }

    /// The target meets the end of an object that the field has ignored.
    fn copy_of_brace(&mut self, target: &str, way: &Way<'_, 't>, member: Member<'_, 'p, 't>) {
        let model = self.model;
        match model.find(target) {
            Some(Child::Field(id)) => {
                let field = model.field(id);
                if !ignores_any_malformed(field, model) {
                    let what = What::Misfit { misfit: Misfit::CopyOfObject, type_name: field.type_name.clone() };
                    self.note(what, way, field.path.clone(), member);
                }
            }
            Some(Child::Object(_)) => self.note_member(What::Unsure, way, member),
            None => match model.nearest(target) {
                Child::Object(id) if model.object(id).dynamic == Dynamic::False => {}
                _ => self.note_member(What::Unsure, way, member),
            },
        }
    }
}

/// The part of `target` up to the first name that is not mapped in `parent`. Where there are no subobjects, fields above the
/// target are passed by.
fn first_missing<'t>(model: &Model, parent: &str, target: &'t str) -> &'t str {
    let start = if parent.is_empty() { 0 } else { parent.len() + 1 };
    let is_field = |path: &str| match model.find(path) {
        Some(Child::Field(id)) => !model.field(id).is_runtime(),
        _ => false,
    };
    let dots = target[start..].match_indices('.').map(|(dot, _)| start + dot);
    dots.map(|end| &target[..end]).find(|path| !is_field(path)).unwrap_or(target)
}

/// Whether a value has a leaf, other than `null` unless that counts.
fn has_leaf(value: Value<'_, '_>, counts_null: bool) -> bool {
    match value.kind() {
        Kind::Null => counts_null,
        Kind::Array => value.elements().any(|element| has_leaf(element, counts_null)),
        _ => true,
    }
}
