//! Which era of MCP a request belongs to.

/// The first revision without sessions.
const FIRST_MODERN: &[u8; 10] = b"2026-07-28";

/// The revisions before it. The list is complete: there will be no more of them.
const LEGACY: [&[u8; 10]; 4] = [b"2024-11-05", b"2025-03-26", b"2025-06-18", b"2025-11-25"];

/// Revisions up to 2025-11-25 have sessions, later ones do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Era {
    /// Sessions exist: the layer resolves, counts and closes.
    Legacy,
    /// No sessions: the layer strips the id and stays out of the way.
    Modern,
    /// A version that is none. With an id it is as good as legacy; without one, what is wrong with
    /// it is the server's to say, which knows what it supports.
    Unknown,
}

impl Era {
    /// By the value of the header. Absent is legacy: the first revisions had no such header.
    pub(super) fn of(version: Option<&[u8]>) -> Self {
        match version.map(<&[u8; 10]>::try_from) {
            None => Self::Legacy,
            Some(Ok(version)) if LEGACY.contains(&version) => Self::Legacy,
            Some(Ok(version)) if is_modern(version) => Self::Modern,
            Some(_) => Self::Unknown,
        }
    }
}

/// `YYYY-MM-DD` sorts as bytes, so a comparison of dates is one of slices.
fn is_modern(version: &[u8; 10]) -> bool {
    is_date(version) && version >= FIRST_MODERN
}

fn is_date(version: &[u8; 10]) -> bool {
    let &[y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = version else {
        return false;
    };
    let digits = [y1, y2, y3, y4, m1, m2, d1, d2];
    digits.iter().all(u8::is_ascii_digit)
        && (1..=12).contains(&two_digits(m1, m2))
        && (1..=31).contains(&two_digits(d1, d2))
}

fn two_digits(tens: u8, ones: u8) -> u8 {
    (tens - b'0') * 10 + (ones - b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn era(version: Option<&str>) -> Era {
        Era::of(version.map(str::as_bytes))
    }

    #[test]
    fn a_request_is_modern_only_with_a_date_from_2026_07_28_on() {
        for modern in ["2026-07-28", "2026-07-29", "2027-01-01", "9999-12-31"] {
            assert_eq!(era(Some(modern)), Era::Modern, "{modern}");
        }
        for legacy in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
            assert_eq!(era(Some(legacy)), Era::Legacy, "{legacy}");
        }
        assert_eq!(era(None), Era::Legacy);
    }

    #[test]
    fn what_is_no_revision_is_unknown_and_left_to_the_server() {
        for odd in [
            "",
            "v999.0.0",
            "1999-01-01",
            "2026-07-27",
            "latest",
            "DRAFT-2026-v1",
            "2026-7-28",
            "2026-07-28 ",
            "2026-13-01",
            "2026-07-32",
            "2026-00-10",
            "2026/07/28",
            "20260728",
            "2026-07-28T00:00",
            "２０２６-07-28",
        ] {
            assert_eq!(era(Some(odd)), Era::Unknown, "{odd:?}");
        }
    }
}
