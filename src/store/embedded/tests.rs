//! What cannot be seen through the contract: that memory and tables agree, that a failed transaction leaves nothing
//! behind, that the sweep leaves nothing over.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::cursor_table::CursorTable;
use super::inbox::{AppendCall, Call, Inbox};
use super::log::{Bounds, Log};
use super::tables::{Tables, open_in_memory};
use super::writer::error_of;
use crate::domain::cursor::CursorBounds;
use crate::domain::message::{Body, Durability, Publication};
use crate::domain::name::Topic;
use crate::domain::position::Position;
use crate::domain::store::{Append, Appended, EntryId, Fence, Page, ReadFrom, ReadLimit, Retention, Store, StoreError};
use crate::domain::topic::{Mode, Rule, Rules, TopicSettings};
use crate::store::Options;

const ALL: ReadLimit = ReadLimit { messages: 1_000, bytes: 1 << 20 };
/// One of each mode.
const TOPICS: [&str; 3] = ["a", "live", "latest"];

fn bounds() -> Bounds {
    let in_mode = |name: &str, mode| Rule { mode: Some(mode), ..Rule::new(name.parse().unwrap()) };
    let modes = [in_mode("live", Mode::Live), in_mode("latest", Mode::Latest)];
    bounds_with(&modes)
}

fn bounds_with(rules: &[Rule]) -> Bounds {
    let retention = Retention {
        messages: 6,
        age: Duration::from_millis(500),
        idempotency_window: Duration::from_millis(300),
        record: Duration::from_millis(1_000),
        ..Retention::default()
    };
    let (rules, window) = (Rules::new((&retention).into(), rules), retention.idempotency_window);
    Bounds { rules, window, bytes: 1_200, topics: 100, keys: 100, durability: Durability::Memory }
}

fn log(connection: &Connection) -> Log<'_> {
    open_with(connection, bounds())
}

fn open_with(connection: &Connection, bounds: Bounds) -> Log<'_> {
    let cursors = CursorTable::prepare(connection, CursorBounds::default()).unwrap();
    Log::open(Tables::prepare(connection, None).unwrap(), cursors, bounds).unwrap()
}

pub(super) fn item(topic: &str, body: impl Into<Bytes>) -> Append {
    let publication = Publication {
        topic: Topic::parse(topic).unwrap(),
        body: Body::from_canonical(body.into()),
        ttl: None,
        key: None,
        idempotency_key: None,
        durability: None,
    };
    Append { publication, fence: None }
}

/// One step of a random life: an append, after some time, and perhaps a sweep.
#[derive(Debug, Clone)]
struct Step {
    topic: usize,
    size: usize,
    ttl: Option<u64>,
    key: Option<u8>,
    value: Option<u8>,
    fence: Option<u64>,
    pause: u64,
    sweeps: bool,
}

fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = (
        0..TOPICS.len(),
        0..200usize,
        prop::option::of(1..600u64),
        prop::option::of(0..3u8),
        prop::option::of(0..4u8),
        prop::option::of(0..50u64),
        0..120u64,
        any::<bool>(),
    );
    let step = step.prop_map(|(topic, size, ttl, key, value, fence, pause, sweeps)| Step {
        topic,
        size,
        ttl,
        key,
        value,
        fence,
        pause,
        sweeps,
    });
    prop::collection::vec(step, 0..most)
}

fn play(log: &mut Log, steps: &[Step], now: &mut u64) {
    for step in steps {
        *now += step.pause;
        let mut item = item(TOPICS[step.topic], vec![b'x'; step.size]);
        item.publication.ttl = step.ttl.map(Duration::from_millis);
        item.publication.key = step.value.map(|key| key.to_string().into());
        item.publication.idempotency_key = step.key.map(|key| key.to_string().into());
        let fence = |ms| Fence::new("in", "life", EntryId { ms, seq: 0 });
        item.fence = step.fence.map(fence);
        // Refusals (a key used twice) belong to it.
        let _ = log.append(&item, *now);
        if step.sweeps {
            log.sweep(*now).unwrap();
        }
    }
}

