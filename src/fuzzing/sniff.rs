//! The sniffer against a full parse: what it says of a body is what all of the body says.

use std::{cell::RefCell, fmt};

use axum::body::Body;
use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use tokio::runtime::{Builder, Runtime};

use crate::{
    middleware::{LIMIT, Sniffed, sniff as sniff_body},
    protocol::{ClientInfo, Message, classify},
};

/// Faults of what the sniffer skips and a full parse does not. A server that refuses the body opens
/// nothing; one that does not care sees the message that the sniffer saw.
const SKIPPED: [&str; 7] = [
    "recursion limit exceeded",
    "number out of range",
    "lone leading surrogate",
    "unexpected end of hex escape",
    "invalid unicode code point",
    "invalid escape",
    "control character",
];

/// A body of any kind.
pub fn sniff(data: &[u8]) {
    let said = classify(data);
    match serde_json::from_slice::<Tree>(data) {
        Ok(tree) => assert_eq!(said, tree.message(), "of {:?}", String::from_utf8_lossy(data)),
        Err(error) => {
            let error = error.to_string();
            let skipped = SKIPPED.iter().any(|fault| error.contains(fault));
            let text = String::from_utf8_lossy(data);
            assert!(said == Message::Doubtful || skipped, "{said:?} of {text:?}: {error}");
        }
    }
    in_pieces(data, said);
}

thread_local! {
    static RUNTIME: RefCell<Option<Runtime>> = const { RefCell::new(None) };
}

/// However it is cut, the body is the same to the sniffer, and to the server behind.
fn in_pieces(data: &[u8], said: Message) {
    let step = 1 + data.len() % 7 + data.first().map_or(0, |first| usize::from(*first) % 64);
    let pieces: Vec<_> = data.chunks(step).map(Bytes::copy_from_slice).collect();
    let frames = pieces.into_iter().map(|data| Ok::<_, axum::Error>(http_body::Frame::data(data)));
    let body = Body::new(StreamBody::new(futures_util::stream::iter(frames)));
    let run = async {
        let Sniffed { message, body, .. } = sniff_body(body).await;
        let whole = body.collect().await.map(|body| body.to_bytes());
        (message, whole)
    };
    let (message, whole) = RUNTIME.with_borrow_mut(|runtime| {
        let made = || Builder::new_current_thread().enable_time().build();
        let Ok(made) = runtime.take().map_or_else(made, Ok) else { panic!("no runtime") };
        let outcome = made.block_on(run);
        *runtime = Some(made);
        outcome
    });
    let expected = if data.len() > LIMIT { Message::Doubtful } else { said };
    assert_eq!(message, expected, "in pieces of {step}");
    assert!(whole.is_ok_and(|whole| whole == data), "handed on bit for bit");
}

/// All of a body, with every member of every object in it.
enum Tree {
    Object(Vec<(String, Tree)>),
    Array(Vec<Tree>),
    Text(String),
    Null,
    Other,
}

impl Tree {
    fn message(&self) -> Message {
        match self {
            Self::Array(items) => {
                let objects = items.iter().filter(|item| matches!(item, Self::Object(_)));
                let messages: Vec<_> = objects.map(Self::message).collect();
                let any = messages.iter().any(|message| *message != Message::Foreign);
                let may_open = messages
                    .iter()
                    .any(|message| !matches!(message, Message::Foreign | Message::Other));
                if messages.contains(&Message::InitializeNotification) {
                    Message::InitializeNotification
                } else if any {
                    Message::Batch { may_open }
                } else {
                    Message::Foreign
                }
            }
            Self::Object(_) => self.single(),
            _ => Message::Foreign,
        }
    }

    fn single(&self) -> Message {
        let (versions, methods) = (self.all("jsonrpc"), self.all("method"));
        if versions.is_empty() && methods.is_empty() && !self.has_a_name_in_another_case() {
            return Message::Foreign;
        }
        if !versions.is_empty() && (versions.len() > 1 || methods.len() > 1) {
            return Message::Ambiguous;
        }
        let is_2 = versions.first().is_some_and(|version| version.text() == Some("2.0"));
        if !is_2 || self.has_a_name_in_another_case() {
            return Message::Doubtful;
        }
        if methods.first().and_then(|method| method.text()) != Some("initialize") {
            return Message::Other;
        }
        if self.all("id").is_empty() {
            return Message::InitializeNotification;
        }
        let params = self.all("params").last().map(|params| params.client());
        Message::Initialize(Box::new(params.unwrap_or_default()))
    }

    fn has_a_name_in_another_case(&self) -> bool {
        const NAMES: [&str; 4] = ["jsonrpc", "method", "params", "id"];
        let Self::Object(members) = self else { return false };
        members.iter().any(|(name, _)| {
            let plain = name.replace('ſ', "s").replace('\u{212a}', "k").to_ascii_lowercase();
            NAMES.contains(&plain.as_str()) && !NAMES.contains(&name.as_str())
        })
    }

    fn client(&self) -> ClientInfo {
        // Who says something twice has said nothing.
        let about = |tree: &Self, names: [&str; 2]| {
            names.map(|name| tree.all(name).len()).iter().all(|count| *count <= 1)
        };
        let mut client = ClientInfo::default();
        if !about(self, ["clientInfo", "protocolVersion"]) {
            return client;
        }
        let text = |trees: Vec<&Self>| trees.first().and_then(|tree| tree.text()).map(cut);
        client.protocol_version = text(self.all("protocolVersion"));
        if let [info] = self.all("clientInfo").as_slice()
            && about(info, ["name", "version"])
        {
            client.name = text(info.all("name"));
            client.version = text(info.all("version"));
        }
        client
    }

    fn all(&self, name: &str) -> Vec<&Self> {
        let Self::Object(members) = self else { return Vec::new() };
        members.iter().filter(|(key, _)| key == name).map(|(_, value)| value).collect()
    }

    fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }
}

/// The most of 128 bytes that is whole characters.
fn cut(text: &str) -> Box<str> {
    let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
    let end = ends.take_while(|end| *end <= 128).last().unwrap_or_default();
    text[..end].into()
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Tree::Object(members))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element()? {
            all.push(item);
        }
        Ok(Tree::Array(all))
    }

    fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
        Ok(Tree::Text(text.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Tree, E> {
        Ok(Tree::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Tree, E> {
        Ok(Tree::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Tree, E> {
        Ok(Tree::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Tree, E> {
        Ok(Tree::Other)
    }
}
