//! What `append` and `close` promise.

use std::collections::HashMap;

use fanfare::domain::message::Durability;
use fanfare::domain::name::Topic;
use fanfare::domain::store::{Append, Appended, ReadFrom, ReadLimit, Retention, StoreError};
use futures::future::join_all;

use crate::Subject;
use crate::support::*;

const ALL: ReadLimit = ReadLimit { messages: 100_000, bytes: 1 << 30 };

pub async fn offsets_count_from_one_in_the_order_of_the_batch<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let subject = fresh(Retention::default()).await;
    let news = topic("news");
    let answers = subject.store.append(vec![item(&news, "a"), item(&news, "b"), item(&news, "c")]).await;
    let at: Vec<_> = answers.iter().map(stored).collect();
    assert_eq!(at.iter().map(|p| p.offset).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(at.iter().all(|p| p.epoch == at[0].epoch), "one life: {at:?}");

    let next = subject.store.append(vec![item(&news, "d")]).await;
    assert_eq!(stored(&next[0]), at[2].next());
    let page = subject.store.read(&news, ReadFrom::Last(10), ALL).await.unwrap();
    assert_eq!(bodies(&page), ["a", "b", "c", "d"]);
    assert!(page.messages.iter().all(|m| m.topic == news && m.time > 0));
}

pub async fn a_batch_over_many_topics_is_answered_item_by_item<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let subject = fresh(Retention::default()).await;
    let topics: Vec<_> = (0..50).map(|n| topic(&format!("t.{n}"))).collect();
    let batch: Vec<_> = (0..500).map(|n| item(&topics[n * 7 % 50], format!("{n}"))).collect();
    let answers = subject.store.append(batch.clone()).await;
    assert_eq!(answers.len(), 500);
    let mut heads = HashMap::new();
    for (item, answer) in batch.iter().zip(&answers) {
        let head = heads.entry(item.publication.topic.clone()).or_insert(0);
        *head += 1;
        assert_eq!(stored(answer).offset, *head, "of {}", item.publication.topic);
    }
    for (n, answer) in answers.iter().enumerate() {
        let at = stored(answer);
        let page = subject.store.read(&topics[n * 7 % 50], ReadFrom::After(at.before()), ALL).await.unwrap();
        assert_eq!(bodies(&page)[0], n.to_string());
    }
}

pub async fn calls_are_applied_in_the_order_in_which_they_were_made<F: Future<Output = Subject>>(
    fresh: fn(Retention) -> F,
) {
    let subject = fresh(Retention::default()).await;
    let news = topic("news");
    let calls: Vec<_> = (0..100).map(|n| subject.store.append(vec![item(&news, n.to_string())])).collect();
    let read = subject.store.read(&news, ReadFrom::Last(1000), ALL);
    // Waited for backwards: the order is that of the calls, not of the waiting.
    for (n, call) in calls.into_iter().enumerate().rev() {
        assert_eq!(stored(&call.await[0]).offset, n as u64 + 1);
    }
    let expected: Vec<_> = (0..100).map(|n| n.to_string()).collect();
    assert_eq!(bodies(&read.await.unwrap()), expected);
}

pub async fn a_call_does_its_work_though_nobody_waits_for_it<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let subject = fresh(Retention::default()).await;
    let news = topic("news");
    drop(subject.store.append(vec![item(&news, "unwatched")]));
    let after = subject.store.append(vec![item(&news, "second")]).await;
    assert_eq!(stored(&after[0]).offset, 2);
}

pub async fn concurrent_appenders_each_keep_their_order<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let subject = fresh(Retention { messages: 10_000, ..Retention::default() }).await;
    let news = topic("news");
    let writers = (0..8).map(|writer| {
        let (store, news) = (subject.store.clone(), news.clone());
        tokio::spawn(async move {
            for call in 0..20 {
                let batch = (0..10).map(|n| item(&news, format!("{writer}:{}", call * 10 + n))).collect();
                let at: Vec<_> = store.append(batch).await.iter().map(stored).collect();
                assert!(at.is_sorted_by(|a, b| b.is_past(*a)), "{at:?}");
            }
        })
    });
    join_all(writers).await.into_iter().for_each(|done| done.unwrap());

    let page = subject.store.read(&news, ReadFrom::Last(10_000), ALL).await.unwrap();
    assert_eq!(offsets(&page.messages), (1..=1600).collect::<Vec<_>>());
    let mut next = HashMap::new();
    for body in bodies(&page) {
        let (writer, n) = body.split_once(':').unwrap();
        let expected = next.entry(writer.to_owned()).or_insert(0);
        assert_eq!(n.parse::<i32>().unwrap(), *expected, "of writer {writer}");
        *expected += 1;
    }
}

