//! The chat completions API as the mock model speaks it: requests in, replies and events of a stream out.

use std::borrow::Cow;
use std::time::SystemTime;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::workload::reply;

/// Most tokens of a reply.
const MAX_TOKENS: u32 = 131_072;
/// Most bytes of an id that is none of ours.
const MAX_FOREIGN_ID: usize = 128;

/// What a client asks for; what the mock model has no use for is ignored.
#[derive(Deserialize)]
pub(super) struct ChatRequest<'a> {
    #[serde(borrow)]
    pub(super) model: Cow<'a, str>,
    messages: Vec<Message>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    pub(super) user: Option<String>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

#[derive(Deserialize)]
struct Message {
    content: Option<Content>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a message's content must be a text or a list of parts")]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
struct Part {
    text: Option<String>,
}

impl Message {
    fn texts(&self) -> impl Iterator<Item = &str> {
        let (text, parts) = match &self.content {
            Some(Content::Text(text)) => (Some(text.as_str()), &[][..]),
            Some(Content::Parts(parts)) => (None, parts.as_slice()),
            None => (None, &[][..]),
        };
        text.into_iter().chain(parts.iter().filter_map(|part| part.text.as_deref()))
    }
}

impl<'a> ChatRequest<'a> {
    /// Reads a body.
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, String> {
        let request: Self =
            serde_json::from_slice(body).map_err(|error| format!("the body is no chat completion request in JSON: {error}"))?;
        match request.tokens() {
            0 => Err("max_tokens is 0; ask for at least 1".to_owned()),
            tokens if tokens > MAX_TOKENS => Err(format!("max_tokens is {tokens}; at most {MAX_TOKENS} are possible")),
            _ => Ok(request),
        }
    }

    /// How many tokens the reply has.
    pub(super) fn tokens(&self) -> u32 {
        self.max_completion_tokens.or(self.max_tokens).unwrap_or(reply::DEFAULT_TOKENS)
    }

    /// Whether the reply is a stream.
    pub(super) fn streams(&self) -> bool {
        self.stream == Some(true)
    }

    /// The request's id: `header` is its `x-request-id`.
    pub(super) fn id(&self, header: Option<&str>) -> String {
        let prompt = self.messages.last().and_then(|message| message.texts().find_map(reply::find_id));
        prompt.map_or_else(|| id_of(&[header, self.user.as_deref()]), str::to_owned)
    }

    fn prompt_tokens(&self) -> u64 {
        self.messages.iter().flat_map(Message::texts).map(reply::prompt_tokens).sum()
    }
}

/// The first id of ours in `places`, as a gateway may put one of its own before ours; else what the first of them says; else a
/// fixed one.
pub(super) fn id_of(places: &[Option<&str>]) -> String {
    let texts = || places.iter().copied().flatten();
    let ours = texts().find_map(reply::find_id);
    let any = || texts().find(|text| !text.is_empty() && text.len() <= MAX_FOREIGN_ID);
    ours.or_else(any).map_or_else(|| reply::request_id(0, 0), str::to_owned)
}

/// The one right reply to a request.
pub(super) struct Reply {
    completion_id: String,
    created: u64,
    model: String,
    pub(super) tokens: Vec<String>,
    usage: Usage,
    include_usage: bool,
}

#[derive(Clone, Copy, Serialize)]
struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
}

#[derive(Serialize)]
struct Body<'a, T> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: &'a [Choice<T>],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

#[derive(Serialize)]
struct Choice<T> {
    index: u32,
    #[serde(flatten)]
    said: T,
    finish_reason: Option<&'static str>,
}

#[derive(Serialize)]
struct Whole<'a> {
    message: Said<'a>,
}

#[derive(Serialize)]
struct Delta<'a> {
    delta: Said<'a>,
}

#[derive(Default, Serialize)]
struct Said<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
}

/// The last event of a stream.
pub(super) const DONE: Bytes = Bytes::from_static(b"data: [DONE]\n\n");

impl Reply {
    /// The reply to `request`, whose id is `id`.
    pub(super) fn new(request: &ChatRequest<'_>, id: &str) -> Self {
        let (prompt_tokens, tokens) = (request.prompt_tokens(), request.tokens());
        let completion_tokens = u64::from(tokens);
        Self {
            completion_id: format!("chatcmpl-{id}"),
            created: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs(),
            model: request.model.as_ref().to_owned(),
            tokens: reply::tokens(id, tokens).collect(),
            usage: Usage { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens },
            include_usage: request.stream_options.as_ref().is_some_and(|options| options.include_usage == Some(true)),
        }
    }

    /// The body of a reply that is no stream.
    pub(super) fn whole(&self) -> Bytes {
        let text = self.tokens.concat();
        let message = Said { role: Some("assistant"), content: Some(&text) };
        let choice = Choice { index: 0, said: Whole { message }, finish_reason: Some("stop") };
        let mut bytes = Vec::with_capacity(text.len() + 320);
        self.write(&mut bytes, "chat.completion", &[choice], Some(self.usage));
        bytes.into()
    }

    /// The first event: who speaks.
    pub(super) fn role(&self) -> Bytes {
        self.delta(Said { role: Some("assistant"), content: Some("") }, None)
    }

