//! Random operations, compared with a model that is simple enough to be seen right: a list for each topic.

use std::collections::HashMap;
use std::time::Duration;

use fanfare::domain::position::{Epoch, Position};
use fanfare::domain::store::{Append, Appended, GapCause, Missing, Page, ReadFrom, ReadLimit, Retention, StoreError};
use fanfare::domain::topic::Mode;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::Subject;
use crate::support::*;

const RUNS: usize = 40;
/// Those of other modes come last.
const TOPICS: [&str; 5] = ["a", "b.c", "$d", "live.a", "latest.a"];
const LOGS: usize = 3;

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
    /// Since the time of the message that lies so far behind the head.
    ReadSince {
        topic: usize,
        behind: usize,
    },
    Advance(u64),
}

#[derive(Debug, Clone)]
struct Written {
    topic: usize,
    body: String,
    key: Option<u8>,
    value: Option<u8>,
    /// Source and id.
    fence: Option<(u8, u64)>,
    ttl: Option<u64>,
}

pub async fn random_operations_agree_with_the_model<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    run(fresh, Retention { messages: 8, ..Retention::default() }, TOPICS.len(), 0, 0).await;
}

pub async fn random_operations_in_time_agree_with_the_model<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let (age, idempotency_window) = (Duration::from_millis(500), Duration::from_millis(300));
    run(fresh, Retention { messages: 20, age, idempotency_window, ..Retention::default() }, LOGS, 1, 0).await;
}

/// With room for all: whether an expired message counts for retention is a store's own affair.
pub async fn random_operations_with_times_to_live_agree_with_the_model<F: Future<Output = Subject>>(
    fresh: fn(Retention) -> F,
) {
    run(fresh, Retention { messages: 10_000, ..Retention::default() }, LOGS, 1, 1).await;
}

