//! The session id, as it stands in the `Mcp-Session-Id` header.
//!
//! MCP 2025-11-25, "Session Management": an id is visible ASCII (0x21 to 0x7E) and globally
//! unique. The length bound is ours: what is longer is refused before it is hashed.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Fingerprint, Rejection};

/// `Mcp-Session-Id`.
pub(crate) const SESSION_ID_HEADER: HeaderName = HeaderName::from_static("mcp-session-id");

/// Longer than any id in the field (UUIDs, 32-byte tokens in hex, short JWTs are not ids).
const MAX_LEN: usize = 256;

/// An id that was checked. `Debug` shows its fingerprint only: the id alone opens the session.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct SessionId(Box<str>);

impl SessionId {
    /// The id of a request or response, borrowed: `None` without the header.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Option<&str>, Rejection> {
        let mut values = headers.get_all(SESSION_ID_HEADER).iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        if values.next().is_some() {
            return Err(Rejection::IdRepeated);
        }
        check(value.as_bytes())?;
        value.to_str().map(Some).map_err(|_| Rejection::IdMalformed)
    }

    /// An id from text, by the same rules.
    pub(crate) fn new(text: &str) -> Result<Self, Rejection> {
        check(text.as_bytes())?;
        Ok(Self(text.into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.0)
    }

    /// The header value, marked sensitive so that HTTP layers outside keep it from their logs.
    pub(crate) fn to_header(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_str(&self.0).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

fn check(id: &[u8]) -> Result<(), Rejection> {
    if id.is_empty() {
        Err(Rejection::IdEmpty)
    } else if id.len() > MAX_LEN {
        Err(Rejection::IdTooLong)
    } else if !id.iter().all(u8::is_ascii_graphic) {
        Err(Rejection::IdMalformed)
    } else {
        Ok(())
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

    fn read(values: &[&[u8]]) -> Result<Option<String>, Rejection> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(SESSION_ID_HEADER, HeaderValue::from_bytes(value).unwrap());
        }
        SessionId::read(&headers).map(|id| id.map(str::to_owned))
    }

    #[test]
    fn an_id_is_one_to_256_bytes_of_visible_ascii_in_one_header() {
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[b"!"]), Ok(Some("!".into())));
        assert_eq!(read(&[b"~"]), Ok(Some("~".into())));
        assert!(read(&[&[b'x'; 256]]).is_ok());
        assert_eq!(read(&[&[b'x'; 257]]), Err(Rejection::IdTooLong));
        assert_eq!(read(&[b""]), Err(Rejection::IdEmpty));
        assert_eq!(read(&[b"a", b"a"]), Err(Rejection::IdRepeated));
        for bad in [&b"a b"[..], b"a\tb", b"\xff", "ü".as_bytes()] {
            assert_eq!(read(&[bad]), Err(Rejection::IdMalformed), "{bad:?}");
        }
    }

    #[test]
    fn debug_of_an_id_does_not_show_it() {
        let id = SessionId::new("very-secret").unwrap();
        assert!(!format!("{id:?}").contains("secret"));
        assert!(id.to_header().unwrap().is_sensitive());
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
}
