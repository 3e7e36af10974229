//! What a managed request is, if it is of no live session. This is the only place that decides it: by the head, and
//! where that does not suffice, once more with what was read of the body.

use http::{Method, Request};

use super::heartbeat::is_type;
use crate::protocol::{ClientInfo, Era, Message, Rejection};

/// What becomes of the request; each has its own function in [`super::open`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// By another method than POST: no answer opens a session.
    Sessionless,
    /// The body decides.
    Unread,
    /// An `initialize` that was read without doubt.
    Initialize(Box<ClientInfo>),
    /// An `initialize` that asks for no answer.
    Notification,
    /// Refused, whoever sends it.
    Refused(Rejection),
    /// Of the modern era: passed on, and its hang-up is its cancellation.
    Modern,
    /// Another message without an id, which the server may know what to do with.
    Message,
    /// Another parser may find an `initialize` in it.
    Doubtful { is_cut_short: bool },
    /// Of some other protocol.
    Foreign,
}

/// What was read of a body.
pub(super) struct Read {
    pub(super) message: Message,
    /// Too long or too slow to be read to its end.
    pub(super) is_cut_short: bool,
}

/// What the head says.
#[derive(Clone, Copy)]
pub(super) struct Head {
    era: Era,
    is_post: bool,
    is_json: bool,
    /// Whether messages without an id are passed on.
    forwards: bool,
}

impl Head {
    pub(super) fn of<T>(request: &Request<T>, era: Era, forwards: bool) -> Self {
        let is_json = is_type(request.headers(), "application/json");
        Self { era, is_post: request.method() == Method::POST, is_json, forwards }
    }

    pub(super) fn era(self) -> Era {
        self.era
    }

    /// `read` is `None` before the body was looked at.
    pub(super) fn class(self, read: Option<Read>) -> Class {
        if !self.is_post {
            return Class::Sessionless;
        }
        if !self.is_json {
            return Class::Foreign;
        }
        let Some(Read { message, is_cut_short }) = read else { return Class::Unread };
        let is_modern = self.era == Era::Modern;
        let needs_id = self.era == Era::Legacy && !self.forwards;
        match message {
            Message::Initialize(client) => Class::Initialize(client),
            Message::InitializeNotification => Class::Notification,
            Message::Ambiguous => Class::Refused(Rejection::MessageAmbiguous),
            Message::Other if is_modern => Class::Modern,
            // Merely longer or slower than we read.
            Message::Doubtful if is_modern && is_cut_short => Class::Modern,
            Message::Other | Message::Batch { .. } if needs_id => {
                Class::Refused(Rejection::IdMissing)
            }
            Message::Other => Class::Message,
            Message::Batch { .. } | Message::Doubtful => Class::Doubtful { is_cut_short },
            Message::Foreign => Class::Foreign,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(era: Era, forwards: bool, message: Message, is_cut_short: bool) -> Class {
        let head = Head { era, is_post: true, is_json: true, forwards };
        assert_eq!(head.class(None), Class::Unread);
        head.class(Some(Read { message, is_cut_short }))
    }

    #[test]
    fn the_head_decides_by_itself_where_no_body_could_change_it() {
        for era in [Era::Legacy, Era::Modern, Era::Unknown] {
            let head = Head { era, is_post: false, is_json: true, forwards: false };
            assert_eq!(head.class(None), Class::Sessionless);
            let head = Head { era, is_post: true, is_json: false, forwards: true };
            assert_eq!(head.class(None), Class::Foreign);
        }
    }

    #[test]
    fn every_message_has_its_class_in_every_era() {
        let missing = || Class::Refused(Rejection::IdMissing);
        let whole = Class::Doubtful { is_cut_short: false };
        for (era, forwards, other, batch) in [
            (Era::Legacy, false, missing(), missing()),
            (Era::Legacy, true, Class::Message, Class::Doubtful { is_cut_short: false }),
            (Era::Unknown, false, Class::Message, Class::Doubtful { is_cut_short: false }),
            (Era::Modern, false, Class::Modern, Class::Doubtful { is_cut_short: false }),
        ] {
            let of = |message| class(era, forwards, message, false);
            assert_eq!(of(Message::Other), other);
            assert_eq!(of(Message::Batch { may_open: true }), batch);
            assert_eq!(of(Message::Batch { may_open: false }), batch);
            assert_eq!(of(Message::Initialize(Box::default())), Class::Initialize(Box::default()));
            assert_eq!(of(Message::InitializeNotification), Class::Notification);
            assert_eq!(of(Message::Ambiguous), Class::Refused(Rejection::MessageAmbiguous));
            assert_eq!(of(Message::Foreign), Class::Foreign);
            assert_eq!(of(Message::Doubtful), whole);
            let long = class(era, forwards, Message::Doubtful, true);
            let is_modern = era == Era::Modern;
            let passes =
                if is_modern { Class::Modern } else { Class::Doubtful { is_cut_short: true } };
            assert_eq!(long, passes);
        }
    }
}
