//! Order, groups, tries, leases, dead letters, bounds.

use std::collections::{BTreeMap, HashSet};

use fanfare::domain::queue::*;
use fanfare::domain::store::StoreError;

use super::*;

pub async fn jobs_come_back_as_they_were_put<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let subject = fresh(plain()).await;
    let text = "\"data\":\"시루 \\u0000 안녕!\"";
    let put = Put { priority: Priority::new(7).unwrap(), group: Some("주문".into()), ..job(text) };
    let answer = subject.try_put(put).await.unwrap();
    let PutAnswer::Stored { job, time, durability } = answer else { panic!("{answer:?}") };
    assert_eq!(durability, subject.store.status().durability);
    assert_eq!(job.number(), 1);
    let taken = subject.take_one().await;
    assert_eq!((taken.id, &taken.queue, taken.time), (job, &jobs(), time));
    assert_eq!((taken.tries, taken.max_tries, taken.lease), (1, 3, plain().lease));
    assert_eq!((taken.priority.level(), taken.group.as_deref()), (7, Some("주문")));
    assert_eq!(taken.body, body(text));
    assert_eq!(subject.ack(&taken).await, Settled::Done);
    assert_eq!(subject.places().await, [0; 5]);
}

pub async fn the_highest_priority_comes_first_and_in_it_the_lowest_number<F: Future<Output = Subject>>(
    fresh: fn(QueueSettings) -> F,
) {
    let subject = fresh(plain()).await;
    subject.put_all([urgent(4), urgent(9), urgent(0), urgent(9), urgent(4)]).await;
    assert_eq!(subject.numbers(2).await, [2, 4]);
    assert_eq!(subject.numbers(10).await, [1, 5, 3]);
}

pub async fn each_so_many_th_job_is_the_oldest<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let subject = fresh(QueueSettings { fair_every: Some(3), ..plain() }).await;
    subject.put_all([1, 1, 9, 9, 9, 9].map(urgent)).await;
    assert_eq!(subject.numbers(4).await, [3, 4, 1, 5]);
    assert_eq!(subject.numbers(2).await, [6, 2]);
}

pub async fn a_queue_that_is_not_there_is_empty_and_does_not_begin<F: Future<Output = Subject>>(
    fresh: fn(QueueSettings) -> F,
) {
    let subject = fresh(plain()).await;
    assert_eq!(subject.took("w", 5).await, Taken::default());
    let nowhere = JobId("k3.7".parse().unwrap());
    let settle = Settle { job: nowhere, token: 1, how: How::Ack };
    assert_eq!(subject.keeper.queues.settle(&jobs(), vec![settle]).await, [Ok(Settled::Gone)]);
    assert_eq!(subject.sweep().await, Swept::default());
    assert_eq!(subject.keeper.admin.stats(&jobs()).await, Ok(None));
    assert_eq!(subject.keeper.admin.list(None, 10).await, Ok(vec![]));
    assert_eq!(subject.change(Change::Purge(None)).await, 0);
    assert_eq!(subject.keeper.queues.put(vec![]).await, []);
}

pub async fn a_take_ends_with_its_count_and_its_bytes<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let subject = fresh(plain()).await;
    subject.put_all([10, 10, 30, 1].map(|size| job(&"x".repeat(size)))).await;
    for (count, bytes, given, more) in [(0, 100, 0, true), (9, 25, 2, true), (9, 5, 1, true), (9, 5, 1, false)] {
        let take = Take { bytes, ..take("w", count) };
        let taken = subject.keeper.queues.take(&jobs(), take).await.unwrap();
        assert_eq!((taken.jobs.len(), taken.more), (given, more), "{count} of {bytes} bytes");
    }
}

