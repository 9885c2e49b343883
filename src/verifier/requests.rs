//! Replies, the upstream's ledger and the gateway's log, held against the ledger of requests: every request has one right reply,
//! reached the upstream once, and has one right row in the log.
//!
//! Sub-kinds of a corrupted reply: `crosstalk` (the reply to another request of the run), `truncated` (a beginning of the right one, or
//! one that does not say it is through), `gap` (an event in the middle is missing), `reordered`, `repeated`, `altered`. A reply that
//! belongs to no request that was sent is a phantom.

mod harm;

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use super::EXAMPLES;
use crate::ledger::Outcome;
use crate::ledger::requests::{Answer, RequestLedger, digest};
use crate::report::{Anomaly, Integrity, IntegrityVerdict, Source};
use crate::scenario::proxy::ProxyRequest;
use crate::workload::proxy_request::{Expected, Generator, Operation};
use crate::workload::reply;

/// The name of the gateway's log among the sources.
pub const LOG_ROWS: &str = "log rows";

/// One row of the gateway's log, as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the columns of reconcile.columns")]
pub struct LogRow {
    pub id: String,
    pub user: Option<String>,
    pub model: Option<String>,
    pub prompt_tokens: Option<String>,
    pub completion_tokens: Option<String>,
    pub status: Option<String>,
}

/// The judgement of a run's requests.
pub struct Requests<'a> {
    ledger: &'a RequestLedger,
    generator: &'a Generator,
    workload: &'a ProxyRequest,
    found: Integrity,
    /// How often each operation was found: in the log, or where there is none in the upstream's ledger.
    sights: Option<Sights>,
    /// Acknowledged operations whose row the log lacks.
    unlogged: Vec<u64>,
}

impl<'a> Requests<'a> {
    /// Nothing judged yet.
    #[must_use]
    pub fn new(ledger: &'a RequestLedger, generator: &'a Generator, workload: &'a ProxyRequest) -> Self {
        let found = Integrity { reason: None, method: String::new(), ..Integrity::inconclusive(String::new()) };
        Self { ledger, generator, workload, found, sights: None, unlogged: Vec::new() }
    }

    /// Holds every acknowledged reply against the right one, as far as it is known.
    pub fn replies(&mut self) {
        let mut source = Source { name: "replies".to_owned(), ..Source::default() };
        for answer in self.acknowledged() {
            let operation = self.generator.operation(answer.index);
            let mix = &self.workload.mix[operation.route];
            let expected = self.generator.expected(&operation, mix, self.workload.replies);
            let held = answer.checked || mix.chat.is_some() || mix.websocket.is_some();
            if !held {
                continue;
            }
            source.must_be_there += 1;
            match self.wrong_with(answer, &operation, &expected) {
                None => source.right += 1,
                Some(anomaly) => self.count(anomaly),
            }
        }
        self.found.checked += source.must_be_there;
        self.add(source);
    }

    fn acknowledged(&self) -> impl Iterator<Item = &'a Answer> + use<'a> {
        self.ledger.answers.iter().filter(|answer| answer.outcome == Some(Outcome::Acknowledged))
    }

