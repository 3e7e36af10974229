//! Sessions of the upstream server that end without a permit, counted per principal.

use std::sync::Arc;

use dashmap::{DashMap, Entry};
use tokio::sync::{Notify, futures::Notified};

use crate::lifecycle::{principal::Principal, shield::shielded};

/// Counts of endings under way. Holds nothing that leads back to the registry, so a farewell that
/// waits in the queue may hold it.
#[derive(Debug, Default)]
pub(super) struct Unclaimed {
    counts: DashMap<Option<Principal>, usize, foldhash::fast::RandomState>,
    ended: Notify,
}

impl Unclaimed {
    pub(super) fn count(&self, principal: Option<&Principal>) -> usize {
        self.counts.get(&principal.cloned()).map_or(0, |count| *count)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Resolves when one has ended.
    pub(super) fn ended(&self) -> Notified<'_> {
        self.ended.notified()
    }

    /// Of all principals together.
    pub(super) fn total(&self) -> usize {
        self.counts.iter().map(|count| *count).sum()
    }

    pub(super) fn add(self: &Arc<Self>, principal: Option<Principal>) -> Counted {
        *self.counts.entry(principal.clone()).or_default() += 1;
        Counted { unclaimed: Arc::clone(self), principal }
    }
}

/// One ending under way; counted until dropped.
#[derive(Debug)]
pub(in crate::lifecycle) struct Counted {
    unclaimed: Arc<Unclaimed>,
    principal: Option<Principal>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        // An entry at zero is removed: principals come and go.
        if let Entry::Occupied(mut entry) = self.unclaimed.counts.entry(self.principal.take()) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
        shielded("waker", || self.unclaimed.ended.notify_waiters());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_principal_is_counted_apart_and_forgotten_at_zero() {
        let unclaimed = Arc::new(Unclaimed::default());
        let (alice, bob) = (Principal::from("alice"), Principal::from("bob"));
        let held = [Some(&alice), Some(&alice), Some(&bob), None]
            .map(|principal| unclaimed.add(principal.cloned()));
        let counts = || [Some(&alice), Some(&bob), None].map(|who| unclaimed.count(who));
        assert_eq!(counts(), [2, 1, 1]);
        drop(held);
        assert_eq!(counts(), [0, 0, 0]);
        assert_eq!(unclaimed.counts.len(), 0);
    }
}
