//! Wakes: whoever watches a queue is told when there is something to take where there was nothing.

use fanfare::domain::queue::*;
use futures::StreamExt;
use futures::stream::BoxStream;

use super::*;

async fn next(wakes: &mut BoxStream<'static, Wake>) -> Wake {
    let wait = Duration::from_secs(20);
    loop {
        let wake = tokio::time::timeout(wait, wakes.next()).await.expect("a wake comes").expect("the stream goes on");
        if wake != Wake::Lost {
            return wake;
        }
    }
}

pub async fn takers_are_woken_of_the_queues_that_they_watch<F: Future<Output = Subject>>(
    fresh: fn(QueueSettings) -> F,
) {
    let subject = fresh(plain()).await;
    let (watch, mut wakes) = subject.keeper.queues.wakes();
    watch.watch(&queue("a"));
    watch.watch(&queue("b"));
    watch.unwatch(&queue("b"));
    for name in ["b", "c", "a"] {
        subject.put(Put { queue: queue(name), ..job("x") }).await;
    }
    assert_eq!(next(&mut wakes).await, Wake::Jobs(queue("a")));
}

pub async fn whoever_comes_back_wakes_takers<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let subject = fresh(plain()).await;
    subject.put_all([grouped("g"), grouped("g")]).await;
    let (watch, mut wakes) = subject.keeper.queues.wakes();
    watch.watch(&jobs());
    let head = subject.take_one().await;
    subject.nack(&head, None).await;
    assert_eq!(next(&mut wakes).await, Wake::Jobs(jobs()), "a job that failed");
    let head = subject.take_one().await;
    subject.ack(&head).await;
    assert_eq!(next(&mut wakes).await, Wake::Jobs(jobs()), "the next of its group");
    subject.change(Change::Pause(true)).await;
    subject.change(Change::Pause(false)).await;
    assert_eq!(next(&mut wakes).await, Wake::Jobs(jobs()), "a pause that ended");
    let last = subject.take_one().await;
    subject.term(&last).await;
    subject.change(Change::Redrive { jobs: None, cause: None, limit: 1 }).await;
    assert_eq!(next(&mut wakes).await, Wake::Jobs(jobs()), "a dead letter");
}

pub async fn what_is_due_wakes_takers_when_somebody_sweeps<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let subject = fresh(plain()).await;
    let (watch, mut wakes) = subject.keeper.queues.wakes();
    watch.watch(&jobs());
    subject.put(delayed(200)).await;
    subject.pass(210).await;
    assert!(subject.sweep().await.takeable);
    assert_eq!(next(&mut wakes).await, Wake::Jobs(jobs()));
}

pub async fn a_firing_wakes_whoever_tells_it<F: Future<Output = Subject>>(fresh: fn(QueueSettings) -> F) {
    let start_when = StartWhen { any: vec![Arm::Count(2)], mode: Start::Gate, batch: None, webhook: None };
    let subject = fresh(QueueSettings { start_when: Some(start_when), ..plain() }).await;
    let (watch, mut wakes) = subject.keeper.queues.wakes();
    watch.watch(&jobs());
    // Wakes may come for nothing, and a store may begin to listen after the first firing.
    let mut heard = Vec::new();
    for _ in 0..40 {
        subject.put_all([job("a"), job("b")]).await;
        while let Ok(Some(wake)) = tokio::time::timeout(Duration::from_millis(500), wakes.next()).await {
            heard.push(wake);
            if heard.contains(&Wake::Jobs(jobs())) && heard.contains(&Wake::Fired(jobs())) {
                return;
            }
        }
        subject.change(Change::Purge(None)).await;
    }
    panic!("not woken: {heard:?}");
}
