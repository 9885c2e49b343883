//! All mutants of cargo-mutants in one build: a run takes minutes instead of the hours that a build a mutant takes.
//!
//! `batchsql-mutants TREE [WORD…]`: TREE is a copy of the package, which is rewritten; with words, only mutants whose
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
    let [tree, words @ ..] = arguments.as_slice() else { bail!("usage: batchsql-mutants TREE [WORD…]") };
    let tree = Path::new(tree);
    let mutants = list::list(tree)?;
    let sources = Sources::read(tree, &mutants)?;
    let mut unviable = BTreeSet::new();
    let executable = loop {
        let embedded = sources.embed(tree, &mutants, &mut unviable)?;
        let complaints = match run::build(tree)? {
            Ok(executable) => break executable,
            Err(complaints) => complaints,
        };
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

/// The tree's files as they were copied.
struct Sources {
    library: String,
    texts: BTreeMap<String, String>,
}

impl Sources {
    fn read(tree: &Path, mutants: &[Mutant]) -> Result<Self> {
        let read = |file: &str| std::fs::read_to_string(tree.join(file)).with_context(|| format!("{file} cannot be read"));
        let files: BTreeSet<&String> = mutants.iter().map(|mutant| &mutant.file).collect();
        let texts = files.into_iter().map(|file| Ok((file.clone(), read(file)?))).collect::<Result<_>>()?;
        Ok(Self { library: read("src/lib.rs")?, texts })
    }

    /// Writes every file with its mutants into the tree, and the question they ask.
    fn embed(&self, tree: &Path, mutants: &[Mutant], unviable: &mut BTreeSet<u32>) -> Result<BTreeMap<String, Embedded>> {
        let mut all = BTreeMap::new();
        for (file, text) in &self.texts {
            let viable: Vec<&Mutant> = mutants.iter().filter(|mutant| mutant.file == *file && !unviable.contains(&mutant.number)).collect();
            let (embedded, nowhere) = embed::embed(text, &viable).with_context(|| format!("{file} cannot be read as Rust"))?;
            unviable.extend(nowhere);
            std::fs::write(tree.join(file), &embedded.text)?;
            all.insert(file.clone(), embedded);
        }
        std::fs::write(tree.join("src/lib.rs"), format!("{}{}", self.library, embed::QUESTION))?;
        Ok(all)
    }
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
        modules.entry(mutant.module()).or_default()[*fate as usize] += 1;
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
