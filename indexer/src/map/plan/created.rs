//! Fields and objects that documents create under `dynamic: true` or `runtime`.

use std::collections::HashMap;
use std::sync::Arc;

use millrace_common::json::{Kind, Value};
use serde_json::json;

use super::compile;
use super::dynamic::Detected;
use super::model::{Child, Dynamic, FieldKind, Model};
use crate::map::check::date::{DateFormats, ParsedDate};
use crate::map::check::number::{Parsed, is_java_long, java_double};
use crate::map::check::text_of;
use crate::map::server::Counting;

/// A new name with the mapping it gets.
#[derive(Debug)]
pub(in crate::map) struct Created {
    /// Holds nothing but this field or object.
    pub model: Model,
    pub child: Child,
    /// What it counts against `total_fields.limit`: itself, its multi-fields, the properties of its template.
    pub cost: u64,
    /// What it counts while its document is parsed: Elasticsearch then counts a template's properties with their object
    /// and each by itself.
    pub charge: u64,
    pub type_name: String,
    /// Of a date.
    pub date: Option<Date>,
    pub is_runtime: bool,
}

/// What new dates of one name must have in common.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::map) struct Date {
    pub format: String,
    /// It has the locale of the format that it was detected by, and not the usual one.
    pub has_own_locale: bool,
}

impl Created {
    /// Of a date.
    pub(in crate::map) fn format(&self) -> Option<&str> {
        Some(&self.date.as_ref()?.format)
    }
}

/// Names that documents on their way create, by path.
#[derive(Clone, Debug, Default)]
pub(in crate::map) struct Pending {
    names: HashMap<String, (Arc<Created>, u8)>,
    cost: u64,
}

impl Pending {
    /// A name that the mapping lacks after so many readings was never created: its document was refused.
    const MAX_READINGS: u8 = 3;

    pub(in crate::map) fn get(&self, path: &str) -> Option<&Arc<Created>> {
        self.names.get(path).map(|(created, _)| created)
    }

    pub(in crate::map) fn insert(&mut self, path: String, created: Arc<Created>) {
        let is_runtime = created.is_runtime;
        self.cost += created.cost;
        // A runtime field and an object can have one name, and both count.
        if let Some((old, _)) = self.names.insert(path, (created, 0))
            && old.is_runtime == is_runtime
        {
            self.cost -= old.cost;
        }
    }

    pub(in crate::map) fn cost(&self) -> u64 {
        self.cost
    }

    /// Keeps what `model` does not have yet.
    pub(in crate::map) fn carried_to(self, model: &Model) -> Self {
        let mut carried = Self::default();
        for (path, (created, readings)) in self.names {
            let is_mapped = model.find(&path).is_some() || model.runtime.contains(&path);
            if !is_mapped && readings < Self::MAX_READINGS {
                carried.cost += created.cost;
                carried.names.insert(path, (created, readings + 1));
            }
        }
        carried
    }
}

/// Answers what a new name becomes.
#[derive(Clone, Copy)]
pub(in crate::map) struct Detector<'m> {
    pub model: &'m Model,
    /// Of the object the name is in.
    pub dynamic: Dynamic,
}

