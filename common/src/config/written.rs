//! Settings as they were written, to tell two configurations apart.

use std::fmt;

use serde_json::Value;

/// What file, flags and environment say together, secrets among them: it is compared, and never printed.
#[derive(Clone, Default, PartialEq)]
pub struct Written(Value);

impl Written {
    pub(super) fn new(settings: Value) -> Self {
        Self(settings)
    }

    /// The names of the settings that `other` has otherwise, such as `kafka.topic` or `inputs[0].paths`.
    pub fn changes(&self, other: &Self) -> Vec<String> {
        let mut names = Vec::new();
        compare("", &self.0, &other.0, &mut names);
        names
    }
}

fn compare(path: &str, before: &Value, after: &Value, names: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            let new = after.keys().filter(|key| !before.contains_key(*key));
            for key in before.keys().chain(new) {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let of = |object: &serde_json::Map<String, Value>| object.get(key).cloned().unwrap_or_default();
                compare(&path, &of(before), &of(after), names);
            }
        }
        (Value::Array(before), Value::Array(after))
            if before.len() == after.len() && before.iter().chain(after).any(Value::is_object) =>
        {
            for (index, (before, after)) in before.iter().zip(after).enumerate() {
                compare(&format!("{path}[{index}]"), before, after, names);
            }
        }
        _ if before != after => names.push(path.to_owned()),
        _ => {}
    }
}

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(before: Value, after: Value, expected: &[&str]) {
        assert_eq!(Written(before).changes(&Written(after)), expected);
    }

    #[test]
    fn changed_settings_are_told_by_name() {
        let base = json!({"inputs": [{"id": "a", "paths": ["/a", "/b"]}], "kafka": {"topic": "logs"}});
        check(base.clone(), base.clone(), &[]);
        let after = json!({"inputs": [{"id": "a", "paths": ["/a"]}], "kafka": {"topic": "other"}, "ledger": "off"});
        check(base.clone(), after.clone(), &["inputs[0].paths", "kafka.topic", "ledger"]);
        check(after, base.clone(), &["inputs[0].paths", "kafka.topic", "ledger"]);
        let two = json!({"inputs": [{"id": "a"}, {"id": "b"}], "kafka": {"topic": "logs"}});
        check(base, two, &["inputs"]);
    }

    #[test]
    fn a_changed_secret_is_named_and_not_shown() {
        let (before, after) = (Written(json!({"password": "one"})), Written(json!({"password": {"file": "/two"}})));
        assert_eq!(before.changes(&after), ["password"]);
        assert_eq!(format!("{before:?}"), "***");
    }
}
