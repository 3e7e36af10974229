//! Whose session it is.

use std::{fmt, sync::Arc};

use serde::Serialize;

/// A verified identity: the user or service that an authentication layer outside of this one
/// found behind the request.
///
/// It is compared for equality and shown in listings and events, so it must be a *name* (a subject,
/// an account id), never a credential. Cloning is cheap.
///
/// ```
/// use mcp_session_layer::Principal;
///
/// let alice = Principal::from("alice@example.com");
/// assert_eq!(alice.as_str(), "alice@example.com");
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Principal(Arc<str>);

impl Principal {
    /// The identity as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Principal {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl From<String> for Principal {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl From<Arc<str>> for Principal {
    fn from(name: Arc<str>) -> Self {
        Self(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_is_its_name_wherever_it_came_from() {
        let alice = Principal::from("alice");
        assert_eq!(alice, Principal::from("alice".to_owned()));
        assert_eq!(alice, Principal::from(Arc::<str>::from("alice")));
        assert_ne!(alice, Principal::from("bob"));
        assert_eq!((alice.as_str(), alice.to_string()), ("alice", "alice".to_owned()));
        assert_eq!(format!("{alice:?}"), r#""alice""#);
    }
}
