//! What the feed promises, alone and together with pages.

use std::collections::HashMap;

use fanfare::domain::message::Message;
use fanfare::domain::name::Topic;
use fanfare::domain::position::Position;
use fanfare::domain::store::{FeedEvent, ReadFrom, ReadLimit, Retention, Store};
use futures::StreamExt;
use futures::future::join_all;
use futures::stream::BoxStream;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::Subject;
use crate::support::*;

const ALL: ReadLimit = ReadLimit { messages: 100_000, bytes: 1 << 30 };

/// Enough for all that these cases write.
fn everything() -> Retention {
    Retention { messages: 1_000_000, ..Retention::default() }
}

pub async fn only_watched_topics_are_fed<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let Subject { store, guard: _guard, .. } = fresh(everything()).await;
    let (news, other) = (topic("news"), topic("other"));
    let (watch, mut feed) = store.feed();
    watch.watch(&news);
    until_watching(&mut feed, &news).await;
    store.append(vec![item(&other, "1"), item(&news, "2"), item(&other, "3"), item(&news, "4")]).await;
    let fed = [next_message(&mut feed).await, next_message(&mut feed).await];
    assert!(fed.iter().all(|m| m.topic == news), "{fed:?}");
    assert_eq!(offsets(&fed), [1, 2]);
}

pub async fn messages_are_fed_in_order_once_watching_is_said<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let Subject { store, guard: _guard, .. } = fresh(everything()).await;
    let news = topic("news");
    store.append(vec![item(&news, "before")]).await;
    let (watch, mut feed) = store.feed();
    watch.watch(&news);
    // The first event is the answer: nothing comes before it.
    assert!(matches!(feed.next().await, Some(FeedEvent::Watching(topic)) if topic == news));
    for n in 0..20 {
        store.append((0..10).map(|i| item(&news, (n * 10 + i).to_string())).collect()).await;
    }
    let page = store.read(&news, ReadFrom::Last(1000), ALL).await.unwrap();
    for expected in &page.messages[1..] {
        assert_eq!(next_message(&mut feed).await, *expected, "the feed gives what pages give");
    }
}

pub async fn a_topic_may_be_watched_twice<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let Subject { store, guard: _guard, .. } = fresh(everything()).await;
    let news = topic("news");
    let (watch, mut feed) = store.feed();
    watch.watch(&news);
    until_watching(&mut feed, &news).await;
    watch.watch(&news);
    until_watching(&mut feed, &news).await;
    store.append(vec![item(&news, "a"), item(&news, "b")]).await;
    // Twice is allowed by the contract; a reader goes by positions.
    let mut last = 0;
    while last < 2 {
        let offset = next_message(&mut feed).await.at.offset;
        assert!(offset <= last + 1, "no hole before {offset}");
        last = last.max(offset);
    }
}

pub async fn a_topic_no_longer_watched_is_silent<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let Subject { store, guard: _guard, .. } = fresh(everything()).await;
    let (news, other) = (topic("news"), topic("other"));
    let (watch, mut feed) = store.feed();
    watch.watch(&news);
    until_watching(&mut feed, &news).await;
    watch.unwatch(&news);
    // Wishes are heard in order: once the second is answered, the first is heard.
    watch.watch(&other);
    until_watching(&mut feed, &other).await;
    store.append(vec![item(&news, "unheard"), item(&other, "heard")]).await;
    assert_eq!(next_message(&mut feed).await.topic, other);
}

pub async fn a_second_feed_takes_the_place_of_the_first<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let Subject { store, guard: _guard, .. } = fresh(everything()).await;
    let news = topic("news");
    let (watch, mut feed) = store.feed();
    watch.watch(&news);
    until_watching(&mut feed, &news).await;
    let (watch, mut second) = store.feed();
    watch.watch(&news);
    until_watching(&mut second, &news).await;
    store.append(vec![item(&news, "a")]).await;
    assert_eq!(next_message(&mut second).await.at.offset, 1);
    // The first ends, and was given nothing more.
    while let Some(event) = feed.next().await {
        assert!(!matches!(event, FeedEvent::Message(_)), "{event:?}");
    }
}

