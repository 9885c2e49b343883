//! One request as the gateway saw it: what its log, its metrics and its statistics are made from.

use std::time::Duration;

/// One request that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Its id.
    pub request_id: String,
    /// Who asked; `-` if nobody we know.
    pub user: String,
    /// The upstream it went to; `-` if none.
    pub channel: String,
    /// The model asked for.
    pub model: String,
    /// `http`, `https`, `sse` or `websocket`.
    pub protocol: &'static str,
    /// Status of the answer.
    pub status: u16,
    /// Whether it ended whole.
    pub success: bool,
    /// From the request's header to the reply's end.
    pub duration: Duration,
    /// From the request's header to the reply's.
    pub header_after: Duration,
    /// From the request's header to the first token with content (streams).
    pub first_token: Option<Duration>,
    /// Gaps between tokens (streams; at most 10,000).
    pub gaps: Vec<Duration>,
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Tokens of the answer.
    pub completion_tokens: u64,
    /// Body bytes in.
    pub request_bytes: u64,
    /// Body bytes out.
    pub response_bytes: u64,
}
