//! JSON of a mapping to [`Model`].

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::PlanError;
use super::dynamic::DynamicTemplate;
use super::model::{Child, Dynamic, Field, FieldKind, Limits, Model, Names, Object};
use crate::map::check::date::DateFormats;
use crate::map::check::number::NumberType;
use crate::map::server::{Behaviour, Counting};

type Json = Map<String, Value>;

pub(in crate::map) fn model(mappings: &Value, settings: &Value, server: Behaviour) -> Result<Model, PlanError> {
    let limits = Limits::from_settings(settings);
    let empty = Json::new();
    let mut root = object_or_empty(mappings, "", &empty)?;
    // Some bodies still carry the type that Elasticsearch dropped.
    if root.len() == 1
        && let Some(inner) = root.get("_doc")
    {
        root = object_or_empty(inner, "_doc", &empty)?;
    }
    let templates = dynamic_templates(root)?;
    let dynamic_dates = match root.get("dynamic_date_formats").and_then(Value::as_array) {
        Some(formats) => formats.iter().filter_map(Value::as_str).collect(),
        None => vec![DateFormats::DEFAULT, "yyyy/MM/dd HH:mm:ss||yyyy/MM/dd||epoch_millis"],
    };
    let dynamic_dates: Vec<&str> = dynamic_dates;
    let runtime = object_or_empty(root.get("runtime").unwrap_or(&Value::Null), "runtime", &empty)?;
    let runtime: HashSet<String> = runtime.keys().cloned().collect();
    let model = Model {
        identity: Arc::default(),
        objects: Vec::new(),
        fields: Vec::new(),
        templates,
        date_detection: flag(root, "date_detection").unwrap_or(true),
        numeric_detection: flag(root, "numeric_detection").unwrap_or(false),
        dynamic_dates: dynamic_dates.into_iter().map(|f| (f.to_owned(), DateFormats::parse(f, server))).collect(),
        num_fields: if server.counting == Counting::AsMet { runtime.len() as u64 } else { 0 },
        runtime,
        limits,
        server,
    };
    let mut compiler = Compiler { model };
    compiler.object("", root, Dynamic::True, true)?;
    compiler.runtime_names();
    Ok(compiler.model)
}

/// Compiles what a dynamic template makes of a new name.
pub(in crate::map) fn template_field(
    path: &str,
    body: &Value,
    dynamic: Dynamic,
    (limits, server): (Limits, Behaviour),
) -> Result<(Model, Child), PlanError> {
    let mut compiler = Compiler {
        model: Model {
            identity: Arc::default(),
            objects: Vec::new(),
            fields: Vec::new(),
            templates: Vec::new(),
            runtime: HashSet::new(),
            date_detection: true,
            numeric_detection: false,
            dynamic_dates: Vec::new(),
            limits,
            server,
            num_fields: 0,
        },
    };
    let body = body.as_object().ok_or_else(|| fault(path, "is not an object"))?;
    let child = compiler.child(path, body, dynamic, true)?;
    Ok((compiler.model, child))
}

struct Compiler {
    model: Model,
}

impl Compiler {
    fn object(&mut self, path: &str, body: &Json, parent: Dynamic, parent_subobjects: bool) -> Result<u32, PlanError> {
        let dynamic = match body.get("dynamic") {
            None => parent,
            Some(value) => dynamic(value).ok_or_else(|| {
                fault(path, "`dynamic` is not true, false, strict, runtime or one of OpenSearch's words")
            })?,
        };
        let id = self.model.objects.len() as u32;
        let has_subobjects = flag(body, "subobjects").unwrap_or(parent_subobjects || path.is_empty());
        self.model.objects.push(Object {
            id,
            path: path.to_owned(),
            is_enabled: flag(body, "enabled").unwrap_or(true),
            is_nested: body.get("type").is_some_and(|t| t == "nested"),
            dynamic,
            states_dynamic: body.contains_key("dynamic"),
            has_subobjects,
            children: Names::default(),
        });
        let empty = Json::new();
        let properties = object_or_empty(body.get("properties").unwrap_or(&Value::Null), path, &empty)?;
        self.properties(id, "", properties)?;
        Ok(id)
    }

    /// Adds properties to an object; `prefix` holds the names of objects dissolved under `subobjects: false`.
    fn properties(&mut self, id: u32, prefix: &str, properties: &Json) -> Result<(), PlanError> {
        for (name, body) in properties {
            let object = self.model.object(id);
            let (path, has_subobjects, dynamic) = (join(&object.path, prefix), object.has_subobjects, object.dynamic);
            let full = join(&path, name);
            let body = body.as_object().ok_or_else(|| fault(&full, "is not an object"))?;
            if has_subobjects && name.contains('.') {
                self.dotted(id, name, body)?;
            } else if !has_subobjects && is_object(body) && !body.get("type").is_some_and(|t| t == "nested") {
                let inner = object_or_empty(body.get("properties").unwrap_or(&Value::Null), &full, body)?;
                if body.contains_key("properties") {
                    self.properties(id, &join(prefix, name), inner)?;
                }
            } else {
                let child = self.child(&full, body, dynamic, has_subobjects)?;
                self.insert(id, &join(prefix, name), child);
            }
        }
        Ok(())
    }

