//! HTTP to Elasticsearch. The only module that knows the `elasticsearch` crate, whose versions are pre-releases.
//!
//! Each host has a transport of its own, so that which host is asked is decided here: a host that failed is left alone for
//! a while, and a host whose connection was idle for some seconds is asked for a sign of life on a new one first, since a load
//! balancer may have forgotten idle connections without a word.

#![expect(clippy::disallowed_methods, reason = "an edge module: hosts are down and idle by the clock")]

use std::error::Error as _;
use std::io::Write as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bytes::Bytes;
use elasticsearch::auth::{ClientCertificate as Identity, Credentials};
use elasticsearch::cert::{Certificate, CertificateValidation};
use elasticsearch::http::headers::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
};
use elasticsearch::http::transport::{SingleNodeConnectionPool, Transport, TransportBuilder};
use elasticsearch::http::{Method, Url};
use flate2::Compression;
use flate2::write::GzEncoder;
use millrace_common::retry::Delays;
use openssl::error::ErrorStack;
use openssl::pkcs12::Pkcs12;
use openssl::pkey::PKey;
use openssl::stack::Stack;
use openssl::x509::X509;
use serde_json::Value;

use super::connections::{Connections, Taken};
use crate::config::{Authentication, ClientCertificate, Elasticsearch};

/// Only what is read of a bulk reply, which makes it a third as long.
const BULK_PATH: &str = "_bulk?filter_path=errors,error,status,items.*._id,items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by";

/// Elasticsearch waits for an index to be made, for a mapping to change and for a shard one after the other, each for its own
/// `timeout`. So many fit into ours, so that it can say 503 of a shard that is not there before we give up.
const WAITS: u32 = 3;

/// Elasticsearch shows it with its tasks.
const X_OPAQUE_ID: HeaderName = HeaderName::from_static("x-opaque-id");

const SIGN_OF_LIFE: Duration = Duration::from_secs(3);
/// Limit for all requests but bulk.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("`{host}` is not a usable address: {what}")]
    Address { host: String, what: String },
    #[error("cannot read the CA certificates in `{path}`: {what}")]
    Certificate { path: String, what: String },
    #[error("cannot use the client certificate in `{certificate}` with the key in `{key}`: {what}")]
    ClientCertificate { certificate: String, key: String, what: String },
    #[error("cannot read the credentials: {0}")]
    Credentials(#[from] millrace_common::config::SecretError),
    #[error("cannot set up HTTP: {0}")]
    Transport(String),
}

/// No reply was received.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No host took the request: nothing was sent.
    #[error("cannot reach {host}: {cause}")]
    NotSent { host: String, cause: String },
    /// The request may have been processed, and may still be.
    #[error("no complete reply from {host}: {cause}")]
    Unknown {
        host: String,
        cause: String,
        /// Not a word of a reply came in time, and the connection stood.
        is_timeout: bool,
    },
}

/// A reply, whatever its status.
#[derive(Debug)]
pub struct HttpReply {
    pub status: u16,
    pub retry_after: Option<Duration>,
    pub body: Bytes,
}

