//! A few bytes that are looked for.

pub(super) const MOST_BYTES: usize = 32;

type Words = [u64; MOST_BYTES / 8];

/// At most [`MOST_BYTES`] bytes, none of them NUL, which are compared at once.
pub(super) struct Literal {
    bytes: Words,
    /// All ones where the bytes count.
    mask: Words,
    length: u8,
}

impl Literal {
    /// # Panics
    /// If the bytes are too many.
    pub fn new(text: &[u8]) -> Self {
        let mut mask = [0; MOST_BYTES];
        mask[..text.len()].fill(u8::MAX);
        Self { bytes: words(&padded(text)), mask: words(&mask), length: text.len() as u8 }
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.length.into()
    }

    #[inline]
    pub fn is_at(&self, window: &Window) -> bool {
        let parts = window.0.iter().zip(&self.bytes).zip(&self.mask);
        let differences = parts.fold(0, |differences, ((text, own), mask)| differences | ((text ^ own) & mask));
        differences == 0
    }
}

/// The first bytes of a text, and NULs if it is shorter.
pub(super) struct Window(Words);

impl Window {
    #[inline]
    pub fn of(text: &[u8]) -> Self {
        Self(words(&text.first_chunk().copied().unwrap_or_else(|| padded(text))))
    }
}

/// `text`, which is not longer.
#[cold]
fn padded(text: &[u8]) -> [u8; MOST_BYTES] {
    let mut padded = [0; MOST_BYTES];
    padded[..text.len()].copy_from_slice(text);
    padded
}

#[inline]
fn words(bytes: &[u8; MOST_BYTES]) -> Words {
    let mut words = Words::default();
    for (word, chunk) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u64::from_ne_bytes(*chunk);
    }
    words
}
