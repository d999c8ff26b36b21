//! A plain HTTP client for tests: one connection per request, so that a restarted server is no
//! surprise.

use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result};
use reqwest::{Client, Method, header};
use tokio::runtime::{Builder, Runtime};

/// The limit of one request unless told otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// A reply, whatever its status.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub body: String,
}

/// Runs a future to its end on this thread.
///
/// # Panics
///
/// If it is called from within a runtime.
pub fn block_on<F: Future>(future: F) -> F::Output {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME
        .get_or_init(|| {
            Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime of one thread needs only a few file descriptors")
        })
        .block_on(future)
}

/// Sends a request and returns the reply.
///
/// # Errors
///
/// If no whole reply arrives within [`TIMEOUT`].
pub fn request(method: &str, url: &str, body: Option<String>) -> Result<Reply> {
    request_within(TIMEOUT, method, url, body)
}

/// [`request`] with a limit of its own.
///
/// # Errors
///
/// If no whole reply arrives within `limit`.
pub fn request_within(limit: Duration, method: &str, url: &str, body: Option<String>) -> Result<Reply> {
    Access::plain().request_within(limit, method, url, body)
}

/// [`request`] with the type of its body and its name among Elasticsearch's tasks.
///
/// # Errors
///
/// As [`request`].
pub fn request_as(method: &str, url: &str, body: Option<String>, kind: &str, name: &str) -> Result<Reply> {
    let request = Access::plain().client.request(Method::from_bytes(method.as_bytes())?, url).timeout(TIMEOUT);
    let mut request = request.header("x-opaque-id", name);
    if let Some(body) = body {
        request = request.header(header::CONTENT_TYPE, kind).body(body);
    }
    send(request, method, url)
}

/// How a server is spoken to.
#[derive(Clone)]
pub struct Access {
    client: Client,
    login: Option<(String, String)>,
}

impl Access {
    /// Without TLS and login.
    pub fn plain() -> &'static Self {
        static PLAIN: OnceLock<Access> = OnceLock::new();
        PLAIN.get_or_init(|| {
            let client = Client::builder().pool_max_idle_per_host(0).no_proxy().build();
            Self { client: client.expect("a client without TLS settings has nothing to fail on"), login: None }
        })
    }

    /// With a certificate authority of our own, and basic authentication.
    ///
    /// # Errors
    ///
    /// If `ca_pem` is no certificate.
    pub fn secured(ca_pem: &[u8], user: &str, password: &str) -> Result<Self> {
        let ca = reqwest::Certificate::from_pem(ca_pem)?;
        let client = Client::builder().pool_max_idle_per_host(0).no_proxy().add_root_certificate(ca).build()?;
        Ok(Self { client, login: Some((user.to_owned(), password.to_owned())) })
    }

    /// # Errors
    ///
    /// If no whole reply arrives within `limit`.
    pub fn request_within(&self, limit: Duration, method: &str, url: &str, body: Option<String>) -> Result<Reply> {
        let mut request = self.client.request(Method::from_bytes(method.as_bytes())?, url).timeout(limit);
        if let Some((user, password)) = &self.login {
            request = request.basic_auth(user, Some(password));
        }
        if let Some(body) = body {
            request = request.header(header::CONTENT_TYPE, "application/json").body(body);
        }
        send(request, method, url)
    }
}

fn send(request: reqwest::RequestBuilder, method: &str, url: &str) -> Result<Reply> {
    block_on(async {
        let reply = request.send().await?;
        let status = reply.status().as_u16();
        let body = reply.bytes().await?;
        let body = String::from_utf8_lossy(&body).into_owned();
        Ok(Reply { status, body })
    })
    .map_err(|error: reqwest::Error| error)
    .with_context(|| format!("{method} {url}"))
}

/// Gets a page.
///
/// # Errors
///
/// As [`request`].
pub fn get(url: &str) -> Result<Reply> {
    request("GET", url, None)
}

/// Sums all samples of a metric in Prometheus text whose labels contain each of `labels`, written
/// as `name="value"`. `None` if there is no such sample.
pub fn metric(text: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let mut sum = None;
    for line in text.lines() {
        let Some(rest) = line.strip_prefix(name) else {
            continue;
        };
        let Some((series, value)) = rest.rsplit_once(' ') else {
            continue;
        };
        let is_whole_name = series.is_empty() || series.starts_with('{');
        if !is_whole_name || !labels.iter().all(|label| series.contains(label)) {
            continue;
        }
        if let Ok(value) = value.parse::<f64>() {
            sum = Some(sum.unwrap_or(0.0) + value);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# TYPE a_total counter\na_total{r=\"x\",s=\"1\"} 2\na_total{r=\"y\"} 3\na 7\n";

    #[test]
    fn metric_sums_series_with_the_labels_and_the_whole_name() {
        assert_eq!(metric(TEXT, "a_total", &[]), Some(5.0));
        assert_eq!(metric(TEXT, "a_total", &["r=\"x\""]), Some(2.0));
        assert_eq!(metric(TEXT, "a", &[]), Some(7.0));
        assert_eq!(metric(TEXT, "b", &[]), None);
    }
}
