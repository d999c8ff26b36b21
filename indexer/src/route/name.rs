//! Legal index names.

/// Elasticsearch's limit.
pub const MAX_NAME_BYTES: usize = 255;

/// Whether a character may stand inside an index name.
pub fn is_legal(c: char) -> bool {
    !c.is_control() && !c.is_whitespace() && !c.is_uppercase() && !r#"\/*?"<>|,#:"#.contains(c)
}

/// Whether an index name may begin with a character. A leading dot is for system indices.
pub fn may_begin(c: char) -> bool {
    is_legal(c) && !"-_+.".contains(c)
}

/// Appends `value` lower-cased, illegal characters replaced by `_`, cut at a character to at most `max` bytes.
pub fn append_legal(name: &mut String, value: &str, max: usize) {
    let start = name.len();
    for c in value.chars().flat_map(char::to_lowercase) {
        let c = if if name.is_empty() { may_begin(c) } else { is_legal(c) } { c } else { '_' };
        // `_` is as little a beginning as what it replaces.
        let c = if name.is_empty() && c == '_' { 'x' } else { c };
        if name.len() - start + c.len_utf8() > max {
            return;
        }
        name.push(c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(value: &str, max: usize, expected: &str) {
        let mut name = String::new();
        append_legal(&mut name, value, max);
        assert_eq!(name, expected);
    }

    #[test]
    fn names_are_made_legal() {
        check("Checkout API", 100, "checkout_api");
        check("a/b*c?", 100, "a_b_c_");
        check("_x", 100, "xx");
        check("..", 100, "x.");
        check("grün", 3, "gr");
        check("İ", 100, "i\u{307}");
    }

    proptest! {
        #[test]
        fn any_value_gives_a_legal_name(value: String, max in 0..300usize) {
            let mut name = String::new();
            append_legal(&mut name, &value, max);
            prop_assert!(name.len() <= max);
            prop_assert!(name.chars().all(is_legal) || name.is_empty());
            prop_assert!(name.chars().next().is_none_or(may_begin));
        }
    }
}