    /// The event of the token at `index`.
    pub(super) fn token(&self, index: usize) -> Bytes {
        self.delta(Said { role: None, content: self.tokens.get(index).map(String::as_str) }, None)
    }

    /// The event that ends the text.
    pub(super) fn finish(&self) -> Bytes {
        self.delta(Said::default(), Some("stop"))
    }

    /// The event that tells the usage, if it was asked for.
    pub(super) fn usage(&self) -> Option<Bytes> {
        self.include_usage.then(|| self.event(&[], Some(self.usage)))
    }

    fn delta(&self, delta: Said<'_>, finish_reason: Option<&'static str>) -> Bytes {
        self.event(&[Choice { index: 0, said: Delta { delta }, finish_reason }], None)
    }

    fn event(&self, choices: &[Choice<Delta<'_>>], usage: Option<Usage>) -> Bytes {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(b"data: ");
        self.write(&mut bytes, "chat.completion.chunk", choices, usage);
        bytes.extend_from_slice(b"\n\n");
        bytes.into()
    }

    fn write<T: Serialize>(&self, bytes: &mut Vec<u8>, object: &'static str, choices: &[Choice<T>], usage: Option<Usage>) {
        let body = Body { id: &self.completion_id, object, created: self.created, model: &self.model, choices, usage };
        serde_json::to_writer(bytes, &body).expect("texts and numbers become JSON, and a Vec takes it");
    }
}

/// The body of an error, as the API has it.
pub(super) fn error(message: &str, kind: &str) -> Bytes {
    serde_json::json!({"error": {"message": message, "type": kind, "param": null, "code": null}}).to_string().into()
}

/// The body of `/v1/models`. Every other model is there too: the mock model answers to any name.
pub(super) fn models() -> Bytes {
    let model = serde_json::json!({"id": "mock", "object": "model", "created": 0, "owned_by": "batchsql"});
    serde_json::json!({"object": "list", "data": [model]}).to_string().into()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn id(body: Value, header: Option<&str>) -> String {
        ChatRequest::parse(body.to_string().as_bytes()).unwrap().id(header)
    }

    #[test]
    fn the_id_is_looked_for_in_the_prompt_then_the_header_then_the_user() {
        let ask = |content: Value, user: &str| json!({"model": "m", "messages": [{"role": "user", "content": content}], "user": user});
        let prompt = json!("say bq-00000001-1 please");
        assert_eq!(id(ask(prompt, "bq-00000001-3"), Some("bq-00000001-2")), "bq-00000001-1");
        let parts = json!([{"type": "image_url"}, {"type": "text", "text": "bq-00000001-1"}]);
        assert_eq!(id(ask(parts, ""), None), "bq-00000001-1");
        assert_eq!(id(ask(json!("hi"), "bq-00000001-3"), Some("bq-00000001-2")), "bq-00000001-2");
        assert_eq!(id(ask(json!("hi"), "bq-00000001-3"), None), "bq-00000001-3");
        assert_eq!(
            id(ask(json!("hi"), "bq-00000001-3"), Some("3f0c-of-a-gateway")),
            "bq-00000001-3",
            "a gateway's own id does not hide ours"
        );
        assert_eq!(id(ask(Value::Null, "alice"), Some("3f0c")), "3f0c");
        assert_eq!(id(ask(json!("hi"), "alice"), None), "alice");
        assert_eq!(id(ask(json!("hi"), ""), None), "bq-00000000-0");
        let earlier = json!({"model": "m", "messages": [{"content": "bq-00000001-1"}, {"content": "bq-00000001-2"}]});
        assert_eq!(id(earlier, None), "bq-00000001-2", "of the last message");
    }

    #[test]
    fn what_cannot_be_answered_is_said() {
        let said = |body: &str| ChatRequest::parse(body.as_bytes()).err().unwrap();
        assert!(said("{").contains("no chat completion request in JSON"));
        assert!(said(r#"{"model": "m"}"#).contains("missing field `messages`"));
        assert!(said(r#"{"model": "m", "messages": [{"content": 1}]}"#).contains("a text or a list of parts"));
        assert_eq!(said(r#"{"model": "m", "messages": [], "max_tokens": 0}"#), "max_tokens is 0; ask for at least 1");
        assert!(said(r#"{"model": "m", "messages": [], "max_completion_tokens": 4000000000}"#).contains("at most 131072"));
    }

    #[test]
    fn the_reply_and_its_events_are_the_apis() {
        let ask = json!({"model": "m", "messages": [{"content": "a b"}, {"content": "c"}], "max_tokens": 2, "stream": true,
            "stream_options": {"include_usage": true}});
        let body = ask.to_string();
        let request = ChatRequest::parse(body.as_bytes()).unwrap();
        let mut reply = Reply::new(&request, "bq-00000001-1");
        reply.created = 1;
        let all = [reply.whole(), reply.role(), reply.token(0), reply.token(1), reply.finish(), reply.usage().unwrap()];
        let all: Vec<&str> = all.iter().map(|bytes| std::str::from_utf8(bytes).unwrap()).collect();
        insta::assert_snapshot!(all.join("\n"));
    }
}
