//! The future of a response.

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Response, Uri};
use http_body::Body;
use pin_project_lite::pin_project;

use super::{
    body::SessionBody, gate::pass_unmanaged, shared::Shared, track::Track, unclaimed::Unclaimed,
};

pin_project! {
    /// The response future of [`McpSessionService`](crate::McpSessionService).
    ///
    /// Dropping it lets go of the session; while one is being opened, the call to the server behind
    /// goes on in the background, and a session that comes of it is closed.
    pub struct ResponseFuture<F, B, E> {
        // The call to the server behind, unless there is none or a task makes it. Beside the other, not in it: what
        // the call returns is large, and stays where it is put.
        #[pin]
        call: Option<F>,
        way: Way<B, E>,
    }

    impl<F, B, E> PinnedDrop for ResponseFuture<F, B, E> {
        fn drop(this: Pin<&mut Self>) {
            if let Way::Track(track) = this.project().way {
                track.hung_up();
            }
        }
    }
}

/// What becomes of a request. What is rare is in a box: every future is as large as the largest.
enum Way<B, E> {
    /// Its path is not managed.
    Pass(Box<Unmanaged>),
    /// It has no id, and its answer may name a session.
    Watch(Box<Unclaimed>),
    /// It is of a live session.
    Track(Track),
    /// It may open a session.
    Open(BoxFuture<'static, Result<Response<SessionBody<B>>, E>>),
    /// The answer is ours.
    Answered(Box<Response<SessionBody<B>>>),
    Over,
}

impl<F, B, E> ResponseFuture<F, B, E> {
    /// Our own answer.
    pub(super) fn answered(response: Response<SessionBody<B>>) -> Self {
        Self { call: None, way: Way::Answered(Box::new(response)) }
    }

    /// Of a path that is not managed.
    pub(super) fn passing(call: F, shared: &Arc<Shared>, uri: &Uri) -> Self {
        let unmanaged = Unmanaged { shared: Arc::clone(shared), uri: uri.clone() };
        Self { call: Some(call), way: Way::Pass(Box::new(unmanaged)) }
    }

    /// Of no session, unless the answer names one.
    pub(super) fn watched(call: F, unclaimed: Unclaimed) -> Self {
        Self { call: Some(call), way: Way::Watch(Box::new(unclaimed)) }
    }

    /// Of a live session.
    #[inline]
    pub(super) fn tracked(call: F, track: Track) -> Self {
        Self { call: Some(call), way: Way::Track(track) }
    }

    /// May open a session.
    pub(super) fn opening(
        inner: impl Future<Output = Result<Response<SessionBody<B>>, E>> + Send + 'static,
    ) -> Self {
        Self { call: None, way: Way::Open(Box::pin(inner)) }
    }
}

impl<F, B, E> Future for ResponseFuture<F, B, E>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    type Output = Result<Response<SessionBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(call) = this.call.as_pin_mut() else {
            return this.way.poll(cx);
        };
        // An error of the service inside ends the request like an answer would: what the way held is dropped.
        let response = ready!(call.poll(cx));
        let way = mem::replace(this.way, Way::Over);
        Poll::Ready(response.map(|response| match way {
            Way::Track(track) => track.finish(response),
            Way::Watch(unclaimed) => unclaimed.settle(response).response,
            way => way.pass(response),
        }))
    }
}

/// A request of a path that is not managed.
struct Unmanaged {
    shared: Arc<Shared>,
    uri: Uri,
}

impl<B, E> Way<B, E> {
    #[inline(never)]
    fn pass(self, mut response: Response<B>) -> Response<SessionBody<B>> {
        if let Self::Pass(unmanaged) = self {
            pass_unmanaged(&unmanaged.shared, unmanaged.uri.path(), &mut response);
        }
        response.map(SessionBody::plain)
    }

    /// Where no call is ours to poll.
    #[inline(never)]
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<SessionBody<B>>, E>> {
        if let Self::Open(opening) = self {
            return opening.as_mut().poll(cx);
        }
        match mem::replace(self, Self::Over) {
            Self::Answered(response) => Poll::Ready(Ok(*response)),
            // Polled again after it was ready: pending for ever, as nothing is left to say.
            _ => Poll::Pending,
        }
    }
}

impl<F, B, E> fmt::Debug for ResponseFuture<F, B, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