impl HttpReply {
    /// The body as JSON, null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The start of the body on one line, for logs.
    pub fn excerpt(&self) -> String {
        let text = String::from_utf8_lossy(&self.body[..self.body.len().min(500)]);
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

pub struct Client {
    settings: Elasticsearch,
    hosts: Vec<Host>,
    next: Mutex<usize>,
}

struct Host {
    name: String,
    url: Url,
    state: Mutex<HostState>,
}

struct HostState {
    transport: Transport,
    connections: Connections,
    down_until: Option<Instant>,
    delays: Delays,
}

impl Client {
    /// # Errors
    /// An address, certificate or secret that cannot be used.
    pub fn new(settings: Elasticsearch) -> Result<Self, ClientError> {
        let mut hosts = Vec::with_capacity(settings.hosts.len());
        for name in &settings.hosts {
            let address = |what: String| ClientError::Address { host: name.clone(), what };
            let url = Url::parse(name).map_err(|e| address(e.to_string()))?;
            let transport = transport(&settings, url.clone())?;
            let delays = Delays::new(Duration::from_secs(1), Duration::from_secs(30));
            let state =
                Mutex::new(HostState { transport, connections: Connections::default(), down_until: None, delays });
            hosts.push(Host { name: name.clone(), url, state });
        }
        Ok(Self { settings, hosts, next: Mutex::new(0) })
    }

    /// Sends a bulk body to a host that is up. Gives up after the configured timeout. `name` is how Elasticsearch knows the
    /// request among its tasks.
    pub async fn bulk(&self, body: Bytes, name: &str) -> Result<HttpReply, SendError> {
        let mut headers = HeaderMap::new();
        if let Ok(name) = HeaderValue::from_str(name) {
            headers.insert(X_OPAQUE_ID, name);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        let body = if self.settings.gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            gzip(&body)
        } else {
            body
        };
        let timeout = self.settings.request_timeout;
        self.send(Method::Post, &bulk_path(timeout), headers, Some(body), timeout).await
    }

    /// Whether Elasticsearch still works on the bulk request of that name, on any node. `None` if that cannot be told.
    pub async fn is_running(&self, name: &str) -> Option<bool> {
        let reply = self.get("_tasks?actions=indices:data/write/bulk*").await.ok()?;
        let body = reply.json();
        let nodes = body["nodes"].as_object().filter(|_| reply.status == 200 && body.get("node_failures").is_none())?;
        let tasks = nodes.values().filter_map(|node| node["tasks"].as_object()).flatten();
        let mut names = tasks.filter_map(|(_, task)| task.pointer("/headers/X-Opaque-Id")?.as_str());
        Some(names.any(|running| running == name))
    }

    /// How long a bulk request may take.
    pub fn request_timeout(&self) -> Duration {
        self.settings.request_timeout
    }

    /// Any other request. `path` begins without a slash.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<HttpReply, SendError> {
        let body = body.map(|body| Bytes::from(body.to_string()));
        self.send(method, path, HeaderMap::new(), body, CALL_TIMEOUT).await
    }

    /// As [`Client::call`] for reading.
    pub async fn get(&self, path: &str) -> Result<HttpReply, SendError> {
        self.call(Method::Get, path, None).await
    }

    /// Reads the credentials again, since secrets rotate.
    pub fn renew_credentials(&self) -> Result<(), ClientError> {
        if let Some(credentials) = credentials(&self.settings.authentication)? {
            for host in &self.hosts {
                lock(&host.state).transport.set_auth(credentials.clone());
            }
        }
        Ok(())
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        mut headers: HeaderMap,
        body: Option<Bytes>,
        timeout: Duration,
    ) -> Result<HttpReply, SendError> {
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        // Unpacking costs more than a local network gains.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let mut last = None;
        for host in self.in_turn() {
            if let Err(error) = self.sign_of_life(host).await {
                last = Some(error);
                continue;
            }
            let (transport, taken) = host.take();
            let sent = transport.send(method, path, headers.clone(), None::<&()>, body.clone(), Some(timeout)).await;
            match read(sent, &host.name).await {
                Ok(reply) => {
                    host.answered(taken);
                    return Ok(reply);
                }
                Err(error) => {
                    host.failed();
                    let was_sent = matches!(error, SendError::Unknown { .. });
                    last = Some(error);
                    if was_sent {
                        break;
                    }
                }
            }
        }
        Err(last.unwrap_or_else(|| SendError::NotSent { host: "any host".into(), cause: "none is configured".into() }))
    }

    /// The hosts to try, best first: those that are up in turn, then the one that was down for longest.
    fn in_turn(&self) -> Vec<&Host> {
        let mut next = self.next.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *next = next.wrapping_add(1);
        let now = Instant::now();
        let down_until = |host: &Host| lock(&host.state).down_until.filter(|until| *until > now);
        let rotated = (0..self.hosts.len()).map(|i| &self.hosts[(*next + i) % self.hosts.len()]);
        let (up, mut down): (Vec<&Host>, Vec<&Host>) = rotated.partition(|host| down_until(host).is_none());
        if up.is_empty() {
            down.sort_by_key(|host| down_until(host));
            down.truncate(1);
            return down;
        }
        up
    }

    /// Asks a host whose next connection was idle for a while whether it answers at all; any status will do.
    async fn sign_of_life(&self, host: &Host) -> Result<(), SendError> {
        {
            let mut state = lock(&host.state);
            if state.connections.are_fresh(Instant::now()) {
                return Ok(());
            }
            if let Ok(fresh) = transport(&self.settings, host.url.clone()) {
                state.transport = fresh;
            }
            state.connections.begin_anew();
        }
        let (transport, taken) = host.take();
        let sent =
            transport.send(Method::Head, "", HeaderMap::new(), None::<&()>, None::<()>, Some(SIGN_OF_LIFE)).await;
        match sent {
            Ok(_) => {
                host.answered(taken);
                Ok(())
            }
            Err(error) => {
                host.failed();
                Err(SendError::NotSent { host: host.name.clone(), cause: causes(&error) })
            }
        }
    }
}

impl Host {
    fn take(&self) -> (Transport, Taken) {
        let mut state = lock(&self.state);
        (state.transport.clone(), state.connections.take())
    }

