//! Wakes: when they come, and that their loss is told.

use futures::StreamExt;
use futures::stream::BoxStream;

use super::*;

struct Ear {
    watch: Box<dyn WatchQueues>,
    wakes: BoxStream<'static, Wake>,
}

impl Ear {
    fn open(keeper: &Keeper) -> Ear {
        let (watch, wakes) = keeper.queues.queues.wakes();
        Ear { watch, wakes }
    }

    async fn next(&mut self) -> Wake {
        tokio::time::timeout(SOON, self.wakes.next()).await.expect("a wake in time").expect("wakes go on")
    }

    /// Listens until the server has confirmed it.
    async fn watch(&mut self, name: &str) {
        self.watch.watch(&queue(name));
        assert_eq!(self.next().await, Wake::Jobs(queue(name)));
    }
}

pub async fn wakes_come_when_there_is_something_to_take(keeper: Keeper) {
    let mut ear = Ear::open(&keeper);
    ear.watch("jobs").await;
    ear.watch("fires").await;
    let jobs = Wake::Jobs(queue("jobs"));
    keeper.put(job("unwatched", "x")).await.unwrap();
    keeper.put(job("jobs", "a")).await.unwrap();
    assert_eq!(ear.next().await, jobs);
    // There is something already: nothing more is said until a pause ends.
    keeper.put(job("jobs", "b")).await.unwrap();
    keeper.put(Put { group: Some("g".into()), ..job("jobs", "c") }).await.unwrap();
    assert_eq!(keeper.change("jobs", Change::Pause(true)).await, Ok(1));
    assert_eq!(keeper.take("jobs", 5).await.held, Some(Held::Paused));
    assert_eq!(keeper.change("jobs", Change::Pause(false)).await, Ok(1));
    assert_eq!(ear.next().await, jobs);
    let taken = keeper.take("jobs", 5).await;
    assert_eq!(taken.jobs.len(), 3);
    assert_eq!(keeper.settle("jobs", &taken.jobs[0], How::Release).await, Ok(Settled::Done));
    assert_eq!(ear.next().await, jobs);
    assert_eq!(keeper.settle("jobs", &taken.jobs[1], How::Term { error: None }).await, Ok(Settled::Dead));
    assert_eq!(keeper.take("jobs", 5).await.jobs.len(), 1);
    assert_eq!(keeper.change("jobs", Change::Redrive { jobs: None, cause: None, limit: 9 }).await, Ok(1));
    assert_eq!(ear.next().await, jobs);

    let start = StartWhen { any: vec![Arm::Count(2)], mode: Start::Gate, batch: None, webhook: None };
    let own = QueueSettings { start_when: Some(start), ..QueueSettings::default() };
    keeper.change("fires", Change::Settings(Some(Box::new(own)))).await.unwrap();
    keeper.put(job("fires", "a")).await.unwrap();
    assert_eq!(keeper.take("fires", 5).await.held, Some(Held::Gate));
    keeper.put(job("fires", "b")).await.unwrap();
    let mut heard = [ear.next().await, ear.next().await];
    heard.sort_by_key(|wake| matches!(wake, Wake::Fired(_)));
    assert_eq!(heard, [Wake::Jobs(queue("fires")), Wake::Fired(queue("fires"))]);
    let fired = keeper.queues.queues.sweep(&queue("fires")).await.unwrap().fired.expect("it is told once");
    assert_eq!((fired.number, fired.arm, fired.waiting[4]), (1, 0, 2));
    assert_eq!(keeper.queues.queues.sweep(&queue("fires")).await.unwrap().fired, None);
    assert_eq!(keeper.change("fires", Change::Told(1)).await, Ok(1));
    assert_eq!(keeper.take("fires", 5).await.jobs.len(), 2);
    ear.watch.unwatch(&queue("jobs"));
}

#[tokio::test]
async fn wakes_come_on_one_redis() {
    let server = RedisServer::start();
    wakes_come_when_there_is_something_to_take(keeper(&server.url(), Options::default()).await).await;
}

#[tokio::test]
async fn wakes_that_may_be_lost_are_told() {
    let mut server = RedisServer::start();
    let keeper = keeper(&server.url(), Options::default()).await;
    let mut ear = Ear::open(&keeper);
    ear.watch("jobs").await;
    server.restart_empty();
    assert_eq!(ear.next().await, Wake::Lost);
}
