//! Is this body an `initialize`? Read only as far as that question goes.
//!
//! The parser must not disagree with the inner service about a message, or a client could open sessions past the
//! permits. So member names are compared after unescaping, a repeated `jsonrpc` or `method` is refused rather than
//! resolved, a name in another case is doubtful, and `params` of any shape still counts. Nesting costs no stack: what
//! is not needed is skipped by an iterative scanner.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Serialize,
    de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// Enough for any honest name; a hostile one must not cost 64 KiB a session.
const MAX_TEXT: usize = 128;

/// What a body turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// A JSON-RPC `initialize`, with what the client says of itself.
    Initialize(Box<ClientInfo>),
    /// An `initialize` without an `id` member, by itself or in a batch. It asks for no answer.
    InitializeNotification,
    /// One other JSON-RPC message, read without doubt.
    Other,
    /// An array with a JSON-RPC message in it. `may_open` if one of them is an `initialize`, or may be taken for it.
    Batch { may_open: bool },
    /// `jsonrpc` or `method` stands twice.
    Ambiguous,
    /// Nothing that we can read, but another parser may find a message in it: no JSON, a member name in another case,
    /// another version of JSON-RPC.
    Doubtful,
    /// JSON of some other protocol.
    Foreign,
}

impl Message {
    /// Whether a server may open a session for it.
    pub(crate) fn may_open(&self) -> bool {
        match self {
            Self::Batch { may_open } => *may_open,
            Self::Other | Self::Foreign => false,
            Self::Initialize(_)
            | Self::InitializeNotification
            | Self::Ambiguous
            | Self::Doubtful => true,
        }
    }
}

/// What a client said of itself in `initialize`. Unverified: never decide on it.
///
/// Every text is cut at 128 bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
pub struct ClientInfo {
    /// `params.clientInfo.name`.
    pub name: Option<Box<str>>,
    /// `params.clientInfo.version`.
    pub version: Option<Box<str>>,
    /// `params.protocolVersion`: what the client asked for, not what was agreed.
    pub protocol_version: Option<Box<str>>,
}

/// Classifies a whole body.
pub(crate) fn classify(body: &[u8]) -> Message {
    match serde_json::from_slice::<Envelope<'_>>(body) {
        Ok(Envelope::Object(object)) => object.into_message(),
        Ok(Envelope::Batch { notifies: true, .. }) => Message::InitializeNotification,
        Ok(Envelope::Batch { json_rpc: true, may_open, .. }) => Message::Batch { may_open },
        Ok(Envelope::Batch { json_rpc: false, .. } | Envelope::Scalar) => Message::Foreign,
        Err(_) => Message::Doubtful,
    }
}

enum Envelope<'a> {
    Object(Object<'a>),
    Batch { json_rpc: bool, may_open: bool, notifies: bool },
    Scalar,
}

#[derive(Default)]
struct Object<'a> {
    json_rpc: bool,
    seen_json_rpc: bool,
    method: Option<&'a RawValue>,
    params: Option<&'a RawValue>,
    has_id: bool,
    ambiguous: bool,
    doubtful: bool,
}

impl Object<'_> {
    fn into_message(self) -> Message {
        if !self.seen_json_rpc && self.method.is_none() && !self.doubtful {
            return Message::Foreign;
        }
        if self.seen_json_rpc && self.ambiguous {
            return Message::Ambiguous;
        }
        if !self.json_rpc || self.doubtful {
            return Message::Doubtful;
        }
        let method = self.method.and_then(text);
        if method.as_deref() != Some("initialize") {
            return Message::Other;
        }
        if !self.has_id {
            return Message::InitializeNotification;
        }
        Message::Initialize(Box::new(self.params.map(client_info).unwrap_or_default()))
    }
}

/// Whether a parser that ignores case, as Go's `encoding/json` does, takes this name for one of ours.
fn folds_into_ours(name: &str) -> bool {
    // Beyond ASCII, two letters fold into ours: the long s and the Kelvin sign.
    let folded = |c: char| match c {
        'ſ' => 's',
        'K' => 'k',
        c => c.to_ascii_lowercase(),
    };
    ["jsonrpc", "method", "params", "id"]
        .into_iter()
        .any(|ours| name.chars().map(folded).eq(ours.chars()))
}

fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text<'_>>(raw.get()).ok().map(|text| text.0)
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Envelope<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EnvelopeVisitor)
    }
}

struct EnvelopeVisitor;

