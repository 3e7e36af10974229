//! What can be done to the core, four bytes each, so that a fuzzer can say it too.

use crate::lifecycle::clock::Millis;

/// Bytes of one operation.
pub(crate) const OPERATION: usize = 4;

/// Selectors are taken modulo what there is to select from; with nothing there, nothing is done.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation {
    /// An `initialize` arrives, and waits for a place where it may.
    Begin {
        who: u8,
    },
    /// The same without waiting.
    BeginNow {
        who: u8,
    },
    /// All of an `initialize`: it arrives, is answered, and ends.
    Open {
        who: u8,
        counts: bool,
    },
    /// A client hangs up that waits for a place.
    Leave {
        waiter: u8,
    },
    /// The id of an opening is known before it is open.
    Name {
        opening: u8,
        id: u8,
    },
    /// The server behind has answered `initialize`.
    Complete {
        opening: u8,
        id: u8,
        by_layer: bool,
        counts: bool,
    },
    /// Or it has failed to.
    Abandon {
        opening: u8,
    },
    /// Or it has opened a session that is not wanted.
    EndAtServer {
        opening: u8,
        id: u8,
    },
    /// A request arrives; not always its owner's, nor with an id that anybody has.
    Enter {
        session: u8,
        stranger: bool,
    },
    /// A response body ends.
    Exit {
        guard: u8,
    },
    /// A request is turned away by the server behind.
    Quit {
        guard: u8,
    },
    /// An answer turns out to be a stream.
    Stream {
        guard: u8,
        is_get: bool,
    },
    /// A stream ends.
    End {
        stream: u8,
    },
    /// Background work begins.
    Hold {
        session: u8,
    },
    /// Background work ends.
    Release {
        hold: u8,
    },
    /// A session is closed: by DELETE, by the server behind, by an operator.
    Close {
        session: u8,
        why: u8,
    },
    CloseOf {
        who: u8,
    },
    CloseAll,
    /// The server behind answers a DELETE of the layer.
    Answer {
        telling: u8,
        how: u8,
    },
    /// A session of the server behind that found no place.
    EndUnclaimed {
        id: u8,
        who: u8,
    },
    /// Time passes, and the reaper sleeps.
    Wait {
        span: Millis,
    },
    /// Time passes, and the reaper is on time.
    Run {
        span: Millis,
    },
    /// Time goes on to just before, at, or just after the deadline of a session.
    Approach {
        session: u8,
        offset: i8,
        reaps: bool,
    },
    Drain,
    ShutDown,
}

impl Operation {
    /// The low five bits of a letter say what: `b` begins, `c` completes, and so on.
    pub(crate) fn decode([kind, a, b, c]: [u8; OPERATION]) -> Self {
        match kind & 31 | b'@' {
            b'A' => Self::Answer { telling: a, how: b },
            b'B' | b'Z' => Self::Begin { who: a },
            b'P' | b'_' | b'T' => Self::Open { who: a, counts: b % 2 == 0 },
            b'C' | b'V' => {
                Self::Complete { opening: a, id: b, by_layer: c & 3 == 3, counts: c & 4 == 4 }
            }
            b'D' | b']' => Self::Approach { session: a, offset: b as i8 % 2, reaps: c % 2 == 0 },
            b'F' if b >= 128 => Self::EndAtServer { opening: a, id: b },
            b'F' => Self::Abandon { opening: a },
            b'G' => Self::Stream { guard: a, is_get: b % 2 == 0 },
            b'H' => Self::Hold { session: a },
            b'I' => Self::BeginNow { who: a },
            b'J' => Self::EndUnclaimed { id: a, who: b },
            b'K' => Self::Close { session: a, why: b },
            b'L' => Self::Leave { waiter: a },
            b'M' => Self::Name { opening: a, id: b },
            b'N' => Self::End { stream: a },
            b'O' => match a {
                0..8 => Self::ShutDown,
                8..16 => Self::Drain,
                16..32 => Self::CloseAll,
                32..96 => Self::CloseOf { who: b },
                _ => Self::Wait { span: 1 },
            },
            b'Q' => Self::Quit { guard: a },
            b'R' | b'^' => Self::Run { span: span(a, b) },
            b'S' => Self::Enter { session: a, stranger: true },
            b'U' => Self::Release { hold: a },
            b'W' => Self::Wait { span: span(a, b) },
            b'X' | b'Y' | b'[' | b'\\' => Self::Exit { guard: a },
            _ => Self::Enter { session: a, stranger: false },
        }
    }
}

/// A millisecond to 97 days, the short ones likelier.
fn span(exponent: u8, mantissa: u8) -> Millis {
    Millis::from(mantissa) << (exponent % 26).saturating_sub(8)
}
