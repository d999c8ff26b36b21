//! `${VAR}`, `${VAR:-default}` and `${VAR:?message}` in values; `$$` is one `$`.

/// Looks up an environment variable.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What is wrong with a reference, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ExpandError {
    pub what: String,
    pub remedy: String,
}

impl ExpandError {
    fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }
}

/// Replaces the references in `text`; a `$` that starts none stays, as regular expressions need.
///
/// A default applies to a variable that is unset or empty, as in the shell.
pub(super) fn expand(text: &str, env: Environment<'_>) -> Result<String, ExpandError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let end = closing(after).ok_or_else(|| {
                ExpandError::new("`${` has no closing `}`", "close it, or write `$${` for the characters themselves")
            })?;
            out.push_str(&resolve(&after[..end], env)?);
            rest = &after[end + 1..];
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// Whether [`expand`] would change `text`.
pub(super) fn has_reference(text: &str) -> bool {
    text.contains("${") || text.contains("$$")
}

fn closing(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut previous = '\0';
    for (at, c) in text.char_indices() {
        match c {
            '{' if previous == '$' => depth += 1,
            '}' if depth == 0 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
        previous = c;
    }
    None
}

fn resolve(reference: &str, env: Environment<'_>) -> Result<String, ExpandError> {
    let (name, rest) = match reference.find(':') {
        Some(at) => (&reference[..at], Some(&reference[at + 1..])),
        None => (reference, None),
    };
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(legal) {
        return Err(ExpandError::new(
            format!("`${{{reference}}}` does not name an environment variable"),
            "use letters, digits and `_`, or write `$${` for the characters themselves",
        ));
    }
    let value = env(name);
    match rest {
        None => value.ok_or_else(|| {
            ExpandError::new(
                format!("the environment variable `{name}` is not set"),
                format!("set it, or give a default: `${{{name}:-…}}`"),
            )
        }),
        Some(rest) => {
            let value = value.filter(|value| !value.is_empty());
            if let Some(default) = rest.strip_prefix('-') {
                value.map_or_else(|| expand(default, env), Ok)
            } else if let Some(message) = rest.strip_prefix('?') {
                let why = if message.is_empty() { "it is required" } else { message };
                value.ok_or_else(|| {
                    ExpandError::new(format!("the environment variable `{name}` is not set: {why}"), "set it")
                })
            } else {
                Err(ExpandError::new(
                    format!("`${{{reference}}}` has an unknown form"),
                    "use `${VAR}`, `${VAR:-default}` or `${VAR:?message}`",
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("web-1".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    fn check(text: &str, expected: &str) {
        assert_eq!(expand(text, &env).as_deref(), Ok(expected), "{text}");
    }

    #[test]
    fn references_take_the_value_the_default_or_nothing() {
        check("${HOST}", "web-1");
        check("a-${HOST}-b-${HOST}", "a-web-1-b-web-1");
        check("${NONE:-dev}", "dev");
        check("${EMPTY:-dev}", "dev");
        check("${HOST:-dev}", "web-1");
        check("${NONE:-}", "");
        check("${NONE:-${HOST}}", "web-1");
        check("${EMPTY}", "");
        check("${HOST:?needed}", "web-1");
    }

    #[test]
    fn other_dollars_stay_and_doubled_ones_escape() {
        check(r"^\d{4}$", r"^\d{4}$");
        check("$HOST", "$HOST");
        check("$${HOST}", "${HOST}");
        check("cost: 5$", "cost: 5$");
    }

    #[test]
    fn what_cannot_be_resolved_is_named() {
        for (text, what) in [
            ("${NONE}", "the environment variable `NONE` is not set"),
            ("${NONE:?the pod sets it}", "the environment variable `NONE` is not set: the pod sets it"),
            ("${EMPTY:?the pod sets it}", "the environment variable `EMPTY` is not set: the pod sets it"),
            ("${HOST", "`${` has no closing `}`"),
            ("${HOST:+x}", "`${HOST:+x}` has an unknown form"),
            ("${1}", "`${1}` does not name an environment variable"),
        ] {
            assert_eq!(expand(text, &env).map_err(|error| error.what), Err(what.to_owned()));
        }
    }
}