    fn wrong_with(&self, answer: &Answer, operation: &Operation, expected: &Expected) -> Option<Anomaly> {
        let corrupted = |sub_kind: &str, column: &str, expected: String, found: String| Anomaly {
            class: "corrupted".to_owned(),
            sub_kind: Some(sub_kind.to_owned()),
            key: answer.index as i64,
            column: Some(format!("reply.{column}")),
            expected: Some(expected),
            found: Some(found),
        };
        if let (Expected::Chat { text, .. } | Expected::Echo(text), Some(found)) = (expected, answer.digest)
            && digest(text) != found
        {
            let kept = self.ledger.replies.get(&answer.index);
            return Some(match kept.map(|kept| (kept, self.kind_of(text, kept, operation))) {
                Some((kept, Wrong::Phantom)) => {
                    Anomaly { class: "phantom".to_owned(), sub_kind: None, ..corrupted("", "content", text.clone(), kept.clone()) }
                }
                Some((kept, Wrong::Kind(kind))) => corrupted(kind, "content", text.clone(), kept.clone()),
                None => corrupted("altered", "content", text.clone(), format!("another text (64-bit digest {found:016x})")),
            });
        }
        let chat = self.workload.mix[operation.route].chat.is_some();
        if chat && !answer.ended {
            let end = if answer.streamed { "finish_reason and [DONE]" } else { "finish_reason" };
            return Some(corrupted("truncated", "end", end.to_owned(), "none".to_owned()));
        }
        if let (Expected::Chat { usage: (prompt, completion), .. }, Some(told)) = (expected, answer.usage)
            && (u64::from(told.0), u64::from(told.1)) != (*prompt, *completion)
        {
            let words = |(prompt, completion): (u64, u64)| format!("{prompt} + {completion} tokens");
            return Some(corrupted("altered", "usage", words((*prompt, *completion)), words((u64::from(told.0), u64::from(told.1)))));
        }
        None
    }

    /// What is wrong with `found` where `right` must be.
    fn kind_of(&self, right: &str, found: &str, operation: &Operation) -> Wrong {
        if let Some(id) = reply::find_id(found)
            && id != self.generator.id(operation)
        {
            return match self.generator.index_of(id) {
                Some(other) if self.ledger.outcome(other).is_some() => Wrong::Kind("crosstalk"),
                _ => Wrong::Phantom,
            };
        }
        if right.starts_with(found) {
            return Wrong::Kind("truncated");
        }
        let (all, seen): (Vec<&str>, Vec<&str>) = (right.split_whitespace().collect(), found.split_whitespace().collect());
        let known: HashSet<&str> = all.iter().copied().collect();
        if !seen.iter().all(|token| known.contains(token)) {
            return Wrong::Kind("altered");
        }
        let distinct: HashSet<&str> = seen.iter().copied().collect();
        // Words of an echo may repeat by themselves; the tokens of a reply carry their numbers.
        if seen.len() > distinct.len() && seen.len() > all.len() {
            return Wrong::Kind("repeated");
        }
        let places: Vec<usize> = seen.iter().filter_map(|token| all.iter().position(|other| other == token)).collect();
        Wrong::Kind(if seen.len() == all.len() || !places.is_sorted() { "reordered" } else { "gap" })
    }

    /// Holds the ids that reached the upstream against the chats: each acknowledged one once, none that was never sent.
    pub fn upstream(&mut self, ids: impl Iterator<Item = String>) {
        let mut sights = Sights::none(self.ledger);
        for id in ids {
            if let Some(index) = reply::find_id(&id).and_then(|id| self.generator.index_of(id)) {
                self.found.checked += 1;
                self.seen(&mut sights, index, "upstream");
            }
        }
        let mut source = Source { name: "upstream records".to_owned(), ..Source::default() };
        for (index, times) in sights.each(self.ledger) {
            let operation = self.generator.operation(index);
            if self.workload.mix[operation.route].chat.is_none() {
                continue;
            }
            let must = self.ledger.outcome(index) == Some(Outcome::Acknowledged);
            source.must_be_there += u64::from(must);
            match times {
                0 if must => self.count(named("lost", index, "upstream", "one request", "never reached it, though answered")),
                0 => {}
                1 => source.right += u64::from(must),
                times => self.count(named("duplicated", index, "upstream", "one request", &format!("{times} requests"))),
            }
        }
        self.sights = Some(sights);
        self.add(source);
    }