/// Everything that memory knows and a page tells.
fn snapshot(log: &mut Log, now: u64) -> Vec<(String, Page, u64, bool)> {
    let mut seen = Vec::new();
    let topics: Vec<_> = log.by_name.iter().map(|(name, &id)| (name.clone(), id)).collect();
    for (name, id) in topics {
        // Reading one that is over would begin its next life.
        if !log.knows(&name, now) {
            continue;
        }
        let newest = log.topics[id].lives.newest();
        let mark = Fence::new("in", "life", EntryId { ms: 25, seq: 0 });
        let (touched, is_marked) = (log.topics[id].touched, log.topics[id].has_applied(&mark));
        for offset in 0..=log.topics[id].head() {
            let page = log.read(&name, ReadFrom::After(Position::new(newest, offset)), ALL, now).unwrap();
            seen.push((name.to_string(), page, touched, is_marked));
        }
    }
    seen.sort_by_key(|(name, page, ..)| (name.clone(), page.start.offset, page.end.offset));
    seen
}

/// The same without what a rebuilt log may know less exactly: where retention ended, if nothing is kept below.
fn without_gaps(seen: Vec<(String, Page, u64, bool)>) -> Vec<(String, Vec<u64>, Position, u64, bool)> {
    let told = |(name, page, touched, mark): (String, Page, u64, bool)| {
        (name, page.messages.iter().map(|m| m.at.offset).collect(), page.head, touched, mark)
    };
    seen.into_iter().map(told).collect()
}

