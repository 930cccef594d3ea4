//! Order, groups, tries and leases.

use super::scene::*;
use crate::domain::queue::*;

#[test]
fn the_highest_priority_comes_first_and_in_it_the_lowest_number() {
    let mut scene = Scene::new(plain());
    for level in [4, 9, 0, 9, 4] {
        scene.put(urgent(level));
    }
    assert_eq!(scene.take(10), [2, 4, 1, 5, 3]);
    assert_eq!(scene.take(10), [0; 0]);
}

#[test]
fn each_so_many_th_job_is_the_oldest() {
    let mut scene = Scene::new(QueueSettings { fair_every: Some(3), ..plain() });
    for level in [1, 1, 9, 9, 9, 9] {
        scene.put(urgent(level));
    }
    assert_eq!(scene.take(6), [3, 4, 1, 5, 6, 2]);
}

#[test]
fn a_job_that_comes_back_comes_back_to_its_place() {
    let mut scene = Scene::new(plain());
    scene.put_many([job("a"), job("b"), job("c")]);
    let first = scene.take_one();
    assert_eq!(scene.nack(&first), Settled::Done);
    assert_eq!(scene.take(3), [1, 2, 3]);
}

#[test]
fn a_take_ends_with_its_count_and_its_bytes_but_gives_one_job_at_least() {
    let mut scene = Scene::new(plain());
    for size in [10, 10, 30, 1] {
        scene.put(job(&"x".repeat(size)));
    }
    let mut take = |count, bytes| {
        let take = Take { worker: "w".into(), count, bytes, lease: None, token: 1 };
        let took = scene.machine.take(&take, scene.now);
        (took.lent.len(), took.more)
    };
    assert_eq!(take(0, 100), (0, true));
    assert_eq!(take(9, 25), (2, true));
    assert_eq!(take(9, 5), (1, true));
    assert_eq!(take(9, 5), (1, false));
}

#[test]
fn a_group_is_taken_one_at_a_time_and_in_order_whatever_the_priority() {
    let mut scene = Scene::new(plain());
    scene.put_many([grouped("a"), Put { priority: Priority::new(9).unwrap(), ..grouped("a") }, grouped("b"), job("x")]);
    assert_eq!(scene.places(), [3, 1, 0, 0, 0]);
    let took = scene.took(9);
    assert_eq!(took.lent.iter().map(|lent| lent.id.number()).collect::<Vec<_>>(), [1, 3, 4]);
    assert_eq!(scene.ack(&took.lent[0]), Settled::Done);
    assert_eq!(scene.take(9), [2]);
}

#[test]
fn a_head_that_waits_for_its_retry_holds_its_group() {
    let mut scene = Scene::new(QueueSettings { backoff: vec![ms(50)], ..plain() });
    scene.put_many([grouped("a"), grouped("a")]);
    let head = scene.take_one();
    scene.nack(&head);
    assert_eq!(scene.places(), [0, 1, 1, 0, 0]);
    assert_eq!(scene.take(9), [0; 0]);
    assert_eq!(scene.pass(50).take(9), [1]);
}

#[test]
fn a_dead_head_lets_the_next_one_come_or_holds_the_group_until_it_is_dealt_with() {
    for (on_dead, deal, then) in [
        (OnDead::Continue, "nothing", vec![2]),
        (OnDead::Halt, "nothing", vec![]),
        (OnDead::Halt, "remove", vec![2]),
        (OnDead::Halt, "purge", vec![2]),
        (OnDead::Halt, "redrive", vec![1]),
        (OnDead::Halt, "settings", vec![2]),
        (OnDead::Halt, "restart", vec![]),
    ] {
        let mut scene = Scene::new(QueueSettings { on_dead, ..plain() });
        scene.put_many([grouped("a"), grouped("a"), grouped("a")]);
        let head = scene.take_one();
        assert_eq!(scene.settle(&head, How::Term { error: None }), Settled::Dead);
        let (id, now) = (head.id, scene.now);
        match deal {
            "remove" => assert!(scene.machine.remove(id, now)),
            "purge" => assert_eq!(scene.machine.purge(Some(Place::Dead), now), 1),
            "redrive" => assert_eq!(scene.machine.redrive(Some(&[id]), None, 0, now), 1),
            "settings" => scene.machine.set_settings(plain(), now),
            "restart" => scene.restart(),
            _ => {}
        }
        assert_eq!(scene.take(9), then, "{on_dead:?}, {deal}");
    }
}