    /// Holds the gateway's log against the requests: each acknowledged one that is logged has one row with the right values, and there
    /// is no row of one that was never sent. Rows of refused or failed requests are legal. `allowed`: how long before the last
    /// answer a request may have been answered for its row to be missing.
    pub fn log(&mut self, rows: impl Iterator<Item = LogRow>, allowed: Option<Duration>) {
        let mut sights = Sights::none(self.ledger);
        let mut wrong = HashSet::new();
        for row in rows {
            let Some(index) = reply::find_id(&row.id).and_then(|id| self.generator.index_of(id)) else { continue };
            self.found.checked += 1;
            let times = self.seen(&mut sights, index, "log");
            if let Some(anomaly) = self.ledger.answer(index).and_then(|answer| self.wrong_row(answer, &row))
                && times == Some(1)
            {
                wrong.insert(index);
                self.count(anomaly);
            }
        }
        let last = self.acknowledged().map(|answer| answer.at_ms).max().unwrap_or(0);
        let mut source = Source { name: LOG_ROWS.to_owned(), ..Source::default() };
        let (mut forgiven, mut first_lost) = (0u64, None::<u32>);
        for (index, times) in sights.each(self.ledger) {
            let answer = self.ledger.answer(index).filter(|answer| answer.outcome == Some(Outcome::Acknowledged));
            let logged = self.workload.mix[self.generator.operation(index).route].is_logged();
            let must = logged.then_some(answer).flatten();
            source.must_be_there += u64::from(must.is_some());
            match (times, must) {
                (0, Some(answer)) => {
                    self.unlogged.push(index);
                    first_lost = Some(first_lost.map_or(answer.at_ms, |first| first.min(answer.at_ms)));
                    if allowed.is_some_and(|allowed| u128::from(last - answer.at_ms) <= allowed.as_millis()) {
                        forgiven += 1;
                        source.must_be_there -= 1;
                    } else {
                        self.count(named("lost", index, "log", "one row", "none"));
                    }
                }
                (0, None) => {}
                (1, must) => source.right += u64::from(must.is_some() && !wrong.contains(&index)),
                (times, _) => {
                    self.found.surplus_copies += u64::from(times) - 1;
                    self.count(named("duplicated", index, "log", "one row", &format!("{times} rows")));
                }
            }
        }
        if allowed.is_some() {
            self.found.allowed_lost = Some(forgiven);
            self.found.lost_window_seconds = first_lost.map(|first| f64::from(last - first) / 1e3);
        }
        self.sights = Some(sights);
        self.add(source);
    }

    fn wrong_row(&self, answer: &Answer, row: &LogRow) -> Option<Anomaly> {
        if answer.outcome != Some(Outcome::Acknowledged) {
            return None;
        }
        let operation = self.generator.operation(answer.index);
        // A log that is right must not be blamed for a reply that tells wrong tokens.
        let mix = &self.workload.mix[operation.route];
        let usage = answer.usage.map(|(prompt, completion)| match self.generator.expected(&operation, mix, self.workload.replies) {
            Expected::Chat { usage, .. } => usage,
            _ => (u64::from(prompt), u64::from(completion)),
        });
        let columns = [
            ("user", Some(self.workload.users[operation.user].name.clone()), &row.user),
            ("model", Some(self.workload.models[operation.model].clone()), &row.model),
            ("prompt_tokens", usage.map(|(prompt, _)| prompt.to_string()), &row.prompt_tokens),
            ("completion_tokens", usage.map(|(_, completion)| completion.to_string()), &row.completion_tokens),
            ("status", Some(answer.status.to_string()), &row.status),
        ];
        columns.into_iter().find_map(|(column, expected, found)| {
            let (expected, found) = expected.zip(found.clone())?;
            (expected != found).then(|| Anomaly {
                sub_kind: Some("other".to_owned()),
                ..named("corrupted", answer.index, &format!("log.{column}"), &expected, &found)
            })
        })
    }

    /// Counts one more sight of `index` and says how many there are now; what was never sent is a phantom.
    fn seen(&mut self, sights: &mut Sights, index: u64, place: &str) -> Option<u8> {
        let times = sights.add(self.ledger, index);
        if times.is_none() {
            self.count(named("phantom", index, place, "nothing: it was never sent", "one"));
        }
        times
    }

