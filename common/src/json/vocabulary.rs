//! The member names of earlier texts.
//!
//! Logs repeat their names in one order, so that a name is known by one comparison where it is expected, without a look at each
//! of its bytes.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};

use xxhash_rust::xxh3::Xxh3DefaultBuilder;

use super::literal::{self, Literal, Window};
use super::seldom::Seldom;

/// Stands for one name as written: names of equal ids are equal, whatever text and parser they are from. Nothing follows from
/// ids that differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameId(pub(super) NonZeroU32);

impl NameId {
    /// Its number: those of names that were met about the same time follow each other.
    pub fn number(self) -> u32 {
        self.0.get()
    }

    /// One that no name has yet. `None`: there are no more.
    fn new() -> Option<Self> {
        static NUM_IDS: AtomicU32 = AtomicU32::new(0);
        next_number(&NUM_IDS).map(Self)
    }
}

/// No number of an id is as high.
pub(super) const MOST_IDS: u32 = u32::MAX - 8;

/// Counts up to [`MOST_IDS`].
pub(super) fn next_number(num_given: &AtomicU32) -> Option<NonZeroU32> {
    let count = |num: u32| (num + 1 < MOST_IDS).then_some(num + 1);
    let before = num_given.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count).ok()?;
    NonZeroU32::new(before + 1)
}

const MOST_WORDS: usize = 256;

struct Word {
    /// `"name":` as it stands in a text.
    literal: Literal,
    id: NameId,
    /// Those that came after it: the last two that differ.
    next: [u16; 2],
}

#[derive(Default)]
pub(super) struct Vocabulary {
    words: Vec<Word>,
    places: HashMap<Box<[u8]>, u16, Xxh3DefaultBuilder>,
    /// The word met last.
    last: usize,
    unknown: Seldom,
    /// The one to be replaced once there is no room: that learned first.
    oldest: u16,
}

impl Vocabulary {
    /// The name that `text` begins with, if it is one that is expected here: its length with quotes and colon, and its id.
    #[inline]
    pub(super) fn expected(&mut self, text: &[u8]) -> Option<(usize, NameId)> {
        let window = Window::of(text);
        for place in self.words.get(self.last)?.next {
            let word = self.words.get(usize::from(place))?;
            if word.literal.is_at(&window) {
                self.last = place.into();
                return Some((word.literal.len(), word.id));
            }
        }
        None
    }

    /// Notes that `text`, a name without escapes between its quotes and with its colon, came next. `None`: it is not learned.
    pub(super) fn learn(&mut self, text: &[u8]) -> Option<NameId> {
        if text.len() > literal::MOST_BYTES {
            return None;
        }
        let place = match self.places.get(text) {
            Some(&place) => place,
            None => self.add(text)?,
        };
        if let Some(before) = self.words.get_mut(self.last)
            && !before.next.contains(&place)
        {
            before.next = [place, before.next[0]];
        }
        self.last = place.into();
        Some(self.words[self.last].id)
    }

    fn add(&mut self, text: &[u8]) -> Option<u16> {
        let (is_time, is_full) = (self.unknown.is_time(), self.words.len() == MOST_WORDS);
        if is_full && !is_time {
            return None;
        }
        let place = if is_full { self.oldest } else { self.words.len() as u16 };
        let word = Word { literal: Literal::new(text), id: NameId::new()?, next: [place; 2] };
        match self.words.get_mut(usize::from(place)) {
            Some(replaced) => {
                *replaced = word;
                self.places.retain(|_, known| *known != place);
                self.oldest = (place + 1) % MOST_WORDS as u16;
            }
            None => self.words.push(word),
        }
        self.places.insert(text.into(), place);
        Some(place)
    }
}
