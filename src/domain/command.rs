//! What a client asks, free of any wire format.

use std::time::Duration;

use super::cursor::{CursorName, First};
use super::error::{Problem, Reason};
use super::message::{Body, Publication};
use super::name::Topic;
use super::position::Position;
use super::queue::{How, Put, Queue};
use super::store::ReadFrom;

/// The client's name for a request, given back in the answer exactly as the codec read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(pub Box<str>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub id: Option<RequestId>,
    pub command: Command,
    /// Fields that the hub does not know; named in the answer.
    pub ignored: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `from`: `None` begins at the cursor, or at the head if there is none.
    Subscribe {
        topics: Vec<Topic>,
        from: Option<ReadFrom>,
        cursor: Option<UseCursor>,
    },
    Unsubscribe {
        topic: Topic,
    },
    Publish(Publication),
    Commit {
        topic: Topic,
        cursor: CursorName,
        at: Position,
        rewind: bool,
    },
    History {
        topic: Topic,
        from: ReadFrom,
        limit: u32,
    },
    Put(Box<Put>),
    /// `credit`: the jobs that it may hold at once; 0 pauses and keeps its place.
    Take {
        queue: Queue,
        credit: usize,
        lease: Option<Duration>,
    },
    Untake {
        queue: Queue,
    },
    Settle(Settlement),
    Request(Box<Asking>),
    /// Carries whatever the client sent, to be given back.
    Ping(Box<str>),
}

/// How deliveries end, or go on: each tag for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// As the client called it.
    pub verb: &'static str,
    pub tags: Vec<Box<str>>,
    pub how: How,
    /// For whoever waits for the answer to the job.
    pub reply: Option<Body>,
}

/// A job whose asker waits for the worker's reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asking {
    pub put: Put,
    pub timeout: Duration,
    /// The reply goes there, and is not waited for.
    pub reply_to: Option<Topic>,
}

/// The cursor that a subscription uses, in each of its topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UseCursor {
    pub name: CursorName,
    pub first: First,
}

impl UseCursor {
    /// Reads what a client says of a cursor beside where it wants to begin: `first` is a word, or nothing.
    pub fn read(name: &str, first: Option<&str>, from: Option<ReadFrom>) -> Result<UseCursor, Problem> {
        let name = CursorName::parse(name)?;
        let bad = |text: &str| Problem::new(Reason::BadFrame, text);
        let first = match (from, first) {
            (None, None) => First::Newest,
            (None, Some(word)) => First::parse(word).ok_or_else(|| {
                bad("\"first\" is \"newest\" or \"oldest\": where a cursor begins that is not there yet")
            })?,
            (Some(ReadFrom::After(at)), None) => First::At(at),
            (Some(ReadFrom::After(_)), Some(_)) => return Err(bad("\"after\" and \"first\" exclude one another")),
            (Some(_), _) => return Err(bad("with \"cursor\" it begins there, or at \"after\"; leave the other out")),
        };
        Ok(UseCursor { name, first })
    }
}

impl Command {
    /// The verb, as errors name it in `for`.
    pub fn verb(&self) -> &'static str {
        match self {
            Command::Subscribe { .. } => "sub",
            Command::Unsubscribe { .. } => "unsub",
            Command::Publish(_) => "pub",
            Command::Commit { .. } => "commit",
            Command::History { .. } => "history",
            Command::Put(_) => "put",
            Command::Take { .. } => "take",
            Command::Untake { .. } => "untake",
            Command::Settle(settlement) => settlement.verb,
            Command::Request(_) => "request",
            Command::Ping(_) => "ping",
        }
    }
}

/// What a frame is about, as the client wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    Topic(Box<str>),
    Queue(Box<str>),
    /// One delivery of a job.
    Tag(Box<str>),
}

impl Subject {
    pub fn topic(topic: &Topic) -> Subject {
        Subject::Topic(topic.as_str().into())
    }

    pub fn queue(queue: &Queue) -> Subject {
        Subject::Queue(queue.as_str().into())
    }

    /// The field that it stands in, and what stands there.
    pub fn field(&self) -> (&'static str, &str) {
        match self {
            Subject::Topic(name) => ("topic", name),
            Subject::Queue(name) => ("queue", name),
            Subject::Tag(tag) => ("tag", tag),
        }
    }
}

/// Something that could not be read as a request, with as much of its context as could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub id: Option<RequestId>,
    /// The verb it was for, where one was recognised.
    pub verb: Option<&'static str>,
    pub about: Option<Subject>,
    pub problem: Problem,
}
