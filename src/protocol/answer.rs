//! The first message of an answer, as JSON or as an event stream.

use serde::Deserialize;
use serde_json::value::RawValue;

/// Whether this is a JSON-RPC error response.
pub(crate) fn is_error(message: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Response<'a> {
        #[serde(borrow)]
        error: Option<&'a RawValue>,
        #[serde(borrow)]
        result: Option<&'a RawValue>,
        #[serde(borrow)]
        method: Option<&'a RawValue>,
    }
    let is_object = message.trim_ascii_start().starts_with(b"{");
    let response = serde_json::from_slice::<Response<'_>>(message).ok().filter(|_| is_object);
    response.is_some_and(|response| {
        response.error.is_some() && response.result.is_none() && response.method.is_none()
    })
}

/// Reads an event stream up to its first event with data (WHATWG HTML, section 9.2.6).
#[derive(Debug, Default)]
pub(crate) struct FirstMessage {
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    after_cr: bool,
    has_started: bool,
}

impl FirstMessage {
    /// The data of the first event that has some, once it is complete.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        bytes.iter().find_map(|&byte| self.step(byte))
    }

    fn step(&mut self, byte: u8) -> Option<Vec<u8>> {
        let ends_crlf = byte == b'\n' && self.after_cr;
        self.after_cr = byte == b'\r';
        if ends_crlf {
            return None;
        }
        if !matches!(byte, b'\n' | b'\r') {
            self.line.push(byte);
            return None;
        }
        let line = std::mem::take(&mut self.line);
        let is_first = !std::mem::replace(&mut self.has_started, true);
        let line = line.strip_prefix(b"\xef\xbb\xbf").filter(|_| is_first).unwrap_or(&line);
        self.end_line(line)
    }

    fn end_line(&mut self, line: &[u8]) -> Option<Vec<u8>> {
        if line.is_empty() {
            let data = std::mem::take(&mut self.data);
            self.has_data = false;
            return Some(data).filter(|data| !data.is_empty());
        }
        let (field, value) = match line.iter().position(|byte| *byte == b':') {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &line[line.len()..]),
        };
        if field == b"data" {
            if std::mem::replace(&mut self.has_data, true) {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_from_a_result_and_from_everything_else() {
        for error in [
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"Unsupported"}}"#,
            r#" {"error":{}} "#,
        ] {
            assert!(is_error(error.as_bytes()), "{error}");
        }
        for other in [
            "",
            "[]",
            "null",
            r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1}}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/message","params":{},"error":1}"#,
            r#"[{"error":{}}]"#,
            r#"{"error":null}"#,
            r#"{"error":{"#,
        ] {
            assert!(!is_error(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn the_first_event_with_data_is_found_however_the_stream_is_cut() {
        let streams = [
            ("data: a\n\ndata: b\n\n", "a"),
            ("\u{feff}data:a\r\n\r\n", "a"),
            (": comment\nid: 1\ndata:\n\nevent: message\rdata: a\rdata: b\r\r", "a\nb"),
            ("retry: 5\n\ndata\n\ndata: a\n\n", "a"),
        ];
        for (stream, first) in streams {
            for cut in 0..=stream.len() {
                let mut reader = FirstMessage::default();
                let (one, two) = stream.as_bytes().split_at(cut);
                let found = reader.read(one).or_else(|| reader.read(two));
                assert_eq!(found.as_deref(), Some(first.as_bytes()), "{stream:?} cut at {cut}");
            }
        }
        let mut reader = FirstMessage::default();
        assert_eq!(reader.read(b"data: not yet\n"), None);
        assert_eq!(reader.read(b"\n").as_deref(), Some(&b"not yet"[..]));
    }
}
