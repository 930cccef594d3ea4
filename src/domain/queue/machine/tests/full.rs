//! Full queues.

use super::scene::*;
use crate::domain::queue::*;
use crate::domain::store::StoreError;

fn full(on_full: OnFull) -> Scene {
    let mut scene = Scene::new(QueueSettings { max_messages: 4, on_full, ..plain() });
    for level in [5, 2, 7, 2] {
        scene.put(urgent(level));
    }
    scene
}

#[test]
fn a_full_queue_refuses_or_makes_room() {
    for (on_full, level, died) in [
        (OnFull::Reject, 9, None),
        (OnFull::DropOldest, 0, Some(1)),
        (OnFull::DropLowestPriority, 9, Some(2)),
        (OnFull::DropLowestPriority, 2, Some(2)),
        (OnFull::DropLowestPriority, 1, None),
    ] {
        let mut scene = full(on_full);
        let put = scene.try_put(urgent(level));
        match died {
            None => assert!(matches!(put, Err(StoreError::Full(_))), "{on_full:?} {level}: {put:?}"),
            Some(number) => assert_eq!(scene.deaths(), [(number, Death::Dropped)], "{on_full:?} {level}"),
        }
        assert_eq!(scene.stats().waiting.iter().sum::<u64>(), 4);
    }
}

#[test]
fn what_is_in_flight_takes_room_and_makes_none() {
    let mut scene = full(OnFull::DropOldest);
    scene.take(4);
    assert!(matches!(scene.try_put(job("x")), Err(StoreError::Full(_))));
    assert_eq!(scene.deaths(), []);
}

#[test]
fn a_refused_put_leaves_nothing_behind() {
    let mut scene = Scene::new(QueueSettings { max_messages: 1, ..plain() });
    scene.put(job("x"));
    let keyed = || Put { idempotency_key: Some("k".into()), ..job("y") };
    assert!(scene.try_put(keyed()).is_err());
    let lent = scene.take_one();
    scene.ack(&lent);
    assert_eq!(scene.put(keyed()), 2, "numbers are not used up, keys not remembered");
}

#[test]
fn bytes_make_a_queue_full_too() {
    let settings = QueueSettings { max_bytes: 1024, on_full: OnFull::DropOldest, ..plain() };
    let mut scene = Scene::new(settings);
    let of = |size: usize| job(&"x".repeat(size));
    scene.put_many([of(400), of(300), of(300)]);
    scene.put(of(600));
    assert_eq!(scene.deaths(), [(1, Death::Dropped), (2, Death::Dropped)]);
    assert_eq!(scene.stats().bytes, 900);
    assert!(matches!(scene.try_put(of(1025)), Err(StoreError::TooLarge(text)) if text.contains("max_bytes")));
    scene.take(1);
    assert!(scene.try_put(of(800)).is_err(), "what can be dropped does not make room enough");
    assert_eq!(scene.stats().dead, 2, "and then nothing is dropped");
}

#[test]
fn where_no_dead_letters_are_kept_what_makes_room_is_counted_alone() {
    let mut scene = Scene::new(Preset::SimpleBroker.settings());
    scene.machine.set_settings(QueueSettings { max_messages: 1, ..Preset::SimpleBroker.settings() }, 0);
    scene.put_many([job("a"), job("b")]);
    let stats = scene.stats();
    assert_eq!((stats.dead, stats.totals.died, stats.totals.forgotten), (0, 1, 1));
    assert_eq!(scene.rows.len(), 1);
}

#[test]
fn a_bound_that_became_smaller_is_not_passed_over() {
    let mut scene = full(OnFull::DropOldest);
    scene.take(3);
    let now = scene.now;
    scene.machine.set_settings(QueueSettings { max_messages: 2, on_full: OnFull::DropOldest, ..plain() }, now);
    assert!(scene.try_put(job("x")).is_err(), "one can be dropped, three would have to");
}
