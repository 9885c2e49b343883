//! Who asks and how much they may: keys from the configuration, quotas from the database, a local cache between them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;

use super::config::{Config, User};
use super::store::Store;

/// Everybody known.
pub(super) struct Accounts {
    /// By key. Maps of the standard library hash with a secret seed, so that timing tells nothing of a key.
    users: HashMap<String, Arc<User>>,
    cache: Option<moka::sync::Cache<String, Arc<Account>>>,
    store: Arc<Store>,
    batched: bool,
    /// Used and not yet written; held while it is written, so that nobody reads the table in between.
    pending: Mutex<HashMap<String, i64>>,
}

/// Somebody who asks.
pub(super) struct Account {
    pub(super) user: Arc<User>,
    quota: Option<i64>,
    used: AtomicI64,
}

impl Account {
    /// Whether nothing is left of the quota.
    pub(super) fn is_spent(&self) -> bool {
        self.quota.is_some_and(|quota| self.used.load(Ordering::Relaxed) >= quota)
    }
}

impl Accounts {
    pub(super) fn new(config: &Config, store: Arc<Store>) -> Self {
        let users = config.users.iter().map(|user| (user.key.clone(), Arc::new(user.clone()))).collect();
        let cache = |ttl: Duration| moka::sync::Cache::builder().max_capacity(100_000).time_to_live(ttl).build();
        let cache = config.cache.enabled.then(|| cache(config.cache.ttl.0));
        Self { users, cache, store, batched: config.quota_updates.batched, pending: Mutex::default() }
    }

    /// Whose `key` it is.
    pub(super) async fn find(&self, key: &str) -> anyhow::Result<Option<Arc<Account>>> {
        let Some(user) = self.users.get(key) else { return Ok(None) };
        if let Some(account) = self.cache.as_ref().and_then(|cache| cache.get(&user.name)) {
            return Ok(Some(account));
        }
        let pending = self.pending.lock().await;
        // A row that somebody deleted is a user who has used nothing.
        let (used, quota) = self.store.account(&user.name).await?.unwrap_or((0, user.quota));
        let used = used + pending.get(&user.name).copied().unwrap_or(0);
        drop(pending);
        let account = Arc::new(Account { user: Arc::clone(user), quota, used: AtomicI64::new(used) });
        match &self.cache {
            // Of two that asked at once one account is kept.
            Some(cache) => Ok(Some(cache.entry(user.name.clone()).or_insert(account).into_value())),
            None => Ok(Some(account)),
        }
    }

    /// Counts `tokens` as used.
    pub(super) async fn spend(&self, account: &Account, tokens: u64) -> anyhow::Result<()> {
        let tokens = i64::try_from(tokens).unwrap_or(i64::MAX);
        if tokens == 0 {
            return Ok(());
        }
        // The account may have been replaced since the request began.
        let cached = self.cache.as_ref().and_then(|cache| cache.get(&account.user.name));
        cached.as_deref().unwrap_or(account).used.fetch_add(tokens, Ordering::Relaxed);
        if !self.batched {
            return self.store.spend([(account.user.name.clone(), tokens)]).await;
        }
        *self.pending.lock().await.entry(account.user.name.clone()).or_default() += tokens;
        Ok(())
    }

    /// Writes what was used; what could not be written is kept for the next time.
    pub(super) async fn flush(&self) -> anyhow::Result<()> {
        let mut pending = self.pending.lock().await;
        if !pending.is_empty() {
            // In one order, so that two gateways on one database do not wait for each other in a circle.
            let mut rows: Vec<_> = pending.iter().map(|(name, used)| (name.clone(), *used)).collect();
            rows.sort();
            self.store.spend(rows).await?;
            pending.clear();
        }
        Ok(())
    }

    /// How many keys there are.
    pub(super) fn len(&self) -> usize {
        self.users.len()
    }
}