pub async fn calls_about_one_queue_are_applied_in_their_order<F: Future<Output = Subject>>(
    fresh: fn(QueueSettings) -> F,
) {
    let subject = fresh(plain()).await;
    let (queues, admin) = (&subject.keeper.queues, &subject.keeper.admin);
    let calls = (
        queues.put(vec![job("a"), job("b")]),
        queues.take(&jobs(), take("w", 1)),
        admin.change(&jobs(), Change::Purge(Some(Place::Ready))),
        queues.put(vec![job("c")]),
        queues.take(&jobs(), take("w", 9)),
    );
    // Whoever asks does not need to wait for what was asked before.
    let last = calls.4.await.unwrap();
    assert_eq!(last.jobs.iter().map(|job| job.id.number()).collect::<Vec<_>>(), [3]);
    assert_eq!(calls.1.await.unwrap().jobs[0].id.number(), 1);
    assert_eq!(calls.2.await, Ok(1));
}

pub async fn each_job_goes_to_one_of_many_takers<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let subject = fresh(plain()).await;
    const JOBS: usize = 300;
    for _ in 0..JOBS / 100 {
        subject.put_all([(); 100].map(|()| job("x"))).await;
    }
    let workers = (0..6).map(|_| {
        let queues = subject.keeper.queues.clone();
        tokio::spawn(async move {
            let mut got = Vec::new();
            loop {
                let taken = queues.take(&jobs(), take("w", 7)).await.unwrap().jobs;
                if taken.is_empty() {
                    return got;
                }
                got.extend(taken.iter().map(|job| job.id.number()));
                let acks = taken.iter().map(|job| Settle { job: job.id, token: job.token, how: How::Ack });
                let settled = queues.settle(&jobs(), acks.collect()).await;
                assert!(settled.iter().all(|settled| *settled == Ok(Settled::Done)), "{settled:?}");
            }
        })
    });
    let got: Vec<u64> = futures::future::join_all(workers).await.into_iter().flat_map(Result::unwrap).collect();
    assert_eq!((got.len(), got.iter().collect::<HashSet<_>>().len()), (JOBS, JOBS));
}

pub async fn a_group_is_taken_one_at_a_time_in_its_order<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let subject = fresh(plain()).await;
    let hurried = Put { priority: Priority::new(9).unwrap(), ..grouped("a") };
    subject.put_all([grouped("a"), hurried, grouped("b"), job("x")]).await;
    assert_eq!(subject.places().await, [3, 1, 0, 0, 0]);
    assert_eq!(subject.stats().await.waiting[9], 1, "those that are parked wait too");
    let taken = subject.take(9).await;
    assert_eq!(taken.iter().map(|job| job.id.number()).collect::<Vec<_>>(), [1, 3, 4]);
    subject.ack(&taken[0]).await;
    assert_eq!(subject.numbers(9).await, [2]);
}

pub async fn a_job_that_comes_back_comes_back_to_its_place<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let subject = fresh(plain()).await;
    subject.put_all([job("a"), job("b"), grouped("g"), grouped("g")]).await;
    let taken = subject.take(3).await;
    assert_eq!(subject.nack(&taken[0], None).await, Settled::Done);
    assert_eq!(subject.nack(&taken[2], None).await, Settled::Done);
    assert_eq!(subject.numbers(9).await, [1, 3]);
}

pub async fn a_head_that_waits_for_its_retry_holds_its_group<F: Future<Output = Subject>>(
    fresh: fn(QueueSettings) -> F,
) {
    let subject = fresh(QueueSettings { backoff: vec![ms(300)], ..plain() }).await;
    subject.put_all([grouped("g"), grouped("g")]).await;
    let head = subject.take_one().await;
    subject.nack(&head, None).await;
    assert_eq!(subject.numbers(9).await, [0; 0]);
    assert_eq!(subject.places().await, [0, 1, 1, 0, 0]);
    subject.pass(310).await;
    assert_eq!(subject.numbers(9).await, [1]);
}

