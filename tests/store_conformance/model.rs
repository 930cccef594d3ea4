//! Random operations, compared with a model that is simple enough to be seen right: a list for each topic.

use std::collections::HashMap;
use std::time::Duration;

use fanfare::domain::position::{Epoch, Position};
use fanfare::domain::store::{Append, Appended, GapCause, Missing, Page, ReadFrom, ReadLimit, Retention, StoreError};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::Subject;
use crate::support::*;

const RUNS: usize = 40;
const TOPICS: [&str; 3] = ["a", "b.c", "$d"];

#[derive(Debug, Clone)]
enum Operation {
    Append(Vec<Written>),
    /// After the offset that lies so far behind the head.
    ReadAfter {
        topic: usize,
        behind: u64,
        limit: u32,
        bytes: usize,
    },
    ReadLast {
        topic: usize,
        count: u32,
    },
    Advance(u64),
}

#[derive(Debug, Clone)]
struct Written {
    topic: usize,
    body: String,
    key: Option<u8>,
    /// Source and id.
    fence: Option<(u8, u64)>,
    ttl: Option<u64>,
}

pub async fn random_operations_agree_with_the_model<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    run(fresh, Retention { messages: 8, ..Retention::default() }, 0, 0).await;
}

pub async fn random_operations_in_time_agree_with_the_model<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let (age, idempotency_window) = (Duration::from_millis(500), Duration::from_millis(300));
    run(fresh, Retention { messages: 20, age, idempotency_window, ..Retention::default() }, 1, 0).await;
}

/// With room for all: whether an expired message counts for retention is a store's own affair.
pub async fn random_operations_with_times_to_live_agree_with_the_model<F: Future<Output = Subject>>(
    fresh: fn(Retention) -> F,
) {
    run(fresh, Retention { messages: 10_000, ..Retention::default() }, 1, 1).await;
}

async fn run<F: Future<Output = Subject>>(fresh: fn(Retention) -> F, retention: Retention, moves: u32, ttls: u32) {
    let mut runner = TestRunner::deterministic();
    let operations = prop::collection::vec(operation(moves, ttls), 1..60);
    for _ in 0..RUNS {
        let operations = operations.new_tree(&mut runner).expect("operations").current();
        let subject = fresh(retention).await;
        let mut model = Model { retention, ..Model::default() };
        for (n, operation) in operations.iter().enumerate() {
            let told = || format!("operation {n} of {operations:#?}");
            play(&subject, &mut model, operation, &told).await;
        }
        subject.store.close().await;
    }
}

fn operation(moves: u32, ttls: u32) -> impl Strategy<Value = Operation> {
    let ttl = prop_oneof![4 => Just(None), ttls * 4 => (1..2_000u64).prop_map(Some)];
    let key = prop::option::weighted(0.3, 0..4u8);
    let fence = prop::option::weighted(0.3, (0..2u8, 1..30u64));
    let written = (0..TOPICS.len(), "[a-c]{0,3}", key, fence, ttl).prop_map(|(topic, body, key, fence, ttl)| Written {
        topic,
        body,
        key,
        fence,
        ttl,
    });
    prop_oneof![
        6 => prop::collection::vec(written, 0..8).prop_map(Operation::Append),
        4 => (0..TOPICS.len(), 0..40u64, 1..10u32, 1..20usize)
            .prop_map(|(topic, behind, limit, bytes)| Operation::ReadAfter { topic, behind, limit, bytes }),
        2 => (0..TOPICS.len(), 0..12u32).prop_map(|(topic, count)| Operation::ReadLast { topic, count }),
        moves * 3 => (1..400u64).prop_map(Operation::Advance),
    ]
}

#[derive(Default)]
struct Model {
    retention: Retention,
    now: u64,
    topics: HashMap<usize, Log>,
}

#[derive(Default)]
struct Log {
    epoch: Option<Epoch>,
    /// Every message ever stored: its body, when, and when it ends.
    messages: Vec<(String, u64, u64)>,
    keys: HashMap<u8, (String, u64, u64)>,
    fences: HashMap<u8, u64>,
}

impl Log {
    fn head(&self) -> u64 {
        self.messages.len() as u64
    }

    /// How many of the oldest retention has taken.
    fn floor(&self, retention: &Retention, now: u64) -> u64 {
        let aged = self.messages.iter().filter(|m| m.1 + retention.age.as_millis() as u64 <= now).count() as u64;
        aged.max(self.head().saturating_sub(retention.messages))
    }

    fn position(&self, offset: u64) -> Position {
        Position::new(self.epoch.expect("the topic was read"), offset)
    }
}

