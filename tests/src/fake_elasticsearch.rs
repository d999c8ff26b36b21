//! A scripted server that speaks as much Elasticsearch as the indexer needs: real HTTP, one thread per connection. It
//! records every item of every bulk request, keeps documents with `create` semantics, and answers as its script says.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use memchr::memmem;
use openssl::ssl::{SslAcceptor, SslAcceptorBuilder, SslFiletype, SslMethod, SslVerifyMode};
use serde_json::{Value, json};

use crate::lock;
use crate::wire::Request;

/// One document of a bulk request.
#[derive(Clone, Debug)]
pub struct Item {
    pub index: String,
    /// Made up here if the request gave none.
    pub id: String,
    pub document: String,
}

/// A bulk request as it was received.
#[derive(Clone, Debug)]
pub struct Bulk {
    /// 0, 1, 2 … in the order of arrival.
    pub number: usize,
    pub at: Instant,
    /// Length of the body, unpacked.
    pub bytes: usize,
    pub is_packed: bool,
    /// The request's `Authorization`.
    pub authorization: String,
    /// Bulk requests that are worked on, this one among them.
    pub num_running: usize,
    pub items: Vec<Item>,
}

/// A failure of one item: status, `error.type`, `error.reason`.
pub type ItemFailure = (u16, &'static str, &'static str);

/// What to do with a bulk request.
pub enum Answer {
    /// Keep the documents, and answer as Elasticsearch does.
    Index,
    /// The same, but these items fail, in the order of the request.
    Items(Vec<Option<ItemFailure>>),
    /// Keep nothing, answer this.
    Status(u16, Vec<(&'static str, String)>, String),
    /// Keep the documents, but answer this body with 200.
    IndexThenSay(String),
    /// Keep the documents, but name one item less in the answer.
    IndexThenOmitOne,
    /// Keep the documents, but answer about them in another order.
    IndexThenReverse,
    /// Keep the documents, but close the connection without an answer.
    IndexThenCut,
    /// Close the connection at once, and keep the documents only after this time, until when a task is shown.
    CutThenIndexAfter(Duration),
    /// Wait, then as the other says.
    After(Duration, Box<Answer>),
}

impl Answer {
    /// Fails the items that `failure` says.
    pub fn items(bulk: &Bulk, failure: impl Fn(&Item) -> Option<ItemFailure>) -> Self {
        Self::Items(bulk.items.iter().map(failure).collect())
    }

    /// Refuses the whole request.
    pub fn refuse(status: u16) -> Self {
        let body = json!({"error": {"type": "scripted", "reason": "refused by the script"}, "status": status});
        Self::Status(status, Vec::new(), body.to_string())
    }
}

type Script = Box<dyn FnMut(&Bulk) -> Answer + Send>;

struct State {
    script: Script,
    bulks: Vec<Bulk>,
    documents: BTreeMap<(String, String), String>,
    templates: HashMap<String, Value>,
    /// Index -> mapping answered for it; an index with documents answers an empty one.
    mappings: HashMap<String, Value>,
    has_ilm: bool,
    /// Method and path -> answer, for requests that are no bulks.
    answers: HashMap<String, (u16, Value)>,
    /// Method and path of each request that was no bulk.
    calls: Vec<String>,
    connections: Vec<TcpStream>,
    num_running: usize,
    keeps_only_ids: bool,
    /// `X-Opaque-Id` of requests that are worked on behind a closed connection.
    running: Vec<String>,
}

/// Documents that were counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    pub num: u64,
    /// Those among them whose id Elasticsearch would make up.
    pub num_without_id: u64,
    /// When the first and the last request with some had been read.
    pub times: Option<(Instant, Instant)>,
}

struct Shared {
    state: Mutex<State>,
    /// Documents are counted and not looked at, if asked for, and answered after this time.
    only_counts: Mutex<Option<Duration>>,
    counted: Mutex<Counted>,
    is_stopped: AtomicBool,
    tls: Option<Mutex<SslAcceptor>>,
}

/// The running server.
pub struct FakeElasticsearch {
    shared: Arc<Shared>,
    address: SocketAddr,
    acceptor: Option<JoinHandle<()>>,
}

impl FakeElasticsearch {
    /// Starts on a free port and takes everything until told otherwise.
    pub fn start() -> Result<Self> {
        Self::start_with(None)
    }

