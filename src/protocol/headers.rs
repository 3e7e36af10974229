//! The session headers of a request, and the spellings that pass for them.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Rejection, era::Era, id::check};

/// What the headers of a request say about its session. Found in one pass: a request has few headers, and most
/// are ruled out by the length of their name.
#[derive(Debug)]
pub(crate) struct SessionHeaders<'a> {
    pub(crate) era: Era,
    /// Checked. `None` without the header.
    pub(crate) id: Result<Option<&'a [u8]>, Rejection>,
    /// Another spelling of one of our headers is there, which some servers take for it.
    pub(crate) has_folded: bool,
}

impl<'a> SessionHeaders<'a> {
    pub(crate) fn read(headers: &'a HeaderMap) -> Self {
        let (mut version, mut id, mut is_repeated) = (None, None, false);
        let mut has_folded = false;
        for (name, value) in headers {
            let name = name.as_str().as_bytes();
            if name.len() == ID.len() {
                if name == ID {
                    is_repeated |= id.is_some();
                    id = Some(value);
                } else if name[0] == ID[0] {
                    has_folded |= folds_into(name, ID);
                }
            } else if name.len() == VERSION.len() {
                if name == VERSION {
                    version = version.or(Some(value));
                } else if name[0] == VERSION[0] {
                    has_folded |= folds_into(name, VERSION);
                }
            }
        }
        // Checked after the loop, which stays small that way.
        let id = match id {
            Some(_) if is_repeated => Err(Rejection::IdRepeated),
            id => id.map(|id| check(id.as_bytes())).transpose(),
        };
        Self { era: Era::of(version.map(HeaderValue::as_bytes)), id, has_folded }
    }
}

const ID: &[u8] = b"mcp-session-id";
const VERSION: &[u8] = b"mcp-protocol-version";

/// Whether a server that hands headers on as variables reads `name` as `ours`: CGI (RFC 3875, section 4.1.18), WSGI
/// and PHP turn `-` into `_`, and some turn every other separator into it as well.
#[inline(never)]
fn folds_into(name: &[u8], ours: &[u8]) -> bool {
    name.len() == ours.len()
        && name
            .iter()
            .zip(ours)
            .all(|(byte, our)| byte == our || *our == b'-' && !byte.is_ascii_alphanumeric())
}

/// Removes every header that only folds into one of ours.
#[cold]
pub(crate) fn remove_folded(headers: &mut HeaderMap) {
    let folded = |name: &&HeaderName| {
        let name = name.as_str().as_bytes();
        [ID, VERSION].into_iter().any(|ours| name != ours && folds_into(name, ours))
    };
    let folded: Vec<_> = headers.keys().filter(folded).cloned().collect();
    for name in folded {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{SESSION_ID_HEADER, id::MAX_LEN};

    fn read(values: &[&[u8]]) -> Result<Option<String>, Rejection> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&SESSION_ID_HEADER, HeaderValue::from_bytes(value).unwrap());
        }
        let text = |id: &[u8]| String::from_utf8(id.to_vec()).unwrap();
        SessionHeaders::read(&headers).id.map(|id| id.map(text))
    }

    #[test]
    fn an_id_is_one_to_4096_bytes_of_visible_ascii_in_one_header() {
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[b"!"]), Ok(Some("!".into())));
        assert_eq!(read(&[b"~"]), Ok(Some("~".into())));
        assert!(read(&[&[b'x'; MAX_LEN]]).is_ok());
        assert_eq!(read(&[&[b'x'; MAX_LEN + 1]]), Err(Rejection::IdTooLong));
        assert_eq!(read(&[b""]), Err(Rejection::IdEmpty));
        assert_eq!(read(&[b"a", b"a"]), Err(Rejection::IdRepeated));
        for bad in [&b"a b"[..], b"a\tb", b"\xff", "ü".as_bytes()] {
            assert_eq!(read(&[bad]), Err(Rejection::IdMalformed), "{bad:?}");
        }
    }

    #[test]
    fn the_first_version_counts_wherever_it_stands() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("accept", "2026-07-28"),
            ("mcp-protocol-version", "2025-11-25"),
            (SESSION_ID_HEADER.as_str(), "an-id"),
            ("mcp-protocol-version", "2026-07-28"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let found = SessionHeaders::read(&headers);
        assert_eq!((found.era, found.id), (Era::Legacy, Ok(Some(&b"an-id"[..]))));
        headers.insert("Mcp-Protocol-Version", HeaderValue::from_static("2026-07-28"));
        assert_eq!(SessionHeaders::read(&headers).era, Era::Modern);
    }

    #[test]
    fn every_spelling_that_folds_into_ours_is_found_and_removed_and_no_other() {
        let separators = ["-", "_", ".", "~", "!", "|"];
        let mut found = 0;
        for one in separators {
            for two in separators {
                for name in [
                    format!("mcp{one}session{two}id"),
                    format!("MCP{one}Session{two}ID"),
                    format!("mcp{one}protocol{two}version"),
                ] {
                    let is_ours = one == "-" && two == "-";
                    let mut headers = HeaderMap::new();
                    headers.insert("accept", HeaderValue::from_static("*/*"));
                    let name: HeaderName = name.parse().unwrap();
                    headers.insert(&name, HeaderValue::from_static("2025-11-25"));
                    assert_eq!(SessionHeaders::read(&headers).has_folded, !is_ours, "{name}");
                    remove_folded(&mut headers);
                    assert_eq!(headers.contains_key(&name), is_ours, "{name}");
                    assert!(headers.contains_key("accept"));
                    found += usize::from(!is_ours);
                }
            }
        }
        assert_eq!(found, 3 * 35);
        for other in ["mcp-session-ix", "mcpxsession-id", "xcp-session-id", "content-length"] {
            let mut headers = HeaderMap::new();
            headers.insert(other, HeaderValue::from_static("1"));
            assert!(!SessionHeaders::read(&headers).has_folded, "{other}");
        }
    }
}
