//! What the hub says to a client, free of any wire format. Messages go apart, encoded once for all.

use std::time::Duration;

use super::command::RequestId;
use super::cursor::{CursorName, Placed};
use super::error::Problem;
use super::message::{Durability, Message};
use super::name::Topic;
use super::position::Position;
use super::replay::{Answer, Gap};
use super::store::Missing;
use super::topic::Mode;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Hello {
        connection: Box<str>,
        ping: Duration,
        max_frame: usize,
    },
    Subscribed {
        id: Option<RequestId>,
        topic: Topic,
        mode: Mode,
        answer: Answer,
        cursor: Option<CursorUsed>,
        ignored: Vec<String>,
    },
    Unsubscribed {
        id: Option<RequestId>,
        topic: Topic,
        ignored: Vec<String>,
    },
    Published {
        id: Option<RequestId>,
        topic: Topic,
        stored: Position,
        durability: Durability,
        ignored: Vec<String>,
    },
    Committed {
        id: Option<RequestId>,
        topic: Topic,
        cursor: CursorName,
        placed: Placed,
        ignored: Vec<String>,
    },
    /// `missing`: what could not be given between the position asked for and the first item.
    History {
        id: Option<RequestId>,
        topic: Topic,
        items: Vec<Message>,
        missing: Option<Missing>,
        more: bool,
        ignored: Vec<String>,
    },
    Gap {
        topic: Topic,
        gap: Gap,
    },
    Pong(Box<str>),
    Error {
        id: Option<RequestId>,
        verb: Option<&'static str>,
        topic: Option<Box<str>>,
        problem: Problem,
    },
}

/// What a subscription is told of the cursor that it uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CursorUsed {
    pub name: CursorName,
    pub lag: u64,
    /// It begins with this use.
    pub created: bool,
}

impl Event {
    pub fn error(id: Option<RequestId>, verb: &'static str, topic: &Topic, problem: Problem) -> Event {
        Event::Error { id, verb: Some(verb), topic: Some(topic.as_str().into()), problem }
    }
}
