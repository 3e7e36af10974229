//! Reads the head of a body, and hands the whole on as if nobody had.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::timeout;

use crate::protocol::{Message, classify};

/// No honest `initialize` is longer, and a client that sends longer ones costs no more than this.
pub(crate) const LIMIT: usize = 64 * 1024;

/// What a slow sender gets before it is passed on as it is.
const PATIENCE: Duration = Duration::from_secs(10);

/// A body that was looked at.
pub(crate) struct Sniffed {
    /// [`Message::Doubtful`] also if it was too long, too slow, or broke off.
    pub(crate) message: Message,
    /// Too long or too slow to be read to its end.
    pub(crate) is_cut_short: bool,
    /// All of it, bit for bit; what was not read yet still streams.
    pub(crate) body: Body,
}

pub(crate) async fn sniff(mut body: Body) -> Sniffed {
    let mut head = Head::default();
    let hopeless = body.size_hint().lower() > LIMIT as u64;
    let whole = !hopeless && matches!(timeout(PATIENCE, head.read(&mut body)).await, Ok(true));
    let message = if whole { classify(&head.data) } else { Message::Doubtful };
    let is_cut_short = !whole && !matches!(head.tail, Some(Err(_)));
    // What has ended must not be asked again: some streams panic then.
    let rest = if head.ended { Body::empty() } else { body };
    Sniffed { message, is_cut_short, body: Body::new(Replay { head, rest }) }
}

/// What was read. Joined, not kept frame by frame: a sender of single bytes must not cost more
/// than one of kilobytes.
#[derive(Default)]
struct Head {
    data: BytesMut,
    /// The first frame as it came, so that the usual one-frame body is not copied on its way out.
    single: Option<Bytes>,
    tail: Option<Result<Frame<Bytes>, axum::Error>>,
    /// Whether the body has said that there is no more of it.
    ended: bool,
}

impl Head {
    /// True if this was the whole body, and it was short enough.
    async fn read(&mut self, body: &mut Body) -> bool {
        while let Some(frame) = body.frame().await {
            let data = match frame.map(Frame::into_data) {
                Ok(Ok(data)) => data,
                Ok(Err(trailers)) => {
                    self.tail = Some(Ok(trailers));
                    return self.data.len() <= LIMIT;
                }
                Err(broken) => {
                    self.tail = Some(Err(broken));
                    return false;
                }
            };
            self.single = self.data.is_empty().then(|| data.clone());
            self.data.extend_from_slice(&data);
            if self.data.len() > LIMIT {
                return false;
            }
        }
        self.ended = true;
        true
    }

    fn take(&mut self) -> Option<Bytes> {
        let joined = self.data.split().freeze();
        self.single.take().or(Some(joined)).filter(|data| !data.is_empty())
    }

    fn is_spent(&self) -> bool {
        self.data.is_empty() && self.tail.is_none()
    }
}

/// The head, then the rest.
struct Replay {
    head: Head,
    rest: Body,
}

impl HttpBody for Replay {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(data) = self.head.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Some(tail) = self.head.tail.take() {
            return Poll::Ready(Some(tail));
        }
        Pin::new(&mut self.rest).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.head.is_spent() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let read = self.head.data.len() as u64;
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(read));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(read));
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::StreamBody;

    fn body(frames: Vec<Result<Frame<Bytes>, axum::Error>>) -> Body {
        Body::new(StreamBody::new(futures_util::stream::iter(frames)))
    }

    fn data(text: &str) -> Result<Frame<Bytes>, axum::Error> {
        Ok(Frame::data(Bytes::copy_from_slice(text.as_bytes())))
    }

    const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize"}"#;

    #[tokio::test]
    async fn what_was_read_is_handed_on_bit_for_bit_however_it_was_cut() {
        for cut in 0..=INITIALIZE.len() {
            let (one, two) = INITIALIZE.split_at(cut);
            let sniffed = sniff(body(vec![data(one), data(""), data(two)])).await;
            assert!(matches!(sniffed.message, Message::Initialize(_)), "cut at {cut}");
            let whole = sniffed.body.collect().await.unwrap().to_bytes();
            assert_eq!(whole, INITIALIZE.as_bytes());
        }
    }

    #[tokio::test]
    async fn trailers_come_after_the_data() {
        let trailers =
            http::HeaderMap::from_iter([(http::header::ETAG, http::HeaderValue::from_static("x"))]);
        let frames = vec![data(INITIALIZE), Ok(Frame::trailers(trailers.clone()))];
        let sniffed = sniff(body(frames)).await;
        assert!(matches!(sniffed.message, Message::Initialize(_)));
        let collected = sniffed.body.collect().await.unwrap();
        assert_eq!(collected.trailers(), Some(&trailers));
    }

    #[tokio::test]
    async fn what_is_too_long_is_not_recognised_and_loses_nothing() {
        let padding = " ".repeat(LIMIT);
        for frames in [
            vec![data(INITIALIZE), data(&padding), data("end")],
            vec![data(&format!("{INITIALIZE}{padding}")), data("end")],
        ] {
            let sniffed = sniff(body(frames)).await;
            assert_eq!(sniffed.message, Message::Doubtful);
            let whole = sniffed.body.collect().await.unwrap().to_bytes();
            assert_eq!(whole, format!("{INITIALIZE}{padding}end").as_bytes());
        }
        let sized = sniff(Body::from(format!("{INITIALIZE}{padding}"))).await;
        assert_eq!(sized.message, Message::Doubtful);
        assert_eq!(sized.body.size_hint().exact(), Some((INITIALIZE.len() + LIMIT) as u64));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_too_slow_is_not_recognised_and_still_streams() {
        let (mut sender, receiver) = tokio::sync::mpsc::channel::<&'static str>(1);
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let slow = Body::from_stream(futures_util::StreamExt::map(stream, Ok::<_, axum::Error>));
        sender.send("{").await.unwrap();
        let sniffed = sniff(slow).await;
        assert_eq!(sniffed.message, Message::Doubtful);
        let rest = tokio::spawn(sniffed.body.collect());
        for _ in 0..3 {
            sender.send("}").await.unwrap();
        }
        drop(std::mem::replace(&mut sender, tokio::sync::mpsc::channel(1).0));
        assert_eq!(rest.await.unwrap().unwrap().to_bytes(), "{}}}");
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_breaks_off_for_the_server_too() {
        let broken = Err(axum::Error::new(std::io::Error::other("hang up")));
        let sniffed = sniff(body(vec![data(INITIALIZE), broken])).await;
        assert_eq!(sniffed.message, Message::Doubtful);
        assert!(sniffed.body.collect().await.is_err());
    }
}
