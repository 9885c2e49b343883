//! An SQLite file that may not grow, or not be written: the run's connections are told so by pragmas, each before its next batch.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;

use crate::fault::Act;
use crate::scenario::SqliteConfig;
use crate::scenario::fault::Kind;
use crate::scenario::switch::Switch;
use crate::target::sqlite::Restraint;

pub(super) struct Restrain {
    kind: Kind,
    restraint: Switch<Restraint>,
}

impl Restrain {
    pub(super) fn new(kind: Kind, sqlite: &mut SqliteConfig) -> Self {
        sqlite.restraint.planned.store(true, Ordering::Relaxed);
        Self { kind, restraint: sqlite.restraint.clone() }
    }

    fn set(&self, on: bool) -> Result<(), String> {
        let flag: &AtomicBool = if self.kind == Kind::DiskFull { &self.restraint.full } else { &self.restraint.read_only };
        flag.store(on, Ordering::Relaxed);
        Ok(())
    }
}

#[async_trait]
impl Act for Restrain {
    async fn begin(&self) -> Result<(), String> {
        self.set(true)
    }

    async fn heal(&self) -> Result<(), String> {
        self.set(false)
    }
}
