//! What was put before: de-duplication, idempotency, fences, levels.

use fanfare::domain::message::Durability;
use fanfare::domain::queue::*;
use fanfare::domain::store::{EntryId, Fence, StoreError};

use super::*;

fn deduped(key: &str, text: &str, window: Option<u64>) -> Put {
    Put { dedupe: Some(Dedupe { key: key.into(), window: window.map(ms) }), ..job(text) }
}

fn keyed(key: &str, text: &str) -> Put {
    Put { idempotency_key: Some(key.into()), ..job(text) }
}

fn fenced(source: &str, life: &str, id: u64) -> Put {
    Put { fence: Some(Fence::new(source, life, EntryId { ms: id, seq: 0 })), ..job("x") }
}

fn repeated(answer: Result<PutAnswer, StoreError>) -> JobId {
    match answer {
        Ok(PutAnswer::Repeated { job, .. }) => job,
        other => panic!("{other:?}"),
    }
}

pub async fn one_key_in_its_window_is_one_job_whatever_it_holds<F: Future<Output = Subject>>(
    fresh: fn(QueueSettings) -> F,
) {
    let subject = fresh(plain()).await;
    let first = subject.put(deduped("k", "a", None)).await;
    assert_eq!(repeated(subject.try_put(deduped("k", "b", None)).await), first);
    let taken = subject.take_one().await;
    subject.ack(&taken).await;
    assert_eq!(repeated(subject.try_put(deduped("k", "a", None)).await), first, "also when it is done");
    subject.put(deduped("l", "a", None)).await;
    let elsewhere = Put { queue: queue("other"), ..deduped("k", "a", None) };
    subject.put(elsewhere).await;
    subject.put(deduped("none", "a", Some(0))).await;
    subject.put(deduped("none", "a", Some(0))).await;
    assert_eq!(subject.stats().await.totals.repeated, 2);
}

pub async fn a_window_ends_and_is_that_of_the_first_put<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let subject = fresh(QueueSettings { dedupe_window: ms(600_000), ..plain() }).await;
    let first = subject.put(deduped("k", "a", Some(400))).await;
    subject.pass(200).await;
    assert_eq!(repeated(subject.try_put(deduped("k", "a", Some(400))).await), first);
    subject.pass(210).await;
    assert_ne!(subject.put(deduped("k", "a", None)).await, first);
}

pub async fn what_it_holds_can_be_the_key<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let subject = fresh(QueueSettings { dedupe_content: true, ..plain() }).await;
    let [a, _, _] = subject.put_all([job("a"), job("b"), deduped("k", "a", None)]).await;
    assert_eq!(repeated(subject.try_put(job("a")).await), a);
}

pub async fn an_idempotency_key_stands_for_one_content<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let subject = fresh(plain()).await;
    let first = subject.put(keyed("k", "a")).await;
    assert_eq!(repeated(subject.try_put(keyed("k", "a")).await), first);
    assert_eq!(subject.try_put(keyed("k", "b")).await, Err(StoreError::Conflict { at: first.0 }));
    subject.put(deduped("k", "a", None)).await;
    assert_eq!(subject.places().await, [2, 0, 0, 0, 0]);
}

pub async fn a_put_that_failed_is_not_remembered<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let subject = fresh(QueueSettings { max_messages: 1, ..plain() }).await;
    subject.put(job("x")).await;
    assert!(matches!(subject.try_put(keyed("k", "y")).await, Err(StoreError::Full(_))));
    assert!(matches!(subject.try_put(fenced("s", "x", 1)).await, Err(StoreError::Full(_))));
    assert_eq!(subject.keeper.queues.mark(&jobs(), "s").await, Ok(None));
    let taken = subject.take_one().await;
    subject.ack(&taken).await;
    assert_eq!(subject.put(keyed("k", "y")).await.number(), 2, "nor is a number used up");
}