    /// As [`FakeElasticsearch::start`], with TLS: it shows the certificate in these PEM files, and turns away whoever shows none
    /// of `authority` that is valid at that moment.
    pub fn start_secured(authority: &Path, certificate: &Path, key: &Path) -> Result<Self> {
        let mut tls = acceptor(certificate, key)?;
        tls.set_ca_file(authority)?;
        tls.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
        Self::start_with(Some(Mutex::new(tls.build())))
    }

    /// As [`FakeElasticsearch::start`], with TLS and the certificate in these PEM files.
    pub fn start_with_tls(certificate: &Path, key: &Path) -> Result<Self> {
        Self::start_with(Some(Mutex::new(acceptor(certificate, key)?.build())))
    }

    /// Shows another certificate to the connections to come.
    pub fn replace_certificate(&self, certificate: &Path, key: &Path) -> Result<()> {
        let tls = self.shared.tls.as_ref().context("it speaks no TLS")?;
        *lock(tls) = acceptor(certificate, key)?.build();
        Ok(())
    }

    fn start_with(tls: Option<Mutex<SslAcceptor>>) -> Result<Self> {
        let state = State {
            script: Box::new(|_| Answer::Index),
            bulks: Vec::new(),
            documents: BTreeMap::new(),
            templates: HashMap::new(),
            mappings: HashMap::new(),
            has_ilm: false,
            answers: HashMap::new(),
            calls: Vec::new(),
            connections: Vec::new(),
            num_running: 0,
            keeps_only_ids: false,
            running: Vec::new(),
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            only_counts: Mutex::default(),
            counted: Mutex::default(),
            is_stopped: AtomicBool::new(false),
            tls,
        });
        let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
        let address = listener.local_addr()?;
        let acceptor = Some(accept(Arc::clone(&shared), listener));
        Ok(Self { shared, address, acceptor })
    }

