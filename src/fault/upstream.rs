//! A mock upstream that answers with errors, stands still or cuts its answers for a while.

use anyhow::Context as _;
use async_trait::async_trait;

use super::Act;
use crate::proxy::upstream::Trouble;
use crate::proxy::upstream::config::Stalls;
use crate::proxy::upstream::trouble::Which;
use crate::scenario::TargetConfig;
use crate::scenario::fault::{Fault, Kind};
use crate::scenario::switch::Switch;
use crate::scenario::units::{Share, Time};

pub(super) struct Upstream {
    which: Which,
    share: Share,
    pause: Time,
    trouble: Switch<Trouble>,
}

impl Upstream {
    pub(super) fn new(fault: &Fault, target: &TargetConfig) -> anyhow::Result<Self> {
        let start = target.http.as_ref().and_then(|http| http.start.as_ref());
        let config = start.and_then(|start| start.upstream.as_ref()).context("the scenario starts no upstream")?;
        let which = match fault.kind {
            Kind::UpstreamErrors => Which::Errors,
            Kind::UpstreamStalls => Which::Stalls,
            _ => Which::Cuts,
        };
        let (share, pause) = (fault.share.unwrap_or(Share(1.0)), fault.pause.unwrap_or_default());
        Ok(Self { which, share, pause, trouble: config.trouble.clone() })
    }

    fn set(&self, on: bool) {
        self.trouble.change(|now| match self.which {
            Which::Errors => now.errors = on.then_some(self.share),
            Which::Stalls => now.stalls = on.then_some(Stalls { share: self.share, length: self.pause }),
            Which::Cuts => now.cuts = on.then_some(self.share),
        });
    }
}

#[async_trait]
impl Act for Upstream {
    async fn begin(&self) -> Result<(), String> {
        self.set(true);
        Ok(())
    }

    async fn heal(&self) -> Result<(), String> {
        self.set(false);
        Ok(())
    }

    fn struck(&self) -> Option<u64> {
        Some(self.trouble.struck(self.which))
    }
}
