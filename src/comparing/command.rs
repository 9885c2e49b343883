//! `batchsql compare`: from what was typed to sides, and from what was found to words and an exit code.

use std::ffi::OsString;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use tokio_util::sync::CancellationToken;

use super::turns::{Plan, SidePlan};
use super::{Asked, Done, exit_code, judge, make_folder, saved, turns, write};
use crate::cli::{CompareArgs, Scenarios};
use crate::commands;
use crate::compare::{Comparison, Kind, figures, gates};
use crate::redact::redact;
use crate::report::{Rate, github, versus};
use crate::scenario::Workload;

/// Compares, and says what was found.
pub(crate) async fn compare(args: CompareArgs) -> u8 {
    let mut secrets = args.scenarios.database_url.as_deref().map(crate::redact::secrets_of_url).unwrap_or_default();
    match compared(&args, &mut secrets).await {
        Ok((comparison, error)) => {
            let title = format!("batchsql {} / {}", comparison.before.name, comparison.after.name);
            github::tell(&title, comparison.verdict, &comparison.reasons, &comparison.gates, &versus::markdown(&comparison));
            let shown = show(&args, &comparison);
            let failed = error.map_or(0, |error| commands::failed(&error, &secrets));
            commands::gravest(&[exit_code(&comparison), failed, shown])
        }
        Err(error) => commands::failed(&error, &secrets),
    }
}

/// The comparison, and why it is not whole if it is not.
async fn compared(args: &CompareArgs, secrets: &mut Vec<String>) -> anyhow::Result<(Comparison, Option<anyhow::Error>)> {
    let gates =
        args.gate.iter().map(|gate| gate.parse().map_err(|problem| anyhow::anyhow!("--gate {problem}"))).collect::<Result<_, _>>()?;
    let mut asked = Asked { gates, detect: args.detect, reproduce: String::new(), seed: 0 };
    let (done, folder, id, error) = match sides(args, secrets)? {
        Sides::Saved(files) => {
            let began = Instant::now();
            let done = read(args, &files, began)?;
            gates::check(&asked.gates, &names(done.reports[0][0].throughput.rate))?;
            let (id, folder) = make_folder(&args.report_dir, "saved")?;
            (done, folder, id, None)
        }
        Sides::Scenarios { plan, requests } => {
            gates::check(&asked.gates, &names(if requests { Rate::Requests(None) } else { Rate::Rows(None) }))?;
            asked.seed = plan.seed;
            let (id, folder) = make_folder(&args.report_dir, &plan.sides[0].name)?;
            let (done, error) = run(args, &plan, &folder).await?;
            (done, folder, id, error)
        }
    };
    let files: Vec<String> = args.scenarios.files.iter().map(|file| file.display().to_string()).collect();
    asked.reproduce = commands::reproduce("compare", &files, asked.seed, secrets);
    let comparison = judge(&id, &done, &asked);
    write(&folder, &comparison, &done.reports)?;
    Ok((comparison, error))
}

/// Runs the pairs; what there is of them even if one could not run.
async fn run(args: &CompareArgs, plan: &Plan, folder: &Path) -> anyhow::Result<(Done, Option<anyhow::Error>)> {
    let stop = CancellationToken::new();
    tokio::spawn(commands::watch_signals(stop.clone()));
    let progress = commands::progress(args.quiet || args.json);
    match turns::run(plan, folder, &progress, &stop).await {
        Ok(done) => Ok((done, None)),
        Err(failed) if failed.done.reports.iter().all(Vec::is_empty) => {
            // What never began leaves nothing behind.
            let _ = std::fs::remove_dir_all(folder);
            Err(failed.error)
        }
        Err(failed) => Ok((failed.done, Some(failed.error))),
    }
}

fn names(rate: Rate) -> Vec<String> {
    figures::all(rate, "").iter().map(|figure| figure.metric.to_string()).collect()
}

/// What the command line named.
enum Sides {
    Saved([std::path::PathBuf; 2]),
    Scenarios { plan: Plan, requests: bool },
}

