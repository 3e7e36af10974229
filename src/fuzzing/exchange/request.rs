//! What a client sends.

use std::{
    convert::Infallible,
    fmt::{self, Display, Formatter},
    sync::OnceLock,
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderName, Method, Request};

use super::words::choices;

/// Marks the requests of clients with their number. What comes without it, the layer has sent.
pub(super) const NUMBER: HeaderName = HeaderName::from_static("x-exchange");

/// Whom the principal hook sees.
pub(super) const USER: HeaderName = HeaderName::from_static("x-user");

pub(super) const SESSION_ID: &str = "mcp-session-id";

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#;

const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;

/// More than the layer reads of a body.
const PADDING: usize = 70 * 1024;

/// Longer than the layer waits for one.
const SLOW: Duration = Duration::from_secs(11);

choices! {
    Verb {
        Post = "POST",
        Get = "GET",
        Delete = "DELETE",
        Head = "HEAD",
        Options = "OPTIONS",
        Put = "PUT",
    }
}

choices! {
    Version {
        Absent = "no version",
        Legacy = "version 2025-11-25",
        Modern = "version 2026-07-28",
        Garbage = "a version that is none",
        Folded = "version 2026-07-28 under a name with underscores",
    }
}

choices! {
    Message {
        Initialize = "an initialize",
        Notification = "an initialize without an id member",
        Batch = "a batch of one initialize",
        OtherCase = "an initialize with its members in another case",
        Mark = "an initialize after a byte order mark",
        Comment = "an initialize with a comment",
        Padded = "an initialize over 64 KiB",
        Encoded = "an encoded initialize",
        OtherType = "an initialize as text/plain",
        Slow = "an initialize that takes 11 s to arrive",
        Call = "a call",
        CallBatch = "a batch of one call",
        PaddedCall = "a call over 64 KiB",
        NoJson = "no JSON",
        Empty = "nothing",
        Ambiguous = "a message with two methods",
    }
}

choices! {
    Who {
        Alice = "alice",
        Bob = "bob",
        Nobody = "nobody",
    }
}

choices! {
    /// Of which session the request says it is.
    IdSent {
        None = "no id",
        Own = "its own live id",
        Others = "another's live id",
        Unknown = "an id that nobody has",
        Closed = "a closed id",
        OwnFolded = "its own live id as Mcp_Session_Id",
        OthersFolded = "another's live id as Mcp_Session_Id",
        OthersDotted = "another's live id as mcp.session-id",
        Twice = "its own live id twice",
        Malformed = "an id with a space",
    }
}

choices! {
    Place {
        Endpoint = "/mcp",
        Slash = "/mcp/",
        Below = "/mcp/other",
        Beside = "/other",
    }
}

choices! {
    /// How long a client stays.
    Patience {
        Waits = "waits",
        LeavesAtOnce = "hangs up at once",
        LeavesSoon = "hangs up after 5 ms",
        LeavesLate = "hangs up after 40 s",
        DropsBody = "hangs up at the head of the answer",
        ReadsOne = "hangs up after the first frame of the body",
        Stays = "stays until the body ends",
    }
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) verb: Verb,
    pub(super) version: Version,
    pub(super) message: Message,
    pub(super) who: Who,
    pub(super) id: IdSent,
    pub(super) place: Place,
    pub(super) patience: Patience,
}

impl Sent {
    pub(super) fn has_body(&self) -> bool {
        matches!(self.verb, Verb::Post | Verb::Put)
    }

    /// With the headers that name sessions.
    pub(super) fn request(&self, number: usize, ids: &[(&str, String)]) -> Request<Body> {
        let mut request = Request::builder()
            .method(self.verb.method())
            .uri(self.place.to_string())
            .header("host", "mcp.example")
            .header(NUMBER, number);
        if self.who != Who::Nobody {
            request = request.header(USER, self.who.to_string());
        }
        for (name, id) in ids {
            request = request.header(*name, id);
        }
        request = match self.version {
            Version::Absent => request,
            Version::Legacy => request.header("mcp-protocol-version", "2025-11-25"),
            Version::Modern => request.header("mcp-protocol-version", "2026-07-28"),
            Version::Garbage => request.header("mcp-protocol-version", "latest"),
            Version::Folded => request.header("mcp_protocol_version", "2026-07-28"),
        };
        if !self.has_body() {
            return request.body(Body::empty()).expect("a request");
        }
        let kind =
            if self.message == Message::OtherType { "text/plain" } else { "application/json" };
        request = request.header("content-type", kind);
        if self.message == Message::Encoded {
            request = request.header("content-encoding", "gzip");
        }
        request.body(self.message.body()).expect("a request")
    }
}

impl Display for Sent {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { verb, version, message, who, id, place, patience } = self;
        write!(f, "{verb} {place} of {who} with {version} and {id}")?;
        if self.has_body() {
            write!(f, ", which is {message}")?;
        }
        write!(f, "; the client {patience}")
    }
}

impl Verb {
    fn method(self) -> Method {
        match self {
            Self::Post => Method::POST,
            Self::Get => Method::GET,
            Self::Delete => Method::DELETE,
            Self::Head => Method::HEAD,
            Self::Options => Method::OPTIONS,
            Self::Put => Method::PUT,
        }
    }
}

impl Message {
    fn body(self) -> Body {
        let text = match self {
            Self::Initialize | Self::OtherType => INITIALIZE.to_owned(),
            Self::Notification => INITIALIZE.replace(r#""id":1,"#, ""),
            Self::Batch => format!("[{INITIALIZE}]"),
            Self::OtherCase => INITIALIZE.replace("method", "Method").replace("jsonrpc", "JSONRPC"),
            Self::Mark => format!("\u{feff}{INITIALIZE}"),
            Self::Comment => format!("/* hello */ {INITIALIZE}"),
            Self::Padded => return Body::from(padded(INITIALIZE)),
            Self::Encoded => "\u{1f}\u{8}not read here".to_owned(),
            Self::Slow => {
                let late = async {
                    tokio::time::sleep(SLOW).await;
                    Ok::<_, Infallible>(Bytes::from_static(INITIALIZE.as_bytes()))
                };
                return Body::from_stream(stream::once(late));
            }
            Self::Call => CALL.to_owned(),
            Self::CallBatch => format!("[{CALL}]"),
            Self::PaddedCall => return Body::from(padded(CALL)),
            Self::NoJson => "hello".to_owned(),
            Self::Empty => String::new(),
            Self::Ambiguous => CALL.replace('}', r#","method":"initialize"}"#),
        };
        Body::from(text)
    }
}

/// Made once: most of what a run costs would be this.
fn padded(message: &'static str) -> Bytes {
    static MADE: OnceLock<[Bytes; 2]> = OnceLock::new();
    let made =
        MADE.get_or_init(|| [INITIALIZE, CALL].map(|text| Bytes::from(" ".repeat(PADDING) + text)));
    made[usize::from(message == CALL)].clone()
}

/// Whether a server that reads headers as CGI does takes this name for the other.
pub(super) fn folds_into(name: &HeaderName, other: &str) -> bool {
    let fold = |byte: u8| if byte.is_ascii_alphanumeric() { byte } else { b'-' };
    let name = name.as_str();
    name != other && name.len() == other.len() && name.bytes().map(fold).eq(other.bytes())
}
