//! Requests: an HTTP service under load, its replies, its upstream and its log held against what was asked.

use std::path::Path;

use super::{Drive, Options, Progress, Run};
use crate::report::Integrity;
use crate::scenario::Scenario;
use crate::scenario::proxy::ProxyRequest;

pub(super) async fn begin(_id: &str, _folder: &Path, _scenario: Scenario, _options: Options) -> anyhow::Result<(Run, Box<dyn Drive>)> {
    anyhow::bail!("not yet")
}

pub(super) async fn verify_again(_scenario: &Scenario, _proxy: &ProxyRequest, _folder: &Path, _progress: &Progress) -> anyhow::Result<Integrity> {
    anyhow::bail!("not yet")
}
