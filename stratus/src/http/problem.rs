//! Errors as RFC 9457 has them: `application/problem+json`.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

/// An error for the person or program that sent the request.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    detail: String,
    what_to_do: Option<String>,
}

impl Problem {
    /// An error that says what happened.
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), what_to_do: None }
    }

    /// And what to do about it.
    pub(crate) fn what_to_do(mut self, hint: impl Into<String>) -> Self {
        self.what_to_do = Some(hint.into());
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = serde_json::json!({
            "type": "about:blank",
            "title": self.status.canonical_reason(),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if let Some(hint) = self.what_to_do {
            body["hint"] = hint.into();
        }
        (self.status, [(header::CONTENT_TYPE, "application/problem+json")], format!("{body}\n"))
            .into_response()
    }
}