pub async fn a_dead_head_lets_its_group_go_on<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let subject = fresh(plain()).await;
    subject.put_all([grouped("g"), grouped("g")]).await;
    let head = subject.take_one().await;
    assert_eq!(subject.term(&head).await, Settled::Dead);
    assert_eq!(subject.numbers(9).await, [2]);
}

pub async fn a_dead_head_holds_its_group_where_that_is_wanted<F: Future<Output = Subject>>(
    fresh: fn(QueueSettings) -> F,
) {
    for (deal, then) in [("wait", vec![]), ("remove", vec![2]), ("purge", vec![2]), ("redrive", vec![1])] {
        let subject = fresh(QueueSettings { on_dead: OnDead::Halt, ..plain() }).await;
        subject.put_all([grouped("g"), grouped("g")]).await;
        let head = subject.take_one().await;
        subject.term(&head).await;
        match deal {
            "remove" => assert_eq!(subject.change(Change::Remove(head.id)).await, 1),
            "purge" => assert_eq!(subject.change(Change::Purge(Some(Place::Dead))).await, 1),
            "redrive" => assert_eq!(subject.change(redrive(None)).await, 1),
            _ => {}
        }
        assert_eq!(subject.numbers(9).await, then, "{deal}");
    }
}

fn redrive(cause: Option<Death>) -> Change {
    Change::Redrive { jobs: None, cause, limit: 100 }
}

pub async fn the_last_try_is_the_last<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let subject = fresh(plain()).await;
    subject.put(job("a")).await;
    for tries in 1..=2 {
        let taken = subject.take_one().await;
        assert_eq!(taken.tries, tries);
        assert_eq!(subject.nack(&taken, None).await, Settled::Done);
    }
    let last = subject.take_one().await;
    assert_eq!(subject.nack(&last, None).await, Settled::Dead);
    assert_eq!(subject.deaths().await, [(1, Death::MaxDeliveries)]);
    let seen = subject.look(Place::Dead).await.pop().unwrap();
    assert_eq!((seen.tries, seen.body), (3, body("a")));
    let attempts: Vec<_> = seen.attempts.iter().map(|a| (&*a.worker, a.end, a.error.as_deref())).collect();
    assert_eq!(attempts, [("w", AttemptEnd::Nack, Some("no")); 3]);
}

pub async fn the_newest_attempts_are_remembered<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let subject = fresh(QueueSettings { max_deliveries: 100, ..plain() }).await;
    let job = subject.put(job("a")).await;
    for n in 0..15 {
        let taken = subject.take_one().await;
        subject.settle(&taken, How::Nack { delay: None, error: Some(format!("{n}").into()) }).await;
    }
    let seen = subject.keeper.admin.find(&jobs(), job).await.unwrap().unwrap();
    let errors: Vec<_> = seen.attempts.iter().map(|attempt| attempt.error.clone().unwrap()).collect();
    assert_eq!((errors.len(), &*errors[0], &*errors[9]), (MOST_ATTEMPTS, "5", "14"));
}

pub async fn waits_grow_with_the_number_of_the_delivery<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let subject = fresh(QueueSettings { backoff: vec![ms(0), ms(250)], max_deliveries: 9, ..plain() }).await;
    subject.put(job("a")).await;
    let first = subject.take_one().await;
    subject.nack(&first, None).await;
    let second = subject.take_one().await;
    subject.nack(&second, None).await;
    let taken = subject.took("w", 1).await;
    assert!(taken.jobs.is_empty() && taken.next.is_some_and(|next| next <= ms(250)), "{taken:?}");
    subject.pass(260).await;
    let third = subject.take_one().await;
    subject.nack(&third, Some(0)).await;
    assert_eq!(subject.take_one().await.tries, 4, "a delay of its own comes before the queue's");
}

pub async fn what_is_released_was_not_delivered<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let subject = fresh(QueueSettings { max_deliveries: 1, ..plain() }).await;
    subject.put(job("a")).await;
    for _ in 0..3 {
        let taken = subject.take_one().await;
        assert_eq!(taken.tries, 1);
        assert_eq!(subject.settle(&taken, How::Release).await, Settled::Done);
    }
    assert_eq!(subject.places().await, [1, 0, 0, 0, 0]);
}

