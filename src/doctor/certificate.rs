//! Certificates: how many days are left of each that a service or a Postgres server shows. Whether it is trusted is told by asking
//! the service itself; here every certificate is looked at, above all the one that has run out.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use futures::future::join_all;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

use super::{Finding, LIMIT, Plan};

/// Fewer days than these are ill: whoever renews has a working week.
const FEWEST_DAYS: i64 = 7;
const DAY: i64 = 86_400;

pub(super) async fn all(plan: &Plan) -> Vec<Finding> {
    let services = [&plan.gateway, &plan.prometheus, &plan.victoriametrics, &plan.grafana, &plan.alertmanager, &plan.serve];
    let services = services.into_iter().map(|place| place.url.as_str());
    let databases = plan.databases.iter().filter_map(|wanted| Some(wanted.target.postgres.as_ref()?.url.as_str()));
    join_all(services.chain(databases).filter_map(|url| Url::parse(url).ok()).map(one)).await.into_iter().flatten().collect()
}

/// Nothing is said of what has no TLS or does not answer: its own finding does.
async fn one(url: Url) -> Option<Finding> {
    let postgres = url.scheme().starts_with("postgres");
    if url.scheme() != "https" && !postgres {
        return None;
    }
    let port = url.port_or_known_default().unwrap_or(5432);
    let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
    let certificate = tokio::time::timeout(LIMIT, shown(&host, port, postgres)).await.ok()?.ok()??;
    let part = format!("certificate {host}:{port}");
    let mend = "renew it and let the server read it again";
    Some(match ends(&certificate) {
        Ok(end) => {
            let days = (end - jiff::Timestamp::now().as_second()).div_euclid(DAY);
            let found = if days < 0 { format!("ran out {} days ago", -days) } else { format!("{days} days left") };
            if days < FEWEST_DAYS { Finding::ill(part, found, mend) } else { Finding::well(part, found) }
        }
        Err(error) => Finding::ill(part, format!("{error:#}"), mend),
    })
}

/// The server's certificate; none if it speaks no TLS.
async fn shown(host: &str, port: u16, postgres: bool) -> Result<Option<Vec<u8>>> {
    let mut stream = TcpStream::connect((host, port)).await?;
    if postgres {
        // SSLRequest: its length and its number; `S` says yes.
        stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await?;
        if stream.read_u8().await? != b'S' {
            return Ok(None);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Whatever(provider)))
        .with_no_client_auth();
    let session = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(host.to_owned())?, stream).await?;
    let certificates = session.get_ref().1.peer_certificates().unwrap_or_default();
    Ok(certificates.first().map(|certificate| certificate.to_vec()))
}

/// Takes every certificate: nothing is sent over these sessions.
#[derive(Debug)]
struct Whatever(Arc<CryptoProvider>);

impl ServerCertVerifier for Whatever {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;

/// When a certificate ends, in seconds since 1970 (RFC 5280: Certificate, tbsCertificate, validity, notAfter).
fn ends(certificate: &[u8]) -> Result<i64> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut rest, _) = element(certificate)?;
    if rest.first() == Some(&VERSION) {
        rest = element(rest)?.2;
    }
    for _ in ["serialNumber", "signature", "issuer"] {
        rest = element(rest)?.2;
    }
    let (kind, validity, _) = element(rest)?;
    if kind != SEQUENCE {
        bail!("it has no validity where one is expected");
    }
    let (kind, not_after, _) = element(element(validity)?.2)?;
    let text = std::str::from_utf8(not_after)?;
    // Of two digits of a year those below 50 are of this century.
    let full = match kind {
        UTC_TIME if text < "50" => format!("20{text}"),
        UTC_TIME => format!("19{text}"),
        _ => text.to_owned(),
    };
    let time = jiff::civil::DateTime::strptime("%Y%m%d%H%M%SZ", &full).with_context(|| format!("its end {text:?} is no time"))?;
    Ok(time.to_zoned(jiff::tz::TimeZone::UTC)?.timestamp().as_second())
}

/// The first element of DER: its tag, its content, and what follows it.
fn element(der: &[u8]) -> Result<(u8, &[u8], &[u8])> {
    let cut = "the certificate is cut";
    let (&tag, rest) = der.split_first().context(cut)?;
    let (&first, rest) = rest.split_first().context(cut)?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f)).filter(|(digits, _)| digits.len() <= 4).context(cut)?;
        (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
    };
    let (content, rest) = rest.split_at_checked(length).context(cut)?;
    Ok((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::doctor::State;

    fn made(year: i32) -> (Vec<u8>, KeyPair) {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 3, 4);
        let key = KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().der().to_vec(), key)
    }

    #[test]
    fn the_end_of_a_certificate_is_read_in_both_of_its_forms() {
        // 2049 is the last year of the short form.
        for (year, expected) in [(2030, "2030-03-04T00:00:00Z"), (2049, "2049-03-04T00:00:00Z"), (2050, "2050-03-04T00:00:00Z")] {
            let (der, _) = made(year);
            let expected = expected.parse::<jiff::Timestamp>().unwrap().as_second();
            assert_eq!(ends(&der).unwrap(), expected, "{year}");
            for cut in [0, 1, 5, 40, der.len() - 1] {
                assert!(ends(&der[..cut]).is_err(), "cut at {cut}");
            }
        }
    }

    #[tokio::test]
    async fn a_certificate_that_has_run_out_is_seen_and_ill() {
        for (year, state) in [(2021, State::Ill), (2100, State::Well)] {
            let (der, key) = made(year);
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
            let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            let config = config.with_no_client_auth().with_single_cert(vec![der.into()], key).unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
            let server = tokio::spawn(async move {
                let (stream, _) = listener.accept().await.unwrap();
                let _session = TlsAcceptor::from(Arc::new(config)).accept(stream).await.unwrap();
            });
            let finding = one(Url::parse(&url).unwrap()).await.unwrap();
            assert_eq!(finding.state, state, "{finding:?}");
            server.await.unwrap();
        }
        assert_eq!(one(Url::parse("http://127.0.0.1:1").unwrap()).await, None);
        assert_eq!(one(Url::parse("https://127.0.0.1:1").unwrap()).await, None, "nobody there");
    }
}