    /// `a.b` in a mapping stands for `b` inside the object `a`.
    fn dotted(&mut self, mut id: u32, name: &str, body: &Json) -> Result<(), PlanError> {
        let mut rest = name;
        while let Some((first, after)) = rest.split_once('.') {
            let object = self.model.object(id);
            if !object.has_subobjects {
                break;
            }
            let (path, dynamic, subobjects) = (join(&object.path, first), object.dynamic, object.has_subobjects);
            id = match object.children.get(first) {
                Some(Child::Object(inner)) => *inner,
                Some(Child::Field(_)) => return Err(fault(&path, "is both a field and an object")),
                None => {
                    let inner = self.object(&path, &Json::new(), dynamic, subobjects)?;
                    self.insert(id, first, Child::Object(inner));
                    self.model.num_fields += 1;
                    inner
                }
            };
            rest = after;
        }
        let object = self.model.object(id);
        let (full, dynamic, subobjects) = (join(&object.path, rest), object.dynamic, object.has_subobjects);
        let child = self.child(&full, body, dynamic, subobjects)?;
        self.insert(id, rest, child);
        Ok(())
    }

    /// Adds a child; properties of objects that are named twice, dotted and nested, come together.
    fn insert(&mut self, id: u32, name: &str, child: Child) {
        let old = self.model.objects[id as usize].children.insert(name.into(), child);
        if let (Some(Child::Object(old)), Child::Object(new)) = (old, child) {
            let known = std::mem::take(&mut self.model.objects[old as usize].children);
            let children = &mut self.model.objects[new as usize].children;
            for (name, child) in known {
                children.entry(name).or_insert(child);
            }
            self.model.num_fields -= 1;
        }
    }

    fn child(&mut self, path: &str, body: &Json, dynamic: Dynamic, subobjects: bool) -> Result<Child, PlanError> {
        self.model.num_fields += 1;
        if is_object(body) {
            return self.object(path, body, dynamic, subobjects).map(Child::Object);
        }
        self.field(path, body).map(Child::Field)
    }

