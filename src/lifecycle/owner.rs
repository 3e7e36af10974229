//! Who opened a session.
//!
//! Sessions of one principal, one client program and one endpoint have it in common, so it is kept once for all of
//! them, with the permits that their places come from and the way back to the registry: of a million records each has
//! one pointer.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Weak},
};

use dashmap::DashMap;

use super::{
    clock::Clock,
    permits::{Permit, Permits, Stage},
    principal::Principal,
    registry::Registry,
};
use crate::protocol::ClientInfo;

#[derive(Debug)]
pub(super) struct Owner {
    home: Home,
    /// Where it is known, and under which hash.
    directory: Arc<Directory>,
    hash: u64,
    principal: Option<Principal>,
    client: Option<ClientInfo>,
    endpoint: Box<str>,
}

/// Who asks for a session, and where.
#[derive(Debug, Default)]
pub(crate) struct Opener {
    pub(crate) principal: Option<Principal>,
    pub(crate) client: Option<Box<ClientInfo>>,
    /// Opaque here: the session answers to requests at an equal one only.
    pub(crate) endpoint: Box<str>,
}

impl From<Option<Principal>> for Opener {
    fn from(principal: Option<Principal>) -> Self {
        Self { principal, ..Self::default() }
    }
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

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The permit that was stowed at this stage.
    pub(super) fn permit(&self, stage: Stage) -> Permit {
        Permit::unstow(&self.home.permits, self.principal(), stage)
    }
}

/// The owners of the sessions that there are, by their hash. Two with one hash are not told apart, but
/// compared: the second replaces the first, which then is not found again.
type Known = DashMap<u64, Weak<Owner>, foldhash::fast::RandomState>;

struct Directory(Known);

/// Makes owners, and finds them again.
#[derive(Debug)]
pub(super) struct Owners {
    home: Home,
    /// What clients say of themselves is hashed with a key they do not know.
    hasher: RandomState,
    directory: Arc<Directory>,
}

impl Owners {
    /// With so many locks.
    pub(super) fn new(home: Home, shards: usize) -> Self {
        let known = Known::with_hasher_and_shard_amount(Default::default(), shards);
        Self { home, hasher: RandomState::new(), directory: Arc::new(Directory(known)) }
    }

    /// The owner that is this principal with this client at this endpoint, shared with their other sessions.
    pub(super) fn find(&self, opener: Opener) -> Arc<Owner> {
        let Opener { principal, client, endpoint } = opener;
        let client = client.map(|client| *client);
        let hash = self.hasher.hash_one((&principal, &client, &endpoint));
        let known = &self.directory.0;
        // The lock is let go of before the owner is: its last drop takes it again.
        let shared = known.get(&hash).and_then(|owner| owner.upgrade());
        let is_same = |it: &Arc<Owner>| {
            it.principal == principal && it.client == client && it.endpoint == endpoint
        };
        if let Some(shared) = shared.filter(is_same) {
            return shared;
        }
        let (home, directory) = (self.home.clone(), Arc::clone(&self.directory));
        let owner = Arc::new(Owner { home, directory, hash, principal, client, endpoint });
        known.insert(hash, Arc::downgrade(&owner));
        owner
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.directory.0.remove_if(&self.hash, |_, owner| owner.strong_count() == 0);
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Directory").field(&self.0.len()).finish()
    }
}

/// Of sessions without a registry.
#[cfg(all(test, not(mcp_loom)))]
pub(super) fn nowhere() -> Owners {
    let permits = Arc::new(Permits::new(1, None));
    Owners::new(Home { registry: Weak::new(), permits, clock: Clock::new() }, 2)
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
        let find = |who: Option<&str>, client| {
            let principal = who.map(Into::into);
            owners.find(Opener { principal, client, endpoint: "/mcp".into() })
        };
        let elsewhere = || Opener {
            principal: Some("alice".into()),
            client: client("inspector"),
            endpoint: "/other".into(),
        };
        let alice = find(Some("alice"), client("inspector"));
        assert!(Arc::ptr_eq(&alice, &find(Some("alice"), client("inspector"))));
        for other in [
            find(Some("alice"), client("another")),
            find(Some("alice"), None),
            find(Some("bob"), client("inspector")),
            find(None, client("inspector")),
            find(None, None),
            owners.find(elsewhere()),
        ] {
            assert!(!Arc::ptr_eq(&alice, &other), "{other:?}");
        }
        assert_eq!(alice.principal(), Some(&"alice".into()));
        assert_eq!(alice.client().and_then(|client| client.name.as_deref()), Some("inspector"));
    }

    #[test]
    fn owners_without_sessions_are_forgotten_and_those_with_some_are_not() {
        let owners = nowhere();
        let find = |n: usize| owners.find(Some(n.to_string().as_str().into()).into());
        let held: Vec<_> = (0..100).map(find).collect();
        (100..1_000).for_each(|n| drop(find(n)));
        assert_eq!(owners.directory.0.len(), 100);
        assert!(held.iter().enumerate().all(|(n, owner)| Arc::ptr_eq(owner, &find(n))));
        drop(held);
        assert_eq!(owners.directory.0.len(), 0);
    }

    #[test]
    fn an_owner_that_was_replaced_leaves_the_other_where_it_is() {
        let owners = nowhere();
        let alice = owners.find(Some("alice".into()).into());
        // As if both had one hash.
        let other = Arc::new(Owner {
            home: owners.home.clone(),
            directory: Arc::clone(&owners.directory),
            hash: alice.hash,
            principal: None,
            client: None,
            endpoint: Box::default(),
        });
        owners.directory.0.insert(alice.hash, Arc::downgrade(&other));
        let another = owners.find(Some("alice".into()).into());
        assert!(!Arc::ptr_eq(&alice, &another), "what is found by its hash is compared");
        drop((alice, other));
        assert!(Arc::ptr_eq(&another, &owners.find(Some("alice".into()).into())));
    }
}
