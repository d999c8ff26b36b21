//! Finding a field that may be written dotted, nested, or both.

use millrace_common::json::Value;

/// Returns the value at the dotted `path`, whether the document writes it as `{"a":{"b":…}}`, `{"a.b":…}` or mixed.
/// Of several the last in the text, as Elasticsearch keeps the last of duplicates.
pub fn find_field<'p, 't>(object: Value<'p, 't>, path: &str) -> Option<Value<'p, 't>> {
    let mut found = None;
    for (key, value) in object.members() {
        let name = key.name();
        // Most names are settled by their length.
        if !matches!(path.as_bytes().get(name.len()), None | Some(b'.')) {
            continue;
        }
        let Some(rest) = path.strip_prefix(&*name) else { continue };
        if rest.is_empty() {
            found = Some(value);
        } else if let Some(rest) = rest.strip_prefix('.') {
            found = find_field(value, rest).or(found);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_common::json::Parser;

    fn check(text: &str, path: &str, expected: Option<&str>) {
        let mut parser = Parser::default();
        let document = parser.parse(text.as_bytes()).unwrap();
        assert_eq!(find_field(document, path).map(Value::raw), expected, "{text}");
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
