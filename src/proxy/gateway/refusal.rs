//! What the gateway itself answers when it has no reply to pass on, in OpenAI's form.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;

/// An error that the gateway answers.
#[derive(Debug, PartialEq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    code: &'static str,
    message: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let kind = match self.status.as_u16() {
            401 => "authentication_error",
            429 => "insufficient_quota",
            400..500 => "invalid_request_error",
            _ => "server_error",
        };
        let error = serde_json::json!({"message": self.message, "type": kind, "param": null, "code": self.code});
        (self.status, Json(serde_json::json!({ "error": error }))).into_response()
    }
}
