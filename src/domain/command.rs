//! What a client asks, free of any wire format.

use super::error::Problem;
use super::message::Publication;
use super::name::Topic;
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
    /// `from`: `None` begins at the head.
    Subscribe {
        topics: Vec<Topic>,
        from: Option<ReadFrom>,
    },
    Unsubscribe {
        topic: Topic,
    },
    Publish(Publication),
    History {
        topic: Topic,
        from: ReadFrom,
        limit: u32,
    },
    /// Carries whatever the client sent, to be given back.
    Ping(Box<str>),
}

impl Command {
    /// The verb, as errors name it in `for`.
    pub fn verb(&self) -> &'static str {
        match self {
            Command::Subscribe { .. } => "sub",
            Command::Unsubscribe { .. } => "unsub",
            Command::Publish(_) => "pub",
            Command::History { .. } => "history",
            Command::Ping(_) => "ping",
        }
    }
}

/// Something that could not be read as a request, with as much of its context as could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub id: Option<RequestId>,
    /// The verb it was for, where one was recognised.
    pub verb: Option<&'static str>,
    /// The topic as the client wrote it.
    pub topic: Option<Box<str>>,
    pub problem: Problem,
}