#[test]
fn a_dead_head_that_makes_room_for_others_lets_its_group_go_on() {
    let mut scene = Scene::new(QueueSettings { on_dead: OnDead::Halt, dead_messages: 0, ..plain() });
    scene.put_many([grouped("a"), grouped("a")]);
    let head = scene.take_one();
    scene.settle(&head, How::Term { error: None });
    assert_eq!(scene.take(9), [2]);
}

#[test]
fn waits_grow_with_the_number_of_the_delivery_and_the_last_try_is_the_last() {
    let mut scene = Scene::new(QueueSettings { backoff: vec![ms(10), ms(100)], max_deliveries: 4, ..plain() });
    scene.put(job("a"));
    for (tries, wait) in [(1, 10), (2, 100), (3, 100)] {
        let lent = scene.take_one();
        assert_eq!((lent.tries, lent.max_tries), (tries, 4));
        assert_eq!(scene.nack(&lent), Settled::Done);
        assert_eq!(scene.pass(wait - 1).take(1), [0; 0]);
        assert_eq!(scene.took(0).next, Some(ms(1)));
        scene.pass(1);
    }
    let last = scene.take_one();
    assert_eq!(scene.nack(&last), Settled::Dead);
    assert_eq!(scene.deaths(), [(1, Death::MaxDeliveries)]);
    let ends: Vec<_> = scene.attempts[&1].iter().map(|attempt| (attempt.end, attempt.error.as_deref())).collect();
    assert_eq!(ends, [(AttemptEnd::Nack, Some("no")); 4]);
}

#[test]
fn the_newest_attempts_are_remembered() {
    let mut scene = Scene::new(QueueSettings { max_deliveries: 100, ..plain() });
    scene.put(job("a"));
    for n in 0..15 {
        let lent = scene.take_one();
        scene.settle(&lent, How::Nack { delay: None, error: Some(format!("{n}").into()) });
    }
    let errors: Vec<_> = scene.attempts[&1].iter().map(|attempt| attempt.error.clone().unwrap()).collect();
    assert_eq!((errors.len(), &*errors[0], &*errors[9]), (MOST_ATTEMPTS, "5", "14"));
}

#[test]
fn what_is_released_was_not_delivered() {
    let mut scene = Scene::new(QueueSettings { max_deliveries: 1, ..plain() });
    scene.put(job("a"));
    for _ in 0..5 {
        let lent = scene.take_one();
        assert_eq!(lent.tries, 1);
        assert_eq!(scene.settle(&lent, How::Release), Settled::Done);
    }
    assert_eq!(scene.places(), [1, 0, 0, 0, 0]);
    assert!(scene.attempts.is_empty());
}

#[test]
fn a_lease_that_ends_gives_the_job_back_at_once_and_counts() {
    let mut scene = Scene::new(QueueSettings { backoff: vec![ms(500)], max_deliveries: 2, ..plain() });
    scene.put(job("a"));
    let late = scene.take_one();
    assert_eq!(scene.took(1).next, Some(ms(1000)));
    scene.pass(999);
    assert_eq!(scene.places(), [0, 0, 0, 1, 0]);
    scene.pass(1);
    assert_eq!(scene.ack(&late), Settled::NoLease);
    let second = scene.take_one();
    assert_eq!(second.tries, 2);
    assert_eq!(scene.ack(&late), Settled::NoLease, "only the newest delivery counts");
    scene.pass(1000);
    assert_eq!(scene.deaths(), []);
    scene.sweep();
    assert_eq!(scene.deaths(), [(1, Death::MaxDeliveries)]);
    assert_eq!(scene.stats().totals.lease_ended, 2);
    assert_eq!(scene.attempts[&1].iter().map(|a| a.end).collect::<Vec<_>>(), [AttemptEnd::Lease; 2]);
}