pub async fn an_empty_batch_has_an_empty_answer<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    assert_eq!(fresh(Retention::default()).await.store.append(vec![]).await, vec![]);
}

pub async fn bodies_come_back_byte_for_byte<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let subject = fresh(Retention::default()).await;
    let bytes = topic("bytes");
    let mut written: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    written.push((0..=255).collect());
    written.push(vec![]);
    written.push(b"\r\n$5\r\n'\";--\0\0\r\n".to_vec());
    let answers = subject.store.append(written.iter().map(|b| item(&bytes, b.clone())).collect()).await;
    assert_eq!(stored(answers.last().unwrap()).offset, written.len() as u64);
    let page = subject.store.read(&bytes, ReadFrom::Last(1000), ALL).await.unwrap();
    let read: Vec<_> = page.messages.iter().map(|m| m.body.as_bytes().to_vec()).collect();
    assert_eq!(read, written);
}

pub async fn large_bodies_come_back_whole<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let subject = fresh(Retention::default()).await;
    let big = topic("big");
    let body: Vec<u8> = (0..1_000_003u32).map(|n| (n * 31 % 251) as u8).collect();
    let answers = subject.store.append(vec![item(&big, "before"), item(&big, body.clone()), item(&big, "after")]).await;
    assert_eq!(stored(&answers[2]).offset, 3);
    let page = subject.store.read(&big, ReadFrom::Last(3), ALL).await.unwrap();
    assert!(page.messages[1].body.as_bytes() == &body, "{} bytes differ", page.messages[1].body.as_bytes().len());
}

pub async fn the_same_publish_under_the_same_key_answers_the_first_position<F: Future<Output = Subject>>(
    fresh: fn(Retention) -> F,
) {
    let subject = fresh(Retention::default()).await;
    let news = topic("news");
    let order = || item_with_key(&news, "order 17", "o-17");
    // Twice in one batch, and again later, with others between.
    let answers = subject.store.append(vec![order(), item(&news, "x"), order()]).await;
    let at = stored(&answers[0]);
    let repeated = Ok(Appended::Repeated { at, durability: subject.store.status().durability });
    assert_eq!(answers[2], repeated);
    assert_eq!(subject.store.append(vec![order()]).await, [repeated]);
    let head = subject.store.read(&news, ReadFrom::Last(0), ALL).await.unwrap().head;
    assert_eq!(head.offset, 2, "nothing was stored again");
}

pub async fn a_key_used_for_other_content_is_a_conflict<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let subject = fresh(Retention::default()).await;
    let news = topic("news");
    let first = subject.store.append(vec![item_with_key(&news, "one", "k")]).await;
    let at = stored(&first[0]);
    let answers = subject.store.append(vec![item_with_key(&news, "two", "k"), item(&news, "three")]).await;
    assert_eq!(answers[0], Err(StoreError::Conflict { at }));
    assert_eq!(stored(&answers[1]), at.next(), "the other items of the batch are stored");
}

pub async fn a_key_counts_within_one_topic<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let subject = fresh(Retention::default()).await;
    let (a, b) = (topic("a"), topic("b"));
    let answers = subject.store.append(vec![item_with_key(&a, "one", "k"), item_with_key(&b, "two", "k")]).await;
    assert_eq!((stored(&answers[0]).offset, stored(&answers[1]).offset), (1, 1));
}

