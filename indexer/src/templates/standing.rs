//! Which templates stand in the cluster as they should. Nothing goes out before all were tried; then those that do not stand
//! hold the indices that are made of them, and nothing else.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use millrace_common::retry::Delays;

use super::install::{self, InstallError};
use super::{Templates, lookup};
use crate::bulk::client::Client;
use crate::map::{ServerVersion, TemplateKind, TemplateSet};

/// Faults that are told word by word.
const MOST_TOLD: usize = 5;

/// Why documents may not go out yet: none of them, or those of some indices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotReady {
    /// From a closed set.
    pub label: &'static str,
    pub words: String,
}

/// What the server was found to be, and which templates do not stand there.
pub struct Standing {
    pub version: ServerVersion,
    /// The templates as this server takes them; `None` without any.
    pub set: Option<TemplateSet>,
    apply: bool,
    /// Those that are not confirmed, and why.
    open: Mutex<BTreeMap<(TemplateKind, String), String>>,
}

/// Waits until Elasticsearch answers, installs templates if wanted, and confirms them. Tries for ever until the server has
/// said something about each; `report` hears each change.
pub async fn set_up(client: &Client, templates: &Templates, report: impl Fn(Result<(), NotReady>)) -> Standing {
    let mut delays = delays();
    let mut last = String::new();
    loop {
        match try_set_up(client, templates).await {
            Ok(standing) => {
                tracing::info!(version = %lookup::describe(standing.version), "Elasticsearch reached");
                report(standing.state());
                return standing;
            }
            Err(not_ready) => {
                if not_ready.words != last {
                    tracing::warn!(reason = not_ready.words, "Elasticsearch is not ready: waiting");
                    last.clone_from(&not_ready.words);
                    report(Err(not_ready));
                }
                tokio::time::sleep(delays.next_delay()).await;
            }
        }
    }
}

fn delays() -> Delays {
    Delays::new(Duration::from_millis(500), Duration::from_secs(15))
}

async fn try_set_up(client: &Client, templates: &Templates) -> Result<Standing, NotReady> {
    let server = lookup::inspect(client).await;
    let server = server.map_err(|words| NotReady { label: "elasticsearch_unreachable", words })?;
    let set = templates.set.as_ref().map(|set| set.for_server(server));
    let all = set.iter().flat_map(TemplateSet::bodies);
    let open = all.map(|(kind, name, _)| ((kind, name.to_owned()), String::new())).collect();
    let standing = Standing { version: server.version, set, apply: templates.apply, open: Mutex::new(open) };
    let tried = standing.confirm(client).await;
    tried.map_err(|error| NotReady { label: "templates", words: error.to_string() })?;
    Ok(standing)
}

impl Standing {
    /// Tries again, for ever, those that did not stand. `report` hears each change.
    pub async fn complete(&self, client: &Client, report: impl Fn(Result<(), NotReady>)) {
        let mut delays = delays();
        let mut told = self.state();
        while told.is_err() {
            tokio::time::sleep(delays.next_delay()).await;
            if let Err(error) = self.confirm(client).await {
                tracing::debug!(%error, "cannot ask for templates");
            }
            let state = self.state();
            if state != told {
                report(state.clone());
                told = state;
            }
        }
    }

    /// Tries each template that is not confirmed.
    ///
    /// # Errors
    /// The server is at fault, so that nothing is known of the rest.
    async fn confirm(&self, client: &Client) -> Result<(), InstallError> {
        for (kind, name, body) in self.set.iter().flat_map(TemplateSet::bodies) {
            let key = (kind, name.to_owned());
            if !self.open().contains_key(&key) {
                continue;
            }
            match install::confirm(client, kind, name, body, self.apply).await {
                Ok(()) => _ = self.open().remove(&key),
                Err(error) if error.is_of_server() => return Err(error),
                Err(error) => self.note(key, error.to_string()),
            }
        }
        Ok(())
    }

    fn note(&self, key: (TemplateKind, String), words: String) {
        if self.open().get(&key) != Some(&words) {
            tracing::warn!(template = key.1, reason = words, "a template does not stand: what is made of it is held");
        }
        self.open().insert(key, words);
    }

    /// What keeps an index from being made as the files say, if anything does.
    pub fn fault_of(&self, index: &str) -> Option<String> {
        let open = self.open();
        // Composing takes longer, and mostly nothing is open.
        let set = self.set.as_ref().filter(|_| !open.is_empty())?;
        set.parts(index).iter().find_map(|part| open.get(part).cloned())
    }

    fn state(&self) -> Result<(), NotReady> {
        let open = self.open();
        if open.is_empty() {
            return Ok(());
        }
        let mut words: Vec<String> = open.values().take(MOST_TOLD).cloned().collect();
        if open.len() > MOST_TOLD {
            words.push(format!("{} more", open.len() - MOST_TOLD));
        }
        Err(NotReady { label: "templates", words: words.join("; ") })
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<(TemplateKind, String), String>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