    fn answered(&self, taken: Taken) {
        let mut state = lock(&self.state);
        state.connections.put_back(taken, Instant::now());
        state.down_until = None;
        state.delays.reset();
    }

    fn failed(&self) {
        let mut state = lock(&self.state);
        state.connections.begin_anew();
        state.down_until = Some(Instant::now() + state.delays.next_delay());
    }
}

/// The guarded values are whole after every assignment, so a panic elsewhere does not spoil them.
fn lock(state: &Mutex<HostState>) -> std::sync::MutexGuard<'_, HostState> {
    state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

async fn read(
    sent: Result<elasticsearch::http::response::Response, elasticsearch::Error>,
    host: &str,
) -> Result<HttpReply, SendError> {
    let unknown = |error: &elasticsearch::Error, is_timeout| SendError::Unknown {
        host: host.to_owned(),
        cause: causes(error),
        is_timeout,
    };
    let response = sent.map_err(|error| match is_connect(&error) {
        true => SendError::NotSent { host: host.to_owned(), cause: causes(&error) },
        false => unknown(&error, error.is_timeout()),
    })?;
    let status = response.status_code().as_u16();
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| parse_retry_after(value.to_str().ok()?));
    let body = response.bytes().await.map_err(|error| unknown(&error, false))?;
    Ok(HttpReply { status, retry_after, body })
}

fn bulk_path(request_timeout: Duration) -> String {
    format!("{BULK_PATH}&timeout={}ms", (request_timeout / WAITS).as_millis())
}

fn is_connect(error: &elasticsearch::Error) -> bool {
    error.source().and_then(|cause| cause.downcast_ref::<reqwest::Error>()).is_some_and(reqwest::Error::is_connect)
}

fn causes(error: &elasticsearch::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_words = inner.to_string();
        if !words.contains(&inner_words) {
            words.push_str(": ");
            words.push_str(&inner_words);
        }
        cause = inner.source();
    }
    if let Some(remedy) = remedy(&words) {
        words.push_str("; ");
        words.push_str(remedy);
    }
    words
}

/// What to do about a refusal of TLS.
fn remedy(cause: &str) -> Option<&'static str> {
    let is = |words: &str| cause.contains(words);
    if is("certificate required") || is("bad certificate") {
        Some("the server wants a certificate: set `elasticsearch.client_certificate_file` and `client_key_file`")
    } else if is("certificate has expired") {
        Some("renew the server's certificate")
    } else if is("certificate verify failed") {
        Some("put the authority into `elasticsearch.ca_file`, and write the host as its certificate names it")
    } else if is("unexpected EOF") || is("wrong version number") {
        Some("does it speak TLS? Write `http://` in `elasticsearch.hosts` if not")
    } else {
        None
    }
}

