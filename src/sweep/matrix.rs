//! The cells of a sweep: what was typed, every combination of it, and the proof that each is a scenario of its own.

use anyhow::{bail, ensure};
use rand::{RngExt as _, SeedableRng as _};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde_json::Value;

/// Most cells; more are hours.
const MOST_CELLS: usize = 1_000;
/// Keys that change what a run is called or how it is judged, not what runs.
const LABELS: [&str; 4] = ["name", "description", "metrics", "gates"];

/// A key and its values, as typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Axis {
    pub(super) key: String,
    pub(super) values: Vec<String>,
}

/// What `--vary` takes: `path.to.key=value,value`; a comma within brackets or quotes parts nothing.
pub(super) fn axis(text: &str) -> anyhow::Result<Axis> {
    let Some((key, values)) = text.split_once('=') else {
        bail!("--vary {text}: write path.to.key=value,value");
    };
    let values = parts(values);
    ensure!(values.iter().all(|value| !value.is_empty()), "--vary {key}: a value is missing between the commas");
    ensure!(values.len() > 1, "--vary {key}: one value varies nothing; give two or more, or use --set");
    let label = LABELS.iter().find(|label| key == **label || key.starts_with(&format!("{label}.")));
    ensure!(label.is_none(), "--vary {key}: it changes nothing that runs; vary a value of target, workload or load");
    Ok(Axis { key: key.to_owned(), values })
}

fn parts(text: &str) -> Vec<String> {
    let (mut parts, mut depth, mut quote) = (vec![String::new()], 0_usize, None);
    for c in text.chars() {
        match (quote, c) {
            (None, ',') if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            (None, '[' | '{') => depth += 1,
            (None, ']' | '}') => depth = depth.saturating_sub(1),
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
        parts.last_mut().expect("there is always one").push(c);
    }
    parts.into_iter().map(|part| part.trim().to_owned()).collect()
}

/// Every combination, as the places of its values; the last axis varies fastest.
pub(super) fn cells(axes: &[Axis]) -> anyhow::Result<Vec<Vec<usize>>> {
    for (place, axis) in axes.iter().enumerate() {
        let clash = axes[..place].iter().find(|other| under(&steps(&axis.key), &steps(&other.key)));
        if let Some(other) = clash {
            bail!("--vary {} and --vary {}: one is the other or a part of it; keep one", other.key, axis.key);
        }
    }
    let count = axes.iter().try_fold(1_usize, |count, axis| count.checked_mul(axis.values.len())).unwrap_or(usize::MAX);
    ensure!(count <= MOST_CELLS, "--vary: {count} combinations are more than {MOST_CELLS}; leave values out");
    let mut cells = vec![Vec::new()];
    for axis in axes {
        let more = |cell: &Vec<usize>| (0..axis.values.len()).map(|value| [cell.as_slice(), &[value]].concat()).collect::<Vec<_>>();
        cells = cells.iter().flat_map(more).collect();
    }
    Ok(cells)
}

/// What is set for a cell.
pub(super) fn set(axes: &[Axis], cell: &[usize]) -> Vec<String> {
    axes.iter().zip(cell).map(|(axis, value)| format!("{}={}", axis.key, axis.values[*value])).collect()
}

/// In which order cells run: each round has all of them, shuffled by the seed, so that a drift of the machine hits all alike.
pub(super) fn order(cells: usize, round: u32, seed: u64) -> Vec<usize> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed ^ (u64::from(round) << 48));
    let mut order: Vec<usize> = (0..cells).collect();
    for place in (1..cells).rev() {
        order.swap(place, random.random_range(0..=place));
    }
    order
}

/// Refuses cells whose resolved scenarios do not differ in exactly the keys that vary.
pub(super) fn differ(axes: &[Axis], cells: &[Vec<usize>], resolved: &[Value]) -> anyhow::Result<()> {
    for (place, cell) in cells.iter().enumerate() {
        for before in 0..place {
            let keys: Vec<usize> = (0..axes.len()).filter(|axis| cell[*axis] != cells[before][*axis]).collect();
            // One key alone shows whether that key does anything; with the first cell, each is held for what else it changes.
            if keys.len() != 1 && before != 0 {
                continue;
            }
            let mut different = Vec::new();
            differences(&resolved[before], &resolved[place], &mut Vec::new(), &mut different);
            for axis in &keys {
                let Axis { key, values } = &axes[*axis];
                ensure!(
                    different.iter().any(|path| under(path, &steps(key))),
                    "--vary {key}: {} and {} are the same once the scenario is resolved, so that nothing would differ; leave one out",
                    values[cells[before][*axis]],
                    values[cell[*axis]]
                );
            }
            let stray = different.iter().find(|path| !keys.iter().any(|axis| under(path, &steps(&axes[*axis].key))));
            if let Some(path) = stray {
                bail!(
                    "--vary {}: it changes {} too, so that cells would differ in more than what they say",
                    axes[keys[0]].key,
                    path.join(".")
                );
            }
        }
    }
    Ok(())
}

fn steps(key: &str) -> Vec<String> {
    key.split('.').map(str::to_owned).collect()
}

