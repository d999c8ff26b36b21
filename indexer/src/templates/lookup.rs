//! Which mapping an index has or would get.

use elasticsearch::http::Method;
use serde_json::{Value, json};

use super::Standing;
use crate::bulk::client::{Client, SendError};
use crate::bulk::service::PlanRequest;
use crate::map::{Flavor, Plan, PlanError, Server, ServerVersion};

/// The plan for an index.
#[derive(Debug)]
pub struct Lookup {
    pub plan: Plan,
    /// The index is there: the plan comes from its own mapping.
    pub exists: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    #[error(transparent)]
    Send(#[from] SendError),
    #[error("Elasticsearch answers {status} when asked for index `{index}`: {words}")]
    Refused { index: String, status: u16, words: String },
    #[error("index `{index}` waits for its template: {words}")]
    Template { index: String, words: String },
    #[error(
        "template `{winner}` would win over `{ours}` for index `{index}`: raise the priority of `{ours}` or narrow the patterns of `{winner}`"
    )]
    Foreign { index: String, ours: String, winner: String },
    #[error("no plan for index `{index}`: {cause}")]
    Plan {
        index: String,
        #[source]
        cause: PlanError,
    },
}

/// Reads the live mapping of an index, or what templates would make of it, and compiles the plan.
pub async fn look_up(client: &Client, standing: &Standing, request: &PlanRequest) -> Result<Lookup, LookupError> {
    let index = &*request.index;
    if let Some(words) = standing.fault_of(index) {
        return Err(LookupError::Template { index: index.into(), words });
    }
    let reply = client.get(&format!("{}?flat_settings=true", escape(index))).await?;
    let (mappings, settings, exists) = match reply.status {
        200..=299 => {
            let body = reply.json();
            let live = live_index(&body, index).cloned().unwrap_or_default();
            (live["mappings"].clone(), live["settings"].clone(), true)
        }
        404 => {
            let (mappings, settings) = from_templates(client, standing, index).await?;
            (mappings, settings, false)
        }
        status => return Err(LookupError::Refused { index: index.into(), status, words: reply.excerpt() }),
    };
    let or_empty = |value: Value| if value.is_object() { value } else { json!({}) };
    let plan = Plan::compile(&or_empty(mappings), &or_empty(settings), &request.rule, standing.version)
        .map_err(|cause| LookupError::Plan { index: index.into(), cause })?;
    Ok(Lookup { plan, exists })
}

/// An alias gives the indices behind it; the last by name is the youngest.
fn live_index<'v>(body: &'v Value, index: &str) -> Option<&'v Value> {
    let indices = body.as_object()?;
    indices.get(index).or_else(|| indices.iter().max_by_key(|(name, _)| name.as_str()).map(|(_, live)| live))
}

/// What the cluster's templates would make of an index; null where it does not say.
pub(crate) async fn simulate(client: &Client, index: &str) -> Result<Value, SendError> {
    let reply = client.call(Method::Post, &format!("_index_template/_simulate_index/{}", escape(index)), None).await?;
    Ok(if (200..300).contains(&reply.status) { reply.json() } else { Value::Null })
}

async fn from_templates(client: &Client, standing: &Standing, index: &str) -> Result<(Value, Value), LookupError> {
    let simulated = simulate(client, index).await?;
    let Some(ours) = standing.set.as_ref().and_then(|set| set.compose(index)) else {
        let of_cluster = |part| simulated.pointer(part).cloned().unwrap_or_default();
        return Ok((of_cluster("/template/mappings"), of_cluster("/template/settings")));
    };
    if is_loser(&simulated, &ours.name) {
        let winner = winner(client, index).await?.unwrap_or_else(|| "another template".to_owned());
        return Err(LookupError::Foreign { index: index.into(), ours: ours.name, winner });
    }
    Ok((ours.mappings, ours.settings))
}

