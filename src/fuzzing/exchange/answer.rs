//! What the server answers.

use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt::{self, Display, Formatter},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{ledger::Ledger, words::choices};

const RESULT: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-11-25"}}"#;

const ERROR: &str = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"no"}}"#;

choices! {
    Status {
        Ok = "200",
        Accepted = "202",
        NoContent = "204",
        Found = "302",
        BadRequest = "400",
        Unauthorized = "401",
        NotFound = "404",
        NotAllowed = "405",
        NotAcceptable = "406",
        Internal = "500",
        Unavailable = "503",
        Fails = "an error of the service",
    }
}

choices! {
    /// Content type and body.
    Shape {
        Result = "a JSON result",
        Error = "a JSON error",
        Events = "an event stream with a result",
        ErrorEvents = "an event stream with an error",
        EndlessEvents = "an event stream with a result that goes on for ever",
        EventsOfLength = "an event stream with a result and a declared length that goes on for ever",
        SilentEvents = "an event stream in which nothing comes",
        StreamedResult = "a JSON result of unknown length",
        StuckResult = "half of a JSON result and then nothing",
        Html = "HTML",
        Empty = "no body and no type",
    }
}

choices! {
    /// What the headers of the answer name.
    Issues {
        None = "no id",
        Fresh = "a new id",
        Own = "the id of the request",
        Others = "the id of another live session",
        OwnAndFresh = "the id of the request and a new one",
        TwoFresh = "two new ids",
        TooLong = "a new id of 5,000 bytes",
        Jwt = "a new id of 500 bytes",
        Spaced = "a new id with a space",
        Empty = "an empty id",
        Closed = "an id that was closed",
        OthersAndFresh = "the id of another live session and a new one",
    }
}

choices! {
    Delay {
        None = "at once",
        Short = "after 20 ms",
        Long = "after 45 s",
        Longer = "after 100 s",
        Never = "never",
    }
}

/// One answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Script {
    pub(super) status: Status,
    pub(super) shape: Shape,
    pub(super) issues: Issues,
    pub(super) delay: Delay,
}

impl Display for Script {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { status, shape, issues, delay } = self;
        write!(f, "the server answers {delay} with {status}, {shape} and {issues}")
    }
}

impl Status {
    pub(super) fn code(self) -> u16 {
        match self {
            Self::Ok => 200,
            Self::Accepted => 202,
            Self::NoContent => 204,
            Self::Found => 302,
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::NotFound => 404,
            Self::NotAllowed => 405,
            Self::NotAcceptable => 406,
            Self::Internal | Self::Fails => 500,
            Self::Unavailable => 503,
        }
    }

    pub(super) fn is_success(self) -> bool {
        (200..300).contains(&self.code())
    }
}

impl Delay {
    pub(super) fn time(self) -> Duration {
        match self {
            Self::None => Duration::ZERO,
            Self::Short => Duration::from_millis(20),
            Self::Long => Duration::from_secs(45),
            Self::Longer => Duration::from_secs(100),
            Self::Never => Duration::MAX,
        }
    }
}

impl Shape {
    pub(super) fn content_type(self) -> Option<&'static str> {
        match self {
            Self::Result | Self::Error | Self::StreamedResult | Self::StuckResult => {
                Some("application/json")
            }
            Self::Html => Some("text/html"),
            Self::Empty => None,
            _ => Some("text/event-stream"),
        }
    }

    /// Whether `initialize` came to something, as far as can be seen.
    pub(super) fn is_result(self) -> bool {
        matches!(
            self,
            Self::Result
                | Self::Events
                | Self::EndlessEvents
                | Self::EventsOfLength
                | Self::StreamedResult
        )
    }

    pub(super) fn ends(self) -> bool {
        !matches!(
            self,
            Self::EndlessEvents | Self::EventsOfLength | Self::SilentEvents | Self::StuckResult
        )
    }

    /// All that comes of the body.
    pub(super) fn bytes(self) -> Bytes {
        Bytes::from(match self {
            Self::Result | Self::StreamedResult => RESULT.to_owned(),
            Self::Error => ERROR.to_owned(),
            Self::Events | Self::EndlessEvents | Self::EventsOfLength => event(RESULT),
            Self::ErrorEvents => event(ERROR),
            Self::SilentEvents | Self::Empty => String::new(),
            Self::StuckResult => RESULT[..20].to_owned(),
            Self::Html => "<p>hello".to_owned(),
        })
    }

    pub(super) fn body(self, ledger: &Arc<Ledger>) -> Scripted {
        ledger.book().bodies += 1;
        let mut bytes = self.bytes();
        let declared = match self {
            Self::Result | Self::Error | Self::Html | Self::Empty => Some(bytes.len() as u64),
            Self::EventsOfLength => Some(1_000_000),
            _ => None,
        };
        let mut frames = VecDeque::new();
        if bytes.len() > 30 {
            frames.push_back(bytes.split_to(30));
        }
        if !bytes.is_empty() {
            frames.push_back(bytes);
        }
        Scripted { frames, declared, ends: self.ends(), ledger: Arc::clone(ledger) }
    }
}

fn event(data: &str) -> String {
    format!("event: message\ndata: {data}\n\n")
}

/// A body that is counted until it is dropped.
pub(super) struct Scripted {
    frames: VecDeque<Bytes>,
    declared: Option<u64>,
    ends: bool,
    ledger: Arc<Ledger>,
}

impl Body for Scripted {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.frames.pop_front() {
            Some(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
            None if self.ends => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ends && self.frames.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.frames.iter().map(|data| data.len() as u64).sum();
        match self.declared {
            Some(_) if self.ends => SizeHint::with_exact(left),
            Some(declared) => SizeHint::with_exact(declared),
            None => SizeHint::default(),
        }
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.ledger.book().bodies -= 1;
    }
}
