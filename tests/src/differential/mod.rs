//! Generated mappings and documents, and a real server that judges them. What a plan predicts is none of its business.

mod documents;
mod mappings;
mod random;
mod values;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use self::documents::Documents;
use self::mappings::Mappings;
pub use self::random::Random;
use crate::elasticsearch::ElasticsearchClient;
use crate::http;

/// What answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Product {
    pub is_opensearch: bool,
    pub major: u16,
    pub minor: u16,
}

impl Product {
    fn is_elasticsearch_since(self, major: u16, minor: u16) -> bool {
        !self.is_opensearch && (self.major, self.minor) >= (major, minor)
    }

    fn is_opensearch_since(self, major: u16, minor: u16) -> bool {
        self.is_opensearch && (self.major, self.minor) >= (major, minor)
    }
}

/// A field or object of a mapping.
#[derive(Clone, Debug)]
pub struct Known {
    pub path: String,
    body: Value,
}

/// All fields and objects of a mapping, innermost first.
pub fn known_fields(mapping: &Value) -> Vec<Known> {
    fn collect(object: &Value, prefix: &str, known: &mut Vec<Known>) {
        for (name, body) in object["properties"].as_object().into_iter().flatten() {
            let path = format!("{prefix}{name}");
            collect(body, &format!("{path}."), known);
            known.push(Known { path, body: body.clone() });
        }
    }
    let mut known = Vec::new();
    collect(mapping, "", &mut known);
    known
}

/// A server with the generator that feeds it.
pub struct Judge {
    pub client: ElasticsearchClient,
    pub product: Product,
    pub random: Random,
    prefix: String,
    num_indices: usize,
    /// Mappings that the server did not take.
    pub num_refused: usize,
}

impl Judge {
    /// # Errors
    ///
    /// If the server does not say what it is.
    pub fn new(url: &str, name: &str, seed: u64) -> Result<Self> {
        let client = ElasticsearchClient::new(url);
        let product = product(&client)?;
        let prefix = format!("differential-{name}-{seed}");
        Ok(Self { client, product, random: Random::new(seed), prefix, num_indices: 0, num_refused: 0 })
    }

    /// A mapping, changed by `adapt`, and the index that has it; `None` if the server does not take it.
    ///
    /// # Errors
    ///
    /// If the server answers anything else.
    pub fn index(&mut self, adapt: impl FnOnce(&mut Value)) -> Result<Option<(String, Value)>> {
        let has_runtime = self.product.is_elasticsearch_since(7, 11) && self.random.chance(30);
        let mut mappings = Mappings { random: &mut self.random, product: self.product, has_runtime };
        let mut mapping = mappings.mapping();
        let settings = mappings.settings();
        adapt(&mut mapping);
        let index = format!("{}-{}", self.prefix, self.num_indices);
        self.num_indices += 1;
        let body = json!({"settings": settings, "mappings": mapping});
        let reply = self.client.request("PUT", &format!("/{index}"), Some(&body))?;
        ensure!(reply.status == 200 || reply.status == 400, "{}", reply.body);
        if reply.status == 400 {
            self.num_refused += 1;
            return Ok(None);
        }
        Ok(Some((index, mapping)))
    }

    pub fn document(&mut self, known: &[Known]) -> String {
        Documents { random: &mut self.random, known }.document()
    }

    /// Mapping and settings of an index as they are now.
    ///
    /// # Errors
    ///
    /// If the server does not give them.
    pub fn live(&self, index: &str) -> Result<Value> {
        Ok(self.client.call("GET", &format!("/{index}"), None)?[index].take())
    }

    /// The server's error for a document, `None` if it was indexed.
    ///
    /// # Errors
    ///
    /// If there is no answer about it.
    pub fn send(&self, index: &str, document: &str) -> Result<Option<Value>> {
        let body = format!("{{\"create\":{{\"_index\":\"{index}\"}}}}\n{document}\n");
        let reply = http::request("POST", &format!("{}/_bulk", self.client.url()), Some(body))?;
        let reply: Value = serde_json::from_str(&reply.body)?;
        let item = reply["items"][0]["create"].clone();
        ensure!(item["status"].is_u64(), "{reply}: {document}");
        Ok(item.get("error").cloned())
    }
}

fn product(client: &ElasticsearchClient) -> Result<Product> {
    let nodes = client.call("GET", "/_nodes/http?filter_path=nodes.*.version", None)?;
    let version = nodes["nodes"].as_object().and_then(|nodes| nodes.values().next()?["version"].as_str());
    let mut numbers = version.context("no version")?.split('.').map(str::parse);
    let mut next = || numbers.next().context("a short version")?.context("no number");
    let (major, minor) = (next()?, next()?);
    Ok(Product { is_opensearch: major < 5, major, minor })
}
