//! All mutants of cargo-mutants in one build: a run takes minutes instead of the hours that a build a mutant takes.
//!
//! `batchsql-mutants ROOT TREE [WORD…]`: ROOT is the package, TREE a copy of it that is rewritten; with words, only mutants whose
//! name has one of them are tried. Prints those that survive, and writes `$BATCHSQL_PROOF/mutants.json`. Exits 1 if one survived.

mod embed;
mod list;
mod run;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use embed::Embedded;
use list::Mutant;
use run::{Complaint, Fate};

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [root, tree, words @ ..] = arguments.as_slice() else { bail!("usage: batchsql-mutants ROOT TREE [WORD…]") };
    let (root, tree) = (Path::new(root), Path::new(tree));
    let mutants = list::list(root)?;
    let mut unviable = BTreeSet::new();
    let executable = loop {
        let embedded = embed_all(root, tree, &mutants, &mut unviable)?;
        let complaints = run::check(tree)?;
        if complaints.is_empty() {
            break run::build(tree)?;
        }
        let before = unviable.len();
        drop_wrong(&embedded, &complaints, &mut unviable);
        if unviable.len() == before {
            bail!("the tree does not compile, and no mutant is to blame: {}", complaints[0].message);
        }
        eprintln!("{} mutants do not compile so far", unviable.len());
    };
    let chosen: Vec<&Mutant> =
        mutants.iter().filter(|mutant| words.is_empty() || words.iter().any(|word| mutant.name.contains(word.as_str()))).collect();
    eprintln!("{} of {} mutants, {} of all do not compile", chosen.len(), mutants.len(), unviable.len());
    let fates = run::run(&executable, tree, &chosen, &unviable)?;
    let table = tell(&chosen, &fates);
    if let (Some(proof), true) = (std::env::var_os("BATCHSQL_PROOF"), words.is_empty()) {
        let path = Path::new(&proof).join("mutants.json");
        std::fs::write(&path, serde_json::to_string_pretty(&table)?).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(if fates.contains(&Fate::Survived) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Writes every file that has mutants into the tree, and the question they ask.
fn embed_all(root: &Path, tree: &Path, mutants: &[Mutant], unviable: &mut BTreeSet<u32>) -> Result<BTreeMap<String, Embedded>> {
    let mut files: BTreeMap<&str, Vec<&Mutant>> = BTreeMap::new();
    for mutant in mutants {
        files.entry(&mutant.file).or_default().push(mutant);
    }
    let mut all = BTreeMap::new();
    for (file, mutants) in files {
        let text = std::fs::read_to_string(root.join(file))?;
        let viable: Vec<&Mutant> = mutants.into_iter().filter(|mutant| !unviable.contains(&mutant.number)).collect();
        let (embedded, nowhere) = embed::embed(&text, &viable).with_context(|| format!("{file} cannot be read as Rust"))?;
        unviable.extend(nowhere);
        std::fs::write(tree.join(file), &embedded.text)?;
        all.insert(file.to_owned(), embedded);
    }
    let library = std::fs::read_to_string(root.join("src/lib.rs"))?;
    std::fs::write(tree.join("src/lib.rs"), library + embed::QUESTION)?;
    Ok(all)
}

/// What the compiler complains about is the innermost mutant there.
fn drop_wrong(embedded: &BTreeMap<String, Embedded>, complaints: &[Complaint], unviable: &mut BTreeSet<u32>) {
    for Complaint { file, byte, .. } in complaints {
        let places = embedded.get(file).map(|embedded| embedded.places.as_slice()).unwrap_or_default();
        if let Some((_, group)) = places.iter().rev().find(|(range, _)| range.contains(byte)) {
            unviable.extend(group);
        }
    }
}

/// The table of scripts/prove: a line a module.
fn tell(mutants: &[&Mutant], fates: &[Fate]) -> Vec<serde_json::Value> {
    let mut modules: BTreeMap<&str, [u64; 3]> = BTreeMap::new();
    for (mutant, fate) in mutants.iter().zip(fates) {
        let module = mutant.file.trim_start_matches("src/").split(['/', '.']).next().unwrap_or_default();
        modules.entry(module).or_default()[*fate as usize] += 1;
    }
    let line = |(module, [caught, survived, unviable]): (&str, [u64; 3])| {
        println!("{module}: {caught} caught, {survived} survived, {unviable} do not compile");
        let note = format!("{unviable} more do not compile; those that change nothing stand with their reason in .cargo/mutants.toml");
        serde_json::json!({
            "part": "mutants", "class": module, "database": "-",
            "planted": caught + survived, "found": caught, "missed": survived, "false": 0, "note": note,
        })
    };
    modules.into_iter().map(line).collect()
}
