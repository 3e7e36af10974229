//! The servers: by hand and with rmcp, bare, behind a layer that does nothing, behind one that only takes time, behind
//! one that only finds the session, and behind ours.

use std::{
    io::{BufRead as _, Write as _, stdin, stdout},
    process::exit,
    sync::Arc,
    task::{Context, Poll},
    thread,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Bytes,
    extract::Request,
    response::{IntoResponse, Response},
    routing::post,
    serve::ListenerExt as _,
};
use http::header::CONTENT_TYPE;
use mcp_session_layer::McpSessionLayer;
use rmcp::{
    ServerHandler,
    transport::streamable_http_server::{
        StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
    },
};
use tokio::{net::TcpListener, runtime::Builder};
use tower::{Service, layer::layer_fn};

use crate::{least::Least, processor};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    Nothing,
    NoOp,
    Delay,
    Least,
    Layer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    rmcp: bool,
    pub behind: Behind,
    pub again: bool,
}

pub const FAMILIES: [&[Subject]; 2] = [
    &[
        Subject::new(false, Behind::Nothing),
        Subject::new(false, Behind::NoOp),
        Subject::new(false, Behind::Delay),
        Subject::new(false, Behind::Least),
        Subject::new(false, Behind::Layer),
    ],
    &[
        Subject::new(true, Behind::Nothing),
        Subject::new(true, Behind::NoOp),
        Subject::new(true, Behind::Delay),
        Subject::new(true, Behind::Least),
        Subject::new(true, Behind::Layer),
    ],
];

impl Subject {
    const fn new(rmcp: bool, behind: Behind) -> Self {
        Self { rmcp, behind, again: false }
    }

    /// The same once more, to see how far two of the same are apart.
    pub fn again(self) -> Self {
        Self { again: true, ..self }
    }

    /// As it is named on the command line.
    pub fn of(name: &str) -> Self {
        let mut all = FAMILIES.into_iter().flatten();
        *all.find(|subject| subject.name() == name).unwrap()
    }

    pub fn name(self) -> String {
        format!("{}, {:?}", self.server(), self.behind)
    }

    pub fn server(self) -> &'static str {
        if self.rmcp { "rmcp" } else { "axum" }
    }

    fn app(self) -> Router {
        let app = Router::new();
        let app = if self.rmcp {
            app.route_service("/mcp", rmcp())
        } else {
            app.route("/mcp", post(answer))
        };
        match self.behind {
            Behind::Nothing => app,
            Behind::NoOp => app.layer(layer_fn(|inner| NoOp { inner, takes: Duration::ZERO })),
            Behind::Delay => app.layer(layer_fn(|inner| NoOp { inner, takes: DELAY })),
            Behind::Least => app.layer(Least::new(crate::SESSIONS)),
            Behind::Layer => app.layer(McpSessionLayer::new()),
        }
    }
}

/// Knows of no sessions. Without a layer, any id is as good as none.
async fn answer(_: Bytes) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], r#"{"jsonrpc":"2.0","id":1,"result":{}}"#)
}

#[derive(Clone)]
struct Server;

impl ServerHandler for Server {}

fn rmcp() -> StreamableHttpService<Server, LocalSessionManager> {
    let mut manager = LocalSessionManager::default();
    // With the layer, when a session is idle is not rmcp's to say. Without it, none ends here.
    manager.session_config.keep_alive = None;
    let config = StreamableHttpServerConfig::default();
    StreamableHttpService::new(|| Ok(Server), Arc::new(manager), config)
}

/// What a very good layer might take, and no memory: how much of it is seen over TCP.
pub const DELAY: Duration = Duration::from_nanos(200);

/// What every layer costs: to be there, and as long as it takes.
#[derive(Clone)]
struct NoOp<S> {
    inner: S,
    takes: Duration,
}

impl<S> Service<Request> for NoOp<S>
where
    S: Service<Request, Response = Response>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> S::Future {
        if !self.takes.is_zero() {
            let begin = Instant::now();
            while begin.elapsed() < self.takes {}
        }
        self.inner.call(request)
    }
}

/// Serves until the input ends. Writes the address, and after every line that it reads the time it
/// has had of the processor, in nanoseconds.
pub fn run(subject: Subject) {
    processor::keep_to(|cores| 0..cores - 1);
    let threads = thread::available_parallelism().unwrap().get();
    let mut runtime = Builder::new_multi_thread();
    let runtime = runtime.worker_threads(threads).enable_all().build().unwrap();
    thread::spawn(move || {
        for _line in stdin().lock().lines() {
            say(processor::time().as_nanos());
        }
        exit(0);
    });
    let serving = runtime.spawn(async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        say(listener.local_addr().unwrap());
        let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap());
        axum::serve(listener, subject.app()).await.unwrap();
    });
    runtime.block_on(serving).unwrap();
}

fn say(what: impl std::fmt::Display) {
    let mut output = stdout().lock();
    writeln!(output, "{what}").unwrap();
    output.flush().unwrap();
}
