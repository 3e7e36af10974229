//! How a session is named where its id must not appear.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    str::FromStr,
    sync::LazyLock,
};

use serde::{Serialize, Serializer};

/// Keyed once a process from the operating system's randomness. Without a key, the fingerprint of
/// a guessable id (an inner server may count them up) could be turned back by trying.
static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// 48 bits: short enough to read out, and two of 10,000 sessions collide once in five million
/// processes.
const BITS: u32 = 48;

/// A short one-way name of a session, for logs, events and listings.
///
/// A session id is a bearer secret, so it is never printed. The fingerprint stands for it: twelve
/// hex digits of a keyed hash (SipHash, key drawn at process start), stable within one process and
/// meaningless outside of it.
///
/// ```
/// use mcp_session_layer::Fingerprint;
///
/// let shown: Fingerprint = "00c0ffee1234".parse()?;
/// assert_eq!(shown.to_string(), "00c0ffee1234");
/// # Ok::<(), mcp_session_layer::ParseFingerprintError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(u64);

impl Fingerprint {
    pub(super) fn of(id: &str) -> Self {
        Self(KEY.hash_one(id) >> (u64::BITS - BITS))
    }

    /// What a session is called that has no id yet.
    pub(crate) const fn unnamed() -> Self {
        Self(0)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012x}", self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The text was not twelve hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParseFingerprintError;

impl fmt::Display for ParseFingerprintError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a fingerprint is twelve hex digits")
    }
}

impl std::error::Error for ParseFingerprintError {}

impl FromStr for Fingerprint {
    type Err = ParseFingerprintError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !digits {
            return Err(ParseFingerprintError);
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| ParseFingerprintError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_survives_being_read_back_and_differs_between_ids() {
        let one = Fingerprint::of("one");
        assert_eq!(one, Fingerprint::of("one"));
        assert_ne!(one, Fingerprint::of("two"));
        assert_eq!(one.to_string().parse(), Ok(one));
    }

    #[test]
    fn only_twelve_hex_digits_are_a_fingerprint() {
        for bad in ["", "12345678901", "1234567890123", "12345678901g", "+12345678901"] {
            assert_eq!(bad.parse::<Fingerprint>(), Err(ParseFingerprintError), "{bad:?}");
        }
    }

    #[test]
    fn a_fingerprint_is_shown_in_twelve_digits_everywhere() {
        let mut ids = (0..64).map(|id| Fingerprint::of(&id.to_string()));
        assert!(ids.all(|one| one.to_string().len() == 12));
        let small = Fingerprint(0xab);
        assert_eq!(format!("{small} {small:?}"), "0000000000ab 0000000000ab");
        assert_eq!(serde_json::to_value(small).unwrap(), "0000000000ab");
        assert_eq!(Fingerprint::unnamed().to_string(), "000000000000");
        assert_eq!(ParseFingerprintError.to_string(), "a fingerprint is twelve hex digits");
    }
}
