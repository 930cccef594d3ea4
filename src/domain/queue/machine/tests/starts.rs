//! `start_when`: gates, firings, and who tells of them.

use std::time::Duration;

use super::scene::*;
use crate::domain::queue::*;

fn starting(mode: Start, batch: Option<u64>, any: &[Arm]) -> Scene {
    let start_when = Some(StartWhen { any: any.to_vec(), mode, batch, webhook: None });
    Scene::new(QueueSettings { start_when, ..plain() })
}

/// Ten of priority 7 or higher, or ten of any.
fn ten_or_ten_urgent(mode: Start) -> Scene {
    let urgent = Arm::Urgent { count: 10, min_priority: Priority::new(7).unwrap() };
    starting(mode, None, &[urgent, Arm::Count(10)])
}

#[test]
fn nine_low_ones_keep_the_gate_closed_and_the_tenth_opens_it() {
    let mut scene = ten_or_ten_urgent(Start::Gate);
    for _ in 0..9 {
        scene.put(urgent(0));
    }
    let took = scene.took(1);
    assert_eq!((took.lent.len(), took.held, took.more), (0, Some(Held::Gate), false));
    assert_eq!((scene.woken, scene.stats().gate_open), (0, Some(false)));
    scene.put(urgent(9));
    assert_eq!((scene.woken, scene.fired, scene.stats().gate_open), (1, 1, Some(true)));
    assert_eq!(scene.take(20).len(), 10);
    assert_eq!(scene.stats().gate_open, Some(false), "nothing waits any more");
}

#[test]
fn ten_urgent_ones_among_ten_of_any_fire_once() {
    let mut scene = ten_or_ten_urgent(Start::Notify);
    for _ in 0..10 {
        scene.put(urgent(7));
    }
    let fired = scene.sweep().fired.expect("it fires");
    assert_eq!((fired.number, fired.arm, fired.waiting[7]), (1, 0, 10));
    for _ in 0..30 {
        scene.put(urgent(9));
    }
    assert_eq!(scene.stats().firings, 1);
}

#[test]
fn a_gate_that_opened_stays_open_while_nobody_listens() {
    let mut scene = starting(Start::Gate, None, &[Arm::Count(2)]);
    scene.put_many([job("a"), job("b")]);
    scene.pass(10_000_000).sweep();
    scene.restart();
    assert_eq!(scene.take(1), [1]);
    assert_eq!(scene.take(1), [2]);
    assert_eq!(scene.stats().gate_open, Some(false));
}

#[test]
fn what_is_in_flight_does_not_wait() {
    let mut scene = starting(Start::Gate, None, &[Arm::Count(2)]);
    scene.put_many([job("a"), job("b")]);
    scene.take(2);
    scene.put(job("c"));
    assert_eq!(scene.took(1).held, Some(Held::Gate));
    scene.pass(1000);
    assert_eq!(scene.stats().firings, 2, "leases ended: three wait");
    assert_eq!(scene.take(5), [1, 2, 3]);
}

#[test]
fn what_is_delayed_counts_when_it_is_due() {
    let mut scene = starting(Start::Gate, None, &[Arm::Count(2)]);
    scene.put_many([delayed(50), job("a")]);
    let took = scene.took(1);
    assert_eq!((took.held, took.next), (Some(Held::Gate), Some(ms(50))));
    assert_eq!(scene.pass(50).take(5), [1, 2]);
}

#[test]
fn what_is_parked_counts() {
    let mut scene = starting(Start::Gate, None, &[Arm::Count(2)]);
    scene.put_many([grouped("g"), grouped("g")]);
    assert_eq!(scene.take(5), [1]);
    assert_eq!(scene.stats().gate_open, Some(true), "one still waits");
}

#[test]
fn a_purge_closes_the_gate() {
    let mut scene = starting(Start::Gate, None, &[Arm::Count(2)]);
    scene.put_many([job("a"), job("b"), job("c")]);
    let now = scene.now;
    scene.machine.purge(None, now);
    scene.put(job("d"));
    assert_eq!(scene.took(1).held, Some(Held::Gate));
}

