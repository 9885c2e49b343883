//! From an operation to the request that is sent.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use serde_json::json;
use url::form_urlencoded;

use crate::http::{Kind, Request};
use crate::scenario::proxy::{ChatRequest, Mix, PlainRequest, ProxyRequest};
use crate::workload::proxy_request::{Generator, Operation};

/// Makes the requests of a run.
pub(super) struct Builder {
    workload: ProxyRequest,
    generator: Generator,
    id_header: Option<HeaderName>,
    /// `authorization` of each user.
    authorization: Vec<Option<HeaderValue>>,
    /// The request of each route that is the same for every operation.
    fixed: Vec<Option<Request>>,
}

impl Builder {
    /// The rules have made sure that names and values can be headers.
    pub(super) fn new(workload: &ProxyRequest, generator: Generator) -> Self {
        let key = |key: &String| {
            let mut value = HeaderValue::from_str(&format!("Bearer {key}")).ok()?;
            value.set_sensitive(true);
            Some(value)
        };
        let mut builder = Self {
            id_header: workload.id.header.parse().ok(),
            authorization: workload.users.iter().map(|user| user.key.as_ref().and_then(key)).collect(),
            fixed: vec![None; workload.mix.len()],
            workload: workload.clone(),
            generator,
        };
        for route in 0..workload.mix.len() {
            builder.fixed[route] = builder.fixed(route);
        }
        builder
    }

    pub(super) fn generator(&self) -> &Generator {
        &self.generator
    }

    pub(super) fn workload(&self) -> &ProxyRequest {
        &self.workload
    }

    pub(super) fn mix(&self, operation: &Operation) -> &Mix {
        &self.workload.mix[operation.route]
    }

    /// A plain request without placeholders, id and keys is the same each time.
    fn fixed(&self, route: usize) -> Option<Request> {
        let plain = self.workload.mix[route].http.as_ref()?;
        let texts = plain.query.values().chain(plain.headers.values()).chain([&plain.path, &plain.body]);
        let varies = texts.into_iter().any(|text| text.contains("{{"));
        let anonymous = self.id_header.is_none() && self.authorization.iter().all(Option::is_none);
        (anonymous && !varies).then(|| self.plain(&self.generator.operation(0), plain))
    }

    /// The request of an operation that is the same each time, or a new one.
    pub(super) fn request<'a>(&'a self, operation: &Operation, made: &'a mut Option<Request>) -> &'a Request {
        match &self.fixed[operation.route] {
            Some(request) => request,
            None => made.insert(self.build(operation)),
        }
    }

    fn build(&self, operation: &Operation) -> Request {
        let mix = self.mix(operation);
        if let Some(chat) = &mix.chat {
            self.chat(operation, chat)
        } else if let Some(plain) = &mix.http {
            self.plain(operation, plain)
        } else {
            let socket = mix.websocket.clone().unwrap_or_default();
            let messages = self.generator.messages(operation, socket.messages);
            let headers = self.headers(operation);
            Request { method: Method::GET, target: socket.path, headers, body: Bytes::new(), kind: Kind::Echo(messages) }
        }
    }

