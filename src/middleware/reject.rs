//! Answers of our own.

use bytes::Bytes;
use http::{
    Response,
    header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER},
};

use super::{body::SessionBody, shared::Shared};
use crate::{
    lifecycle::{SessionEvent, shielded},
    protocol::Rejection,
};

/// Seconds: longer than a close takes, short enough that a person waits it out.
const RETRY_AFTER_SECS: HeaderValue = HeaderValue::from_static("5");

impl Shared {
    /// Counts, logs and builds the answer to a refused request.
    pub(super) fn reject<B>(&self, why: Rejection) -> Response<SessionBody<B>> {
        self.registry.events().emit(SessionEvent::Rejected { why });
        let answer = match &self.options.reject {
            None => standard(why),
            Some(hook) => shielded("reject_with", || hook(why, standard(why)))
                .unwrap_or_else(|| standard(why)),
        };
        answer.map(SessionBody::fixed)
    }
}

fn standard(why: Rejection) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from_static(why.body().as_bytes()));
    *response.status_mut() = why.status();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if why.is_retryable() {
        headers.insert(RETRY_AFTER, RETRY_AFTER_SECS);
    }
    response
}
