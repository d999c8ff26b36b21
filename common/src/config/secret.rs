//! A value that must never be printed.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A password, key or token: given as a value, or as a file to be read when it is needed.
///
/// A field `name: Option<Secret>` takes the key `name` or its twin `name_file`. Debug, Display and Serialize print `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Given);

#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Given {
    Value(String),
    File { file: PathBuf },
}

/// Why a secret cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("cannot read the secret in `{}`; check that the file is there and readable", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        cause: std::io::Error,
    },
    #[error("the secret in `{}` is empty; write it into the file", path.display())]
    Empty { path: PathBuf },
}

impl Secret {
    /// A secret that was given as it is.
    pub fn from_value(value: impl Into<String>) -> Self {
        Self(Given::Value(value.into()))
    }

    /// A secret that stands in a file.
    pub fn from_file(path: impl Into<PathBuf>) -> Self {
        Self(Given::File { file: path.into() })
    }

    /// The file the secret stands in, if it does.
    pub fn file(&self) -> Option<&Path> {
        match &self.0 {
            Given::Value(_) => None,
            Given::File { file } => Some(file),
        }
    }

    /// The secret itself, read anew if it stands in a file, so that a rotated one is picked up. Line ends after it are dropped.
    ///
    /// # Errors
    /// The file cannot be read, or is empty.
    pub fn read(&self) -> Result<String, SecretError> {
        let path = match &self.0 {
            Given::Value(value) => return Ok(value.clone()),
            Given::File { file } => file,
        };
        let mut text =
            std::fs::read_to_string(path).map_err(|cause| SecretError::Unreadable { path: path.clone(), cause })?;
        text.truncate(text.trim_end_matches(['\r', '\n']).len());
        if text.is_empty() {
            return Err(SecretError::Empty { path: path.clone() });
        }
        Ok(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Given::deserialize(deserializer).map(Self)
    }
}

/// An address for messages: a login in it, as in `https://user:password@host`, is left out.
pub fn without_login(address: &str) -> Cow<'_, str> {
    let Some((login, host)) = address.rsplit_once('@') else { return address.into() };
    let scheme = login.split_once("://").map_or(String::new(), |(scheme, _)| format!("{scheme}://"));
    format!("{scheme}***@{host}").into()
}

/// The schema format that marks a secret; [`super::schema`] adds the `_file` twin of each key that has it.
pub(super) const FORMAT: &str = "secret";

impl JsonSchema for Secret {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": FORMAT, "writeOnly": true})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        for secret in [Secret::from_value("hunter2"), Secret::from_file("/hunter2")] {
            let printed =
                format!("{secret} {secret:?} {:#?} {}", Some(&secret), serde_json::to_string(&secret).unwrap());
            assert!(!printed.contains("hunter2"), "{printed}");
        }
    }

    #[test]
    fn a_login_in_an_address_is_left_out() {
        for (address, expected) in [
            ("https://es:9200", "https://es:9200"),
            ("https://user:p@ss@es:9200", "https://***@es:9200"),
            ("user:pass@es", "***@es"),
        ] {
            assert_eq!(without_login(address), expected);
        }
    }

    #[test]
    fn a_secret_file_is_read_each_time_without_its_line_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let secret = Secret::from_file(&path);
        assert!(matches!(secret.read(), Err(SecretError::Unreadable { .. })));
        std::fs::write(&path, "one\n").unwrap();
        assert_eq!(secret.read().unwrap(), "one");
        std::fs::write(&path, "two\r\n").unwrap();
        assert_eq!(secret.read().unwrap(), "two");
        std::fs::write(&path, "\n").unwrap();
        assert!(matches!(secret.read(), Err(SecretError::Empty { .. })));
    }
}