pub async fn a_delivery_is_settled_once_and_by_its_token<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let subject = fresh(plain()).await;
    subject.put_all([job("a"), job("b")]).await;
    let (a, b) = (subject.take_one().await, subject.take_one().await);
    let wrong = Job { token: a.token + 1_000_000, ..a.clone() };
    assert_eq!(subject.ack(&wrong).await, Settled::NoLease);
    assert_eq!(subject.ack(&a).await, Settled::Done);
    assert_eq!(subject.ack(&a).await, Settled::Gone);
    subject.nack(&b, None).await;
    assert_eq!(subject.ack(&b).await, Settled::NoLease);
    let again = subject.take_one().await;
    assert_eq!(subject.ack(&b).await, Settled::NoLease, "the newest delivery alone counts");
    assert_eq!(subject.settle(&b, How::Extend { by: None }).await, Settled::NoLease);
    let foreign = Job { id: JobId("zzzzzzzz.2".parse().unwrap()), ..again.clone() };
    assert_eq!(subject.ack(&foreign).await, Settled::Gone, "an id of another life is none of these");
    assert_eq!(subject.ack(&again).await, Settled::Done);
}

pub async fn settlements_are_answered_one_by_one_in_their_order<F: Future<Output = Subject>>(
    fresh: fn(QueueSettings) -> F,
) {
    let subject = fresh(plain()).await;
    subject.put_all([job("a"), job("b"), job("c")]).await;
    let taken = subject.take(3).await;
    let of = |job: &Job, how: How| Settle { job: job.id, token: job.token, how };
    let batch = vec![
        of(&taken[0], How::Ack),
        of(&taken[0], How::Ack),
        of(&taken[1], How::Term { error: None }),
        of(&taken[2], How::Release),
        of(&taken[2], How::Ack),
    ];
    let settled: Vec<_> = subject.keeper.queues.settle(&jobs(), batch).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(settled, [Settled::Done, Settled::Gone, Settled::Dead, Settled::Done, Settled::NoLease]);
}

pub async fn a_lease_that_ends_gives_the_job_back_and_counts<F: Future<Output = Subject>>(
    fresh: fn(QueueSettings) -> F,
) {
    let subject = fresh(QueueSettings { lease: ms(300), max_deliveries: 2, ..plain() }).await;
    subject.put(job("a")).await;
    let late = subject.take_one().await;
    let taken = subject.took("w", 1).await;
    assert!(taken.jobs.is_empty() && taken.next.is_some_and(|next| next <= ms(300)), "{taken:?}");
    subject.pass(310).await;
    assert_eq!(subject.ack(&late).await, Settled::NoLease);
    assert_eq!(subject.take_one().await.tries, 2);
    subject.pass(310).await;
    assert_eq!(subject.places().await, [0, 0, 0, 0, 1]);
    let seen = subject.look(Place::Dead).await.pop().unwrap();
    assert_eq!(seen.death, Some(Death::MaxDeliveries));
    assert_eq!(seen.attempts.iter().map(|a| a.end).collect::<Vec<_>>(), [AttemptEnd::Lease; 2]);
    assert_eq!(subject.stats().await.totals.lease_ended, 2);
}

