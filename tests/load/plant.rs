//! Faults put into the server on purpose, to see that the checks find them.

use std::{fs::File, sync::Mutex, time::Duration};

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{Method, StatusCode, header::AUTHORIZATION};
use serde::{Deserialize, Serialize};

use super::Dice;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Plant {
    /// Sessions end in a third of the time that the client was told.
    Hasty,
    /// Sessions end much later than the client was told.
    Undying,
    /// The server behind says that it has obeyed a DELETE, one time in twenty, and has not.
    Deaf,
    /// One POST in 100 is answered 500.
    Failing,
    /// A kilobyte stays behind for each session.
    Leaking,
    /// Sixteen kilobytes stay behind for each session.
    Hoarding,
    /// The server behind answers 500 to a DELETE, one time in twenty.
    Refusing,
    /// A file stays open for one session in twenty.
    Open,
    /// A task stays behind for one session in twenty.
    Lingering,
    /// Nobody's sessions are counted apart, and nobody is evicted.
    Uncapped,
    /// Requests of the attacker block a thread of the server for some milliseconds.
    Blocking,
}

#[derive(Default)]
struct Kept {
    bytes: Vec<Vec<u8>>,
    files: Vec<File>,
}

static KEPT: Mutex<Kept> = Mutex::new(Kept { bytes: Vec::new(), files: Vec::new() });
static DICE: Mutex<Dice> = Mutex::new(Dice(1));

fn one_in(sides: u64) -> bool {
    DICE.lock().unwrap().roll(sides) == 0
}

/// Between the layer and the server behind.
pub async fn inside(State(plant): State<Plant>, request: Request, next: Next) -> Response {
    let is_post = request.method() == Method::POST;
    let opens = is_post && !request.headers().contains_key("mcp-session-id");
    match plant {
        Plant::Deaf if request.method() == Method::DELETE && one_in(20) => {
            return StatusCode::ACCEPTED.into_response();
        }
        Plant::Refusing if request.method() == Method::DELETE && one_in(20) => {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
        Plant::Failing if is_post && one_in(100) => {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
        Plant::Leaking if opens => KEPT.lock().unwrap().bytes.push(vec![1; 1024]),
        Plant::Hoarding if opens => KEPT.lock().unwrap().bytes.push(vec![1; 16 * 1024]),
        Plant::Open if opens && one_in(20) => {
            KEPT.lock().unwrap().files.push(File::open("/dev/null").unwrap());
        }
        Plant::Lingering if opens && one_in(20) => drop(tokio::spawn(std::future::pending::<()>())),
        _ => {}
    }
    next.run(request).await
}

/// Outside of the layer.
pub async fn outside(State(plant): State<Plant>, request: Request<Body>, next: Next) -> Response {
    let of_attacker = request
        .headers()
        .get(AUTHORIZATION)
        .is_some_and(|value| value.as_bytes().ends_with(b"mallory"));
    if plant == Plant::Blocking && of_attacker {
        std::thread::sleep(Duration::from_millis(5));
    }
    next.run(request).await
}
