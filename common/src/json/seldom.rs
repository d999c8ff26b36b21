//! What gives way to something new, although most of the new never comes again.

/// Once in so many times.
const EVERY: u32 = 16;

/// Names, shapes and spaces that never come again are not worth more than one replacement in so many.
#[derive(Default)]
pub(super) struct Seldom {
    num_times: u32,
}

impl Seldom {
    /// Counts, and says whether it is time again.
    pub fn is_time(&mut self) -> bool {
        self.num_times = self.num_times.wrapping_add(1);
        self.num_times.is_multiple_of(EVERY)
    }
}
