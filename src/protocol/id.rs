//! The session id, as it stands in the `Mcp-Session-Id` header.
//!
//! MCP 2025-11-25, "Session Management": an id is visible ASCII (0x21 to 0x7E) and globally
//! unique. The length bound is ours: what is longer is refused before it is hashed.

use std::{
    fmt,
    hash::{Hash, Hasher},
};

use http::{HeaderName, HeaderValue};

use super::{Fingerprint, Rejection};

/// `Mcp-Session-Id`.
pub(crate) static SESSION_ID_HEADER: HeaderName = HeaderName::from_static("mcp-session-id");

/// The spec names JWTs as ids; one with an RS256 signature is about 500 bytes, one with groups in its claims several
/// times that.
pub(super) const MAX_LEN: usize = 4096;

/// The text of a UUID, which most ids are, is 36 bytes; two more cost nothing.
const INLINE: usize = 38;

/// An id that was checked. `Debug` shows its fingerprint only: the id alone opens the session.
///
/// It is compared at each request, so it stands where it is kept, if it is not too long for that.
#[derive(Clone)]
pub(crate) struct SessionId(Text);

#[derive(Clone)]
enum Text {
    Inline { len: u8, bytes: [u8; INLINE] },
    Boxed(Box<[u8]>),
}

impl SessionId {
    /// An id from text, by the same rules as in a header.
    pub(crate) fn new(text: impl AsRef<[u8]>) -> Result<Self, Rejection> {
        let text = check(text.as_ref())?;
        let mut bytes = [0; INLINE];
        Ok(Self(match bytes.get_mut(..text.len()) {
            Some(room) => {
                room.copy_from_slice(text);
                Text::Inline { len: text.len() as u8, bytes }
            }
            None => Text::Boxed(text.into()),
        }))
    }

    /// An id that a server issued, of any length. Good for ending the session at that server, and for nothing else.
    /// With spaces too: no client may send those, but the server may know such an id again. `None` if it is empty or
    /// no text.
    pub(crate) fn issued(text: &[u8]) -> Option<Self> {
        Self::new(text).ok().or_else(|| {
            let value = HeaderValue::from_bytes(text).ok()?;
            let is_id = !text.is_empty() && value.to_str().is_ok();
            is_id.then(|| Self(Text::Boxed(text.into())))
        })
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Text::Inline { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Text::Boxed(text) => text,
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        // What was checked is ASCII.
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.as_str())
    }

    /// The header value, marked sensitive so that HTTP layers outside keep it from their logs.
    pub(crate) fn to_header(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_bytes(self.as_bytes()).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// The value of the header, if it can be an id.
pub(super) fn check(id: &[u8]) -> Result<&[u8], Rejection> {
    if id.is_empty() {
        Err(Rejection::IdEmpty)
    } else if id.len() > MAX_LEN {
        Err(Rejection::IdTooLong)
    // No early exit, so that the loop vectorises.
    } else if !id.iter().fold(true, |fine, byte| fine & byte.is_ascii_graphic()) {
        Err(Rejection::IdMalformed)
    } else {
        Ok(id)
    }
}

impl PartialEq for SessionId {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for SessionId {}

impl Hash for SessionId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({})", self.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_of_an_id_does_not_show_it() {
        let id = SessionId::new("very-secret").unwrap();
        assert!(!format!("{id:?}").contains("secret"));
        assert!(id.to_header().unwrap().is_sensitive());
    }

    #[test]
    fn short_and_long_ids_are_the_same_to_everybody() {
        let text = "!".repeat(MAX_LEN);
        for len in [1, 36, INLINE - 1, INLINE, INLINE + 1, MAX_LEN] {
            let id = SessionId::new(&text[..len]).unwrap();
            assert_eq!((id.as_str(), id.as_bytes()), (&text[..len], &text.as_bytes()[..len]));
            assert_eq!(id, id.clone());
            assert_ne!(
                id,
                SessionId::new(&text[..len - 1]).unwrap_or(SessionId(Text::Boxed(Box::default())))
            );
        }
        assert_eq!(size_of::<SessionId>(), 40);
    }

    #[test]
    fn an_id_comes_out_as_it_went_in() {
        let id = SessionId::new("a-b~!").unwrap();
        assert_eq!(id.as_str(), "a-b~!");
        assert_eq!(id.to_header().unwrap(), "a-b~!");
        assert_eq!(id.fingerprint(), Fingerprint::of("a-b~!"));
        assert_eq!(SessionId::new("a b"), Err(Rejection::IdMalformed));
        assert_eq!(format!("{id:?}"), format!("SessionId({})", id.fingerprint()));
    }

    #[test]
    fn an_id_that_is_too_long_or_has_a_space_can_still_be_ended() {
        let text = "x".repeat(MAX_LEN + 1);
        for text in [text.as_str(), "a b"] {
            assert!(SessionId::new(text).is_err());
            let id = SessionId::issued(text.as_bytes()).unwrap();
            assert_eq!(id.as_str(), text);
            assert!(id.to_header().is_some());
        }
        for none in [&b""[..], b"\xff", b"a\nb"] {
            assert!(SessionId::issued(none).is_none());
        }
    }
}
