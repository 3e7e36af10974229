//! Who opened a session.
//!
//! Sessions of one principal and one client program have it in common, so it is kept once for all of
//! them, with the permits that their places come from and the way back to the registry: of a million
//! records each has one pointer.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use super::{
    clock::Clock,
    permits::{Permit, Permits, Stage},
    principal::Principal,
    registry::Registry,
};
use crate::protocol::ClientInfo;

/// Owners that may be gone are looked for when there are twice as many as there were the last time,
/// and this many more.
const SLACK: usize = 64;

#[derive(Debug)]
pub(super) struct Owner {
    home: Home,
    principal: Option<Principal>,
    client: Option<ClientInfo>,
}

/// What all sessions of a registry have in common.
#[derive(Clone, Debug)]
pub(super) struct Home {
    /// Weak: a session that somebody keeps does not keep the others.
    pub(super) registry: Weak<Registry>,
    pub(super) permits: Arc<Permits>,
    pub(super) clock: Clock,
}

impl Owner {
    pub(super) fn home(&self) -> &Home {
        &self.home
    }

    pub(super) fn principal(&self) -> Option<&Principal> {
        self.principal.as_ref()
    }

    pub(super) fn client(&self) -> Option<&ClientInfo> {
        self.client.as_ref()
    }

    /// The permit that was stowed at this stage.
    pub(super) fn permit(&self, stage: Stage) -> Permit {
        Permit::unstow(&self.home.permits, self.principal(), stage)
    }
}

/// The owners of the sessions that there are.
#[derive(Debug)]
pub(super) struct Owners {
    home: Home,
    /// What clients say of themselves is hashed with a key they do not know.
    hasher: RandomState,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    owners: HashMap<u64, Weak<Owner>>,
    /// How many were alive the last time that was asked.
    alive: usize,
}

impl Owners {
    pub(super) fn new(home: Home) -> Self {
        Self { home, hasher: RandomState::new(), known: Mutex::default() }
    }

    /// The owner that is this principal with this client, shared with their other sessions.
    pub(super) fn find(
        &self,
        principal: Option<Principal>,
        client: Option<Box<ClientInfo>>,
    ) -> Arc<Owner> {
        let client = client.map(|client| *client);
        let hash = self.hasher.hash_one((&principal, &client));
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = known.owners.get(&hash).and_then(Weak::upgrade);
        if let Some(shared) = shared.filter(|it| it.principal == principal && it.client == client) {
            return shared;
        }
        if known.owners.len() > 2 * known.alive + SLACK {
            known.owners.retain(|_, owner| owner.strong_count() > 0);
            known.alive = known.owners.len();
        }
        let owner = Arc::new(Owner { home: self.home.clone(), principal, client });
        known.owners.insert(hash, Arc::downgrade(&owner));
        owner
    }
}

/// Of sessions without a registry.
#[cfg(all(test, not(mcp_loom)))]
pub(super) fn nowhere() -> Owners {
    let permits = Arc::new(Permits::new(1, None));
    Owners::new(Home { registry: Weak::new(), permits, clock: Clock::new() })
}

#[cfg(all(test, not(mcp_loom)))]
mod tests {
    use super::*;

    fn client(name: &str) -> Option<Box<ClientInfo>> {
        Some(Box::new(ClientInfo { name: Some(name.into()), ..ClientInfo::default() }))
    }

    #[test]
    fn the_same_principal_with_the_same_client_is_one_owner_and_others_are_others() {
        let owners = nowhere();
        let find = |who: Option<&str>, program| owners.find(who.map(Into::into), program);
        let alice = find(Some("alice"), client("inspector"));
        assert!(Arc::ptr_eq(&alice, &find(Some("alice"), client("inspector"))));
        for other in [
            find(Some("alice"), client("another")),
            find(Some("alice"), None),
            find(Some("bob"), client("inspector")),
            find(None, client("inspector")),
            find(None, None),
        ] {
            assert!(!Arc::ptr_eq(&alice, &other), "{other:?}");
        }
        assert_eq!(alice.principal(), Some(&"alice".into()));
        assert_eq!(alice.client().and_then(|client| client.name.as_deref()), Some("inspector"));
    }

    #[test]
    fn owners_without_sessions_are_forgotten_and_those_with_some_are_not() {
        let owners = nowhere();
        let find = |n: usize| owners.find(Some(n.to_string().as_str().into()), None);
        let held: Vec<_> = (0..100).map(find).collect();
        (100..10_000).for_each(|n| drop(find(n)));
        assert!(owners.known.lock().unwrap().owners.len() <= 2 * held.len() + SLACK + 1);
        assert!(held.iter().enumerate().all(|(n, owner)| Arc::ptr_eq(owner, &find(n))));
    }
}