pub async fn an_entry_of_a_source_is_applied_once<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let subject = fresh(plain()).await;
    assert_eq!(subject.keeper.queues.mark(&jobs(), "a").await, Ok(None));
    for (put, is_new) in [
        (fenced("a", "x", 5), true),
        (fenced("a", "x", 5), false),
        (fenced("a", "x", 4), false),
        (fenced("a", "x", 6), true),
        (fenced("b", "x", 4), true),
        (Put { queue: queue("other"), ..fenced("a", "x", 1) }, true),
    ] {
        let fence = put.fence.clone();
        let answer = subject.try_put(put).await.unwrap();
        assert_eq!(answer != PutAnswer::Skipped, is_new, "{fence:?}");
    }
    let mark = subject.keeper.queues.mark(&jobs(), "a").await.unwrap();
    assert_eq!(mark, Some(Mark { life: "x".into(), id: EntryId { ms: 6, seq: 0 } }));
}

pub async fn a_repeated_put_moves_the_mark<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let subject = fresh(plain()).await;
    subject.put(keyed("k", "x")).await;
    let again = Put { idempotency_key: Some("k".into()), ..fenced("a", "x", 3) };
    repeated(subject.try_put(again).await);
    assert_eq!(subject.keeper.queues.mark(&jobs(), "a").await.unwrap().unwrap().id.ms, 3);
}

pub async fn what_follows_a_fenced_job_that_failed_is_not_put<F: Future<Output = Subject>>(
    fresh: fn(QueueSettings) -> F,
) {
    let subject = fresh(QueueSettings { max_bytes: 1024, ..plain() }).await;
    subject.put(job(&"y".repeat(800))).await;
    let large = |size: usize| Put { body: body(&"x".repeat(size)), ..fenced("a", "x", 1) };
    let put = async |large| {
        let batch = vec![large, fenced("a", "x", 2), fenced("b", "x", 2), job("y")];
        subject.keeper.queues.put(batch).await
    };
    let answers = put(large(400)).await;
    let is_stored: Vec<bool> = answers.iter().map(Result::is_ok).collect();
    assert_eq!(is_stored, [false, false, true, true], "{answers:?}");
    let answers = put(large(1025)).await;
    assert!(matches!(answers[0], Err(StoreError::TooLarge(_))), "{answers:?}");
    assert!(answers[1..].iter().all(Result::is_ok), "what can never be put holds nothing up: {answers:?}");
}

pub async fn a_batch_over_many_queues_is_answered_item_by_item<F: Future<Output = Subject>>(
    fresh: fn(QueueSettings) -> F,
) {
    let subject = fresh(plain()).await;
    let batch = ["a", "b", "a", "a"].map(|name| Put { queue: queue(name), ..job(name) });
    let answers = subject.keeper.queues.put(batch.into()).await;
    let numbers: Vec<u64> = answers
        .iter()
        .map(|answer| match answer {
            Ok(PutAnswer::Stored { job, .. }) => job.number(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(numbers, [1, 1, 2, 3]);
    assert_eq!(subject.keeper.admin.list(None, 10).await, Ok(vec![queue("a"), queue("b")]));
}

pub async fn a_level_that_is_not_given_is_refused<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let subject = fresh(plain()).await;
    let gives = subject.store.status().durability;
    subject.put(Put { durability: Some(gives), ..job("x") }).await;
    if gives < Durability::Replica {
        let put = Put { durability: Some(Durability::Replica), ..job("x") };
        assert!(matches!(subject.try_put(put).await, Err(StoreError::Durability { .. })));
    }
    assert_eq!(subject.places().await, [1, 0, 0, 0, 0]);
}

pub async fn a_closed_store_refuses_jobs<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let subject = fresh(plain()).await;
    subject.put(job("x")).await;
    subject.store.close().await;
    assert!(matches!(subject.try_put(job("y")).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(subject.keeper.queues.take(&jobs(), take("w", 1)).await, Err(StoreError::Unavailable(_))));
}