pub async fn a_reader_that_races_writers_sees_whole_pages<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let Subject { store, guard: _guard, .. } = fresh(everything()).await;
    let news = topic("news");
    let start = store.read(&news, ReadFrom::Last(0), ALL).await.unwrap().head;
    let writers = (0..4).map(|_| {
        let (store, news) = (store.clone(), news.clone());
        tokio::spawn(async move {
            for n in 0..50 {
                store.append((0..1 + n % 7).map(|_| item(&news, "x")).collect()).await;
            }
        })
    });
    let writers = join_all(writers);
    let reader = async {
        let limit = ReadLimit { messages: 13, ..ALL };
        let mut after = start;
        // Each of the writers stores the same number.
        let total: u64 = 4 * (0..50).map(|n| 1 + n % 7).sum::<u64>();
        while after.offset < total {
            let page = store.read(&news, ReadFrom::After(after), limit).await.unwrap();
            assert_eq!((page.start, page.missing), (after, None));
            assert_eq!(offsets(&page.messages), (after.offset + 1..=page.end.offset).collect::<Vec<_>>());
            assert!(page.messages.len() == 13 || page.is_last(), "a page is full or the last: {page:?}");
            after = page.end;
        }
    };
    let (done, ()) = tokio::join!(writers, reader);
    done.into_iter().for_each(|d| d.unwrap());
}

/// A reader that begins somewhere in the midst of writers, by the feed and pages as the hub does, sees every message.
pub async fn pages_and_feed_together_have_no_hole<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let Subject { store, guard: _guard, .. } = fresh(everything()).await;
    let mut runner = TestRunner::deterministic();
    let plans = prop::collection::vec((0..3usize, 1..20usize, 0..4u8), 10..40);
    for round in 0..20 {
        let plan = plans.new_tree(&mut runner).expect("a plan").current();
        let topics: Vec<_> = (0..3).map(|n| topic(&format!("r{round}.t{n}"))).collect();
        race(&*store, &topics, &plan).await;
    }
}

/// Plays a plan: (topic, how many messages, whether to yield, to watch before, or to do so without waiting).
async fn race(store: &dyn Store, topics: &[Topic], plan: &[(usize, usize, u8)]) {
    let (watch, mut feed) = store.feed();
    let mut calls = Vec::new();
    let mut written = HashMap::new();
    for &(n, count, how) in plan {
        if how == 1 {
            watch.watch(&topics[n]);
        }
        let call = store.append((0..count).map(|_| item(&topics[n], "x")).collect());
        *written.entry(topics[n].clone()).or_insert(0) += count as u64;
        match how {
            2 => drop(call.await),
            3 => tokio::task::yield_now().await,
            _ => calls.push(call),
        }
    }
    for topic in topics {
        watch.watch(topic);
    }
    let mut seen: HashMap<Topic, Position> = HashMap::new();
    while topics.iter().any(|t| seen.get(t).map_or(0, |p| p.offset) < written.get(t).copied().unwrap_or(0)) {
        match feed.next().await.expect("the feed goes on") {
            FeedEvent::Watching(topic) => {
                // What was stored before comes from pages; what follows comes from the feed.
                let after = seen.get(&topic).map_or(ReadFrom::Last(u32::MAX), |at| ReadFrom::After(*at));
                let page = store.read(&topic, after, ALL).await.unwrap();
                assert_eq!(page.start.offset, seen.get(&topic).map_or(0, |at| at.offset));
                assert_eq!(offsets(&page.messages), (page.start.offset + 1..=page.end.offset).collect::<Vec<_>>());
                seen.insert(topic, page.end);
            }
            FeedEvent::Message(Message { topic, at, .. }) => {
                let last = *seen.get(&topic).expect("nothing is fed before Watching");
                if at.is_past(last) {
                    assert_eq!(at, last.next(), "a hole in {topic}");
                    seen.insert(topic, at);
                }
            }
            FeedEvent::Interrupted | FeedEvent::Restored => {}
        }
    }
    join_all(calls).await;
}

async fn until_watching(feed: &mut BoxStream<'static, FeedEvent>, topic: &Topic) {
    while let Some(event) = feed.next().await {
        if matches!(&event, FeedEvent::Watching(which) if which == topic) {
            return;
        }
    }
    panic!("the feed ended before it watched {topic}");
}

async fn next_message(feed: &mut BoxStream<'static, FeedEvent>) -> Message {
    while let Some(event) = feed.next().await {
        if let FeedEvent::Message(message) = event {
            return message;
        }
    }
    panic!("the feed ended");
}