    fn field(&mut self, path: &str, body: &Json) -> Result<u32, PlanError> {
        let type_name = body.get("type").and_then(Value::as_str).ok_or_else(|| fault(path, "has no `type`"))?;
        let mut subfields = Vec::new();
        if let Some(fields) = body.get("fields").and_then(Value::as_object) {
            for (name, inner) in fields {
                let full = join(path, name);
                let inner = inner.as_object().ok_or_else(|| fault(&full, "is not an object"))?;
                self.model.num_fields += 1;
                subfields.push(self.field(&full, inner)?);
            }
        }
        let copy_to = match body.get("copy_to") {
            Some(Value::String(one)) => vec![one.clone()],
            Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        let is_malformed_ok = flag(body, "ignore_malformed").unwrap_or(self.model.limits.ignore_malformed);
        let kind = kind(type_name, body, &self.model);
        let has_script = body.get("script").is_some_and(|script| !script.is_null());
        let plain_bytes = match has_script || !copy_to.is_empty() {
            true => 0,
            false => subfields.iter().map(|id| self.model.field(*id).plain_bytes).fold(kind.plain_bytes(), usize::min),
        };
        self.model.fields.push(Field {
            path: path.to_owned(),
            type_name: type_name.to_owned(),
            kind,
            ignore_malformed: is_malformed_ok && !(self.model.server.has_old_parser && type_name == "boolean"),
            has_script,
            subfields,
            copy_to,
            plain_bytes,
        });
        Ok(self.model.fields.len() as u32 - 1)
    }

    /// A runtime field shadows nothing that is mapped, but keeps its name from being created.
    fn runtime_names(&mut self) {
        let names: Vec<String> = self.model.runtime.iter().cloned().collect();
        for path in names {
            if self.model.find(&path).is_some() {
                continue;
            }
            let mut id = 0;
            let mut rest = path.as_str();
            while self.model.object(id).has_subobjects
                && let Some((first, after)) = rest.split_once('.')
                && let Some(Child::Object(inner)) = self.model.object(id).children.get(first)
            {
                id = *inner;
                rest = after;
            }
            if self.model.object(id).has_subobjects && rest.contains('.') {
                // Its parents are not mapped: the walk asks `runtime` for such names.
                continue;
            }
            self.model.fields.push(Field {
                path: path.clone(),
                type_name: "runtime".to_owned(),
                kind: FieldKind::Runtime,
                ignore_malformed: false,
                has_script: false,
                subfields: Vec::new(),
                copy_to: Vec::new(),
                plain_bytes: 0,
            });
            let child = Child::Field(self.model.fields.len() as u32 - 1);
            let rest = rest.to_owned();
            self.insert(id, &rest, child);
        }
    }
}

fn is_object(body: &Json) -> bool {
    match body.get("type").and_then(Value::as_str) {
        Some(name) => name == "object" || name == "nested",
        None => true,
    }
}

fn kind(type_name: &str, body: &Json, model: &Model) -> FieldKind {
    let (limits, server) = (model.limits, model.server);
    let is_on = |name: &str, default: bool| flag(body, name).unwrap_or(default);
    let number = |number| FieldKind::Number { number, coerce: is_on("coerce", limits.coerce) };
    let length = |name: &str, default: usize| {
        let value = body.get(name);
        let n = value.and_then(|v| v.as_u64().or_else(|| v.as_str()?.parse().ok()));
        n.map_or(default, |n| usize::try_from(n).unwrap_or(usize::MAX))
    };
    let has_terms = is_on("index", true) || is_on("doc_values", true) || is_on("store", false);
    match type_name {
        "long" => number(NumberType::Long),
        "integer" => number(NumberType::Integer),
        "short" => number(NumberType::Short),
        "byte" => number(NumberType::Byte),
        "double" => number(NumberType::Double),
        "float" => number(NumberType::Float),
        "half_float" => number(NumberType::HalfFloat),
        "boolean" => FieldKind::Boolean { is_stored_anyhow: has_terms },
        "date" | "date_nanos" => {
            let is_nanos = type_name == "date_nanos";
            let default = DateFormats::default_of(is_nanos, server);
            let format = body.get("format").and_then(Value::as_str).unwrap_or(default);
            FieldKind::Date { formats: DateFormats::parse(format, server), is_nanos }
        }
        "ip" => FieldKind::Ip,
        "keyword" => FieldKind::Keyword {
            ignore_above: length("ignore_above", usize::MAX),
            has_terms,
            has_normalizer: body.get("normalizer").is_some_and(|n| n != "default"),
        },
        "text" => FieldKind::Text { is_one_term: body.get("analyzer").is_some_and(|name| name == "keyword") },
        "match_only_text" => FieldKind::Text { is_one_term: false },
        "flattened" | "flat_object" => FieldKind::Flattened {
            ignore_above: length("ignore_above", usize::MAX),
            depth_limit: length("depth_limit", 20),
            has_terms,
        },
        "alias" => FieldKind::Alias,
        _ => FieldKind::Unknown,
    }
}

fn dynamic_templates(root: &Json) -> Result<Vec<DynamicTemplate>, PlanError> {
    let Some(list) = root.get("dynamic_templates").and_then(Value::as_array) else { return Ok(Vec::new()) };
    let entries = list.iter().filter_map(Value::as_object).flatten();
    entries.map(|(name, body)| DynamicTemplate::parse(name, body)).collect()
}

fn dynamic(value: &Value) -> Option<Dynamic> {
    match value {
        Value::Bool(true) => Some(Dynamic::True),
        Value::Bool(false) => Some(Dynamic::False),
        Value::String(word) => match word.to_ascii_lowercase().as_str() {
            "true" => Some(Dynamic::True),
            "false" => Some(Dynamic::False),
            "strict" => Some(Dynamic::Strict),
            "runtime" => Some(Dynamic::Runtime),
            "strict_allow_templates" => Some(Dynamic::StrictAllowTemplates),
            "false_allow_templates" => Some(Dynamic::FalseAllowTemplates),
            _ => None,
        },
        _ => None,
    }
}

fn flag(body: &Json, name: &str) -> Option<bool> {
    let value = body.get(name)?;
    value.as_bool().or_else(|| value.as_str()?.parse().ok())
}

fn join(parent: &str, name: &str) -> String {
    match (parent, name) {
        ("", name) => name.to_owned(),
        (parent, "") => parent.to_owned(),
        _ => format!("{parent}.{name}"),
    }
}

fn fault(path: &str, what: &str) -> PlanError {
    PlanError::Mapping { path: path.to_owned(), what: what.to_owned() }
}

fn object_or_empty<'a>(value: &'a Value, path: &str, empty: &'a Json) -> Result<&'a Json, PlanError> {
    match value {
        Value::Null => Ok(empty),
        Value::Object(object) => Ok(object),
        _ => Err(fault(path, "is not an object")),
    }
}
