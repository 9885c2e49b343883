//! What the mock model server is asked to do: how fast, and what goes wrong how often.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scenario::switch::Switch;
use crate::scenario::tree::{self, At, Refusal};
use crate::scenario::units::{Share, Time};

/// How the mock model server behaves. What is left out does not happen: replies come at once and whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What latencies and faults are drawn from, together with a request's id and how often that id was seen.
    pub seed: u64,
    /// Time before the first byte of a reply, log-normally distributed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
    /// Time from one token of a stream to the next.
    pub token_interval: Time,
    /// How far a token's interval strays from token_interval, to either side.
    pub token_jitter: Share,
    /// Share of requests answered with status 500.
    pub errors: Share,
    /// Requests whose reply stops for a while: a stream before one of its tokens, a plain reply before its first byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stalls: Option<Stalls>,
    /// Share of requests whose connection is cut in mid-reply: a stream after one of its tokens, a plain reply in its body.
    pub cuts: Share,
    /// File that gets a line of JSON for each request; one that is there is continued.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ledger: Option<PathBuf>,
    /// What faults of the run add to it.
    #[serde(skip)]
    #[doc(hidden)]
    pub trouble: Switch<super::Trouble>,
}

/// Times before the first byte of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// Half of the requests wait no longer.
    pub median: Time,
    /// 99 of 100 requests wait no longer, and none ten times as long; without it every request waits the median.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99: Option<Time>,
}

/// Replies that stop for a while.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stalls {
    /// Share of requests.
    pub share: Share,
    /// How long.
    #[serde(rename = "for")]
    pub length: Time,
}

impl Config {
    /// Reads the configuration in `file` (YAML).
    ///
    /// # Errors
    /// What is wrong with the file, and the mend.
    pub fn load(file: &Path) -> anyhow::Result<Self> {
        let name = file.display();
        let text = std::fs::read_to_string(file).with_context(|| format!("{name}: cannot be read; give a file of settings (YAML)"))?;
        Self::parse(&text).with_context(|| format!("{name}"))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        if text.lines().map(str::trim).all(|line| line.is_empty() || line.starts_with('#')) {
            return Ok(Self::default());
        }
        match tree::parse(text) {
            (Some(tree), refusals) if refusals.is_empty() => Ok(serde_json::from_value(tree.to_json())?),
            (_, refusals) => anyhow::bail!("{}", refusals.iter().map(refused).collect::<Vec<_>>().join("; ")),
        }
    }

    /// Whether what is asked for can be had.
    ///
    /// # Errors
    /// The keys that contradict each other, and the mend.
    pub fn check(&self) -> anyhow::Result<()> {
        if let Some(Latency { median, p99: Some(p99) }) = self.latency {
            let shown = |time: Time| humantime::format_duration(time.0).to_string();
            ensure!(
                median.0 > Duration::ZERO,
                "latency.median is 0s and latency.p99 {}; give the median too, or leave both out",
                shown(p99)
            );
            ensure!(p99 >= median, "latency.p99 ({}) is below latency.median ({}); give at least the median", shown(p99), shown(median));
        }
        Ok(())
    }
}

fn refused(refusal: &Refusal) -> String {
    match refusal.at {
        At::Text { line, column } => format!("line {line}, column {column}: {}", refusal.message),
        At::Override(_) => refusal.message.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_it_all() {
        let text = "seed: 7\nlatency: {median: 20ms, p99: 200ms}\ntoken_interval: 5ms\ntoken_jitter: 20%\nerrors: 1%\n\
                    stalls: {share: 0.5%, for: 2s}\ncuts: 0.01\nledger: upstream.jsonl\n";
        let config = Config::parse(text).unwrap();
        let expected = Config {
            seed: 7,
            latency: Some(Latency { median: Time::millis(20), p99: Some(Time::millis(200)) }),
            token_interval: Time::millis(5),
            token_jitter: Share(0.2),
            errors: Share(0.01),
            stalls: Some(Stalls { share: Share(0.005), length: Time::secs(2) }),
            cuts: Share(0.01),
            ledger: Some(PathBuf::from("upstream.jsonl")),
            ..Config::default()
        };
        assert_eq!(config, expected);
        config.check().unwrap();
        assert_eq!(serde_json::from_value::<Config>(serde_json::to_value(&config).unwrap()).unwrap(), config);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let said = |text: &str| format!("{:#}", Config::parse(text).and_then(|config| config.check()).unwrap_err());
        assert!(said("sed: 1").starts_with("unknown field `sed`, expected one of `seed`, `latency`"), "{}", said("sed: 1"));
        assert_eq!(Config::parse("\n# nothing\n").unwrap(), Config::default());
        assert!(said("errors: 2").contains("a share lies between 0 and 1"));
        assert!(said("seed: [").starts_with("line 2, column 1: not YAML"), "{}", said("seed: ["));
        assert_eq!(said("latency: {median: 1s, p99: 10ms}"), "latency.p99 (10ms) is below latency.median (1s); give at least the median");
        assert!(said("latency: {median: 0s, p99: 10ms}").contains("give the median too"));
        let missing = format!("{:#}", Config::load(Path::new("no/such.yaml")).unwrap_err());
        assert!(missing.starts_with("no/such.yaml: cannot be read; give a file"), "{missing}");
    }
}