#[test]
fn a_delivery_is_settled_once() {
    let mut scene = Scene::new(plain());
    scene.put_many([job("a"), job("b")]);
    let (a, b) = (scene.take_one(), scene.take_one());
    assert_eq!(scene.ack(&a), Settled::Done);
    assert_eq!(scene.ack(&a), Settled::Gone);
    assert_eq!(scene.nack(&b), Settled::Done);
    assert_eq!(scene.ack(&b), Settled::NoLease);
    let other = super::super::Lent { id: JobId(a.id.0.next().next().next()), ..a };
    assert_eq!(scene.ack(&other), Settled::Gone);
}

#[test]
fn a_lease_is_extended_up_to_the_longest_one() {
    let mut scene = Scene::new(QueueSettings { max_lease: ms(2500), ..plain() });
    scene.put(job("a"));
    let lent = scene.take_one();
    let extend = |by: Option<u64>| How::Extend { by: by.map(ms) };
    scene.pass(900);
    assert_eq!(scene.settle(&lent, extend(None)), Settled::Extended(ms(1000)));
    scene.pass(900);
    assert_eq!(scene.settle(&lent, extend(Some(5000))), Settled::Extended(ms(700)));
    assert_eq!(scene.settle(&lent, extend(Some(100))), Settled::Extended(ms(100)));
    scene.pass(100);
    assert_eq!(scene.settle(&lent, extend(Some(100))), Settled::NoLease);
    assert_eq!(scene.take(1), [1]);
}

#[test]
fn delays_hold_jobs_back_by_the_queue_and_by_the_put() {
    let mut scene = Scene::new(QueueSettings { delay: ms(20), ..plain() });
    let at = scene.now + 10;
    scene.put_many([
        job("usual"),
        delayed(50),
        Put { due: Due::At(at), ..job("at") },
        Put { due: Due::At(5), ..job("past") },
    ]);
    scene.put(grouped("of a group"));
    assert_eq!(scene.take(9), [4, 5]);
    assert_eq!(scene.pass(10).take(9), [3]);
    assert_eq!(scene.pass(10).take(9), [1]);
    assert_eq!(scene.pass(29).take(9), [0; 0]);
    assert_eq!(scene.pass(1).take(9), [2]);
}

#[test]
fn what_waits_beyond_its_time_to_live_dies_and_what_is_in_flight_does_not() {
    let mut scene = Scene::new(QueueSettings { ttl: Some(ms(100)), ..plain() });
    scene.put_many([
        job("waits"),
        grouped("a"),
        grouped("a"),
        Put { ttl: Some(ms(500)), ..job("longer") },
        delayed(200),
    ]);
    scene.put(urgent(9));
    let flying = scene.take_one();
    scene.pass(100);
    scene.sweep();
    let expired: Vec<_> = [1, 2, 3, 5].map(|n| (n, Death::Expired)).into();
    assert_eq!(scene.deaths(), expired);
    assert_eq!(scene.places(), [1, 0, 0, 1, 4]);
    assert_eq!(scene.nack(&flying), Settled::Dead, "it has expired meanwhile");
    assert_eq!(scene.take(9), [4]);
}

#[test]
fn no_more_than_a_bounded_number_moves_at_a_time_and_nothing_expired_is_given_out() {
    let mut scene = Scene::new(plain());
    for _ in 0..250 {
        scene.put(Put { ttl: Some(ms(10)), ..job("x") });
    }
    scene.put(job("lasts"));
    scene.pass(10);
    let swept = scene.sweep();
    assert_eq!((swept.moved, swept.more), (MOST_MOVED, true));
    let took = scene.took(5);
    assert_eq!(took.lent.iter().map(|lent| lent.id.number()).collect::<Vec<_>>(), [251]);
    assert_eq!(scene.stats().dead, 250);
}

