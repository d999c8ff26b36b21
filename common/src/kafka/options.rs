//! `kafka.options`: librdkafka's own names, as the operator wrote them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};

use super::names::NAMES;
use super::oauth::TOKEN_FILE;

/// Options by librdkafka's names. Debug and Serialize print `***` for passwords and keys.
///
/// `NAME_file` names a file that holds the value, for the options that are secrets (`sasl.password_file`).
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Options(BTreeMap<String, String>);

impl Options {
    /// The options in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value of an option, if it is set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Sets one option.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.insert(name.into(), value.into());
    }

    /// The files that hold values of options: certificates, keys, secrets. Not a token, which clients read anew by themselves.
    pub fn files(&self) -> impl Iterator<Item = PathBuf> {
        let is_file = |name: &str| name.ends_with(".location") || name.ends_with(FILE) && name != TOKEN_FILE;
        let named = self.iter().filter(move |(name, _)| is_file(name));
        named.map(|(_, path)| PathBuf::from(path))
    }

    fn printable(&self) -> impl Iterator<Item = (&str, &str)> {
        self.iter().map(|(name, value)| (name, if is_secret(name) { "***" } else { value }))
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Options {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(options: I) -> Self {
        Self(options.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.printable()).finish()
    }
}

impl Serialize for Options {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.printable())
    }
}

impl JsonSchema for Options {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "KafkaOptions".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "additionalProperties": {"type": ["string", "integer", "number", "boolean"], "format": "as-written"},
        })
    }
}

/// Whether the value of the option must not be printed.
pub(super) fn is_secret(name: &str) -> bool {
    let name = name.strip_suffix(FILE).unwrap_or(name);
    name == "sasl.oauthbearer.token"
        || name.ends_with("password")
        || name.ends_with("secret")
        || name == "ssl.key.pem"
        || name == "sasl.oauthbearer.config"
}

/// Ends the twin of a secret option that names a file.
pub(super) const FILE: &str = "_file";

/// The name an option goes by in librdkafka, aliases resolved.
pub(super) fn canonical(name: &str) -> &str {
    match NAMES.binary_search_by_key(&name, |(known, _, _)| known) {
        Ok(index) if !NAMES[index].2.is_empty() => NAMES[index].2,
        _ => name,
    }
}
