//! What tests ask of indices and documents.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::http::{self, Access, Reply};
use crate::wait;

/// One document of an index, as Elasticsearch returns it.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    pub index: String,
    pub id: String,
    pub source: Value,
}

/// A client of any Elasticsearch.
pub struct ElasticsearchClient {
    url: String,
    access: Access,
}

impl ElasticsearchClient {
    /// Makes a client of a node without security; nothing is sent before its first use.
    pub fn new(url: &str) -> Self {
        Self::with_access(url, Access::plain().clone())
    }

    /// [`ElasticsearchClient::new`] for a node that wants TLS or a login.
    pub fn with_access(url: &str, access: Access) -> Self {
        Self { url: url.trim_end_matches('/').to_owned(), access }
    }

    /// The address for `--elasticsearch`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sends any request; `path` begins with a slash.
    ///
    /// # Errors
    ///
    /// If no reply comes; a reply of any status is none.
    pub fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Reply> {
        let url = format!("{}{path}", self.url);
        self.access.request_within(http::TIMEOUT, method, &url, body.map(Value::to_string))
    }

    /// Sends a request that must succeed, and returns the reply's JSON.
    ///
    /// # Errors
    ///
    /// If the status is not 2xx or the reply is not JSON.
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let reply = self.request(method, path, body)?;
        ensure!((200..300).contains(&reply.status), "{method} {path}: {} {}", reply.status, reply.body);
        serde_json::from_str(&reply.body).with_context(|| format!("{method} {path}: no JSON"))
    }

    /// True if the node answers and can take documents.
    pub fn is_ready(&self) -> bool {
        let url = format!("{}/_cluster/health?wait_for_status=yellow&timeout=1s", self.url);
        self.access.request_within(Duration::from_secs(3), "GET", &url, None).is_ok_and(|reply| reply.status == 200)
    }

    /// Waits until the node answers and all indices have their first copy.
    ///
    /// # Errors
    ///
    /// If that is not so within `limit`.
    pub fn wait_ready(&self, limit: Duration) -> Result<()> {
        wait::until_true(&format!("Elasticsearch on {}", self.url), limit, || Ok(self.is_ready()))
    }

    /// Makes all that was written to the indices of `pattern` searchable.
    ///
    /// # Errors
    ///
    /// If Elasticsearch refuses.
    pub fn refresh(&self, pattern: &str) -> Result<()> {
        self.call("POST", &format!("/{pattern}/_refresh?{LENIENT}"), None)?;
        Ok(())
    }

    /// Asks after a refresh. An index that was made since may have no shard yet (503); a refresh waits for it.
    fn ask(&self, pattern: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        self.refresh(pattern)?;
        match self.call("POST", path, body) {
            Err(cause) if cause.to_string().contains("no_shard_available_action_exception") => {
                self.refresh(pattern)?;
                self.call("POST", path, body)
            }
            reply => reply,
        }
    }

    /// Counts the documents of the indices of `pattern`, after a refresh; 0 if there is none.
    ///
    /// # Errors
    ///
    /// If Elasticsearch refuses.
    pub fn count(&self, pattern: &str) -> Result<u64> {
        let reply = self.ask(pattern, &format!("/{pattern}/_count?{LENIENT}"), None)?;
        reply["count"].as_u64().context("no count in the reply")
    }

    /// Searches after a refresh; `body` is as in the search API. Returns the whole reply.
    ///
    /// # Errors
    ///
    /// If Elasticsearch refuses.
    pub fn search(&self, pattern: &str, body: &Value) -> Result<Value> {
        self.ask(pattern, &format!("/{pattern}/_search?{LENIENT}"), Some(body))
    }

    /// Returns every document of the indices of `pattern`, after a refresh.
    ///
    /// # Errors
    ///
    /// If Elasticsearch refuses, or a shard fails.
    pub fn all_documents(&self, pattern: &str) -> Result<Vec<Document>> {
        let mut documents = Vec::new();
        self.for_each_document(pattern, |document| documents.push(document))?;
        Ok(documents)
    }

    /// Calls `look` with every document of the indices of `pattern`, after a refresh, holding only
    /// some thousands at a time.
    ///
    /// # Errors
    ///
    /// If Elasticsearch refuses, or a shard fails.
    pub fn for_each_document(&self, pattern: &str, look: impl FnMut(Document)) -> Result<()> {
        let mut look = look;
        let first = json!({"size": 5000, "sort": ["_doc"], "query": {"match_all": {}}});
        let path = format!("/{pattern}/_search?scroll=1m&allow_partial_search_results=false&{LENIENT}");
        let mut page = self.ask(pattern, &path, Some(&first))?;
        loop {
            ensure!(page["_shards"]["failed"] == 0, "a shard failed: {}", page["_shards"]);
            let hits = page["hits"]["hits"].as_array_mut().context("no hits in the reply")?;
            if hits.is_empty() {
                break;
            }
            hits.drain(..).map(document).for_each(&mut look);
            let next = json!({"scroll": "1m", "scroll_id": page["_scroll_id"]});
            page = self.call("POST", "/_search/scroll", Some(&next))?;
        }
        if let Some(id) = page["_scroll_id"].as_str() {
            self.call("DELETE", "/_search/scroll", Some(&json!({"scroll_id": [id]})))?;
        }
        Ok(())
    }

    /// Returns the mapping of one index.
    ///
    /// # Errors
    ///
    /// If there is no such index.
    pub fn mapping(&self, index: &str) -> Result<Value> {
        let mut reply = self.call("GET", &format!("/{index}/_mapping"), None)?;
        Ok(reply[index]["mappings"].take())
    }

    /// Returns the names of the indices of `pattern`, sorted.
    ///
    /// # Errors
    ///
    /// If Elasticsearch refuses.
    pub fn indices(&self, pattern: &str) -> Result<Vec<String>> {
        let reply = self.call("GET", &format!("/{pattern}/_settings?{LENIENT}"), None)?;
        let names = reply.as_object().context("no object in the reply")?.keys();
        let mut names: Vec<String> = names.cloned().collect();
        names.sort();
        Ok(names)
    }

    /// Puts one document, for tests of the harness and of what was there before.
    ///
    /// # Errors
    ///
    /// If Elasticsearch refuses.
    pub fn put_document(&self, index: &str, id: &str, source: &Value) -> Result<()> {
        self.call("PUT", &format!("/{index}/_doc/{id}"), Some(source))?;
        Ok(())
    }

    /// Deletes the indices of `pattern`.
    ///
    /// # Errors
    ///
    /// If Elasticsearch refuses.
    pub fn delete_indices(&self, pattern: &str) -> Result<()> {
        for index in self.indices(pattern)? {
            self.call("DELETE", &format!("/{index}"), None)?;
        }
        Ok(())
    }
}

/// No index is an answer, not an error.
const LENIENT: &str = "ignore_unavailable=true&allow_no_indices=true";

fn document(mut hit: Value) -> Document {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Document { index: text(&hit["_index"]), id: text(&hit["_id"]), source: hit["_source"].take() }
}
