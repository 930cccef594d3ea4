//! `start_when`: gates, firings, and who tells of them.

use fanfare::domain::queue::*;

use super::*;

fn starting(mode: Start, batch: Option<u64>, any: &[Arm]) -> QueueSettings {
    let start_when = Some(StartWhen { any: any.to_vec(), mode, batch, webhook: None });
    QueueSettings { start_when, ..plain() }
}

/// Ten of priority 7 or higher, or ten of any.
fn ten_or_ten_urgent(mode: Start) -> QueueSettings {
    let urgent = Arm::Urgent { count: 10, min_priority: Priority::new(7).unwrap() };
    starting(mode, None, &[urgent, Arm::Count(10)])
}

pub async fn the_tenth_job_opens_the_gate<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let subject = fresh(ten_or_ten_urgent(Start::Gate)).await;
    subject.put_all([0; 9].map(urgent)).await;
    let taken = subject.took("w", 1).await;
    assert_eq!((taken.jobs.len(), taken.held, taken.more), (0, Some(Held::Gate), false));
    assert_eq!(subject.stats().await.gate_open, Some(false));
    subject.put(urgent(9)).await;
    assert_eq!(subject.stats().await.gate_open, Some(true));
    assert_eq!(subject.take(20).await.len(), 10);
    assert_eq!(subject.stats().await.gate_open, Some(false), "nothing waits any more");
}

pub async fn ten_urgent_ones_among_ten_of_any_fire_once<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let subject = fresh(ten_or_ten_urgent(Start::Notify)).await;
    subject.put_all([7; 10].map(urgent)).await;
    subject.put_all([9; 30].map(urgent)).await;
    let fired = subject.sweep().await.fired.expect("it fired");
    assert_eq!((fired.queue, fired.number, fired.arm), (jobs(), 1, 0));
    assert!(fired.waiting[7] == 10, "{:?}", fired.waiting);
    assert_eq!(subject.stats().await.firings, 1);
    assert_eq!(subject.take(5).await.len(), 5, "only told: there is no gate");
}

pub async fn a_gate_stays_open_while_anything_waits<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let subject = fresh(starting(Start::Gate, None, &[Arm::Count(2)])).await;
    subject.put_all([job("a"), job("b")]).await;
    assert_eq!(subject.numbers(1).await, [1]);
    assert_eq!(subject.numbers(1).await, [2]);
    subject.put(job("c")).await;
    assert_eq!(subject.took("w", 1).await.held, Some(Held::Gate), "what is in flight does not wait");
}

pub async fn what_is_parked_counts_and_what_is_delayed_does_when_it_is_due<F: Future<Output = Subject>>(
    fresh: fn(QueueSettings) -> F,
) {
    let subject = fresh(starting(Start::Gate, None, &[Arm::Count(3)])).await;
    subject.put_all([grouped("g"), grouped("g"), delayed(300)]).await;
    let taken = subject.took("w", 1).await;
    assert_eq!(taken.held, Some(Held::Gate));
    assert!(taken.next.is_some_and(|next| next <= ms(300)), "{taken:?}");
    subject.pass(310).await;
    assert_eq!(subject.numbers(9).await, [1, 3]);
}

pub async fn a_purge_closes_the_gate<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let subject = fresh(starting(Start::Gate, None, &[Arm::Count(2)])).await;
    subject.put_all([job("a"), job("b"), job("c")]).await;
    subject.change(Change::Purge(None)).await;
    subject.put(job("d")).await;
    assert_eq!(subject.took("w", 1).await.held, Some(Held::Gate));
}

pub async fn age_opens_the_gate_for_a_remainder<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let subject = fresh(starting(Start::Gate, None, &[Arm::Count(10), Arm::Oldest(ms(400))])).await;
    subject.put_all([urgent(9), urgent(0)]).await;
    let taken = subject.took("w", 1).await;
    assert_eq!(taken.held, Some(Held::Gate));
    assert!(taken.next.is_some_and(|next| next <= ms(400)), "{taken:?}");
    subject.pass(410).await;
    let swept = subject.sweep().await;
    let fired = swept.fired.expect("it fired");
    assert_eq!((fired.arm, swept.takeable), (1, true));
    assert!(fired.oldest >= ms(400));
    assert_eq!(subject.numbers(9).await, [1, 2]);
}

pub async fn a_batch_closes_the_gate<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let subject = fresh(starting(Start::Gate, Some(3), &[Arm::Count(3)])).await;
    subject.put_all([(); 8].map(|()| job("x"))).await;
    let taken = subject.took("w", 9).await;
    assert_eq!((taken.jobs.len(), taken.held, taken.more), (3, None, true), "five wait, so it fired again");
    let taken = subject.took("w", 9).await;
    assert_eq!((taken.jobs.len(), taken.held), (3, Some(Held::Gate)), "two wait");
    assert_eq!(subject.stats().await.firings, 2);
}

pub async fn a_firing_is_one_teller_s_until_it_is_told<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let subject = fresh(starting(Start::Notify, None, &[Arm::Count(1)])).await;
    subject.put(job("a")).await;
    assert!(subject.took("w", 1).await.has_fired);
    subject.put(job("b")).await;
    let tellers = (0..8).map(|_| subject.keeper.queues.sweep(&Queue::parse("jobs").unwrap()));
    let fired: Vec<u64> = futures::future::join_all(tellers)
        .await
        .into_iter()
        .filter_map(|swept| swept.unwrap().fired)
        .map(|firing| firing.number)
        .collect();
    assert_eq!(fired, [1], "one of eight, and the next not before the first");
    assert!(!subject.took("w", 0).await.has_fired);
    assert_eq!(subject.change(Change::Told(1)).await, 1);
    assert_eq!(subject.change(Change::Told(1)).await, 0);
    assert_eq!(subject.sweep().await.fired.map(|firing| firing.number), Some(2));
}

pub async fn a_firing_that_nobody_told_is_given_out_again<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let subject = fresh(starting(Start::Notify, None, &[Arm::Count(1)])).await;
    subject.put(job("a")).await;
    let first = subject.sweep().await.fired.expect("it fired");
    assert_eq!(subject.sweep().await.fired, None);
    subject.pass(CLAIM.as_millis() as u64 + 10).await;
    assert_eq!(subject.sweep().await.fired, Some(first));
}
