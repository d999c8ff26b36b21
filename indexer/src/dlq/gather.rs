//! From records of the dead letter topic to letters: parts are joined, the filter is applied, each id comes out once.

use std::collections::{BTreeMap, HashMap};

use xxhash_rust::xxh3::xxh3_128;

use super::letter::{NotALetter, ParkedLetter};

/// Which letters are wanted. Empty lists and `None` take all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub reasons: Vec<String>,
    /// A field takes those below it, too.
    pub fields: Vec<String>,
    /// Milliseconds since the epoch, this one included.
    pub since_ms: Option<i64>,
    /// This one excluded.
    pub until_ms: Option<i64>,
}

impl Filter {
    pub fn takes(&self, letter: &ParkedLetter) -> bool {
        let is_below = |field: &String| {
            letter.field.strip_prefix(field.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        (self.reasons.is_empty() || self.reasons.contains(&letter.reason))
            && (self.fields.is_empty() || self.fields.iter().any(is_below))
            && self.since_ms.is_none_or(|since| letter.parked_ms >= since)
            && self.until_ms.is_none_or(|until| letter.parked_ms < until)
    }
}

/// What is known of an id.
struct Seen {
    first_parked_ms: i64,
    /// It came out already.
    is_taken: bool,
}

/// Parts of one letter. The same letter cut into another number of parts is another set.
struct Parts {
    /// Of the first part that came, without its value.
    head: ParkedLetter,
    values: BTreeMap<u32, Vec<u8>>,
    bytes: u64,
    /// Counts the sets, so that the oldest is known.
    number: u64,
}

/// Takes the records of the topic in any order.
pub struct Gather {
    filter: Filter,
    /// By the hash of the id: some 40 bytes a letter, whatever it holds.
    seen: HashMap<u128, Seen>,
    parts: HashMap<(u128, u32), Parts>,
    part_bytes: u64,
    max_part_bytes: u64,
    num_sets: u64,
    /// Sets given up since there was no room for them, without values.
    dropped: Vec<ParkedLetter>,
    /// The topic was not read to its end, so that nothing can be said of what is incomplete.
    is_stopped: bool,
    /// Records that are no letters.
    pub num_foreign: u64,
}

impl Gather {
    /// `max_part_bytes` bounds the parts that wait for their missing ones.
    pub fn new(filter: Filter, max_part_bytes: u64) -> Self {
        Self {
            filter,
            seen: HashMap::new(),
            parts: HashMap::new(),
            part_bytes: 0,
            max_part_bytes,
            num_sets: 0,
            dropped: Vec::new(),
            is_stopped: false,
            num_foreign: 0,
        }
    }

    /// Takes a record. Gives a letter, whole, if the filter takes it and its id did not come out before.
    pub fn take(&mut self, record: Result<ParkedLetter, NotALetter>) -> Option<ParkedLetter> {
        let Ok(letter) = record else {
            self.num_foreign += 1;
            return None;
        };
        let id = xxh3_128(letter.id.as_bytes());
        if self.seen.get(&id).is_some_and(|seen| seen.is_taken) {
            return None;
        }
        let mut letter = self.join(id, letter)?;
        let seen = self.seen.entry(id).or_insert(Seen { first_parked_ms: letter.parked_ms, is_taken: false });
        seen.first_parked_ms = seen.first_parked_ms.min(letter.parked_ms);
        letter.first_parked_ms = seen.first_parked_ms;
        seen.is_taken = self.filter.takes(&letter);
        seen.is_taken.then_some(letter)
    }

    /// Distinct ids among the letters so far.
    pub fn num_letters(&self) -> usize {
        self.seen.len()
    }

    /// Says that the topic is not read to its end.
    pub fn stop(&mut self) {
        self.is_stopped = true;
    }

    /// Letters that the filter takes but of which the topic does not have all parts, without values.
    pub fn incomplete(&self) -> Vec<&ParkedLetter> {
        if self.is_stopped {
            return Vec::new();
        }
        let heads = self.parts.values().map(|parts| &parts.head).chain(&self.dropped);
        let mut by_id: BTreeMap<&str, &ParkedLetter> = BTreeMap::new();
        // A letter can be cut twice, the first time too coarsely: one whole set is enough.
        for head in heads.filter(|head| !self.seen.contains_key(&xxh3_128(head.id.as_bytes()))) {
            if self.filter.takes(head) {
                by_id.insert(&head.id, head);
            }
        }
        by_id.into_values().collect()
    }

    fn join(&mut self, id: u128, mut letter: ParkedLetter) -> Option<ParkedLetter> {
        let Some((number, num)) = letter.part else { return Some(letter) };
        let value = std::mem::take(&mut letter.value);
        let num_sets = &mut self.num_sets;
        let parts = self.parts.entry((id, num)).or_insert_with(|| {
            *num_sets += 1;
            Parts { head: letter, values: BTreeMap::new(), bytes: 0, number: *num_sets }
        });
        if !parts.values.contains_key(&number) {
            parts.bytes += value.len() as u64;
            self.part_bytes += value.len() as u64;
            parts.values.insert(number, value);
        }
        if parts.values.len() < num as usize {
            self.make_room();
            return None;
        }
        let parts = self.parts.remove(&(id, num))?;
        self.part_bytes -= parts.bytes;
        let value = parts.values.into_values().collect::<Vec<_>>().concat();
        Some(ParkedLetter { value, part: None, ..parts.head })
    }

    fn make_room(&mut self) {
        while self.part_bytes > self.max_part_bytes {
            let Some(oldest) = self.parts.iter().min_by_key(|(_, parts)| parts.number).map(|(key, _)| *key) else {
                return;
            };
            if let Some(parts) = self.parts.remove(&oldest) {
                self.part_bytes -= parts.bytes;
                self.dropped.push(parts.head);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(id: &str, value: &str, part: Option<(u32, u32)>) -> ParkedLetter {
        let text = |text: &str| text.to_owned();
        ParkedLetter {
            id: text(id),
            reason: text("refused"),
            field: text("http.status"),
            parked_ms: 100,
            part,
            value: value.into(),
            ..ParkedLetter::default()
        }
    }

    /// The values that come out, in order.
    fn check(gather: &mut Gather, letters: impl IntoIterator<Item = ParkedLetter>, expected: &[&str]) {
        let taken: Vec<_> = letters.into_iter().filter_map(|letter| gather.take(Ok(letter))).collect();
        let values: Vec<_> = taken.iter().map(|letter| std::str::from_utf8(&letter.value).unwrap()).collect();
        assert_eq!(values, expected);
        assert!(taken.iter().all(|letter| letter.part.is_none()));
    }

    fn all() -> Gather {
        Gather::new(Filter::default(), 1_000)
    }

    #[test]
    fn a_letter_parked_twice_comes_out_once() {
        let mut gather = all();
        check(&mut gather, [letter("a", "1", None), letter("b", "2", None), letter("a", "1", None)], &["1", "2"]);
        assert_eq!(gather.num_letters(), 2);
        assert_eq!(gather.take(Err(NotALetter)), None);
        assert_eq!(gather.num_foreign, 1);
    }

    #[test]
    fn parts_are_joined_whatever_their_order_and_company() {
        let mut gather = all();
        let parts = [
            letter("a", "3", Some((3, 3))),
            letter("b", "x", Some((1, 2))),
            letter("a", "1", Some((1, 3))),
            letter("a", "1", Some((1, 3))),
            letter("b", "y", Some((2, 2))),
            letter("a", "2", Some((2, 3))),
            letter("a", "2", Some((2, 3))),
        ];
        check(&mut gather, parts, &["xy", "123"]);
        assert!(gather.incomplete().is_empty());
        assert_eq!((gather.parts.len(), gather.part_bytes), (0, 0));
    }

    #[test]
    fn a_cut_that_was_too_coarse_does_not_mix_with_the_finer_one() {
        let mut gather = all();
        check(&mut gather, [letter("a", "12", Some((1, 2))), letter("a", "1", Some((1, 4)))], &[]);
        assert_eq!(gather.incomplete().len(), 1);
        let rest = [("2", 2), ("3", 3), ("4", 4)].map(|(value, number)| letter("a", value, Some((number, 4))));
        check(&mut gather, rest, &["1234"]);
        assert!(gather.incomplete().is_empty());
    }

    #[test]
    fn parts_without_the_rest_are_bounded_and_told() {
        let mut gather = Gather::new(Filter::default(), 25);
        let parts = (0..5).map(|n| letter(&format!("{n}"), "0123456789", Some((1, 2))));
        check(&mut gather, parts, &[]);
        assert!(gather.part_bytes <= 25);
        assert_eq!(gather.incomplete().iter().map(|letter| letter.id.as_str()).collect::<String>(), "01234");
        gather.stop();
        assert!(gather.incomplete().is_empty(), "the rest may come later");
    }

    #[test]
    fn a_filter_asks_for_reason_field_and_time() {
        let takes = |filter: Filter| filter.takes(&letter("a", "", None));
        let list = |text: &str| vec!["other".to_owned(), text.to_owned()];
        assert!(takes(Filter { reasons: list("refused"), ..Filter::default() }));
        assert!(!takes(Filter { reasons: list("not_json"), ..Filter::default() }));
        for (field, expected) in [("http.status", true), ("http", true), ("http.stat", false), ("status", false)] {
            assert_eq!(takes(Filter { fields: list(field), ..Filter::default() }), expected, "{field}");
        }
        for (since, until, expected) in
            [(100, 101, true), (101, 200, false), (0, 100, false), (i64::MIN, i64::MAX, true)]
        {
            let filter = Filter { since_ms: Some(since), until_ms: Some(until), ..Filter::default() };
            assert_eq!(takes(filter), expected, "{since}..{until}");
        }
    }

    #[test]
    fn a_letter_parked_again_is_found_by_its_later_time_and_keeps_its_first() {
        let filter = Filter { since_ms: Some(200), ..Filter::default() };
        let mut gather = Gather::new(filter, 1_000);
        assert_eq!(gather.take(Ok(letter("a", "1", None))), None);
        let again = gather.take(Ok(ParkedLetter { parked_ms: 300, ..letter("a", "1", None) })).unwrap();
        assert_eq!((again.parked_ms, again.first_parked_ms), (300, 100));
    }
}
