//! Two desks of one store, one of which hears late of what it has taken.

use futures::stream::BoxStream;
use tokio::sync::{Semaphore, mpsc};

use super::*;
use crate::domain::message::Body;
use crate::domain::queue::{How, Job, JobId, Mark, QueueSettings, Queues, Swept, Take, Taken};
use crate::store::{Options, open};

/// Longer than anything here should take; reaching it is a failure.
const SOON: Duration = Duration::from_secs(20);

/// Queues behind a line that holds the answers of takes, once it is told to.
struct Behind {
    queues: Arc<dyn Queues>,
    line: Arc<Semaphore>,
    /// Told of each answer that has jobs, before it is held.
    taken: mpsc::UnboundedSender<usize>,
}

impl Queues for Behind {
    fn take(&self, queue: &Queue, take: Take) -> BoxFuture<'static, Result<Taken, StoreError>> {
        let (taken, line, told) = (self.queues.take(queue, take), self.line.clone(), self.taken.clone());
        async move {
            let taken = taken.await?;
            if !taken.jobs.is_empty() {
                let _ = told.send(taken.jobs.len());
                let _open = line.acquire().await;
            }
            Ok(taken)
        }
        .boxed()
    }

    fn put(&self, batch: Vec<Put>) -> BoxFuture<'static, Vec<Result<PutAnswer, StoreError>>> {
        self.queues.put(batch)
    }

    fn settle(&self, queue: &Queue, batch: Vec<Settle>) -> BoxFuture<'static, Vec<Result<Settled, StoreError>>> {
        self.queues.settle(queue, batch)
    }

    fn sweep(&self, queue: &Queue) -> BoxFuture<'static, Result<Swept, StoreError>> {
        self.queues.sweep(queue)
    }

    fn mark(&self, queue: &Queue, source: &str) -> BoxFuture<'static, Result<Option<Mark>, StoreError>> {
        self.queues.mark(queue, source)
    }

    fn settings(&self, queue: &Queue) -> BoxFuture<'static, Result<QueueSettings, StoreError>> {
        self.queues.settings(queue)
    }

    fn wakes(&self) -> (Box<dyn WatchQueues>, BoxStream<'static, Wake>) {
        self.queues.wakes()
    }
}

async fn put(desk: &Desk, queue: &Queue, text: &'static str) -> JobId {
    let put = Put { group: Some("one".into()), ..Put::new(queue.clone(), Body::from_canonical(text.into())) };
    match desk.put(vec![put]).await.remove(0).unwrap() {
        PutAnswer::Stored { job, .. } => job,
        other => panic!("it is new: {other:?}"),
    }
}

async fn next(jobs: &mut Jobs) -> Job {
    let mut batch = tokio::time::timeout(SOON, jobs.next()).await.expect("a job in time").expect("the desk is open");
    assert_eq!(batch.len(), 1, "one of a group at a time");
    batch.remove(0)
}

#[tokio::test]
async fn what_was_longer_on_its_way_than_its_lease_is_given_to_nobody() {
    let opened = open("memory", Options::default()).await.unwrap();
    let keeper = opened.queues.unwrap();
    let (line, (told, mut taken)) = (Arc::new(Semaphore::new(0)), mpsc::unbounded_channel());
    let behind = Behind { queues: keeper.queues.clone(), line: line.clone(), taken: told };
    let far = Desk::open(QueueKeeper { queues: Arc::new(behind), admin: keeper.admin.clone() });
    let near = Desk::open(keeper);
    let queue = Queue::parse("jobs").unwrap();
    let first = put(&near, &queue, "\"data\":1").await;
    put(&near, &queue, "\"data\":2").await;

    let (outlet, mut heard) = far.jobs(8);
    let _slow = far.take(&queue, "slow", 1, Some(Duration::from_millis(100)), outlet);
    assert_eq!(tokio::time::timeout(SOON, taken.recv()).await.unwrap(), Some(1));
    // Another has it when the lease is over, does it, and the next one of its group.
    let (outlet, mut jobs) = near.jobs(8);
    let quick = near.take(&queue, "quick", 1, Some(Duration::from_secs(60)), outlet);
    for tries in [2, 1] {
        let job = next(&mut jobs).await;
        assert_eq!((job.id == first, job.tries), (tries == 2, tries));
        let ack = Settle { job: job.id, token: job.token, how: How::Ack };
        assert_eq!(near.settle(&queue, vec![ack]).await, [Ok(Settled::Done)]);
        quick.free(1);
    }
    drop(quick);

    line.add_permits(1_000);
    let third = put(&near, &queue, "\"data\":3").await;
    assert_eq!(next(&mut heard).await.id, third, "what others have done is given out late");
}
