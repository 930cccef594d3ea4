//! What the writer does when Redis lost a script, by forged answers: the moments that a real Redis rarely hits.

use std::sync::Arc;

use bytes::Bytes;
use redis::{Cmd, Value};
use tokio::sync::oneshot;

use super::RedisOptions;
use super::facts::Facts;
use super::flight::{Errand, Flight, Packer};
use super::greeting::{Greeting, Host};
use super::keys::Keys;
use super::levels::Levels;
use super::lives::Lives;
use super::queue::{Batch, Entrance, State, queue};
use super::scripts::Scripts;
use super::topics::{Outcome, Place};
use super::writer::Writer;
use crate::domain::cursor::CursorBounds;
use crate::domain::message::{Body, Publication};
use crate::domain::name::Topic;
use crate::domain::store::{Append, Appended, StoreError};
use crate::endpoint::Endpoint;

/// A writer without a Redis, and calls of it on their way.
struct Desk {
    writer: Writer,
    entrance: Entrance,
    unknown: Vec<(Errand, Cmd)>,
}

impl Desk {
    fn new() -> Desk {
        let options = RedisOptions::default();
        let host = Arc::new(Host {
            endpoint: Endpoint::parse("redis://localhost").ok().unwrap(),
            names: Keys::new(options.prefix.clone(), options.groups, 0),
            scripts: Arc::new(Scripts::new(&options.retention, &options.rules, CursorBounds::default(), false)),
            lives: Arc::new(Lives::new(vec![String::new()])),
            options,
        });
        let facts = Facts::read(&Value::BulkString(b"redis_version:7.0.15".to_vec())).unwrap();
        let greeting = Greeting { facts, client: "1".into() };
        let levels = Levels::new(&greeting.facts, &host.options, false);
        let state = Arc::new(State::new(levels));
        let (entrance, jobs) = queue(state.clone(), 100, 10_000);
        let writer = Writer::new(host, greeting, state, jobs);
        Desk { writer, entrance, unknown: Vec::new() }
    }

    /// One message in a pipeline of its own.
    fn fly(&mut self, lane: u16) -> (Flight, oneshot::Receiver<Vec<Outcome>>) {
        let (answer, answered) = oneshot::channel();
        let weight = self.entrance.admit(1, 1).unwrap();
        let batch = Batch {
            items: vec![],
            outcomes: vec![None],
            needs: vec![None],
            left: 1,
            answer,
            asking: false,
            group: lane,
            _weight: weight,
        };
        let batch = self.writer.batches.insert(batch);
        let publication = Publication {
            topic: Topic::parse("news").unwrap(),
            body: Body::from_canonical(Bytes::from_static(b"x")),
            ttl: None,
            key: None,
            idempotency_key: None,
            durability: None,
        };
        let mut packer = Packer::default();
        packer.append(lane, false, lane, Place { batch, item: 0 }, Append { publication, fence: None });
        (packer.finish(&self.writer.host, &self.writer.host.lives.known(), &mut self.writer.dice), answered)
    }

    fn land(&mut self, flight: Flight, answer: Value) {
        self.writer.settle(flight, vec![answer], &mut self.unknown).unwrap();
    }
}

fn unknown_script() -> Value {
    redis::parse_redis_value(b"-NOSCRIPT No matching script.\r\n").unwrap()
}

fn stored(offset: i64) -> Value {
    Value::Array(vec![Value::BulkString(b"1000".to_vec()), Value::BulkString(b"abc".to_vec()), Value::Int(offset)])
}

#[test]
fn calls_that_found_no_script_are_kept_in_order_and_answer_nothing_yet() {
    let mut desk = Desk::new();
    let (first, mut first_answer) = desk.fly(0);
    let (second, mut second_answer) = desk.fly(0);
    desk.land(first, unknown_script());
    desk.land(second, unknown_script());
    assert!(first_answer.try_recv().is_err() && second_answer.try_recv().is_err());
    let kept: Vec<usize> = desk
        .unknown
        .iter()
        .map(|(errand, _)| match errand {
            Errand::Append { asked, .. } => asked.places().next().unwrap().batch,
            _ => panic!("an append was sent"),
        })
        .collect();
    assert_eq!(kept, [0, 1]);
}

#[test]
fn a_call_that_a_later_one_overtook_fails_and_is_not_sent_again() {
    let mut desk = Desk::new();
    let (first, mut first_answer) = desk.fly(0);
    let (elsewhere, mut elsewhere_answer) = desk.fly(7);
    let (second, mut second_answer) = desk.fly(0);
    desk.land(first, unknown_script());
    desk.land(elsewhere, unknown_script());
    desk.land(second, stored(1));
    assert!(matches!(second_answer.try_recv().unwrap()[..], [Ok(Appended::Stored { .. })]));
    assert!(matches!(first_answer.try_recv().unwrap()[..], [Err(StoreError::Unavailable(_))]));
    // Another lane has an order of its own.
    assert!(elsewhere_answer.try_recv().is_err());
    assert_eq!(desk.unknown.len(), 1);
}

#[test]
fn an_answer_that_cannot_be_read_is_no_yes_and_no_no() {
    let mut desk = Desk::new();
    let (flight, mut answer) = desk.fly(0);
    desk.land(flight, Value::Array(vec![Value::Nil]));
    assert!(matches!(answer.try_recv().unwrap()[..], [Err(StoreError::Unconfirmed(_))]));
}
