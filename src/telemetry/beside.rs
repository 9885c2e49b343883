//! What runs beside the runs of a call because its flags ask for it: registration in Consul and profiles of the harness.

use std::net::SocketAddr;

use tokio_util::sync::{CancellationToken, DropGuard};

use super::consul::{Agent, Registration};
use super::log::say;
use super::profile;
use super::pyroscope::{Profiles, Pyroscope};
use crate::cli::RunArgs;
use crate::scenario::Scenario;

/// Everything beside the runs of one call.
pub(crate) struct Beside {
    /// Until there are metrics to register.
    consul: Option<Agent>,
    registration: Option<Registration>,
    pyroscope: Option<Pyroscope>,
    /// Ends what listens.
    _stop: DropGuard,
}

impl Beside {
    /// # Errors
    /// When a URL or Consul's token is none, or the address for profiles cannot be had.
    pub(crate) async fn start(args: &RunArgs) -> anyhow::Result<Self> {
        let stop = CancellationToken::new();
        if let Some(asked) = args.pprof_listen {
            let address = profile::start(asked, &format!("--pprof-listen {asked}"), stop.clone()).await?;
            if !args.quiet {
                say(&format!("batchsql: profiles are on http://{address}/debug/pprof/"));
            }
        }
        let pyroscope = args.pyroscope.as_deref().map(Pyroscope::new).transpose()?;
        let consul = args.consul.clone().or_else(|| set("CONSUL_HTTP_ADDR"));
        let consul = consul.map(|url| Agent::new(&url, set("CONSUL_HTTP_TOKEN").as_deref())).transpose()?;
        Ok(Self { consul, registration: None, pyroscope, _stop: stop.drop_guard() })
    }

    /// The metrics are served there from now on.
    pub(crate) fn metrics_on(&mut self, metrics: SocketAddr) {
        self.registration = self.consul.take().map(|agent| agent.begin(metrics));
    }

    /// A run begins; what is returned is to be ended with it.
    pub(crate) fn run(&self, scenario: &Scenario) -> Option<Profiles> {
        let (env, name) = (&scenario.metrics.env, &scenario.name);
        if let Some(registration) = &self.registration {
            registration.run(env, name);
        }
        self.pyroscope.as_ref().map(|pyroscope| pyroscope.begin(env, name))
    }

    /// The last run has ended and its metrics are about to.
    pub(crate) async fn end(self) {
        if let Some(registration) = self.registration {
            registration.end().await;
        }
    }
}

/// A variable that says something.
fn set(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|value| !value.is_empty())
}
