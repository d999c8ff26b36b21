//! What values become in the record. Pure.

use millrace_common::json::write_string;
use schemars::JsonSchema;
use serde::Deserialize;

/// What a value of the line becomes. One that does not fit stays a string.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FieldType {
    #[default]
    String,
    /// A whole number, with its digits as written.
    Integer,
    /// Any number, with its digits as written.
    Float,
    /// `true` or `false`.
    Boolean,
}

impl FieldType {
    /// Appends `text` as a JSON value.
    pub fn write(self, out: &mut Vec<u8>, text: &str) {
        let fits = match self {
            Self::String => false,
            Self::Integer => number_length(text) == Some(text.len()) && !text.contains(['.', 'e', 'E']),
            Self::Float => number_length(text) == Some(text.len()),
            Self::Boolean => matches!(text, "true" | "false"),
        };
        if fits { out.extend_from_slice(text.as_bytes()) } else { write_string(out, text) }
    }
}

/// Bytes of the number that `text` begins with, by the grammar of JSON (RFC 8259): no plus sign, no leading zeros.
fn number_length(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let digits_from = |at: usize| bytes[at..].iter().take_while(|b| b.is_ascii_digit()).count();
    let mut at = usize::from(bytes.first() == Some(&b'-'));
    let num_whole = digits_from(at);
    if num_whole == 0 || (num_whole > 1 && bytes[at] == b'0') {
        return None;
    }
    at += num_whole;
    if bytes.get(at) == Some(&b'.') {
        match digits_from(at + 1) {
            0 => return None,
            num_digits => at += 1 + num_digits,
        }
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        match digits_from((at + 1 + sign).min(bytes.len())) {
            0 => return None,
            num_digits => at += 1 + sign + num_digits,
        }
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_common::json::{Kind, Parser};
    use proptest::prelude::*;

    fn write(kind: FieldType, text: &str) -> String {
        let mut out = Vec::new();
        kind.write(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_fits_its_type_keeps_its_digits_and_what_does_not_stays_a_string() {
        for (kind, text, expected) in [
            (FieldType::Integer, "9223372036854775808", "9223372036854775808"),
            (FieldType::Integer, "-0", "-0"),
            (FieldType::Integer, "1.0", r#""1.0""#),
            (FieldType::Integer, "1e3", r#""1e3""#),
            (FieldType::Integer, "007", r#""007""#),
            (FieldType::Integer, "+5", r#""+5""#),
            (FieldType::Integer, "-", r#""-""#),
            (FieldType::Integer, "", r#""""#),
            (FieldType::Float, "0.10", "0.10"),
            (FieldType::Float, "1E-3", "1E-3"),
            (FieldType::Float, "1.", r#""1.""#),
            (FieldType::Float, "1e", r#""1e""#),
            (FieldType::Float, "NaN", r#""NaN""#),
            (FieldType::Boolean, "true", "true"),
            (FieldType::Boolean, "yes", r#""yes""#),
            (FieldType::String, "5", r#""5""#),
        ] {
            assert_eq!(write(kind, text), expected, "{kind:?} {text}");
        }
    }

    proptest! {
        #[test]
        fn a_number_is_what_json_calls_one(text in "-?[0-9.eE+-]{0,8}") {
            let is_number = Parser::default().parse(text.as_bytes()).is_ok_and(|value| value.kind() == Kind::Number);
            prop_assert_eq!(write(FieldType::Float, &text) == text, is_number);
        }
    }
}
