//! What rules by pattern promise: bounds of their own, topics that keep nothing, topics that keep what is latest; and
//! reads that begin at a time. The rules are `support::rules`.

use std::time::Duration;

use fanfare::domain::name::Topic;
use fanfare::domain::position::Position;
use fanfare::domain::store::{Append, Appended, FeedEvent, GapCause, Missing, ReadFrom, ReadLimit, Retention, Store};
use fanfare::domain::topic::Mode;
use futures::StreamExt;

use crate::Subject;
use crate::support::*;

const ALL: ReadLimit = ReadLimit { messages: 100_000, bytes: 1 << 30 };

fn numbered(topic: &Topic, count: u64) -> Vec<Append> {
    (1..=count).map(|n| item(topic, n.to_string())).collect()
}

/// Messages with these keys, `-` for none; the body tells which one it is.
fn keyed(topic: &Topic, keys: &str) -> Vec<Append> {
    let items = keys.chars().enumerate().map(|(n, key)| {
        let mut item = item(topic, format!("{key}{}", n + 1));
        item.publication.key = Some(key).filter(|key| *key != '-').map(|key| key.to_string().into());
        item
    });
    items.collect()
}

/// Lets the store's clock go on; answers what it tells then.
async fn later(store: &dyn Store, than: u64) -> u64 {
    loop {
        let answers = store.append(vec![item(&topic("clock"), "tick")]).await;
        match answers[0] {
            Ok(Appended::Stored { time, .. }) if time > than => return time,
            _ => tokio::task::yield_now().await,
        }
    }
}

pub async fn the_first_rule_that_a_topic_meets_sets_its_bounds<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let store = fresh(Retention::default()).await;
    let (few, news) = (topic("few.a"), topic("news"));
    // Both in one call.
    let batch = numbered(&few, 10).into_iter().chain(numbered(&news, 10)).collect();
    let epoch = stored(&store.store.append(batch).await[0]).epoch;
    let page = store.store.read(&few, ReadFrom::After(Position::new(epoch, 0)), ALL).await.unwrap();
    let missing = Missing { why: GapCause::Retention, to: Some(Position::new(epoch, 7)) };
    assert_eq!((offsets(&page.messages), page.missing, page.mode), (vec![8, 9, 10], Some(missing), Mode::Log));
    let page = store.store.read(&news, ReadFrom::Last(100), ALL).await.unwrap();
    assert_eq!(page.messages.len(), 10);
    let mode = |name: &str| store.store.settings(&topic(name)).mode;
    assert_eq!((mode("live.a"), mode("latest.a"), mode("live")), (Mode::Live, Mode::Latest, Mode::Log));
}

pub async fn a_live_topic_counts_and_keeps_nothing<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let subject = fresh(Retention::default()).await;
    let live = topic("live.a");
    let empty = subject.store.read(&live, ReadFrom::Last(0), ALL).await.unwrap();
    assert_eq!((empty.head.offset, empty.missing), (0, None));
    let head = stored(&subject.store.append(numbered(&live, 3)).await[2]);
    assert_eq!(head, Position::new(empty.head.epoch, 3));
    for after in 0..3 {
        let after = Position::new(head.epoch, after);
        let page = subject.store.read(&live, ReadFrom::After(after), ALL).await.unwrap();
        let missing = Missing { why: GapCause::Live, to: Some(head) };
        assert_eq!((page.start, page.end, page.head, page.missing), (head, head, head, Some(missing)));
        assert_eq!((page.messages.len(), page.mode), (0, Mode::Live));
    }
    for from in [ReadFrom::After(head), ReadFrom::Last(10)] {
        let page = subject.store.read(&live, from, ALL).await.unwrap();
        assert_eq!((page.messages.len(), page.start, page.end, page.missing), (0, head, head, None), "{from:?}");
    }
}

pub async fn keys_and_fences_work_on_a_live_topic<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let subject = fresh(Retention::default()).await;
    let live = topic("live.a");
    let first = subject.store.append(vec![item_with_key(&live, "a", "k")]).await;
    let entry = || fenced(&live, "b", fence("in", "life", 5, 0));
    let answers = subject.store.append(vec![item_with_key(&live, "a", "k"), entry(), entry()]).await;
    let durability = subject.store.status().durability;
    assert_eq!(answers[0], Ok(Appended::Repeated { at: stored(&first[0]), durability }));
    assert_eq!((stored(&answers[1]).offset, &answers[2]), (2, &Ok(Appended::Skipped)));
}

