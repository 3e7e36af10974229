//! Runtimes that die, and services that are used from several.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::body::Body;
use futures_util::future::join_all;
use http::Request;
use mcp_session_layer::{CloseReason, McpSessionLayer, McpSessionService, Stats};
use serde_json::json;
use tokio::runtime::{Builder, Runtime};
use tower::{Layer, ServiceExt, util::MapRequest};

use crate::common::{
    net::{Dice, PATIENCE, ms, until},
    *,
};

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn multi_thread() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

type Service = MapRequest<McpSessionService<FakeServer>, fn(Request<Body>) -> Request<Body>>;

fn serve(layer: &McpSessionLayer, server: &FakeServer) -> Service {
    MapRequest::new(layer.layer(server.clone()), sent)
}

async fn send(service: &Service, request: Request<Body>) -> Answer {
    service.clone().oneshot(request).await.unwrap()
}

async fn open(service: &Service, watched: &Watched) -> String {
    let opened = read(send(service, initialize()).await).await;
    assert_eq!(opened.status, 200);
    watched.learn(opened.id().unwrap());
    opened.id().unwrap().to_owned()
}

fn permits(stats: &Stats) -> usize {
    stats.live + stats.opening + stats.closing
}

#[test]
fn a_runtime_that_dies_with_everything_in_flight_leaves_nothing_counted_on_the_next() {
    for build in [current_thread, multi_thread] {
        for round in 0..5 {
            let server = FakeServer::default();
            let layer = McpSessionLayer::new().idle_timeout(ms(300)).unused_timeout(ms(300));
            let (layer, watched) = watch(&server, layer.max_sessions(300).close_timeout(ms(200)));
            let service = serve(&layer, &server);
            let first = build();
            let (unread, closing) = first.block_on(async {
                let mut unread = Vec::new();
                let open_all = |n| join_all((0..n).map(|_| open(&service, &watched)));
                for id in open_all(20).await {
                    let slow = call_with(&id, "sleep", &json!({ "ms": 60_000 }));
                    for request in [slow, call(&id, "endless"), get(&id)] {
                        tokio::spawn(service.clone().oneshot(request));
                    }
                    // A body that outlives the runtime it came from.
                    unread.push(send(&service, get(&id)).await);
                }
                let closing = open_all(100).await;
                server.change(|manners| manners.delete_status = None);
                for id in &closing {
                    assert!(watched.sessions.close(id));
                }
                // Opened for nobody, in every stage.
                server.change(|manners| manners.open_delay = ms(60_000));
                for _ in 0..20 {
                    tokio::spawn(service.clone().oneshot(initialize()));
                }
                for _ in 0..round {
                    tokio::time::sleep(ms(2)).await;
                }
                (unread, closing)
            });
            drop(first);
            let stats = watched.sessions.stats();
            assert_eq!((stats.opening, stats.live), (0, 20), "{stats:?}");
            assert_eq!((stats.in_flight, stats.streams), (20, 20), "only what is held outside");
            assert_eq!(closing.len(), 100);

            server.change(|manners| {
                manners.delete_status = Some(202);
                manners.open_delay = Duration::ZERO;
            });
            build().block_on(async {
                drop(unread);
                let stats = watched.sessions.stats();
                assert_eq!((stats.in_flight, stats.streams), (0, 0), "{stats:?}");
                // One request, and all that was left behind is seen to.
                open(&service, &watched).await;
                until("all permits are back", PATIENCE, async || {
                    permits(&watched.sessions.stats()) == 0
                })
                .await;
                watched.finish_in_real_time().await;
            });
        }
    }
}

/// The permits of closes that nobody tells are all there are.
#[test]
fn closes_that_no_runtime_told_do_not_fill_the_cap_for_ever() {
    let server = FakeServer::default();
    let layer = McpSessionLayer::new().max_sessions(3).close_timeout(ms(500));
    let (layer, watched) = watch(&server, layer);
    let service = serve(&layer, &server);
    let first = current_thread();
    first.block_on(async {
        for _ in 0..3 {
            open(&service, &watched).await;
        }
    });
    drop(first);
    assert_eq!(watched.sessions.close_all(), 3);
    assert_eq!(watched.sessions.stats().closing, 3, "nobody is there to tell");
    current_thread().block_on(async {
        open(&service, &watched).await;
        until("told", PATIENCE, async || server.sessions().len() == 1).await;
        watched.finish_in_real_time().await;
    });
    assert_eq!(server.sessions().len(), 0);
}

