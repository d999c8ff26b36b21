//! The shapes of earlier texts.
//!
//! A program writes most of its lines with the same members in the same order. What was found out about where they stand in one
//! such text holds in all of them.

use std::num::NonZeroU32;
use std::sync::atomic::AtomicU32;

use super::seldom::Seldom;
use super::vocabulary::{MOST_IDS, NameId, next_number};

/// Stands for one arrangement of names, objects and arrays: in texts of equal shapes the values of equal numbers
/// ([`super::Value::number`]) are the same member of the same object, or the same element of the same array; those that are an object
/// or an array in one are so in all. Nothing follows from shapes that differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShapeId(pub(super) NonZeroU32);

impl ShapeId {
    /// One that no shape has yet. `None`: there are no more.
    fn new() -> Option<Self> {
        static NUM_SHAPES: AtomicU32 = AtomicU32::new(0);
        next_number(&NUM_SHAPES).map(Self)
    }
}

/// What was found out about some shapes: of those of one place, the last.
#[derive(Clone, Debug)]
pub struct ByShape<T> {
    met: Vec<Option<(ShapeId, T)>>,
}

impl<T> Default for ByShape<T> {
    fn default() -> Self {
        Self { met: Vec::new() }
    }
}

impl<T> ByShape<T> {
    #[inline]
    pub fn get(&self, shape: ShapeId) -> Option<&T> {
        let (met, found) = self.met.get(Self::place(shape))?.as_ref()?;
        (*met == shape).then_some(found)
    }

    pub fn insert(&mut self, shape: ShapeId, found: T) {
        self.met.resize_with(NUM_PLACES, || None);
        self.met[Self::place(shape)] = Some((shape, found));
    }

    /// Shapes that were met about the same time have places of their own.
    fn place(shape: ShapeId) -> usize {
        shape.0.get() as usize % NUM_PLACES
    }
}

/// What a text is made of, beside the names of its members. No name's number is as high.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(super) enum Part {
    Object = MOST_IDS,
    Array,
    /// An element of an array that is neither.
    Scalar,
    /// Of an object or array.
    End,
}

struct Shape {
    parts: Box<[u32]>,
    id: ShapeId,
}

/// Longer ones are not worth their memory.
const MOST_PARTS: usize = 512;
const NUM_PLACES: usize = 64;

#[derive(Default)]
pub(super) struct Shapes {
    /// Of the text under way.
    parts: Vec<u32>,
    hash: u64,
    /// It has a name without an id.
    has_unknown: bool,
    /// By the first bits of their hash.
    met: Vec<Option<Shape>>,
    /// Where another shape was met before.
    unmet: Seldom,
}

impl Shapes {
    /// A text begins.
    pub(super) fn begin(&mut self) {
        self.parts.clear();
        (self.hash, self.has_unknown) = (0, false);
    }

    #[inline]
    pub(super) fn add(&mut self, part: Part) {
        self.push(part as u32);
    }

    #[inline]
    pub(super) fn add_name(&mut self, id: NameId) {
        self.push(id.number());
    }

    pub(super) fn add_unknown(&mut self) {
        self.has_unknown = true;
    }

    #[inline]
    fn push(&mut self, part: u32) {
        // The multiplier of Fibonacci hashing: 2^64 divided by the golden ratio.
        self.hash = (self.hash.rotate_left(5) ^ u64::from(part)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.parts.push(part);
    }

    /// The shape of the text that ends. `None`: it is not remembered.
    pub(super) fn finish(&mut self) -> Option<ShapeId> {
        if self.has_unknown || self.parts.len() > MOST_PARTS {
            // One long text must not keep its memory for good.
            self.parts.shrink_to(MOST_PARTS);
            return None;
        }
        if self.met.is_empty() {
            self.met.resize_with(NUM_PLACES, || None);
        }
        let place = &mut self.met[(self.hash >> (u64::BITS - NUM_PLACES.ilog2())) as usize];
        if let Some(shape) = place {
            if *shape.parts == *self.parts {
                return Some(shape.id);
            }
            if !self.unmet.is_time() {
                return None;
            }
        }
        let id = ShapeId::new()?;
        *place = Some(Shape { parts: self.parts.as_slice().into(), id });
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_out_about_a_shape_is_not_told_of_another_of_the_same_place() {
        let shape = |number: usize| ShapeId(NonZeroU32::MIN.saturating_add(u32::try_from(number).unwrap()));
        let mut found = ByShape::default();
        assert_eq!(found.get(shape(0)), None);
        found.insert(shape(0), "first");
        assert_eq!([found.get(shape(0)), found.get(shape(NUM_PLACES))], [Some(&"first"), None]);
        found.insert(shape(NUM_PLACES), "second");
        assert_eq!([found.get(shape(0)), found.get(shape(NUM_PLACES))], [None, Some(&"second")]);
    }
}
