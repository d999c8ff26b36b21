//! New names and their types: what values of one name must agree on, and what is left out past the limit.

use std::sync::Arc;

use millrace_common::json::{Kind, Value};

use super::{Member, Walk, Way, What, is_java_space};
use crate::map::check::{Fit, Misfit};
use crate::map::judge::judge;
use crate::map::plan::created::Created;
use crate::map::plan::model::Child;

impl<'m, 'p, 't> Walk<'m, 'p, 't> {
    /// Notes a creation the first time; later ones in the document must ask for the same type.
    pub(super) fn agree(
        &mut self,
        path: String,
        created: Created,
        way: &Way<'_, 't>,
        member: Member<'_, 'p, 't>,
    ) -> Option<Arc<Created>> {
        let is_blank = |part: &str| part.chars().all(is_java_space);
        if self.model.server.has_old_parser && path.contains('.') && path.split('.').any(is_blank) {
            // Taken in as a name, but no field of the mapping can have it.
            self.note(What::BadPlace, way, path.clone(), member);
        }
        // Of several runtime fields of one name the last stays; beside an object none can.
        let is_object = |created: &Created| matches!(created.child, Child::Object(_));
        let first =
            self.created.get(&path).filter(|first| !first.is_runtime || is_object(&created) || !created.is_runtime);
        if let Some(first) = first {
            if first.is_runtime != created.is_runtime && !is_object(first) && !is_object(&created) {
                // Parsed again, all values meet the concrete field, whatever they were judged by.
                let created = if first.is_runtime { Arc::new(created) } else { Arc::clone(first) };
                self.note(What::Unsure, way, path, member);
                return Some(created);
            }
            let is_same_type = first.type_name == created.type_name;
            if is_same_type && first.format() == created.format() && first.is_runtime == created.is_runtime {
                let first = Arc::clone(first);
                if first.date != created.date {
                    // Whether locales are compared is the version's affair.
                    self.note(What::Unsure, way, path.clone(), member);
                }
                // Noted again: the member that came first may not stay.
                self.note(What::New(Arc::clone(&first)), way, path, member);
                return Some(first);
            }
            let describe = |created: &Created| match created.format().filter(|_| is_same_type) {
                Some(format) => format!("{} in {format}", created.type_name),
                None => created.type_name.clone(),
            };
            let what = What::Disagreement { first: describe(first), second: describe(&created) };
            self.note(what, way, path, member);
            // The value still meets the type that it asked for.
            return Some(Arc::new(created));
        }
        if !self.created.contains_key(&path) && self.is_left_out(&created) {
            self.inner_duplicates(member.value, way, member);
            self.left_out.push((path, member.value));
            return None;
        }
        let created = Arc::new(created);
        self.meet_again(&path, &created, way, member);
        self.note(What::New(Arc::clone(&created)), way, path.clone(), member);
        self.created.insert(path, Arc::clone(&created));
        Some(created)
    }

    /// The new field meets what was left out under its name before.
    fn meet_again(&mut self, path: &str, created: &Created, way: &Way<'_, 't>, member: Member<'_, 'p, 't>) {
        let mut left_out = std::mem::take(&mut self.left_out);
        for (_, value) in left_out.extract_if(.., |(left, _)| left == path) {
            let fit = match created.child {
                _ if created.is_runtime => Fit::Fits,
                Child::Field(id) => judge(&created.model, created.model.field(id), value, &mut None).fit,
                Child::Object(id) if created.model.object(id).is_enabled && has_plain(value) => {
                    Fit::Refused(Misfit::ValueForObject)
                }
                Child::Object(_) => Fit::Fits,
            };
            match fit {
                Fit::Refused(misfit) => {
                    let what = What::MetAgain { misfit, type_name: created.type_name.clone() };
                    self.note(what, way, path.to_owned(), member);
                }
                Fit::Unsure => self.note(What::Unsure, way, path.to_owned(), member),
                Fit::Fits | Fit::Ignored | Fit::Implausible(_) => {}
            }
        }
        self.left_out = left_out;
    }

    /// Whether Elasticsearch itself leaves a new field out past the limit, whatever its value; for predictions.
    fn is_left_out(&mut self, created: &Created) -> bool {
        let limits = &self.model.limits;
        if self.pending.is_some() || !limits.ignore_dynamic_beyond {
            return false;
        }
        let after = self.model.num_fields + self.charged + created.charge;
        if after <= limits.total_fields {
            self.charged += created.charge;
        }
        after > limits.total_fields
    }
}

/// Whether a value has a scalar, other than null, outside of objects.
fn has_plain(value: Value<'_, '_>) -> bool {
    match value.kind() {
        Kind::Null | Kind::Object => false,
        Kind::Array => value.elements().any(has_plain),
        _ => true,
    }
}
