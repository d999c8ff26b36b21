//! Configuration: YAML and flags in, a checked value or every fault with its place out.
//!
//! ```text
//! text -> tree with positions -> ${VAR} -> flags laid over -> checked against the JSON Schema of the type -> value
//! ```
//! The schema is generated from the type, so that what is documented, what an editor offers and what is accepted are one thing.
//! Nothing here opens a file: programs hand in the text, and secrets are read from their files later, by who uses them.

mod expand;
mod faults;
mod units;
mod secret;
mod tree;
mod flags;
mod suggest;
mod schema;
mod reference;
mod check;
mod written;

#[cfg(test)]
mod tests;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

pub use expand::Environment;
pub use faults::{Fault, FaultAt, Faults};
pub use flags::Setting;
pub use reference::describe;
pub use schema::schema;
pub use secret::{Secret, SecretError, without_login};
pub use suggest::nearest;
pub use units::{ByteSize, HumanDuration, Percent, UnitError};
pub use written::Written;

/// What could be made of a configuration, and what is wrong with it.
///
/// The value is there in spite of faults if those can be stepped over: an unknown key is dropped (or taken as the one that was
/// meant), a bad optional value gives way to its default. A program adds the faults that only it can see and calls [`Faults::finish`].
#[derive(Debug)]
pub struct Draft<T> {
    pub value: Option<T>,
    pub faults: Faults,
    /// Nothing, without a value.
    pub written: Written,
}

/// Reads a configuration, without flags and without checks beyond those of its type.
///
/// # Errors
/// Every fault, each with its place in the file `name`.
pub fn load<T: DeserializeOwned + JsonSchema>(name: &str, text: &str, env: Environment<'_>) -> Result<T, Faults> {
    let Draft { value, faults, .. } = draft(name, text, &[], env);
    faults.finish(value)
}

/// Reads a configuration: `text` is the YAML (empty without a file), `settings` come from flags and win over it.
pub fn draft<T: DeserializeOwned + JsonSchema>(
    name: &str,
    text: &str,
    settings: &[Setting],
    env: Environment<'_>,
) -> Draft<T> {
    let mut faults = Faults::new(name);
    let Some(mut root) = tree::parse(text, &mut faults) else {
        return Draft { value: None, faults, written: Written::default() };
    };
    tree::settle(&mut root, "", env, &mut faults);
    for setting in settings {
        setting.lay_over(&mut root, &mut faults);
    }
    let schema = schema::<T>();
    let mut checker = check::Checker { schemas: schema::Schemas { root: &schema }, faults: &mut faults };
    let Some(json) = checker.check(&root, &schema, "") else {
        return Draft { value: None, faults, written: Written::default() };
    };
    let written = Written::new(json.clone());
    match serde_path_to_error::deserialize::<_, T>(json) {
        Ok(value) => Draft { value: Some(value), faults, written },
        Err(error) => {
            let path = error.path().to_string().replace('?', "");
            let path = path.trim_start_matches('.');
            // What the checker has already told comes out here a second time, as a value that is missing.
            if faults.is_empty() || (!path.is_empty() && !faults.touches(path)) {
                let what = error.into_inner().to_string();
                faults.at(path).add(what, "");
            }
            Draft { value: None, faults, written: Written::default() }
        }
    }
}