    fn count(&mut self, anomaly: Anomaly) {
        let found = &mut self.found;
        match anomaly.class.as_str() {
            "lost" => found.lost += 1,
            "duplicated" => found.duplicated += 1,
            "phantom" => found.phantom += 1,
            _ => found.corrupted += 1,
        }
        if found.examples.iter().filter(|other| other.class == anomaly.class).count() < EXAMPLES {
            found.examples.push(anomaly);
        }
    }

    fn add(&mut self, source: Source) {
        let found = &mut self.found;
        found.method = if found.method.is_empty() { source.name.clone() } else { format!("{}, {}", found.method, source.name) };
        found.must_be_there += source.must_be_there;
        found.sources.push(source);
    }

    /// The verdict on everything that was held against the ledger. `seconds`: how long that took.
    #[must_use]
    pub fn conclude(self, seconds: f64) -> Integrity {
        let by_fault = self.harm();
        let Self { mut found, .. } = self;
        found.by_fault = by_fault;
        let right: u64 = found.sources.iter().map(|source| source.right).sum();
        let anomalies = found.lost + found.duplicated + found.corrupted + found.phantom;
        (found.verdict, found.reason) = if anomalies > 0 {
            (IntegrityVerdict::Violated, Some(summary(&found)))
        } else if found.must_be_there == 0 {
            let reason = "no acknowledged reply was held against anything; add checks to workload.proxy_request.mix, replies: mock \
                 before the mock upstream, or reconcile";
            (IntegrityVerdict::Inconclusive, Some(reason.to_owned()))
        } else {
            (IntegrityVerdict::Holds, None)
        };
        found.rate = (found.must_be_there > 0).then(|| right as f64 / found.must_be_there as f64);
        found.examples.sort_by(|a, b| (&a.class, a.key).cmp(&(&b.class, b.key)));
        found.duration_seconds = seconds;
        found
    }
}

/// How often operations were found at a place. It needs room for what was answered and what was found, however many operations the
/// ledger says may have been sent.
struct Sights {
    /// One for each answer of the ledger, in its order.
    of_answers: Vec<u8>,
    /// Those of operations that may have been sent and have no answer.
    unanswered: BTreeMap<u64, u8>,
}

impl Sights {
    fn none(ledger: &RequestLedger) -> Self {
        Self { of_answers: vec![0; ledger.answers.len()], unanswered: BTreeMap::new() }
    }

    /// One more of `index`: how many there are now. `None` if it was never sent.
    fn add(&mut self, ledger: &RequestLedger, index: u64) -> Option<u8> {
        ledger.outcome(index)?;
        let times = match ledger.position(index) {
            Some(position) => &mut self.of_answers[position],
            None => self.unanswered.entry(index).or_default(),
        };
        *times = times.saturating_add(1);
        Some(*times)
    }

    /// Every operation that was answered or found, and how often that was.
    fn each(&self, ledger: &RequestLedger) -> impl Iterator<Item = (u64, u8)> {
        let answered = ledger.answers.iter().map(|answer| answer.index).zip(self.of_answers.iter().copied());
        answered.chain(self.unanswered.iter().map(|(index, times)| (*index, *times)))
    }
}

enum Wrong {
    Kind(&'static str),
    Phantom,
}

fn named(class: &str, index: u64, column: &str, expected: &str, found: &str) -> Anomaly {
    Anomaly {
        class: class.to_owned(),
        sub_kind: None,
        key: index as i64,
        column: Some(column.to_owned()),
        expected: Some(expected.to_owned()),
        found: Some(found.to_owned()),
    }
}

fn summary(found: &Integrity) -> String {
    let counts = [(found.lost, "lost"), (found.duplicated, "duplicated"), (found.corrupted, "corrupted"), (found.phantom, "phantom")];
    counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
