//! Why an attempt to end a session failed, and what an operator can do about it.

use std::{fmt, time::Duration};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The upstream server answered with this status.
    Refused(u16),
    /// The call failed, or the server was not ready for it.
    Failed,
    Panicked,
    /// No answer within this time.
    Silent(Duration),
    /// The runtime of the call has ended.
    Interrupted,
}

impl Failure {
    /// `true` if the same request would get the same answer.
    pub(super) fn is_final(self) -> bool {
        match self {
            Self::Refused(408 | 429) => false,
            Self::Refused(501) => true,
            Self::Refused(status) => status < 500,
            _ => false,
        }
    }

    pub(super) fn cure(self) -> Option<&'static str> {
        match self {
            Self::Refused(401 | 403) => Some("add credentials with `terminate_with`"),
            Self::Refused(405 | 415 | 501) => Some("the method router must accept DELETE"),
            Self::Refused(500) => Some(
                "a handler behind the layer may need extensions that the closing DELETE does not have: \
                 see `keep_extension`",
            ),
            Self::Silent(_) => Some("raise `close_timeout` if the upstream server needs longer"),
            _ => None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(status) => write!(f, "answered {status}"),
            Self::Failed => f.write_str("the call failed"),
            Self::Panicked => f.write_str("panicked"),
            Self::Silent(limit) => write!(f, "no answer within {limit:?}"),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_tried_again_and_what_will_not_is_not() {
        let limit = Duration::from_secs(5);
        for status in [408, 429, 500, 502, 503, 504, 599] {
            assert!(!Failure::Refused(status).is_final(), "{status}");
        }
        for status in [301, 400, 401, 403, 415, 422, 501] {
            assert!(Failure::Refused(status).is_final(), "{status}");
        }
        let passing = [Failure::Failed, Failure::Panicked, Failure::Silent(limit)];
        assert!(passing.into_iter().all(|failure| !failure.is_final()));
    }

    #[test]
    fn each_cause_names_its_cure() {
        let cure = |failure: Failure| failure.cure().unwrap_or_default();
        for (status, word) in [
            (401, "terminate_with"),
            (403, "terminate_with"),
            (405, "DELETE"),
            (415, "DELETE"),
            (501, "DELETE"),
            (500, "keep_extension"),
        ] {
            assert!(cure(Failure::Refused(status)).contains(word), "{status}");
        }
        assert!(cure(Failure::Silent(Duration::from_secs(5))).contains("close_timeout"));
        assert_eq!(Failure::Refused(503).cure(), None);
    }
}