#[test]
fn age_opens_the_gate_for_a_remainder() {
    let mut scene = starting(Start::Gate, None, &[Arm::Count(10), Arm::Oldest(ms(60_000))]);
    scene.put(urgent(9));
    scene.pass(1000).put(urgent(0));
    let took = scene.took(1);
    assert_eq!((took.held, took.next), (Some(Held::Gate), Some(ms(59_000))));
    scene.pass(58_999);
    assert_eq!(scene.sweep().next, Some(ms(1)));
    let swept = scene.pass(1).sweep();
    let fired = swept.fired.expect("it fires");
    assert_eq!((fired.arm, fired.oldest, swept.takeable), (1, Duration::from_secs(60), true));
    assert_eq!(scene.take(5), [1, 2]);
}

#[test]
fn a_batch_closes_the_gate_and_one_take_never_goes_beyond_a_firing() {
    let mut scene = starting(Start::Gate, Some(3), &[Arm::Count(3)]);
    for _ in 0..8 {
        scene.put(job("x"));
    }
    assert_eq!(scene.stats().firings, 1);
    let took = scene.took(9);
    assert_eq!((took.lent.len(), took.held, took.more), (3, None, true), "five wait, so it fired again");
    assert_eq!(scene.stats().firings, 2);
    let took = scene.took(9);
    assert_eq!((took.lent.len(), took.held), (3, Some(Held::Gate)), "two wait");
    scene.put(job("x"));
    assert_eq!(scene.take(9).len(), 3);
}

#[test]
fn a_batch_arms_a_queue_that_only_tells_again() {
    let mut scene = starting(Start::Notify, Some(4), &[Arm::Count(2)]);
    for _ in 0..3 {
        scene.put(job("x"));
    }
    assert_eq!(scene.stats().firings, 1);
    assert_eq!(scene.take(2).len(), 2);
    for _ in 0..4 {
        scene.put(job("x"));
    }
    assert_eq!(scene.stats().firings, 1, "two were taken");
    assert_eq!(scene.take(2).len(), 2);
    assert_eq!(scene.stats().firings, 2, "four were, and three wait");
}

#[test]
fn a_firing_is_one_teller_s_until_the_claim_ends() {
    let mut scene = starting(Start::Notify, None, &[Arm::Count(1)]);
    scene.put(job("a"));
    assert!(scene.took(0).has_fired);
    assert_eq!(scene.sweep().fired.map(|fired| fired.number), Some(1));
    assert_eq!(scene.sweep().fired, None);
    assert!(!scene.took(0).has_fired);
    assert_eq!(scene.sweep().next, Some(CLAIM));
    scene.pass(CLAIM.as_millis() as u64);
    assert_eq!(scene.sweep().fired.map(|fired| fired.number), Some(1), "whoever claimed it has not told it");
    scene.restart();
    assert_eq!(scene.sweep().fired.map(|fired| fired.number), Some(1), "nor has a hub that is gone");
    assert!(scene.machine.told(1));
    assert!(!scene.machine.told(1));
    scene.pass(CLAIM.as_millis() as u64);
    assert_eq!(scene.sweep().fired, None);
}

#[test]
fn firings_are_told_in_their_order() {
    let mut scene = starting(Start::Notify, None, &[Arm::Count(1)]);
    for _ in 0..2 {
        scene.put(job("a"));
        scene.take(1);
    }
    assert_eq!(scene.sweep().fired.map(|fired| fired.number), Some(1));
    scene.machine.told(1);
    assert_eq!(scene.sweep().fired.map(|fired| fired.number), Some(2));
}

#[test]
fn settings_without_a_start_open_the_gate() {
    let mut scene = starting(Start::Gate, None, &[Arm::Count(5)]);
    scene.put(job("a"));
    let (woken, now) = (scene.woken, scene.now);
    scene.machine.set_settings(plain(), now);
    assert_eq!(scene.take(1), [1]);
    assert_eq!(scene.woken, woken + 1);
}
