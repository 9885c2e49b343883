//! What is said of the faults of a run: a sentence for the console, a table for the pages.

use super::FaultReport;
use super::format::{NONE, count, plain, seconds};

/// Heads of the table.
pub(super) const HEADS: [&str; 9] = [
    "Fault",
    "Began",
    "Healed",
    "Struck",
    "Acknowledged and lost (RPO)",
    "First acknowledged after healing (RTO)",
    "Unknown: stored / not stored",
    "Retries",
    "Duplicated",
];

/// A line of the table, under [`HEADS`].
pub(super) fn cells(fault: &FaultReport) -> [String; 9] {
    let time = |value: Option<f64>| value.map_or_else(|| NONE.to_owned(), seconds);
    let harm = |of: &dyn Fn(&super::FaultHarm) -> u64| fault.harm.as_ref().map_or_else(|| NONE.to_owned(), |harm| count(of(harm)));
    let unknown = match &fault.harm {
        Some(harm) => format!("{} / {}", count(harm.unknown_stored), count(harm.unknown_absent)),
        None => format!("{}: {NONE}", count(fault.unknown)),
    };
    [
        plain(&fault.description),
        time(fault.begun_seconds),
        time(fault.healed_seconds),
        fault.struck.map_or_else(|| NONE.to_owned(), count),
        harm(&|harm| harm.lost),
        time(fault.recovery_seconds),
        unknown,
        count(fault.retries),
        harm(&|harm| harm.duplicated),
    ]
}

/// One sentence.
pub(super) fn sentence(fault: &FaultReport) -> String {
    let what = plain(&fault.description);
    if let Some(problem) = &fault.problem {
        return format!("{what}: {}", plain(problem));
    }
    let (Some(begun), Some(healed)) = (fault.begun_seconds, fault.healed_seconds) else {
        return format!("{what}: due at {}, never began", seconds(fault.at_seconds));
    };
    let mut parts = vec![if healed - begun < 0.01 {
        format!("at {}", seconds(begun))
    } else {
        format!("from {} to {}", seconds(begun), seconds(healed))
    }];
    parts.extend(fault.struck.map(|times| if times == 1 { "struck once".to_owned() } else { format!("struck {} times", count(times)) }));
    parts.push(fault.recovery_seconds.map_or_else(
        || "nothing was acknowledged after it".to_owned(),
        |recovery| format!("{} from healing to the first acknowledgement", seconds(recovery)),
    ));
    if let Some(harm) = &fault.harm {
        parts.push(format!("{} lost", count(harm.lost)));
        if harm.unknown_stored + harm.unknown_absent > 0 {
            parts.push(format!("of unknown outcome {} stored and {} not", count(harm.unknown_stored), count(harm.unknown_absent)));
        }
        parts.extend((harm.duplicated > 0).then(|| format!("{} duplicated", count(harm.duplicated))));
    }
    for (number, what) in [(fault.retries, "retries"), (fault.rejected, "rejected")] {
        parts.extend((number > 0).then(|| format!("{} {what}", count(number))));
    }
    format!("{what}: {}", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::FaultHarm;

    #[test]
    fn a_sentence_says_what_was_lost_and_how_long_recovery_took() {
        let fault = FaultReport {
            kind: "kill".to_owned(),
            description: "kill".to_owned(),
            at_seconds: 2.0,
            begun_seconds: Some(2.0),
            healed_seconds: Some(4.0),
            recovery_seconds: Some(0.5),
            retries: 3,
            harm: Some(FaultHarm { lost: 1_200, unknown_stored: 200, unknown_absent: 400, ..FaultHarm::default() }),
            ..FaultReport::default()
        };
        assert_eq!(
            sentence(&fault),
            "kill: from 2.00 s to 4.00 s, 0.50 s from healing to the first acknowledgement, 1,200 lost, \
             of unknown outcome 200 stored and 400 not, 3 retries"
        );
        assert_eq!(cells(&fault)[4..7], ["1,200", "0.50 s", "200 / 400"]);
        let late = FaultReport { description: "reset".to_owned(), at_seconds: 90.0, ..FaultReport::default() };
        assert_eq!(sentence(&late), "reset: due at 90.0 s, never began");
    }
}