/// Whether one of the paths begins with the other.
fn under(path: &[String], key: &[String]) -> bool {
    path.starts_with(key) || key.starts_with(path)
}

/// The paths at which two values differ.
fn differences(one: &Value, other: &Value, at: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    let mut deeper = |step: String, one: &Value, other: &Value| {
        at.push(step);
        differences(one, other, at, found);
        at.pop();
    };
    match (one, other) {
        (Value::Object(these), Value::Object(those)) => {
            for (key, value) in these {
                deeper(key.clone(), value, those.get(key).unwrap_or(&Value::Null));
            }
            for (key, value) in those.iter().filter(|(key, _)| !these.contains_key(*key)) {
                deeper(key.clone(), &Value::Null, value);
            }
        }
        (Value::Array(these), Value::Array(those)) => {
            for place in 0..these.len().max(those.len()) {
                let item = |list: &[Value]| list.get(place).cloned().unwrap_or_default();
                deeper(place.to_string(), &item(these), &item(those));
            }
        }
        _ if one != other => found.push(at.clone()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn axes(texts: &[&str]) -> Vec<Axis> {
        texts.iter().map(|text| axis(text).unwrap()).collect()
    }

    #[test]
    fn values_are_parted_at_the_commas_between_them() {
        let values = |text: &str| axis(text).unwrap().values;
        assert_eq!(values("a.b=50, 200,1000"), ["50", "200", "1000"]);
        assert_eq!(values("a={min: 1, max: 2},[1,2]"), ["{min: 1, max: 2}", "[1,2]"]);
        assert_eq!(values("a='x,y',\"it's, z\""), ["'x,y'", "\"it's, z\""]);
        assert_eq!(values("a=k=v,null"), ["k=v", "null"]);
        let told = |text: &str| axis(text).unwrap_err().to_string();
        assert_eq!(told("a.b"), "--vary a.b: write path.to.key=value,value");
        assert_eq!(told("a.b=1"), "--vary a.b: one value varies nothing; give two or more, or use --set");
        assert_eq!(told("a.b=1,,2"), "--vary a.b: a value is missing between the commas");
        assert!(told("metrics.env=a,b").contains("changes nothing that runs"));
    }

    #[test]
    fn every_combination_is_there_once() {
        let axes = axes(&["a=1,2", "b=x,y,z"]);
        let cells = cells(&axes).unwrap();
        assert_eq!(cells, [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]);
        assert_eq!(set(&axes, &cells[4]), ["a=2", "b=y"]);
        let told = |texts: &[&str]| super::cells(&self::axes(texts)).unwrap_err().to_string();
        assert_eq!(told(&["a.b=1,2", "a.b=3,4"]), "--vary a.b and --vary a.b: one is the other or a part of it; keep one");
        assert!(told(&["a.b.c=1,2", "a.b={},null"]).contains("--vary a.b.c and --vary a.b"));
        let many = format!("x={}", (0..40).map(|n| n.to_string()).collect::<Vec<_>>().join(","));
        assert!(told(&[&many, &many.replace('x', "y")]).contains("1600 combinations are more than 1000"));
    }

    #[test]
    fn the_order_is_every_cell_once_and_the_seeds() {
        let once = order(20, 0, 42);
        let mut sorted = once.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..20).collect::<Vec<_>>());
        assert_ne!(once, sorted);
        assert_eq!(once, order(20, 0, 42));
        assert!(once != order(20, 1, 42) && once != order(20, 0, 43));
        // Every cell comes first sometimes: 6 of 60 expected.
        let firsts: Vec<usize> = (0..60).map(|seed| order(10, 0, seed)[0]).collect();
        assert!((0..10).all(|cell| firsts.contains(&cell)), "{firsts:?}");
    }

    #[test]
    fn cells_that_are_not_what_they_say_are_refused() {
        let two = axes(&["a.n=1,2", "b=x,y"]);
        let cells = cells(&two).unwrap();
        let resolved = |change: &dyn Fn(usize, usize) -> Value| cells.iter().map(|cell| change(cell[0], cell[1])).collect::<Vec<_>>();
        let told = |change: &dyn Fn(usize, usize) -> Value| differ(&two, &cells, &resolved(change)).map_err(|error| error.to_string());
        assert_eq!(told(&|n, b| json!({"a": {"n": n}, "b": b, "c": 1})), Ok(()));
        // Nothing reads b.
        let unread = told(&|n, _| json!({"a": {"n": n}, "b": 0})).unwrap_err();
        assert!(unread.starts_with("--vary b: x and y are the same once the scenario is resolved"), "{unread}");
        let coupled = told(&|n, b| json!({"a": {"n": n}, "b": b, "c": {"d": n}})).unwrap_err();
        assert!(coupled.starts_with("--vary a.n: it changes c.d too"), "{coupled}");
        // A key that is absent in one of the cells is a difference of that key.
        assert_eq!(told(&|n, b| if n == 0 { json!({"b": [b]}) } else { json!({"a": {"n": n}, "b": [b]}) }), Ok(()));
    }
}