async fn play(subject: &Subject, model: &mut Model, operation: &Operation, told: &dyn Fn() -> String) {
    match operation {
        Operation::Advance(ms) => {
            subject.clock.as_ref().expect("timed cases have a clock").advance(Duration::from_millis(*ms));
            model.now += ms;
        }
        Operation::Append(batch) => {
            let answers = subject.store.append(batch.iter().map(item_of).collect()).await;
            assert_eq!(answers.len(), batch.len());
            for (written, answer) in batch.iter().zip(answers) {
                let expected = model.append(written);
                let answer = answer.map(|appended| match appended {
                    Appended::Stored { at, .. } => {
                        let log = model.topics.get_mut(&written.topic).expect("it was written to");
                        assert_eq!(*log.epoch.get_or_insert(at.epoch), at.epoch, "{}", told());
                        Answer::Stored(at.offset)
                    }
                    Appended::Repeated { at } => Answer::Repeated(at.offset),
                    Appended::Skipped => Answer::Skipped,
                });
                let answer = answer.unwrap_or_else(|error| match error {
                    StoreError::Conflict { at } => Answer::Conflict(at.offset),
                    other => panic!("{other}: {}", told()),
                });
                assert_eq!(answer, expected, "{written:?} in {}", told());
            }
        }
        Operation::ReadLast { topic: n, count } => {
            let limit = ReadLimit { messages: 1_000, bytes: 1 << 20 };
            let page = subject.store.read(&topic(TOPICS[*n]), ReadFrom::Last(*count), limit).await.unwrap();
            let log = model.topics.entry(*n).or_default();
            assert_eq!(page.head.epoch, *log.epoch.get_or_insert(page.head.epoch), "{}", told());
            let start = log.head().saturating_sub(u64::from(*count)).max(log.floor(&model.retention, model.now));
            assert_eq!((page.start, page.missing), (log.position(start), None), "{}", told());
            model.check(*n, &page, limit, told);
        }
        Operation::ReadAfter { topic: n, behind, limit, bytes } => {
            let name = topic(TOPICS[*n]);
            let limit = ReadLimit { messages: *limit, bytes: *bytes };
            let log = model.topics.entry(*n).or_default();
            if log.epoch.is_none() {
                log.epoch = Some(subject.store.read(&name, ReadFrom::Last(0), limit).await.unwrap().head.epoch);
            }
            let after = log.head().saturating_sub(*behind);
            let floor = log.floor(&model.retention, model.now);
            let (start, after) = (log.position(after.max(floor)), log.position(after));
            let page = subject.store.read(&name, ReadFrom::After(after), limit).await.unwrap();
            let missing = (after != start).then_some(Missing { why: GapCause::Retention, to: Some(start) });
            assert_eq!((page.start, page.missing), (start, missing), "{}", told());
            model.check(*n, &page, limit, told);
        }
    }
}

#[derive(Debug, PartialEq)]
enum Answer {
    Stored(u64),
    Repeated(u64),
    Conflict(u64),
    Skipped,
}

impl Model {
    fn append(&mut self, written: &Written) -> Answer {
        let log = self.topics.entry(written.topic).or_default();
        if let Some((source, id)) = written.fence
            && log.fences.get(&source).is_some_and(|last| *last >= id)
        {
            return Answer::Skipped;
        }
        if let Some((body, offset, until)) = written.key.and_then(|key| log.keys.get(&key))
            && *until > self.now
        {
            if *body != written.body {
                return Answer::Conflict(*offset);
            }
            // Applied, as far as the source is concerned.
            log.fences.extend(written.fence);
            return Answer::Repeated(*offset);
        }
        let expires = written.ttl.map_or(u64::MAX, |ttl| self.now + ttl);
        log.messages.push((written.body.clone(), self.now, expires));
        let until = self.now + self.retention.idempotency_window.as_millis() as u64;
        log.keys.extend(written.key.map(|key| (key, (written.body.clone(), log.messages.len() as u64, until))));
        log.fences.extend(written.fence);
        Answer::Stored(log.head())
    }

    /// What follows the start of a page, as much as the limit lets in.
    fn check(&self, n: usize, page: &Page, limit: ReadLimit, told: &dyn Fn() -> String) {
        let log = &self.topics[&n];
        let live: Vec<_> = (page.start.offset + 1..=log.head())
            .map(|offset| (offset, &log.messages[offset as usize - 1]))
            .filter(|(_, message)| message.2 > self.now)
            .collect();
        let mut bytes = 0;
        let fits = live.iter().enumerate().take_while(|(i, (_, message))| {
            bytes += message.0.len();
            *i == 0 || (*i < limit.messages as usize && bytes <= limit.bytes)
        });
        let count = fits.count();
        let expected: Vec<_> = live[..count].iter().map(|(offset, message)| (*offset, message.0.clone())).collect();
        let given: Vec<_> = offsets(&page.messages).into_iter().zip(bodies(page)).collect();
        assert_eq!(given, expected, "{}", told());
        assert_eq!(page.head, log.position(log.head()), "{}", told());
        // The page tells at least what it gives, and at most what comes before the first that it does not.
        let told_at_least = expected.last().map_or(page.start.offset, |(offset, _)| *offset);
        let told_at_most = live.get(count).map_or(log.head(), |(offset, _)| offset - 1);
        assert!((told_at_least..=told_at_most).contains(&page.end.offset), "{:?}: {}", page.end, told());
        assert!(count < live.len() || page.end == page.head, "the last page ends at the head: {}", told());
    }
}

fn item_of(written: &Written) -> Append {
    let name = topic(TOPICS[written.topic]);
    let mut item = item(&name, written.body.clone());
    item.publication.ttl = written.ttl.map(Duration::from_millis);
    item.publication.idempotency_key = written.key.map(|key| format!("key {key}").into());
    item.fence = written.fence.map(|(source, id)| fence(&format!("in:{source}"), "life", id / 3, id % 3));
    item
}
