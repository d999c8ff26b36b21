//! A proxy before a real Elasticsearch that pushes back at random while a storm is on: whole requests and single items, as an
//! overloaded node does. What it refuses never reaches the node.

use std::io::BufReader;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::http::{self, Reply};
use crate::wire::Request;

/// Of a hundred requests, so many are refused as a whole while a storm is on; and of a hundred items of the others.
const REQUESTS: u64 = 30;
const ITEMS: u64 = 20;

pub struct Storm {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: String,
    is_on: AtomicBool,
    random: AtomicU64,
    num_refused: AtomicU64,
}

impl Storm {
    /// Listens on a free port until this process ends; all is calm.
    ///
    /// # Errors
    ///
    /// If no port is free.
    pub fn start(target: &str, seed: u64) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target: target.to_owned(),
            is_on: AtomicBool::new(false),
            random: AtomicU64::new(seed),
            num_refused: AtomicU64::new(0),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let shared = Arc::clone(&accepting);
                thread::spawn(move || {
                    // The node is away, or the client: the connection ends, which is all a proxy can say.
                    let _ = serve(&shared, &connection);
                    let _ = connection.shutdown(Shutdown::Both);
                });
            }
        });
        Ok(Self { addr, shared })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub fn set(&self, is_on: bool) {
        self.shared.is_on.store(is_on, Ordering::SeqCst);
    }

    /// Requests and items pushed back so far.
    pub fn num_refused(&self) -> u64 {
        self.shared.num_refused.load(Ordering::SeqCst)
    }
}

impl Shared {
    /// A number below 100 (splitmix64).
    fn draw(&self) -> u64 {
        let mut mixed = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % 100
    }

    fn refuses(&self, share: u64) -> bool {
        let refuses = self.is_on.load(Ordering::SeqCst) && self.draw() < share;
        self.num_refused.fetch_add(u64::from(refuses), Ordering::SeqCst);
        refuses
    }
}

fn serve(shared: &Shared, connection: &TcpStream) -> Result<()> {
    connection.set_nodelay(true)?;
    let mut writer = connection.try_clone()?;
    let mut reader = BufReader::new(connection.try_clone()?);
    while let Some(request) = Request::read(&mut reader)? {
        let is_bulk = request.path.starts_with("/_bulk");
        if is_bulk && shared.refuses(REQUESTS) {
            let body = json!({"error": {"type": "es_rejected_execution_exception", "reason": "storm"}, "status": 429});
            request.answer(&mut writer, 429, &[], &body.to_string())?;
            continue;
        }
        let reply = if is_bulk { bulk(shared, &request)? } else { forward(shared, &request, request.body.clone())? };
        request.answer(&mut writer, reply.status, &[], &reply.body)?;
    }
    Ok(())
}

fn forward(shared: &Shared, request: &Request, body: Vec<u8>) -> Result<Reply> {
    let url = format!("{}{}", shared.target, request.path);
    let body = (!body.is_empty()).then(|| String::from_utf8(body)).transpose()?;
    http::request_as(&request.method, &url, body, request.header("content-type"), request.header("x-opaque-id"))
}

/// Hands on what is not refused, and puts the replies together.
fn bulk(shared: &Shared, request: &Request) -> Result<Reply> {
    let body = request.unpacked()?;
    let text = std::str::from_utf8(&body)?;
    let lines: Vec<&str> = text.lines().collect();
    let mut passed = String::new();
    let mut refused: Vec<Option<Value>> = Vec::new();
    for pair in lines.chunks(2) {
        if shared.refuses(ITEMS) {
            let action: Value = serde_json::from_str(pair[0])?;
            let error = json!({"type": "es_rejected_execution_exception", "reason": "storm"});
            refused.push(Some(json!({"create": {"_id": action["create"]["_id"], "status": 429, "error": error}})));
        } else {
            passed.extend(pair.iter().flat_map(|line| [*line, "\n"]));
            refused.push(None);
        }
    }
    if refused.iter().all(Option::is_none) {
        return forward(shared, request, passed.into_bytes());
    }
    let mut items = Vec::new().into_iter();
    if !passed.is_empty() {
        let reply = forward(shared, request, passed.into_bytes())?;
        if reply.status != 200 {
            return Ok(reply);
        }
        let mut body: Value = serde_json::from_str(&reply.body)?;
        items = body["items"].as_array_mut().map(std::mem::take).unwrap_or_default().into_iter();
    }
    let all: Vec<Value> = refused.into_iter().filter_map(|refused| refused.or_else(|| items.next())).collect();
    Ok(Reply { status: 200, body: json!({"errors": true, "items": all}).to_string() })
}
