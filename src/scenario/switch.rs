//! What a fault changes in a target while it is driven: made with the target's settings, and no part of what a scenario says.

use std::ops::Deref;
use std::sync::Arc;

/// Shared by all copies of the settings it stands in. Never written, never read, and no difference between two settings.
#[derive(Debug, Default)]
pub struct Switch<T>(Arc<T>);

impl<T> Clone for Switch<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> PartialEq for Switch<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<T> Deref for Switch<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
