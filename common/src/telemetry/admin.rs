//! The admin endpoint: health, metrics and status over HTTP. It only answers GET and changes nothing.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::{Semaphore, oneshot};

use super::gauges::Gauges;
use super::metrics::MetricsHandle;

/// What a program knows about itself. Called on the admin thread, which serves one request at a time: must not block.
pub trait Health: Send + Sync + 'static {
    /// Whether the event loop turns, else why not. Never depends on Kafka or Elasticsearch.
    fn live(&self) -> Result<(), String>;

    /// Whether the program does its work, else every reason why not.
    fn ready(&self) -> Result<(), Vec<String>>;

    /// Everything a person wants to see.
    fn status(&self) -> serde_json::Value;

    /// Brings metrics up to date that are not kept so all the time.
    fn before_scrape(&self) {}

    /// Tells the gauges whose series come and go.
    fn gauges(&self, _gauges: &mut Gauges) {}
}

/// Where to listen, and who speaks.
#[derive(Debug, Clone)]
pub struct AdminOptions {
    /// `host:port`; port 0 takes a free one.
    pub listen: String,
    pub program: &'static str,
}

/// Why the endpoint cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("cannot listen on `{listen}`: the port is in use; stop what listens there or set another `admin.listen`")]
    InUse { listen: String },
    #[error("cannot listen on `{listen}`; set `admin.listen` to an address of this machine, such as 127.0.0.1:9640")]
    Listen {
        listen: String,
        #[source]
        cause: io::Error,
    },
    #[error("cannot start the admin thread")]
    Start(#[source] io::Error),
}

/// A running endpoint; dropping it closes it.
pub struct Admin {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Admin {
    /// The address that was really bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It ends at once, or ended by a panic that the panic hook has told.
            let _ = thread.join();
        }
    }
}

/// The endpoint of a program whose settings may change meanwhile.
#[derive(Default)]
pub struct Endpoint {
    current: Option<(String, Admin)>,
}

impl Endpoint {
    /// Listens as `options` say; what listens there already goes on as it is.
    ///
    /// # Errors
    /// Those of [`spawn`].
    pub fn listen(
        &mut self,
        options: AdminOptions,
        health: Arc<dyn Health>,
        metrics: &MetricsHandle,
        extra: Router,
    ) -> Result<(), AdminError> {
        let listen = options.listen.clone();
        if self.current.as_ref().is_none_or(|(current, _)| *current != listen) {
            // Its port may be the same.
            drop(self.current.take());
            self.current = Some((listen, spawn(options, health, metrics.clone(), extra)?));
        }
        Ok(())
    }
}

/// Answers `/livez`, `/readyz`, `/metrics`, `/status` and the routes of `extra`, on a thread of its own.
///
/// # Errors
/// The address is taken, is not one of this machine, or the thread cannot be started.
pub fn spawn(
    options: AdminOptions,
    health: Arc<dyn Health>,
    metrics: MetricsHandle,
    extra: Router,
) -> Result<Admin, AdminError> {
    let AdminOptions { listen, program } = options;
    let listener = bind(&listen)?;
    let address = listener.local_addr().map_err(AdminError::Start)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().map_err(AdminError::Start)?;
    let (stop, stopped) = oneshot::channel();
    let router = routes(health, metrics.clone()).merge(extra);
    let thread = std::thread::Builder::new()
        .name("admin".to_owned())
        .spawn(move || runtime.block_on(serve(listener, router, metrics, stopped)))
        .map_err(AdminError::Start)?;
    tracing::info!(%address, program, "admin endpoint listening");
    Ok(Admin { address, stop: Some(stop), thread: Some(thread) })
}

/// Whether `listen` has the form `host:port`, else what is wrong with it.
pub fn check_listen(listen: &str) -> Result<(), String> {
    match listen.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(()),
        _ => Err(format!("`{listen}` is not an address with a port")),
    }
}

/// Whether a running program that listens on `before` could listen on `after`.
///
/// # Errors
/// The address is taken, or is not one of this machine.
pub fn prove_listen(before: &str, after: &str) -> Result<(), AdminError> {
    let port = |listen: &str| listen.rsplit_once(':').map(|(_, port)| port.to_owned());
    // The port is ours: it is free once the endpoint before is closed.
    if port(before) == port(after) { Ok(()) } else { bind(after).map(|_| ()) }
}

fn bind(listen: &str) -> Result<TcpListener, AdminError> {
    let open = || {
        let listener = TcpListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    open().map_err(|cause: io::Error| match cause.kind() {
        io::ErrorKind::AddrInUse => AdminError::InUse { listen: listen.to_owned() },
        _ => AdminError::Listen { listen: listen.to_owned(), cause },
    })
}

fn routes(health: Arc<dyn Health>, metrics: MetricsHandle) -> Router {
    let (live, ready, status) = (Arc::clone(&health), Arc::clone(&health), Arc::clone(&health));
    let scrape = move || {
        health.before_scrape();
        let mut text = metrics.render();
        let mut gauges = Gauges::default();
        health.gauges(&mut gauges);
        text.push_str(&gauges.render());
        ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
    };
    Router::new()
        .route("/livez", get(async move || verdict(live.live().map_err(|reason| vec![reason]))))
        .route("/readyz", get(async move || verdict(ready.ready())))
        .route("/metrics", get(async move || scrape()))
        .route("/status", get(async move || json(&status.status())))
}

fn verdict(result: Result<(), Vec<String>>) -> Response {
    match result {
        Ok(()) => "ok\n".into_response(),
        Err(reasons) => (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n").into_response(),
    }
}

/// A JSON answer, indented for people.
pub fn json(value: &serde_json::Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], format!("{value:#}\n")).into_response()
}

