//! What the statistics of the gateway can be told.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use crate::redact::{HIDDEN, redact_url};
use crate::scenario::units::Time;

/// Statistics of the gateway.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Whether anything is counted and shown (`METRICS_ENABLED`).
    pub enabled: bool,
    /// How often `/api/metrics/` begins anew (`METRICS_RESET_INTERVAL`); `0s`: only when told to.
    pub reset_interval: Time,
    /// Bearer token of `/api/metrics/`; without one it is closed.
    #[serde(skip_serializing)]
    pub admin_token: Option<String>,
    /// Base URL of the VictoriaMetrics (or Prometheus) that scrapes the gateway (`VM_URL`): `/stats` asks it.
    #[serde(serialize_with = "without_password", skip_serializing_if = "Option::is_none")]
    pub vm_url: Option<String>,
    /// Prices by model; a model without one costs nothing.
    pub prices: BTreeMap<String, Price>,
    /// Most series of `/metrics`: a channel takes about 40 a model and protocol, and 2 a user. What does not fit is counted in `batchsql_series_dropped_total`.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_series: usize,
}

/// What a model's tokens cost, in any one currency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// 1,000 tokens of a prompt.
    #[schemars(range(min = 0))]
    pub prompt_per_1k: f64,
    /// 1,000 tokens of a completion.
    #[schemars(range(min = 0))]
    pub completion_per_1k: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            reset_interval: Time::secs(3600),
            admin_token: None,
            vm_url: None,
            prices: BTreeMap::new(),
            max_series: 10_000,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("enabled", &self.enabled)
            .field("reset_interval", &self.reset_interval)
            .field("admin_token", &self.admin_token.as_ref().map(|_| HIDDEN))
            .field("vm_url", &self.vm_url.as_deref().map(redact_url))
            .field("prices", &self.prices)
            .field("max_series", &self.max_series)
            .finish()
    }
}

fn without_password<S: Serializer>(url: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    url.as_deref().map(redact_url).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let settings: Settings =
            serde_json::from_str(r#"{"admin_token": "s3cret", "vm_url": "http://ann:s3cret@127.0.0.1:8428"}"#).unwrap();
        let shown = format!("{settings:?} {}", serde_json::to_string(&settings).unwrap());
        assert!(!shown.contains("s3cret") && shown.contains("127.0.0.1:8428"), "{shown}");
        assert_eq!((settings.admin_token.as_deref(), settings.reset_interval, settings.enabled), (Some("s3cret"), Time::secs(3600), true));
    }

    #[test]
    fn unknown_settings_are_refused() {
        let error = serde_json::from_str::<Settings>(r#"{"vm": "http://127.0.0.1:8428"}"#).unwrap_err().to_string();
        assert!(error.contains("unknown field `vm`") && error.contains("vm_url"), "{error}");
        assert!(schemars::schema_for!(Settings).to_value()["additionalProperties"] == false);
    }
}
