//! Index templates read from files and composed as Elasticsearch does.
//!
//! Layout of the folder: `NAME.json` is an index template, `component/NAME.json` a component template,
//! `legacy/NAME.json` a legacy template and `policy/NAME.json` a policy of index lifecycle management; each file is the
//! very body of its `PUT` request.

mod compose;
mod known;
mod validate;
mod variant;

use std::collections::BTreeMap;

use serde_json::Value;

use super::plan::simple_match;

pub use variant::Server;

/// A file of `templates.dir`: `name` is its path below that folder with `/`, e.g. `component/base.json`.
#[derive(Clone, Debug)]
pub struct TemplateFile {
    pub name: String,
    pub text: String,
}

/// A fault in a template file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {}{what}", if path.is_empty() { String::new() } else { format!("`{path}` ") })]
pub struct TemplateFault {
    pub file: String,
    /// JSON path, e.g. `template.mappings.properties.status.type`; empty for the file as a whole.
    pub path: String,
    /// What is wrong and what to do.
    pub what: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TemplateKind {
    /// `PUT _ilm/policy/<name>`
    Policy,
    /// `PUT _component_template/<name>`
    Component,
    /// `PUT _index_template/<name>`
    Index,
    /// `PUT _template/<name>`
    Legacy,
}

/// All template files, validated.
#[derive(Clone, Debug, Default)]
pub struct TemplateSet {
    /// By kind and name, in the order in which they must be put.
    bodies: BTreeMap<(TemplateKind, String), Value>,
}

/// What an index of some name would be created with.
#[derive(Clone, Debug, PartialEq)]
pub struct Composed {
    /// Name of the winning index template, or the names of all matching legacy templates joined by `,`.
    pub name: String,
    pub priority: u64,
    /// Nested, with `index` outermost.
    pub settings: Value,
    pub mappings: Value,
    pub aliases: Value,
    /// The template makes a data stream instead of an index.
    pub is_data_stream: bool,
}

impl TemplateSet {
    /// Parses and validates.
    ///
    /// # Errors
    /// All faults of all files together.
    pub fn parse(files: &[TemplateFile]) -> Result<Self, Vec<TemplateFault>> {
        let mut faults = Vec::new();
        let mut set = Self::default();
        let mut names: BTreeMap<(TemplateKind, String), &str> = BTreeMap::new();
        for file in files {
            let fault = |what: String| TemplateFault { file: file.name.clone(), path: String::new(), what };
            let Some((kind, name)) = kind_and_name(&file.name) else {
                faults.push(fault(
                    "is in a folder that means nothing here: index templates stand at the top, others in `component/`, \
                     `legacy/` or `policy/`"
                        .to_owned(),
                ));
                continue;
            };
            match serde_json::from_str::<Value>(&file.text) {
                Ok(body) => {
                    let mut found = validate::Check::new(&file.name);
                    found.template(kind, &body);
                    faults.extend(found.into_faults());
                    names.insert((kind, name.to_owned()), &file.name);
                    set.bodies.insert((kind, name.to_owned()), body);
                }
                Err(error) => faults.push(fault(format!("is not JSON: {error}"))),
            }
        }
        for ((kind, name), file) in &names {
            if *kind == TemplateKind::Index {
                faults.extend(set.relations(name, file));
            }
        }
        if faults.is_empty() { Ok(set) } else { Err(faults) }
    }