/// What a topic may be kept in: before, and after a restart with other settings.
fn modes() -> impl Strategy<Value = [Mode; 2]> {
    let mode = || (0..3usize).prop_map(|n| Mode::ALL[n]);
    [mode(), mode()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_topic_that_changes_its_mode_goes_on_and_gives_nothing_wrong(steps in steps(40), more in steps(20), modes in modes()) {
        let rule = |mode| Rule { mode: Some(mode), ..Rule::new("a".parse().unwrap()) };
        let connection = open_in_memory().unwrap();
        let topic = Topic::parse("a").unwrap();
        let mut now = 1_000;
        let to_a = |steps: &[Step]| steps.iter().map(|s| Step { topic: 0, ..s.clone() }).collect::<Vec<_>>();
        let whole = |log: &mut Log, now| log.read(&topic, ReadFrom::Last(u32::MAX), ALL, now).unwrap();
        let before = {
            let mut log = open_with(&connection, bounds_with(&[rule(modes[0])]));
            log.append(&item("a", "x"), now).unwrap();
            play(&mut log, &to_a(&steps), &mut now);
            whole(&mut log, now)
        };
        let mut log = open_with(&connection, bounds_with(&[rule(modes[1])]));
        let after = whole(&mut log, now);
        prop_assert_eq!((after.head, after.mode), (before.head, modes[1]));
        for message in &after.messages {
            prop_assert!(before.messages.contains(message), "{:?} came from nowhere", message.at);
        }
        if modes[0] == modes[1] {
            prop_assert_eq!(&after.messages, &before.messages);
        }
        if modes[1] == Mode::Live {
            prop_assert!(after.messages.is_empty());
        } else if let Some(newest) = before.messages.last().filter(|m| m.at == before.head) {
            prop_assert_eq!(after.messages.last(), Some(newest), "what both modes keep stays");
        }
        // Every position is either resumed from or told to be out of reach, and holes in a log have expired.
        for offset in 0..=before.head.offset {
            let page = log.read(&topic, ReadFrom::After(Position::new(before.head.epoch, offset)), ALL, now).unwrap();
            prop_assert_eq!(page.missing.is_some(), page.start.offset != offset);
            if modes == [Mode::Latest, Mode::Log] && steps.iter().all(|s| s.ttl.is_none()) {
                let told = page.messages.iter().map(|m| m.at.offset).collect::<Vec<_>>();
                prop_assert_eq!(told, (page.start.offset + 1..=page.end.offset).collect::<Vec<_>>());
            }
        }
        // It goes on, and is the same when it is read anew.
        play(&mut log, &to_a(&more), &mut now);
        let seen = |log: &mut Log| {
            let page = whole(log, now);
            (page.messages, page.end, page.head, log.bytes, log.expiring.clone())
        };
        let before = seen(&mut log);
        log.rebuild().unwrap();
        prop_assert_eq!(seen(&mut log), before);
    }

    #[test]
    fn a_log_that_is_read_anew_knows_what_it_knew(steps in steps(60)) {
        let connection = open_in_memory().unwrap();
        let mut log = log(&connection);
        let mut now = 1_000;
        play(&mut log, &steps, &mut now);
        let (before, counts) = (without_gaps(snapshot(&mut log, now)), (log.bytes, log.keys, log.expiring.clone()));
        log.rebuild().unwrap();
        prop_assert_eq!(without_gaps(snapshot(&mut log, now)), before);
        prop_assert_eq!((log.bytes, log.keys, log.expiring.clone()), counts);
    }

    #[test]
    fn what_is_rolled_back_leaves_nothing_behind(kept in steps(40), undone in steps(40)) {
        let connection = open_in_memory().unwrap();
        let mut log = log(&connection);
        let mut now = 1_000;
        play(&mut log, &kept, &mut now);
        log.rebuild().unwrap();
        let before = snapshot(&mut log, now);
        log.tables.begin().unwrap();
        play(&mut log, &undone, &mut now.clone());
        log.tables.roll_back().unwrap();
        log.rebuild().unwrap();
        prop_assert_eq!(snapshot(&mut log, now), before);
    }

    #[test]
    fn in_the_end_the_sweep_leaves_nothing(steps in steps(60)) {
        let connection = open_in_memory().unwrap();
        let mut log = log(&connection);
        let mut now = 1_000;
        play(&mut log, &steps, &mut now);
        now += 10_000;
        while log.sweep(now).unwrap() {}
        for table in ["topics", "lives", "fences", "messages", "idempotency"] {
            let rows: i64 = connection.query_row(&format!("SELECT COUNT(*) FROM {table}"), [], |r| r.get(0)).unwrap();
            prop_assert_eq!(rows, 0, "{}", table);
        }
        prop_assert_eq!((log.bytes, log.keys, log.topics.len(), log.by_name.len(), log.expiring.len()), (0, 0, 0, 0, 0));
    }
}

#[test]
fn a_sweep_is_done_in_bounded_steps() {
    let connection = open_in_memory().unwrap();
    let mut log = log(&connection);
    log.bounds.bytes = 1 << 30;
    let defaults = TopicSettings { messages: 1_000_000, ..*log.bounds.rules.of(&Topic::parse("a").unwrap()) };
    log.bounds.rules = Rules::new(defaults, &[]);
    for _ in 0..5_000 {
        log.append(&item("a", "x"), 1_000).unwrap();
    }
    let left = |c: &Connection| c.query_row("SELECT COUNT(*) FROM messages", [], |r| r.get::<_, i64>(0)).unwrap();
    assert_eq!((log.sweep(1_500).unwrap(), left(&connection)), (true, 3_000));
    assert_eq!((log.sweep(1_500).unwrap(), left(&connection)), (true, 1_000));
    assert_eq!((log.sweep(1_500).unwrap(), left(&connection)), (false, 0));
}

#[test]
fn a_clock_that_goes_back_hurts_nothing() {
    let connection = open_in_memory().unwrap();
    let mut log = log(&connection);
    for now in [10_000, 9_000, 9_600, 10_000, 0] {
        log.append(&item("a", "x"), now).unwrap();
        log.sweep(now).unwrap();
    }
    let page = log.read(&Topic::parse("a").unwrap(), ReadFrom::Last(10), ALL, 10_000).unwrap();
    assert_eq!(page.head.offset, 5);
}

#[test]
fn times_never_descend_after_the_log_is_read_anew_either() {
    let connection = open_in_memory().unwrap();
    let mut log = log(&connection);
    for topic in TOPICS {
        log.append(&item(topic, "x"), 10_000).unwrap();
        log.rebuild().unwrap();
        let Ok(Appended::Stored { time, .. }) = log.append(&item(topic, "x"), 9_900) else { panic!("it is stored") };
        assert_eq!(time, 10_000, "{topic}");
        // Nor after all is gone by its age.
        log.sweep(10_600).unwrap();
        log.rebuild().unwrap();
        let Ok(Appended::Stored { at, time, .. }) = log.append(&item(topic, "x"), 9_900) else {
            panic!("it is stored")
        };
        assert_eq!((at.offset, time), (3, 10_000), "{topic}");
    }
}

#[test]
fn only_want_of_room_in_the_store_is_told_as_full() {
    let told = |code| error_of(&rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None));
    assert!(matches!(told(rusqlite::ffi::SQLITE_FULL), StoreError::Full(_)));
    assert!(matches!(told(rusqlite::ffi::SQLITE_NOMEM), StoreError::Broken(_)));
}

