//! The future of a response.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;

use super::{body::SessionBody, stray::Stray, track::Track};

pin_project! {
    /// The response future of [`McpSessionService`](crate::McpSessionService).
    ///
    /// Dropping it lets go of the session; while one is being opened, the call to the server behind
    /// goes on in the background, and a session that comes of it is closed.
    pub struct ResponseFuture<F, B, E> {
        #[pin]
        state: State<F, B, E>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, B, E> {
        Answered { response: Option<Response<SessionBody<B>>> },
        Passing { #[pin] inner: F },
        // In a box: there is much in it, and every future would be as large.
        Watched { #[pin] inner: F, stray: Option<Box<Stray>> },
        Tracked { #[pin] inner: F, track: Option<Track> },
        Opening { inner: BoxFuture<'static, Result<Response<SessionBody<B>>, E>> },
    }
}

impl<F, B, E> ResponseFuture<F, B, E> {
    /// Our own answer.
    pub(super) fn answered(response: Response<SessionBody<B>>) -> Self {
        Self { state: State::Answered { response: Some(response) } }
    }

    /// None of our business.
    pub(super) fn passing(inner: F) -> Self {
        Self { state: State::Passing { inner } }
    }

    /// Of no session, unless the answer carries one.
    pub(super) fn watched(inner: F, stray: Stray) -> Self {
        Self { state: State::Watched { inner, stray: Some(Box::new(stray)) } }
    }

    /// Of a live session.
    pub(super) fn tracked(inner: F, track: Track) -> Self {
        Self { state: State::Tracked { inner, track: Some(track) } }
    }

    /// May open a session.
    pub(super) fn opening(
        inner: impl Future<Output = Result<Response<SessionBody<B>>, E>> + Send + 'static,
    ) -> Self {
        Self { state: State::Opening { inner: Box::pin(inner) } }
    }
}

impl<F, B, E> Future for ResponseFuture<F, B, E>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    type Output = Result<Response<SessionBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Opening { inner } => inner.as_mut().poll(cx),
            StateProj::Passing { inner } => {
                inner.poll(cx).map_ok(|response| response.map(SessionBody::plain))
            }
            StateProj::Tracked { inner, track } => {
                let response = ready!(inner.poll(cx));
                finish(response, track.take(), Track::finish)
            }
            StateProj::Watched { inner, stray } => {
                let response = ready!(inner.poll(cx));
                finish(response, stray.take(), |stray, response| stray.settle(response).response)
            }
            // Polled again after it was ready: pending for ever, as nothing is left to say.
            StateProj::Answered { response } => match response.take() {
                Some(response) => Poll::Ready(Ok(response)),
                None => Poll::Pending,
            },
        }
    }
}

/// An error of the service inside ends the request like an answer would: what `by` held is dropped.
fn finish<T, B, E>(
    response: Result<Response<B>, E>,
    by: Option<T>,
    finish: impl FnOnce(T, Response<B>) -> Response<SessionBody<B>>,
) -> Poll<Result<Response<SessionBody<B>>, E>> {
    Poll::Ready(response.map(|response| match by {
        Some(by) => finish(by, response),
        None => response.map(SessionBody::plain),
    }))
}

impl<F, B, E> fmt::Debug for ResponseFuture<F, B, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