/// Whether a template would lose to another one. Those that lose are listed, the one that wins is not.
pub(crate) fn is_loser(simulated: &Value, name: &str) -> bool {
    let overlapping = simulated["overlapping"].as_array().into_iter().flatten();
    overlapping.filter_map(|template| template["name"].as_str()).any(|loser| loser == name)
}

/// The index template of the highest priority whose patterns match.
pub(crate) async fn winner(client: &Client, index: &str) -> Result<Option<String>, LookupError> {
    let all = client.get("_index_template?filter_path=index_templates.name,index_templates.index_template.index_patterns,index_templates.index_template.priority").await?.json();
    let templates = all["index_templates"].as_array().into_iter().flatten();
    let matching = templates.filter(|template| {
        let patterns = template.pointer("/index_template/index_patterns").and_then(Value::as_array);
        patterns.into_iter().flatten().filter_map(Value::as_str).any(|pattern| matches(pattern, index))
    });
    let best = matching.max_by_key(|template| template.pointer("/index_template/priority").and_then(Value::as_u64));
    Ok(best.and_then(|template| template["name"].as_str()).map(str::to_owned))
}

/// `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(name) = name.strip_prefix(start) else { return false };
    (0..=name.len()).filter(|&at| name.is_char_boundary(at)).any(|at| matches(rest, &name[at..]))
}

/// The only characters of legal index names that a URL would read otherwise.
fn escape(index: &str) -> String {
    index.replace('%', "%25").replace('#', "%23").replace('?', "%3F")
}

/// The lowest version among the nodes. `GET /` is not asked: reduced distributions do not answer it.
async fn server_version(client: &Client) -> Result<ServerVersion, String> {
    let reply = client.get("_nodes/http?filter_path=nodes.*.version").await.map_err(|e| e.to_string())?;
    match reply.status {
        200..=299 => {}
        // Without the right to ask, the version that plans are developed against is assumed.
        403 => return Ok(ServerVersion::default()),
        status => return Err(format!("Elasticsearch answers {status}: {}", reply.excerpt())),
    }
    let body = reply.json();
    let nodes = body["nodes"].as_object().into_iter().flatten();
    let versions = nodes.filter_map(|(_, node)| parse_version(node["version"].as_str()?));
    Ok(versions.min_by_key(|version| (version.major, version.minor)).unwrap_or_default())
}

/// What the server reports of itself.
pub async fn inspect(client: &Client) -> Result<Server, String> {
    let version = server_version(client).await?;
    let has_ilm = version.flavor == Flavor::Elasticsearch
        && client.get("_ilm/status").await.map_err(|e| e.to_string())?.status == 200;
    Ok(Server { version, has_ilm })
}

/// Reads `8.19.7`, or `2.19.0` for OpenSearch.
pub fn parse_version(text: &str) -> Option<ServerVersion> {
    let mut numbers = text.split('.').map(str::parse);
    let (major, minor) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    // OpenSearch began again at 1 when Elasticsearch stood at 7.
    Some(if major < 5 { ServerVersion::opensearch(major, minor) } else { ServerVersion::elasticsearch(major, minor) })
}

pub fn describe(version: ServerVersion) -> String {
    let name = match version.flavor {
        Flavor::Elasticsearch => "Elasticsearch",
        Flavor::OpenSearch => "OpenSearch",
    };
    format!("{name} {}.{}", version.major, version.minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_tell_the_server() {
        assert_eq!(parse_version("8.19.7"), Some(ServerVersion::elasticsearch(8, 19)));
        assert_eq!(parse_version("9.2.0-SNAPSHOT"), Some(ServerVersion::elasticsearch(9, 2)));
        assert_eq!(parse_version("2.19.0"), Some(ServerVersion::opensearch(2, 19)));
        assert_eq!(parse_version("x"), None);
    }

    #[test]
    fn patterns_match_as_in_elasticsearch() {
        assert!(matches("logs-*", "logs-a") && matches("*", "x") && matches("a*c*", "abcd") && matches("a", "a"));
        assert!(!matches("logs-*", "log") && !matches("a*c", "abcd"));
    }
}
