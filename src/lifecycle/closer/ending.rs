//! Ids for which a DELETE is on its way to the upstream server.
//!
//! A server that gives such an id out again means another session, and that DELETE would end it. While a retry only
//! waits, the id is free: the retry is given up if the id is live by then.

use std::sync::Arc;

use dashmap::{DashMap, Entry};

use crate::protocol::SessionId;

/// How many endings of each id are under way. Holds nothing that leads back to the registry.
#[derive(Debug, Default)]
pub(super) struct Ending(DashMap<SessionId, usize, foldhash::fast::RandomState>);

impl Ending {
    pub(super) fn has(&self, id: &SessionId) -> bool {
        self.0.contains_key(id)
    }

    pub(super) fn add(self: &Arc<Self>, id: SessionId) -> Mark {
        *self.0.entry(id.clone()).or_default() += 1;
        Mark { ending: Arc::clone(self), id: Some(id) }
    }
}

/// One ending under way; marks its id until dropped.
#[derive(Debug)]
pub(in crate::lifecycle) struct Mark {
    ending: Arc<Ending>,
    id: Option<SessionId>,
}

impl Drop for Mark {
    fn drop(&mut self) {
        if let Some(id) = self.id.take()
            && let Entry::Occupied(mut entry) = self.ending.0.entry(id)
        {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_marked_until_the_last_of_its_endings_is_over() {
        let ending = Arc::new(Ending::default());
        let id = |id: &str| SessionId::new(id).unwrap();
        let (one, two) = (ending.add(id("a")), ending.add(id("a")));
        drop(one);
        assert!(ending.has(&id("a")) && !ending.has(&id("b")));
        drop(two);
        assert!(!ending.has(&id("a")));
        assert_eq!(ending.0.len(), 0);
    }
}
