//! From a URL to a connection: where it leads, what is trusted, TCP and TLS within their limits.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Config;
use super::failure::unsent;
use crate::scenario::http::ClientSettings;
use crate::target::{ErrorClass, Failure, TargetError};

/// Which protocols are offered in the TLS handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    Http1,
    Http2,
    Either,
}

/// Opens connections to one place.
pub(super) struct Connector {
    host: url::Host,
    port: u16,
    tls: Option<Tls>,
    settings: ClientSettings,
    via: Option<SocketAddr>,
}

struct Tls {
    name: ServerName<'static>,
    http1: TlsConnector,
    http2: TlsConnector,
    either: TlsConnector,
}

impl Connector {
    /// Checks the URL and loads what is trusted.
    pub(super) fn new(config: &Config) -> Result<Self, TargetError> {
        let url = &config.url;
        let wrong = |what: &str| TargetError::Failed(format!("target.http.url {what}; write http://host:port or https://host:port"));
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong(&format!("has the scheme {:?}", url.scheme())));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("holds a user or a password, which are not sent this way: set an authorization header instead"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("has a query or a fragment, which belong to a request"));
        }
        let host = url.host().ok_or_else(|| wrong("has no host"))?.to_owned();
        let port = url.port_or_known_default().ok_or_else(|| wrong("has no port"))?;
        let tls = if url.scheme() == "https" { Some(Tls::new(config, &host)?) } else { None };
        Ok(Self { host, port, tls, settings: config.settings, via: config.via })
    }

    /// Whether connections are encrypted.
    pub(super) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Connects; says whether HTTP/2 was agreed on.
    ///
    /// # Errors
    /// Always with nothing sent.
    pub(super) async fn connect(&self, offer: Offer) -> Result<(Stream, bool), Failure> {
        let limit = self.settings.connect_timeout;
        let tcp = tokio::time::timeout(limit.0, self.tcp()).await.map_err(|_| {
            let limit = humantime::format_duration(limit.0);
            let message = format!("no connection to {} within {limit} (target.http.client.connect_timeout)", self.place());
            unsent(ErrorClass::ConnectTimeout, message)
        })?;
        let tcp = tcp.map_err(|error| unsent(ErrorClass::Connection, format!("cannot connect to {}: {error}", self.place())))?;
        match &self.tls {
            None => Ok((Stream::Plain(tcp), offer == Offer::Http2)),
            Some(tls) => self.handshake(tls, tcp, offer).await,
        }
    }

    async fn tcp(&self) -> io::Result<TcpStream> {
        // The address is looked up for every connection: who changes it is followed.
        let tcp = match (&self.host, self.via) {
            (_, Some(via)) => TcpStream::connect(via).await?,
            (url::Host::Domain(name), None) => TcpStream::connect((name.as_str(), self.port)).await?,
            (url::Host::Ipv4(address), None) => TcpStream::connect((*address, self.port)).await?,
            (url::Host::Ipv6(address), None) => TcpStream::connect((*address, self.port)).await?,
        };
        tcp.set_nodelay(true)?;
        let interval = self.settings.keep_alive.0;
        if !interval.is_zero() {
            let keep_alive = socket2::TcpKeepalive::new().with_time(interval).with_interval(interval);
            socket2::SockRef::from(&tcp).set_tcp_keepalive(&keep_alive)?;
        }
        Ok(tcp)
    }

    async fn handshake(&self, tls: &Tls, tcp: TcpStream, offer: Offer) -> Result<(Stream, bool), Failure> {
        let connector = match offer {
            Offer::Http1 => &tls.http1,
            Offer::Http2 => &tls.http2,
            Offer::Either => &tls.either,
        };
        let limit = self.settings.tls_timeout;
        let handshake = tokio::time::timeout(limit.0, connector.connect(tls.name.clone(), tcp)).await.map_err(|_| {
            let limit = humantime::format_duration(limit.0);
            let message = format!("no TLS session with {} within {limit} (target.http.client.tls_timeout)", self.place());
            unsent(ErrorClass::TlsTimeout, message)
        })?;
        let stream = handshake.map_err(|error| {
            let message =
                format!("no TLS session with {}: {error} (authorities of your own are named in target.http.ca_file)", self.place());
            unsent(ErrorClass::Tls, message)
        })?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        if offer == Offer::Http2 && !http2 {
            let message = format!("{} does not speak HTTP/2 over TLS (target.http.version is http2)", self.place());
            return Err(unsent(ErrorClass::Protocol, message));
        }
        Ok((Stream::Tls(Box::new(stream)), http2))
    }

    fn place(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl Tls {
    fn new(config: &Config, host: &url::Host) -> Result<Self, TargetError> {
        let name = match host {
            url::Host::Domain(name) => ServerName::try_from(name.clone())
                .map_err(|_| TargetError::Failed(format!("target.http.url: {name:?} is no host name that a certificate can have")))?,
            url::Host::Ipv4(address) => ServerName::IpAddress(std::net::IpAddr::V4(*address).into()),
            url::Host::Ipv6(address) => ServerName::IpAddress(std::net::IpAddr::V6(*address).into()),
        };
        let base = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| TargetError::Failed(format!("TLS cannot be set up: {error}")))?
            .with_root_certificates(trusted(config)?)
            .with_no_client_auth();
        let offering = |protocols: &[&[u8]]| {
            let mut config = base.clone();
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            TlsConnector::from(Arc::new(config))
        };
        Ok(Self { name, http1: offering(&[b"http/1.1"]), http2: offering(&[b"h2"]), either: offering(&[b"h2", b"http/1.1"]) })
    }
}

fn trusted(config: &Config) -> Result<RootCertStore, TargetError> {
    let mut roots = RootCertStore::empty();
    let Some(file) = &config.ca_file else {
        let loaded = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(loaded.certs);
        if roots.is_empty() {
            let why = loaded.errors.first().map_or_else(|| "it has none".to_owned(), ToString::to_string);
            return Err(TargetError::Failed(format!(
                "the system's trusted certificates cannot be used: {why}; name a PEM file in target.http.ca_file"
            )));
        }
        return Ok(roots);
    };
    let wrong = |why: String| {
        TargetError::Failed(format!("target.http.ca_file: {} {why}; name a PEM file of the authorities to trust", file.display()))
    };
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| wrong(format!("cannot be read: {error}")))? {
        let certificate = certificate.map_err(|error| wrong(format!("is no PEM: {error}")))?;
        roots.add(certificate).map_err(|error| wrong(format!("holds what is no certificate: {error}")))?;
    }
    if roots.is_empty() { Err(wrong("holds no certificate".to_owned())) } else { Ok(roots) }
}

/// A connection, encrypted or not.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
