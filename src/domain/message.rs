//! Messages: what a publisher hands in, and what the hub stores and gives out.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::name::Topic;
use super::position::Position;

/// What the publisher wrote, in the one canonical form: the members of the message frame that do not depend on where
/// it is stored (`name`, `tags`, `from`, `key`, `ttl`, `enc`, `data`), without the braces. It is written once by
/// `document`, stored as it is, and copied into every frame as it is; the domain never looks inside.
#[derive(Clone, PartialEq, Eq)]
pub struct Body(Bytes);

impl Body {
    /// Takes bytes that `document` wrote, or that a store gives back.
    pub fn from_canonical(bytes: Bytes) -> Body {
        Body(bytes)
    }

    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", String::from_utf8_lossy(&self.0))
    }
}

/// A stored message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub topic: Topic,
    pub at: Position,
    /// The store's clock when it was stored, milliseconds since 1970; never before that of an earlier message of the topic.
    pub time: u64,
    /// When its time to live ends, by the same clock; it is not given out any more then. As it is fed, counted from `time`;
    /// as it is read, from what the clock said, which lies before `time` where the clock went back.
    pub expires: Option<u64>,
    pub body: Body,
}

/// A message on its way in, decoded and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    pub topic: Topic,
    pub body: Body,
    /// How long history keeps it at most.
    pub ttl: Option<Duration>,
    /// Names what this message replaces; part of the body too, kept apart for stores.
    pub key: Option<Box<str>>,
    pub idempotency_key: Option<Box<str>>,
    /// The level the publisher asks for; `None` takes the hub's default.
    pub durability: Option<Durability>,
}

/// What an acknowledged message survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Durability {
    /// The death of a hub node; with an embedded store in memory, nothing else.
    Memory,
    /// Loss of power: it is on a synced disk.
    Disk,
    /// Loss of the machine: a replica has it.
    Replica,
}

impl Durability {
    pub const ALL: [Durability; 3] = [Durability::Memory, Durability::Disk, Durability::Replica];

    pub fn as_str(self) -> &'static str {
        match self {
            Durability::Memory => "memory",
            Durability::Disk => "disk",
            Durability::Replica => "replica",
        }
    }

    pub fn parse(text: &str) -> Option<Durability> {
        Durability::ALL.into_iter().find(|d| d.as_str() == text)
    }
}
