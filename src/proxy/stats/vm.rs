//! A time-series database that scrapes the gateway, VictoriaMetrics or Prometheus, asked over its HTTP API. One attempt, one second.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderValue, Request, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use url::Url;

use crate::metrics::aiproxy::Sample;
use crate::redact::{percent_decode, redact_url};

/// Longest wait for an answer.
const LIMIT: Duration = Duration::from_secs(1);
/// Largest answer.
const LARGEST: usize = 16 << 20;

/// Sums over all instances of the gateway: of whoever has the series that clients have not, so that a load client's view of the same
/// requests in the same database is not counted beside.
const QUERY: &str = r#"sum by (__name__, channel, user_name, model, status, kind, le) ({__name__=~"aiproxy_(requests_total|tokens_total|cost_total|(response_time|time_to_first_token)_seconds_(bucket|sum|count))"} and on (instance, job) aiproxy_api_keys_total)"#;

/// The database at a base URL.
#[derive(Clone)]
pub(super) struct Vm {
    base: Url,
    login: Option<HeaderValue>,
    client: Client<HttpsConnector<HttpConnector>, Empty<bytes::Bytes>>,
}

#[derive(Deserialize)]
struct Answer {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    result: Vec<Series>,
}

#[derive(Deserialize)]
struct Series {
    metric: HashMap<String, String>,
    /// Time and value.
    value: (f64, String),
}

impl Vm {
    /// # Errors
    /// When this is no URL of an HTTP service.
    pub(super) fn new(base: &str) -> Result<Self> {
        let expected = || format!("VM_URL: {:?} is no URL of a time-series database; write e.g. http://127.0.0.1:8428", redact_url(base));
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
            builder.with_provider_and_native_roots(provider).context("VM_URL: the system's certificate authorities cannot be read")?
        } else {
            let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
            builder.with_tls_config(tls.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
        };
        let connector = builder.https_or_http().enable_http1().build();
        Ok(Self { base: url, login, client: Client::builder(TokioExecutor::new()).build(connector) })
    }

    /// Its address, without a password.
    pub(super) fn shown(&self) -> &str {
        self.base.as_str()
    }

    /// Whether it answers queries.
    pub(super) async fn check(&self) -> Result<()> {
        self.query("vector(1)").await.map(drop)
    }

    /// The gateway's series as they were scraped last.
    pub(super) async fn samples(&self) -> Result<Vec<Sample>> {
        self.query(QUERY).await
    }

    async fn query(&self, query: &str) -> Result<Vec<Sample>> {
        let answer = tokio::time::timeout(LIMIT, self.ask(query)).await;
        answer.with_context(|| format!("no answer within {} s", LIMIT.as_secs())).flatten()
    }

    async fn ask(&self, query: &str) -> Result<Vec<Sample>> {
        let mut url = self.base.clone();
        url.set_path(&format!("{}/api/v1/query", url.path().trim_end_matches('/')));
        url.query_pairs_mut().append_pair("query", query);
        let mut request = Request::get(url.as_str().parse::<Uri>()?).body(Empty::new())?;
        if let Some(login) = &self.login {
            request.headers_mut().insert(AUTHORIZATION, login.clone());
        }
        let response = self.client.request(request).await.map_err(|error| anyhow::anyhow!("not reachable: {}", root(&error)))?;
        if !response.status().is_success() {
            bail!("it answered {}", response.status());
        }
        let body = Limited::new(response.into_body(), LARGEST).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("its answer was cut: {error}"))?.to_bytes();
        let answer: Answer = serde_json::from_slice(&body).context("its answer is none of a time-series database")?;
        answer.data.result.into_iter().map(Sample::try_from).collect()
    }
}

impl TryFrom<Series> for Sample {
    type Error = anyhow::Error;

    fn try_from(mut series: Series) -> Result<Self> {
        let value = series.value.1.parse().with_context(|| format!("its answer has {:?} for a number", series.value.1))?;
        Ok(Self { name: series.metric.remove("__name__").unwrap_or_default(), labels: series.metric, value })
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
