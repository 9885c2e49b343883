//! What fuzzing asserts of everything that reads what others wrote: one function a target, each takes any bytes and panics if a
//! promise is broken. `fuzz/` runs them under libFuzzer; the test at the foot runs them on its corpus and on seeded mutations of it.

use std::path::Path;

use crate::gate::{Gate, Metric};
pub use crate::http::fuzz::{http, sse};
use crate::ledger::requests::RequestLedger;
use crate::ledger::{Header, Ledger, Outcome, VERSION};
use crate::scenario::load::{Changes, from_text};
use crate::scenario::proxy::ProxyRequest;
use crate::verifier::requests::Requests;
use crate::workload::proxy_request::Generator;

/// A scenario: any text is a scenario or a list of problems with their places, and what was read is read the same again.
///
/// # Panics
/// If that does not hold.
pub fn scenario(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let read = |text: &str| from_text("x.yaml", text, Changes::default(), &|_| None).map_err(|problems| problems.to_string());
    match read(text) {
        Ok(loaded) => {
            let written = serde_json::to_string(&loaded.scenario).expect("a scenario is data");
            // What a scenario calls a dollar sign.
            let text = written.replace('$', "$$");
            let again = read(&text).unwrap_or_else(|problems| panic!("{problems}\nis said of the scenario {text}"));
            assert_eq!(serde_json::to_string(&again.scenario).expect("a scenario is data"), written);
        }
        Err(problems) => {
            let place = problems.strip_prefix("x.yaml:").expect("it begins with the file");
            assert!(place.starts_with(|c: char| c.is_ascii_digit() || c == ' '), "{problems}");
        }
    }
}

/// A gate: what was read is written and read the same again.
///
/// # Panics
/// If that does not hold.
pub fn gate(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(gate) = text.parse::<Gate>() else { return };
    let written = serde_json::to_string(&gate).expect("a gate is data");
    assert_eq!(serde_json::from_str::<Gate>(&written).as_ref().ok(), Some(&gate), "{written}");
    assert_eq!(gate.text.parse().as_ref(), Ok(&gate));
    assert_eq!(gate.metric.to_string().parse::<Metric>(), Ok(gate.metric));
}

