//! A service beside the load, asked over HTTP now and then: a time-series database, a collector, a registry. One attempt, bounded in
//! time and size; never used for the load itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{HttpConnector, HttpInfo};
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};
use url::Url;

use crate::redact::{percent_decode, redact_url};

/// Largest answer.
const LARGEST: usize = 16 << 20;

/// The service at a base URL. Clones share their connections.
#[derive(Clone)]
pub(crate) struct Service {
    base: Url,
    login: Option<HeaderValue>,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// What a service answered, whatever the status.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// This end of the connection it came on, unless the service has announced that it closes it: another one means that the service
    /// was lost in between.
    pub(crate) connection: Option<SocketAddr>,
}

impl Answer {
    /// The body of an answer that says yes.
    ///
    /// # Errors
    /// When the status is none of success.
    pub(crate) fn success(self) -> Result<Bytes> {
        if self.status.is_success() { Ok(self.body) } else { bail!("it answered {}", self.status) }
    }
}

impl Service {
    /// `setting` is the flag or variable that holds `base`, `example` what it could be; a login in the URL is sent as basic
    /// authentication.
    ///
    /// # Errors
    /// When this is no URL of an HTTP service.
    pub(crate) fn new(setting: &str, base: &str, example: &str) -> Result<Self> {
        let expected = || format!("{setting}: {:?} is no URL of an HTTP service; write e.g. {example}", redact_url(base));
        let mut url = Url::parse(base).with_context(expected)?;
        if !matches!(url.scheme(), "http" | "https") || url.cannot_be_a_base() {
            bail!(expected());
        }
        let login = match (url.username(), url.password().unwrap_or_default()) {
            ("", "") => None,
            (user, password) => {
                let encoded = STANDARD.encode(format!("{}:{}", percent_decode(user), percent_decode(password)));
                let mut login = HeaderValue::from_str(&format!("Basic {encoded}")).with_context(expected)?;
                login.set_sensitive(true);
                Some(login)
            }
        };
        // Both can be set on every http and https URL.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = HttpsConnectorBuilder::new();
        let builder = if url.scheme() == "https" {
            builder
                .with_provider_and_native_roots(provider)
                .with_context(|| format!("{setting}: the system's certificate authorities cannot be read"))?
        } else {
            let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
            builder.with_tls_config(tls.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
        };
        let connector = builder.https_or_http().enable_http1().build();
        Ok(Self { base: url, login, client: Client::builder(TokioExecutor::new()).build(connector) })
    }

    /// Its address, without a password.
    pub(crate) fn shown(&self) -> &str {
        self.base.as_str()
    }

    /// The path of its address.
    pub(crate) fn path(&self) -> &str {
        self.base.path()
    }

    /// GET of `path` (begins with `/`) below the base.
    ///
    /// # Errors
    /// When nothing comes back within `limit`.
    pub(crate) async fn get(&self, path: &str, query: &[(&str, &str)], limit: Duration) -> Result<Answer> {
        self.send(Method::GET, path, query, &[], Bytes::new(), limit).await
    }

    /// One request to `path` (begins with `/`, empty for the base itself).
    ///
    /// # Errors
    /// When nothing comes back within `limit`, or too much.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        headers: &[(HeaderName, HeaderValue)],
        body: Bytes,
        limit: Duration,
    ) -> Result<Answer> {
        let mut url = self.base.clone();
        if !path.is_empty() {
            url.set_path(&format!("{}{path}", url.path().trim_end_matches('/')));
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = Request::builder().method(method).uri(url.as_str().parse::<Uri>()?).body(Full::new(body))?;
        request.headers_mut().extend(headers.iter().cloned());
        if let Some(login) = &self.login {
            request.headers_mut().insert(AUTHORIZATION, login.clone());
        }
        let answer = tokio::time::timeout(limit, self.ask(request)).await;
        answer.with_context(|| format!("no answer within {}", humantime::format_duration(limit))).flatten()
    }

    async fn ask(&self, request: Request<Full<Bytes>>) -> Result<Answer> {
        let response = self.client.request(request).await.map_err(|error| anyhow!("not reachable: {}", root(&error)))?;
        let (head, body) = response.into_parts();
        let closes = head.headers.get(CONNECTION).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"));
        let connection = head.extensions.get::<HttpInfo>().map(HttpInfo::local_addr).filter(|_| !closes);
        let body = Limited::new(body, LARGEST).collect().await;
        let body = body.map_err(|error| anyhow!("its answer was cut: {error}"))?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body, connection })
    }
}

/// What is at the bottom of an error: `connection refused` rather than `client error`.
fn root(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