pub async fn a_live_topic_is_fed<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let subject = fresh(Retention::default()).await;
    let live = topic("live.a");
    let (watch, mut feed) = subject.store.feed();
    watch.watch(&live);
    assert!(matches!(feed.next().await, Some(FeedEvent::Watching(_))));
    let mut brief = item(&live, "x");
    brief.publication.ttl = Some(Duration::from_secs(60));
    subject.store.append(vec![brief, item(&live, "y")]).await;
    let mut fed = Vec::new();
    while fed.len() < 2 {
        if let Some(FeedEvent::Message(message)) = feed.next().await {
            fed.push((message.at.offset, message.expires.map(|expires| expires - message.time)));
        }
    }
    assert_eq!(fed, [(1, Some(60_000)), (2, None)]);
}

pub async fn the_latest_message_of_each_key_is_kept<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let subject = fresh(Retention::default()).await;
    let prices = topic("latest.a");
    let head = stored(&subject.store.append(keyed(&prices, "a-ba-")).await[4]);
    let at = |offset| Position::new(head.epoch, offset);
    for (from, start, kept) in [
        (ReadFrom::After(at(0)), 0, &["b3", "a4", "-5"][..]),
        (ReadFrom::After(at(3)), 3, &["a4", "-5"]),
        (ReadFrom::After(at(5)), 5, &[]),
        (ReadFrom::Last(0), 5, &[]),
        (ReadFrom::Last(1), 4, &["-5"]),
        (ReadFrom::Last(2), 3, &["a4", "-5"]),
        (ReadFrom::Last(u32::MAX), 2, &["b3", "a4", "-5"]),
    ] {
        let page = subject.store.read(&prices, from, ALL).await.unwrap();
        assert_eq!(
            (bodies(&page), page.start, page.missing),
            (kept.iter().map(|b| b.to_string()).collect(), at(start), None)
        );
        assert_eq!((page.end, page.head, page.mode), (head, head, Mode::Latest), "{from:?}");
    }
    // Page by page they are the same.
    let (mut after, mut read) = (at(0), Vec::new());
    while after != head {
        let page = subject.store.read(&prices, ReadFrom::After(after), ReadLimit { messages: 1, ..ALL }).await.unwrap();
        assert!(page.end.is_past(after) && page.missing.is_none(), "{page:?}");
        read.extend(bodies(&page));
        after = page.end;
    }
    assert_eq!(read, ["b3", "a4", "-5"]);
}

pub async fn of_too_many_keys_the_oldest_go_and_are_told<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let subject = fresh(Retention::default()).await;
    let prices = topic("latest.few.a");
    let head = stored(&subject.store.append(keyed(&prices, "abcda")).await[4]);
    let at = |offset| Position::new(head.epoch, offset);
    // Three are kept, so the fourth took the place of the first, whose newer one takes that of the second.
    for (after, start) in [(0, 2), (1, 2), (2, 2), (3, 3)] {
        let page = subject.store.read(&prices, ReadFrom::After(at(after)), ALL).await.unwrap();
        let missing = (after < start).then(|| Missing { why: GapCause::Retention, to: Some(at(start)) });
        assert_eq!((page.start, page.missing), (at(start), missing), "after {after}");
        assert_eq!(bodies(&page), ["c3", "d4", "a5"][start as usize - 2..]);
    }
    subject.store.append(keyed(&prices, "cccccccc")).await;
    let page = subject.store.read(&prices, ReadFrom::After(at(2)), ALL).await.unwrap();
    assert_eq!((bodies(&page), page.missing), (vec!["d4".into(), "a5".into(), "c8".into()], None));
}

pub async fn bytes_are_counted_for_what_is_latest<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let subject = fresh(Retention { bytes: 1_000, ..Retention::default() }).await;
    let prices = topic("latest.a");
    let item = |key: &str, size: usize| {
        let mut item = item(&prices, vec![b'x'; size]);
        item.publication.key = Some(key.into());
        item
    };
    // What is replaced takes no room.
    let mut batch: Vec<Append> = (0..50).map(|_| item("a", 400)).collect();
    batch.push(item("b", 400));
    subject.store.append(batch).await;
    let page = subject.store.read(&prices, ReadFrom::Last(100), ALL).await.unwrap();
    assert_eq!(offsets(&page.messages), [50, 51]);
    subject.store.append(vec![item("c", 400)]).await;
    let page = subject.store.read(&prices, ReadFrom::Last(100), ALL).await.unwrap();
    assert_eq!(offsets(&page.messages), [51, 52]);
}

