//! Ids that were closed here, while unknown ids are forwarded.
//!
//! A server with a store of its own would bring a closed session back to life. The last
//! [`CAPACITY`] ids stay 404; older ones are the store's to refuse, as it was told of every close.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Mutex, PoisonError},
};

use crate::protocol::SessionId;

const CAPACITY: usize = 16_384;

#[derive(Debug, Default)]
pub(crate) struct Tombstones {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    ids: HashSet<SessionId>,
    order: VecDeque<SessionId>,
}

impl Tombstones {
    pub(crate) fn bury(&self, id: &SessionId) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if !inner.ids.insert(id.clone()) {
            return;
        }
        inner.order.push_back(id.clone());
        if inner.order.len() > CAPACITY
            && let Some(oldest) = inner.order.pop_front()
        {
            inner.ids.remove(&oldest);
        }
    }

    pub(crate) fn holds(&self, id: &SessionId) -> bool {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).ids.contains(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_ids_make_room() {
        let tombstones = Tombstones::default();
        let id = |n: usize| SessionId::new(n.to_string()).unwrap();
        (0..=CAPACITY).for_each(|n| tombstones.bury(&id(n)));
        tombstones.bury(&id(CAPACITY));
        assert!(!tombstones.holds(&id(0)));
        assert!(tombstones.holds(&id(1)) && tombstones.holds(&id(CAPACITY)));
    }
}
