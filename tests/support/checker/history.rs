//! The words of a history: who asked for what and was told what, and when. Times count from the start of the run.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::time::{Duration, Instant};

use fanfare::domain::position::Position;
use sha1::{Digest, Sha1};

/// Times of one run.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    pub fn start() -> Clock {
        Clock(Instant::now())
    }

    pub fn now(self) -> Duration {
        self.0.elapsed()
    }
}

/// What a message carries: who published it, and that publisher's count. A publisher sends one after the other; whoever
/// publishes at the same time has another name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mark {
    pub by: String,
    pub n: u64,
}

impl Mark {
    pub fn new(by: &str, n: u64) -> Mark {
        Mark { by: by.to_owned(), n }
    }

    /// The message's data: `publisher:count:sum`. The sum is of the topic too, so that nothing passes for what it is not.
    pub fn payload(&self, topic: &str) -> String {
        format!("{self}:{}", self.sum(topic))
    }

    /// What arrived, of which more than the mark may follow a space. If it is not as it was sent, it is the mark of nobody.
    pub fn parse(topic: &str, text: &str) -> Mark {
        let read = || {
            let (head, sum) = text.split(' ').next()?.rsplit_once(':')?;
            let (by, n) = head.rsplit_once(':')?;
            let mark = Mark::new(by, n.parse().ok()?);
            (mark.sum(topic) == sum).then_some(mark)
        };
        read().unwrap_or_else(|| Mark::new(&format!("nobody ({text:?})"), 0))
    }

    fn sum(&self, topic: &str) -> String {
        let sum = Sha1::digest(format!("{topic}\0{self}"));
        sum[..6].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.by, self.n)
    }
}

/// What a publisher was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Stored; and where, if the door says so.
    Yes(Option<Position>),
    /// Not stored.
    No,
    /// It may be stored or not.
    Unknown,
}

/// One attempt to publish. The same mark twice is a repetition under one idempotency key.
#[derive(Debug, Clone)]
pub struct Publish {
    pub topic: String,
    pub mark: Mark,
    pub asked: Duration,
    pub answered: Duration,
    pub answer: Answer,
}

/// What one subscriber heard of one topic.
#[derive(Debug, Clone)]
pub enum Heard {
    /// A connection's subscription was answered.
    Joined {
        asked: Option<Position>,
        at: Position,
        resumed: Option<bool>,
        why: Option<String>,
    },
    Message {
        at: Position,
        mark: Mark,
    },
    Gap {
        after: Position,
        to: Option<Position>,
        why: String,
    },
    /// The connection ended.
    Cut,
}

#[derive(Debug, Clone)]
pub struct Stream {
    pub listener: String,
    pub topic: String,
    pub heard: Vec<(Duration, Heard)>,
}

/// One answer to a question for history, at any time of the run.
#[derive(Debug, Clone)]
pub struct Read {
    pub by: String,
    pub topic: String,
    pub items: Vec<(Position, Mark)>,
}

#[derive(Debug, Clone, Default)]
pub struct History {
    pub published: Vec<Publish>,
    pub streams: Vec<Stream>,
    pub reads: Vec<Read>,
    /// The log of each topic, oldest first, as it was at the end.
    pub logs: BTreeMap<String, Vec<(Position, Mark)>>,
    /// When the last fault was over and everything drained: from then on all come back at once, as they are told.
    pub healed: Duration,
    /// The publishers that published only after it, to see who hears them.
    pub probes: HashSet<String>,
}

impl History {
    /// From the question of a publisher to a subscriber's ear, 99 of 100 times, for the messages of some publishes.
    pub fn lag_p99(&self, of: impl Fn(&Publish) -> bool) -> Duration {
        let chosen = self.published.iter().filter(|publish| of(publish));
        let asked: HashMap<(&str, &Mark), Duration> =
            chosen.map(|publish| ((publish.topic.as_str(), &publish.mark), publish.asked)).collect();
        let mut took = Vec::new();
        for stream in &self.streams {
            for (t, heard) in &stream.heard {
                if let Heard::Message { mark, .. } = heard
                    && let Some(asked) = asked.get(&(stream.topic.as_str(), mark))
                {
                    took.push(t.saturating_sub(*asked));
                }
            }
        }
        p99(took)
    }
}

pub fn p99(mut took: Vec<Duration>) -> Duration {
    took.sort_unstable();
    took.get((took.len() * 99).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default()
}
