//! Pages of the admin endpoint that only the indexer has.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::routing::get;
use millrace_common::telemetry::admin;

use crate::health::Health;

/// `/pipeline`: 200 if the whole way from the files to the index is well, else 503 and what is not.
pub fn routes(health: Arc<Health>) -> Router {
    let pipeline = async move || {
        let (is_well, answer) = health.pipeline();
        let status = if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, admin::json(&answer)).into_response()
    };
    Router::new().route("/pipeline", get(pipeline))
}
