//! Documents at random: half of what is mapped gets a value that its type takes.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Known;
use super::random::Random;
use super::values::{
    BOUNDS, EDGES, FORMATS, LONG_TEXTS, MORE_NAMES, ODD_NAMES, PLAIN_ADDRESSES, PLAIN_DECIMALS, PLAIN_NUMBERS,
    PLAIN_TEXTS, TEXTS,
};

/// Makes the texts of documents for a mapping.
pub(super) struct Documents<'r> {
    pub random: &'r mut Random,
    pub known: &'r [Known],
}

impl Documents<'_> {
    pub fn document(&mut self) -> String {
        if self.random.chance(1) {
            return self.deep();
        }
        self.members(0, true)
    }

    /// Around the limits of depth, as objects, arrays or dots.
    fn deep(&mut self) -> String {
        let levels = self.random.pick(&[3, 4, 5, 18, 19, 20, 21, 22]);
        match self.random.below(3) {
            0 => format!("{}1{}", "{\"h\":".repeat(levels), "}".repeat(levels)),
            1 => format!("{}1{}", "{\"h\":[".repeat(levels), "]}".repeat(levels)),
            _ => format!("{{\"{}\":1}}", vec!["h"; levels].join(".")),
        }
    }

    fn members(&mut self, depth: usize, takes_known: bool) -> String {
        let count = if depth == 0 { 1 + self.random.below(3) } else { self.random.below(4) };
        let mut members = Vec::new();
        let mut names = BTreeSet::new();
        for _ in 0..count {
            let known =
                (takes_known && !self.known.is_empty() && self.random.chance(75)).then(|| self.random.pick(self.known));
            let (name, value) = match known {
                Some(known) => {
                    let value = if self.random.chance(55) { self.suited(&known.body) } else { self.value(depth) };
                    (known.path, value)
                }
                None => (self.name(), self.value(depth)),
            };
            if names.insert(name.clone()) || self.random.chance(10) {
                members.push(format!("{}:{value}", self.key(&name)));
            }
        }
        format!("{{{}}}", members.join(","))
    }

    /// A name as JSON, now and then with an escape that need not be.
    fn key(&mut self, name: &str) -> String {
        let json = Value::String(name.to_owned()).to_string();
        if self.random.chance(3) && name.starts_with('a') { json.replacen('a', "\\u0061", 1) } else { json }
    }

    fn name(&mut self) -> String {
        match self.random.below(100) {
            0..72 => self.random.pick(MORE_NAMES).to_owned(),
            72..98 => {
                let parts: Vec<&str> = (0..2 + self.random.below(2)).map(|_| self.random.pick(MORE_NAMES)).collect();
                parts.join(".")
            }
            _ => self.random.pick(ODD_NAMES).to_owned(),
        }
    }

    fn value(&mut self, depth: usize) -> String {
        match self.random.below(100) {
            0..62 => self.scalar(),
            _ if depth > 4 => self.scalar(),
            62..78 => {
                let elements: Vec<String> = (0..self.random.below(4))
                    .map(|_| if self.random.chance(30) { self.value(depth + 1) } else { self.scalar() })
                    .collect();
                format!("[{}]", elements.join(","))
            }
            _ => self.members(depth + 1, false),
        }
    }

    fn scalar(&mut self) -> String {
        match self.random.below(100) {
            0..40 => self.random.pick(EDGES).to_owned(),
            40..80 => Value::String(self.random.pick(TEXTS).to_owned()).to_string(),
            80..85 => {
                let (letter, count) = self.random.pick(LONG_TEXTS);
                Value::String(letter.repeat(count)).to_string()
            }
            85..95 => self.random.pick(&["true", "false"]).to_owned(),
            _ => "null".to_owned(),
        }
    }

    /// What a field or object should take, alone or as an array.
    fn suited(&mut self, body: &Value) -> String {
        match self.random.below(100) {
            0..80 => self.suited_one(body),
            80..83 => "null".to_owned(),
            83..86 => "[]".to_owned(),
            _ => {
                let elements: Vec<String> = (0..1 + self.random.below(3)).map(|_| self.suited_one(body)).collect();
                format!("[{}]", elements.join(","))
            }
        }
    }

    fn suited_one(&mut self, body: &Value) -> String {
        let Some(type_name) = body["type"].as_str() else { return self.members(1, false) };
        let random = &mut *self.random;
        let text = |text: &str| Value::String(text.to_owned()).to_string();
        match type_name {
            "long" | "integer" | "short" | "byte" => random.pick(PLAIN_NUMBERS).to_owned(),
            "double" | "float" | "half_float" => random.pick(PLAIN_DECIMALS).to_owned(),
            "boolean" => random.pick(&["true", "false", "\"true\"", "\"\""]).to_owned(),
            "ip" => text(random.pick(PLAIN_ADDRESSES)),
            "date" | "date_nanos" => {
                let format = body["format"].as_str().unwrap_or("strict_date_optional_time");
                let samples = FORMATS.iter().find(|(name, _)| *name == format).map_or(&["2020-01-01"][..], |f| f.1);
                text(random.pick(samples))
            }
            "flattened" | "flat_object" | "object" | "nested" => self.members(2, false),
            "ip_range" if random.chance(50) => random.pick(&["\"10.0.0.0/8\"", "\"::/0\"", "\"1.2.3.4\""]).to_owned(),
            _ if type_name.ends_with("_range") => self.range(),
            _ => text(random.pick(PLAIN_TEXTS)),
        }
    }

    fn range(&mut self) -> String {
        let random = &mut *self.random;
        let from = format!("\"{}\":{}", random.pick(&["gte", "gt", "gte", "x"]), random.pick(BOUNDS));
        let to = format!("\"{}\":{}", random.pick(&["lte", "lt", "lte"]), random.pick(BOUNDS));
        match random.below(4) {
            0 => "{}".to_owned(),
            1 => format!("{{{from}}}"),
            _ => format!("{{{from},{to}}}"),
        }
    }
}
