//! Pages of the admin endpoint that only the indexer has: what a person, a pinger and the person's browser ask for.

use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use millrace_common::telemetry::admin;

use crate::health::Health;

/// `/`: the page, with `/page.css`, `/page.js` and the `/history` that it draws. `/pipeline`: 200 if the whole way from
/// the files to the index is well, else 503 and what is not.
pub fn routes(health: Arc<Health>) -> Router {
    let history = Arc::clone(&health);
    let pipeline = async move || {
        let (is_well, answer) = health.pipeline();
        let status = if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, admin::json(&answer)).into_response()
    };
    let page = || async { text("text/html; charset=utf-8", include_str!("page/index.html")) };
    let style = || async { text("text/css; charset=utf-8", include_str!("page/page.css")) };
    let script = || async { text("text/javascript; charset=utf-8", include_str!("page/page.js")) };
    Router::new()
        .route("/", get(page))
        .route("/page.css", get(style))
        .route("/page.js", get(script))
        .route("/history", get(async move || admin::json(&history.history())))
        .route("/pipeline", get(pipeline))
}

fn text(kind: &'static str, body: &'static str) -> Response {
    // Nothing from elsewhere is loaded or run, whatever a path or a field's name contains.
    let policy = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::CACHE_CONTROL, "no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, body).into_response()
}
