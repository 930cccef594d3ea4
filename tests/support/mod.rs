//! What tests of several files share: short ways to write messages down, and a clock that is moved by hand.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fanfare::domain::message::{Body, Message, Publication};
use fanfare::domain::name::Topic;
use fanfare::domain::position::{Epoch, Position};
use fanfare::domain::store::{Append, Appended, EntryId, Fence, Page, StoreError};
use fanfare::domain::topic::{Mode, Rule};
use fanfare::store::Clock;

pub fn topic(name: &str) -> Topic {
    Topic::parse(name).expect("tests write good names")
}

/// A plain message.
pub fn item(topic: &Topic, body: impl Into<Bytes>) -> Append {
    let publication = Publication {
        topic: topic.clone(),
        body: Body::from_canonical(body.into()),
        ttl: None,
        key: None,
        idempotency_key: None,
        durability: None,
    };
    Append { publication, fence: None }
}

pub fn item_with_key(topic: &Topic, body: impl Into<Bytes>, key: &str) -> Append {
    let mut item = item(topic, body);
    item.publication.idempotency_key = Some(key.into());
    item
}

pub fn item_with_ttl(topic: &Topic, body: impl Into<Bytes>, ttl: Duration) -> Append {
    let mut item = item(topic, body);
    item.publication.ttl = Some(ttl);
    item
}

pub fn fence(source: &str, life: &str, ms: u64, seq: u64) -> Fence {
    Fence::new(source, life, EntryId { ms, seq })
}

pub fn fenced(topic: &Topic, body: impl Into<Bytes>, fence: Fence) -> Append {
    Append { fence: Some(fence), ..item(topic, body) }
}

/// Where it was stored; anything else fails the test.
pub fn stored(answer: &Result<Appended, StoreError>) -> Position {
    match answer {
        Ok(Appended::Stored { at, .. }) => *at,
        other => panic!("it should have been stored: {other:?}"),
    }
}

pub fn offsets(messages: &[Message]) -> Vec<u64> {
    messages.iter().map(|m| m.at.offset).collect()
}

pub fn bodies(page: &Page) -> Vec<String> {
    page.messages.iter().map(|m| String::from_utf8_lossy(m.body.as_bytes()).into_owned()).collect()
}

/// The rules that every store of the conformance suite is opened with. What they do not name is in mode `log`.
pub fn rules() -> Vec<Rule> {
    let rule = |pattern: &str| Rule::new(pattern.parse().expect("tests write good patterns"));
    vec![
        Rule { messages: Some(3), ..rule("few.**") },
        Rule { mode: Some(Mode::Live), ..rule("live.**") },
        Rule { mode: Some(Mode::Latest), messages: Some(3), ..rule("latest.few.*") },
        Rule { mode: Some(Mode::Latest), ..rule("latest.**") },
    ]
}

/// An epoch that no store has drawn.
pub fn foreign_epoch() -> Epoch {
    Epoch::from_random(7)
}

/// A clock that stands still until it is moved.
#[derive(Clone)]
pub struct MovedClock(Arc<AtomicU64>);

impl Default for MovedClock {
    fn default() -> MovedClock {
        MovedClock(Arc::new(AtomicU64::new(1_795_331_083_000)))
    }
}

impl MovedClock {
    pub fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_millis() as u64, Ordering::SeqCst);
    }

    pub fn go_back(&self, by: Duration) {
        self.0.fetch_sub(by.as_millis() as u64, Ordering::SeqCst);
    }

    pub fn reader(&self) -> Clock {
        let clock = self.clone();
        Clock::by_hand(move || clock.now())
    }
}
