//! What time does to a store, for stores whose clock can be moved.

use std::time::Duration;

use fanfare::domain::position::Position;
use fanfare::domain::store::{Appended, FeedEvent, GapCause, Missing, ReadFrom, ReadLimit, Retention};
use futures::StreamExt;

use crate::Subject;
use crate::support::*;

const ALL: ReadLimit = ReadLimit { messages: 100_000, bytes: 1 << 30 };
const SECOND: Duration = Duration::from_secs(1);

pub async fn an_expired_message_leaves_a_hole_and_nothing_missing<F: Future<Output = Subject>>(
    fresh: fn(Retention) -> F,
) {
    let Subject { store, clock, guard: _guard, .. } = fresh(Retention::default()).await;
    let clock = clock.expect("timed cases have a clock");
    let news = topic("news");
    let batch = vec![item(&news, "1"), item_with_ttl(&news, "2", SECOND * 5), item(&news, "3")];
    let head = stored(&store.append(batch).await[2]);
    let start = Position::new(head.epoch, 0);
    clock.advance(SECOND * 4);
    let page = store.read(&news, ReadFrom::After(start), ALL).await.unwrap();
    assert_eq!(offsets(&page.messages), [1, 2, 3]);
    clock.advance(SECOND);
    let page = store.read(&news, ReadFrom::After(start), ALL).await.unwrap();
    assert_eq!((offsets(&page.messages), page.start, page.end, page.missing), (vec![1, 3], start, head, None));
}

pub async fn expired_messages_at_both_ends_are_told_by_the_page<F: Future<Output = Subject>>(
    fresh: fn(Retention) -> F,
) {
    let Subject { store, clock, guard: _guard, .. } = fresh(Retention::default()).await;
    let clock = clock.expect("timed cases have a clock");
    let news = topic("news");
    let brief = |body: &'static str| item_with_ttl(&news, body, SECOND);
    let batch = vec![brief("1"), item(&news, "2"), item(&news, "3"), brief("4"), brief("5")];
    let head = stored(&store.append(batch).await[4]);
    let start = Position::new(head.epoch, 0);
    clock.advance(SECOND);
    let page = store.read(&news, ReadFrom::After(start), ALL).await.unwrap();
    assert_eq!((offsets(&page.messages), page.start, page.end, page.missing), (vec![2, 3], start, head, None));
    // A client that follows page by page comes to the head all the same.
    let one = ReadLimit { messages: 1, ..ALL };
    let (mut after, mut read) = (start, Vec::new());
    while after != head {
        let page = store.read(&news, ReadFrom::After(after), one).await.unwrap();
        assert!(page.end.is_past(after), "a page goes on: {page:?}");
        read.extend(offsets(&page.messages));
        after = page.end;
    }
    assert_eq!(read, [2, 3]);
    // The next message has the next offset, though the newest ones are gone.
    assert_eq!(stored(&store.append(vec![item(&news, "6")]).await[0]), head.next());
}

pub async fn retention_by_age_tells_what_is_missing<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let retention = Retention { age: SECOND * 60, ..Retention::default() };
    let Subject { store, clock, guard: _guard, .. } = fresh(retention).await;
    let clock = clock.expect("timed cases have a clock");
    let news = topic("news");
    let first = stored(&store.append(vec![item(&news, "1"), item(&news, "2")]).await[0]);
    clock.advance(SECOND * 40);
    let head = stored(&store.append(vec![item(&news, "3")]).await[0]);
    clock.advance(SECOND * 20);
    let page = store.read(&news, ReadFrom::After(first.before()), ALL).await.unwrap();
    let missing = Some(Missing { why: GapCause::Retention, to: Some(first.next()) });
    assert_eq!((offsets(&page.messages), page.start, page.missing), (vec![3], first.next(), missing));
    clock.advance(SECOND * 40);
    let page = store.read(&news, ReadFrom::After(first), ALL).await.unwrap();
    let missing = Some(Missing { why: GapCause::Retention, to: Some(head) });
    assert_eq!((page.messages.len(), page.end, page.head, page.missing), (0, head, head, missing));
    // Who has seen all of it misses nothing.
    let page = store.read(&news, ReadFrom::After(head), ALL).await.unwrap();
    assert_eq!((page.messages.len(), page.missing), (0, None));
}

pub async fn an_idempotency_key_is_forgotten_after_its_window<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let Subject { store, clock, guard: _guard, .. } = fresh(Retention::default()).await;
    let clock = clock.expect("timed cases have a clock");
    let window = Retention::default().idempotency_window;
    let news = topic("news");
    let order = || vec![item_with_key(&news, "order", "k")];
    let durability = store.status().durability;
    let at = stored(&store.append(order()).await[0]);
    clock.advance(window - SECOND);
    assert_eq!(store.append(order()).await, [Ok(Appended::Repeated { at, durability })]);
    clock.advance(SECOND);
    let again = stored(&store.append(order()).await[0]);
    assert_eq!(again, at.next());
    // It stands for the new one now.
    assert_eq!(store.append(order()).await, [Ok(Appended::Repeated { at: again, durability })]);
}

