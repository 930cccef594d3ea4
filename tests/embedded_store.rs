//! What is particular to the embedded store: its bounds, its thread's death, its feed under pressure, dead letters.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use fanfare::domain::dead::{DeadLetter, DeadLetterBox, DeadLetters};
use fanfare::domain::error::Reason;
use fanfare::domain::position::Position;
use fanfare::domain::store::{
    Append, Appended, FeedEvent, GapCause, ReadFrom, ReadLimit, Retention, Store, StoreError,
};
use fanfare::store::{OpenError, Opened, Options, open};
use futures::{FutureExt, StreamExt};
use support::*;

const ALL: ReadLimit = ReadLimit { messages: 1_000_000, bytes: 1 << 30 };

async fn open_memory(options: Options) -> (Arc<dyn Store>, Arc<dyn DeadLetterBox>) {
    let Opened { store, embedded_dead, .. } = open("memory", options).await.expect("it opens");
    (store, embedded_dead.expect("an embedded store keeps dead letters"))
}

#[tokio::test]
async fn urls_that_name_no_store_are_told_what_does() {
    for url in ["", "memory:", "postgres://localhost", "/var/lib/x"] {
        let error = open(url, Options::default()).await.err().expect("it does not open");
        assert!(matches!(error, OpenError::Unknown(_)) && error.to_string().contains("memory"), "{error}");
    }
    for url in ["disk", "disk:"] {
        assert_eq!(open(url, Options::default()).await.err(), Some(OpenError::NoFolder(url.into())));
    }
    let error = open("rdis://user:hush@host", Options::default()).await.err().unwrap();
    assert!(!error.to_string().contains("hush"), "{error}");
}

#[tokio::test]
async fn a_panic_of_the_thread_fails_calls_and_hangs_none() {
    let panics = Arc::new(AtomicBool::new(false));
    let flag = panics.clone();
    let clock =
        fanfare::store::Clock::by_hand(
            move || if flag.load(Ordering::SeqCst) { panic!("as the test asked") } else { 1_000 },
        );
    let (store, dead) = open_memory(Options { clock, ..Options::default() }).await;
    let news = topic("news");
    let (_watch, mut feed) = store.feed();
    let mut retried = dead.retried();
    store.append(vec![item(&news, "a")]).await;
    assert_eq!(store.status().trouble, None);

    panics.store(true, Ordering::SeqCst);
    let at_work = store.append(vec![item(&news, "b"), item(&news, "c")]).await;
    assert!(matches!(at_work[..], [Err(StoreError::Unconfirmed(_)), Err(StoreError::Unconfirmed(_))]), "{at_work:?}");
    assert!(feed.next().await.is_none(), "the feed ends");
    // The feed ends before the inbox does, so one more call may still have been taken; none of them hangs.
    while !matches!(store.append(vec![item(&news, "d")]).await[0], Err(StoreError::Unavailable(_))) {}
    assert!(matches!(store.read(&news, ReadFrom::Last(1), ALL).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(dead.count().await, Err(StoreError::Unavailable(_))));
    assert!(retried.next().await.is_none());
    assert!(store.status().trouble.is_some());
    store.close().await;
}

/// A clock that tells when it is asked, and then answers only once the gate is open: it holds the thread.
fn gated_clock() -> (fanfare::store::Clock, Arc<Mutex<()>>, mpsc::Receiver<()>) {
    let gate = Arc::new(Mutex::new(()));
    let (asks, asked) = mpsc::channel();
    let asks = Mutex::new(asks);
    let behind = gate.clone();
    let clock = fanfare::store::Clock::by_hand(move || {
        let _ = asks.lock().unwrap().send(());
        drop(behind.lock().unwrap());
        1_000
    });
    (clock, gate, asked)
}

#[test]
fn calls_beyond_the_bound_are_refused_at_once() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (clock, gate, asked) = gated_clock();
    let options = Options { clock, waiting_calls: 3, waiting_bytes: 10_000, ..Options::default() };
    let (store, _dead) = runtime.block_on(open_memory(options));
    let news = topic("news");
    let closed = gate.lock().unwrap();
    asked.try_iter().for_each(drop);
    let first = store.append(vec![item(&news, "taken by the thread")]);
    asked.recv().unwrap();
    let waiting: Vec<_> = (0..3).map(|_| store.append(vec![item(&news, "waits")])).collect();
    let refused = store.append(vec![item(&news, "one too many")]).now_or_never().expect("answered at once");
    assert!(matches!(&refused[0], Err(StoreError::Unavailable(text)) if text.contains("3 calls")), "{refused:?}");
    let refused = store.read(&news, ReadFrom::Last(1), ALL).now_or_never().expect("answered at once");
    assert!(matches!(refused, Err(StoreError::Unavailable(_))));
    drop(closed);
    assert_eq!(stored(&runtime.block_on(first)[0]).offset, 1);
    for (n, call) in waiting.into_iter().enumerate() {
        assert_eq!(stored(&runtime.block_on(call)[0]).offset, n as u64 + 2);
    }
    // One call beyond the bytes is taken when it is alone.
    let large = runtime.block_on(store.append(vec![item(&news, vec![0; 100_000])]));
    assert_eq!(stored(&large[0]).offset, 5);
}

