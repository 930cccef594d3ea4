//! What operators see and do.

use fanfare::domain::queue::*;

use super::*;

pub async fn jobs_are_seen_in_the_order_of_their_place<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let subject = fresh(plain()).await;
    subject.put_all([urgent(9), urgent(0), urgent(9), delayed(900_000), delayed(600_000)]).await;
    subject.put_all([grouped("b"), grouped("a"), grouped("b"), grouped("a")]).await;
    let held = subject.take_one().await;
    let mut numbers = Vec::new();
    for place in [Place::Ready, Place::Parked, Place::Delayed, Place::InFlight, Place::Dead] {
        let seen = subject.look(place).await;
        assert!(seen.iter().all(|seen| seen.place == place));
        numbers.push(seen.iter().map(|seen| seen.id.number()).collect::<Vec<_>>());
    }
    assert_eq!(numbers, [vec![3, 6, 7, 2], vec![9, 8], vec![5, 4], vec![1], vec![]]);
    let admin = &subject.keeper.admin;
    let page = admin.look(&jobs(), Place::Ready, 1, 2).await.unwrap();
    assert_eq!(page.iter().map(|seen| seen.id.number()).collect::<Vec<_>>(), [6, 7]);
    let seen = admin.find(&jobs(), held.id).await.unwrap().unwrap();
    assert_eq!((seen.tries, seen.place, seen.time), (1, Place::InFlight, held.time));
    assert!(seen.until.is_some_and(|until| until > held.time));
    assert_eq!(subject.places().await, [4, 2, 2, 1, 0], "looking takes nothing");
}

pub async fn queues_are_listed_by_their_names<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let subject = fresh(plain()).await;
    for name in ["b", "a.c", "a", "c"] {
        subject.put(Put { queue: queue(name), ..job("x") }).await;
    }
    let admin = &subject.keeper.admin;
    assert_eq!(admin.list(None, 3).await, Ok(["a", "a.c", "b"].map(queue).into()));
    assert_eq!(admin.list(Some(&queue("b")), 3).await, Ok(vec![queue("c")]));
    assert_eq!(admin.list(Some(&queue("aa")), 1).await, Ok(vec![queue("b")]));
}

pub async fn a_paused_queue_takes_in_and_gives_nothing_out<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let subject = fresh(plain()).await;
    subject.put(job("a")).await;
    assert_eq!(subject.change(Change::Pause(true)).await, 1);
    assert_eq!(subject.change(Change::Pause(true)).await, 0);
    subject.put(job("b")).await;
    let taken = subject.took("w", 9).await;
    assert_eq!((taken.jobs.len(), taken.held, taken.more), (0, Some(Held::Paused), false));
    assert!(subject.stats().await.paused);
    assert_eq!(subject.change(Change::Pause(false)).await, 1);
    assert_eq!(subject.numbers(9).await, [1, 2]);
}

pub async fn settings_of_its_own_come_and_go<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let subject = fresh(plain()).await;
    let own = QueueSettings { max_deliveries: 1, ttl: Some(ms(600_000)), ..Preset::SqsFifo.settings() };
    assert_eq!(subject.keeper.queues.settings(&jobs()).await, Ok(plain()));
    assert_eq!(subject.change(Change::Settings(Some(Box::new(own.clone())))).await, 1);
    assert_eq!(subject.keeper.queues.settings(&jobs()).await, Ok(own));
    assert_eq!(subject.keeper.admin.list(None, 9).await, Ok(vec![jobs()]), "it begins with that");
    subject.put(job("a")).await;
    let taken = subject.take_one().await;
    assert_eq!((taken.max_tries, subject.nack(&taken, None).await), (1, Settled::Dead));
    assert_eq!(subject.change(Change::Settings(None)).await, 1);
    assert_eq!(subject.change(Change::Settings(None)).await, 0);
    assert_eq!(subject.keeper.queues.settings(&jobs()).await, Ok(plain()));
}

pub async fn what_is_purged_is_gone_and_numbers_go_on<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let subject = fresh(plain()).await;
    subject.put_all([job("a"), job("b"), grouped("g"), grouped("g"), delayed(600_000)]).await;
    let taken = subject.take(2).await;
    subject.term(&taken[1]).await;
    assert_eq!(subject.change(Change::Purge(None)).await, 4);
    assert_eq!(subject.places().await, [0, 0, 0, 0, 1]);
    assert_eq!(subject.stats().await.bytes, 0);
    assert_eq!(subject.ack(&taken[0]).await, Settled::Gone);
    assert_eq!(subject.put(grouped("g")).await.number(), 6);
    assert_eq!(subject.numbers(9).await, [6]);
}

pub async fn each_place_is_purged_by_itself<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    for (place, left) in [
        (Place::Ready, [0, 0, 1, 1, 1]),
        (Place::Parked, [0, 0, 1, 1, 1]),
        (Place::Delayed, [1, 1, 0, 1, 1]),
        // The next of the group is its head then.
        (Place::InFlight, [2, 0, 1, 0, 1]),
        (Place::Dead, [1, 1, 1, 1, 0]),
    ] {
        let subject = fresh(plain()).await;
        subject.put_all([job("dies"), grouped("g"), grouped("g"), delayed(600_000), job("waits")]).await;
        let taken = subject.take(2).await;
        subject.term(&taken[0]).await;
        subject.change(Change::Purge(Some(place))).await;
        assert_eq!(subject.places().await, left, "{place:?}");
    }
}

