//! A target in a container that dies, stands still or is restarted, by the container's engine.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use async_trait::async_trait;

use super::open::Door;
use super::{Act, Scene};
use crate::container::Handle;
use crate::scenario::fault::{Fault, Kind};

pub(super) struct Container {
    kind: Kind,
    handle: Handle,
    door: Door,
    struck: AtomicBool,
}

impl Container {
    pub(super) async fn new(fault: &Fault, scene: &Scene<'_>) -> anyhow::Result<Self> {
        let facts = scene.container.context("the target is in no container")?;
        let handle = Handle::of(facts).await?;
        Ok(Self { kind: fault.kind, handle, door: Door::of(scene.target).await?, struck: AtomicBool::new(false) })
    }
}

#[async_trait]
impl Act for Container {
    async fn begin(&self) -> Result<(), String> {
        self.struck.store(true, Ordering::Relaxed);
        match self.kind {
            Kind::Pause => self.handle.pause().await,
            Kind::Kill => self.handle.kill().await,
            _ => self.handle.stop().await,
        }
    }

    async fn heal(&self) -> Result<(), String> {
        if !self.struck.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        match self.kind {
            Kind::Pause => self.handle.unpause().await?,
            _ => self.handle.start().await?,
        }
        self.door.wait().await
    }
}