    /// Faults between one index template and the others.
    fn relations(&self, name: &str, file: &str) -> Vec<TemplateFault> {
        let mut faults = Vec::new();
        let mut add = |path: String, what: String| faults.push(TemplateFault { file: file.to_owned(), path, what });
        let body = &self.bodies[&(TemplateKind::Index, name.to_owned())];
        let may_lack = strings(body.get("ignore_missing_component_templates"));
        for (i, component) in strings(body.get("composed_of")).into_iter().enumerate() {
            let is_there = self.bodies.contains_key(&(TemplateKind::Component, component.to_owned()));
            if !is_there && !may_lack.contains(&component) {
                let all = self.bodies.keys().filter(|(kind, _)| *kind == TemplateKind::Component);
                let near = validate::nearest(component, all.map(|(_, name)| name.as_str()));
                let remedy = match near {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("add `component/{component}.json`"),
                };
                add(
                    format!("composed_of[{i}]"),
                    format!("names the unknown component template `{component}`: {remedy}"),
                );
            }
        }
        for ((_, other), theirs) in self.bodies.iter().filter(|((kind, _), _)| *kind == TemplateKind::Index) {
            if other.as_str() > name && priority(theirs) == priority(body) && overlaps(body, theirs) {
                add(
                    "priority".to_owned(),
                    format!("equals that of `{other}.json`, whose patterns overlap: Elasticsearch refuses the second"),
                );
            }
        }
        faults
    }

    /// What Elasticsearch would create `index_name` with if these were its only templates; `None` if none matches.
    pub fn compose(&self, index_name: &str) -> Option<Composed> {
        if let Some((name, _)) = self.winner(index_name) {
            return self.composed(TemplateKind::Index, name);
        }
        let mut legacy: Vec<_> = self.matching(TemplateKind::Legacy, index_name).collect();
        legacy.sort_by_key(|(_, body)| body.get("order").and_then(Value::as_i64).unwrap_or(0));
        let layers: Vec<&Value> = legacy.iter().map(|(_, body)| *body).collect();
        let names: Vec<&str> = legacy.iter().map(|(name, _)| *name).collect();
        (!layers.is_empty()).then(|| composed_legacy(names.join(","), &layers))
    }

    fn matching(&self, kind: TemplateKind, index_name: &str) -> impl Iterator<Item = (&str, &Value)> {
        let of_kind = self.bodies.iter().filter(move |((other, _), _)| *other == kind);
        let is_match = move |body: &Value| patterns(body).into_iter().any(|pattern| simple_match(pattern, index_name));
        of_kind.filter(move |(_, body)| is_match(body)).map(|((_, name), body)| (name.as_str(), body))
    }

    fn winner(&self, index_name: &str) -> Option<(&str, &Value)> {
        self.matching(TemplateKind::Index, index_name).max_by_key(|(_, body)| priority(body))
    }

    /// The templates that an index of this name is made of: those that match, their components and their policy.
    pub fn parts(&self, index_name: &str) -> Vec<(TemplateKind, String)> {
        let mut parts = match self.winner(index_name) {
            Some((name, body)) => {
                let components = strings(body.get("composed_of")).into_iter();
                let components = components.map(|component| (TemplateKind::Component, component.to_owned()));
                components.chain([(TemplateKind::Index, name.to_owned())]).collect()
            }
            None => {
                let legacy = self.matching(TemplateKind::Legacy, index_name);
                legacy.map(|(name, _)| (TemplateKind::Legacy, name.to_owned())).collect::<Vec<_>>()
            }
        };
        let settings = self.compose(index_name).map(|composed| composed.settings).unwrap_or_default();
        let policy = settings.pointer("/index/lifecycle/name").and_then(Value::as_str);
        parts.extend(policy.map(|policy| (TemplateKind::Policy, policy.to_owned())));
        parts
    }

    /// What one template alone, with its components, makes of an index; `None` for components and policies.
    pub fn composed(&self, kind: TemplateKind, name: &str) -> Option<Composed> {
        let body = self.bodies.get(&(kind, name.to_owned()))?;
        match kind {
            TemplateKind::Policy | TemplateKind::Component => None,
            TemplateKind::Legacy => Some(composed_legacy(name.to_owned(), &[body])),
            TemplateKind::Index => {
                let components = strings(body.get("composed_of")).into_iter().filter_map(|component| {
                    self.bodies.get(&(TemplateKind::Component, component.to_owned()))?.get("template")
                });
                let layers: Vec<&Value> = components.chain(body.get("template")).collect();
                Some(Composed {
                    name: name.to_owned(),
                    priority: priority(body),
                    settings: compose::settings(&layers),
                    mappings: compose::mappings(&layers),
                    aliases: compose::aliases(&layers),
                    is_data_stream: body.get("data_stream").is_some(),
                })
            }
        }
    }

