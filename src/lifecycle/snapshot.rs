//! What an operator sees: copies, taken at one moment, safe to print and to serialize.

use std::time::Duration;

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{events::CloseReason, principal::Principal};
use crate::protocol::{ClientInfo, Fingerprint};

/// One live session, as [`Sessions::list`](crate::Sessions::list) shows it.
///
/// Serializes durations as whole milliseconds.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct SessionInfo {
    /// Which session; look it up again with [`Sessions::find`](crate::Sessions::find).
    pub session: Fingerprint,
    /// Whose.
    pub principal: Option<Principal>,
    /// What the client says of itself.
    pub client: Option<ClientInfo>,
    /// Since `initialize`.
    #[serde(rename = "age_ms", serialize_with = "millis")]
    pub age: Duration,
    /// Since the last request ended; zero while one is in flight.
    #[serde(rename = "idle_ms", serialize_with = "millis")]
    pub idle_for: Duration,
    /// Requests, open streams and holds.
    pub in_flight: u64,
    /// Streaming responses that are open.
    pub streams: usize,
    /// Requests admitted so far, `initialize` included.
    pub requests: u64,
}

/// A session that was closed here and that the upstream server may still have, as
/// [`Sessions::unended`](crate::Sessions::unended) shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct UnendedSession {
    /// The name of the session in logs and events.
    pub session: Fingerprint,
    /// The owner; `None` if anonymous.
    pub principal: Option<Principal>,
    /// How the last attempt failed: `answered 401`, `no answer within 5s`, `the call failed`,
    /// `panicked`, `interrupted` (the runtime of the call has ended).
    pub failure: String,
    /// Failed attempts so far.
    pub attempts: u32,
    /// `true` if there will be another attempt; `false` if the session was given up.
    pub retrying: bool,
}

fn millis<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(duration.as_millis() as u64)
}

/// Counts over the whole layer, from [`Sessions::stats`](crate::Sessions::stats).
///
/// `live`, `opening` and `closing` are of one moment, so their sum never exceeds `max_sessions`.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Sessions in the table.
    pub live: usize,
    /// Sessions whose `initialize` the server behind has not answered yet.
    pub opening: usize,
    /// Sessions that are gone from the table while the server behind is being told.
    pub closing: usize,
    /// Sessions opened since the start.
    pub opened: u64,
    /// Sessions closed since the start, by reason.
    pub closed: Closed,
    /// Requests the layer refused since the start.
    pub rejected: u64,
    /// Requests, open streams and holds on live sessions.
    pub in_flight: u64,
    /// Streaming responses open on live sessions.
    pub streams: usize,
    /// Sessions whose first closing DELETE failed since the start: the upstream server answered with
    /// an unexpected status, failed, or did not answer within `close_timeout`. What became of them is
    /// in `retrying` and `unended`.
    pub terminate_failures: u64,
    /// Sessions whose closing DELETE failed and is being repeated: after 1 s, 2 s, 4 s and so on up to
    /// every 60 s, for ten minutes. At most 1,024; they count towards no cap.
    pub retrying: usize,
    /// Sessions given up since the start: the upstream server keeps them until it ends them by itself.
    /// See [`Sessions::unended`](crate::Sessions::unended).
    pub unended: u64,
}

/// How many sessions were closed, by reason.
///
/// Serializes as a map with every reason in it: `{"idle": 3, "unused": 0, ...}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closed([u64; CloseReason::ALL.len()]);

impl Closed {
    pub(super) fn new(counts: [u64; CloseReason::ALL.len()]) -> Self {
        Self(counts)
    }

    /// Closed for this reason.
    pub fn get(&self, reason: CloseReason) -> u64 {
        self.0[reason as usize]
    }

    /// Closed for any reason.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Every reason with its count.
    pub fn iter(&self) -> impl Iterator<Item = (CloseReason, u64)> + '_ {
        CloseReason::ALL.into_iter().zip(self.0)
    }
}

impl Serialize for Closed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (reason, count) in self.iter() {
            map.serialize_entry(reason.as_str(), &count)?;
        }
        map.end()
    }
}

#[cfg(all(test, not(mcp_loom)))]
mod tests {
    use super::*;

    #[test]
    fn counts_by_reason_are_found_summed_and_listed_under_their_names() {
        let closed = Closed::new([1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(closed.total(), 45);
        assert_eq!(closed.get(CloseReason::Idle), 1);
        assert_eq!(closed.get(CloseReason::Shutdown), 9);
        assert_eq!(closed.iter().count(), 9);
        assert!(closed.iter().all(|(reason, count)| closed.get(reason) == count));
        let json = serde_json::to_string(&closed).unwrap();
        let expected = r#"{"idle":1,"unused":2,"lifetime":3,"client":4,"inner":5,"evicted":6,"#;
        let expected = expected.to_owned() + r#""abandoned":7,"requested":8,"shutdown":9}"#;
        assert_eq!(json, expected);
    }

    #[test]
    fn durations_are_whole_milliseconds() {
        let info = SessionInfo {
            session: Fingerprint::unnamed(),
            principal: Some("alice".into()),
            client: None,
            age: Duration::from_micros(1_234_567),
            idle_for: Duration::from_millis(8),
            in_flight: 1,
            streams: 2,
            requests: 3,
        };
        let json = serde_json::to_value(&info).unwrap();
        assert_eq!((&json["age_ms"], &json["idle_ms"]), (&1_234.into(), &8.into()));
        assert_eq!(
            (&json["principal"], &json["session"]),
            (&"alice".into(), &"000000000000".into())
        );
    }
}
