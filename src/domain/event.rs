//! What the hub says to a client, free of any wire format. Messages go apart, encoded once for all.

use std::time::Duration;

use super::command::{RequestId, Subject};
use super::cursor::{CursorName, Placed};
use super::error::{Problem, Reason};
use super::message::{Body, Durability, Message};
use super::name::Topic;
use super::position::Position;
use super::queue::{Job, JobId, Queue};
use super::replay::{Answer, Gap};
use super::store::Missing;
use super::topic::Mode;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Hello {
        connection: Box<str>,
        ping: Duration,
        max_frame: usize,
        /// A topic for replies that only this client knows.
        inbox: Option<Topic>,
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
    Put {
        id: Option<RequestId>,
        queue: Queue,
        job: JobId,
        durability: Durability,
        repeated: bool,
        ignored: Vec<String>,
    },
    Taking {
        id: Option<RequestId>,
        queue: Queue,
        credit: usize,
        lease: Duration,
        ignored: Vec<String>,
    },
    Untaken {
        id: Option<RequestId>,
        queue: Queue,
        ignored: Vec<String>,
    },
    Settled {
        id: Option<RequestId>,
        verb: &'static str,
        failed: Vec<(Box<str>, Reason)>,
        ignored: Vec<String>,
    },
    /// What a worker replied; `None`: the reply comes to the topic that was named, under the name `request`.
    Replied {
        id: Option<RequestId>,
        queue: Queue,
        job: JobId,
        reply: Option<Body>,
        request: Option<Box<str>>,
        ignored: Vec<String>,
    },
    Job(Given),
    /// The lease of a job that this connection held has ended.
    Lost {
        tag: Box<str>,
    },
    Pong(Box<str>),
    Error {
        id: Option<RequestId>,
        verb: Option<&'static str>,
        about: Option<Subject>,
        problem: Problem,
    },
}

/// A job on its way to a worker, under the tag of this delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    pub tag: Box<str>,
    pub job: Box<Job>,
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
        Event::Error { id, verb: Some(verb), about: Some(Subject::topic(topic)), problem }
    }
}
