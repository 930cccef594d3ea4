//! What was put before: de-duplication, idempotency, fences.

use super::super::PutDone;
use super::scene::*;
use crate::domain::queue::*;
use crate::domain::store::{EntryId, Fence, StoreError};

fn deduped(key: &str, text: &str, window: Option<u64>) -> Put {
    Put { dedupe: Some(Dedupe { key: key.into(), window: window.map(ms) }), ..job(text) }
}

fn keyed(key: &str, text: &str) -> Put {
    Put { idempotency_key: Some(key.into()), ..job(text) }
}

fn fenced(source: &str, life: &str, id: u64) -> Put {
    Put { fence: Some(Fence::new(source, life, EntryId { ms: id, seq: 0 })), ..job("x") }
}

#[test]
fn one_key_in_its_window_is_one_job_whatever_it_holds() {
    let mut scene = Scene::new(QueueSettings { dedupe_window: ms(100), ..plain() });
    scene.put(deduped("k", "a", None));
    let first = PutDone::Repeated(scene.id(1));
    assert_eq!(scene.try_put(deduped("k", "b", None)), Ok(first));
    let lent = scene.take_one();
    scene.ack(&lent);
    scene.restart();
    assert_eq!(scene.pass(99).try_put(deduped("k", "a", None)), Ok(first), "also when it is done");
    assert_eq!(scene.pass(1).put(deduped("k", "a", None)), 2, "the window is that of the first put");
    scene.put(deduped("own", "a", Some(10)));
    assert_eq!(scene.pass(10).put(deduped("own", "a", Some(10))), 4);
    assert_eq!(scene.stats().totals.repeated, 2);
}

#[test]
fn a_window_of_nothing_is_no_window() {
    let mut scene = Scene::new(plain());
    scene.put(deduped("k", "a", Some(0)));
    assert_eq!(scene.put(deduped("k", "a", Some(0))), 2);
    assert!(scene.keys.is_empty());
}

#[test]
fn what_it_holds_can_be_the_key() {
    let mut scene = Scene::new(QueueSettings { dedupe_content: true, ..plain() });
    scene.put_many([job("a"), job("b"), deduped("k", "a", None)]);
    assert_eq!(scene.try_put(job("a")), Ok(PutDone::Repeated(scene.id(1))));
    assert_eq!(scene.put(deduped("l", "a", None)), 4, "a key of its own comes before");
}

#[test]
fn an_idempotency_key_stands_for_one_content() {
    let mut scene = Scene::new(plain());
    scene.put(keyed("k", "a"));
    assert_eq!(scene.try_put(keyed("k", "a")), Ok(PutDone::Repeated(scene.id(1))));
    assert_eq!(scene.try_put(keyed("k", "b")), Err(StoreError::Conflict { at: scene.id(1).0 }));
    assert_eq!(scene.put(deduped("k", "a", None)), 2, "keys of two kinds do not meet");
    scene.pass(300_000).sweep();
    assert!(scene.keys.is_empty(), "they are forgotten");
    assert_eq!(scene.put(keyed("k", "b")), 3);
}

#[test]
fn a_put_that_was_de_duplicated_is_answered_the_same_under_its_idempotency_key() {
    let mut scene = Scene::new(QueueSettings { dedupe_window: ms(10), ..plain() });
    scene.put(deduped("d", "a", None));
    let both = || Put { idempotency_key: Some("k".into()), ..deduped("d", "a", None) };
    assert_eq!(scene.try_put(both()), Ok(PutDone::Repeated(scene.id(1))));
    assert_eq!(scene.pass(50).try_put(both()), Ok(PutDone::Repeated(scene.id(1))));
    assert_eq!(scene.put(deduped("d", "a", None)), 2, "which does not make the window longer");
}

#[test]
fn where_no_more_keys_are_remembered_a_new_one_is_refused() {
    let mut scene = Scene::new(plain());
    scene.put(keyed("k", "a"));
    let (now, none) = (scene.now, super::super::Room { keys: 0, ..ROOM });
    assert!(matches!(scene.machine.put(&keyed("l", "a"), now, none), Err(StoreError::Full(_))));
    assert_eq!(scene.machine.put(&keyed("k", "a"), now, none), Ok(PutDone::Repeated(scene.id(1))));
    assert!(matches!(scene.machine.put(&job("a"), now, none), Ok(PutDone::Stored(_))));
}

#[test]
fn an_entry_of_a_source_is_applied_once() {
    let mut scene = Scene::new(plain());
    scene.put(fenced("a", "x", 5));
    scene.restart();
    for (put, is_new) in [
        (fenced("a", "x", 5), false),
        (fenced("a", "x", 4), false),
        (fenced("a", "x", 6), true),
        (fenced("b", "x", 4), true),
        (fenced("a", "y", 1), true),
    ] {
        let done = scene.try_put(put.clone()).unwrap();
        assert_eq!(done != PutDone::Skipped, is_new, "{:?}", put.fence);
    }
    assert_eq!(scene.machine.mark("a"), Some(&Mark { life: "y".into(), id: EntryId { ms: 1, seq: 0 } }));
}

#[test]
fn a_repeated_put_moves_the_mark_too_and_one_that_failed_does_not() {
    let mut scene = Scene::new(QueueSettings { max_messages: 1, ..plain() });
    scene.put(keyed("k", "x"));
    scene.try_put(Put { idempotency_key: Some("k".into()), ..fenced("a", "x", 1) }).unwrap();
    assert_eq!(scene.machine.mark("a").unwrap().id.ms, 1);
    assert!(scene.try_put(fenced("a", "x", 2)).is_err());
    assert_eq!(scene.machine.mark("a").unwrap().id.ms, 1);
}
