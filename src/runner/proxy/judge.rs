//! What came back of one request: its outcome, and what the ledger keeps of it. Nothing is judged for good here; the verifier does
//! that afterwards, from the ledger.

use super::request::Builder;
use crate::http::{Chat, Failed, Reply};
use crate::ledger::Outcome;
use crate::ledger::requests::{Answer, digest};
use crate::scenario::proxy::Checks;
use crate::target::{Applied, ErrorClass, Failure};
use crate::workload::proxy_request::{Expected, Operation};

/// What came of one request.
pub(super) struct Judged {
    /// For the ledger; its time is filled in by who knows the clock.
    pub(super) answer: Answer,
    /// Why it is not acknowledged.
    pub(super) failure: Option<Failure>,
    /// The text, if it is not the right one.
    pub(super) wrong: Option<String>,
}

/// Holds an exchange against its operation.
pub(super) fn judge(builder: &Builder, operation: &Operation, result: &Result<Reply, Failed>) -> Judged {
    let reply = match result {
        Ok(reply) => reply,
        Err(failed) => return failed_exchange(operation, failed),
    };
    let mix = builder.mix(operation);
    if let Some(failure) = status(reply, &mix.checks).or_else(|| checks(builder, operation, reply, &mix.checks)) {
        let answer = Answer { outcome: Some(Outcome::Rejected), ..answer(operation, reply) };
        return Judged { answer, failure: Some(failure), wrong: None };
    }
    let mut answer = Answer { outcome: Some(Outcome::Acknowledged), checked: mix.checks.any(), ..answer(operation, reply) };
    let expected = builder.generator().expected(operation, mix, builder.workload().replies);
    let mut wrong = None;
    if let (Expected::Chat { text, .. } | Expected::Echo(text), Some(chat)) = (&expected, &reply.chat) {
        answer.digest = Some(digest(&chat.content));
        wrong = (chat.content != *text).then(|| chat.content.clone());
    }
    Judged { answer, failure: None, wrong }
}

fn failed_exchange(operation: &Operation, failed: &Failed) -> Judged {
    let outcome = match failed.failure.applied {
        Applied::No => Outcome::Rejected,
        Applied::Unknown => Outcome::Unknown,
    };
    let status = failed.partial.as_ref().map_or(0, |partial| partial.status);
    let answer = Answer { index: operation.index, outcome: Some(outcome), status, ..Answer::default() };
    Judged { answer, failure: Some(failed.failure.clone()), wrong: None }
}

fn answer(operation: &Operation, reply: &Reply) -> Answer {
    let tokens = |tokens: u64| u32::try_from(tokens).unwrap_or(u32::MAX);
    let chat = reply.chat.as_ref();
    Answer {
        index: operation.index,
        usage: chat.and_then(|chat| chat.usage).map(|(prompt, completion)| (tokens(prompt), tokens(completion))),
        status: reply.status,
        streamed: chat.is_some_and(|chat| chat.streamed),
        ended: chat.is_some_and(|chat| is_whole(chat, reply.status)),
        ..Answer::default()
    }
}

/// Whether a chat said that it was through.
fn is_whole(chat: &Chat, status: u16) -> bool {
    // A WebSocket session (101) says so by its last message.
    status == 101 || (chat.finish_reason.is_some() && (!chat.streamed || chat.done))
}

fn status(reply: &Reply, checks: &Checks) -> Option<Failure> {
    if checks.status.contains(&reply.status) || (checks.status.is_empty() && (matches!(reply.status, 200..=299 | 101))) {
        return None;
    }
    let asked = if checks.status.is_empty() { "200 to 299".to_owned() } else { format!("{:?}", checks.status) };
    let class = if checks.status.is_empty() || reply.status >= 400 { ErrorClass::Status } else { ErrorClass::Check };
    let body: String = String::from_utf8_lossy(&reply.body).chars().take(160).collect();
    Some(rejected(class, format!("status {}, asked for {asked}: {body}", reply.status)))
}

fn rejected(class: ErrorClass, message: String) -> Failure {
    Failure { class, applied: Applied::No, message }
}

fn checks(builder: &Builder, operation: &Operation, reply: &Reply, checks: &Checks) -> Option<Failure> {
    if !checks.any() {
        return None;
    }
    let missed = |message: String| Some(rejected(ErrorClass::Check, message));
    for (name, value) in &checks.headers {
        match reply.headers.get(name) {
            None => return missed(format!("header {name} is missing")),
            Some(found) if !value.is_empty() && found != value => {
                return missed(format!("header {name} is {found:?}, asked for {value:?}"));
            }
            Some(_) => {}
        }
    }
    if !checks.json.is_empty() {
        let body: serde_json::Value = match serde_json::from_slice(&reply.body) {
            Ok(body) => body,
            Err(error) => return missed(format!("the body is no JSON ({error})")),
        };
        for (pointer, value) in &checks.json {
            let found = body.pointer(pointer);
            if found != Some(value) {
                let found = found.map_or_else(|| "missing".to_owned(), |found| found.to_string().chars().take(80).collect());
                return missed(format!("{pointer} of the body is {found}, asked for {value}"));
            }
        }
    }
    let text = || {
        reply
            .chat
            .as_ref()
            .filter(|chat| chat.streamed)
            .map_or_else(|| String::from_utf8_lossy(&reply.body).into_owned(), |chat| chat.content.clone())
    };
    if let Some(part) = &checks.body_contains {
        let part = builder.fill(operation, part);
        if !text().contains(&part) {
            return missed(format!("the body does not contain {part:?}"));
        }
    }
    if let Some(whole) = &checks.body {
        let whole = builder.fill(operation, whole);
        if text() != whole {
            let found: String = text().chars().take(80).collect();
            return missed(format!("the body is {found:?}, asked for {whole:?}"));
        }
    }
    None
}
