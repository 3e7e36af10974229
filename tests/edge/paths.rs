//! Paths that the user names: what can match is managed, and what cannot is said at once.

use std::{
    io,
    panic::catch_unwind,
    sync::{Arc, Mutex},
};

use axum::Router;
use http::Method;
use mcp_session_layer::McpSessionLayer;

use crate::{common::*, server::*, stage::*};

#[test]
fn a_path_that_no_request_can_match_is_a_panic_that_names_it() {
    for path in [
        "",
        "mcp",
        "mcp/",
        "./mcp",
        "*",
        " /mcp",
        "/mcp ",
        "/m cp",
        "/caf\u{e9}",
        "/mcp?session=1",
        "/mcp#top",
        "http://localhost/mcp",
        "/:tenant/mcp",
        "/*rest",
        "/{tenant/mcp",
        "/tenant}/mcp",
        "/{}/mcp",
        "/{*}/mcp",
        "/{*rest}/mcp",
        "/x{tenant}/mcp",
        "/{tenant}x/mcp",
    ] {
        let panic = catch_unwind(|| McpSessionLayer::new().path(path)).unwrap_err();
        let text = panic.downcast_ref::<String>().unwrap();
        assert!(text.contains(&format!("{path:?}")), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_parameter_manages_the_endpoint_of_every_tenant_and_no_other() {
    for (pattern, managed, others) in [
        ("/mcp", vec!["/mcp", "/mcp/", "/mcp/x"], vec!["/", "/mcpx", "/x/mcp", "/MCP"]),
        (
            "/{tenant}/mcp",
            vec!["/a/mcp", "/b/mcp/", "/%20/mcp/x"],
            vec!["/mcp", "//mcp", "/a/b/mcp"],
        ),
        ("/t/{tenant}/{*rest}", vec!["/t/a/x", "/t/a/x/y"], vec!["/t", "/x/a/b"]),
        ("/{*all}", vec!["/", "/mcp", "/a/b"], vec![]),
    ] {
        let own = Own::default();
        let stage = Stage::new(&own, generous(&own, 406, JSON), |layer| layer.path(pattern));
        for path in managed {
            let reply = stage.ask(at(bare(Method::GET), path)).await;
            assert_eq!(reply.id(), None, "{pattern} {path}");
        }
        pass(SECOND).await;
        assert_eq!(own.live(), 0, "{pattern}");
        for path in others {
            let reply = stage.ask(at(bare(Method::GET), path)).await;
            let id = reply.id().unwrap();
            assert!(own.end(id), "{pattern} {path}");
        }
        stage.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_of_every_tenant_lives_and_is_ended_at_its_own_path() {
    let own = Own::default();
    let (layer, watched) = watch(
        &FakeServer::default(),
        McpSessionLayer::new().idle_timeout(IDLE).path("/{tenant}/mcp"),
    );
    let app = Router::new().route_service("/{tenant}/mcp", proper(&own)).layer(layer);
    let app = watched.learn_from(app);
    for tenant in ["/a/mcp", "/b/mcp"] {
        let id = ask(&app, at(initialize(), tenant)).await.id().unwrap().to_owned();
        assert_eq!(ask(&app, at(call(&id, "ping"), tenant)).await.status, 200);
        ask(&app, at(call(&id, "ping"), "/c/mcp")).await.assert_lost();
    }
    assert_eq!(watched.sessions.len(), 2);
    pass(IDLE + TICK).await;
    assert_eq!(own.live(), 0);
    drop(app);
    watched.finish().await;
}

type Log = Arc<Mutex<Vec<u8>>>;

struct Lines(Log);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn an_unmanaged_answer_that_names_a_session_is_said_once_with_its_path_and_no_id() {
    let own = Own::default();
    // The prefix of the nest does not belong here: inside, the path is `/mcp`.
    let stage = Stage::new(&own, generous(&own, 200, JSON), |layer| layer.path("/api/mcp"));
    let log = Log::default();
    let writer = Arc::clone(&log);
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::WARN)
        .with_writer(move || Lines(Arc::clone(&writer)))
        .finish();
    let logs = tracing::subscriber::set_default(subscriber);
    for request in [initialize(), bare(Method::GET), initialize()] {
        let answer = stage.send(request).await;
        assert_eq!(answer.status(), 200);
        let id = answer.headers()["mcp-session-id"].to_str().unwrap().to_owned();
        assert!(answer.headers()["mcp-session-id"].is_sensitive());
        assert!(own.end(&id));
    }
    drop(logs);
    let text = String::from_utf8(log.lock().unwrap().clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains(" WARN ") && text.contains("path=\"/mcp\""), "{text}");
    assert!(text.contains("/api/mcp"), "what is managed: {text}");
    for id in own.opened() {
        assert!(!text.contains(&id), "{text}");
    }
    stage.finish().await;
}
