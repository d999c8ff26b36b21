//! Finding a field that may be written dotted, nested, or both.

use millrace_common::json::{ByShape, Value};

/// Returns the value at the dotted `path`, whether the document writes it as `{"a":{"b":…}}`, `{"a.b":…}` or mixed.
/// Of several the last in the text, as Elasticsearch keeps the last of duplicates.
pub fn find_field<'p, 't>(object: Value<'p, 't>, path: &str) -> Option<Value<'p, 't>> {
    let mut found = None;
    for (key, value) in object.members() {
        let name = key.name();
        match path.strip_prefix(&*name) {
            Some("") => found = Some(value),
            Some(below) => found = below.strip_prefix('.').and_then(|rest| find_field(value, rest)).or(found),
            None => {}
        }
    }
    found
}

/// A dotted path that is looked for in many documents: it knows where it stood in those of the same shapes.
#[derive(Clone, Debug)]
pub struct FieldPath {
    path: Box<str>,
    /// The number of the value, if there is one.
    met: ByShape<Option<u32>>,
}

impl FieldPath {
    pub fn new(path: &str) -> Self {
        Self { path: path.into(), met: ByShape::default() }
    }

    /// As [`find_field`].
    pub fn find<'p, 't>(&mut self, document: Value<'p, 't>) -> Option<Value<'p, 't>> {
        if let Some(number) = document.shape().and_then(|shape| self.met.get(shape)) {
            return number.map(|number| document.numbered(number));
        }
        let found = find_field(document, &self.path);
        if let Some(shape) = document.shape() {
            self.met.insert(shape, found.map(Value::number));
        }
        found
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
    fn a_path_stands_elsewhere_in_another_shape() {
        check(r#"{"b":1,"a":{"b":2,"a":3}}"#, "a.b", Some("2"));
        check(r#"{"a":{"a":{"a":3}}}"#, "a.a", Some(r#"{"a":3}"#));
        let (mut path, mut parser) = (FieldPath::new("a.b"), Parser::default());
        // More shapes than it remembers.
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
