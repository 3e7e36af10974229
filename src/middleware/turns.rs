//! One restore at a time for an id and a principal, so that a server restores it once and all its requests get the
//! same session. A stranger who presents the id has turns of its own: a slow body of his keeps nobody waiting.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use super::shared::Shared;
use crate::{lifecycle::Principal, protocol::SessionId};

type Key = (Option<Principal>, SessionId);

/// Who is restoring which id. Keyed with SipHash: these ids were made up by clients.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<Key, Weak<AsyncMutex<()>>>>);

impl Turns {
    fn locks(&self) -> MutexGuard<'_, HashMap<Key, Weak<AsyncMutex<()>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.locks().len()
    }
}

/// The right to restore one id, until dropped.
pub(super) struct Turn {
    shared: Arc<Shared>,
    key: Key,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Shared {
    /// Waits for the turn of a request of this principal with this id.
    pub(super) async fn turn(self: Arc<Self>, principal: Option<Principal>, id: SessionId) -> Turn {
        let key = (principal, id);
        let lock = {
            let mut locks = self.turns.locks();
            let known = locks.get(&key).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let lock = Arc::new(AsyncMutex::new(()));
                locks.insert(key.clone(), Arc::downgrade(&lock));
                lock
            })
        };
        let mut turn = Turn { shared: self, key, guard: None };
        turn.guard = Some(lock.lock_owned().await);
        turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.guard = None;
        let mut locks = self.shared.turns.locks();
        if locks.get(&self.key).is_some_and(|lock| lock.strong_count() == 0) {
            locks.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::middleware::options::Options;

    #[tokio::test]
    async fn one_at_a_time_takes_its_turn_and_nothing_is_kept() {
        let shared = Arc::new(Shared::new(Options::default()));
        let id = |id: &str| SessionId::new(id).unwrap();
        let turn = |id: SessionId| Arc::clone(&shared).turn(None, id);
        let first = turn(id("one")).await;
        let mut second = Box::pin(turn(id("one")));
        assert!(futures_util::poll!(&mut second).is_pending());
        let other = turn(id("two")).await;
        assert_eq!(shared.turns.len(), 2);
        let stranger = Arc::clone(&shared).turn(Some("bob".into()), id("one")).await;
        drop(stranger);
        drop((first, other));
        let mut gave_up = Box::pin(turn(id("one")));
        let second = second.await;
        assert!(futures_util::poll!(&mut gave_up).is_pending());
        drop(gave_up);
        drop(second);
        assert_eq!(shared.turns.len(), 0);
    }
}
