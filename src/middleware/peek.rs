//! Looks at the first message of an answer to `initialize`, and hands the whole on as if nobody had.

use std::{collections::VecDeque, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response, header::CONTENT_ENCODING};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::time::timeout;

use super::heartbeat::{is_event_stream, is_type};
use crate::protocol::{FirstMessage, is_error};

/// No honest answer to `initialize` is longer.
const LIMIT: usize = 64 * 1024;

/// What was read of a body.
#[derive(Default)]
pub(super) struct Peeked {
    pub(super) frames: VecDeque<Frame<Bytes>>,
    /// There is no more, and the body must not be asked again: some streams panic then.
    pub(super) is_over: bool,
    pub(super) verdict: Verdict,
}

impl Peeked {
    /// Of a body of which nothing is to be had.
    pub(super) fn broke_off() -> Self {
        Self { is_over: true, verdict: Verdict::BrokeOff, ..Self::default() }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing speaks against a session.
    #[default]
    Fine,
    /// The first message is a JSON-RPC error.
    Error,
    /// The body broke off before there was a message.
    BrokeOff,
}

/// Reads as far as the first message, for `limit` at most.
pub(super) async fn peek<B>(response: &mut Response<B>, limit: Duration) -> Peeked
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut peeked = Peeked::default();
    let Some(mut reader) = Reader::of(response.headers()) else { return peeked };
    let body = response.body_mut();
    if body.is_end_stream() || body.size_hint().lower() > LIMIT as u64 {
        return peeked;
    }
    // Too slow is as good as fine; what was read until then is kept.
    let verdict = timeout(limit, read(body, &mut reader, &mut peeked)).await;
    peeked.verdict = verdict.unwrap_or_default();
    peeked
}

async fn read<B>(body: &mut B, reader: &mut Reader, peeked: &mut Peeked) -> Verdict
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            peeked.is_over = true;
            return Verdict::BrokeOff;
        };
        let message = frame.data_ref().and_then(|data| {
            length += data.len();
            reader.read(data)
        });
        peeked.frames.push_back(frame);
        if let Some(is_error) = message {
            return Verdict::of(is_error);
        }
        if length > LIMIT {
            return Verdict::Fine;
        }
        if body.is_end_stream() {
            break;
        }
    }
    peeked.is_over = true;
    Verdict::of(reader.end())
}

impl Verdict {
    fn of(is_error: bool) -> Self {
        if is_error { Self::Error } else { Self::Fine }
    }
}

enum Reader {
    Json(BytesMut),
    Events(FirstMessage),
}

impl Reader {
    fn of(headers: &HeaderMap) -> Option<Self> {
        if headers.contains_key(CONTENT_ENCODING) {
            return None;
        }
        if is_event_stream(headers) {
            return Some(Self::Events(FirstMessage::default()));
        }
        is_type(headers, "application/json").then(|| Self::Json(BytesMut::new()))
    }

    /// Whether the first message is an error, once that is known.
    fn read(&mut self, data: &[u8]) -> Option<bool> {
        match self {
            Self::Json(text) => {
                text.extend_from_slice(data);
                None
            }
            Self::Events(events) => events.read(data).map(|message| is_error(&message)),
        }
    }

    /// The same when there is no more to come.
    fn end(&self) -> bool {
        match self {
            Self::Json(text) => is_error(text),
            Self::Events(_) => false,
        }
    }
}