/// Seconds, or an HTTP date.
fn parse_retry_after(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    date.duration_since(jiff::Timestamp::now()).try_into().ok()
}

/// Level 1: more costs CPU that indexing needs.
fn gzip(body: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    // Writing to a vector does not fail.
    let written = encoder.write_all(body).and_then(|()| encoder.finish());
    written.unwrap_or_default().into()
}

fn transport(settings: &Elasticsearch, url: Url) -> Result<Transport, ClientError> {
    let mut builder = TransportBuilder::new(SingleNodeConnectionPool::new(url)).enable_meta_header(false);
    if let Some(files) = &settings.client_certificate {
        builder = builder.auth(Credentials::Certificate(Identity::Pkcs12(archive(files)?, None)));
    }
    if settings.accept_any_certificate {
        builder = builder.cert_validation(CertificateValidation::None);
    } else if let Some(path) = &settings.ca_file {
        let certificate = |what: String| ClientError::Certificate { path: path.display().to_string(), what };
        let pem = std::fs::read(path).map_err(|e| certificate(e.to_string()))?;
        let chain = Certificate::from_pem(&pem).map_err(|e| certificate(e.to_string()))?;
        builder = builder.cert_validation(CertificateValidation::Full(chain));
    }
    let transport = builder.build().map_err(|e| ClientError::Transport(e.to_string()))?;
    // Only now: the builder takes either a certificate or a login.
    if let Some(credentials) = credentials(&settings.authentication)? {
        transport.set_auth(credentials);
    }
    Ok(transport)
}

/// Certificate and key as the TLS library of the HTTP client takes them.
fn archive(files: &ClientCertificate) -> Result<Vec<u8>, ClientError> {
    let told = |what: String| ClientError::ClientCertificate {
        certificate: files.certificate.display().to_string(),
        key: files.key.display().to_string(),
        what,
    };
    let certificate = std::fs::read(&files.certificate).map_err(|e| told(e.to_string()))?;
    let key = std::fs::read(&files.key).map_err(|e| told(e.to_string()))?;
    let pack = || -> Result<Option<Vec<u8>>, ErrorStack> {
        let key = PKey::private_key_from_pem_callback(&key, |_| Ok(0))?;
        let mut chain = X509::stack_from_pem(&certificate)?.into_iter();
        let Some(own) = chain.next() else { return Ok(None) };
        let mut others = Stack::new()?;
        chain.try_for_each(|certificate| others.push(certificate))?;
        if !own.public_key()?.public_eq(&key) {
            return Ok(None);
        }
        Pkcs12::builder().pkey(&key).cert(&own).ca(others).build2("")?.to_der().map(Some)
    };
    pack().map_err(|e| told(e.to_string()))?.ok_or_else(|| told("they do not belong together".to_owned()))
}

fn credentials(authentication: &Authentication) -> Result<Option<Credentials>, ClientError> {
    Ok(match authentication {
        Authentication::None => None,
        Authentication::ApiKey(key) => Some(Credentials::EncodedApiKey(key.read()?.trim().to_owned())),
        Authentication::Bearer(token) => Some(Credentials::Bearer(token.read()?.trim().to_owned())),
        Authentication::Basic { username, password } => {
            Some(Credentials::Basic(username.clone(), password.read()?.trim_end_matches('\n').to_owned()))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elasticsearch_tells_of_a_missing_shard_before_we_give_up() {
        let path = bulk_path(Duration::from_secs(60));
        assert!(path.starts_with("_bulk?filter_path=") && path.ends_with("&timeout=20000ms"), "{path}");
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_date() {
        assert_eq!(parse_retry_after(" 10 "), Some(Duration::from_secs(10)));
        assert!(parse_retry_after("Fri, 31 Dec 2100 23:59:59 GMT").is_some_and(|after| after.as_secs() > 1_000_000));
        assert_eq!(parse_retry_after("Thu, 01 Jan 1970 00:00:00 GMT"), None);
        assert_eq!(parse_retry_after("soon"), None);
    }
}
