//! A fake server that panics where it is told to.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tower::Service;

use crate::common::FakeServer;

/// Where a request with this in its `x-panic` header goes off.
pub(crate) const PLACES: [&str; 9] = [
    "call",
    "first poll",
    "second poll",
    "is_end_stream",
    "size_hint",
    "frame 0",
    "frame 1",
    "drop of the body",
    "frame 0 and drop of the body",
];

#[derive(Clone, Default)]
pub(crate) struct Grenade(pub(crate) FakeServer);

impl Service<Request<Body>> for Grenade {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let place = request.headers().get("x-panic").map(|place| place.to_str().unwrap());
        let place = place.unwrap_or("").to_owned();
        go_off_at(&place, "call");
        let answer = self.0.call(request);
        Box::pin(async move {
            go_off_at(&place, "first poll");
            tokio::task::yield_now().await;
            let answer = answer.await?;
            go_off_at(&place, "second poll");
            if place.is_empty() {
                return Ok(answer);
            }
            Ok(answer.map(|body| Body::new(Trapped { body, place, frames: 0 })))
        })
    }
}

fn go_off_at(place: &str, here: &str) {
    if place.contains(here) {
        panic!("at {here}");
    }
}

struct Trapped {
    body: Body,
    place: String,
    frames: usize,
}

impl HttpBody for Trapped {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        go_off_at(&self.place, &format!("frame {}", self.frames));
        self.frames += 1;
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        go_off_at(&self.place, "is_end_stream");
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        go_off_at(&self.place, "size_hint");
        self.body.size_hint()
    }
}

impl Drop for Trapped {
    fn drop(&mut self) {
        // A second panic on the way out of a first one would abort.
        if !std::thread::panicking() {
            go_off_at(&self.place, "drop of the body");
        }
    }
}