    pub fn url(&self) -> String {
        let scheme = if self.shared.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Decides about each bulk request from now on.
    pub fn script(&self, script: impl FnMut(&Bulk) -> Answer + Send + 'static) {
        self.state().script = Box::new(script);
    }

    /// From now on it has lifecycle management, as Elastic documents it: `_ilm/status` and `_ilm/policy/<name>`.
    pub fn offer_lifecycle_management(&self) {
        self.state().has_ilm = true;
    }

    /// Answers a request that is no bulk: `call` is its method and path, as in `PUT _index_template/a`. `None`: as before.
    pub fn answer(&self, call: &str, answer: Option<(u16, Value)>) {
        let answers = &mut self.state().answers;
        match answer {
            Some(answer) => answers.insert(call.to_owned(), answer),
            None => answers.remove(call),
        };
    }

    /// Method and path of each request so far that was no bulk.
    pub fn calls(&self) -> Vec<String> {
        self.state().calls.clone()
    }

    /// Installs a template as somebody else would; `path` is that of its `PUT`, without a slash before it.
    pub fn set_template(&self, path: &str, body: Value) {
        self.state().templates.insert(path.to_owned(), body);
    }

    /// What was installed under `path`.
    pub fn template(&self, path: &str) -> Option<Value> {
        self.state().templates.get(path).cloned()
    }

    /// Answers this mapping for an index, as if it were there.
    pub fn set_mapping(&self, index: &str, mappings: Value) {
        self.state().mappings.insert(index.to_owned(), mappings);
    }

    /// Keeps ids alone from now on, for more documents than memory would hold.
    pub fn keep_only_ids(&self) {
        self.state().keeps_only_ids = true;
    }

    /// From now on documents are only counted, from 0, and answered as created one by one, each request after `pause`: for
    /// measurements.
    pub fn only_count(&self, pause: Duration) {
        *lock(&self.shared.counted) = Counted::default();
        *lock(&self.shared.only_counts) = Some(pause);
    }

    /// The documents that were only counted.
    pub fn counted(&self) -> Counted {
        *lock(&self.shared.counted)
    }

    /// All bulk requests so far.
    pub fn bulks(&self) -> Vec<Bulk> {
        self.state().bulks.clone()
    }

    /// How many items all bulk requests carried together.
    pub fn num_items(&self) -> usize {
        self.state().bulks.iter().map(|bulk| bulk.items.len()).sum()
    }

    /// The documents kept, by index and id.
    pub fn documents(&self) -> BTreeMap<(String, String), String> {
        self.state().documents.clone()
    }

    pub fn num_documents(&self) -> usize {
        self.state().documents.len()
    }

    /// Closes the port and all connections: clients are refused.
    pub fn close_port(&mut self) -> Result<()> {
        self.shared.is_stopped.store(true, Ordering::SeqCst);
        // Wakes the acceptor up.
        drop(TcpStream::connect(self.address));
        if let Some(acceptor) = self.acceptor.take()
            && acceptor.join().is_err()
        {
            bail!("the fake server's acceptor panicked");
        }
        self.cut();
        Ok(())
    }

    /// Closes all connections.
    pub fn cut(&self) {
        for connection in self.state().connections.drain(..) {
            // It may be closed already.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Opens the same port again.
    pub fn open_port(&mut self) -> Result<()> {
        let listener = TcpListener::bind(self.address).context("the port of the fake server was taken meanwhile")?;
        self.shared.is_stopped.store(false, Ordering::SeqCst);
        self.acceptor = Some(accept(Arc::clone(&self.shared), listener));
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }
}

impl Drop for FakeElasticsearch {
    fn drop(&mut self) {
        // Nothing is left to do about a failure.
        let _ = self.close_port();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn acceptor(certificate: &Path, key: &Path) -> Result<SslAcceptorBuilder> {
    let mut tls = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
    tls.set_certificate_chain_file(certificate)?;
    tls.set_private_key_file(key, SslFiletype::PEM)?;
    Ok(tls)
}

fn accept(shared: Arc<Shared>, listener: TcpListener) -> JoinHandle<()> {
    thread::spawn(move || {
        for connection in listener.incoming() {
            if shared.is_stopped.load(Ordering::SeqCst) {
                return;
            }
            let Ok(connection) = connection else { continue };
            let _ = connection.set_nodelay(true);
            let (Ok(copy), Ok(other)) = (connection.try_clone(), connection.try_clone()) else { continue };
            shared.state().connections.push(copy);
            let shared = Arc::clone(&shared);
            // Ends with its connection, which the client or `close_port` closes.
            thread::spawn(move || {
                let _ = match &shared.tls {
                    None => serve(&shared, connection),
                    Some(tls) => {
                        let tls = lock(tls).clone();
                        tls.accept(connection).map_err(Into::into).and_then(|tls| serve(&shared, tls))
                    }
                };
                let _ = other.shutdown(Shutdown::Both);
            });
        }
    })
}

fn serve(shared: &Arc<Shared>, stream: impl Read + Write) -> Result<()> {
    let mut reader = BufReader::new(stream);
    let mut memory = Vec::new();
    while let Some(request) = Request::read_into(&mut reader, memory)? {
        let path = request.path.split('?').next().unwrap_or_default().trim_matches('/').to_owned();
        let pause = *lock(&shared.only_counts);
        let reply = match (path.as_str(), pause) {
            ("_bulk", Some(pause)) => {
                thread::sleep(pause);
                Some(count(shared, &request)?)
            }
            ("_bulk", None) => bulk(shared, &request)?,
            _ => Some(other(shared, &request, &path)),
        };
        let Some((status, headers, body)) = reply else {
            return Ok(());
        };
        request.answer(reader.get_mut(), status, &headers, &body)?;
        if headers.iter().any(|(name, value)| *name == "connection" && value == "close") {
            return Ok(());
        }
        memory = request.body;
    }
    Ok(())
}

type Reply = (u16, Vec<(&'static str, String)>, String);

fn parse_bulk(body: &[u8]) -> Result<Vec<Item>> {
    let text = std::str::from_utf8(body)?;
    if !text.ends_with('\n') {
        bail!("the bulk body does not end with a line break");
    }
    let mut items = Vec::new();
    let mut lines = text.lines();
    while let Some(action) = lines.next() {
        let action: Value = serde_json::from_str(action).context("an action line is not JSON")?;
        let create = &action["create"];
        let document = lines.next().context("an action line without a document")?;
        serde_json::from_str::<Value>(document).context("a document is not JSON")?;
        let index = create["_index"].as_str().with_context(|| format!("no `_index` in {action}"))?.to_owned();
        let id = create["_id"].as_str().map_or_else(made_up_id, str::to_owned);
        items.push(Item { index, id, document: document.to_owned() });
    }
    Ok(items)
}

fn made_up_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("made-up-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn bulk(shared: &Arc<Shared>, request: &Request) -> Result<Option<Reply>> {
    let body = request.unpacked()?;
    let items = match parse_bulk(&body) {
        Ok(items) => items,
        Err(error) => {
            let body =
                json!({"error": {"type": "illegal_argument_exception", "reason": format!("{error:#}")}, "status": 400});
            return Ok(Some((400, Vec::new(), body.to_string())));
        }
    };
    let mut answer = {
        let mut state = shared.state();
        state.num_running += 1;
        let bulk = Bulk {
            number: state.bulks.len(),
            at: Instant::now(),
            bytes: body.len(),
            is_packed: request.is_packed(),
            authorization: request.header("authorization").to_owned(),
            num_running: state.num_running,
            items: items.clone(),
        };
        let kept = if state.keeps_only_ids { Bulk { items: Vec::new(), ..bulk.clone() } } else { bulk.clone() };
        state.bulks.push(kept);
        (state.script)(&bulk)
    };
    while let Answer::After(delay, then) = answer {
        thread::sleep(delay);
        answer = *then;
    }
    shared.state().num_running -= 1;
    if let Answer::CutThenIndexAfter(delay) = answer {
        index_later(Arc::clone(shared), items, request.header("x-opaque-id").to_owned(), delay);
        return Ok(None);
    }
    let mut state = shared.state();
    let mut index = |failures: &[Option<ItemFailure>]| -> Vec<Value> {
        let of = |(at, item): (usize, &Item)| keep(&mut state, item, failures.get(at).copied().flatten());
        items.iter().enumerate().map(of).collect()
    };
    let say = |items: Vec<Value>| {
        let errors = items.iter().any(|item| item["create"]["error"].is_object());
        Some((200, Vec::new(), json!({"took": 1, "errors": errors, "items": items}).to_string()))
    };
    Ok(match answer {
        Answer::Index => say(index(&[])),
        Answer::Items(failures) => say(index(&failures)),
        Answer::Status(status, headers, body) => Some((status, headers, body)),
        Answer::IndexThenSay(body) => {
            index(&[]);
            Some((200, Vec::new(), body))
        }
        Answer::IndexThenOmitOne => {
            let mut items = index(&[]);
            items.pop();
            say(items)
        }
        Answer::IndexThenReverse => {
            let mut items = index(&[]);
            items.reverse();
            say(items)
        }
        Answer::IndexThenCut => {
            index(&[]);
            None
        }
        Answer::After(..) | Answer::CutThenIndexAfter(_) => unreachable!("dealt with above"),
    })
}

/// Answers each document as created, at little cost. Says as much as the indexer's `filter_path` lets through.
fn count(shared: &Shared, request: &Request) -> Result<Reply> {
    let body = request.unpacked()?;
    let (items, num, num_without_id) = created(&body)?;
    let mut counted = lock(&shared.counted);
    let now = Instant::now();
    counted.num += num;
    counted.num_without_id += num_without_id;
    counted.times = Some((counted.times.map_or(now, |(first, _)| first), now));
    Ok((200, Vec::new(), format!(r#"{{"errors":false,"items":[{items}]}}"#)))
}

/// The items of the answer that all documents of a bulk body were created, their number, and that of those without an id.
fn created(body: &[u8]) -> Result<(String, u64, u64)> {
    let id_name = memmem::Finder::new(br#""_id":""#);
    let mut items = String::with_capacity(body.len() / 4);
    let (mut num, mut num_without_id) = (0, 0);
    let mut rest = body;
    while !rest.is_empty() {
        let action = next_line(&mut rest).trim_ascii_end();
        next_line(&mut rest);
        let id = id_name.find(action).and_then(|at| action[at + id_name.needle().len()..].strip_suffix(b"\"}}"));
        items += if num == 0 { "" } else { "," };
        items += if action.starts_with(br#"{"create""#) { r#"{"create":{"_id":""# } else { r#"{"index":{"_id":""# };
        items += id.map_or(Ok("made-up"), std::str::from_utf8)?;
        num_without_id += u64::from(id.is_none());
        items += r#"","status":201}}"#;
        num += 1;
    }
    Ok((items, num, num_without_id))
}

/// Takes a line off, without its end.
fn next_line<'a>(text: &mut &'a [u8]) -> &'a [u8] {
    let end = memchr::memchr(b'\n', text).unwrap_or(text.len());
    let line = &text[..end];
    *text = text.get(end + 1..).unwrap_or_default();
    line
}

fn index_later(shared: Arc<Shared>, items: Vec<Item>, name: String, delay: Duration) {
    shared.state().running.push(name.clone());
    thread::spawn(move || {
        thread::sleep(delay);
        let mut state = shared.state();
        for item in &items {
            keep(&mut state, item, None);
        }
        state.running.retain(|running| *running != name);
    });
}

/// Keeps a document unless it fails or is there already, and gives its part of the answer.
fn keep(state: &mut State, item: &Item, failure: Option<ItemFailure>) -> Value {
    let key = (item.index.clone(), item.id.clone());
    let failure = failure.or_else(|| {
        let is_there = state.documents.contains_key(&key);
        is_there.then_some((409, "version_conflict_engine_exception", "document already exists"))
    });
    let mut result = json!({"_index": item.index, "_id": item.id});
    match failure {
        Some((status, kind, reason)) => {
            result["status"] = status.into();
            result["error"] = json!({"type": kind, "reason": reason});
        }
        None => {
            let document = if state.keeps_only_ids { String::new() } else { item.document.clone() };
            state.documents.insert(key, document);
            result["status"] = 201.into();
            result["result"] = "created".into();
        }
    }
    json!({"create": result})
}

fn other(shared: &Shared, request: &Request, path: &str) -> Reply {
    let mut state = shared.state();
    let ok = |body: Value| (200, Vec::new(), body.to_string());
    let call = format!("{} {path}", request.method);
    let answer = state.answers.get(&call).cloned();
    state.calls.push(call);
    if let Some((status, body)) = answer {
        return (status, Vec::new(), body.to_string());
    }
    match (request.method.as_str(), path) {
        ("HEAD", _) => (200, Vec::new(), String::new()),
        ("GET", "_nodes/http") => ok(json!({"nodes": {"fake": {"version": "8.19.7"}}})),
        ("GET", "_tasks") => {
            let task = |(n, name): (usize, &String)| (format!("fake:{n}"), json!({"headers": {"X-Opaque-Id": name}}));
            let tasks: serde_json::Map<String, Value> = state.running.iter().enumerate().map(task).collect();
            ok(json!({"nodes": {"fake": {"tasks": tasks}}}))
        }
        ("GET", "_ilm/status") if state.has_ilm => ok(json!({"operation_mode": "RUNNING"})),
        ("GET", "_index_template") => ok(json!({"index_templates": []})),
        ("POST", path) if path.starts_with("_index_template/_simulate_index/") => {
            ok(json!({"template": {"mappings": {}, "settings": {}}, "overlapping": []}))
        }
        ("PUT", path) => {
            let body = serde_json::from_slice(&request.body).unwrap_or_default();
            state.templates.insert(path.to_owned(), body);
            ok(json!({"acknowledged": true}))
        }
        ("GET", path) if path.starts_with('_') => match (state.templates.get(path), path.split_once('/')) {
            (Some(body), Some(("_index_template", name))) => {
                ok(json!({"index_templates": [{"name": name, "index_template": body}]}))
            }
            (Some(body), Some(("_ilm", name))) => {
                let name = name.trim_start_matches("policy/");
                ok(json!({name: {"version": 1, "modified_date": "2026-11-25T10:00:00.000Z", "policy": body["policy"]}}))
            }
            (Some(body), Some((_, name))) => {
                ok(json!({"component_templates": [{"name": name, "component_template": body}]}))
            }
            _ => (404, Vec::new(), json!({"error": "not there", "status": 404}).to_string()),
        },
        ("GET", index) => {
            let has_documents = state.documents.keys().any(|(of, _)| of == index);
            match state.mappings.get(index).cloned().or(has_documents.then(|| json!({}))) {
                Some(mappings) => ok(json!({index: {"aliases": {}, "mappings": mappings, "settings": {}}})),
                None => (
                    404,
                    Vec::new(),
                    json!({"error": {"type": "index_not_found_exception"}, "status": 404}).to_string(),
                ),
            }
        }
        _ => (405, Vec::new(), String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counted_documents_are_answered_as_created() -> Result<()> {
        let body =
            b"{\"create\":{\"_index\":\"a\",\"_id\":\"1\"}}\n{\"_id\":\"no\"}\n{\"index\":{\"_index\":\"a\"}}\r\n{}\n";
        let items = r#"{"create":{"_id":"1","status":201}},{"index":{"_id":"made-up","status":201}}"#;
        assert_eq!(created(body)?, (items.to_owned(), 2, 1));
        assert_eq!(created(b"")?, (String::new(), 0, 0));
        Ok(())
    }
}