pub async fn a_lease_is_as_long_as_was_asked_and_extended_no_further_than_allowed<F: Future<Output = Subject>>(
    fresh: fn(QueueSettings) -> F,
) {
    let subject = fresh(QueueSettings { lease: ms(200), max_lease: ms(60_000), ..plain() }).await;
    subject.put(job("a")).await;
    let asked = Take { lease: Some(ms(90_000)), ..take("w", 1) };
    let taken = subject.keeper.queues.take(&jobs(), asked).await.unwrap().jobs.pop().unwrap();
    assert_eq!(taken.lease, ms(60_000));
    let left = subject.settle(&taken, How::Extend { by: Some(ms(90_000)) }).await;
    assert!(matches!(left, Settled::Extended(left) if left <= ms(60_000) && left > ms(50_000)), "{left:?}");
    let usual = subject.settle(&taken, How::Extend { by: None }).await;
    assert_eq!(usual, Settled::Extended(ms(200)));
    subject.pass(210).await;
    assert_eq!(subject.settle(&taken, How::Extend { by: None }).await, Settled::NoLease);
    assert_eq!(subject.numbers(1).await, [1]);
}

pub async fn delays_hold_jobs_back<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let subject = fresh(QueueSettings { delay: ms(600_000), ..plain() }).await;
    let past = Put { due: Due::At(5), ..job("past") };
    subject.put_all([job("usual"), delayed(300), past, grouped("of a group")]).await;
    assert_eq!(subject.numbers(9).await, [3, 4]);
    assert_eq!(subject.places().await, [0, 0, 2, 2, 0]);
    subject.pass(310).await;
    assert_eq!(subject.numbers(9).await, [2]);
}

pub async fn what_waits_beyond_its_time_to_live_dies<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let subject = fresh(QueueSettings { ttl: Some(ms(300)), ..plain() }).await;
    let longer = Put { ttl: Some(ms(600_000)), ..job("longer") };
    subject.put_all([urgent(9), job("waits"), grouped("g"), grouped("g"), longer, delayed(100_000)]).await;
    let flying = subject.take_one().await;
    subject.pass(310).await;
    assert_eq!(subject.places().await, [1, 0, 0, 1, 4]);
    assert!(subject.deaths().await.iter().all(|(_, death)| *death == Death::Expired));
    assert_eq!(subject.nack(&flying, None).await, Settled::Dead, "it has expired meanwhile");
    assert_eq!(subject.numbers(9).await, [5]);
}

pub async fn a_full_queue_refuses_or_makes_room<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    for (on_full, level, died) in [
        (OnFull::Reject, 9, None),
        (OnFull::DropOldest, 0, Some(1)),
        (OnFull::DropLowestPriority, 2, Some(2)),
        (OnFull::DropLowestPriority, 1, None),
    ] {
        let subject = fresh(QueueSettings { max_messages: 4, on_full, ..plain() }).await;
        subject.put_all([5, 2, 7, 2].map(urgent)).await;
        let put = subject.try_put(urgent(level)).await;
        match died {
            None => assert!(matches!(put, Err(StoreError::Full(_))), "{on_full:?} {level}: {put:?}"),
            Some(number) => assert_eq!(subject.deaths().await, [(number, Death::Dropped)], "{on_full:?} {level}"),
        }
        assert_eq!(subject.stats().await.waiting.iter().sum::<u64>(), 4);
    }
}

pub async fn bytes_make_a_queue_full_too<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let subject = fresh(QueueSettings { max_bytes: 1024, on_full: OnFull::DropOldest, ..plain() }).await;
    let of = |size: usize| job(&"x".repeat(size));
    subject.put_all([of(400), of(300), of(300), of(600)]).await;
    assert_eq!(subject.deaths().await, [(1, Death::Dropped), (2, Death::Dropped)]);
    assert_eq!(subject.stats().await.bytes, 900);
    assert!(matches!(subject.try_put(of(1025)).await, Err(StoreError::TooLarge(_))));
    subject.take(1).await;
    assert!(matches!(subject.try_put(of(800)).await, Err(StoreError::Full(_))), "not enough can be dropped");
    assert_eq!(subject.stats().await.dead, 2, "so nothing is");
}