    /// Index templates that match the same names: the one that loses, the one that wins, and a pattern of the first.
    pub fn overlaps(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        let of_kind = || self.bodies.iter().filter(|((kind, _), _)| *kind == TemplateKind::Index);
        of_kind().flat_map(move |((_, lower), a)| {
            let higher = of_kind().filter(move |(_, b)| priority(a) < priority(b));
            higher.filter_map(move |((_, higher), b)| {
                let meets = |x: &&str| patterns(b).iter().any(|y| simple_match(x, y) || simple_match(y, x));
                Some((lower.as_str(), higher.as_str(), patterns(a).into_iter().find(meets)?))
            })
        })
    }

    /// Every template in the order in which they must be put: components first. The body is the file's own.
    pub fn bodies(&self) -> impl Iterator<Item = (TemplateKind, &str, &Value)> {
        self.bodies.iter().map(|((kind, name), body)| (*kind, name.as_str(), body))
    }
}

fn composed_legacy(name: String, layers: &[&Value]) -> Composed {
    Composed {
        name,
        priority: 0,
        settings: compose::settings(layers),
        mappings: compose::legacy_mappings(layers),
        aliases: compose::aliases(layers),
        is_data_stream: false,
    }
}

fn kind_and_name(file: &str) -> Option<(TemplateKind, &str)> {
    let name = file.strip_suffix(".json")?;
    match name.split_once('/') {
        None => Some((TemplateKind::Index, name)),
        Some(("component", name)) if !name.contains('/') => Some((TemplateKind::Component, name)),
        Some(("legacy", name)) if !name.contains('/') => Some((TemplateKind::Legacy, name)),
        Some(("policy", name)) if !name.contains('/') => Some((TemplateKind::Policy, name)),
        Some(_) => None,
    }
}

impl TemplateKind {
    /// The file that a template of this kind and name is read from.
    pub fn file(self, name: &str) -> String {
        match self {
            Self::Policy => format!("policy/{name}.json"),
            Self::Component => format!("component/{name}.json"),
            Self::Index => format!("{name}.json"),
            Self::Legacy => format!("legacy/{name}.json"),
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "lifecycle policy",
            Self::Component => "component template",
            Self::Index => "index template",
            Self::Legacy => "legacy template",
        }
    }

    /// Who manages a template, and its version.
    pub fn origin(self, body: &Value) -> (Option<&str>, Option<i64>) {
        let meta = body.pointer(match self {
            Self::Policy => "/policy/_meta",
            // Elasticsearch knows no notes beside the mappings of these.
            Self::Legacy => "/mappings/_meta",
            Self::Component | Self::Index => "/_meta",
        });
        let managed_by = meta.and_then(|meta| meta.get("managed_by")?.as_str());
        // Elasticsearch counts the versions of policies by itself, so that ours is among its notes.
        let version =
            if self == Self::Policy { meta.and_then(|meta| meta.get("version")) } else { body.get("version") };
        (managed_by, version.and_then(Value::as_i64))
    }
}

fn priority(body: &Value) -> u64 {
    body.get("priority").and_then(Value::as_u64).unwrap_or(0)
}

fn patterns(body: &Value) -> Vec<&str> {
    strings(body.get("index_patterns"))
}

/// Whether some index name surely matches both.
fn overlaps(a: &Value, b: &Value) -> bool {
    let (a, b) = (patterns(a), patterns(b));
    a.iter().any(|x| b.iter().any(|y| simple_match(x, y) || simple_match(y, x)))
}

fn strings(value: Option<&Value>) -> Vec<&str> {
    match value {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