#[tokio::test]
async fn beyond_the_total_the_oldest_go_first_whatever_their_topic() {
    let (store, _dead) = open_memory(Options { total_bytes: 20_000, ..Options::default() }).await;
    let (old, new) = (topic("old"), topic("new"));
    let first = stored(&store.append((0..10).map(|_| item(&old, vec![b'o'; 936])).collect()).await[0]);
    let answers = store.append((0..15).map(|_| item(&new, vec![b'n'; 936])).collect()).await;
    assert!(answers.iter().all(|a| a.is_ok()), "what is new is stored");
    // 1,000 bytes each with what they cost beside: 20 fit, so the 5 oldest are gone.
    let page = store.read(&old, ReadFrom::After(first.before()), ALL).await.unwrap();
    assert_eq!(
        (offsets(&page.messages), page.missing.map(|m| m.why)),
        (vec![6, 7, 8, 9, 10], Some(GapCause::Retention))
    );
    assert_eq!(store.read(&new, ReadFrom::Last(100), ALL).await.unwrap().messages.len(), 15);

    let answers = store.append(vec![item(&new, vec![0; 20_000]), item(&new, "small")]).await;
    assert!(matches!(answers[0], Err(StoreError::Full(_))), "it could never fit");
    assert_eq!(stored(&answers[1]).offset, 16);
}

#[tokio::test]
async fn beyond_the_bounds_new_topics_and_keys_are_refused_and_known_ones_go_on() {
    let (store, _dead) = open_memory(Options { topics: 2, idempotency_keys: 2, ..Options::default() }).await;
    let (a, b, c) = (topic("a"), topic("b"), topic("c"));
    let keyed = |key| item_with_key(&a, "x", key);
    let answers =
        store.append(vec![keyed("k1"), item(&b, "x"), item(&c, "x"), keyed("k2"), keyed("k3"), keyed("k1")]).await;
    let full: Vec<_> = answers.iter().map(|a| matches!(a, Err(StoreError::Full(_)))).collect();
    assert_eq!(full, [false, false, true, false, true, false], "{answers:?}");
    assert!(matches!(store.read(&c, ReadFrom::Last(1), ALL).await, Err(StoreError::Full(_))));
    assert_eq!(stored(&store.append(vec![item(&b, "y")]).await[0]).offset, 2);
}