#[test]
fn workers_beyond_the_seats_stand_by() {
    let mut scene = Scene::new(QueueSettings { max_workers: Some(1), ..plain() });
    scene.put_many([job("a"), job("b"), job("c"), job("d")]);
    assert_eq!(scene.take_as("first", 1).lent.len(), 1);
    let stands_by = scene.take_as("second", 1);
    assert_eq!((stands_by.lent.len(), stands_by.held), (0, Some(Held::Seats)));
    assert_eq!(stands_by.next, Some(ms(1000)), "a lease ends before the seat does");
    scene.pass(9_999).take_as("first", 0);
    assert_eq!(scene.stats().seats, [Box::<str>::from("first")]);
    scene.pass(9_999);
    assert_eq!(scene.take_as("second", 1).held, Some(Held::Seats), "a take keeps the seat");
    scene.pass(1);
    let woken = scene.woken;
    scene.sweep();
    assert_eq!(scene.woken, woken + 1, "whoever stands by is woken");
    assert_eq!(scene.take_as("second", 1).lent.len(), 1);
    assert_eq!(scene.take_as("first", 1).held, Some(Held::Seats));
    let now = scene.now;
    assert!(scene.machine.leave("second", now));
    assert_eq!(scene.take_as("first", 1).lent.len(), 1);
}

#[test]
fn a_paused_queue_takes_in_and_gives_nothing_out() {
    let mut scene = Scene::new(plain());
    let now = scene.now;
    assert!(scene.machine.pause(true, now));
    assert!(!scene.machine.pause(true, now));
    scene.put(job("a"));
    scene.restart();
    let took = scene.took(1);
    assert_eq!((took.lent.len(), took.held, took.more), (0, Some(Held::Paused), false));
    let woken = scene.woken;
    scene.machine.pause(false, now);
    assert_eq!(scene.take(1), [1]);
    assert_eq!(scene.woken, woken + 1);
}

#[test]
fn takers_are_woken_when_there_is_something_where_there_was_nothing() {
    let mut scene = Scene::new(plain());
    scene.put_many([grouped("a"), grouped("a"), job("b")]);
    assert_eq!(scene.woken, 1);
    let took = scene.took(9);
    scene.ack(&took.lent[0]);
    assert_eq!(scene.woken, 2, "the next of the group");
    scene.take(1);
    scene.nack(&took.lent[1]);
    assert_eq!(scene.woken, 3);
    scene.take(1);
    scene.put(delayed(10));
    assert_eq!(scene.woken, 3);
    scene.pass(10).sweep();
    assert_eq!(scene.woken, 4);
}

#[test]
fn what_is_purged_is_gone_for_those_who_hold_it_and_numbers_go_on() {
    let mut scene = Scene::new(plain());
    scene.put_many([job("a"), job("b"), grouped("g"), grouped("g"), delayed(10)]);
    let took = scene.took(2);
    scene.settle(&took.lent[1], How::Term { error: None });
    let now = scene.now;
    assert_eq!(scene.machine.purge(None, now), 4);
    scene.write();
    assert_eq!(scene.places(), [0, 0, 0, 0, 1]);
    assert_eq!(scene.ack(&took.lent[0]), Settled::Gone);
    assert_eq!(scene.put(grouped("g")), 6);
    assert_eq!(scene.take(9), [6]);
    assert_eq!(scene.rows.len(), 2);
}

#[test]
fn each_place_is_purged_by_itself() {
    for (place, left) in [
        (Place::Ready, [0, 0, 1, 1, 1]),
        (Place::Parked, [0, 0, 1, 1, 1]),
        (Place::Delayed, [1, 1, 0, 1, 1]),
        // The next of the group is its head then.
        (Place::InFlight, [2, 0, 1, 0, 1]),
        (Place::Dead, [1, 1, 1, 1, 0]),
    ] {
        let mut scene = Scene::new(plain());
        scene.put_many([job("dies"), grouped("g"), grouped("g"), delayed(10), job("waits")]);
        let took = scene.took(2);
        scene.settle(&took.lent[0], How::Term { error: None });
        let now = scene.now;
        scene.machine.purge(Some(place), now);
        assert_eq!(scene.places(), left, "{place:?}");
    }
}

#[test]
fn jobs_are_removed_one_by_one_but_not_while_they_are_in_flight() {
    let mut scene = Scene::new(plain());
    scene.put_many([job("a"), job("b")]);
    let lent = scene.take_one();
    let (flying, waiting, now) = (lent.id, scene.id(2), scene.now);
    assert!(!scene.machine.remove(flying, now));
    assert!(scene.machine.remove(waiting, now));
    assert!(!scene.machine.remove(waiting, now));
    assert_eq!(scene.ack(&lent), Settled::Done);
}

