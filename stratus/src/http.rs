//! The HTTP front door: events in, health and metrics out.
//!
//! It listens on loopback and knows no users, so the danger is a web page in a browser on the same machine. Three
//! refusals keep it out: a Host or an Origin that is not this listener's, and the content types that a page may
//! send to another origin without asking first.

mod events;
mod guard;
mod problem;

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use serde::Serialize;
use tokio::net::TcpListener;

pub(crate) use problem::Problem;

/// The most bytes that one request may carry.
pub(crate) const MAX_BODY_BYTES: usize = 64 << 20;
/// How long requests under way may take to finish when the process is asked to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// What HTTP asks of the running process.
#[async_trait]
pub(crate) trait Platform: Send + Sync + 'static {
    /// Appends the lines of `body` to a source's log, and answers when they are on disk.
    async fn append(&self, source: &str, body: Bytes) -> Result<Appended, AppendProblem>;

    /// Why the process should get no traffic now, a sentence each; none when it is ready.
    async fn not_ready(&self) -> Vec<String>;

    /// The metrics in Prometheus' text format.
    fn metrics(&self) -> String;
}

/// What became of an append.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Appended {
    /// How many lines are in the log now.
    pub(crate) accepted: u64,
    /// How many of them do not fit the schema, and go to `<source>_dead_letters`.
    pub(crate) dead_letters: u64,
    /// For each partition that grew, the offset after its last new line.
    pub(crate) offsets: BTreeMap<u32, u64>,
}

/// Why nothing was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AppendProblem {
    /// There is no source of that name.
    NoSuchSource,
    /// The source is not appended to here, for instance because another program owns its files.
    NotAppendable(String),
    /// Not now; a later try may succeed.
    Unavailable(String),
}

/// Answers requests until `shutdown` resolves, then finishes those under way.
pub(crate) async fn serve(
    listener: TcpListener,
    platform: Arc<dyn Platform>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let port = listener.local_addr()?.port();
    let (stopping, mut stopped) = tokio::sync::watch::channel(false);
    let shutdown = async move {
        shutdown.await;
        stopping.send_replace(true);
    };
    let serving = axum::serve(listener, router(platform, port)).with_graceful_shutdown(shutdown);
    let overdue = async {
        // A sender that is gone has served to the end.
        if stopped.wait_for(|stopped| *stopped).await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        result = serving => result,
        () = overdue => {
            tracing::warn!("HTTP requests were still under way {} s after the stop and are cut off", DRAIN.as_secs());
            Ok(())
        }
    }
}

fn router(platform: Arc<dyn Platform>, port: u16) -> Router {
    Router::new()
        .route("/v1/sources/{name}/events", post(events::append))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .fallback(async || {
            Problem::new(StatusCode::NOT_FOUND, "there is nothing at this path").what_to_do(
                "there are: POST /v1/sources/<name>/events, GET /livez, GET /readyz, GET /metrics",
            )
        })
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not know this method")
                .what_to_do("the header Allow names those it knows")
        })
        .layer(middleware::from_fn_with_state(port, guard::refuse_foreign))
        .layer(middleware::from_fn(count))
        .with_state(platform)
}

async fn readyz(State(platform): State<Arc<dyn Platform>>) -> Response {
    let reasons = platform.not_ready().await;
    let ready = reasons.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = serde_json::json!({ "ready": ready, "reasons": reasons });
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}

async fn metrics_text(State(platform): State<Arc<dyn Platform>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], platform.metrics()).into_response()
}

/// Counts the answers by status. Paths are no label: their number has no bound.
async fn count(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    metrics::counter!("stratus_http_requests_total", "status" => response.status().as_str().to_owned())
        .increment(1);
    response
}

#[cfg(test)]
mod tests;
