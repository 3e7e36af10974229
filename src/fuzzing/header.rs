//! The head of a request, as far as the layer reads it.

use std::sync::LazyLock;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    lifecycle::model::Known,
    protocol::{Era, Fingerprint, Rejection, SESSION_ID_HEADER, SessionHeaders, SessionId},
};

/// Never dropped: a thread's own would go after tokio's clock has gone.
static KNOWN: LazyLock<Known> = LazyLock::new(Known::default);

/// Lines of `name: value`; what cannot be a header is left out.
pub fn header(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            headers.append(name, value);
        }
    }
    let SessionHeaders { era, id, has_folded } = SessionHeaders::read(&headers);
    assert_eq!(has_folded, headers.keys().any(folds), "the spellings of {headers:?}");
    let id = id.map(|id| id.and_then(|id| std::str::from_utf8(id).ok()));
    assert_eq!(id, expected_id(&headers), "the id of {headers:?}");
    let is_modern = era == Era::Modern;
    assert_eq!(is_modern, expected_modern(&headers), "the era of {headers:?}");
    if let Ok(Some(id)) = id {
        assert_sound(id);
        look_up(id);
    }
    for text in headers.values().filter_map(|value| value.to_str().ok()) {
        let hex = text.chars().filter(char::is_ascii_hexdigit).count();
        let parsed = text.parse::<Fingerprint>();
        assert_eq!(parsed.is_ok(), hex == 12 && text.len() == 12, "a fingerprint of {text:?}");
        if let Ok(parsed) = parsed {
            assert_eq!(parsed.to_string(), text.to_ascii_lowercase());
        }
    }
}

/// Whether a server that reads every separator as `-` takes this header for one of ours.
fn folds(name: &HeaderName) -> bool {
    let plain: String =
        name.as_str().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let ours = ["mcp-session-id", "mcp-protocol-version"];
    ours.contains(&plain.as_str()) && !ours.contains(&name.as_str())
}

fn expected_id(headers: &HeaderMap) -> Result<Option<&str>, Rejection> {
    let all: Vec<_> = headers.get_all("Mcp-Session-Id").iter().collect();
    match all.as_slice() {
        [] => Ok(None),
        [one] => match std::str::from_utf8(one.as_bytes()) {
            Ok("") => Err(Rejection::IdEmpty),
            _ if one.len() > 4096 => Err(Rejection::IdTooLong),
            Ok(id) if id.chars().all(|c| ('!'..='~').contains(&c)) => Ok(Some(id)),
            _ => Err(Rejection::IdMalformed),
        },
        _ => Err(Rejection::IdRepeated),
    }
}

fn expected_modern(headers: &HeaderMap) -> bool {
    let version = headers.get("MCP-Protocol-Version").and_then(|value| value.to_str().ok());
    let parts: Vec<_> = version.unwrap_or_default().split('-').collect();
    let number = |text: &str, len: usize| {
        let digits = text.len() == len && text.chars().all(|c| c.is_ascii_digit());
        digits.then(|| text.parse::<u32>().unwrap_or_default())
    };
    let &[year, month, day] = parts.as_slice() else { return false };
    let (Some(year), Some(month), Some(day)) = (number(year, 4), number(month, 2), number(day, 2))
    else {
        return false;
    };
    (1..=12).contains(&month) && (1..=31).contains(&day) && (year, month, day) >= (2026, 7, 28)
}

/// It comes out as it went in, and its value nowhere else.
fn assert_sound(text: &str) {
    let Ok(id) = SessionId::new(text) else { panic!("an id of a header is one by itself") };
    assert_eq!(id.as_str(), text);
    let Some(header) = id.to_header() else { panic!("an id can be sent back") };
    assert!(header.is_sensitive() && header.as_bytes() == text.as_bytes());
    let fingerprint = id.fingerprint();
    assert_eq!(format!("{id:?}"), format!("SessionId({fingerprint})"));
    assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
    let mut headers = HeaderMap::new();
    headers.insert(&SESSION_ID_HEADER, header);
    assert_eq!(format!("{headers:?}"), r#"{"mcp-session-id": Sensitive}"#);
}

/// Only the id that is there is found, and none that a client sends is put there.
fn look_up(id: &str) {
    assert_eq!(KNOWN.admits(id), id == Known::ID, "whether {id} is known");
    assert_eq!(KNOWN.count(), 1, "the table after {id}");
}
