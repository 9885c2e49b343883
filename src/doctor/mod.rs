//! How the stack around the runs is: of each part whether it is well, ill or absent, what was found, and the mend.
//!
//! All parts are asked at once, each question within two seconds. A part that nobody named and that is not there is absent, which is
//! no fault; a part that was named and is not there is ill.

mod certificate;
pub(crate) mod command;
mod databases;
mod machine;
mod services;
mod show;
mod signals;

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use self::signals::Signal;

/// Longest wait for one answer.
const LIMIT: Duration = Duration::from_secs(2);

/// How a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Well,
    /// Not there, and nobody said that it should be.
    Absent,
    Ill,
}

/// What was found of one part.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Finding {
    part: String,
    state: State,
    found: String,
    /// What to do, if it is ill or absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

impl Finding {
    fn well(part: impl Into<String>, found: impl Into<String>) -> Self {
        Self { part: part.into(), state: State::Well, found: found.into(), mend: None }
    }

    fn ill(part: impl Into<String>, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { part: part.into(), state: State::Ill, found: found.into(), mend: Some(mend.into()) }
    }

    /// Not there: ill if it was `named`, else absent.
    fn missing(named: bool, part: impl Into<String>, found: impl Into<String>, mend: impl Into<String>) -> Self {
        let state = if named { State::Ill } else { State::Absent };
        Self { part: part.into(), state, found: found.into(), mend: Some(mend.into()) }
    }
}

/// The address of a service.
struct Place {
    /// The flag that names it.
    flag: &'static str,
    url: String,
    /// Whether somebody named it.
    named: bool,
}

/// What is looked at.
struct Plan {
    databases: Vec<databases::Wanted>,
    gateway: Place,
    prometheus: Place,
    victoriametrics: Place,
    grafana: Place,
    alertmanager: Place,
    serve: Place,
    report_dir: PathBuf,
}

/// Everything that was found.
#[derive(Serialize)]
struct Diagnosis {
    /// The gravest of the parts' and signals'.
    state: State,
    parts: Vec<Finding>,
    signals: Vec<Signal>,
}

/// Asks everything at once.
async fn examine(plan: Plan) -> Diagnosis {
    let (instant, wall) = (Instant::now(), SystemTime::now());
    let (gateway, prometheus, victoriametrics, grafana, alertmanager, serve, databases, certificates) = tokio::join!(
        services::gateway(&plan.gateway),
        services::prometheus(&plan.prometheus),
        services::victoriametrics(&plan.victoriametrics),
        services::grafana(&plan.grafana),
        services::alertmanager(&plan.alertmanager),
        services::serve(&plan.serve),
        databases::all(&plan.databases),
        certificate::all(&plan),
    );
    let asked = [gateway, prometheus, victoriametrics, grafana, alertmanager, serve];
    let skews = asked.iter().filter_map(|asked| asked.skew).collect::<Vec<_>>();
    // Prometheus has the rules and scrapes all; VictoriaMetrics is asked where it does not answer.
    let source = asked[1..3].iter().find_map(|asked| asked.query.clone());
    let mut parts = databases;
    parts.extend(asked.into_iter().flat_map(|asked| asked.findings));
    parts.extend(certificates);
    parts.push(machine::disk(&plan.report_dir));
    let (signals, ticked) = tokio::join!(signals::all(source), machine::tick(instant, wall));
    parts.push(machine::clock(ticked, &skews));
    let gravest = parts.iter().map(|part| part.state).max().unwrap_or(State::Well);
    let ill = gravest == State::Ill || signals.iter().any(Signal::is_critical);
    Diagnosis { state: if ill { State::Ill } else { State::Well }, parts, signals }
}
