//! The thread that talks to Elasticsearch: a small runtime with one task per request.
//!
//! The owner sends requests and receives outcomes over channels. Their number is bounded by the concurrency limit and by the
//! partitions that wait for a plan, their bytes by the budget of the batches they carry.

#![expect(
    clippy::disallowed_methods,
    reason = "an edge module: requests are timed, and the channels are bounded as stated above"
)]

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use millrace_common::json::Parser;
use tokio::sync::{mpsc as tokio_mpsc, oneshot};
use tokio::task::JoinSet;

use super::batch::Batch;
use super::client::{Client, SendError};
use super::response::{self, Malformed, Refusal, Reply};
use super::schedule::{Departure, Passed};
use crate::templates::{self, Lookup, LookupError, NotReady, Templates};

/// What the owner asks for.
pub enum Request {
    Bulk(Departure),
    /// The plan for an index.
    Plan(PlanRequest),
}

pub struct PlanRequest {
    pub target: u32,
    pub index: Arc<str>,
    pub rule: Arc<crate::map::RuleOptions>,
}

/// What became of it.
pub enum Outcome {
    Bulk(BulkOutcome),
    Plan {
        target: u32,
        result: Result<Lookup, LookupError>,
    },
    /// Elasticsearch was reached and the templates stand as they should; or why not yet.
    Setup(Result<(), NotReady>),
}

pub struct BulkOutcome {
    pub batch: Batch,
    pub passed: Passed,
    pub took: Duration,
    pub status: Option<u16>,
    pub retry_after: Option<Duration>,
    pub result: Result<Reply, BulkError>,
    /// There was no complete reply, and it is not known whether Elasticsearch still works on the request.
    pub may_be_running: bool,
}

/// Why a bulk request told nothing about its items.
#[derive(Debug, thiserror::Error)]
pub enum BulkError {
    #[error(transparent)]
    Send(#[from] SendError),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("Elasticsearch answers {status}: {words}")]
    Refused { refusal: Refusal, status: u16, words: String },
}

/// The owner's end. Dropping it stops the thread at once, requests on their way are given up.
pub struct Service {
    _stop: oneshot::Sender<()>,
    requests: tokio_mpsc::UnboundedSender<Request>,
    outcomes: mpsc::Receiver<Outcome>,
}

impl Service {
    /// Starts the thread. It first sets the templates up; plans and bulk requests wait for that. `wake` is called after
    /// each outcome.
    pub fn start(client: Client, templates: Templates, wake: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (requests, received) = tokio_mpsc::unbounded_channel();
        let (sender, outcomes) = mpsc::channel();
        let report = move |outcome| {
            // The owner hangs up only when it is done with everything.
            let is_wanted = sender.send(outcome).is_ok();
            wake();
            is_wanted
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let run = move || {
            runtime.block_on(async {
                // Nothing is lost with what is dropped here: its offsets are not committed.
                tokio::select! {
                    _ = stopped => {}
                    () = run(Arc::new(client), templates, received, report) => {}
                }
            });
        };
        thread::Builder::new().name("elasticsearch".into()).spawn(run)?;
        Ok(Self { _stop: stop, requests, outcomes })
    }

    /// `false` if the thread is gone, which only a panic can bring about.
    pub fn send(&self, request: Request) -> bool {
        self.requests.send(request).is_ok()
    }

    pub fn receive(&self) -> Option<Outcome> {
        self.outcomes.try_recv().ok()
    }
}

async fn run(
    client: Arc<Client>,
    templates: Templates,
    mut received: tokio_mpsc::UnboundedReceiver<Request>,
    report: impl Fn(Outcome) -> bool,
) {
    let tell = |state| _ = report(Outcome::Setup(state));
    let standing = Arc::new(templates::set_up(&client, &templates, tell).await);
    let completion = standing.complete(&client, tell);
    tokio::pin!(completion);
    let mut is_complete = false;
    let mut tasks = JoinSet::new();
    let mut parsers: Vec<Parser> = Vec::new();
    loop {
        // Two arms are cancel safe, as each takes one message or nothing; the first lives on over the turns.
        tokio::select! {
            () = &mut completion, if !is_complete => is_complete = true,
            Some(done) = tasks.join_next() => {
                let (outcome, parser) = match done {
                    Ok(done) => done,
                    // A task that panicked would leave its records unfinished for ever: better to end and start again.
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                };
                parsers.extend(parser);
                if !report(outcome) {
                    return;
                }
            }
            request = received.recv() => {
                let (client, standing) = (Arc::clone(&client), Arc::clone(&standing));
                match request {
                    Some(Request::Bulk(departure)) => {
                        let parser = parsers.pop().unwrap_or_default();
                        tasks.spawn(async move { bulk(&client, departure, parser).await });
                    }
                    Some(Request::Plan(request)) => {
                        tasks.spawn(async move {
                            let result = templates::look_up(&client, &standing, &request).await;
                            (Outcome::Plan { target: request.target, result }, None)
                        });
                    }
                    None => return,
                }
            }
        }
    }
}

async fn bulk(client: &Client, departure: Departure, mut parser: Parser) -> (Outcome, Option<Parser>) {
    let Departure { queued, passed } = departure;
    let started = Instant::now();
    let name = request_name();
    let sent = client.bulk(queued.batch.body.clone(), &name).await;
    let took = started.elapsed();
    let may_be_running = matches!(sent, Err(SendError::Unknown { .. })) && !has_ended(client, &name).await;
    let (mut status, mut retry_after) = (None, None);
    let result = sent.map_err(BulkError::Send).and_then(|reply| {
        (status, retry_after) = (Some(reply.status), reply.retry_after);
        match Refusal::of(reply.status) {
            None => Ok(response::read(&reply.body, &queued.batch, &mut parser)?),
            Some(refusal) => Err(BulkError::Refused { refusal, status: reply.status, words: reply.excerpt() }),
        }
    });
    if matches!(result, Err(BulkError::Refused { refusal: Refusal::Forbidden, .. }))
        && let Err(error) = client.renew_credentials()
    {
        tracing::warn!(%error, "cannot read the credentials again");
    }
    let outcome = BulkOutcome { batch: queued.batch, passed, took, status, retry_after, result, may_be_running };
    (Outcome::Bulk(outcome), Some(parser))
}

/// A name for a request that no other request of any indexer has.
fn request_name() -> String {
    static INSTANCE: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(std::process::id()));
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("millrace-{:016x}-{}", *INSTANCE, COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Waits until Elasticsearch no longer works on a request whose reply was lost. `false` if that cannot be told.
async fn has_ended(client: &Client, name: &str) -> bool {
    let deadline = Instant::now() + client.request_timeout();
    while Instant::now() < deadline {
        match client.is_running(name).await {
            Some(true) => tokio::time::sleep(Duration::from_millis(250)).await,
            Some(false) => return true,
            None => return false,
        }
    }
    false
}