impl Detector<'_> {
    /// Whether the object around it takes the name at all: some take only what a template maps. Without a value it is
    /// an object.
    pub(in crate::map) fn takes(self, path: &str, name: &str, value: Option<Value<'_, '_>>) -> bool {
        if !matches!(self.dynamic, Dynamic::StrictAllowTemplates | Dynamic::FalseAllowTemplates) {
            return true;
        }
        let detected = match value {
            None => Some(Detected::Object),
            Some(value) => self.detect(value).map(|(detected, _)| detected),
        };
        detected.is_none_or(|detected| self.model.templates.iter().any(|t| t.applies(path, name, detected)))
    }

    /// For a scalar; `None` when it cannot be told.
    pub(in crate::map) fn leaf(self, path: &str, name: &str, value: Value<'_, '_>) -> Option<Created> {
        let (detected, date_format) = self.detect(value)?;
        let formats = match detected {
            Detected::Date => Some(self.model.dynamic_dates.get(date_format)?.0.as_str()),
            _ => None,
        };
        if let Some(created) = self.by_template(path, name, detected, formats) {
            return created;
        }
        if self.dynamic == Dynamic::Runtime {
            return self.runtime(path, detected.runtime_type());
        }
        let body = match detected {
            Detected::String => {
                json!({"type": "text", "fields": {"keyword": {"type": "keyword", "ignore_above": 256}}})
            }
            Detected::Date => json!({"type": "date", "format": formats}),
            other => json!({"type": other.default_type()}),
        };
        self.compiled(path, &body, formats)
    }

    pub(in crate::map) fn object(self, path: &str, name: &str) -> Option<Created> {
        match self.by_template(path, name, Detected::Object, None) {
            Some(created) => created,
            None => self.compiled(path, &json!({"type": "object"}), None),
        }
    }

    /// `None`: no template applies. `Some(None)`: one does, with a mapping that cannot be read.
    ///
    /// A date that a template maps without `format` takes the format it was detected by.
    fn by_template(
        self,
        path: &str,
        name: &str,
        detected: Detected,
        date_format: Option<&str>,
    ) -> Option<Option<Created>> {
        let template = self.model.templates.iter().find(|template| template.applies(path, name, detected))?;
        let mut body = template.mapping_for(name, detected);
        if let (Some(format), Some(body)) = (date_format, body.as_object_mut())
            && body.get("type").is_some_and(|t| t == "date")
        {
            body.entry("format").or_insert_with(|| format.into());
        }
        let type_name = body.get("type").and_then(|t| t.as_str()).unwrap_or_default();
        Some(if template.is_runtime { self.runtime(path, type_name) } else { self.compiled(path, &body, date_format) })
    }

    fn compiled(self, path: &str, body: &serde_json::Value, date_format: Option<&str>) -> Option<Created> {
        let (model, child) =
            compile::template_field(path, body, self.inherited(path), (self.model.limits, self.model.server)).ok()?;
        let type_name = match child {
            Child::Field(id) => model.field(id).type_name.clone(),
            Child::Object(id) if model.object(id).is_nested => "nested".to_owned(),
            Child::Object(_) => "object".to_owned(),
        };
        let charge = match self.model.server.counting {
            Counting::AsMet => sizes(&model, child).1,
            Counting::AsMetAlone => 1,
            Counting::AtTheEnd => 0,
        };
        let date = matches!(type_name.as_str(), "date" | "date_nanos").then(|| {
            let default = DateFormats::default_of(type_name == "date_nanos", self.model.server);
            let format = body.get("format").and_then(|format| format.as_str()).unwrap_or(default).to_owned();
            Date { format, has_own_locale: date_format.is_some_and(|detected| detected != DateFormats::DEFAULT) }
        });
        Some(Created { cost: model.num_fields, charge, model, child, type_name, date, is_runtime: false })
    }

    /// What a new object takes over from the one around it. OpenSearch looks at the mapping for it, and takes `true` where
    /// that does not have the parent yet.
    fn inherited(self, path: &str) -> Dynamic {
        let is_parent_new = path.rsplit_once('.').is_some_and(|(parent, _)| self.model.find(parent).is_none());
        match self.dynamic {
            Dynamic::StrictAllowTemplates | Dynamic::FalseAllowTemplates if is_parent_new => Dynamic::True,
            other => other,
        }
    }

    fn runtime(self, path: &str, type_name: &str) -> Option<Created> {
        let body = json!({"type": "runtime"});
        let (mut model, child) = compile::template_field(path, &body, Dynamic::Runtime, Default::default()).ok()?;
        if let Child::Field(id) = child {
            model.fields[id as usize].kind = FieldKind::Runtime;
        }
        let cost = u64::from(self.model.server.counting == Counting::AsMet);
        let type_name = type_name.to_owned();
        Some(Created { model, child, cost, charge: cost, type_name, date: None, is_runtime: true })
    }

    /// What the value looks like, and for a date which of the root's formats it is in.
    fn detect(self, value: Value<'_, '_>) -> Option<(Detected, usize)> {
        let detected = match value.kind() {
            Kind::Bool(_) => Detected::Boolean,
            Kind::Number if value.raw().contains(['.', 'e', 'E']) => Detected::Double,
            Kind::Number => Detected::Long,
            _ => return self.detect_text(&text_of(value)),
        };
        Some((detected, 0))
    }

    fn detect_text(self, text: &str) -> Option<(Detected, usize)> {
        let is_long = is_java_long(text);
        let is_double = match java_double(text) {
            Parsed::Number(_) => true,
            Parsed::No => false,
            Parsed::Unsure => return None,
        };
        if self.model.numeric_detection && !text.is_ascii() && text.chars().any(char::is_numeric) {
            // Java reads the digits of all scripts.
            return None;
        }
        if self.model.numeric_detection && is_long {
            return Some((Detected::Long, 0));
        }
        if self.model.numeric_detection && is_double {
            return Some((Detected::Double, 0));
        }
        if !is_long && !is_double && self.model.date_detection {
            for (i, (_, formats)) in self.model.dynamic_dates.iter().enumerate() {
                match formats.detect(text, self.model.server) {
                    ParsedDate::At(_) => return Some((Detected::Date, i)),
                    ParsedDate::Unsure => return None,
                    ParsedDate::No => {}
                }
            }
        }
        Some((Detected::String, 0))
    }
}

/// The fields of a subtree, and the sum of that number over all its members.
fn sizes(model: &Model, child: Child) -> (u64, u64) {
    match child {
        Child::Field(id) => {
            let size = 1 + model.field(id).subfields.iter().map(|&id| sizes(model, Child::Field(id)).0).sum::<u64>();
            (size, size)
        }
        Child::Object(id) => {
            let inner = model.object(id).children.values().map(|&child| sizes(model, child));
            let (size, sum) = inner.fold((1, 0), |(size, sum), (more, rest)| (size + more, sum + rest));
            (size, size + sum)
        }
    }
}
