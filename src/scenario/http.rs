//! HTTP in a scenario: the service that is driven, and the settings of a client's connections with their profiles. The reference
//! gateway takes the same settings for its own connections to the upstreams.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::Time;
use crate::proxy::{gateway, upstream};

/// An HTTP service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpTarget {
    /// `http://host:port` or `https://host:port`; a path in it goes in front of every request's. Absent: what `start` starts.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub url: String,
    /// Servers that are started inside this process for the run, on free ports of loopback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Start>,
    /// The upstream itself (`upstream` for the one that is started): with it every request is followed by the same one past the gateway, and the difference of the pairs is
    /// the gateway's own overhead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct_url: Option<String>,
    /// Which HTTP is spoken.
    #[serde(default)]
    pub version: HttpVersion,
    /// PEM file of the authorities that are trusted instead of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// A named set of connection settings.
    #[serde(default)]
    pub profile: HttpProfile,
    /// Single connection settings, over the profile's.
    #[serde(default)]
    pub client: HttpClient,
    /// How long replies may take.
    #[serde(default)]
    pub timeouts: ReplyTimeouts,
    /// How large replies may be.
    #[serde(default)]
    pub limits: ReplyLimits,
    /// Where connections really go: to the proxy of the run's faults, if it has any of the network.
    #[serde(skip)]
    pub via: Option<std::net::SocketAddr>,
}

/// What `direct_url` says of the upstream that the scenario starts.
pub const UPSTREAM: &str = "upstream";

/// Servers that are started for the run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Start {
    /// The mock model server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<upstream::Config>,
    /// The reference gateway; without channels it leads to the upstream, without users it knows the scenario's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<gateway::Config>,
    /// Whether the gateway is a process of its own, so that its CPU time and memory are told apart from the load's.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub own_process: bool,
}

/// Which HTTP is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HttpVersion {
    /// HTTP/1.1, or over TLS what the server prefers (ALPN).
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2; without TLS by prior knowledge.
    Http2,
}

/// Named sets of connection settings; the values stand in the README.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HttpProfile {
    /// Two idle connections a host, as many clients have by default.
    Off,
    /// Fewer idle connections, kept for a shorter time.
    Conservative,
    /// 100 idle connections, 20 a host, 50 connections a host.
    #[default]
    Default,
    /// Twice the idle connections, kept for longer.
    Aggressive,
}

/// Single connection settings; what is absent comes from the profile.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HttpClient {
    /// Interval of TCP keep-alive probes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_alive: Option<Time>,
    /// Most idle connections in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100_000))]
    pub max_idle: Option<usize>,
    /// Most idle connections a host.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100_000))]
    pub max_idle_per_host: Option<usize>,
    /// Most connections a host, idle and in use; a request waits for a free one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_per_host: Option<usize>,
    /// Longest wait for a TCP connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<Time>,
    /// Longest TLS handshake.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_timeout: Option<Time>,
    /// Longest wait for the reply's header once the request is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_header_timeout: Option<Time>,
    /// How long an idle connection is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Time>,
}

/// A client's connection settings with every value known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ClientSettings {
    /// Interval of TCP keep-alive probes.
    pub keep_alive: Time,
    /// Most idle connections in all.
    pub max_idle: usize,
    /// Most idle connections a host.
    pub max_idle_per_host: usize,
    /// Most connections a host; `None`: no bound.
    pub max_per_host: Option<usize>,
    /// Longest wait for a TCP connection.
    pub connect_timeout: Time,
    /// Longest TLS handshake.
    pub tls_timeout: Time,
    /// Longest wait for the reply's header once the request is sent; `None`: no bound of its own.
    pub response_header_timeout: Option<Time>,
    /// How long an idle connection is kept.
    pub idle_timeout: Time,
}

