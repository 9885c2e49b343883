//! What a guard cannot be.

use std::time::Duration;

use super::{Rules, word};
use crate::redact::redact_url;
use crate::scenario::guard::{Action, Guard};
use crate::scenario::units::Time;

/// Windows that the guard can look back over, a few times a second.
const WINDOWS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3600)];

impl Rules {
    pub(super) fn guard(&mut self, guard: &Guard) {
        let default = Guard::default();
        self.when(guard.error_rate.is_none() && guard.p99.is_none() && guard.up.is_none(), "guard", || {
            "has no condition; add error_rate, p99 or up, or remove it".to_owned()
        });
        self.when(guard.error_rate.is_some_and(|share| share.0 <= 0.0), "guard.error_rate", || {
            "is reached by a target without errors; write e.g. 50%".to_owned()
        });
        if let Some(p99) = guard.p99 {
            self.wait("guard.p99", p99);
        }
        self.when(!(WINDOWS[0]..=WINDOWS[1]).contains(&guard.window.0), "guard.window", || {
            format!("is {}; write 1s to 1h", word(&guard.window))
        });
        self.when(guard.window != default.window && guard.error_rate.is_none() && guard.p99.is_none(), "guard.window", || {
            "is of error_rate and p99, and neither is here; remove it".to_owned()
        });
        self.wait("guard.cooldown", guard.cooldown);
        let stops = guard.action == Action::Stop;
        let has_no_use = |key: &str| format!("action: stop has no use for {key}; remove it");
        self.when(stops && guard.cooldown != default.cooldown, "guard.cooldown", || has_no_use("cooldown"));
        self.when(stops && guard.max_holds != default.max_holds, "guard.max_holds", || has_no_use("max_holds"));
        if let Some(up) = &guard.up {
            let is_service = url::Url::parse(&up.prometheus).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
            self.when(!is_service, "guard.up.prometheus", || {
                format!("{:?} is no URL of a Prometheus server; write e.g. http://127.0.0.1:9090", redact_url(&up.prometheus))
            });
            self.when(up.query.trim().is_empty(), "guard.up.query", || "is empty; write e.g. up{job=\"postgres\"}".to_owned());
            self.when(up.lasts < Time::secs(1), "guard.up.for", || format!("is {}; write 1s or more", word(&up.lasts)));
            self.wait("guard.up.for", up.lasts);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn told(guard: Value) -> Vec<String> {
        let mut rules = Rules::default();
        rules.guard(&serde_json::from_value(guard).unwrap());
        rules.found.into_iter().map(|(path, message)| format!("{path}: {message}")).collect()
    }

    #[test]
    fn a_guard_has_conditions_that_can_be_met_and_settings_with_an_effect() {
        let up = json!({"prometheus": "http://u:p@127.0.0.1:9090", "query": "up", "for": "2m"});
        assert_eq!(told(json!({"error_rate": "50%", "p99": "2s", "up": up, "window": "10s", "cooldown": "1s", "max_holds": 2})), [""; 0]);
        assert_eq!(told(json!({"up": up, "action": "stop"})), [""; 0]);
        assert_eq!(told(json!({})), ["guard: has no condition; add error_rate, p99 or up, or remove it"]);
        assert_eq!(told(json!({"error_rate": 0})), ["guard.error_rate: is reached by a target without errors; write e.g. 50%"]);
        assert_eq!(
            told(json!({"p99": "0s", "window": "900ms", "cooldown": "2days"})),
            [
                "guard.p99: is 0s; write 1ms to 1day",
                "guard.window: is 900ms; write 1s to 1h",
                "guard.cooldown: is 2days; write 1ms to 1day"
            ]
        );
        assert_eq!(
            told(json!({"up": up, "action": "stop", "window": "9s", "cooldown": "1s", "max_holds": 1})),
            [
                "guard.window: is of error_rate and p99, and neither is here; remove it",
                "guard.cooldown: action: stop has no use for cooldown; remove it",
                "guard.max_holds: action: stop has no use for max_holds; remove it",
            ]
        );
        assert_eq!(
            told(json!({"up": {"prometheus": "db://u:secret@h", "query": " ", "for": "10ms"}})),
            [
                "guard.up.prometheus: \"db://u:***@h\" is no URL of a Prometheus server; write e.g. http://127.0.0.1:9090",
                "guard.up.query: is empty; write e.g. up{job=\"postgres\"}",
                "guard.up.for: is 10ms; write 1s or more",
            ]
        );
    }
}