impl<'de> Visitor<'de> for EnvelopeVisitor {
    type Value = Envelope<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut object = Object::default();
        while let Some(Text(key)) = map.next_key()? {
            match key.as_ref() {
                "jsonrpc" => {
                    object.ambiguous |= std::mem::replace(&mut object.seen_json_rpc, true);
                    let version: &RawValue = map.next_value()?;
                    object.json_rpc = text(version).as_deref() == Some("2.0");
                }
                "method" => {
                    let method = map.next_value()?;
                    object.ambiguous |= object.method.replace(method).is_some();
                }
                "params" => object.params = Some(map.next_value()?),
                "id" => {
                    object.has_id = true;
                    map.next_value::<IgnoredAny>()?;
                }
                other => {
                    object.doubtful |= folds_into_ours(other);
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Envelope::Object(object))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let (mut json_rpc, mut may_open, mut notifies) = (false, false, false);
        while let Some(item) = items.next_element::<&RawValue>()? {
            // Only objects are messages; an array in a batch is not walked into.
            if item.get().starts_with('{') {
                let message = classify(item.get().as_bytes());
                json_rpc |= message != Message::Foreign;
                may_open |= message.may_open();
                notifies |= message == Message::InitializeNotification;
            }
        }
        Ok(Envelope::Batch { json_rpc, may_open, notifies })
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Envelope::Scalar)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Envelope::Scalar)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Envelope::Scalar)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Envelope::Scalar)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Envelope::Scalar)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Envelope::Scalar)
    }
}

/// Takes what fits and leaves out what does not: odd params are the server's to refuse.
fn client_info(params: &RawValue) -> ClientInfo {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Params<'a> {
        #[serde(borrow, rename = "clientInfo")]
        client_info: Option<&'a RawValue>,
        #[serde(borrow, rename = "protocolVersion")]
        protocol_version: Option<&'a RawValue>,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Implementation<'a> {
        #[serde(borrow)]
        name: Option<&'a RawValue>,
        #[serde(borrow)]
        version: Option<&'a RawValue>,
    }
    let params: Params<'_> = members(params);
    let about: Implementation<'_> = params.client_info.map(members).unwrap_or_default();
    ClientInfo {
        name: about.name.and_then(short_text),
        version: about.version.and_then(short_text),
        protocol_version: params.protocol_version.and_then(short_text),
    }
}

/// The members of an object. Serde would take the items of an array for them, in order.
fn members<'a, T: Deserialize<'a> + Default>(raw: &'a RawValue) -> T {
    let object = Some(raw.get()).filter(|raw| raw.starts_with('{'));
    object.and_then(|object| serde_json::from_str(object).ok()).unwrap_or_default()
}

