//! Remote calls of Trident topologies over HTTP: `POST /v1/drpc/{function}`.

use axum::Router;
use axum::extract::rejection::StringRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use stratus_trident::{DrpcError, DrpcServer};

/// The most bytes that a call's arguments may have.
pub const MOST_BYTES: usize = 1 << 20;

/// The calls of a server over HTTP. The body is the call's arguments as text; the answer is a JSON array of the rows
/// that came back, each an array. Errors are `application/problem+json` (RFC 9457): 404 for an unknown function, 413
/// for more than [`MOST_BYTES`], 500 for a call that failed, 503 if its topology ended, 504 if no answer came in time.
///
/// A caller that goes away is forgotten: his call is not begun, or its answer is dropped. The router knows nothing of
/// users: put it behind whatever does, or on the loopback.
pub fn router(server: DrpcServer) -> Router {
    Router::new()
        .route("/v1/drpc/{function}", post(call))
        .layer(DefaultBodyLimit::max(MOST_BYTES))
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
                DrpcError::Ended { .. } => StatusCode::SERVICE_UNAVAILABLE,
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
