//! As much of JSON Schema as the schema of the Compose Specification uses. A keyword beyond that is an error, so that nothing is
//! passed over.

use std::collections::HashSet;

use anyhow::{Context, Result, bail, ensure};
use regex::Regex;
use serde_json::{Map, Value};

/// Keywords that allow and forbid nothing.
const REMARKS: [&str; 7] = ["$schema", "$id", "$defs", "title", "description", "default", "deprecated"];

/// Fails with the place of what `schema`, a part of `root`, does not allow.
pub fn check(root: &Value, schema: &Value, value: &Value, at: &str) -> Result<()> {
    let rules = match schema {
        Value::Bool(true) => return Ok(()),
        Value::Object(rules) => rules,
        _ => bail!("`{at}` must not be there"),
    };
    for (keyword, rule) in rules {
        match keyword.as_str() {
            "$ref" => {
                let pointer = rule.as_str().and_then(|text| text.strip_prefix('#')).context("a reference elsewhere")?;
                let target = root.pointer(pointer).with_context(|| format!("no {pointer}"))?;
                check(root, target, value, at)?;
            }
            "type" => {
                let is_allowed = match rule {
                    Value::Array(types) => types.iter().any(|one| is_of(one, value)),
                    one => is_of(one, value),
                };
                ensure!(is_allowed, "`{at}` is {value}, allowed is {rule}");
            }
            "enum" => {
                ensure!(rule.as_array().is_some_and(|all| all.contains(value)), "`{at}` is {value}, not one of {rule}")
            }
            "oneOf" => {
                let all = rule.as_array().context("no list")?;
                let outcomes: Vec<_> = all.iter().map(|one| check(root, one, value, at)).collect();
                let num_fit = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
                let why =
                    || outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).map(|error| format!("{error:#}"));
                ensure!(
                    num_fit == 1,
                    "`{at}` fits {num_fit} of {}: {}",
                    all.len(),
                    why().collect::<Vec<_>>().join("; ")
                );
            }
            "properties" | "patternProperties" | "additionalProperties" | "required" => {}
            "items" => {
                for (number, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, rule, item, &format!("{at}[{number}]"))?;
                }
            }
            "uniqueItems" => {
                let mut seen = HashSet::new();
                let twice = value.as_array().into_iter().flatten().find(|item| !seen.insert(item.to_string()));
                ensure!(twice.is_none(), "`{at}` has {twice:?} twice");
            }
            "pattern" => {
                let fits =
                    |text: &str| Ok::<_, anyhow::Error>(Regex::new(rule.as_str().context("no text")?)?.is_match(text));
                ensure!(value.as_str().map_or(Ok(true), fits)?, "`{at}` is {value}, not {rule}");
            }
            "minimum" | "maximum" => {
                let (value, bound) = (value.as_f64(), rule.as_f64().context("no number")?);
                let fits = value.is_none_or(|value| if keyword == "minimum" { value >= bound } else { value <= bound });
                ensure!(fits, "`{at}` is {value:?}, the {keyword} is {bound}");
            }
            keyword if REMARKS.contains(&keyword) => {}
            keyword => bail!("the keyword `{keyword}` of the schema is not understood here"),
        }
    }
    value.as_object().map_or(Ok(()), |object| check_object(root, rules, object, at))
}

fn check_object(root: &Value, rules: &Map<String, Value>, object: &Map<String, Value>, at: &str) -> Result<()> {
    for name in rules.get("required").and_then(Value::as_array).into_iter().flatten() {
        ensure!(object.contains_key(name.as_str().context("no text")?), "`{at}` lacks {name}");
    }
    for (name, value) in object {
        let at = format!("{at}.{name}");
        let mut is_known = false;
        if let Some(rule) = rules.get("properties").and_then(|properties| properties.get(name)) {
            is_known = true;
            check(root, rule, value, &at)?;
        }
        for (pattern, rule) in rules.get("patternProperties").and_then(Value::as_object).into_iter().flatten() {
            if Regex::new(pattern)?.is_match(name) {
                is_known = true;
                check(root, rule, value, &at)?;
            }
        }
        if let Some(rule) = rules.get("additionalProperties").filter(|_| !is_known) {
            check(root, rule, value, &at)?;
        }
    }
    Ok(())
}

fn is_of(name: &Value, value: &Value) -> bool {
    match name.as_str() {
        Some("null") => value.is_null(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("string") => value.is_string(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        _ => false,
    }
}