async fn run<F: Future<Output = Subject>>(
    fresh: fn(Retention) -> F,
    retention: Retention,
    topics: usize,
    moves: u32,
    ttls: u32,
) {
    let mut runner = TestRunner::deterministic();
    let operations = prop::collection::vec(operation(topics, moves, ttls), 1..60);
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

fn operation(topics: usize, moves: u32, ttls: u32) -> impl Strategy<Value = Operation> {
    let ttl = prop_oneof![4 => Just(None), ttls * 4 => (1..2_000u64).prop_map(Some)];
    let key = prop::option::weighted(0.3, 0..4u8);
    let fence = prop::option::weighted(0.3, (0..2u8, 1..30u64));
    let value = prop::option::of(0..4u8);
    let written = (0..topics, "[a-c]{0,3}", key, value, fence, ttl);
    let written =
        written.prop_map(|(topic, body, key, value, fence, ttl)| Written { topic, body, key, value, fence, ttl });
    prop_oneof![
        6 => prop::collection::vec(written, 0..8).prop_map(Operation::Append),
        4 => (0..topics, 0..40u64, 1..10u32, 1..20usize)
            .prop_map(|(topic, behind, limit, bytes)| Operation::ReadAfter { topic, behind, limit, bytes }),
        2 => (0..topics, 0..12u32).prop_map(|(topic, count)| Operation::ReadLast { topic, count }),
        2 => (0..topics, 0..40usize).prop_map(|(topic, behind)| Operation::ReadSince { topic, behind }),
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
    mode: Mode,
    /// Every message ever stored: its body, when, and when it ends.
    messages: Vec<(String, u64, u64)>,
    /// Of each its key, and its time by the store's clock.
    values: Vec<Option<u8>>,
    times: Vec<u64>,
    keys: HashMap<u8, (String, u64, u64)>,
    fences: HashMap<u8, u64>,
}

impl Log {
    fn head(&self) -> u64 {
        self.messages.len() as u64
    }

    /// How many of the oldest retention has taken.
    fn floor(&self, retention: &Retention, now: u64) -> u64 {
        match self.mode {
            Mode::Log => {}
            Mode::Live => return self.head(),
            // There are fewer keys than are kept.
            Mode::Latest => return 0,
        }
        let aged = self.messages.iter().filter(|m| m.1 + retention.age.as_millis() as u64 <= now).count() as u64;
        aged.max(self.head().saturating_sub(retention.messages))
    }

    /// Whether it is kept, for all that the mode says.
    fn is_kept(&self, offset: u64) -> bool {
        let index = offset as usize - 1;
        match self.mode {
            Mode::Log => true,
            Mode::Live => false,
            Mode::Latest => !self.values[index + 1..].contains(&self.values[index]),
        }
    }

    /// The position before the first that is kept of those that are asked for.
    fn before_first(&self, is_asked: impl Fn(u64) -> bool) -> u64 {
        (1..=self.head()).find(|offset| self.is_kept(*offset) && is_asked(*offset)).unwrap_or(self.head() + 1) - 1
    }

    fn why(&self) -> GapCause {
        if self.mode == Mode::Live { GapCause::Live } else { GapCause::Retention }
    }

    fn position(&self, offset: u64) -> Position {
        Position::new(self.epoch.expect("the topic was read"), offset)
    }
}

async fn play(subject: &Subject, model: &mut Model, operation: &Operation, told: &dyn Fn() -> String) {
    let (retention, now) = (model.retention, model.now);
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
                    Appended::Stored { at, time, .. } => {
                        let log = model.topics.get_mut(&written.topic).expect("it was written to");
                        assert_eq!(*log.epoch.get_or_insert(at.epoch), at.epoch, "{}", told());
                        log.times.push(time);
                        Answer::Stored(at.offset)
                    }
                    Appended::Repeated { at, .. } => Answer::Repeated(at.offset),
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
            let log = model.log(*n);
            assert_eq!(page.head.epoch, *log.epoch.get_or_insert(page.head.epoch), "{}", told());
            let start = if log.mode == Mode::Latest {
                let newest = (1..=log.head()).rev().filter(|offset| log.is_kept(*offset)).take(*count as usize);
                newest.last().unwrap_or(log.head() + 1) - 1
            } else {
                log.head().saturating_sub(u64::from(*count)).max(log.floor(&retention, now))
            };
            assert_eq!((page.start, page.missing), (log.position(start), None), "{}", told());
            model.check(*n, &page, limit, told);
        }
        Operation::ReadAfter { topic: n, behind, limit, bytes } => {
            let name = topic(TOPICS[*n]);
            let limit = ReadLimit { messages: *limit, bytes: *bytes };
            let log = model.log(*n);
            if log.epoch.is_none() {
                log.epoch = Some(subject.store.read(&name, ReadFrom::Last(0), limit).await.unwrap().head.epoch);
            }
            let after = log.head().saturating_sub(*behind);
            let floor = log.floor(&retention, now);
            let (start, after) = (log.position(after.max(floor)), log.position(after));
            let page = subject.store.read(&name, ReadFrom::After(after), limit).await.unwrap();
            let missing = (after != start).then_some(Missing { why: log.why(), to: Some(start) });
            assert_eq!((page.start, page.missing), (start, missing), "{}", told());
            model.check(*n, &page, limit, told);
        }
        Operation::ReadSince { topic: n, behind } => {
            let log = model.log(*n);
            let Some(since) = log.times.iter().rev().nth(*behind).copied() else { return };
            let limit = ReadLimit { messages: 1_000, bytes: 1 << 20 };
            let page = subject.store.read(&topic(TOPICS[*n]), ReadFrom::Since(since), limit).await.unwrap();
            let floor = log.floor(&retention, now);
            let start = log.before_first(|offset| offset > floor && log.times[offset as usize - 1] >= since);
            let is_cut = floor > 0 && since <= log.times[floor as usize - 1];
            let missing = is_cut.then(|| Missing { why: log.why(), to: Some(log.position(start)) });
            assert_eq!((page.start, page.missing), (log.position(start), missing), "{}", told());
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
    fn log(&mut self, n: usize) -> &mut Log {
        let mode = match TOPICS[n] {
            "live.a" => Mode::Live,
            "latest.a" => Mode::Latest,
            _ => Mode::Log,
        };
        self.topics.entry(n).or_insert_with(|| Log { mode, ..Log::default() })
    }

    fn append(&mut self, written: &Written) -> Answer {
        let (now, window) = (self.now, self.retention.idempotency_window.as_millis() as u64);
        let log = self.log(written.topic);
        if let Some((source, id)) = written.fence
            && log.fences.get(&source).is_some_and(|last| *last >= id)
        {
            return Answer::Skipped;
        }
        if let Some((body, offset, until)) = written.key.and_then(|key| log.keys.get(&key))
            && *until > now
        {
            if *body != written.body {
                return Answer::Conflict(*offset);
            }
            // Applied, as far as the source is concerned.
            log.fences.extend(written.fence);
            return Answer::Repeated(*offset);
        }
        let expires = written.ttl.map_or(u64::MAX, |ttl| now + ttl);
        log.messages.push((written.body.clone(), now, expires));
        log.values.push(written.value);
        let until = now + window;
        log.keys.extend(written.key.map(|key| (key, (written.body.clone(), log.messages.len() as u64, until))));
        log.fences.extend(written.fence);
        Answer::Stored(log.head())
    }

    /// What follows the start of a page, as much as the limit lets in.
    fn check(&self, n: usize, page: &Page, limit: ReadLimit, told: &dyn Fn() -> String) {
        let log = &self.topics[&n];
        assert_eq!(page.mode, log.mode, "{}", told());
        let live: Vec<_> = (page.start.offset + 1..=log.head())
            .filter(|offset| log.is_kept(*offset))
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
    item.publication.key = written.value.map(|value| value.to_string().into());
    item.publication.idempotency_key = written.key.map(|key| format!("key {key}").into());
    item.fence = written.fence.map(|(source, id)| fence(&format!("in:{source}"), "life", id / 3, id % 3));
    item
}
