//! Finding a field that may be written dotted, nested, or both.

use millrace_common::json::{Key, NameId, Value};

/// Returns the value at the dotted `path`, whether the document writes it as `{"a":{"b":…}}`, `{"a.b":…}` or mixed.
/// Of several the last in the text, as Elasticsearch keeps the last of duplicates.
pub fn find_field<'p, 't>(object: Value<'p, 't>, path: &str) -> Option<Value<'p, 't>> {
    find(object, 0, &mut |at, key| step(path, at, &key.name()))
}

/// A dotted path that is looked for in many documents: it knows again what it met.
#[derive(Clone, Debug)]
pub struct FieldPath {
    path: Box<str>,
    /// By the number of the name.
    met: [Option<Met>; FieldPath::NUM_MET],
}

/// What a name is to the rest of the path from `at` on.
#[derive(Clone, Copy, Debug)]
struct Met {
    id: NameId,
    at: usize,
    step: Step,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Other,
    Whole,
    /// The rest, from there on, is below it.
    Into(usize),
}

impl FieldPath {
    const NUM_MET: usize = 64;

    pub fn new(path: &str) -> Self {
        Self { path: path.into(), met: [None; Self::NUM_MET] }
    }

    /// As [`find_field`].
    pub fn find<'p, 't>(&mut self, object: Value<'p, 't>) -> Option<Value<'p, 't>> {
        find(object, 0, &mut |at, key| self.step(at, key))
    }

    fn step(&mut self, at: usize, key: Key<'_, '_>) -> Step {
        let Some(id) = key.id() else { return step(&self.path, at, &key.name()) };
        let met = &mut self.met[id.number() as usize % Self::NUM_MET];
        match met {
            Some(met) if met.id == id && met.at == at => met.step,
            _ => met.insert(Met { id, at, step: step(&self.path, at, key.raw()) }).step,
        }
    }
}

fn find<'p, 't>(
    object: Value<'p, 't>,
    at: usize,
    step: &mut impl FnMut(usize, Key<'p, 't>) -> Step,
) -> Option<Value<'p, 't>> {
    let mut found = None;
    for (key, value) in object.members() {
        match step(at, key) {
            Step::Other => {}
            Step::Whole => found = Some(value),
            Step::Into(rest) => found = find(value, rest, step).or(found),
        }
    }
    found
}

fn step(path: &str, at: usize, name: &str) -> Step {
    let rest = &path[at..];
    match rest.strip_prefix(name) {
        Some("") => Step::Whole,
        Some(below) if below.starts_with('.') => Step::Into(at + name.len() + 1),
        _ => Step::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_common::json::Parser;

    fn check(text: &str, path: &str, expected: Option<&str>) {
        let mut parser = Parser::default();
        let document = parser.parse(text.as_bytes()).unwrap();
        assert_eq!(find_field(document, path).map(Value::raw), expected, "{text}");
        let mut path = FieldPath::new(path);
        for _ in 0..3 {
            let document = parser.parse(text.as_bytes()).unwrap();
            assert_eq!(path.find(document).map(Value::raw), expected, "{text}");
        }
    }

    #[test]
    fn a_field_is_found_dotted_nested_and_mixed() {
        check(r#"{"a":{"b":{"c":1}}}"#, "a.b.c", Some("1"));
        check(r#"{"a.b.c":1}"#, "a.b.c", Some("1"));
        check(r#"{"a":{"b.c":1}}"#, "a.b.c", Some("1"));
        check(r#"{"a.b":{"c":1}}"#, "a.b.c", Some("1"));
        check(r#"{"\u0061":{"b":1}}"#, "a.b", Some("1"));
    }

    #[test]
    fn a_name_met_at_one_place_is_another_elsewhere() {
        check(r#"{"b":1,"a":{"b":2,"a":3}}"#, "a.b", Some("2"));
        check(r#"{"a":{"a":{"a":3}}}"#, "a.a", Some(r#"{"a":3}"#));
        let (mut path, mut parser) = (FieldPath::new("a.b"), Parser::default());
        // More names than it remembers.
        for n in 0..500 {
            let text = format!(r#"{{"n{n}":1,"a":{{"n{n}":2,"b":{n}}}}}"#);
            let document = parser.parse(text.as_bytes()).unwrap();
            assert_eq!(path.find(document).map(Value::raw), Some(n.to_string().as_str()));
        }
    }

    #[test]
    fn of_several_the_last_is_taken() {
        check(r#"{"a.b":1,"a":{"b":2}}"#, "a.b", Some("2"));
        check(r#"{"a":{"b":2},"a.b":1,"a":{}}"#, "a.b", Some("1"));
    }

    #[test]
    fn a_longer_or_shorter_name_is_not_the_field() {
        check(r#"{"ab":1,"a":1,"a.bc":1}"#, "a.b", None);
        check(r#"{"a":[{"b":1}]}"#, "a.b", None);
    }
}
