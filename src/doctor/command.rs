//! `batchsql doctor`: from flags to what is looked at, and from the findings to an exit code.

use std::path::Path;

use super::databases::Wanted;
use super::{Place, Plan, State, examine, show};
use crate::cli::DoctorArgs;
use crate::commands;
use crate::redact;
use crate::scenario::database_url::target_of;
use crate::scenario::load;

/// Where the compose file has its databases.
const USUAL_DATABASES: [&str; 2] =
    ["postgres://batchsql:batchsql@127.0.0.1:5432/batchsql", "mysql://batchsql:batchsql@127.0.0.1:3306/batchsql"];

/// Something is ill.
const ILL: u8 = 1;

/// Looks at everything once.
pub(crate) async fn doctor(args: DoctorArgs) -> u8 {
    let secrets: Vec<String> = args.database_url.iter().flat_map(|url| redact::secrets_of_url(url)).collect();
    let json = args.json;
    let diagnosis = match plan(args) {
        Ok(plan) => examine(plan).await,
        Err(error) => return commands::failed(&error, &secrets),
    };
    let printed = if json { commands::print_json(&diagnosis) } else { commands::print(&show::text(&diagnosis, commands::color())) };
    match diagnosis.state {
        _ if printed != 0 => printed,
        State::Ill => ILL,
        State::Well | State::Absent => 0,
    }
}

fn plan(args: DoctorArgs) -> anyhow::Result<Plan> {
    let place = |flag, url: Option<String>, usual: &str| {
        let named = url.as_deref().is_some_and(|url| !url.is_empty());
        Place { flag, named, url: url.filter(|_| named).unwrap_or_else(|| usual.to_owned()) }
    };
    Ok(Plan {
        databases: databases(&args)?,
        gateway: place("--gateway-url", args.gateway_url, "http://127.0.0.1:3001"),
        prometheus: place("--prometheus-url", args.prometheus_url, "http://127.0.0.1:9090"),
        victoriametrics: place("--victoriametrics-url", args.victoriametrics_url, "http://127.0.0.1:8428"),
        grafana: place("--grafana-url", args.grafana_url, "http://127.0.0.1:3000"),
        alertmanager: place("--alertmanager-url", args.alertmanager_url, "http://127.0.0.1:9093"),
        serve: place("--serve-url", args.serve_url, "http://127.0.0.1:3009"),
        report_dir: args.report_dir,
    })
}

fn databases(args: &DoctorArgs) -> anyhow::Result<Vec<Wanted>> {
    let of_url = |url: &str, named| -> anyhow::Result<Wanted> {
        let mut target = target_of(url).map_err(anyhow::Error::msg)?;
        target.insecure_tls = args.insecure_tls;
        Ok(Wanted { target, scenario_name: "doctor".to_owned(), report_dir: args.report_dir.clone(), named })
    };
    let mut wanted = args.database_url.iter().map(|url| of_url(url, true)).collect::<Result<Vec<_>, _>>()?;
    for file in &args.scenarios {
        wanted.extend(of_scenario(file, args)?);
    }
    if args.database_url.is_empty() && args.scenarios.is_empty() {
        wanted = USUAL_DATABASES.into_iter().map(|url| of_url(url, false)).collect::<Result<_, _>>()?;
    }
    Ok(wanted)
}

/// The database of a scenario; one of requests has none of its own.
fn of_scenario(file: &Path, args: &DoctorArgs) -> anyhow::Result<Option<Wanted>> {
    let changes = load::Changes { set: &[], database_url: None, target_url: None };
    let loaded = load::load(file, changes, &|name| std::env::var(name).ok())?;
    let mut target = loaded.scenario.target;
    target.insecure_tls |= args.insecure_tls;
    // A file that the first run makes need not be there yet.
    let named = target.sqlite.is_none();
    let wanted = Wanted { scenario_name: loaded.scenario.name, report_dir: args.report_dir.clone(), named, target };
    Ok(wanted.target.database().map(|_| wanted))
}