/// More connections at once than probes, scrapers and people need.
const MAX_CONNECTIONS: usize = 128;
/// A peer that does not finish its request, or keeps a connection idle, loses it.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// A peer that does not read the answer loses the connection.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(300);
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

async fn serve(listener: TcpListener, router: Router, metrics: MetricsHandle, mut stopped: oneshot::Receiver<()>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "admin endpoint cannot start"),
    };
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut upkeep = tokio::time::interval(UPKEEP_EVERY);
    loop {
        // Each branch can be dropped without loss: a connection not yet accepted stays in the kernel's queue.
        let stream = tokio::select! {
            _ = &mut stopped => return,
            _ = upkeep.tick() => {
                metrics.run_upkeep();
                continue;
            }
            accepted = accept(&listener, &permits) => accepted,
        };
        let (stream, permit) = match stream {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors as a rule: without a pause this would spin.
                tracing::debug!(%error, "admin endpoint cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(16 * 1024)
            .serve_connection(TokioIo::new(stream), service);
        #[expect(
            clippy::disallowed_methods,
            reason = "ends with the runtime of this thread, and the number is bounded by permits"
        )]
        tokio::spawn(async move {
            // A peer that went away, or took too long, is no concern of ours.
            let _ = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await;
            drop(permit);
        });
    }
}

async fn accept(
    listener: &tokio::net::TcpListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, permit))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::metrics;
    use super::*;

    struct Switch(AtomicBool);

    impl Health for Switch {
        fn live(&self) -> Result<(), String> {
            Ok(())
        }

        fn ready(&self) -> Result<(), Vec<String>> {
            if self.0.load(Ordering::Relaxed) { Ok(()) } else { Err(vec!["first scan".to_owned(), "state".to_owned()]) }
        }

        fn status(&self) -> serde_json::Value {
            serde_json::json!({"files": 2})
        }

        fn gauges(&self, gauges: &mut Gauges) {
            gauges.set("shipper_blocked", "Blocked.", &[("reason", "none")], 0.0);
        }
    }

    fn start(ready: bool, extra: Router) -> (Admin, Arc<Switch>) {
        let (_, handle) = metrics::detached("shipper", crate::build_info::BuildInfo::new("0", None)).unwrap();
        let health = Arc::new(Switch(AtomicBool::new(ready)));
        let options = AdminOptions { listen: "127.0.0.1:0".to_owned(), program: "shipper" };
        (spawn(options, Arc::clone(&health) as Arc<dyn Health>, handle, extra).unwrap(), health)
    }

    fn request(admin: &Admin, method: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(admin.address()).unwrap();
        write!(stream, "{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn health_metrics_status_and_extra_routes_are_answered() {
        let (admin, health) = start(false, Router::new().route("/pipeline", get(async || "flowing")));
        assert!(request(&admin, "GET", "/livez").starts_with("HTTP/1.1 200"));
        let answer = request(&admin, "GET", "/readyz");
        assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("first scan\nstate\n"), "{answer}");
        health.0.store(true, Ordering::Relaxed);
        assert!(request(&admin, "GET", "/readyz").starts_with("HTTP/1.1 200"));
        assert!(request(&admin, "GET", "/status").ends_with("{\n  \"files\": 2\n}\n"));
        let answer = request(&admin, "GET", "/metrics");
        assert!(
            answer.contains("shipper_blocked{reason=\"none\"} 0\n") && answer.contains("shipper_build_info"),
            "{answer}"
        );
        assert!(request(&admin, "GET", "/pipeline").ends_with("flowing"));
        assert!(request(&admin, "GET", "/nowhere").starts_with("HTTP/1.1 404"));
    }

    #[test]
    fn nothing_but_get_and_head_is_allowed() {
        let (admin, _) = start(true, Router::new());
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            assert!(request(&admin, method, "/status").starts_with("HTTP/1.1 405"), "{method}");
        }
    }

    #[test]
    fn a_port_in_use_and_a_foreign_address_are_told_apart() {
        let (admin, _) = start(true, Router::new());
        let (_, handle) = metrics::detached("shipper", crate::build_info::BuildInfo::new("0", None)).unwrap();
        let again = |listen: String| {
            let options = AdminOptions { listen, program: "shipper" };
            spawn(options, Arc::new(Switch(AtomicBool::new(true))), handle.clone(), Router::new()).err().unwrap()
        };
        assert!(matches!(again(admin.address().to_string()), AdminError::InUse { .. }));
        assert!(matches!(again("192.0.2.1:1".to_owned()), AdminError::Listen { .. }));
        let address = admin.address();
        drop(admin);
        assert!(TcpStream::connect(address).is_err(), "dropping closes the port");
    }

    #[test]
    fn an_address_needs_a_host_and_a_port() {
        assert!(check_listen("0.0.0.0:9640").is_ok() && check_listen("[::1]:0").is_ok());
        assert!(check_listen("9640").is_err() && check_listen(":9640").is_err() && check_listen("a:99999").is_err());
    }
}
