//! What the headers of a request say of sessions.

use http::{HeaderMap, HeaderValue};

use super::{
    Rejection,
    era::{Era, VERSION_HEADER},
    id::{SESSION_ID_HEADER, check},
};

/// Found in one pass over the headers: a request has few, and to compare the name of each takes less
/// than to hash two. As names and not as text: the text of a standard one is looked up first.
#[derive(Debug)]
pub(crate) struct SessionHeaders<'a> {
    pub(crate) era: Era,
    /// Checked. `None` without the header.
    pub(crate) id: Result<Option<&'a [u8]>, Rejection>,
}

impl<'a> SessionHeaders<'a> {
    pub(crate) fn read(headers: &'a HeaderMap) -> Self {
        let (mut version, mut id, mut is_repeated) = (None, None, false);
        for (name, value) in headers {
            if *name == SESSION_ID_HEADER {
                is_repeated |= id.is_some();
                id = Some(value);
            } else if *name == VERSION_HEADER {
                version = version.or(Some(value));
            }
        }
        // Checked when the names are done with: less code for every name to go through.
        let id = match id {
            Some(_) if is_repeated => Err(Rejection::IdRepeated),
            id => id.map(|id| check(id.as_bytes())).transpose(),
        };
        Self { era: Era::of(version.map(HeaderValue::as_bytes)), id }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&[u8]]) -> Result<Option<String>, Rejection> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&SESSION_ID_HEADER, HeaderValue::from_bytes(value).unwrap());
        }
        let text = |id: &[u8]| String::from_utf8(id.to_vec()).unwrap();
        SessionHeaders::read(&headers).id.map(|id| id.map(text))
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
    fn the_first_version_counts_wherever_it_stands() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("accept", "2026-07-28"),
            (VERSION_HEADER.as_str(), "2025-11-25"),
            (SESSION_ID_HEADER.as_str(), "an-id"),
            (VERSION_HEADER.as_str(), "2026-07-28"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let found = SessionHeaders::read(&headers);
        assert_eq!((found.era, found.id), (Era::Legacy, Ok(Some(&b"an-id"[..]))));
        headers.insert("Mcp-Protocol-Version", HeaderValue::from_static("2026-07-28"));
        assert_eq!(SessionHeaders::read(&headers).era, Era::Modern);
    }
}