pub async fn one_job_is_removed_but_not_while_it_is_in_flight<F: Future<Output = Subject>>(
    fresh: fn(QueueSettings) -> F,
) {
    let subject = fresh(plain()).await;
    let [_, waiting] = subject.put_all([job("a"), job("b")]).await;
    let taken = subject.take_one().await;
    assert_eq!(subject.change(Change::Remove(taken.id)).await, 0);
    assert_eq!(subject.change(Change::Remove(waiting)).await, 1);
    assert_eq!(subject.change(Change::Remove(waiting)).await, 0);
    assert_eq!(subject.ack(&taken).await, Settled::Done);
}

pub async fn dead_letters_come_back_with_all_their_tries<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let subject = fresh(QueueSettings { max_deliveries: 1, max_messages: 3, ..plain() }).await;
    subject.put_all([job("a"), job("b"), job("c")]).await;
    let taken = subject.take(9).await;
    subject.nack(&taken[0], None).await;
    subject.pass(2).await;
    subject.term(&taken[1]).await;
    subject.pass(2).await;
    subject.term(&taken[2]).await;
    let redrive = |jobs: Option<Vec<JobId>>, cause| Change::Redrive { jobs, cause, limit: 1 };
    assert_eq!(subject.change(redrive(None, Some(Death::Term))).await, 1, "the oldest of that cause");
    assert_eq!(subject.change(redrive(Some(vec![taken[0].id, taken[1].id]), None)).await, 1, "one is not dead");
    assert_eq!(subject.deaths().await, [(3, Death::Term)]);
    subject.put(job("d")).await;
    assert_eq!(subject.change(redrive(None, None)).await, 0, "the queue is full");
    let again = subject.take(9).await;
    assert_eq!(again.iter().map(|job| (job.id.number(), job.tries)).collect::<Vec<_>>(), [(1, 1), (2, 1), (4, 1)]);
    assert_eq!(subject.stats().await.totals.redriven, 2);
}

pub async fn a_dead_letter_that_comes_back_stands_behind_the_head_of_its_group<F: Future<Output = Subject>>(
    fresh: fn(QueueSettings) -> F,
) {
    let subject = fresh(plain()).await;
    subject.put_all([grouped("g"), grouped("g"), grouped("g")]).await;
    let first = subject.take_one().await;
    subject.term(&first).await;
    let second = subject.take_one().await;
    assert_eq!(subject.change(Change::Redrive { jobs: None, cause: None, limit: 9 }).await, 1);
    assert_eq!(subject.numbers(9).await, [0; 0]);
    subject.ack(&second).await;
    assert_eq!(subject.numbers(9).await, [1], "before those that were put after it");
}

pub async fn a_dead_letter_can_be_edited_and_nothing_else<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let subject = fresh(plain()).await;
    let [_, waiting] = subject.put_all([job("abc"), job("b")]).await;
    let taken = subject.take_one().await;
    let edit = |job, text: &str| Change::Edit { job, body: body(text) };
    assert_eq!(subject.change(edit(taken.id, "new")).await, 0);
    assert_eq!(subject.change(edit(waiting, "new")).await, 0);
    subject.term(&taken).await;
    assert_eq!(subject.change(edit(taken.id, "another")).await, 1);
    assert_eq!(subject.stats().await.dead_bytes, 7);
    subject.change(Change::Redrive { jobs: None, cause: None, limit: 9 }).await;
    assert_eq!(subject.take_one().await.body, body("another"));
}

pub async fn a_deleted_queue_is_gone_with_all_that_it_holds<F: Future<Output = Subject>>(
    fresh: fn(QueueSettings) -> F,
) {
    let subject = fresh(plain()).await;
    let own = QueueSettings { max_deliveries: 1, ..plain() };
    subject.change(Change::Settings(Some(Box::new(own)))).await;
    let keyed = || Put { idempotency_key: Some("k".into()), ..job("a") };
    let [first, _] = subject.put_all([keyed(), job("b")]).await;
    let taken = subject.take_one().await;
    assert_eq!(subject.change(Change::Delete).await, 1);
    assert_eq!(subject.change(Change::Delete).await, 0);
    assert_eq!(subject.keeper.admin.list(None, 9).await, Ok(vec![]));
    assert_eq!(subject.ack(&taken).await, Settled::Gone);
    assert_ne!(subject.put(keyed()).await, first, "no id is given out twice");
    assert_eq!(subject.ack(&taken).await, Settled::Gone);
    let stats = subject.stats().await;
    assert_eq!((stats.totals.put, stats.in_flight), (1, 0));
    assert_eq!(subject.keeper.queues.settings(&jobs()).await, Ok(plain()));
}

pub async fn it_is_told_how_long_the_oldest_has_been_takeable<F: Future<Output = Subject>>(
    fresh: fn(QueueSettings) -> F,
) {
    let subject = fresh(plain()).await;
    subject.put_all([urgent(0), urgent(9), delayed(600_000)]).await;
    subject.pass(300).await;
    assert!(subject.stats().await.oldest.is_some_and(|age| age >= ms(300)));
    subject.take(2).await;
    assert_eq!(subject.stats().await.oldest, None, "what is in flight or delayed is not takeable");
}
