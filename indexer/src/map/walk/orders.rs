//! The order in which the objects of documents name their members.
//!
//! Logs repeat themselves: a program writes its fields in one order. A name that comes where it is expected is known
//! without being looked up and, since places are only passed forwards, known not to have been there before.

use std::sync::Arc;

use millrace_common::json::{Key, NameId};

use super::shapes::Shapes;
use crate::map::plan::model::{Child, Model};

/// For each object of one model the names as documents had them, with what the model has there.
#[derive(Clone, Debug, Default)]
pub(in crate::map) struct Orders {
    model: Option<Arc<()>>,
    objects: Vec<Vec<Known>>,
    pub(in crate::map) shapes: Shapes,
}

#[derive(Clone, Debug)]
struct Known {
    id: Option<NameId>,
    /// See [`Key::head`].
    head: u64,
    name: Box<str>,
    child: Option<Child>,
}

impl Known {
    fn is(&self, head: u64, key: Key<'_, '_>) -> bool {
        self.head == head && (self.name.len() <= 7 || *self.name == *key.raw())
    }
}

impl Orders {
    /// Names beyond are looked up.
    const MOST_NAMES: usize = 64;
    /// How many members may be left out at a time.
    const AHEAD: usize = 8;

    /// Forgets what was learned of another model.
    pub(in crate::map) fn of(&mut self, model: &Model) -> &mut Self {
        if !self.model.as_ref().is_some_and(|known| Arc::ptr_eq(known, &model.identity)) {
            let objects = vec![Vec::new(); model.objects.len()];
            *self = Self { model: Some(Arc::clone(&model.identity)), objects, shapes: Shapes::default() };
        }
        self
    }

    /// What `object` has under the name of `key`, if that is one of the names that come next; then `next` moves behind it.
    #[inline]
    pub(super) fn expected(&mut self, object: u32, next: &mut usize, key: Key<'_, '_>) -> Option<Option<Child>> {
        let names = &mut self.objects[object as usize][*next..];
        if let Some(known) = names.first()
            && known.id.is_some()
            && known.id == key.id()
        {
            *next += 1;
            return Some(known.child);
        }
        let head = key.head();
        let ahead = names.iter().take(Self::AHEAD).position(|known| known.is(head, key))?;
        names[ahead].id = key.id();
        *next += ahead + 1;
        Some(names[ahead].child)
    }

    /// Notes that `key` came where `next` stands. Names with escapes are not expected.
    pub(super) fn learn(&mut self, object: u32, next: &mut usize, key: Key<'_, '_>, child: Option<Child>) {
        let (head, names) = (key.head(), &mut self.objects[object as usize]);
        if names.len() < Self::MOST_NAMES && !key.has_escape() && !names.iter().any(|known| known.is(head, key)) {
            names.insert(*next, Known { id: key.id(), head, name: key.raw().into(), child });
            *next += 1;
        }
    }
}
