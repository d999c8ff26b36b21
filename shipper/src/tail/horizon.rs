//! How far the records of a source may have been produced. Pure.

/// A position that is durable before a record that ends behind it is produced, so that after a crash it is known which bytes may
/// have been sent. A busy source moves it ahead with each save, so that it need not wait for one of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Horizon {
    durable: u64,
    /// In the save under way; it counts once that is durable.
    saving: u64,
    /// For the save after that.
    next: u64,
    /// Up to where the last save found it read; tells the pace.
    read_at_save: u64,
}

impl Horizon {
    /// A second's worth of a quiet file, so that few records wait for a save of their own. The simulation reserves little,
    /// to meet the horizon often.
    const MIN_RESERVE: u64 = if cfg!(test) { 100 } else { 64 * 1024 };
    pub const MAX_RESERVE: u64 = if cfg!(test) { 200 } else { 64 * 1024 * 1024 };

    /// Of a source that was read up to `read`, by a checkpoint that knows of `horizon`.
    pub fn known(horizon: u64, read: u64) -> Self {
        Self { durable: horizon, saving: horizon, next: horizon, read_at_save: read }
    }

    /// Whether a record that ends at `end` may be produced.
    pub fn reaches(&self, end: u64) -> bool {
        end <= self.durable
    }

    /// Whether nothing may have been produced.
    pub fn is_unset(&self) -> bool {
        self.durable == 0
    }

    /// What the next save keeps.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Moves it behind `end` by what the source is likely to need until the save after the next one: twice its pace.
    pub fn reserve(&mut self, end: u64) {
        let pace = end.saturating_sub(self.read_at_save);
        self.next = self.next.max(end + (2 * pace).clamp(Self::MIN_RESERVE, Self::MAX_RESERVE));
    }

    /// A save begins, of a source that was read up to `read`.
    pub fn save(&mut self, read: u64) {
        if read > self.read_at_save {
            self.reserve(read);
        }
        self.read_at_save = read;
        self.saving = self.next;
    }

    /// The last save is durable.
    pub fn saved(&mut self) {
        self.durable = self.saving;
    }

    /// Nothing behind `end` was ever produced, and nothing will be. The source was read up to `read`.
    pub fn end_at(&mut self, end: u64, read: u64) {
        (self.next, self.read_at_save) = (end, read);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However long a save takes until it is durable, up to the next one.
        #[test]
        fn a_steady_source_never_waits_for_a_save(pace in 1..=Horizon::MAX_RESERVE / 2) {
            let mut horizon = Horizon::default();
            horizon.reserve(pace);
            horizon.save(0);
            horizon.saved();
            horizon.reserve(pace);
            horizon.save(pace);
            horizon.saved();
            for number in 2..20 {
                let read = number * pace;
                prop_assert!(horizon.reaches(read), "{horizon:?}");
                horizon.save(read);
                // Until this save is durable, the one before must do.
                prop_assert!(horizon.reaches(read + pace), "{horizon:?}");
                horizon.saved();
            }
        }
    }

    #[test]
    fn it_counts_once_the_save_is_durable_and_ends_where_the_last_record_ends() {
        let mut horizon = Horizon::known(10, 10);
        assert!(horizon.reaches(10) && !horizon.reaches(11));
        horizon.reserve(11);
        assert_eq!(horizon.next(), 111);
        horizon.save(11);
        assert!(!horizon.reaches(11));
        horizon.saved();
        assert!(horizon.reaches(111) && !horizon.reaches(112));
        horizon.end_at(50, 50);
        horizon.save(50);
        assert_eq!(horizon.next(), 50);
    }
}
