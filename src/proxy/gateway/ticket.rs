//! One request on its way through: whatever becomes of it, it is logged, counted and charged exactly once.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use serde::Deserialize;

use super::Gateway;
use super::accounts::Account;
use super::scan::Scanner;
use crate::proxy::seen::Seen;
use crate::workload::reply::prompt_tokens;

/// Who asked left before the end; nginx's number for it.
const LEFT: u16 = 499;

/// A request that has not ended. One that is dropped was given up by who asked.
pub(super) struct Ticket {
    gateway: Arc<Gateway>,
    began: Instant,
    /// `GET /path`.
    line: String,
    pub(super) account: Option<Arc<Account>>,
    /// For counting the prompt where the upstream does not.
    pub(super) request: Bytes,
    /// Whether the reply is passed on while it comes, so that its header's time is not its end's.
    pub(super) passing: bool,
    /// Gone once it has ended.
    seen: Option<Seen>,
}

impl Ticket {
    pub(super) fn new(gateway: Arc<Gateway>, began: Instant, request_id: String, line: String) -> Self {
        let seen = Seen {
            request_id,
            user: "-".to_owned(),
            channel: "-".to_owned(),
            model: "-".to_owned(),
            protocol: "http",
            status: LEFT,
            success: false,
            duration: began.elapsed(),
            header_after: began.elapsed(),
            first_token: None,
            gaps: Vec::new(),
            prompt_tokens: 0,
            completion_tokens: 0,
            request_bytes: 0,
            response_bytes: 0,
        };
        Self { gateway, began, line, account: None, request: Bytes::new(), passing: false, seen: Some(seen) }
    }

    /// When the request came.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// What is known of it so far; nothing of one that has ended.
    pub(super) fn note(&mut self, note: impl FnOnce(&mut Seen)) {
        if let Some(seen) = &mut self.seen {
            note(seen);
        }
    }

    /// It ended with `status`. Returns whether its reply may end well, which is not so if its row had to be in the log and is not.
    pub(super) async fn end(&mut self, status: u16, success: bool, read: Option<&mut Scanner>) -> bool {
        if let (Some(seen), Some(scanner)) = (&mut self.seen, read) {
            read_from(seen, scanner, &self.request);
        }
        match self.finish(status, success) {
            // On a task of its own, so that who asked cannot end it by leaving.
            Some(end) => end.await.unwrap_or(false),
            None => true,
        }
    }

    fn finish(&mut self, status: u16, success: bool) -> Option<tokio::task::JoinHandle<bool>> {
        let mut seen = self.seen.take()?;
        (seen.status, seen.success, seen.duration) = (status, success, self.began.elapsed());
        if !self.passing {
            seen.header_after = seen.duration;
        }
        let (gateway, account, line) = (Arc::clone(&self.gateway), self.account.take(), std::mem::take(&mut self.line));
        let tasks = self.gateway.tasks.clone();
        Some(tasks.spawn(async move { gateway.ended(&seen, account.as_deref(), &line).await }))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // Outside a runtime nothing is left that could write the log.
        if tokio::runtime::Handle::try_current().is_ok() {
            self.finish(LEFT, false);
        }
    }
}

/// What the reply said; what the upstream did not count is counted here.
fn read_from(seen: &mut Seen, scanner: &mut Scanner, request: &Bytes) {
    let usage = scanner.usage();
    seen.prompt_tokens = usage.map_or_else(|| if scanner.tokens > 0 { words(request) } else { 0 }, |usage| usage.prompt_tokens);
    seen.completion_tokens = usage.map_or(scanner.tokens, |usage| usage.completion_tokens);
    seen.first_token = scanner.first_token;
    seen.gaps = std::mem::take(&mut scanner.gaps);
    seen.response_bytes = scanner.bytes;
}

/// The words of a chat request's messages.
fn words(request: &[u8]) -> u64 {
    #[derive(Deserialize)]
    struct Chat {
        messages: Vec<Message>,
    }
    #[derive(Deserialize)]
    struct Message {
        #[serde(default)]
        content: serde_json::Value,
    }
    let Ok(chat) = serde_json::from_slice::<Chat>(request) else { return 0 };
    chat.messages.iter().filter_map(|message| message.content.as_str()).map(prompt_tokens).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_all_messages_are_counted() {
        assert_eq!(words(br#"{"messages":[{"role":"system","content":"be brief"},{"content":"a b c"},{"content":null},{}]}"#), 5);
        assert_eq!(words(b"{}") + words(b"nonsense"), 0);
    }
}