impl HttpProfile {
    /// The profile's values.
    #[must_use]
    pub fn settings(self) -> ClientSettings {
        let default = ClientSettings {
            keep_alive: Time::secs(90),
            max_idle: 100,
            max_idle_per_host: 20,
            max_per_host: Some(50),
            connect_timeout: Time::secs(10),
            tls_timeout: Time::secs(10),
            response_header_timeout: Some(Time::secs(30)),
            idle_timeout: Time::secs(90),
        };
        match self {
            // What Go's standard client does: two idle connections a host, no bound on connections, no limit on the header.
            HttpProfile::Off => ClientSettings {
                keep_alive: Time::secs(30),
                max_idle_per_host: 2,
                max_per_host: None,
                connect_timeout: Time::secs(30),
                response_header_timeout: None,
                ..default
            },
            HttpProfile::Conservative => {
                ClientSettings { keep_alive: Time::secs(60), max_idle: 50, idle_timeout: Time::secs(60), ..default }
            }
            HttpProfile::Default => default,
            HttpProfile::Aggressive => ClientSettings {
                keep_alive: Time::secs(120),
                max_idle: 200,
                max_idle_per_host: 50,
                idle_timeout: Time::secs(120),
                ..default
            },
        }
    }
}

impl HttpClient {
    /// The profile's values with these over them.
    #[must_use]
    pub fn over(&self, profile: HttpProfile) -> ClientSettings {
        let base = profile.settings();
        ClientSettings {
            keep_alive: self.keep_alive.unwrap_or(base.keep_alive),
            max_idle: self.max_idle.unwrap_or(base.max_idle),
            max_idle_per_host: self.max_idle_per_host.unwrap_or(base.max_idle_per_host),
            max_per_host: self.max_per_host.or(base.max_per_host),
            connect_timeout: self.connect_timeout.unwrap_or(base.connect_timeout),
            tls_timeout: self.tls_timeout.unwrap_or(base.tls_timeout),
            response_header_timeout: self.response_header_timeout.or(base.response_header_timeout),
            idle_timeout: self.idle_timeout.unwrap_or(base.idle_timeout),
        }
    }
}

/// How long replies may take; each limit is an error class of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReplyTimeouts {
    /// From the send to the first token with content (streams).
    pub first_token: Time,
    /// From one event to the next (streams).
    pub between_tokens: Time,
    /// From the send to the reply's end.
    pub total: Time,
}

impl Default for ReplyTimeouts {
    fn default() -> Self {
        Self { first_token: Time::secs(30), between_tokens: Time::secs(30), total: Time::secs(120) }
    }
}

/// How large replies may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReplyLimits {
    /// Most bytes of a reply's header.
    #[schemars(range(min = 256, max = 1_048_576))]
    pub header_bytes: usize,
    /// Most bytes of a reply's body, decompressed.
    #[schemars(range(min = 1, max = 1_073_741_824))]
    pub body_bytes: usize,
    /// Most bytes of one event of a stream.
    #[schemars(range(min = 64, max = 67_108_864))]
    pub event_bytes: usize,
    /// Redirects followed; only to the same host.
    #[schemars(range(max = 20))]
    pub redirects: u8,
}

impl Default for ReplyLimits {
    fn default() -> Self {
        Self { header_bytes: 65_536, body_bytes: 16 << 20, event_bytes: 1 << 20, redirects: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_have_the_values_that_people_know() {
        let short = |profile: HttpProfile| {
            let s = profile.settings();
            let seconds = [s.keep_alive, s.connect_timeout, s.tls_timeout, s.idle_timeout].map(|time| time.0.as_secs());
            (seconds, s.response_header_timeout.map(|time| time.0.as_secs()), s.max_idle, s.max_idle_per_host, s.max_per_host)
        };
        assert_eq!(short(HttpProfile::default()), ([90, 10, 10, 90], Some(30), 100, 20, Some(50)));
        assert_eq!(short(HttpProfile::Conservative), ([60, 10, 10, 60], Some(30), 50, 20, Some(50)));
        assert_eq!(short(HttpProfile::Aggressive), ([120, 10, 10, 120], Some(30), 200, 50, Some(50)));
        assert_eq!(short(HttpProfile::Off), ([30, 30, 10, 90], None, 100, 2, None));
    }

    #[test]
    fn single_settings_stand_over_the_profiles() {
        let client = HttpClient { max_per_host: Some(7), response_header_timeout: Some(Time::secs(1)), ..HttpClient::default() };
        let settings = client.over(HttpProfile::Off);
        assert_eq!((settings.max_per_host, settings.response_header_timeout), (Some(7), Some(Time::secs(1))));
        assert_eq!(ClientSettings { max_per_host: None, response_header_timeout: None, ..settings }, HttpProfile::Off.settings());
        assert_eq!(HttpClient::default().over(HttpProfile::Aggressive), HttpProfile::Aggressive.settings());
    }
}
