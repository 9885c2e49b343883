//! How failures of an exchange are told: what class, and whether the request can have been served.

use crate::target::{Applied, ErrorClass, Failure};

/// Longest text of a server that goes into a message.
const QUOTED_CHARS: usize = 200;

/// Nothing was sent.
pub(super) fn unsent(class: ErrorClass, message: String) -> Failure {
    Failure { class, applied: Applied::No, message }
}

/// Something was sent, and no whole reply came.
pub(super) fn unknown(class: ErrorClass, message: String) -> Failure {
    Failure { class, applied: Applied::Unknown, message }
}

/// The answer breaks the rules of HTTP, of event streams or of chat answers.
pub(super) fn protocol(message: String) -> Failure {
    unknown(ErrorClass::Protocol, message)
}

/// The answer is larger than `key` (under `target.http`) allows.
pub(super) fn too_large(what: &str, limit: usize, key: &str) -> Failure {
    unknown(ErrorClass::TooLarge, format!("{what} is larger than {limit} bytes (target.http.{key})"))
}

/// What a server said, cut to a length that can be shown.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