pub async fn what_was_stored_since_a_time_is_given<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let subject = fresh(Retention::default()).await;
    let news = topic("news");
    let mut times = Vec::new();
    for n in 0..20 {
        for answer in subject.store.append(vec![item(&news, format!("{n}")), item(&news, format!("{n}"))]).await {
            let Ok(Appended::Stored { at, time, .. }) = answer else { panic!("{answer:?}") };
            times.push((time, at));
        }
        if let Some(clock) = &subject.clock {
            clock.advance(Duration::from_millis(3));
        }
        later(&*subject.store, times[times.len() - 1].0).await;
    }
    let head = times[39].1;
    for (since, missing) in times.iter().flat_map(|(time, _)| [(time - 1, None), (*time, None), (time + 1, None)]) {
        let page = subject.store.read(&news, ReadFrom::Since(since), ALL).await.unwrap();
        let expected: Vec<u64> = times.iter().filter(|(time, _)| *time >= since).map(|(_, at)| at.offset).collect();
        assert_eq!(page.start.offset, 40 - expected.len() as u64, "before the first that follows");
        assert_eq!((offsets(&page.messages), page.end, page.missing), (expected, head, missing));
    }
    for (since, count) in [(0, 40), (u64::MAX, 0)] {
        let page = subject.store.read(&news, ReadFrom::Since(since), ALL).await.unwrap();
        assert_eq!((page.messages.len(), page.missing), (count, None), "before its first life is nothing");
    }
    // Of a topic that nobody has heard of.
    let page = subject.store.read(&topic("new"), ReadFrom::Since(0), ALL).await.unwrap();
    assert_eq!((page.start, page.end, page.missing), (page.head, page.head, None));
}

pub async fn what_bounds_took_since_a_time_is_told<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let subject = fresh(Retention::default()).await;
    let few = topic("few.a");
    let answers = subject.store.append(numbered(&few, 10)).await;
    let Ok(Appended::Stored { at: head, time, .. }) = answers[9] else { panic!("{answers:?}") };
    let seventh = Position::new(head.epoch, 7);
    let page = subject.store.read(&few, ReadFrom::Since(time - 1), ALL).await.unwrap();
    let missing = Some(Missing { why: GapCause::Retention, to: Some(seventh) });
    assert_eq!((offsets(&page.messages), page.start, page.missing), (vec![8, 9, 10], seventh, missing));
    let page = subject.store.read(&few, ReadFrom::Since(time + 1), ALL).await.unwrap();
    assert_eq!((page.messages.len(), page.start, page.missing), (0, head, None));
    // One that keeps nothing.
    let live = topic("live.a");
    let answers = subject.store.append(numbered(&live, 2)).await;
    let Ok(Appended::Stored { at: head, time, .. }) = answers[1] else { panic!("{answers:?}") };
    for (since, missing) in [(time, Some(Missing { why: GapCause::Live, to: Some(head) })), (time + 1, None)] {
        let page = subject.store.read(&live, ReadFrom::Since(since), ALL).await.unwrap();
        assert_eq!((page.messages.len(), page.start, page.missing), (0, head, missing));
    }
}

pub async fn the_latest_message_may_expire_and_leaves_its_place_empty<F: Future<Output = Subject>>(
    fresh: fn(Retention) -> F,
) {
    let subject = fresh(Retention::default()).await;
    let clock = subject.clock.as_ref().expect("timed cases have a clock");
    let prices = topic("latest.a");
    let mut batch = keyed(&prices, "aba");
    batch[2].publication.ttl = Some(Duration::from_secs(5));
    let head = stored(&subject.store.append(batch).await[2]);
    clock.advance(Duration::from_secs(5));
    for from in [ReadFrom::Last(10), ReadFrom::After(Position::new(head.epoch, 0))] {
        let page = subject.store.read(&prices, from, ALL).await.unwrap();
        assert_eq!((bodies(&page), page.end, page.missing), (vec!["b2".into()], head, None), "{from:?}");
    }
    subject.store.append(keyed(&prices, "a")).await;
    let page = subject.store.read(&prices, ReadFrom::Last(10), ALL).await.unwrap();
    assert_eq!(offsets(&page.messages), [2, 4]);
}

pub async fn what_is_latest_grows_too_old_and_is_told<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let retention = Retention { age: Duration::from_secs(60), ..Retention::default() };
    let subject = fresh(retention).await;
    let clock = subject.clock.as_ref().expect("timed cases have a clock");
    let prices = topic("latest.a");
    let first = stored(&subject.store.append(keyed(&prices, "a")).await[0]);
    clock.advance(Duration::from_secs(40));
    subject.store.append(keyed(&prices, "bbb")).await;
    clock.advance(Duration::from_secs(20));
    let page = subject.store.read(&prices, ReadFrom::After(first.before()), ALL).await.unwrap();
    let missing = Some(Missing { why: GapCause::Retention, to: Some(first) });
    assert_eq!((offsets(&page.messages), page.start, page.missing), (vec![4], first, missing));
    let page = subject.store.read(&prices, ReadFrom::After(first), ALL).await.unwrap();
    assert_eq!((offsets(&page.messages), page.start, page.missing), (vec![4], first, None));
}
