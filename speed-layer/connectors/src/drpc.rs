//! Remote calls of Trident topologies over HTTP: `POST /v1/drpc/{function}`.

mod guard;

use std::sync::Arc;

use axum::extract::rejection::StringRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Router, middleware};
use stratus_trident::{DrpcError, DrpcServer};

/// The most bytes that a call's arguments may have.
pub const MOST_BYTES: usize = 1 << 20;

/// The calls of a server over HTTP, for who asks `127.0.0.1`, `localhost` or another name of the loopback.
///
/// The body is the call's arguments as text, sent as `application/octet-stream` or, if they are that, as
/// `application/json`; the answer is a JSON array of the rows that came back, each an array. Errors are
/// `application/problem+json` (RFC 9457): 403 for another Host, or for a web page of another origin; 404 for an unknown
/// function, 413 for more than [`MOST_BYTES`], 415 for other types, which web pages may send to anybody; 500 for a call
/// that failed, 503 if its topology has ended or has too many calls under way, 504 if no answer came in time.
///
/// A caller that goes away is forgotten: his call is not begun, or its answer is dropped. The router knows nothing of
/// users: put it behind whatever does, or on the loopback.
pub fn router(server: DrpcServer) -> Router {
    router_at(server, [])
}

/// As [`router`], for who asks these places, too: each as `host`, or `host:port` if the port is none that is left out,
/// as it is in the Host header of requests and in the origin of pages that may call.
pub fn router_at(server: DrpcServer, places: impl IntoIterator<Item = String>) -> Router {
    let places: guard::Places = Arc::from_iter(places);
    Router::new()
        .route("/v1/drpc/{function}", post(call))
        .layer(DefaultBodyLimit::max(MOST_BYTES))
        // Before the body is read.
        .layer(middleware::from_fn_with_state(places, guard::refuse_foreign))
        .with_state(server)
}

async fn call(
    State(server): State<DrpcServer>,
    Path(function): Path<String>,
    arguments: Result<String, StringRejection>,
) -> Response {
    let arguments = match arguments {
        Ok(arguments) => arguments,
        Err(rejection) => return problem(rejection.status(), &rejection.body_text()),
    };
    match server.execute(&function, &arguments).await {
        Ok(rows) => ([(header::CONTENT_TYPE, "application/json")], format!("{rows}\n")).into_response(),
        Err(error) => {
            let status = match error {
                DrpcError::Unknown { .. } => StatusCode::NOT_FOUND,
                DrpcError::Ended { .. } | DrpcError::Busy { .. } => StatusCode::SERVICE_UNAVAILABLE,
                DrpcError::TimedOut { .. } => StatusCode::GATEWAY_TIMEOUT,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            problem(status, &error.to_string())
        }
    }
}

fn problem(status: StatusCode, detail: &str) -> Response {
    let body = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "detail": detail,
    });
    (status, [(header::CONTENT_TYPE, "application/problem+json")], format!("{body}\n")).into_response()
}