fn sides(args: &CompareArgs, secrets: &mut Vec<String>) -> anyhow::Result<Sides> {
    let files = &args.scenarios.files;
    let reports: Vec<_> = files.iter().map(|file| saved::report_file(file)).collect();
    if let [Some(before), Some(after)] = &reports[..] {
        let flags = !args.before.is_empty() || !args.after.is_empty() || !args.scenarios.set.is_empty() || args.aa;
        ensure!(!flags, "saved reports are compared as they are; remove --before, --after, --set and --aa");
        return Ok(Sides::Saved([before.clone(), after.clone()]));
    }
    ensure!(reports.iter().all(Option::is_none), "a saved report is compared with a saved report; name two of them, or scenarios");
    let differ = !args.before.is_empty() || !args.after.is_empty();
    let two = match (&files[..], args.aa, differ) {
        ([one], true, false) => [one, one],
        (_, true, _) => bail!("--aa runs one scenario against itself; name one, without --before and --after"),
        ([one], false, true) => [one, one],
        ([one], false, false) => bail!(
            "what is {} to be compared with? name a second scenario, or what differs with --before and --after, or --aa for the noise of one",
            one.display()
        ),
        ([before, after], false, _) => [before, after],
        _ => bail!("{} scenarios were named; a comparison has two sides", files.len()),
    };
    let (mut plans, mut kinds, mut seeds) = (Vec::new(), Vec::new(), Vec::new());
    for (file, own) in two.into_iter().zip([&args.before, &args.after]) {
        let mut scenarios = args.scenarios.clone();
        scenarios.set.extend(own.iter().cloned());
        let loaded = commands::load_scenario(&scenarios, &[], file)?;
        secrets.extend(loaded.secrets);
        kinds.push(matches!(loaded.scenario.workload, Workload::ProxyRequest(_)));
        seeds.push(loaded.scenario.seed);
        let set = own.iter().map(|set| redact(set, secrets)).collect::<Vec<_>>().join(", ");
        let name = if set.is_empty() { loaded.scenario.name } else { format!("{} ({set})", loaded.scenario.name) };
        plans.push(SidePlan { name, file: file.clone(), arguments: arguments(&scenarios) });
    }
    ensure!(kinds[0] == kinds[1], "one side inserts rows and the other sends requests; their figures are not the same");
    let kind = if args.aa { Kind::SameTwice } else { Kind::Runs };
    let sides = <[SidePlan; 2]>::try_from(plans).ok().context("a comparison has two sides")?;
    Ok(Sides::Scenarios { plan: Plan { kind, sides, pairs: args.pairs, seed: seeds[0] }, requests: kinds[0] })
}

/// What a side's runs are told beside their file.
fn arguments(scenarios: &Scenarios) -> Vec<OsString> {
    let Scenarios { files: _, set, database_url, target_url, allow_host, insecure_tls, seed } = scenarios;
    let mut words: Vec<OsString> = Vec::new();
    let mut flag = |name: &str, value: &str| words.push(format!("{name}={value}").into());
    set.iter().for_each(|set| flag("--set", set));
    database_url.iter().for_each(|url| flag("--database-url", url));
    target_url.iter().for_each(|url| flag("--target-url", url));
    allow_host.iter().for_each(|host| flag("--allow-host", host));
    seed.iter().for_each(|seed| flag("--seed", &seed.to_string()));
    if *insecure_tls {
        words.push("--insecure-tls".into());
    }
    words
}

/// Two saved reports, if they can be compared.
fn read(args: &CompareArgs, files: &[std::path::PathBuf; 2], began: Instant) -> anyhow::Result<Done> {
    let [before, after] = [saved::read(&files[0])?, saved::read(&files[1])?];
    let kinds = [&before, &after].map(|report| report.throughput.rate.unit());
    ensure!(kinds[0] == kinds[1], "one report is of {} and the other of {}; their figures are not the same", kinds[0], kinds[1]);
    let differences = saved::differences(&before, &after);
    let kind = match (differences.is_empty(), args.across_machines) {
        (true, _) => Kind::Saved,
        (false, true) => Kind::Calibrated,
        (false, false) => bail!(
            "these reports were not made under the same circumstances:\n  {}\nrun both sides here, or pass --across-machines to relate each to its own machine's calibration",
            differences.join("\n  ")
        ),
    };
    if kind == Kind::Calibrated {
        for (file, report) in files.iter().zip([&before, &after]) {
            let shown = file.display();
            ensure!(
                report.environment.calibration.is_some(),
                "report {shown} has no calibration of its machine; run the scenario again there"
            );
        }
    }
    let name = |report: &crate::report::Report| report.run_id.clone();
    Ok(Done {
        kind,
        names: [name(&before), name(&after)],
        started_at: jiff::Timestamp::now().to_string(),
        seconds: began.elapsed().as_secs_f64(),
        reports: [vec![before], vec![after]],
        order: vec![0, 1],
        pairs: 1,
        interrupted: false,
        notes: differences,
    })
}

fn show(args: &CompareArgs, comparison: &Comparison) -> u8 {
    let folder = args.report_dir.join(&comparison.comparison_id);
    match (args.json, args.quiet) {
        (true, _) => commands::print_json(comparison),
        (false, true) => 0,
        (false, false) => commands::print(&versus::terminal(comparison, &folder, commands::color())),
    }
}

/// What `--detect` takes: a share above 0.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    let (number, unit) = text.trim().strip_suffix('%').map_or((text.trim(), 1.0), |number| (number.trim(), 100.0));
    let share = number.parse::<f64>().ok().map(|number| number / unit).filter(|share| *share > 0.0 && *share <= 10.0);
    share.ok_or_else(|| "write a share above 0, e.g. 10%".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_percentage_or_a_number() {
        assert_eq!((share("10%"), share("0.05"), share(" 2.5 % ")), (Ok(0.1), Ok(0.05), Ok(0.025)));
        for wrong in ["0", "-5%", "ten", "", "NaN", "inf"] {
            assert_eq!(share(wrong), Err("write a share above 0, e.g. 10%".to_owned()), "{wrong}");
        }
    }
}
