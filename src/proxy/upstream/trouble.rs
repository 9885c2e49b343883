//! What a fault of a run adds to the settings of its mock model server while it lasts.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::config::{Config, Stalls};
use super::plan::Plan;
use crate::scenario::units::Share;

/// Which faults are in force, and how many requests each has struck.
#[derive(Debug, Default)]
pub struct Trouble {
    in_force: Mutex<InForce>,
    struck: [AtomicU64; 3],
}

/// Instead of the settings of these names.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct InForce {
    pub(crate) errors: Option<Share>,
    pub(crate) stalls: Option<Stalls>,
    pub(crate) cuts: Option<Share>,
}

/// The faults, as places in [`Trouble::struck`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum Which {
    Errors,
    Stalls,
    Cuts,
}

impl Trouble {
    pub(crate) fn change(&self, how: impl FnOnce(&mut InForce)) {
        how(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, InForce> {
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many requests it has struck.
    pub(crate) fn struck(&self, which: Which) -> u64 {
        self.struck[which as usize].load(Ordering::Relaxed)
    }

    /// What happens to the `seen`-th request of `id` now, under these settings.
    pub(super) fn plan(&self, config: &Config, id: &str, seen: u32, tokens: u32) -> Plan {
        let now = *self.lock();
        let mut config = Cow::Borrowed(config);
        if let Some(share) = now.errors {
            config.to_mut().errors = share;
        }
        if now.stalls.is_some() {
            config.to_mut().stalls = now.stalls;
        }
        if let Some(share) = now.cuts {
            config.to_mut().cuts = share;
        }
        let plan = Plan::new(&config, id, seen, tokens);
        let strikes = [
            now.errors.is_some() && plan.error,
            now.stalls.is_some() && !plan.error && plan.stall.is_some(),
            now.cuts.is_some() && !plan.error && plan.cut.is_some(),
        ];
        for (counter, strikes) in self.struck.iter().zip(strikes) {
            counter.fetch_add(u64::from(strikes), Ordering::Relaxed);
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::units::Time;

    #[test]
    fn what_is_in_force_stands_over_the_settings_and_is_counted() {
        let (trouble, config) = (Trouble::default(), Config { errors: Share(1.0), ..Config::default() });
        let plan = || trouble.plan(&config, "bq-00000001-1", 1, 8);
        assert!(plan().error, "the settings' own");
        trouble.change(|now| *now = InForce { errors: Some(Share(0.0)), cuts: Some(Share(1.0)), ..InForce::default() });
        assert!(!plan().error && plan().cut.is_some());
        let stalls = Stalls { share: Share(1.0), length: Time::secs(2) };
        trouble.change(|now| *now = InForce { errors: Some(Share(0.0)), stalls: Some(stalls), cuts: None });
        assert_eq!(plan().stall.unwrap().1, stalls.length.0);
        trouble.change(|now| *now = InForce::default());
        assert!(plan().error && plan().cut.is_none());
        assert_eq!([Which::Errors, Which::Stalls, Which::Cuts].map(|which| trouble.struck(which)), [0, 1, 2]);
    }
}
