//! `POST /v1/sources/{name}/events`: one JSON object per line.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::{AppendProblem, MAX_BODY_BYTES, Platform, Problem};

/// What the bodies may call themselves. None of them can be sent by a web page to another origin without a
/// preflight, which this server does not answer.
const CONTENT_TYPES: [&str; 4] =
    ["application/x-ndjson", "application/ndjson", "application/jsonl", "application/json"];

pub(super) async fn append(
    State(platform): State<Arc<dyn Platform>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    check_type(&headers)?;
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|bytes: u64| bytes > MAX_BODY_BYTES as u64) {
        return Err(too_large());
    }
    let body = to_bytes(body, MAX_BODY_BYTES).await.map_err(|error| unreadable(&error))?;
    let appended = platform.append(&name, body).await.map_err(|problem| told(&name, problem))?;
    // Serialising a struct of numbers cannot fail.
    let answer = serde_json::to_string(&appended)
        .map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], answer + "\n").into_response())
}

fn check_type(headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    if CONTENT_TYPES.iter().any(|known| known.eq_ignore_ascii_case(essence)) {
        return Ok(());
    }
    let detail = match essence {
        "" => "the request has no Content-Type".to_owned(),
        other => format!("the Content-Type {other:?} is not one for events"),
    };
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
        .what_to_do("send one JSON object per line as application/x-ndjson"))
}

fn too_large() -> Problem {
    let detail = format!("the body is larger than {} MiB; nothing was appended", MAX_BODY_BYTES >> 20);
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail).what_to_do("send the events in several requests")
}

/// A body that is too long, or that broke off.
fn unreadable(error: &axum::Error) -> Problem {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(at) = cause {
        if at.is::<http_body_util::LengthLimitError>() {
            return too_large();
        }
        cause = at.source();
    }
    Problem::new(StatusCode::BAD_REQUEST, format!("the body broke off: {error}; nothing was appended"))
}

fn told(name: &str, problem: AppendProblem) -> Problem {
    match problem {
        AppendProblem::NoSuchSource => {
            Problem::new(StatusCode::NOT_FOUND, format!("there is no source \"{name}\"")).what_to_do(format!(
                "CREATE TABLE {name} (...) makes one; stratus.sources lists those there are"
            ))
        }
        AppendProblem::NotAppendable(reason) => {
            Problem::new(StatusCode::CONFLICT, format!("source \"{name}\" is not appended to here: {reason}"))
                .what_to_do("append to its log where it is written")
        }
        AppendProblem::Unavailable(reason) => {
            let detail = format!("source \"{name}\" cannot be appended to now: {reason}");
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
                .what_to_do("whether the events are in the log is not known; a retry may write them twice")
        }
    }
}