/// The bytes of a ledger whose records are `input`, each after a byte that says how long it is, and where one byte says to cut it.
fn ledger_of(input: &[u8]) -> (Vec<u8>, usize) {
    let (cut, mut rest) = input.split_first().map_or((0, input), |(cut, rest)| (usize::from(*cut), rest));
    let header = Header { version: VERSION, run_id: "r".to_owned(), seed: 1 };
    let mut payload = vec![0];
    payload.extend(serde_json::to_vec(&header).expect("a header is data"));
    let mut bytes = Vec::new();
    let mut frame = |payload: &[u8]| {
        let length = (payload.len() as u32).to_le_bytes();
        bytes.extend_from_slice(&length);
        bytes.extend_from_slice(&crc32fast::hash(&length).to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
        bytes.extend_from_slice(payload);
    };
    frame(&payload);
    while let Some((length, after)) = rest.split_first() {
        let length = usize::from(*length).clamp(1, after.len().max(1));
        let Some((record, after)) = after.split_at_checked(length) else { break };
        frame(record);
        rest = after;
    }
    let cut = bytes.len() * cut / 255;
    (bytes, cut)
}

/// A ledger of batches: no bytes make it panic or take more memory than they are long, and what a cut leaves is its beginning.
///
/// # Panics
/// If that does not hold.
pub fn ledger(bytes: &[u8]) {
    let path = Path::new("ledger");
    let read = |bytes: &[u8]| {
        let mut members = Vec::new();
        let ledger = Ledger::read_from(bytes, bytes.len() as u64, path, |member| {
            if members.len() < 1000 {
                members.push(member);
            }
        });
        ledger.map(|ledger| (ledger, members))
    };
    let _ = read(bytes);
    let (whole, cut) = ledger_of(bytes);
    let Ok((ledger, members)) = read(&whole) else { return };
    assert!(!ledger.torn && ledger.sound_bytes == whole.len() as u64);
    // Without a whole header it is nobody's.
    let Ok((prefix, first)) = read(&whole[..cut]) else { return };
    assert_eq!(prefix.torn, prefix.sound_bytes < cut as u64);
    assert!(members.starts_with(&first) && prefix.batches.len() <= ledger.batches.len());
    for (before, after) in prefix.batches.iter().zip(&ledger.batches) {
        assert!(before.sent == after.sent && (before.answered == u32::MAX || before == after), "{before:?} was {after:?}");
    }
    assert!(prefix.sessions.is_subset(&ledger.sessions));
}

/// A ledger of requests: as [`ledger`], and whatever it says is judged: where everything acknowledged is found, nothing is lost or
/// found twice.
///
/// # Panics
/// If that does not hold.
pub fn requests_ledger(bytes: &[u8]) {
    let path = Path::new("ledger");
    let read = |bytes: &[u8]| RequestLedger::read_from(bytes, bytes.len() as u64, path);
    let _ = read(bytes);
    let (whole, cut) = ledger_of(bytes);
    let Ok(ledger) = read(&whole) else { return };
    assert!(!ledger.torn);
    let Ok(prefix) = read(&whole[..cut]) else { return };
    assert!(prefix.answers.iter().all(|answer| ledger.answers.contains(answer)));
    assert!(prefix.answers.iter().all(|answer| prefix.answer(answer.index) == Some(answer)));
    judge(&ledger);
}

fn judge(ledger: &RequestLedger) {
    let chat = serde_json::json!({
        "replies": "mock", "users": [{"name": "ann"}], "models": ["m"], "mix": [{"chat": {"stream": true, "max_tokens": 6}}]
    });
    let workload: ProxyRequest = serde_json::from_value(chat).expect("a workload");
    let generator = Generator::new(ledger.header.seed, &ledger.header.run_id, &workload);
    let acknowledged = ledger.answers.iter().filter(|answer| answer.outcome == Some(Outcome::Acknowledged));
    let ids = acknowledged.map(|answer| generator.id(&generator.operation(answer.index)));
    let mut requests = Requests::new(ledger, &generator, &workload);
    requests.replies();
    requests.upstream(ids);
    let found = requests.conclude(0.0);
    assert_eq!((found.lost, found.duplicated), (0, 0), "{found:?}");
}

/// What cuts off: the first byte says how long the first piece is, the second how long the others are.
pub(crate) fn pieces(input: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let [first, others, bytes @ ..] = input else { return (Vec::new(), &[]) };
    let (first, rest) = bytes.split_at(bytes.len().min(usize::from(*first)));
    (std::iter::once(first).chain(rest.chunks(usize::from(*others).max(1))).collect(), bytes)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use rand::{Rng as _, RngExt as _, SeedableRng as _};
    use rand_xoshiro::Xoshiro256PlusPlus;

    use super::*;

    /// Most mutations of a corpus, and the time after which no more are made.
    const MUTATIONS: usize = 3_000;
    const LONG_ENOUGH: Duration = Duration::from_secs(2);

    /// Runs a target on its corpus and on seeded mutations of it.
    fn run(target: &str, body: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        let corpus: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
        assert!(corpus.len() > 1, "{} is no corpus", folder.display());
        corpus.iter().for_each(|input| body(input));
        let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
        let end = Instant::now() + LONG_ENOUGH;
        for _ in 0..MUTATIONS {
            let mut input = corpus[random.random_range(0..corpus.len())].clone();
            for _ in 0..random.random_range(1..5) {
                mutate(&mut random, &mut input, &corpus);
            }
            body(&input);
            if Instant::now() > end {
                break;
            }
        }
    }

    fn mutate(random: &mut Xoshiro256PlusPlus, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let at = random.random_range(0..=input.len());
        match random.random_range(0..5) {
            0 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
            1 if at < input.len() => drop(input.remove(at)),
            2 => input.insert(at, [0, 1, 0x7f, 0xff, b'\n', b'\r', b':', b'"', random.next_u64() as u8][random.random_range(0..9)]),
            3 => input.truncate(at),
            _ => {
                let other = &corpus[random.random_range(0..corpus.len())];
                let from = random.random_range(0..=other.len());
                let to = other.len().min(from + random.random_range(0..64));
                input.splice(at..at, other[from..to].iter().copied());
            }
        }
    }

    #[test]
    fn scenarios() {
        run("scenario", scenario);
    }

    #[test]
    fn gates() {
        run("gate", gate);
    }

    #[test]
    fn ledgers() {
        run("ledger", ledger);
    }

    #[test]
    fn ledgers_of_requests() {
        run("requests_ledger", requests_ledger);
    }

    #[test]
    fn event_streams() {
        run("sse", sse);
    }

    #[test]
    fn http_answers() {
        run("http", http);
    }
}