pub async fn an_ingest_entry_is_applied_once<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let subject = fresh(Retention::default()).await;
    let news = topic("news");
    let entry = |ms, seq| fenced(&news, format!("{ms}-{seq}"), fence("in", "life", ms, seq));
    let answers = subject.store.append(vec![entry(5, 0), entry(5, 1), entry(5, 1), entry(5, 0)]).await;
    assert_eq!((stored(&answers[0]).offset, stored(&answers[1]).offset), (1, 2));
    assert_eq!(answers[2..], [Ok(Appended::Skipped), Ok(Appended::Skipped)]);
    // An owner that starts again from before: what was applied is skipped, the rest is not.
    let again = subject.store.append(vec![entry(5, 0), entry(5, 1), entry(5, 2), entry(10, 0)]).await;
    assert_eq!(again[..2], [Ok(Appended::Skipped), Ok(Appended::Skipped)]);
    assert_eq!((stored(&again[2]).offset, stored(&again[3]).offset), (3, 4));
    // Ids are numbers: 9 comes before 10.
    assert_eq!(subject.store.append(vec![entry(9, 99)]).await, [Ok(Appended::Skipped)]);
    let page = subject.store.read(&news, ReadFrom::Last(10), ALL).await.unwrap();
    assert_eq!(bodies(&page), ["5-0", "5-1", "5-2", "10-0"]);
}

pub async fn fences_of_another_life_are_not_compared<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let subject = fresh(Retention::default()).await;
    let news = topic("news");
    let entry = |life: &str, ms| fenced(&news, format!("{life} {ms}"), fence("in", life, ms, 0));
    let answers =
        subject.store.append(vec![entry("old", 100), entry("new", 3), entry("new", 3), entry("new", 4)]).await;
    assert_eq!((stored(&answers[0]).offset, stored(&answers[1]).offset), (1, 2));
    assert_eq!(answers[2], Ok(Appended::Skipped));
    assert_eq!(stored(&answers[3]).offset, 3);
}

pub async fn fences_of_two_sources_and_two_topics_do_not_meet<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let subject = fresh(Retention::default()).await;
    let (a, b) = (topic("a"), topic("b"));
    let mark = |source: &str| fence(source, "life", 7, 0);
    let batch = vec![
        fenced(&a, "1", mark("in")),
        fenced(&a, "2", mark("in:1")),
        fenced(&b, "3", mark("in")),
        fenced(&a, "4", mark("in")),
        fenced(&a, "5", mark("in:1")),
        item(&a, "6"),
    ];
    let answers = subject.store.append(batch).await;
    let told: Vec<_> = answers.iter().map(|a| matches!(a, Ok(Appended::Stored { .. }))).collect();
    assert_eq!(told, [true, true, true, false, false, true]);
}

pub async fn what_follows_a_fenced_item_that_failed_is_not_stored<F: Future<Output = Subject>>(
    fresh: fn(Retention) -> F,
) {
    let Subject { store, refused, guard: _guard, .. } = fresh(Retention::default()).await;
    let (news, other) = (topic("news"), topic("other"));
    let entry = |topic: &Topic, ms: u64| fenced(topic, ms.to_string(), fence("in", "life", ms, 0));
    let refused = |ms| Append { fence: Some(fence("in", "life", ms, 0)), ..refused.clone() };
    // Long enough that a store may take it in several portions: what follows in them is held up too.
    let mut batch = vec![entry(&news, 1), refused(2), entry(&news, 3), entry(&other, 4), item(&news, "unfenced")];
    batch.push(fenced(&news, "of another source", fence("in:1", "life", 3, 0)));
    batch.push(fenced(&news, "of another life", fence("in", "later", 1, 0)));
    batch.extend((5..400).map(|ms| entry(if ms % 100 == 0 { &news } else { &other }, ms)));
    batch.push(item_with_key(&news, "400", "k"));
    batch.last_mut().unwrap().fence = Some(fence("in", "life", 400, 0));
    let answers = store.append(batch.clone()).await;
    for (item, answer) in batch.iter().zip(&answers) {
        let Append { publication, fence } = item;
        let is_held_up = fence
            .as_ref()
            .is_some_and(|f| publication.topic == news && &*f.source == "in" && (f.id.ms > 1 || &*f.life == "later"));
        match answer {
            Err(StoreError::Conflict { .. } | StoreError::Durability { .. }) => panic!("{answer:?}"),
            Err(_) => assert!(is_held_up, "{fence:?} of {}: {answer:?}", publication.topic),
            Ok(_) => assert!(!is_held_up, "{fence:?} of {}: {answer:?}", publication.topic),
        }
    }
    // Read again from the first that failed, which is taken this time: nothing was lost, nothing comes twice.
    batch[1] = entry(&news, 2);
    batch.remove(6);
    let again = store.append(batch[1..].to_vec()).await;
    assert!(again.iter().all(|a| a.is_ok()), "{again:?}");
    let page = store.read(&news, ReadFrom::Last(100), ALL).await.unwrap();
    assert_eq!(bodies(&page), ["1", "unfenced", "of another source", "2", "3", "unfenced", "100", "200", "300", "400"]);
    let page = store.read(&other, ReadFrom::Last(1_000), ALL).await.unwrap();
    let expected: Vec<_> = (4..400).filter(|ms| ms % 100 != 0).map(|ms| ms.to_string()).collect();
    assert_eq!(bodies(&page), expected);
}