#[test]
fn dead_letters_are_bounded_and_the_forgotten_are_counted() {
    let mut scene = Scene::new(QueueSettings { dead_messages: 3, dead_bytes: 25, ..plain() });
    for _ in 0..5 {
        scene.put(job("0123456789"));
        let lent = scene.take_one();
        scene.pass(1).settle(&lent, How::Term { error: None });
    }
    assert_eq!(scene.deaths(), [(4, Death::Term), (5, Death::Term)]);
    let stats = scene.stats();
    assert_eq!((stats.totals.died, stats.totals.forgotten, stats.dead_bytes, stats.bytes), (5, 3, 20, 0));
}

#[test]
fn dead_letters_come_back_with_all_their_tries_and_without_a_time_to_live() {
    let mut scene = Scene::new(QueueSettings { max_deliveries: 1, max_messages: 3, ..plain() });
    scene.put_many([Put { ttl: Some(ms(5)), ..job("a") }, job("b"), job("c")]);
    scene.pass(5).sweep();
    let took = scene.took(9);
    scene.pass(1).nack(&took.lent[1]);
    scene.pass(1).settle(&took.lent[0], How::Term { error: None });
    assert_eq!(scene.deaths(), [(1, Death::Expired), (3, Death::MaxDeliveries), (2, Death::Term)]);
    let now = scene.now;
    assert_eq!(scene.machine.redrive(None, Some(Death::Term), 9, now), 1);
    assert_eq!(scene.machine.redrive(None, None, 1, now), 1);
    scene.put(job("d"));
    assert_eq!(scene.machine.redrive(None, None, 9, now), 0, "the queue is full");
    scene.pass(100);
    let took = scene.took(9);
    assert_eq!(
        took.lent.iter().map(|lent| (lent.id.number(), lent.tries)).collect::<Vec<_>>(),
        [(1, 1), (2, 1), (4, 1)]
    );
    assert_eq!(scene.stats().totals.redriven, 2);
}

#[test]
fn a_dead_letter_that_comes_back_stands_behind_the_head_of_its_group() {
    let mut scene = Scene::new(plain());
    scene.put_many([grouped("a"), grouped("a"), grouped("a")]);
    let first = scene.take_one();
    scene.settle(&first, How::Term { error: None });
    let second = scene.take_one();
    let now = scene.now;
    assert_eq!(scene.machine.redrive(None, None, 9, now), 1);
    assert_eq!(scene.take(9), [0; 0]);
    scene.ack(&second);
    assert_eq!(scene.take(9), [1], "before those that were put after it");
}

#[test]
fn only_dead_letters_are_edited() {
    let mut scene = Scene::new(QueueSettings { dead_bytes: 30, ..plain() });
    scene.put_many([job("abc"), job("b")]);
    let lent = scene.take_one();
    assert_eq!(scene.machine.edit(lent.id, 5), Ok(false));
    scene.settle(&lent, How::Term { error: None });
    assert_eq!(scene.machine.edit(lent.id, 5), Ok(true));
    assert_eq!(scene.stats().dead_bytes, 5);
    assert!(scene.machine.edit(lent.id, 31).is_err());
}

#[test]
fn a_restart_gives_back_what_was_in_flight_and_buries_what_had_its_tries() {
    let mut scene = Scene::new(QueueSettings { max_deliveries: 2, ..plain() });
    scene.put_many([job("a"), job("b"), grouped("g"), grouped("g"), delayed(10)]);
    let one = scene.take_one();
    scene.nack(&one);
    scene.take(3);
    scene.restart();
    assert_eq!(scene.places(), [2, 1, 1, 0, 1]);
    assert_eq!(scene.deaths(), [(1, Death::MaxDeliveries)]);
    assert_eq!(scene.ack(&one), Settled::NoLease);
    let took = scene.took(9);
    assert_eq!(took.lent.iter().map(|lent| (lent.id.number(), lent.tries)).collect::<Vec<_>>(), [(2, 2), (3, 2)]);
}
