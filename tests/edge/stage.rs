//! The layer around a scripted server, watched.

#![allow(unreachable_pub, reason = "helpers of one test binary")]

use axum::{Router, body::Body};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response};
use http_body_util::BodyExt;
use mcp_session_layer::{McpSessionLayer, McpSessionService, Sessions};
use tower::{Layer, ServiceExt};

use crate::{
    common::*,
    server::{Inner, Own},
};

pub struct Stage {
    pub own: Own,
    pub sessions: Sessions,
    pub service: McpSessionService<Inner>,
    watched: Watched,
}

impl Stage {
    pub fn new(
        own: &Own,
        inner: Inner,
        configure: impl FnOnce(McpSessionLayer) -> McpSessionLayer,
    ) -> Self {
        let layer = configure(McpSessionLayer::new().idle_timeout(IDLE));
        let (layer, watched) = watch(&FakeServer::default(), layer);
        let (sessions, own) = (watched.sessions.clone(), own.clone());
        Self { own, sessions, service: layer.layer(inner), watched }
    }

    /// Every id in an answer is marked as a secret.
    pub async fn send(&self, request: Request<Body>) -> Answer {
        let answer = self.service.clone().oneshot(sent(request)).await.unwrap();
        for id in answer.headers().get_all("mcp-session-id") {
            assert!(id.is_sensitive(), "an id is not marked");
            self.watched.learn(id.to_str().unwrap());
        }
        answer
    }

    pub async fn ask(&self, request: Request<Body>) -> Reply {
        read(self.send(request).await).await
    }

    /// As a client that hangs up after this long.
    pub async fn hang_up(&self, after: std::time::Duration, request: Request<Body>) {
        let answer = tokio::time::timeout(after, self.send(request)).await;
        assert!(answer.is_err(), "answered before the client hung up");
    }

    /// The same, unless the layer has refused it by then.
    pub async fn give_up(&self, after: std::time::Duration, request: Request<Body>) {
        if let Ok(answer) = tokio::time::timeout(after, self.send(request)).await {
            assert!(answer.status().is_server_error() || answer.status() == 429);
        }
    }

    pub async fn open(&self) -> String {
        let reply = self.ask(initialize()).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.id().unwrap().to_owned()
    }

    pub async fn open_used(&self) -> String {
        let id = self.open().await;
        assert_eq!(self.ask(call(&id, "ping")).await.status, 200);
        id
    }

    pub fn learn(&self, id: &str) {
        self.watched.learn(id);
    }

    pub fn events(&self) -> Vec<String> {
        self.watched.events()
    }

    /// All invariants, and nothing is left at the server; its sessions were ended once each, and no others.
    pub async fn finish(self) {
        let Self { own, watched, service, sessions } = self;
        drop((service, sessions));
        watched.finish().await;
        assert_eq!((own.live(), own.busy()), (0, 0), "left at the server: {:?}", own.opened());
    }
}

/// That each session of the server was ended by exactly one DELETE.
#[track_caller]
pub fn assert_ended_once_each(own: &Own) {
    let (mut opened, mut ended) = (own.opened(), own.ended());
    opened.sort();
    ended.sort();
    assert_eq!(opened, ended);
}

pub fn at(mut request: Request<Body>, path: &str) -> Request<Body> {
    *request.uri_mut() = path.parse().unwrap();
    request
}

pub fn with<T>(mut request: Request<T>, name: &str, value: &str) -> Request<T> {
    request.headers_mut().insert(
        http::HeaderName::from_bytes(name.as_bytes()).unwrap(),
        HeaderValue::from_str(value).unwrap(),
    );
    request
}

pub fn modern(request: Request<Body>) -> Request<Body> {
    with(request, "mcp-protocol-version", "2026-07-28")
}

pub fn of(user: &str, request: Request<Body>) -> Request<Body> {
    with(request, "x-user", user)
}

/// Callers are who their `X-User` says.
pub fn by_user(layer: McpSessionLayer) -> McpSessionLayer {
    layer.principal(|parts| {
        parts.headers.get("x-user").map(|user| user.to_str().unwrap().to_owned())
    })
}

pub fn post(kind: Option<&str>, body: impl Into<Body>) -> Request<Body> {
    let mut request = bare(Method::POST);
    if let Some(kind) = kind {
        request = with(request, "content-type", kind);
    }
    *request.body_mut() = body.into();
    request
}

/// What a router answers, read to its end.
pub async fn ask(app: &Router, request: Request<Body>) -> Reply {
    let answer: Response<Body> = app.clone().oneshot(sent(request)).await.unwrap();
    let (parts, body) = answer.into_parts();
    let body: Bytes = body.collect().await.unwrap().to_bytes();
    Reply { status: parts.status, headers: parts.headers, body }
}
