//! The marked tree against the JSON Schema of the type: every fault with its place, and what is sound as a JSON value.

use serde_json::{Map, Number, Value};

use super::faults::{Faults, Origin};
use super::schema::{FILE_OF, Kind, Schemas, choices, is_secret, kinds};
use super::suggest::nearest;
use super::tree::{Content, Entry, Node, Scalar, join};
use super::units;

/// Checks a tree; faults go to `faults`.
pub(super) struct Checker<'a> {
    pub schemas: Schemas<'a>,
    pub faults: &'a mut Faults,
}

impl Checker<'_> {
    /// The value of `node` as the schema types it, or `None` if it has a fault of its own.
    pub fn check(&mut self, node: &Node, schema: &Value, path: &str) -> Option<Value> {
        let schema = self.schemas.resolve(schema);
        if matches!(node.content, Content::Broken) {
            return None;
        }
        if node.is_null() && self.schemas.is_nullable(schema) {
            return Some(Value::Null);
        }
        if let Some(choices) = choices(&self.schemas, schema) {
            return self.check_choice(node, &choices, path);
        }
        if let Some(alternatives) = self.schemas.alternatives(schema) {
            return self.check_alternatives(node, &alternatives, path);
        }
        let kinds = kinds(schema);
        match &node.content {
            Content::Map(entries) if kinds.allows(Kind::Map) => self.check_map(node, entries, schema, path),
            Content::List(items) if kinds.allows(Kind::List) => self.check_list(node, items, schema, path),
            Content::Scalar(scalar) if scalar.is_null() && kinds.only(Kind::Map) => {
                // A section whose keys are all commented out.
                self.check_map(node, &[], schema, path)
            }
            Content::Scalar(scalar) if kinds.allows_scalar() => self.check_scalar(node, scalar, schema, path),
            _ => {
                let remedy = match (kinds.wanted(), &node.content) {
                    ("a list", Content::Scalar(scalar)) if !scalar.is_null() && !is_secret(schema) => {
                        format!("write `[{}]`", scalar.text)
                    }
                    _ => String::new(),
                };
                self.fault(node, path, format!("is {}, but must be {}", node.kind(), kinds.wanted()), remedy)
            }
        }
    }

    fn fault(&mut self, node: &Node, path: &str, what: impl Into<String>, remedy: impl Into<String>) -> Option<Value> {
        self.faults.push(&node.origin, path, what, remedy);
        None
    }

    fn check_choice(&mut self, node: &Node, choices: &[&str], path: &str) -> Option<Value> {
        let Content::Scalar(scalar) = &node.content else {
            return self.fault(node, path, format!("is {}, but must be a word", node.kind()), one_of(choices));
        };
        if choices.contains(&scalar.text.as_str()) {
            return Some(Value::String(scalar.text.clone()));
        }
        let remedy = match nearest(&scalar.text, choices.iter().copied()) {
            Some(near) => format!("did you mean `{near}`? {}", one_of(choices)),
            None => one_of(choices),
        };
        self.fault(node, path, format!("{} is not known here", quoted(scalar)), remedy)
    }

    /// Takes the first alternative without a fault; else the faults of the one that was most probably meant.
    fn check_alternatives(&mut self, node: &Node, alternatives: &[&Value], path: &str) -> Option<Value> {
        let mut best: Option<(usize, Faults)> = None;
        let mut alternatives = alternatives.to_vec();
        if matches!(&node.content, Content::Scalar(scalar) if scalar.filled) {
            alternatives.sort_by_key(|schema| !kinds(self.schemas.resolve(schema)).allows(Kind::Text));
        }
        for schema in alternatives {
            let mut faults = Faults::default();
            let value = Checker { schemas: self.schemas, faults: &mut faults }.check(node, schema, path);
            if faults.is_empty() {
                return value;
            }
            let distance = self.distance(node, self.schemas.resolve(schema), &faults);
            if best.as_ref().is_none_or(|(least, _)| distance < *least) {
                best = Some((distance, faults));
            }
        }
        if let Some((_, faults)) = best {
            self.faults.absorb(faults);
        }
        None
    }

    /// How far `node` is from a schema it does not fit: another kind of value or another tag is further than any number of faults.
    fn distance(&self, node: &Node, schema: &Value, faults: &Faults) -> usize {
        let fits = match &node.content {
            Content::Map(entries) => {
                kinds(schema).allows(Kind::Map)
                    && self.schemas.required(schema).all(|name| {
                        let Some(entry) = entries.iter().find(|entry| entry.key == name) else {
                            return false;
                        };
                        let property = self.schemas.resolve(&schema["properties"][name]);
                        match (choices(&self.schemas, property), &entry.value.content) {
                            (Some(choices), Content::Scalar(scalar)) => choices.contains(&scalar.text.as_str()),
                            _ => true,
                        }
                    })
            }
            Content::List(_) => kinds(schema).allows(Kind::List),
            Content::Scalar(_) | Content::Broken => kinds(schema).allows_scalar(),
        };
        faults.iter().count() + if fits { 0 } else { 1_000 }
    }

    fn check_list(&mut self, node: &Node, items: &[Node], schema: &Value, path: &str) -> Option<Value> {
        let least = schema["minItems"].as_u64().unwrap_or(0);
        if (items.len() as u64) < least {
            return self.fault(node, path, format!("has {} entries, but needs {least}", items.len()), "");
        }
        let item = schema.get("items").unwrap_or(&Value::Null);
        let values: Vec<Value> = items
            .iter()
            .enumerate()
            .filter_map(|(index, node)| self.check(node, item, &format!("{path}[{index}]")))
            .collect();
        // A list with an entry left out would shift the places of all others.
        (values.len() == items.len()).then_some(Value::Array(values))
    }

    fn check_map(&mut self, node: &Node, entries: &[Entry], schema: &Value, path: &str) -> Option<Value> {
        let properties = self.schemas.properties(schema);
        let rest = self.schemas.additional(schema);
        let mut out = Map::new();
        for entry in entries {
            let below = join(path, &entry.key);
            let known = properties.iter().find(|(name, _)| *name == entry.key);
            match (known, rest) {
                (Some((name, property)), _) => self.check_property(entry, name, property, &below, &mut out),
                (None, Some(rest)) => {
                    if let Some(value) = self.check(&entry.value, rest, &below) {
                        out.insert(entry.key.clone(), value);
                    }
                }
                (None, None) => {
                    let names = properties.iter().map(|(name, _)| *name);
                    let absent = |name: &&str| !entries.iter().any(|entry| entry.key == **name);
                    let near = nearest(&entry.key, names.clone().filter(absent))
                        .or_else(|| nearest(&entry.key, names.clone()));
                    let remedy = match near {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => format!("known here: {}", names.collect::<Vec<_>>().join(", ")),
                    };
                    self.faults.push(&entry.origin, &below, "unknown key", remedy);
                    // Judged as the key that was meant, so that the rest of the faults can be told as well.
                    if let Some((name, property)) =
                        properties.iter().find(|(name, _)| Some(*name) == near && absent(name))
                    {
                        self.check_property(entry, name, property, &below, &mut out);
                    }
                }
            }
        }
        self.check_required(node, schema, path, &out);
        Some(Value::Object(out))
    }

    fn check_property(&mut self, entry: &Entry, name: &str, schema: &Value, path: &str, out: &mut Map<String, Value>) {
        let value = self.check(&entry.value, schema, path);
        let target = schema.get(FILE_OF).and_then(Value::as_str);
        if target.is_some_and(|target| out.contains_key(target))
            || (target.is_none() && out.get(name).is_some_and(Value::is_object) && is_secret(schema))
        {
            let twin = target.map_or_else(|| format!("{name}_file"), str::to_owned);
            self.faults.push(&entry.origin, path, format!("given beside `{twin}`"), "keep one of the two");
            return;
        }
        match (value, target) {
            (Some(Value::Null), Some(_)) => {}
            (Some(value), Some(target)) => {
                out.insert(target.to_owned(), serde_json::json!({ "file": value }));
            }
            (Some(value), None) => {
                out.insert(name.to_owned(), value);
            }
            // Absent from the output, so that it counts neither as missing nor as given.
            (None, _) => {}
        }
    }

    fn check_required(&mut self, node: &Node, schema: &Value, path: &str, out: &Map<String, Value>) {
        let required: Vec<&str> = self.schemas.required(schema).collect();
        for name in required {
            let below = join(path, name);
            if out.contains_key(name) || self.faults.touches(&below) {
                continue;
            }
            let about = self.schemas.about(schema, name);
            let hint = about.map_or_else(String::new, |about| format!(" ({about})"));
            let twin =
                if self.schemas.has_file_twin(schema, name) { format!(" or `{name}_file`") } else { String::new() };
            self.faults.push(&node.origin, &below, "missing", format!("add the key `{name}`{twin}{hint}"));
        }
    }

    fn check_scalar(&mut self, node: &Node, scalar: &Scalar, schema: &Value, path: &str) -> Option<Value> {
        let kinds = kinds(schema);
        if scalar.is_null() {
            return self.fault(node, path, "has no value", "write one, or remove the key");
        }
        if let Some(result) = schema["format"].as_str().and_then(|format| units::check_format(format, &scalar.text)) {
            return match result {
                Ok(()) => Some(Value::String(scalar.text.clone())),
                Err(error) => self.fault(node, path, error.what, error.remedy),
            };
        }
        if scalar.plain || (scalar.filled && !kinds.allows(Kind::Text)) {
            if kinds.allows(Kind::Boolean)
                && let Ok(value) = scalar.text.parse()
            {
                return Some(Value::Bool(value));
            }
            if kinds.allows(Kind::Integer)
                && let Some(number) = integer(&scalar.text)
            {
                return self.in_range(node, number, schema, path);
            }
            if kinds.allows(Kind::Number)
                && let Some(number) = decimal(&scalar.text)
            {
                return Some(Value::Number(number));
            }
        }
        if kinds.allows(Kind::Text) {
            return Some(Value::String(scalar.text.clone()));
        }
        let shown = if is_secret(schema) { "the value".to_owned() } else { quoted(scalar) };
        let remedy = match kinds.wanted() {
            "true or false" if matches!(scalar.text.to_lowercase().as_str(), "yes" | "on") => "write true",
            "true or false" if matches!(scalar.text.to_lowercase().as_str(), "no" | "off") => "write false",
            _ if !scalar.plain && !scalar.filled => "remove the quotes if it is one",
            _ => "",
        };
        self.fault(node, path, format!("{shown} is not {}", kinds.wanted()), remedy)
    }

    fn in_range(&mut self, node: &Node, number: Number, schema: &Value, path: &str) -> Option<Value> {
        let value = number.as_i128()?;
        let least = schema["minimum"].as_i64().map(i128::from);
        let most = schema["maximum"].as_u64().map(i128::from);
        if least.is_some_and(|least| value < least) || most.is_some_and(|most| value > most) {
            let remedy = match (least, most) {
                (Some(least), Some(most)) => format!("write a number from {least} to {most}"),
                (Some(least), None) => format!("write a number from {least}"),
                (None, Some(most)) => format!("write a number up to {most}"),
                (None, None) => String::new(),
            };
            return self.fault(node, path, format!("`{value}` is out of range"), remedy);
        }
        Some(Value::Number(number))
    }
}

impl Faults {
    fn absorb(&mut self, other: Faults) {
        for fault in other.iter() {
            let origin = match fault.position() {
                Some((line, column)) => Origin::Text { line, column },
                None => fault.origin.clone(),
            };
            self.push(&origin, &fault.path, &fault.what, &fault.remedy);
        }
    }
}

fn one_of(choices: &[&str]) -> String {
    format!("write one of: {}", choices.join(", "))
}

/// The value as written, cut so that a whole document pasted into a value does not fill the screen.
fn quoted(scalar: &Scalar) -> String {
    let cut: String = scalar.text.chars().take(60).flat_map(char::escape_debug).collect();
    format!("`{cut}{}`", if scalar.text.chars().count() > 60 { "…" } else { "" })
}

fn integer(text: &str) -> Option<Number> {
    text.parse::<u64>().map(Number::from).or_else(|_| text.parse::<i64>().map(Number::from)).ok()
}

fn decimal(text: &str) -> Option<Number> {
    // Rust reads "inf" and "nan" as numbers, YAML does not.
    let looks_numeric = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'));
    if looks_numeric { text.parse().ok().and_then(Number::from_f64) } else { None }
}