#[tokio::test]
async fn a_transaction_that_finds_no_room_is_refused_whole_and_the_store_goes_on() {
    let connection = open_in_memory().unwrap();
    connection.execute_batch("PRAGMA max_page_count = 60").unwrap();
    let super::Ends { store, .. } = super::open(connection, None, &Options::default()).unwrap();
    let mut confirmed = 0;
    let refused = loop {
        let answers = store.append((0..10).map(|_| item("a", vec![b'x'; 1_000])).collect()).await;
        if answers.iter().any(|a| a.is_err()) {
            break answers;
        }
        confirmed += 10;
        assert!(confirmed < 1_000, "60 pages do not hold that");
    };
    assert!(confirmed > 0 && refused.iter().all(|a| matches!(a, Err(StoreError::Full(_)))), "{refused:?}");
    assert!(store.status().trouble.is_some());
    let page = store.read(&Topic::parse("a").unwrap(), ReadFrom::Last(1_000), ALL).await.unwrap();
    assert_eq!((page.head.offset, page.messages.len()), (confirmed, confirmed as usize), "what was confirmed, no more");
    // What still fits is stored, at the offset that follows, and the trouble is over.
    let small = store.append(vec![item("a", "x")]).await;
    assert!(matches!(small[0], Ok(Appended::Stored { at, .. }) if at.offset == confirmed + 1), "{small:?}");
    assert_eq!(store.status().trouble, None);
}

#[test]
fn a_full_feed_holds_appends_back_unless_a_read_waits_behind_them() {
    let inbox = Inbox::new(100, 1 << 20);
    let append = || {
        let (reply, _) = oneshot::channel();
        inbox.put(Call::Append(AppendCall { batch: vec![item("a", "x")], reply }));
    };
    let taken = |is_full: bool| inbox.next(Duration::ZERO, || is_full).calls;
    append();
    append();
    assert!(taken(true).is_empty(), "held back");
    let (reply, _) = oneshot::channel();
    inbox.put(Call::Read { topic: Topic::parse("a").unwrap(), from: ReadFrom::Last(1), limit: ALL, reply });
    append();
    assert!(matches!(taken(true)[..], [Call::Append(_), Call::Append(_), Call::Read { .. }]));
    assert!(taken(true).is_empty(), "held back again");
    assert_eq!(taken(false).len(), 1);
    // Closing waits for no reader.
    append();
    drop(inbox.close());
    assert_eq!(taken(true).len(), 1);
    assert!(inbox.next(Duration::ZERO, || true).is_over);
}