#[tokio::test]
async fn a_fenced_item_that_found_no_room_for_its_key_is_not_passed_by_a_later_one() {
    let (store, _dead) = open_memory(Options { topics: 2, idempotency_keys: 1, ..Options::default() }).await;
    let (a, b, c) = (topic("a"), topic("b"), topic("c"));
    let mark = |item: Append, ms| Append { fence: Some(fence("in", "life", ms, 0)), ..item };
    let batch = vec![
        mark(item_with_key(&a, "1", "k1"), 1),
        mark(item_with_key(&a, "2", "k2"), 2),
        mark(item(&a, "3"), 3),
        mark(item_with_key(&a, "1", "k1"), 4),
        mark(item(&b, "5"), 5),
        mark(item(&c, "6"), 6),
        mark(item(&c, "7"), 7),
    ];
    let answers = store.append(batch.clone()).await;
    let full: Vec<_> = answers.iter().map(|a| matches!(a, Err(StoreError::Full(_)))).collect();
    assert_eq!(full, [false, true, true, true, false, true, true], "{answers:?}");
    // The same entry without its key is taken, and what follows it.
    let again = store.append(vec![mark(item(&a, "2"), 2), batch[2].clone(), batch[3].clone()]).await;
    assert_eq!((stored(&again[0]).offset, stored(&again[1]).offset), (2, 3));
    assert!(matches!(again[2], Ok(Appended::Repeated { at, .. }) if at.offset == 1), "{again:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_a_small_feed_may_read_pages_before_it_goes_on() {
    // The feed is full all the time, and its reader asks the store between any two events: neither waits for the other.
    let retention = Retention { messages: 100_000, ..Retention::default() };
    let (store, _dead) = open_memory(Options { feed_capacity: 2, retention, ..Options::default() }).await;
    let news = topic("news");
    let (watch, mut feed) = store.feed();
    watch.watch(&news);
    assert!(matches!(feed.next().await, Some(FeedEvent::Watching(_))));
    let writer = tokio::spawn({
        let (store, news) = (store.clone(), news.clone());
        async move {
            for _ in 0..200 {
                store.append((0..5).map(|_| item(&news, "x")).collect()).await;
            }
        }
    });
    let mut seen = Position::new(store.read(&news, ReadFrom::Last(0), ALL).await.unwrap().head.epoch, 0);
    while seen.offset < 1_000 {
        match feed.next().await.expect("the feed goes on") {
            FeedEvent::Message(message) if !message.at.is_past(seen.next()) => {
                if message.at.is_past(seen) {
                    seen = message.at;
                }
            }
            FeedEvent::Watching(_) => {}
            // A hole, told or seen: the page fills it.
            FeedEvent::Message(_) | FeedEvent::Interrupted | FeedEvent::Restored => {
                let page = store.read(&news, ReadFrom::After(seen), ALL).await.unwrap();
                assert_eq!(page.missing, None);
                assert_eq!(offsets(&page.messages), (seen.offset + 1..=page.end.offset).collect::<Vec<_>>());
                seen = page.end;
            }
        }
        store.read(&news, ReadFrom::Last(1), ALL).await.unwrap();
    }
    writer.await.unwrap();
}

#[tokio::test]
async fn a_feed_that_is_not_read_stays_bounded_and_tells_of_the_hole() {
    let (store, _dead) = open_memory(Options { feed_capacity: 2, ..Options::default() }).await;
    let news = topic("news");
    let (watch, mut feed) = store.feed();
    watch.watch(&news);
    assert!(matches!(feed.next().await, Some(FeedEvent::Watching(_))));
    for n in 0..50 {
        // The read behind it makes the thread go on though nobody reads the feed.
        let stored = store.append(vec![item(&news, n.to_string())]);
        store.read(&news, ReadFrom::Last(0), ALL).await.unwrap();
        stored.await;
    }
    let mut fed = Vec::new();
    loop {
        match feed.next().await.unwrap() {
            FeedEvent::Message(message) => fed.push(message.at.offset),
            FeedEvent::Interrupted => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(fed, (1..=8).collect::<Vec<_>>(), "four times its size, and then nothing");
    assert!(matches!(feed.next().await, Some(FeedEvent::Restored)));
    store.append(vec![item(&news, "after")]).await;
    assert!(matches!(feed.next().await, Some(FeedEvent::Message(message)) if message.at.offset == 51));
}

#[tokio::test]
async fn a_feed_that_was_dropped_holds_nobody_up() {
    let (store, _dead) = open_memory(Options { feed_capacity: 1, ..Options::default() }).await;
    let news = topic("news");
    let (watch, mut feed) = store.feed();
    watch.watch(&news);
    assert!(matches!(feed.next().await, Some(FeedEvent::Watching(_))));
    store.append(vec![item(&news, "fills it")]).await;
    let waits = store.append(vec![item(&news, "waits")]);
    drop(feed);
    assert_eq!(stored(&waits.await[0]).offset, 2);
}

fn letter(entry: &str) -> DeadLetter {
    DeadLetter {
        id: "not looked at".into(),
        source: "fanfare:in".into(),
        entry: entry.into(),
        time: 1_795_331_083_000,
        reason: Reason::BadName,
        text: "주제 'a b' has a space".into(),
        fields: vec![(b"topic".to_vec(), b"a b".to_vec()), (vec![], (0..=255).collect()), (vec![0], vec![])],
    }
}

#[tokio::test]
async fn dead_letters_are_kept_as_they_came_listed_in_pages_and_dropped() {
    let (_store, dead) = open_memory(Options::default()).await;
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(dead.bury(letter(&format!("{n}-0"))).await.unwrap());
    }
    let first = dead.list(None, 2).await.unwrap();
    assert_eq!(first, [("0-0", &ids[0]), ("1-0", &ids[1])].map(|(e, id)| DeadLetter { id: id.clone(), ..letter(e) }));
    let rest = dead.list(Some(&ids[1]), 100).await.unwrap();
    assert_eq!(rest.iter().map(|l| &l.id).collect::<Vec<_>>(), ids[2..].iter().collect::<Vec<_>>());
    assert_eq!(DeadLetters::discard(&*dead, &ids[2]).await, Ok(true));
    assert_eq!(DeadLetters::discard(&*dead, &ids[2]).await, Ok(false));
    assert_eq!(DeadLetters::discard(&*dead, "no id").await, Ok(false));
    assert_eq!(dead.count().await, Ok(4));
}

#[tokio::test]
async fn a_retried_letter_comes_again_until_it_is_settled() {
    let (store, dead) = open_memory(Options::default()).await;
    let (a, b) = (dead.bury(letter("a")).await.unwrap(), dead.bury(letter("b")).await.unwrap());
    let mut retried = dead.retried();
    assert!(retried.next().now_or_never().is_none(), "nothing is retried");
    assert_eq!((dead.retry(&b).await, dead.retry(&a).await), (Ok(true), Ok(true)));
    assert_eq!(dead.retry(&a).await, Ok(false), "it is on its way");
    assert_eq!(retried.next().await.unwrap(), DeadLetter { id: b.clone(), ..letter("b") });
    assert_eq!(retried.next().await.unwrap().id, a);
    assert_eq!((dead.count().await, dead.list(None, 10).await), (Ok(0), Ok(vec![])));
    assert_eq!(DeadLetters::discard(&*dead, &a).await, Ok(false));

    // The source died before it had applied the second: a new one gets it again.
    assert_eq!(dead.settle(&b).await, Ok(true));
    assert_eq!(dead.settle(&b).await, Ok(false));
    let mut again = dead.retried();
    assert_eq!(again.next().await.unwrap().id, a);
    assert_eq!(dead.settle(&a).await, Ok(true));
    let c = dead.bury(letter("c")).await.unwrap();
    assert_eq!(dead.settle(&c).await, Ok(false), "only what was retried is settled");
    dead.retry(&c).await.unwrap();
    assert_eq!(again.next().await.unwrap().id, c);
    store.close().await;
    assert!(again.next().await.is_none());
}

#[tokio::test]
async fn beyond_their_bound_the_oldest_letters_go() {
    let (_store, dead) = open_memory(Options { dead_letters: 3, ..Options::default() }).await;
    for n in 0..5 {
        dead.bury(letter(&n.to_string())).await.unwrap();
    }
    let kept = dead.list(None, 10).await.unwrap();
    assert_eq!(kept.iter().map(|l| &*l.entry).collect::<Vec<_>>(), ["2", "3", "4"]);
    // Those that are on their way back stay; when there are only those, there is no room.
    for letter in &kept {
        dead.retry(&letter.id).await.unwrap();
    }
    assert!(matches!(dead.bury(letter("5")).await, Err(StoreError::Full(_))));
    dead.settle(&kept[0].id).await.unwrap();
    dead.bury(letter("6")).await.unwrap();
    assert_eq!(dead.count().await, Ok(1));
}

/// Not a test of truth but of speed; `cargo test --release --test embedded_store -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn how_many_appends_a_second() {
    let topics: Vec<_> = (0..1_000).map(|n| topic(&format!("t{n}"))).collect();
    let body = bytes::Bytes::from(vec![b'x'; 200]);
    for (name, retention, fenced_too) in [
        ("room for all", 1_000_000, false),
        ("100 kept a topic", 100, false),
        ("room for all, with fences", 1_000_000, true),
    ] {
        let retention = Retention { messages: retention, ..Retention::default() };
        let (store, _dead) = open_memory(Options { retention, ..Options::default() }).await;
        let batches: u64 = 600;
        let mut seed = 1u64;
        let made: Vec<Vec<_>> = (0..batches)
            .map(|batch| {
                let one = |n: u64| {
                    seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    let topic = &topics[(seed >> 33) as usize % 1_000];
                    let id = batch * 1_000 + n;
                    if fenced_too {
                        fenced(topic, body.clone(), fence("in", "life", id, 0))
                    } else {
                        item(topic, body.clone())
                    }
                };
                (0..1_000).map(one).collect()
            })
            .collect();
        let (begun, cpu) = (std::time::Instant::now(), cpu_seconds());
        let mut waiting = std::collections::VecDeque::new();
        for batch in made {
            waiting.push_back(store.append(batch));
            if waiting.len() == 4 {
                let answers = waiting.pop_front().unwrap().await;
                assert!(answers.iter().all(|a| a.is_ok()));
            }
        }
        for call in waiting {
            call.await;
        }
        let took = begun.elapsed().max(Duration::from_nanos(1));
        let (count, cpu) = (batches as f64 * 1000.0, cpu_seconds() - cpu);
        println!(
            "{name}: {:.0} appends/s, {:.2} µs of processor each (all threads)",
            count / took.as_secs_f64(),
            cpu / count * 1e6
        );
        store.close().await;
    }
}

/// What this process has used of the processors; on a machine that others use too, the fairer figure.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("this measures on Linux");
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks = |n: usize| fields[n].parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) / 100.0
}
