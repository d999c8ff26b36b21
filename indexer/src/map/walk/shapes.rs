//! What there is to check in documents of shapes that were met before.
//!
//! Where each name leads is the same in all documents of one shape: if nothing was found in one of them, only values can make a
//! difference in the next.

use millrace_common::json::{ByShape, Kind, Value};

use super::{Place, takes_objects};
use crate::map::check::Fit;
use crate::map::check::number::Held;
use crate::map::judge::judge;
use crate::map::plan::model::{Child, Dynamic, Model};

/// The checks of some shapes, for one model, in the order of the text. `None`: more than single values decides.
#[derive(Clone, Debug, Default)]
pub(in crate::map) struct Shapes(ByShape<Option<Box<[Check]>>>);

/// A value of a mapped field.
#[derive(Clone, Copy, Debug)]
struct Check {
    /// See [`Value::number`].
    value: u32,
    field: u32,
}

impl Shapes {
    /// Whether a walk over the document would find nothing. `false`: it may.
    #[inline]
    pub(in crate::map) fn is_fine(&self, model: &Model, document: Value<'_, '_>) -> bool {
        let Some(Some(checks)) = document.shape().and_then(|shape| self.0.get(shape)) else { return false };
        let mut held: Held = None;
        checks.iter().all(|check| {
            let (field, value) = (model.field(check.field), document.numbered(check.value));
            field.takes_plainly(value) || matches!(judge(model, field, value, &mut held).fit, Fit::Fits | Fit::Ignored)
        })
    }

    /// Notes the document's shape: a walk over it found nothing.
    pub(in crate::map) fn learn(&mut self, model: &Model, notes_unmapped: bool, document: Value<'_, '_>) {
        let Some(shape) = document.shape().filter(|shape| self.0.get(*shape).is_none()) else { return };
        let (root, mut checks) = (model.root(), Vec::new());
        let is_simple = root.is_enabled
            && model.runtime.is_empty()
            && add_checks(Place::of(model, root, 1), notes_unmapped, document, &mut checks).is_some();
        self.0.insert(shape, is_simple.then(|| checks.into()));
    }
}

/// Adds the values below `object` whose fields must look at them. `None`: more than that is to be looked at.
fn add_checks(place: Place<'_>, notes_unmapped: bool, object: Value<'_, '_>, checks: &mut Vec<Check>) -> Option<()> {
    let children = place.object.map(|object| &object.children)?;
    for (key, value) in object.members() {
        let name = key.name();
        match children.get(&*name) {
            Some(&Child::Field(id)) => {
                let field = place.model.field(id);
                let holds_objects = takes_objects(field) || !matches!(value.kind(), Kind::Object | Kind::Array);
                if field.is_runtime() || !field.copy_to.is_empty() || !(place.has_subobjects || holds_objects) {
                    return None;
                }
                checks.push(Check { value: value.number(), field: id });
            }
            Some(&Child::Object(id)) => {
                let inner = place.model.object(id);
                if !inner.is_enabled {
                    continue;
                }
                // Null is fine where another plain value is not, and both have one shape.
                if inner.is_nested || value.kind() != Kind::Object {
                    return None;
                }
                add_checks(Place::of(place.model, inner, place.depth + 1), notes_unmapped, value, checks)?;
            }
            // Kept as it is, whatever it is.
            None if place.dynamic == Dynamic::False
                && place.has_subobjects
                && !notes_unmapped
                && !name.contains('.') => {}
            None => return None,
        }
    }
    Some(())
}