    /// Id and key.
    fn headers(&self, operation: &Operation) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::with_capacity(4);
        let id = self.id_header.clone().zip(HeaderValue::from_str(&self.generator.id(operation)).ok());
        headers.extend(id);
        headers.extend(self.authorization[operation.user].clone().map(|value| (http::header::AUTHORIZATION, value)));
        headers
    }

    fn chat(&self, operation: &Operation, chat: &ChatRequest) -> Request {
        let mut body = json!({
            "model": self.workload.models[operation.model],
            "messages": [{"role": "user", "content": self.generator.prompt(operation)}],
            "max_tokens": chat.max_tokens,
            "stream": chat.stream,
        });
        if chat.stream {
            body["stream_options"] = json!({"include_usage": true});
        }
        if self.workload.id.user_field {
            body["user"] = self.generator.id(operation).into();
        }
        let mut headers = self.headers(operation);
        headers.push((http::header::CONTENT_TYPE, HeaderValue::from_static("application/json")));
        self.named(operation, &chat.headers, &mut headers);
        Request { method: Method::POST, target: chat.path.clone(), headers, body: body.to_string().into(), kind: Kind::Chat }
    }

    fn plain(&self, operation: &Operation, plain: &PlainRequest) -> Request {
        let mut target = self.fill(operation, &plain.path);
        if !plain.query.is_empty() {
            let pairs = plain.query.iter().map(|(key, value)| (key, self.fill(operation, value)));
            target.push('?');
            target.push_str(&form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish());
        }
        let mut headers = self.headers(operation);
        self.named(operation, &plain.headers, &mut headers);
        let method = plain.method.parse().unwrap_or(Method::GET);
        Request { method, target, headers, body: self.fill(operation, &plain.body).into(), kind: Kind::Plain }
    }

    /// The scenario's own headers; one of the same name as ours takes its place.
    fn named<'a>(
        &self,
        operation: &Operation,
        named: impl IntoIterator<Item = (&'a String, &'a String)>,
        headers: &mut Vec<(HeaderName, HeaderValue)>,
    ) {
        for (name, value) in named {
            let parsed = name.parse::<HeaderName>().ok().zip(HeaderValue::from_str(&self.fill(operation, value)).ok());
            if let Some((name, value)) = parsed {
                headers.retain(|(other, _)| *other != name);
                headers.push((name, value));
            }
        }
    }

    /// A template with its placeholders replaced.
    pub(super) fn fill(&self, operation: &Operation, template: &str) -> String {
        let mut text = String::with_capacity(template.len());
        let mut rest = template;
        while let Some((before, after)) = rest.split_once("{{") {
            text.push_str(before);
            let Some((name, tail)) = after.split_once("}}") else { break };
            let workload = &self.workload;
            match name {
                "id" => text.push_str(&self.generator.id(operation)),
                "index" => text.push_str(&operation.index.to_string()),
                "user" => text.push_str(&workload.users[operation.user].name),
                "key" => text.push_str(workload.users[operation.user].key.as_deref().unwrap_or_default()),
                "model" => text.push_str(&workload.models[operation.model]),
                "channel" => text.push_str(workload.channels.get(operation.channel).map_or("", String::as_str)),
                // The rules let no other name pass.
                _ => text.push_str(&self.generator.prompt(operation)),
            }
            rest = tail;
        }
        text.push_str(rest);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn builder(mix: serde_json::Value, id: &str) -> Builder {
        let workload: ProxyRequest = serde_json::from_value(json!({
            "users": [{"name": "ann", "key": "sk-1"}], "models": ["m"], "channels": ["c"], "prompt": {"min": 2, "max": 2},
            "id": {"header": id}, "mix": [mix]
        }))
        .unwrap();
        Builder::new(&workload, Generator::new(1, "r", &workload))
    }

    fn built(builder: &Builder, index: u64) -> Request {
        let operation = builder.generator().operation(index);
        let mut made = None;
        builder.request(&operation, &mut made).clone()
    }

    #[test]
    fn a_chat_carries_id_key_and_prompt() {
        let builder =
            builder(json!({"chat": {"stream": true, "max_tokens": 5, "headers": {"x-chan": "{{channel}}/{{user}}"}}}), "x-request-id");
        let request = built(&builder, 3);
        let operation = builder.generator().operation(3);
        let header = |name: &str| request.headers.iter().find(|(n, _)| n.as_str() == name).map(|(_, v)| v.to_str().unwrap().to_owned());
        assert_eq!(header("x-request-id"), Some(builder.generator().id(&operation)));
        assert_eq!(header("authorization").as_deref(), Some("Bearer sk-1"));
        assert_eq!(header("x-chan").as_deref(), Some("c/ann"));
        let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(body["messages"][0]["content"], builder.generator().prompt(&operation));
        assert_eq!(
            (&body["model"], &body["stream"], &body["max_tokens"], &body["stream_options"]["include_usage"]),
            (&json!("m"), &json!(true), &json!(5), &json!(true))
        );
        assert_eq!(body.get("user"), None);
    }

    #[test]
    fn templates_are_filled_and_queries_escaped() {
        let mix = json!({"http": {"method": "POST", "path": "/a/{{index}}", "query": {"q": "{{user}} & {{key}}"}, "body": "{{id}}|{{model}}|{{prompt}}"}});
        let builder = builder(mix, "");
        let request = built(&builder, 9);
        let operation = builder.generator().operation(9);
        assert_eq!(request.target, "/a/9?q=ann+%26+sk-1");
        let expected = format!("{}|m|{}", builder.generator().id(&operation), builder.generator().prompt(&operation));
        assert_eq!(request.body, expected.as_bytes());
        assert_eq!(request.method, Method::POST);
    }

    #[test]
    fn what_never_varies_is_made_once() {
        let workload: ProxyRequest =
            serde_json::from_value(json!({"id": {"header": ""}, "mix": [{"http": {"path": "/x"}}, {"http": {"path": "/{{index}}"}}]}))
                .unwrap();
        let builder = Builder::new(&workload, Generator::new(1, "r", &workload));
        assert!(builder.fixed[0].is_some() && builder.fixed[1].is_none());
    }
}
