//! What there is to check in documents of shapes that were met before.
//!
//! Where each name leads is the same in all documents of one shape: if nothing was found in one of them, only values can make a
//! difference in the next.

use millrace_common::json::{Kind, ShapeId, Value};

use super::{Place, is_runtime, takes_objects};
use crate::map::check::Fit;
use crate::map::check::number::Held;
use crate::map::judge::judge;
use crate::map::plan::model::{Child, Dynamic, Model, Object};

/// The checks of some shapes, for one model.
#[derive(Clone, Debug, Default)]
pub(in crate::map) struct Shapes {
    /// By the number of the shape.
    met: Vec<Option<Met>>,
}

#[derive(Clone, Debug)]
struct Met {
    shape: ShapeId,
    /// In the order of the text. `None`: more than single values decides.
    checks: Option<Box<[Check]>>,
}

/// A value of a mapped field.
#[derive(Clone, Copy, Debug)]
struct Check {
    /// See [`Value::number`].
    value: u32,
    field: u32,
}

impl Shapes {
    const NUM_MET: usize = 64;

    /// Whether a walk over the document would find nothing. `false`: it may.
    #[inline]
    pub(in crate::map) fn is_fine(&self, model: &Model, document: Value<'_, '_>) -> bool {
        let Some(shape) = document.shape() else { return false };
        let met = self.met.get(Self::place(shape)).and_then(Option::as_ref).filter(|met| met.shape == shape);
        let Some(checks) = met.and_then(|met| met.checks.as_ref()) else { return false };
        let mut held: Held = None;
        checks.iter().all(|check| {
            let (field, value) = (model.field(check.field), document.numbered(check.value));
            field.takes_plainly(value) || matches!(judge(model, field, value, &mut held).fit, Fit::Fits | Fit::Ignored)
        })
    }

    /// Notes the document's shape: a walk over it found nothing.
    pub(in crate::map) fn learn(&mut self, model: &Model, notes_unmapped: bool, document: Value<'_, '_>) {
        let Some(shape) = document.shape() else { return };
        self.met.resize_with(Self::NUM_MET, || None);
        let met = &mut self.met[Self::place(shape)];
        if met.as_ref().is_some_and(|met| met.shape == shape) {
            return;
        }
        let mut checks = Vec::new();
        let root = model.root();
        let is_simple = root.is_enabled
            && model.runtime.is_empty()
            && add_checks(Place::of(model, root, 1), notes_unmapped, document, &mut checks).is_some();
        *met = Some(Met { shape, checks: is_simple.then(|| checks.into()) });
    }

    fn place(shape: ShapeId) -> usize {
        shape.number() as usize % Self::NUM_MET
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
                if is_runtime(field) || !field.copy_to.is_empty() || !(place.has_subobjects || holds_objects) {
                    return None;
                }
                checks.push(Check { value: value.number(), field: id });
            }
            Some(&Child::Object(id)) => {
                let inner: &Object = place.model.object(id);
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