pub async fn a_topic_outlives_its_messages_and_begins_anew_after_that<F: Future<Output = Subject>>(
    fresh: fn(Retention) -> F,
) {
    let retention = Retention { age: SECOND * 60, record: SECOND * 600, ..Retention::default() };
    let Subject { store, clock, guard: _guard, .. } = fresh(retention).await;
    let clock = clock.expect("timed cases have a clock");
    let news = topic("news");
    let head = stored(&store.append(vec![item(&news, "1"), item(&news, "2")]).await[1]);
    clock.advance(SECOND * 659);
    let page = store.read(&news, ReadFrom::After(head), ALL).await.unwrap();
    assert_eq!((page.head, page.missing), (head, None), "the record is still there");
    // Both long over: nothing is left of that life.
    clock.advance(SECOND * 700);
    let page = store.read(&news, ReadFrom::After(head), ALL).await.unwrap();
    assert_ne!(page.head.epoch, head.epoch);
    assert_eq!(page.missing.map(|m| m.why), Some(GapCause::Epoch));
}

pub async fn a_watched_topic_keeps_its_record<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let retention = Retention { age: SECOND, record: SECOND, idempotency_window: SECOND, ..Retention::default() };
    let Subject { store, clock, guard: _guard, .. } = fresh(retention).await;
    let clock = clock.expect("timed cases have a clock");
    let news = topic("news");
    let head = stored(&store.append(vec![item(&news, "1")]).await[0]);
    let (watch, mut feed) = store.feed();
    watch.watch(&news);
    assert!(matches!(feed.next().await, Some(FeedEvent::Watching(_))));
    clock.advance(SECOND * 3600);
    assert_eq!(store.read(&news, ReadFrom::Last(0), ALL).await.unwrap().head, head);
}

pub async fn times_never_descend_though_the_clock_goes_back<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let Subject { store, clock, guard: _guard, .. } = fresh(Retention::default()).await;
    let clock = clock.expect("timed cases have a clock");
    for name in ["news", "latest.a", "live.a"] {
        let own = topic(name);
        let mut told: Vec<(u64, u64)> = Vec::new();
        // Of each message what the clock said, and the time that was answered.
        for step in [0, 7, 7, -20, 1, 1, 6, 30, -1] {
            let by = SECOND * i32::unsigned_abs(step);
            if step < 0 {
                clock.go_back(by)
            } else {
                clock.advance(by)
            }
            let mut item = item(&own, "x");
            item.publication.key = Some(told.len().to_string().into());
            let answer = store.append(vec![item]).await.remove(0);
            let Ok(Appended::Stored { time, .. }) = answer else { panic!("{answer:?}") };
            told.push((clock.now(), time));
        }
        assert!(told.is_sorted_by_key(|(_, time)| *time) && told.iter().all(|(said, time)| said <= time), "{told:?}");
        assert_eq!(told[3].1, told[2].1, "the time of the newest before it: {told:?}");
        assert_eq!(told[7].1, told[7].0, "the clock has caught up: {told:?}");
        for since in told.iter().flat_map(|(said, time)| [*said, *time, time + 1]) {
            let page = store.read(&own, ReadFrom::Since(since), ALL).await.unwrap();
            let first = told.iter().position(|(_, time)| *time >= since).unwrap_or(told.len());
            if name == "live.a" {
                assert_eq!(page.missing.is_some(), first < told.len(), "since {since}");
                continue;
            }
            let expected: Vec<u64> = (first as u64 + 1..=told.len() as u64).collect();
            assert_eq!((offsets(&page.messages), page.missing), (expected, None), "{name} since {since}");
            let stored: Vec<u64> = page.messages.iter().map(|message| message.time).collect();
            assert_eq!(stored, told[first..].iter().map(|(_, time)| *time).collect::<Vec<_>>());
        }
    }
}

pub async fn what_ends_by_time_ends_by_the_clock_though_it_went_back<F: Future<Output = Subject>>(
    fresh: fn(Retention) -> F,
) {
    let Subject { store, clock, guard: _guard, .. } = fresh(Retention::default()).await;
    let clock = clock.expect("timed cases have a clock");
    let news = topic("news");
    let (watch, mut feed) = store.feed();
    watch.watch(&news);
    assert!(matches!(feed.next().await, Some(FeedEvent::Watching(_))));
    stored(&store.append(vec![item(&news, "1")]).await[0]);
    clock.go_back(SECOND * 3600);
    stored(&store.append(vec![item_with_ttl(&news, "2", SECOND * 5)]).await[0]);
    let mut fed = Vec::new();
    while fed.len() < 2 {
        if let Some(FeedEvent::Message(message)) = feed.next().await {
            fed.push(message.expires.map(|expires| expires - message.time));
        }
    }
    assert_eq!(fed, [None, Some(5_000)], "who hears it counts from its time");
    clock.advance(SECOND * 4);
    let page = store.read(&news, ReadFrom::Last(10), ALL).await.unwrap();
    assert_eq!(offsets(&page.messages), [1, 2]);
    clock.advance(SECOND);
    let page = store.read(&news, ReadFrom::Last(10), ALL).await.unwrap();
    assert_eq!(offsets(&page.messages), [1]);
}
