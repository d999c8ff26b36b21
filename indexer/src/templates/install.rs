//! Installing a template without treading on anybody.

use elasticsearch::http::Method;
use serde_json::{Value, json};

use crate::bulk::client::{Client, HttpReply, SendError};
use crate::map::TemplateKind;

/// Why a template does not stand.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error(transparent)]
    Send(#[from] SendError),
    #[error("{method} /{path}: {status}: {words}")]
    Refused { method: &'static str, path: String, status: u16, words: String },
    #[error("{} `{name}` is not installed, and `templates.apply` is off", kind.as_str())]
    NotApplied { kind: TemplateKind, name: String },
    #[error("{} `{name}` was installed, but reads back differently", kind.as_str())]
    ReadsBackDifferently { kind: TemplateKind, name: String },
}

impl InstallError {
    /// Whether the server is at fault and not the template: the others would fare no better.
    pub fn is_of_server(&self) -> bool {
        match self {
            Self::Send(_) => true,
            Self::Refused { status, .. } => matches!(status, 401 | 429 | 500..),
            Self::NotApplied { .. } | Self::ReadsBackDifferently { .. } => false,
        }
    }
}

/// What to do about one template, given what the cluster has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    Put,
    /// It is there in this version.
    Keep,
    /// Another program's, or nobody's by its `_meta.managed_by`.
    Foreign,
    Newer,
}

fn decide(kind: TemplateKind, ours: &Value, theirs: Option<&Value>) -> Decision {
    let Some(theirs) = theirs else { return Decision::Put };
    let ((our_manager, our_version), (their_manager, their_version)) = (kind.origin(ours), kind.origin(theirs));
    if our_manager != their_manager {
        return Decision::Foreign;
    }
    // Without a version nothing says that ours is the newer one.
    match (our_version, their_version) {
        (Some(ours), Some(theirs)) if ours < theirs => Decision::Newer,
        (Some(ours), Some(theirs)) if ours > theirs => Decision::Put,
        (Some(_), None) => Decision::Put,
        _ => Decision::Keep,
    }
}

fn path(kind: TemplateKind, name: &str) -> String {
    let folder = match kind {
        TemplateKind::Policy => "_ilm/policy",
        TemplateKind::Component => "_component_template",
        TemplateKind::Index => "_index_template",
        TemplateKind::Legacy => "_template",
    };
    format!("{folder}/{name}")
}

/// The template itself in the reply to a `GET`.
fn template_in(kind: TemplateKind, name: &str, reply: &Value) -> Option<Value> {
    match kind {
        TemplateKind::Component => reply.pointer("/component_templates/0/component_template").cloned(),
        TemplateKind::Index => reply.pointer("/index_templates/0/index_template").cloned(),
        TemplateKind::Legacy => reply.get(name).cloned(),
        TemplateKind::Policy => Some(json!({"policy": reply.get(name)?.get("policy")?})),
    }
}

/// What became of one template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    Installed,
    Updated,
    /// It was there.
    There,
    /// A newer one is there and stays.
    Newer,
    /// One of somebody else is there and stays.
    Foreign,
    /// An older one is there and stays, since nothing may be installed.
    Older,
}

/// Makes sure that a template stands in the cluster: installs it where it is missing or older and reads it back. A newer or
/// foreign one is left alone. The error says why it does not stand.
pub async fn settle(
    client: &Client,
    kind: TemplateKind,
    name: &str,
    body: &Value,
    apply: bool,
) -> Result<Settled, InstallError> {
    let path = path(kind, name);
    let theirs = read(client, kind, name).await?;
    match decide(kind, body, theirs.as_ref()) {
        Decision::Keep => return Ok(Settled::There),
        Decision::Newer => return Ok(Settled::Newer),
        Decision::Foreign => return Ok(Settled::Foreign),
        Decision::Put if !apply && theirs.is_some() => return Ok(Settled::Older),
        Decision::Put if !apply => {
            return Err(InstallError::NotApplied { kind, name: name.to_owned() });
        }
        Decision::Put => {}
    }
    let reply = client.call(Method::Put, &path, Some(body)).await?;
    expect_success(&reply, "PUT", &path)?;
    let installed = read(client, kind, name).await?;
    if decide(kind, body, installed.as_ref()) != Decision::Keep {
        return Err(InstallError::ReadsBackDifferently { kind, name: name.to_owned() });
    }
    Ok(if theirs.is_some() { Settled::Updated } else { Settled::Installed })
}

/// [`settle`] for a run, which says in its log what is not as in the files.
pub async fn confirm(
    client: &Client,
    kind: TemplateKind,
    name: &str,
    body: &Value,
    apply: bool,
) -> Result<(), InstallError> {
    match settle(client, kind, name, body, apply).await? {
        Settled::There => {}
        Settled::Installed | Settled::Updated => tracing::info!(template = name, "template installed"),
        Settled::Newer => tracing::info!(template = name, "a newer template is installed and stays"),
        Settled::Foreign => {
            tracing::warn!(template = name, "a template of this name is managed by somebody else and stays");
        }
        Settled::Older => {
            tracing::warn!(template = name, "an older template is installed, and `templates.apply` is off");
        }
    }
    Ok(())
}

/// A template as the cluster has it.
pub async fn read(client: &Client, kind: TemplateKind, name: &str) -> Result<Option<Value>, InstallError> {
    let path = path(kind, name);
    let reply = client.get(&path).await?;
    if reply.status == 404 {
        return Ok(None);
    }
    expect_success(&reply, "GET", &path)?;
    Ok(template_in(kind, name, &reply.json()))
}

fn expect_success(reply: &HttpReply, method: &'static str, path: &str) -> Result<(), InstallError> {
    match reply.status {
        200..=299 => Ok(()),
        status => Err(InstallError::Refused { method, path: path.to_owned(), status, words: reply.excerpt() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(version: Option<i64>, managed_by: Option<&str>) -> Value {
        let mut template = json!({"index_patterns": ["a"]});
        if let Some(version) = version {
            template["version"] = version.into();
        }
        if let Some(managed_by) = managed_by {
            template["_meta"] = json!({"managed_by": managed_by});
        }
        template
    }

    #[test]
    fn only_missing_and_older_templates_are_written() {
        let ours = template(Some(2), Some("millrace"));
        let check =
            |theirs: Option<Value>, expected| assert_eq!(decide(TemplateKind::Index, &ours, theirs.as_ref()), expected);
        check(None, Decision::Put);
        check(Some(template(Some(1), Some("millrace"))), Decision::Put);
        check(Some(template(None, Some("millrace"))), Decision::Put);
        check(Some(template(Some(2), Some("millrace"))), Decision::Keep);
        check(Some(template(Some(3), Some("millrace"))), Decision::Newer);
        check(Some(template(Some(1), Some("other"))), Decision::Foreign);
        check(Some(template(Some(1), None)), Decision::Foreign);
    }

    #[test]
    fn a_template_without_a_version_is_only_created() {
        let ours = template(None, None);
        assert_eq!(decide(TemplateKind::Index, &ours, None), Decision::Put);
        assert_eq!(decide(TemplateKind::Index, &ours, Some(&template(None, None))), Decision::Keep);
        assert_eq!(decide(TemplateKind::Index, &ours, Some(&template(Some(1), None))), Decision::Keep);
    }
}
