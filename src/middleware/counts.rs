//! How many of something each principal, or each session, has at once.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Counts by key; what is at zero is not kept.
#[derive(Debug)]
pub(super) struct Counts<K>(Arc<Mutex<HashMap<K, usize>>>);

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Eq + Hash + Clone> Counts<K> {
    /// One more for `key`, until dropped; `None` if it has `max`.
    pub(super) fn take(&self, key: K, max: usize) -> Option<Counted<K>> {
        let mut counts = lock(&self.0);
        // Not through an entry: with no room at all, one at zero would stay.
        if counts.get(&key).copied().unwrap_or_default() >= max {
            return None;
        }
        *counts.entry(key.clone()).or_default() += 1;
        Some(Counted { counts: Arc::clone(&self.0), key })
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        lock(&self.0).len()
    }
}

fn lock<K>(counts: &Mutex<HashMap<K, usize>>) -> MutexGuard<'_, HashMap<K, usize>> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One that counts.
#[derive(Debug)]
pub(super) struct Counted<K: Eq + Hash> {
    counts: Arc<Mutex<HashMap<K, usize>>>,
    key: K,
}

impl<K: Eq + Hash> Drop for Counted<K> {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_own_bound_and_nothing_is_kept_of_what_is_over() {
        let counts = Counts::default();
        let held: Vec<_> = (0..3).map(|_| counts.take("alice", 3).unwrap()).collect();
        assert!(counts.take("alice", 3).is_none());
        let bob = counts.take("bob", 3).unwrap();
        drop(held);
        assert_eq!(counts.len(), 1);
        assert!(counts.take("alice", 3).is_some());
        drop(bob);
        assert_eq!(counts.len(), 0);
        assert!(counts.take("alice", 0).is_none());
        assert_eq!(counts.len(), 0, "who was refused leaves nothing");
    }
}