/// An operator's shutdown on another runtime than that of the service, which is dead.
#[test]
fn a_shutdown_from_another_runtime_tells_what_the_dead_one_did_not() {
    let server = FakeServer::default();
    let (layer, watched) = watch(&server, McpSessionLayer::new());
    let service = serve(&layer, &server);
    let first = multi_thread();
    first.block_on(async {
        for _ in 0..200 {
            open(&service, &watched).await;
        }
    });
    drop(first);
    for one in watched.sessions.list().iter().take(100) {
        assert!(watched.sessions.find(one.session).unwrap().close());
    }
    current_thread().block_on(async {
        watched.sessions.shutdown(Duration::ZERO).await;
        assert_eq!(permits(&watched.sessions.stats()), 0);
        assert_eq!(server.sessions().len(), 0);
        watched.finish_in_real_time().await;
    });
}

/// Whoever waits for an answer on one runtime, of a call that runs on another that dies.
#[test]
fn an_initialize_whose_runtime_dies_is_refused_and_keeps_no_permit() {
    let server = FakeServer::with(|manners| manners.open_delay = ms(60_000));
    let (layer, watched) = watch(&server, McpSessionLayer::new().max_sessions(1));
    let service = serve(&layer, &server);
    let (first, second) = (multi_thread(), current_thread());
    let mut call = Box::pin(service.clone().oneshot(initialize()));
    first.block_on(async {
        assert!(futures_util::poll!(&mut call).is_pending());
        while watched.sessions.stats().opening == 0 {
            assert!(futures_util::poll!(&mut call).is_pending());
            tokio::time::sleep(ms(1)).await;
        }
    });
    drop(first);
    server.change(|manners| manners.open_delay = Duration::ZERO);
    second.block_on(async {
        assert_eq!(call.await.unwrap().status(), 503);
        assert_eq!(watched.sessions.stats().opening, 0);
        open(&service, &watched).await;
        watched.finish_in_real_time().await;
    });
}

/// One runtime that stays, and two that come and go, all with clones of one service.
#[test]
fn clones_of_a_service_on_runtimes_that_come_and_go_lose_and_leak_nothing() {
    let server = FakeServer::default();
    let layer = McpSessionLayer::new().idle_timeout(ms(60)).unused_timeout(ms(60));
    let (layer, watched) = watch(&server, layer.max_sessions(10_000));
    let service = serve(&layer, &server);
    let stop = Arc::new(AtomicBool::new(false));
    let visits = |seed: u64, build: fn() -> Runtime| {
        let (service, stop) = (service.clone(), Arc::clone(&stop));
        std::thread::spawn(move || {
            let mut dice = Dice(seed);
            let mut runtimes = 0;
            while !stop.load(Ordering::SeqCst) {
                runtimes += 1;
                build().block_on(async {
                    for _ in 0..5 {
                        let opened = send(&service, initialize()).await;
                        assert_eq!(opened.status(), 200, "{opened:?}");
                        let id = opened.headers()["mcp-session-id"].to_str().unwrap().to_owned();
                        for _ in 0..dice.roll(4) {
                            let request = match dice.roll(4) {
                                0 => get(&id),
                                1 => delete(&id),
                                2 => call_with(&id, "sleep", &json!({ "ms": 30 })),
                                _ => call(&id, "endless"),
                            };
                            tokio::spawn(service.clone().oneshot(request));
                        }
                        tokio::time::sleep(ms(dice.roll(5))).await;
                    }
                });
            }
            runtimes
        })
    };
    let visitors = [visits(1, current_thread), visits(2, multi_thread)];
    let stays = multi_thread();
    stays.block_on(async {
        for _ in 0..15 {
            // Lives as long as it is used, whatever reaper is dead.
            let id = open(&service, &watched).await;
            for _ in 0..3 {
                tokio::time::sleep(ms(20)).await;
                let answer = read(send(&service, call(&id, "ping")).await).await;
                assert!(answer.status == 200 || answer.status == 404, "{answer:?}");
            }
        }
        stop.store(true, Ordering::SeqCst);
        let came: Vec<usize> = visitors.map(|visitor| visitor.join().unwrap()).into();
        assert!(came.iter().all(|&runtimes| runtimes > 1), "{came:?}");
        // The last of them may have taken the reaper along.
        open(&service, &watched).await;
        until("reaped", PATIENCE, async || permits(&watched.sessions.stats()) == 0).await;
        let stats = watched.sessions.stats();
        assert!(stats.opened > 20 && stats.closed.get(CloseReason::Idle) > 0, "{stats:?}");
        watched.finish_in_real_time().await;
    });
}