fn short_text(raw: &RawValue) -> Option<Box<str>> {
    let text = text(raw)?;
    // `str::floor_char_boundary` is younger than our MSRV.
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Some(text[..end].into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_initialize(body: &str) -> bool {
        matches!(classify(body.as_bytes()), Message::Initialize(_))
    }

    #[test]
    fn an_initialize_is_recognised_whatever_its_order_spelling_and_params() {
        for body in [
            r#"{"jsonrpc":"2.0","id":1,"method":"initialize"}"#,
            r#"{"method":"initialize","jsonrpc":"2.0","id":"a"}"#,
            r#" { "params":[1,2], "method":"init\u0069alize", "id":null, "jsonrpc":"2.0" } "#,
            r#"{"m\u0065thod":"initialize","jsonrpc":"2.0","\u0069d":0,"params":{"clientInfo":7}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"a":1,"a":2,"clientInfo":{"name":1,"name":2}}}"#,
        ] {
            assert!(is_initialize(body), "{body}");
        }
    }

    #[test]
    fn what_the_client_says_of_itself_is_read_and_cut() {
        let long = "é".repeat(100);
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{{"protocolVersion":"2025-11-25",
                "clientInfo":{{"name":"{long}","version":"1\u002e2"}},"capabilities":{{}}}}}}"#
        );
        let Message::Initialize(info) = classify(body.as_bytes()) else { panic!("not recognised") };
        assert_eq!(info.name.as_deref(), Some("é".repeat(64).as_str()));
        assert_eq!(info.version.as_deref(), Some("1.2"));
        assert_eq!(info.protocol_version.as_deref(), Some("2025-11-25"));
    }

    #[test]
    fn what_stands_in_an_array_says_nothing_of_the_client() {
        for params in [r#"[{"name":"a"},"2025-11-25"]"#, r#"{"clientInfo":["a","1"]}"#] {
            let body =
                format!(r#"{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{params}}}"#);
            assert_eq!(classify(body.as_bytes()), Message::Initialize(Box::default()), "{params}");
        }
    }

    #[test]
    fn a_batch_is_told_from_one_message() {
        for (body, may_open) in [
            (r#"[{"jsonrpc":"2.0","id":1,"method":"initialize"}]"#, true),
            (r#"[{"jsonrpc":"2.0","id":1,"method":"ping"},{"Method":"initialize"}]"#, true),
            (r#"[1,{"jsonrpc":"2.0"}]"#, false),
            (r#"[{"jsonrpc":"2.0","id":1,"method":"ping"},{"user":1}]"#, false),
        ] {
            assert_eq!(classify(body.as_bytes()), Message::Batch { may_open }, "{body}");
        }
    }

    #[test]
    fn an_initialize_without_an_id_expects_no_answer() {
        for body in [
            r#"{"jsonrpc":"2.0","method":"initialize"}"#,
            r#"{"jsonrpc":"2.0","method":"initialize","params":{"id":1}}"#,
            r#"[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","method":"initialize"}]"#,
        ] {
            assert_eq!(classify(body.as_bytes()), Message::InitializeNotification, "{body}");
        }
    }

    #[test]
    fn a_member_name_in_another_case_is_doubtful() {
        for body in [
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","Method":"initialize"}"#,
            r#"{"JSONRPC":"2.0","METHOD":"initialize"}"#,
            r#"{"jſonrpc":"2.0","id":1,"method":"initialize"}"#,
            r#"{"jsonrpc":"2.0","ID":1,"method":"initialize"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"initialize","Params":{}}"#,
            r#"{"Method":"initialize"}"#,
        ] {
            assert_eq!(classify(body.as_bytes()), Message::Doubtful, "{body}");
        }
    }

    #[test]
    fn other_messages_are_json_rpc_but_no_initialize() {
        for body in [
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
            r#"{"jsonrpc":"2.0","method":["initialize"]}"#,
            r#"{"jsonrpc":"2.0","method":"Initialize"}"#,
        ] {
            assert_eq!(classify(body.as_bytes()), Message::Other, "{body}");
        }
    }

    #[test]
    fn a_repeated_jsonrpc_or_method_is_ambiguous() {
        for body in [
            r#"{"jsonrpc":"2.0","method":"ping","method":"initialize"}"#,
            r#"{"jsonrpc":"2.0","method":"initialize","m\u0065thod":"ping"}"#,
            r#"{"jsonrpc":"2.0","jsonrpc":"1.0","method":"initialize"}"#,
            r#"{"jsonrpc":"1.0","jsonrpc":"2.0","method":"initialize"}"#,
        ] {
            assert_eq!(classify(body.as_bytes()), Message::Ambiguous, "{body}");
        }
    }

    #[test]
    fn json_without_json_rpc_in_it_is_foreign() {
        for body in [
            "null",
            "true",
            "1",
            "-1",
            "1.5",
            "\"initialize\"",
            "[]",
            "[[]]",
            "[1]",
            "{}",
            r#"{"user":"method"}"#,
        ] {
            assert_eq!(classify(body.as_bytes()), Message::Foreign, "{body}");
        }
    }

    #[test]
    fn a_message_that_only_another_parser_may_find_is_doubtful() {
        for body in [
            "",
            " ",
            r#"{"method":"initialize"}"#,
            r#"{"jsonrpc":2.0,"method":"initialize"}"#,
            r#"{"jsonrpc":"1.0","method":"initialize"}"#,
            r#"{"method":"card","method":"cash"}"#,
            r#"{"jsonrpc":"2.0","method":"initialize""#,
            r#"{"jsonrpc":"2.0","method":"initialize"} x"#,
            r#"/* hello */{"jsonrpc":"2.0","id":1,"method":"initialize"}"#,
            "\u{feff}{}",
        ] {
            assert_eq!(classify(body.as_bytes()), Message::Doubtful, "{body}");
        }
    }

    #[test]
    fn nesting_a_million_deep_costs_no_stack() {
        let deep = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        assert_eq!(classify(deep.as_bytes()), Message::Foreign);
        let objects = format!("{}1{}", r#"{"a":"#.repeat(1_000_000), "}".repeat(1_000_000));
        assert_eq!(classify(objects.as_bytes()), Message::Foreign);
        let params = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{deep}}}"#);
        assert!(is_initialize(&params));
    }
}