pub async fn dead_letters_are_bounded_and_the_forgotten_are_counted<F: Future<Output = Subject>>(
    fresh: fn(QueueSettings) -> F,
) {
    let subject = fresh(QueueSettings { dead_messages: 3, dead_bytes: 25, ..plain() }).await;
    for _ in 0..5 {
        subject.put(job("0123456789")).await;
        let taken = subject.take_one().await;
        subject.term(&taken).await;
        subject.pass(2).await;
    }
    assert_eq!(subject.deaths().await, [(4, Death::Term), (5, Death::Term)]);
    let Stats { totals, dead_bytes, bytes, .. } = subject.stats().await;
    assert_eq!((totals.died, totals.forgotten, dead_bytes, bytes), (5, 3, 20, 0));
}

pub async fn where_no_dead_letters_are_kept_they_are_counted_alone<F: Future<Output = Subject>>(
    fresh: fn(QueueSettings) -> F,
) {
    let subject = fresh(QueueSettings { dead_messages: 0, ..plain() }).await;
    let job = subject.put(grouped("g")).await;
    subject.put(grouped("g")).await;
    let taken = subject.take_one().await;
    assert_eq!(subject.term(&taken).await, Settled::Dead);
    assert_eq!(subject.keeper.admin.find(&jobs(), job).await, Ok(None));
    assert_eq!(subject.ack(&taken).await, Settled::Gone);
    let totals = subject.stats().await.totals;
    assert_eq!((totals.died, totals.forgotten), (1, 1));
    assert_eq!(subject.numbers(1).await, [2]);
}

pub async fn workers_beyond_the_seats_stand_by<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let subject = fresh(QueueSettings { max_workers: Some(1), ..plain() }).await;
    subject.put_all([job("a"), job("b"), job("c")]).await;
    assert_eq!(subject.took("first", 1).await.jobs.len(), 1);
    let stands_by = subject.took("second", 1).await;
    assert_eq!((stands_by.jobs.len(), stands_by.held), (0, Some(Held::Seats)));
    assert!(stands_by.next.is_some_and(|next| next <= SEAT), "{stands_by:?}");
    assert_eq!(subject.stats().await.seats, [Box::<str>::from("first")]);
    assert_eq!(subject.change(Change::Leave { worker: "first".into() }).await, 1);
    assert_eq!(subject.took("second", 1).await.jobs.len(), 1);
    assert_eq!(subject.took("first", 1).await.held, Some(Held::Seats));
}

pub async fn a_seat_is_kept_by_taking_and_ends_without<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let subject = fresh(QueueSettings { max_workers: Some(1), ..plain() }).await;
    subject.put_all([job("a"), job("b")]).await;
    subject.took("first", 1).await;
    subject.pass(8_000).await;
    subject.took("first", 0).await;
    subject.pass(8_000).await;
    assert_eq!(subject.took("second", 1).await.held, Some(Held::Seats));
    subject.pass(2_100).await;
    assert_eq!(subject.took("second", 1).await.jobs.len(), 1);
}

pub async fn no_counter_differs_from_what_is_there<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let subject = fresh(plain()).await;
    subject.put_all([urgent(9), urgent(0), urgent(9), grouped("g"), grouped("g"), delayed(600_000)]).await;
    let taken = subject.take(3).await;
    subject.ack(&taken[0]).await;
    subject.nack(&taken[1], Some(600_000)).await;
    let stats = subject.stats().await;
    let mut waiting = BTreeMap::new();
    for place in [Place::Ready, Place::Parked] {
        for seen in subject.look(place).await {
            *waiting.entry(seen.priority.level()).or_insert(0u64) += 1;
        }
    }
    for level in 0..10u8 {
        assert_eq!(stats.waiting[level as usize], waiting.get(&level).copied().unwrap_or(0), "of {level}");
    }
    assert_eq!((stats.parked, stats.delayed, stats.in_flight, stats.dead), (1, 2, 1, 0));
    let totals = stats.totals;
    assert_eq!((totals.put, totals.taken, totals.acked, totals.nacked), (6, 3, 1, 1));
    assert_eq!(stats.bytes, 5);
}
