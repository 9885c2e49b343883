//! Builds the tree with all mutants in it, and runs the tests once for each.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::list::Mutant;

/// The modules whose tests a mutant has to get past.
const AREAS: [&str; 5] = ["gate::", "ledger::", "pipeline::", "target::", "verifier::"];

/// Most memory of a test run: a mutant may ask for more and more.
const MEMORY_KB: &str = "8388608";

/// What became of a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// A test failed, or never ended.
    Caught,
    /// Every test passed.
    Survived,
    /// It does not compile, or has no place in the syntax.
    Unviable,
}

/// An error of the compiler: its file and byte.
pub struct Complaint {
    pub file: String,
    pub byte: usize,
    pub message: String,
}

/// Builds the library's tests; or what the compiler finds wrong in the tree.
pub fn build(tree: &Path) -> Result<Result<PathBuf, Vec<Complaint>>> {
    let (executable, complaints) = cargo(tree, &["test", "--lib", "--no-run"])?;
    if complaints.is_empty() { executable.context("cargo built no tests").map(Ok) } else { Ok(Err(complaints)) }
}

fn cargo(tree: &Path, arguments: &[&str]) -> Result<(Option<PathBuf>, Vec<Complaint>)> {
    let mut command = Command::new("cargo");
    command.args(arguments).args(["--locked", "--message-format=json", "--quiet"]).current_dir(tree);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().context("cargo cannot be run")?;
    let lines = BufReader::new(child.stdout.take().context("cargo has no output")?).lines();
    let (mut executable, mut complaints) = (None, Vec::new());
    for line in lines {
        let told: Value = serde_json::from_str(&line?)?;
        executable = told["executable"].as_str().map(PathBuf::from).or(executable);
        let message = &told["message"];
        if message["level"] != "error" {
            continue;
        }
        for span in message["spans"].as_array().into_iter().flatten().filter(|span| span["is_primary"] == true) {
            let file = span["file_name"].as_str().unwrap_or_default().to_owned();
            let byte = span["byte_start"].as_u64().unwrap_or_default() as usize;
            complaints.push(Complaint { file, byte, message: message["rendered"].as_str().unwrap_or_default().to_owned() });
        }
    }
    if !child.wait()?.success() && complaints.is_empty() {
        bail!("cargo {} failed in {}; run it there to see why", arguments.join(" "), tree.display());
    }
    Ok((executable, complaints))
}

/// Runs the tests against every mutant that is not in `unviable`, several at once.
pub fn run(executable: &Path, tree: &Path, mutants: &[&Mutant], unviable: &BTreeSet<u32>) -> Result<Vec<Fate>> {
    let mut limits = BTreeMap::new();
    for area in AREAS {
        let began = Instant::now();
        let passed = passes(executable, tree, 0, &[area], Duration::from_secs(600))?;
        ensure!(passed, "the tests of {area} fail without any mutant; mend them first");
        limits.insert(area, began.elapsed() * 5 + Duration::from_secs(10));
    }
    let whole: Duration = limits.values().sum();
    eprintln!("a mutant whose tests take longer than {limits:?} counts as caught");
    let fates = Mutex::new(vec![Fate::Unviable; mutants.len()]);
    let next = AtomicUsize::new(0);
    let work = || -> Result<()> {
        while let Some((place, mutant)) = Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|place| Some((place, mutants.get(place)?))) {
            if unviable.contains(&mutant.number) {
                continue;
            }
            let own = format!("{}::", mutant.module());
            let limit = limits.get(own.as_str()).copied().unwrap_or(whole);
            // Its own module's tests mostly catch it; what others say matters only where they do not.
            let survived =
                passes(executable, tree, mutant.number, &[&own], limit)? && passes(executable, tree, mutant.number, &AREAS, whole)?;
            if survived {
                println!("survived: {}", mutant.name);
            }
            fates.lock().expect("no worker panics")[place] = if survived { Fate::Survived } else { Fate::Caught };
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..std::thread::available_parallelism().map_or(1, usize::from)).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("no worker panics"))
    })?;
    Ok(fates.into_inner().expect("no worker panics"))
}

/// Whether all tests of `areas` pass with mutant `number` switched on.
fn passes(executable: &Path, tree: &Path, number: u32, areas: &[&str], limit: Duration) -> Result<bool> {
    let mut command = Command::new("bash");
    command.args(["-c", "ulimit -c 0; ulimit -v $0; exec \"$@\"", MEMORY_KB]).arg(executable).args(areas);
    command.env("BATCHSQL_MUTANT", number.to_string()).env("INSTA_UPDATE", "no");
    // The fast share of the tests that have more to do.
    command.env_remove("BATCHSQL_PROOF");
    command.env("PROPTEST_RNG_SEED", "1").env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1");
    let mut child = command.current_dir(tree).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if Instant::now() > end {
            child.kill()?;
            child.wait()?;
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
