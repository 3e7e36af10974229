//! What of a stream goes by the clock: its age, and comments while it is silent, so that a dead peer is noticed and
//! a proxy does not give up.
//!
//! WHATWG HTML, section 9.2: a line that starts with a colon is ignored. It may stand between
//! events only: inside one, the blank line after it would dispatch half an event.

use bytes::Bytes;
use http::{
    HeaderMap,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};

use crate::lifecycle::{Clock, Millis};

/// A comment and the blank line after it.
pub(super) const COMMENT: Bytes = Bytes::from_static(b":\n\n");

/// Most streams have none.
#[derive(Debug)]
pub(super) struct Timing {
    pub(super) clock: Clock,
    /// When the stream is cut for its age.
    pub(super) ends_at: Option<Millis>,
    pub(super) heartbeat: Option<Heartbeat>,
}

impl Timing {
    pub(super) fn is_over(&self, now: Millis) -> bool {
        self.ends_at.is_some_and(|end| now >= end)
    }

    /// When somebody should look at the stream; `None` if never.
    pub(super) fn next_look(&self) -> Option<Millis> {
        let beat = self.heartbeat.as_ref().map(Heartbeat::next);
        [beat, self.ends_at].into_iter().flatten().min()
    }
}

/// The heart of one stream. It has no timer: the reaper looks at it when it may have to beat.
#[derive(Debug)]
pub(super) struct Heartbeat {
    every: Millis,
    /// When the stream last said something.
    heard: Millis,
    /// A comment is to be written when the body is asked next and has nothing to say.
    due: bool,
    boundary: Boundary,
}

impl Heartbeat {
    /// `None` where a comment would not be one: other types, and encoded bytes.
    pub(super) fn of(headers: &HeaderMap, every: Millis, now: Millis) -> Option<Self> {
        let fits = is_event_stream(headers) && !headers.contains_key(CONTENT_ENCODING);
        fits.then(|| Self { every, heard: now, due: false, boundary: Boundary::default() })
    }

    pub(super) fn hear(&mut self, data: &[u8], now: Millis) {
        self.heard = now;
        self.due = false;
        self.boundary.read(data);
    }

    /// True if somebody must ask the body, for there is a comment to write.
    pub(super) fn look_at(&mut self, now: Millis) -> bool {
        self.due |= now >= self.next() && self.boundary.is_between_events();
        if now >= self.next() {
            self.heard = now;
        }
        self.due
    }

    /// When it may be due next.
    pub(super) fn next(&self) -> Millis {
        self.heard.saturating_add(self.every)
    }

    pub(super) fn take_beat(&mut self) -> Option<Bytes> {
        std::mem::take(&mut self.due).then_some(COMMENT)
    }
}

pub(super) fn is_event_stream(headers: &HeaderMap) -> bool {
    is_type(headers, "text/event-stream")
}

/// Whether `Content-Type` is this one, whatever its parameters.
pub(super) fn is_type(headers: &HeaderMap, wanted: &str) -> bool {
    let Some(Ok(value)) = headers.get(CONTENT_TYPE).map(http::HeaderValue::to_str) else {
        return false;
    };
    let essence = value.split_once(';').map_or(value, |(essence, _)| essence);
    essence.trim().eq_ignore_ascii_case(wanted)
}

/// Where in the event stream the bytes so far have led. Lines end with LF, CR or CRLF.
#[derive(Clone, Copy, Debug, Default)]
struct Boundary {
    line: Line,
    after_cr: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Line {
    /// After a blank line, or before the first byte.
    #[default]
    BetweenEvents,
    /// At the start of a line inside an event.
    Start,
    Inside,
}

impl Boundary {
    fn is_between_events(self) -> bool {
        self.line == Line::BetweenEvents
    }

    /// Only the last bytes can matter: two line ends are four bytes at most.
    fn read(&mut self, data: &[u8]) {
        let tail = match data.len().checked_sub(4) {
            Some(0) | None => data,
            Some(start) => {
                *self = Self { line: Line::Inside, after_cr: data[start - 1] == b'\r' };
                &data[start..]
            }
        };
        tail.iter().for_each(|&byte| self.step(byte));
    }

    fn step(&mut self, byte: u8) {
        let ends_crlf = byte == b'\n' && self.after_cr;
        self.after_cr = byte == b'\r';
        if ends_crlf {
            return;
        }
        self.line = match (byte, self.line) {
            (b'\n' | b'\r', Line::Inside) => Line::Start,
            (b'\n' | b'\r', _) => Line::BetweenEvents,
            _ => Line::Inside,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The plain reading of the standard: split at line ends, then look for the blank line.
    fn between_events(stream: &str) -> bool {
        let lines = stream.replace("\r\n", "\n").replace('\r', "\n");
        lines.is_empty() || lines == "\n" || lines.ends_with("\n\n")
    }

    #[test]
    fn the_boundary_is_found_however_the_stream_is_cut_into_frames() {
        let alphabet = ["d", "\n", "\r", "\r\n", "data: x"];
        for n in 0..alphabet.len().pow(5) {
            let pieces: Vec<&str> = (0..5).map(|i| alphabet[n / 5usize.pow(i) % 5]).collect();
            let stream = pieces.concat();
            for cut in 0..=stream.len() {
                let mut boundary = Boundary::default();
                boundary.read(&stream.as_bytes()[..cut]);
                boundary.read(&stream.as_bytes()[cut..]);
                let found = boundary.is_between_events();
                assert!(!found || between_events(&stream), "{stream:?} cut at {cut}");
                // A frame that begins with the LF of a CRLF may hide a boundary, never invent one.
                let plain = !stream.contains('\r');
                assert!(!plain || found == between_events(&stream), "{stream:?} cut at {cut}");
            }
        }
    }
}
