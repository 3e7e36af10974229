//! What a client may be in the middle of.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::body::Body;
use futures_util::{StreamExt, stream};
use http::{Method, Request};
use http_body_util::BodyExt;
use mcp_session_layer::McpSessionService;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::rig::Service;
use crate::common::{bare, initialize_body, json_post, with_id};

const MODERN: &str = "2026-07-28";

/// A request and its answer, read to the end, or as far as there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exchange {
    Initialize,
    /// An `initialize` too long to be recognised, so that its answer brings a session.
    Disguised,
    /// A tool that takes its time; answered by a stream.
    Call,
    /// A notification, answered 202.
    Notification,
    /// A GET stream, left after some frames.
    Listen,
    Delete,
    /// A GET without an id, which the server refuses.
    Idless,
    /// A request of the modern era.
    Modern,
    /// A call in a session that only rmcp's store knows.
    Restore,
    /// A GET stream in such a session.
    RestoreListen,
}

/// Frames of a stream that has no end.
const ENOUGH: usize = 3;

impl Exchange {
    pub(crate) const ALL: [Self; 10] = [
        Self::Initialize,
        Self::Disguised,
        Self::Call,
        Self::Notification,
        Self::Listen,
        Self::Delete,
        Self::Idless,
        Self::Modern,
        Self::Restore,
        Self::RestoreListen,
    ];

    pub(crate) fn restores(self) -> bool {
        matches!(self, Self::Restore | Self::RestoreListen)
    }

    /// Whether it takes a session that was opened before.
    pub(crate) fn is_in_a_session(self) -> bool {
        !matches!(self, Self::Initialize | Self::Disguised | Self::Idless | Self::Modern)
    }

    /// Any fewer, and it would not have been the exchange that is meant.
    pub(crate) fn least_polls(self) -> usize {
        match self {
            Self::Initialize | Self::Disguised | Self::Call | Self::Modern | Self::Restore => 5,
            Self::Notification | Self::Listen | Self::Delete | Self::RestoreListen => 3,
            Self::Idless => 1,
        }
    }

    /// How many sessions there are after it was dropped at poll `k`, if nothing else happens.
    pub(crate) fn leaves(self, k: usize, answered: bool) -> Option<usize> {
        Some(match self {
            // Abandoned, unless its client knows the id.
            Self::Initialize | Self::Disguised => usize::from(answered),
            // Its client wants the session gone, whether or not it waits to hear of it.
            Self::Delete => usize::from(k == 0),
            Self::Call | Self::Notification | Self::Listen => 1,
            Self::Idless | Self::Modern => 0,
            // Whoever hung up may come back for it, so what the server has restored is kept.
            Self::Restore | Self::RestoreListen if answered || k == 0 => usize::from(answered),
            Self::Restore | Self::RestoreListen => return None,
        })
    }

    /// From the request to the end of its answer.
    pub(crate) async fn run(
        self,
        service: McpSessionService<Service>,
        id: Option<String>,
        answered: Arc<AtomicBool>,
    ) {
        let answer = service.oneshot(self.request(id.as_deref())).await.unwrap();
        answered.store(true, Ordering::SeqCst);
        let mut body = answer.into_body();
        let mut frames = 0;
        while let Some(frame) = body.frame().await {
            frame.unwrap();
            frames += 1;
            if frames == ENOUGH && matches!(self, Self::Listen | Self::RestoreListen) {
                break;
            }
            // So that there is a poll after every frame.
            tokio::task::yield_now().await;
        }
    }

    fn request(self, id: Option<&str>) -> Request<Body> {
        let request = match self {
            Self::Initialize => json_post(initialize_body().to_string()),
            Self::Disguised => json_post(format!("{}{}", " ".repeat(65 * 1024), initialize_body())),
            Self::Call | Self::Restore => json_post(sleep_call(&json!({})).to_string()),
            Self::Notification => {
                let progress = json!({ "progressToken": 1, "progress": 1 });
                let method = "notifications/progress";
                let message = json!({ "jsonrpc": "2.0", "method": method, "params": progress });
                json_post(message.to_string())
            }
            Self::Listen | Self::RestoreListen | Self::Idless => bare(Method::GET),
            Self::Delete => bare(Method::DELETE),
            Self::Modern => modern(),
        };
        let request = request.map(in_pieces);
        let mut request = match id {
            Some(id) => with_id(request, id),
            None => request,
        };
        let accept = "application/json, text/event-stream".parse().unwrap();
        request.headers_mut().insert("accept", accept);
        request
    }
}

/// A body that comes in pieces, so that a client may hang up in the middle of it.
fn in_pieces(body: Body) -> Body {
    let pieces = body.into_data_stream().flat_map(|bytes| {
        let bytes = bytes.unwrap();
        let (half, all) = (bytes.len() / 2, bytes.len());
        stream::iter([bytes.slice(..half), bytes.slice(half..all)])
    });
    let pieces = pieces.then(|piece| async move {
        tokio::task::yield_now().await;
        Ok::<_, Infallible>(piece)
    });
    Body::from_stream(pieces)
}

fn sleep_call(meta: &Value) -> Value {
    let params = json!({ "name": "sleep", "arguments": {}, "_meta": meta });
    json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params })
}

fn modern() -> Request<Body> {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": { "name": "tester", "version": "1" },
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let mut request = json_post(sleep_call(&meta).to_string());
    for (name, value) in
        [("mcp-protocol-version", MODERN), ("mcp-method", "tools/call"), ("mcp-name", "sleep")]
    {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    request
}
