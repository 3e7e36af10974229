//! What the wire says: ids, eras, JSON-RPC messages, and the errors we answer with.
//!
//! Nothing here knows of sessions that live or die; every item is a pure function of bytes or
//! headers. Imports end here: this folder uses no other of the crate.

mod answer;
mod era;
mod fingerprint;
mod headers;
mod id;
mod rejection;
mod sniff;

pub(crate) use self::{
    answer::{FirstMessage, is_error},
    era::Era,
    headers::{SessionHeaders, remove_folded},
    id::{SESSION_ID_HEADER, SessionId},
    sniff::{Message, classify},
};
pub use self::{
    fingerprint::{Fingerprint, ParseFingerprintError},
    rejection::Rejection,
    sniff::ClientInfo,
};