pub async fn a_refusal_that_does_not_pass_holds_no_later_item_up<F: Future<Output = Subject>>(
    fresh: fn(Retention) -> F,
) {
    let subject = fresh(Retention::default()).await;
    let (news, other) = (topic("news"), topic("other"));
    let at = stored(&subject.store.append(vec![item_with_key(&news, "one", "k")]).await[0]);
    let entry = |ms, item: Append| Append { fence: Some(fence("in", "life", ms, 0)), ..item };
    let mut demanding = item(&news, "demanding");
    demanding.publication.durability = Some(Durability::Replica);
    let gives = subject.store.status().durability;
    assert!(gives < Durability::Replica);
    // A store may take this in several portions: the refusal is the last of its topic in one of them.
    let mut batch: Vec<_> =
        vec![entry(1, item(&news, "1")), entry(2, demanding), entry(3, item_with_key(&news, "3", "k"))];
    batch.extend((4..300).map(|ms| entry(ms, item(&other, ms.to_string()))));
    batch.push(entry(300, item(&news, "300")));
    batch.push(entry(301, item(&news, "301")));
    for _ in 0..2 {
        let answers = subject.store.append(batch.clone()).await;
        let refusal = Err(StoreError::Durability { asked: Durability::Replica, gives });
        assert_eq!(answers[1], refusal);
        assert!(
            matches!(&answers[2], Err(StoreError::Conflict { at: told }) if *told == at) || is_skipped(&answers[2])
        );
        let rest = answers.iter().enumerate().filter(|(n, _)| *n != 1 && *n != 2);
        rest.for_each(|(n, answer)| assert!(answer.is_ok(), "{n}: {answer:?}"));
    }
    let page = subject.store.read(&news, ReadFrom::Last(100), ALL).await.unwrap();
    assert_eq!(bodies(&page), ["one", "1", "300", "301"]);
}

fn is_skipped(answer: &Result<Appended, StoreError>) -> bool {
    matches!(answer, Ok(Appended::Skipped))
}

pub async fn a_level_that_the_store_does_not_give_is_refused<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let subject = fresh(Retention::default()).await;
    let news = topic("news");
    let gives = subject.store.status().durability;
    let batch = Durability::ALL.map(|level| {
        let mut item = item(&news, level.as_str());
        item.publication.durability = Some(level);
        item
    });
    let answers = subject.store.append(batch.to_vec()).await;
    let mut offset = 0;
    for (asked, answer) in Durability::ALL.into_iter().zip(&answers) {
        if asked <= gives {
            offset += 1;
            assert_eq!(stored(answer).offset, offset);
        } else {
            assert_eq!(*answer, Err(StoreError::Durability { asked, gives }));
        }
    }
}

pub async fn closing_finishes_what_was_accepted_and_refuses_the_rest<F: Future<Output = Subject>>(
    fresh: fn(Retention) -> F,
) {
    let subject = fresh(Retention::default()).await;
    let news = topic("news");
    let accepted: Vec<_> = (0..50).map(|n| subject.store.append(vec![item(&news, n.to_string())])).collect();
    let closing = subject.store.close();
    let late = subject.store.append(vec![item(&news, "late")]);
    closing.await;
    for (n, call) in accepted.into_iter().enumerate() {
        assert_eq!(stored(&call.await[0]).offset, n as u64 + 1);
    }
    assert!(matches!(late.await[..], [Err(StoreError::Unavailable(_))]));
    let read = subject.store.read(&news, ReadFrom::Last(1), ALL).await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    subject.store.close().await;
}
