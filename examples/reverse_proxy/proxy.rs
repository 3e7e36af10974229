//! One request, passed on to the upstream; and its answer.

use std::{sync::Arc, time::Duration};

use anyhow::{bail, ensure};
use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};

use super::{
    headers::{strip_answer, strip_request},
    redirect::{Target, of_session},
    replay::{Attempt, Replay},
    trailers::WithoutTrailers,
    upstream::Upstream,
    upstream_header::dress,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Shorter than servers commonly keep an idle connection, so that we close it and not they.
const POOL_IDLE: Duration = Duration::from_secs(4);
/// Redirects of one request that are followed.
const REDIRECTS: usize = 5;

#[derive(Clone, Debug)]
pub(crate) struct Proxy {
    upstream: Upstream,
    /// `--upstream-header`.
    ours: Arc<HeaderMap>,
    client: Client<HttpConnector, Attempt>,
}

impl Proxy {
    pub(crate) fn new(upstream: Upstream, ours: HeaderMap) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .build(connector);
        Self { upstream, ours: Arc::new(ours), client }
    }

    async fn send(&self, request: Request) -> anyhow::Result<Response> {
        let (parts, body) = request.into_parts();
        let mut headers = parts.headers;
        strip_request(&mut headers);
        dress(&mut headers, &self.ours);
        headers.insert(header::HOST, self.upstream.host.clone());

        let body = Replay::new(body);
        let mut uri = self.upstream.uri(parts.uri.query())?;
        for _ in 0..=REDIRECTS {
            let Some(attempt) = body.attempt() else { bail!("the client did not send its body") };
            // The client may have come by HTTP/2; the way on is HTTP/1.1, as for any new request.
            let mut request = Request::new(attempt);
            request.method_mut().clone_from(&parts.method);
            request.uri_mut().clone_from(&uri);
            request.headers_mut().clone_from(&headers);

            let answer = self.client.request(request).await?;
            let target = self.upstream.target(&uri, answer.headers());
            match self.upstream.next(answer.status(), answer.headers(), target.as_ref()) {
                Some(onward) if body.is_whole() => uri = onward,
                _ => {
                    body.forget();
                    return self.hand_on(answer.map(Body::new), target);
                }
            }
        }
        bail!("more than {REDIRECTS} redirects")
    }

    fn hand_on(&self, answer: Response, target: Option<Target>) -> anyhow::Result<Response> {
        ensure!(!answer.status().is_informational(), "it wants to speak another protocol");
        let (mut parts, body) = answer.into_parts();
        strip_answer(&mut parts.headers);
        match target {
            Some(Target::Upstream(url)) => {
                parts.headers.insert(header::LOCATION, self.upstream.ours(&url)?);
            }
            // Perhaps the upstream by another name. Or a stranger, whom a client that follows would
            // send its session id and its message.
            Some(Target::Elsewhere(to)) if parts.status.is_redirection() => {
                tracing::warn!(to, "the upstream redirects to another authority");
                let why = (StatusCode::BAD_GATEWAY, "the upstream redirects elsewhere");
                return Ok((of_session(&parts.headers), why).into_response());
            }
            Some(Target::Elsewhere(_)) => {
                parts.headers.remove(header::LOCATION);
            }
            None => {}
        }
        self.upstream.conceal(&mut parts.headers);
        // Not collected: the body goes to the client as it comes, and when the client leaves, or
        // the layer ends the stream, dropping it closes the connection to the upstream.
        Ok(Response::from_parts(parts, Body::new(WithoutTrailers(body))))
    }
}

pub(crate) async fn forward(State(proxy): State<Proxy>, request: Request) -> Response {
    // TRACE is answered with the request as it arrived: with what `--upstream-header` has put into it.
    // CONNECT would ask the upstream for a tunnel, without a path.
    if [Method::TRACE, Method::CONNECT].contains(request.method()) {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    proxy.send(request).await.unwrap_or_else(|error| {
        tracing::warn!(error = format!("{error:#}"), "upstream failed");
        (StatusCode::BAD_GATEWAY, "the upstream failed").into_response()
    })
}
